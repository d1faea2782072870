//! Pub/Sub's rules for names and messages, checked here so that one event's fault is not that of
//! others in the same request.

use crate::{BusError, Event, Subscription, Topic};

const LONGEST_ID: usize = 255;
const LARGEST_PAYLOAD: usize = 10_000_000;
const LONGEST_KEY: usize = 1_024;
const MOST_ATTRIBUTES: usize = 100;
const LONGEST_ATTRIBUTE_NAME: usize = 256;
const LONGEST_ATTRIBUTE: usize = 1_024;

/// The full name of a topic.
pub(super) fn topic(project: &str, topic: &Topic) -> Result<String, BusError> {
    let id = id(&[&topic.region, &topic.name])?;
    Ok(format!("projects/{project}/topics/{id}"))
}

/// The full name of a group's subscription.
pub(super) fn subscription(project: &str, place: &Subscription) -> Result<String, BusError> {
    let id = id(&[&place.topic.region, &place.topic.name, &place.group])?;
    Ok(format!("projects/{project}/subscriptions/{id}"))
}

/// Parts hold no dot, so no two topics or groups share an id.
fn id(parts: &[&str]) -> Result<String, BusError> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let id = parts.join(".");
    let is_good = parts
        .iter()
        .all(|part| !part.is_empty() && part.bytes().all(is_allowed))
        && id.starts_with(|first: char| first.is_ascii_alphabetic())
        && !id.to_ascii_lowercase().starts_with("goog")
        && id.len() <= LONGEST_ID;
    if is_good {
        Ok(id)
    } else {
        Err(BusError::Refused(format!(
            "Pub/Sub allows no name {id:?}: use letters, digits, '-' and '_', a letter first and not \
             \"goog\", {LONGEST_ID} characters at most"
        )))
    }
}

/// Whether Pub/Sub takes it.
pub(super) fn check(event: &Event) -> Result<(), BusError> {
    let attributes = &event.attributes;
    let is_bad_name = |name: &str| {
        name.is_empty() || name.len() > LONGEST_ATTRIBUTE_NAME || name.starts_with("goog")
    };
    let problem = if event.payload.len() > LARGEST_PAYLOAD {
        format!("its payload exceeds {LARGEST_PAYLOAD} bytes")
    } else if event.payload.is_empty() && attributes.is_empty() {
        "it has neither a payload nor an attribute".to_owned()
    } else if event.ordering_key.len() > LONGEST_KEY {
        format!("its ordering key exceeds {LONGEST_KEY} bytes")
    } else if attributes.len() > MOST_ATTRIBUTES {
        format!("it has more than {MOST_ATTRIBUTES} attributes")
    } else if let Some(name) = attributes.keys().find(|name| is_bad_name(name)) {
        format!("an attribute can't be named {name:?}")
    } else if attributes.values().any(|a| a.len() > LONGEST_ATTRIBUTE) {
        format!("an attribute exceeds {LONGEST_ATTRIBUTE} bytes")
    } else {
        return Ok(());
    };
    Err(BusError::Refused(problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(region: &str, name: &str, group: &str) -> Subscription {
        Subscription {
            topic: Topic {
                region: region.to_owned(),
                name: name.to_owned(),
            },
            group: group.to_owned(),
        }
    }

    #[test]
    fn names_tell_region_topic_and_group() {
        let place = place("us-west1", "messages-17", "asia-northeast1");
        assert_eq!(
            topic("chat", &place.topic).expect("a good name"),
            "projects/chat/topics/us-west1.messages-17"
        );
        assert_eq!(
            subscription("chat", &place).expect("a good name"),
            "projects/chat/subscriptions/us-west1.messages-17.asia-northeast1"
        );
    }

    #[test]
    fn names_that_pubsub_or_the_dots_forbid_are_refused() {
        for bad in [
            place("1st", "messages", "group"),
            place("google", "messages", "group"),
            place("us-west1", "", "group"),
            place("us-west1", "a.b", "group"),
            place("us-west1", "a/b", "group"),
            place("us-west1", "messages", &"g".repeat(240)),
        ] {
            let named = subscription("chat", &bad);
            assert!(matches!(named, Err(BusError::Refused(_))), "{named:?}");
        }
    }
}
