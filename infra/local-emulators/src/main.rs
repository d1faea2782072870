//! The emulators' process: composes, and runs until told to stop.

mod options;

use clap::Parser;
use infrachat_emulators::{clock::Clock, control::Control, faults::Faults, firestore, pubsub};
use tokio_util::sync::CancellationToken;

use crate::options::Options;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    infrachat_runtime::telemetry::init("info");
    // Which cryptography the pushing client uses; an error means that it is settled already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let faults = Faults::new(options.settings()?, options.seed);
    let clock = Clock::start();
    let control = Control::bind(&options.control, faults.clone(), clock.clone()).await?;
    let pubsub = pubsub::Emulator::bind(pubsub::Config {
        address: options.pubsub,
        faults: faults.clone(),
        clock,
        issuer: options.issuer,
    })
    .await?;
    let firestore = firestore::Emulator::bind(firestore::Config {
        address: options.firestore,
        faults,
        history: firestore::History::default(),
    })
    .await?;
    tracing::info!(address = %control.address(), "faults are controlled here");
    tracing::info!("PUBSUB_EMULATOR_HOST={}", pubsub.address());
    tracing::info!("FIRESTORE_EMULATOR_HOST={}", firestore.address());

    let stop = CancellationToken::new();
    let signal = async {
        infrachat_runtime::signals::shutdown().await;
        stop.cancel();
        Ok(())
    };
    let pubsub = async { pubsub.run(stop.clone()).await.map_err(anyhow::Error::from) };
    let firestore = async {
        firestore
            .run(stop.clone())
            .await
            .map_err(anyhow::Error::from)
    };
    let control = async { control.run(stop.clone()).await.map_err(anyhow::Error::from) };
    tokio::try_join!(pubsub, firestore, control, signal)?;
    Ok(())
}
