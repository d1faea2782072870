//! Faults on demand: refusals, latency, pauses, duplicates, cuts between regions. Chance comes from
//! one seeded source, so that a run can be repeated.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tonic::Status;

/// Which emulator a call belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// The Pub/Sub emulator.
    Pubsub,
    /// The Firestore emulator.
    Firestore,
}

/// All faults that are in force. The default is none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What happens to calls of Pub/Sub.
    pub pubsub: Calls,
    /// What happens to calls of Firestore.
    pub firestore: Calls,
    /// What happens to messages.
    pub delivery: Delivery,
    /// What happens between regions.
    pub links: Vec<Link>,
    /// Regions of projects, for names that don't tell a region themselves.
    pub regions: BTreeMap<String, String>,
}

/// What happens to the calls of one service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Calls {
    /// How often a method is refused with UNAVAILABLE: rates from 0 to 1 by the method's name
    /// (`Publish`), and `*` for those not named.
    pub refuse: BTreeMap<String, f64>,
    /// How long a call waits before it is looked at.
    pub latency_ms: u64,
    /// At most how much longer, by chance.
    pub jitter_ms: u64,
    /// Calls wait and nothing is delivered until this ends.
    pub paused: bool,
}

/// What happens to messages: rates from 0 to 1.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// A delivery comes twice.
    pub duplicate: f64,
    /// An acknowledgement is lost: answered, and the message comes again after its deadline, with
    /// all later ones of its ordering key.
    pub redeliver: f64,
    /// A message is held back before its first delivery, and with it the later ones of its key.
    pub delay: f64,
    /// At most how long it is held back.
    pub delay_ms: u64,
    /// Other messages, and other keys, go before a message that is due. Within a key nothing moves.
    pub reorder: f64,
}

/// What happens to messages from topics of one region to subscriptions of another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Link {
    /// The topic's region.
    pub from: String,
    /// The subscription's region.
    pub to: String,
    /// Nothing is delivered. Messages wait in the subscription.
    pub cut: bool,
    /// How much later messages arrive.
    pub latency_ms: u64,
}

impl Settings {
    /// The faults of one service's calls.
    #[must_use]
    pub fn calls(&self, service: Service) -> &Calls {
        match service {
            Service::Pubsub => &self.pubsub,
            Service::Firestore => &self.firestore,
        }
    }

    /// The faults of one service's calls, to change.
    pub fn calls_mut(&mut self, service: Service) -> &mut Calls {
        match service {
            Service::Pubsub => &mut self.pubsub,
            Service::Firestore => &mut self.firestore,
        }
    }

    /// The link from one region to another, if it has faults.
    #[must_use]
    pub fn link(&self, from: &str, to: &str) -> Option<&Link> {
        self.links
            .iter()
            .find(|link| link.from == from && link.to == to)
    }

    /// The link from one region to another, to change.
    pub fn link_mut(&mut self, from: &str, to: &str) -> &mut Link {
        let found = self
            .links
            .iter()
            .position(|link| link.from == from && link.to == to);
        let at = found.unwrap_or_else(|| {
            self.links.push(Link {
                from: from.to_owned(),
                to: to.to_owned(),
                ..Link::default()
            });
            self.links.len() - 1
        });
        &mut self.links[at]
    }

    /// Whether every rate is one.
    ///
    /// # Errors
    /// Names the first that isn't.
    pub fn check(&self) -> Result<(), String> {
        let delivery = &self.delivery;
        let fixed = [
            ("delivery.duplicate", delivery.duplicate),
            ("delivery.redeliver", delivery.redeliver),
            ("delivery.delay", delivery.delay),
            ("delivery.reorder", delivery.reorder),
        ];
        let refusals = [&self.pubsub, &self.firestore]
            .into_iter()
            .flat_map(|calls| calls.refuse.iter())
            .map(|(method, rate)| (method.as_str(), *rate));
        for (name, rate) in fixed.into_iter().chain(refusals) {
            if !(0.0..=1.0).contains(&rate) {
                return Err(format!("{name} is {rate}; a rate is from 0 to 1"));
            }
        }
        Ok(())
    }
}

/// The faults in force, and the chance that decides. Clones share both.
#[derive(Debug, Clone)]
pub struct Faults {
    settings: Arc<watch::Sender<Settings>>,
    /// How often the streams of a service were broken.
    breaks: Arc<watch::Sender<Breaks>>,
    chance: Arc<Mutex<StdRng>>,
}

impl Default for Faults {
    fn default() -> Self {
        Self::new(Settings::default(), 0)
    }
}

