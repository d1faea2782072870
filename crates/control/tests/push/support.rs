//! A service that takes pushes and notes what they ask for.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use infrachat_bus::{EventBus, PubsubBus, PubsubConfig, PubsubEndpoint};
use infrachat_control::{Apply, ApplyError, DeadLetters, Follower, Hearing};
use infrachat_proto::bus::v1::{ChannelChanged, control_event::Kind};
use infrachat_types::Region;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const PROJECT: &str = "push-test";
pub(crate) const AUDIENCE: &str = "https://switchboard.example";
pub(crate) const PUSHER: &str = "pubsub@push-test.iam.gserviceaccount.com";

pub(crate) fn region() -> Region {
    Region::new("us-west1").expect("a region")
}

/// What was applied, and whether anything can be.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) applied: watch::Sender<Vec<String>>,
    pub(crate) away: watch::Sender<bool>,
    pub(crate) refused: watch::Sender<usize>,
}

#[async_trait]
impl Apply for Notes {
    async fn apply(&self, kind: Kind) -> Result<(), ApplyError> {
        if *self.away.borrow() {
            self.refused.send_modify(|refused| *refused += 1);
            return Err(ApplyError::Unavailable("the store is away".to_owned()));
        }
        match kind {
            Kind::ChannelChanged(changed) if changed.channel == "#unreadable" => {
                Err(ApplyError::Unreadable("no such thing".to_owned()))
            }
            Kind::ChannelChanged(changed) => {
                self.applied.send_modify(|all| all.push(changed.channel));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Waits until a noted value is as it should be.
pub(crate) async fn until<T>(noted: &watch::Sender<T>, holds: impl FnMut(&T) -> bool) {
    let mut noted = noted.subscribe();
    let waited = tokio::time::timeout(Duration::from_secs(20), noted.wait_for(holds)).await;
    assert!(matches!(waited, Ok(Ok(_))), "in vain");
}

pub(crate) fn changed(channel: &str) -> Kind {
    Kind::ChannelChanged(ChannelChanged {
        channel: channel.to_owned(),
        version: 1,
        home_region: "us-west1".to_owned(),
    })
}

pub(crate) async fn pubsub(address: &str) -> Arc<PubsubBus> {
    // An error means that it is settled already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let endpoint = PubsubEndpoint::Emulator(address.to_owned());
    let config = PubsubConfig {
        create_topics: true,
        ..PubsubConfig::new(PROJECT, BTreeMap::from([(region().to_string(), endpoint)]))
    };
    Arc::new(PubsubBus::connect(config).await.expect("connects"))
}

/// A running service.
pub(crate) struct Service {
    pub(crate) notes: Arc<Notes>,
    pub(crate) address: SocketAddr,
    _stop: DropGuard,
}

impl Service {
    pub(crate) async fn start(bus: Arc<dyn EventBus>, hearing: Hearing) -> Self {
        let notes = Arc::<Notes>::default();
        let letters = DeadLetters::new(Arc::clone(&bus), &region());
        let apply = Arc::clone(&notes) as Arc<dyn Apply>;
        let group = "switchboard-us-west1".to_owned();
        let follower = Follower::new(bus, vec![region()], group, apply, letters);
        follower.prepare(&hearing).await.expect("prepares");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let routes = follower.routes(&hearing);
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            axum::serve(listener, routes).await.expect("serves");
        }));
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(async move { follower.run(&hearing, address).await }),
        );
        Self {
            notes,
            address,
            _stop: stop.drop_guard(),
        }
    }
}
