//! Makes topics and subscriptions as this bus needs them, or checks that they are.

use std::{future::Future, time::Duration};

use google_cloud_gax::error::{Error, rpc::Code};
use google_cloud_pubsub::model;

use super::{
    clients::{Clients, LEASE},
    errors, names,
};
use crate::{BusError, Subscription};

/// How long a question about a subscription may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a refused event rests. Pub/Sub's own default is 10 s.
const NACK_BACKOFF: Duration = Duration::from_millis(100);
/// The name Pub/Sub shows instead of a topic that was deleted.
const DELETED_TOPIC: &str = "_deleted-topic_";

/// That the subscription is there and keeps the bus's promises.
pub(super) async fn check(
    clients: &Clients,
    project: &str,
    place: &Subscription,
) -> Result<(), BusError> {
    let topic = names::topic(project, &place.topic)?;
    let name = names::subscription(project, place)?;
    let get = clients.subscriptions.get_subscription();
    let found = in_time(get.set_subscription(&name).send()).await?;
    let found = found.map_err(|err| errors::call(&err, place))?;
    let problem = if found.topic == DELETED_TOPIC {
        "its topic was deleted, and what is published goes elsewhere"
    } else if found.topic != topic {
        "it is of another topic"
    } else if !found.enable_message_ordering {
        "it keeps no order"
    } else if found.dead_letter_policy.is_some() {
        "its dead-letter policy throws out events that are only held for long"
    } else {
        return Ok(());
    };
    Err(BusError::Refused(format!(
        "the subscription {name} can't be used, {problem}: delete it and have it created again"
    )))
}

/// The same, after creating what is missing.
pub(super) async fn create(
    clients: &Clients,
    project: &str,
    place: &Subscription,
) -> Result<(), BusError> {
    match check(clients, project, place).await {
        Err(BusError::NotFound(_)) => {}
        checked => return checked,
    }
    let topic = names::topic(project, &place.topic)?;
    let name = names::subscription(project, place)?;
    let create = clients.topics.create_topic().set_name(&topic).send();
    created(in_time(create).await?, place)?;
    let backoff = google_cloud_wkt::Duration::try_from(NACK_BACKOFF);
    let backoff = backoff.map_err(|err| BusError::Refused(err.to_string()))?;
    let create = clients
        .subscriptions
        .create_subscription()
        .set_name(&name)
        .set_topic(&topic)
        .set_enable_message_ordering(true)
        .set_ack_deadline_seconds(i32::try_from(LEASE.as_secs()).unwrap_or(i32::MAX))
        .set_retry_policy(model::RetryPolicy::new().set_minimum_backoff(backoff))
        // Without a time to live: never.
        .set_expiration_policy(model::ExpirationPolicy::new())
        .send();
    created(in_time(create).await?, place)?;
    check(clients, project, place).await
}

/// Somebody else may have been faster.
fn created<T>(answer: Result<T, Error>, place: &Subscription) -> Result<(), BusError> {
    match answer {
        Err(err) if errors::code(&err) != Some(Code::AlreadyExists) => {
            Err(errors::call(&err, place))
        }
        _ => Ok(()),
    }
}

async fn in_time<T>(call: impl Future<Output = T>) -> Result<T, BusError> {
    let late = |_| BusError::Unavailable(format!("no answer within {DEADLINE:?}"));
    tokio::time::timeout(DEADLINE, call).await.map_err(late)
}
