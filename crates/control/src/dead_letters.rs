//! Where events go that can't be read.

use std::{fmt, sync::Arc, time::Duration};

use infrachat_bus::{BusError, Event, EventBus, Subscription, Topic};
use infrachat_types::Region;

/// Who reads what was set aside.
pub const DEAD_LETTER_GROUP: &str = "operators";
/// A bus that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A region's dead-letter topic.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    bus: Arc<dyn EventBus>,
    topic: Topic,
}

impl DeadLetters {
    /// Of a region.
    #[must_use]
    pub fn new(bus: Arc<dyn EventBus>, region: &Region) -> Self {
        Self {
            bus,
            topic: Topic {
                region: region.to_string(),
                name: infrachat_routing::DEAD_LETTER_TOPIC.to_owned(),
            },
        }
    }

    /// Where operators find what was set aside.
    #[must_use]
    pub fn subscription(&self) -> Subscription {
        Subscription {
            topic: self.topic.clone(),
            group: DEAD_LETTER_GROUP.to_owned(),
        }
    }

    /// Keeps an event as it came, with where it came from and what is wrong with it in the attributes
    /// `infrachat-from` and `infrachat-error`. Resolves once it is durable.
    ///
    /// # Errors
    /// When the bus does not take it in time: set it aside again.
    pub async fn put(
        &self,
        event: &Event,
        from: impl fmt::Display,
        why: impl fmt::Display,
    ) -> Result<(), BusError> {
        tracing::warn!(%from, %why, "an unreadable event goes to the dead-letter topic");
        let mut event = Event {
            ordering_key: String::new(),
            ..event.clone()
        };
        let mut note = |name: &str, value: String| event.attributes.insert(name.to_owned(), value);
        note("infrachat-from", from.to_string());
        note("infrachat-error", why.to_string());
        let publishing = self.bus.publish(&self.topic, event);
        tokio::time::timeout(TIMEOUT, publishing)
            .await
            .unwrap_or_else(|_| Err(BusError::Unavailable(format!("no answer in {TIMEOUT:?}"))))
            .inspect_err(|err| tracing::warn!(%err, "the dead-letter topic can't be reached"))
    }
}
