//! What topics and subscriptions may be set to, and what they are set to by default.

use std::time::Duration;

use prost_types::Duration as ProtoDuration;
use tonic::Status;

use super::{
    filter::Filter,
    names::{self, Kind},
    queue::{Backoff, Rules},
};
use crate::proto::{ExpirationPolicy, PushConfig, Subscription, Topic, subscription, topic};

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 3600;
const DEFAULT_ACK_DEADLINE: i32 = 10;
/// The shortest and longest deadlines that Google takes, in seconds.
pub(crate) const ACK_DEADLINES: std::ops::RangeInclusive<i32> = 10..=600;
const DEFAULT_ATTEMPTS: i32 = 5;
const SHORTEST_RETENTION: Duration = Duration::from_secs(10 * MINUTE);
const LONGEST_RETENTION: Duration = Duration::from_secs(31 * DAY);
const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * DAY);
const DEFAULT_TTL: Duration = Duration::from_secs(31 * DAY);
const DEFAULT_BACKOFF: Backoff = Backoff {
    min: Duration::from_secs(10),
    max: Duration::from_secs(600),
};

/// Checks a topic's settings and fills in what isn't set.
pub(crate) fn topic(mut topic: Topic) -> Result<Topic, Status> {
    names::check(Kind::Topic, &topic.name)?;
    refuse(topic.schema_settings.is_some(), "schema_settings")?;
    refuse(
        topic.ingestion_data_source_settings.is_some(),
        "ingestion_data_source_settings",
    )?;
    refuse(!topic.message_transforms.is_empty(), "message_transforms")?;
    topic_retention(&topic)?;
    topic.state = topic::State::Active.into();
    topic.tags.clear();
    Ok(topic)
}

/// How long a topic keeps messages for seeks, if it does.
pub(crate) fn topic_retention(topic: &Topic) -> Result<Option<Duration>, Status> {
    topic
        .message_retention_duration
        .as_ref()
        .map(retention)
        .transpose()
}

/// Checks a subscription's settings and fills in what isn't set.
pub(crate) fn subscription(mut new: Subscription) -> Result<Subscription, Status> {
    names::check(Kind::Subscription, &new.name)?;
    refuse(new.bigquery_config.is_some(), "bigquery_config")?;
    refuse(new.cloud_storage_config.is_some(), "cloud_storage_config")?;
    refuse(new.bigtable_config.is_some(), "bigtable_config")?;
    refuse(!new.message_transforms.is_empty(), "message_transforms")?;
    refuse(
        new.enable_exactly_once_delivery,
        "enable_exactly_once_delivery",
    )?;
    if new.ack_deadline_seconds == 0 {
        new.ack_deadline_seconds = DEFAULT_ACK_DEADLINE;
    }
    if !ACK_DEADLINES.contains(&new.ack_deadline_seconds) {
        return Err(Status::invalid_argument(format!(
            "Invalid ack deadline given (ack_deadline_seconds={}). The value must be between 10 and 600.",
            new.ack_deadline_seconds
        )));
    }
    let kept = match &new.message_retention_duration {
        Some(duration) => retention(duration)?,
        None => DEFAULT_RETENTION,
    };
    new.message_retention_duration = Some(proto(kept));
    expiration(&mut new, kept)?;
    dead_letters(&mut new)?;
    retries(&mut new)?;
    filter(&new)?;
    if let Some(push) = &new.push_config {
        push_config(push)?;
    }
    new.push_config.get_or_insert_default();
    new.state = subscription::State::Active.into();
    new.tags.clear();
    Ok(new)
}

/// The filter of a subscription, if it has one.
pub(crate) fn filter(settings: &Subscription) -> Result<Option<Filter>, Status> {
    if settings.filter.is_empty() {
        return Ok(None);
    }
    Filter::parse(&settings.filter).map(Some).map_err(|err| {
        let text = &settings.filter;
        Status::invalid_argument(format!("Invalid filter given (filter={text}): {err}."))
    })
}

/// Checks where a subscription pushes to.
pub(crate) fn push_config(push: &PushConfig) -> Result<(), Status> {
    let endpoint = &push.push_endpoint;
    let is_url = reqwest::Url::parse(endpoint)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if endpoint.is_empty() || is_url {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "Invalid push endpoint given (endpoint={endpoint}). Refer to \
         https://cloud.google.com/pubsub/docs/push for more information."
    )))
}

/// What a queue obeys. Without a dead-letter topic that exists, messages are retried for ever.
pub(crate) fn rules(settings: &Subscription, dead_letters: bool) -> Rules {
    let attempts = settings
        .dead_letter_policy
        .as_ref()
        .filter(|_| dead_letters)
        .and_then(|policy| u32::try_from(policy.max_delivery_attempts).ok());
    let kept = settings.message_retention_duration.as_ref();
    Rules {
        ordering: settings.enable_message_ordering,
        one_per_key: endpoint(settings).is_some(),
        retry: settings.retry_policy.as_ref().map(|policy| Backoff {
            min: or(policy.minimum_backoff.as_ref(), DEFAULT_BACKOFF.min),
            max: or(policy.maximum_backoff.as_ref(), DEFAULT_BACKOFF.max),
        }),
        max_attempts: attempts,
        retention: or(kept, DEFAULT_RETENTION),
        retain_acked: settings.retain_acked_messages,
    }
}

/// Where a subscription pushes to, if it does.
pub(crate) fn endpoint(settings: &Subscription) -> Option<&str> {
    let push = settings.push_config.as_ref()?;
    (!push.push_endpoint.is_empty()).then_some(push.push_endpoint.as_str())
}

