//! The command line.

use std::{path::PathBuf, str::FromStr};

use anyhow::{Context, bail};
use clap::Parser;

use infrachat_emulators::faults::{Service, Settings};

/// Google Cloud Pub/Sub and Firestore on this machine, in memory, with faults on demand.
///
/// Clients find them by PUBSUB_EMULATOR_HOST and FIRESTORE_EMULATOR_HOST. Faults can also be read, set and lifted while it
/// runs, over HTTP at the control address: GET, PUT or DELETE /faults; POST /pause, /resume, /cut,
/// /heal, /break-streams, /advance.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Options {
    /// Where Pub/Sub listens, gRPC and REST
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "PUBSUB_EMULATOR_HOST",
        default_value = "localhost:8085"
    )]
    pub(crate) pubsub: String,

    /// Where Firestore listens
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "FIRESTORE_EMULATOR_HOST",
        default_value = "localhost:8080"
    )]
    pub(crate) firestore: String,

    /// Where faults are controlled, HTTP with JSON
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:8086")]
    pub(crate) control: String,

    /// The issuer in the tokens of pushes [default: http:// and Pub/Sub's address]
    #[arg(long, value_name = "URL")]
    pub(crate) issuer: Option<String>,

    /// What chance starts from: the same seed and the same calls give the same faults
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,

    /// Faults from a file, in the form of GET /faults; other options come on top
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,

    /// Refuses a method with UNAVAILABLE at a rate: pubsub.Publish=0.01, firestore.*=0.1
    #[arg(long, value_name = "SERVICE.METHOD=RATE")]
    refuse: Vec<Refusal>,

    /// Lets each call of a service wait: pubsub=20
    #[arg(long, value_name = "SERVICE=MS")]
    latency: Vec<Latency>,

    /// Lets messages from one region's topics arrive later at another's subscriptions:
    /// us-west1:asia-northeast1=60
    #[arg(long, value_name = "FROM:TO=MS")]
    link: Vec<Link>,

    /// How often a delivery comes twice, 0 to 1
    #[arg(long, value_name = "RATE")]
    duplicate: Option<f64>,

    /// How often an acknowledgement is lost, so that the message comes again, 0 to 1
    #[arg(long, value_name = "RATE")]
    redeliver: Option<f64>,

    /// How often a message is held back, 0 to 1
    #[arg(long, value_name = "RATE")]
    delay: Option<f64>,

    /// At most how long a message is held back
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    delay_ms: u64,

    /// How often other messages and keys go before one that is due, 0 to 1
    #[arg(long, value_name = "RATE")]
    reorder: Option<f64>,
}

impl Options {
    /// The faults to start with.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = match &self.faults {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("can't read {}", path.display()))?;
                serde_json::from_str(&text)
                    .with_context(|| format!("{} holds no faults", path.display()))?
            }
            None => Settings::default(),
        };
        for refusal in &self.refuse {
            let calls = settings.calls_mut(refusal.service);
            calls.refuse.insert(refusal.method.clone(), refusal.rate);
        }
        for latency in &self.latency {
            settings.calls_mut(latency.service).latency_ms = latency.ms;
        }
        for link in &self.link {
            settings.link_mut(&link.from, &link.to).latency_ms = link.ms;
        }
        let delivery = &mut settings.delivery;
        delivery.duplicate = self.duplicate.unwrap_or(delivery.duplicate);
        delivery.redeliver = self.redeliver.unwrap_or(delivery.redeliver);
        delivery.reorder = self.reorder.unwrap_or(delivery.reorder);
        if let Some(rate) = self.delay {
            delivery.delay = rate;
            delivery.delay_ms = self.delay_ms;
        }
        settings.check().map_err(anyhow::Error::msg)?;
        Ok(settings)
    }
}

#[derive(Debug, Clone)]
struct Refusal {
    service: Service,
    method: String,
    rate: f64,
}

impl FromStr for Refusal {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (call, rate) = halves(text, '=')?;
        let (service, method) = halves(call, '.')?;
        Ok(Self {
            service: self::service(service)?,
            method: method.to_owned(),
            rate: rate.parse()?,
        })
    }
}

#[derive(Debug, Clone)]
struct Latency {
    service: Service,
    ms: u64,
}

impl FromStr for Latency {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (service, ms) = halves(text, '=')?;
        Ok(Self {
            service: self::service(service)?,
            ms: ms.parse()?,
        })
    }
}

#[derive(Debug, Clone)]
struct Link {
    from: String,
    to: String,
    ms: u64,
}

impl FromStr for Link {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (pair, ms) = halves(text, '=')?;
        let (from, to) = halves(pair, ':')?;
        Ok(Self {
            from: from.to_owned(),
            to: to.to_owned(),
            ms: ms.parse()?,
        })
    }
}

fn halves(text: &str, at: char) -> anyhow::Result<(&str, &str)> {
    text.split_once(at)
        .with_context(|| format!("{text:?} has no '{at}'"))
}

fn service(text: &str) -> anyhow::Result<Service> {
    match text {
        "pubsub" => Ok(Service::Pubsub),
        "firestore" => Ok(Service::Firestore),
        other => bail!("{other:?} is no service: pubsub or firestore"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_faults() {
        let options = Options::parse_from([
            "infrachat-emulators",
            "--refuse=pubsub.Publish=0.25",
            "--latency=firestore=20",
            "--link=us-west1:asia-northeast1=60",
            "--duplicate=0.5",
            "--delay=0.1",
        ]);
        let settings = options.settings().expect("good options");
        assert_eq!(settings.pubsub.refuse.get("Publish"), Some(&0.25));
        assert_eq!(settings.firestore.latency_ms, 20);
        let link = settings.link("us-west1", "asia-northeast1");
        assert_eq!(link.map(|link| link.latency_ms), Some(60));
        assert_eq!(settings.delivery.duplicate, 0.5);
        assert_eq!(settings.delivery.delay_ms, 1_000);
    }

    #[test]
    fn a_rate_above_one_is_refused() {
        let options = Options::parse_from(["infrachat-emulators", "--reorder=2"]);
        assert!(options.settings().is_err());
    }
}