impl Faults {
    /// Starts with these. The same seed and the same calls in the same order give the same faults.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings: Arc::new(watch::Sender::new(settings)),
            breaks: Arc::default(),
            chance: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
        }
    }

    /// A copy of what is in force.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings.borrow().clone()
    }

    /// Looks at what is in force.
    pub fn read<T>(&self, look: impl FnOnce(&Settings) -> T) -> T {
        look(&self.settings.borrow())
    }

    /// Changes what is in force; everything that waits on it looks again.
    pub fn change(&self, change: impl FnOnce(&mut Settings)) {
        self.settings.send_modify(change);
    }

    /// Tells of changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Settings> {
        self.settings.subscribe()
    }

    /// Breaks the open streams of a service: they end with UNAVAILABLE.
    pub fn break_streams(&self, service: Service) {
        self.breaks.send_modify(|breaks| match service {
            Service::Pubsub => breaks.pubsub += 1,
            Service::Firestore => breaks.firestore += 1,
        });
    }

    /// Tells a stream when it is to break.
    #[must_use]
    pub fn breaker(&self, service: Service) -> Breaker {
        let breaks = self.breaks.subscribe();
        let seen = breaks.borrow().of(service);
        Breaker {
            breaks,
            service,
            seen,
        }
    }

    /// True as often as the rate says.
    #[must_use]
    pub fn hit(&self, rate: f64) -> bool {
        rate > 0.0 && self.chance(|random| random.random_bool(rate.min(1.0)))
    }

    /// A number from 0 to `most`.
    #[must_use]
    pub fn upto(&self, most: u64) -> u64 {
        if most == 0 {
            return 0;
        }
        self.chance(|random| random.random_range(0..=most))
    }

    /// Lets a call of `method` (its short name, `Publish`) in: after the pause, after the latency,
    /// and not always.
    ///
    /// # Errors
    /// UNAVAILABLE, as often as the settings say.
    pub async fn admit(&self, service: Service, method: &str) -> Result<(), Status> {
        let mut settings = self.settings.subscribe();
        // The sender is in `self`: waiting can't fail.
        drop(
            settings
                .wait_for(|settings| !settings.calls(service).paused)
                .await,
        );
        let (rate, latency, jitter) = self.read(|settings| {
            let calls = settings.calls(service);
            let rate = calls.refuse.get(method).or_else(|| calls.refuse.get("*"));
            (
                rate.copied().unwrap_or(0.0),
                calls.latency_ms,
                calls.jitter_ms,
            )
        });
        let wait = latency + self.upto(jitter);
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        if self.hit(rate) {
            return Err(Status::unavailable(format!(
                "The service is currently unavailable (a fault on demand refused {method})."
            )));
        }
        Ok(())
    }

    fn chance<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.chance.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug, Default)]
struct Breaks {
    pubsub: u64,
    firestore: u64,
}

impl Breaks {
    fn of(&self, service: Service) -> u64 {
        match service {
            Service::Pubsub => self.pubsub,
            Service::Firestore => self.firestore,
        }
    }
}

/// Tells one stream of one service when it is to break.
#[derive(Debug)]
pub struct Breaker {
    breaks: watch::Receiver<Breaks>,
    service: Service,
    seen: u64,
}

impl Breaker {
    /// Resolves when the service's streams are broken: with what the stream ends with. Can be
    /// dropped and called again.
    pub async fn broken(&mut self) -> Status {
        let (service, seen) = (self.service, self.seen);
        let broken = self.breaks.wait_for(|breaks| breaks.of(service) != seen);
        // Without faults nobody is left to break anything.
        if broken.await.is_err() {
            return std::future::pending().await;
        }
        Status::unavailable("The stream was broken (a fault on demand).")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusing(rate: f64, seed: u64) -> Faults {
        let mut settings = Settings::default();
        settings.pubsub.refuse.insert("Publish".to_owned(), rate);
        Faults::new(settings, seed)
    }

    async fn outcomes(faults: &Faults) -> Vec<bool> {
        let mut outcomes = Vec::new();
        for _ in 0..200 {
            outcomes.push(faults.admit(Service::Pubsub, "Publish").await.is_ok());
        }
        outcomes
    }

    #[tokio::test]
    async fn the_same_seed_gives_the_same_refusals() {
        let first = outcomes(&refusing(0.5, 7)).await;
        assert_eq!(first, outcomes(&refusing(0.5, 7)).await);
        assert_ne!(first, outcomes(&refusing(0.5, 8)).await);
    }

    #[tokio::test]
    async fn only_the_named_method_of_the_named_service_is_refused() {
        let faults = refusing(1.0, 0);
        assert!(faults.admit(Service::Pubsub, "Publish").await.is_err());
        assert!(faults.admit(Service::Pubsub, "Pull").await.is_ok());
        assert!(faults.admit(Service::Firestore, "Publish").await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_wait_for_the_end_of_a_pause() {
        let faults = Faults::default();
        faults.change(|settings| settings.firestore.paused = true);
        let call = faults.admit(Service::Firestore, "Commit");
        tokio::pin!(call);
        let waited = tokio::time::timeout(Duration::from_secs(60), &mut call).await;
        assert!(waited.is_err(), "admitted while paused");
        faults.change(|settings| settings.firestore.paused = false);
        call.await.expect("admitted after the pause");
    }

    #[test]
    fn rates_outside_zero_and_one_are_named() {
        let mut settings = Settings::default();
        settings.delivery.duplicate = 1.5;
        let problem = settings.check().expect_err("1.5 is no rate");
        assert!(problem.contains("delivery.duplicate"), "{problem}");
    }
}