/// The wire's form of a duration; `None` for a negative one.
fn std(duration: &ProtoDuration) -> Option<Duration> {
    Duration::try_from(*duration).ok()
}

fn or(duration: Option<&ProtoDuration>, default: Duration) -> Duration {
    duration.and_then(std).unwrap_or(default)
}

fn proto(duration: Duration) -> ProtoDuration {
    ProtoDuration::try_from(duration).unwrap_or(ProtoDuration {
        seconds: i64::MAX,
        nanos: 0,
    })
}

fn refuse(set: bool, what: &str) -> Result<(), Status> {
    if set {
        return Err(Status::unimplemented(format!(
            "The emulator does not support {what}."
        )));
    }
    Ok(())
}

fn retention(duration: &ProtoDuration) -> Result<Duration, Status> {
    std(duration)
        .filter(|kept| (SHORTEST_RETENTION..=LONGEST_RETENTION).contains(kept))
        .ok_or_else(|| {
            Status::invalid_argument(
                "Invalid message_retention_duration given. The value must be between 10 minutes \
                 and 31 days.",
            )
        })
}

fn expiration(new: &mut Subscription, kept: Duration) -> Result<(), Status> {
    let policy = new.expiration_policy.get_or_insert(ExpirationPolicy {
        ttl: Some(proto(DEFAULT_TTL)),
    });
    let Some(ttl) = &policy.ttl else {
        return Ok(());
    };
    let shortest = kept.max(Duration::from_secs(DAY));
    match std(ttl) {
        Some(ttl) if ttl >= shortest => Ok(()),
        _ => Err(Status::invalid_argument(
            "Invalid expiration_policy.ttl given. The value must be at least 1 day and at least \
             message_retention_duration.",
        )),
    }
}

fn dead_letters(new: &mut Subscription) -> Result<(), Status> {
    let Some(policy) = &mut new.dead_letter_policy else {
        return Ok(());
    };
    names::check(Kind::Topic, &policy.dead_letter_topic)?;
    if policy.max_delivery_attempts == 0 {
        policy.max_delivery_attempts = DEFAULT_ATTEMPTS;
    }
    if (5..=100).contains(&policy.max_delivery_attempts) {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "Invalid max_delivery_attempts given ({}). The value must be between 5 and 100.",
        policy.max_delivery_attempts
    )))
}

fn retries(new: &mut Subscription) -> Result<(), Status> {
    let Some(policy) = &mut new.retry_policy else {
        return Ok(());
    };
    let min = *policy
        .minimum_backoff
        .get_or_insert(proto(DEFAULT_BACKOFF.min));
    let max = *policy
        .maximum_backoff
        .get_or_insert(proto(DEFAULT_BACKOFF.max));
    match (std(&min), std(&max)) {
        (Some(min), Some(max)) if min <= max && max <= DEFAULT_BACKOFF.max => Ok(()),
        _ => Err(Status::invalid_argument(
            "Invalid retry_policy given. Backoffs must be between 0 and 600 seconds, and the \
             minimum at most the maximum.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{DeadLetterPolicy, RetryPolicy};

    fn plain() -> Subscription {
        Subscription {
            name: "projects/p/subscriptions/sub".to_owned(),
            topic: "projects/p/topics/top".to_owned(),
            ..Subscription::default()
        }
    }

    #[test]
    fn defaults_are_googles() {
        let set = subscription(plain()).expect("a plain subscription is fine");
        assert_eq!(set.ack_deadline_seconds, 10);
        assert_eq!(
            set.message_retention_duration,
            Some(proto(DEFAULT_RETENTION))
        );
        let ttl = set.expiration_policy.and_then(|policy| policy.ttl);
        assert_eq!(ttl, Some(proto(DEFAULT_TTL)));
    }

    #[test]
    fn what_google_refuses_is_refused() {
        type Spoil = fn(&mut Subscription);
        let spoils: [Spoil; 7] = [
            |new| new.ack_deadline_seconds = 9,
            |new| new.ack_deadline_seconds = 601,
            |new| new.message_retention_duration = Some(proto(Duration::from_secs(59))),
            |new| new.filter = "attributes".to_owned(),
            |new| {
                new.push_config = Some(PushConfig {
                    push_endpoint: "not a url".to_owned(),
                    ..PushConfig::default()
                })
            },
            |new| {
                new.dead_letter_policy = Some(DeadLetterPolicy {
                    dead_letter_topic: "projects/p/topics/dead".to_owned(),
                    max_delivery_attempts: 4,
                })
            },
            |new| {
                new.retry_policy = Some(RetryPolicy {
                    minimum_backoff: Some(proto(Duration::from_secs(20))),
                    maximum_backoff: Some(proto(Duration::from_secs(10))),
                })
            },
        ];
        for (at, spoil) in spoils.into_iter().enumerate() {
            let mut new = plain();
            spoil(&mut new);
            let refused = subscription(new).expect_err(&format!("spoil {at} was taken"));
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        }
    }

    #[test]
    fn without_a_dead_letter_topic_messages_never_die() {
        let mut new = plain();
        new.dead_letter_policy = Some(DeadLetterPolicy {
            dead_letter_topic: "projects/p/topics/dead".to_owned(),
            max_delivery_attempts: 7,
        });
        assert_eq!(rules(&new, true).max_attempts, Some(7));
        assert_eq!(rules(&new, false).max_attempts, None);
    }
}
