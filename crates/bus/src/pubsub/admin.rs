//! Makes topics and subscriptions as this bus needs them, or checks that they are.

use std::{future::Future, time::Duration};

use google_cloud_gax::error::{Error, rpc::Code};
use google_cloud_pubsub::model;

use super::{
    clients::{Clients, LEASE},
    errors, names,
};
use crate::{BusError, PushTarget, Subscription};

/// How long a question about a subscription may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a refused event rests. Pub/Sub's own default is 10 s.
const NACK_BACKOFF: Duration = Duration::from_millis(100);
/// The name Pub/Sub shows instead of a topic that was deleted.
const DELETED_TOPIC: &str = "_deleted-topic_";

/// How the events of a subscription get to its group.
#[derive(Debug, Clone, Copy)]
pub(super) enum Means<'a> {
    /// Its consumers ask.
    Pull,
    /// They are posted there.
    Push(&'a PushTarget),
}

impl Means<'_> {
    fn config(self) -> model::PushConfig {
        let Self::Push(target) = self else {
            return model::PushConfig::new();
        };
        let token = model::push_config::OidcToken::new()
            .set_service_account_email(&target.service_account)
            .set_audience(&target.audience);
        model::PushConfig::new()
            .set_push_endpoint(&target.endpoint)
            .set_oidc_token(token)
    }
}

/// That the subscription is there and keeps the bus's promises.
pub(super) async fn check(
    clients: &Clients,
    project: &str,
    place: &Subscription,
    means: Means<'_>,
) -> Result<(), BusError> {
    let topic = names::topic(project, &place.topic)?;
    let name = names::subscription(project, place)?;
    let get = clients.subscriptions.get_subscription();
    let found = in_time(get.set_subscription(&name).send()).await?;
    let found = found.map_err(|err| errors::call(&err, place))?;
    let pushes_to = found.push_config.map(|push| push.push_endpoint);
    let pushes_to = pushes_to.unwrap_or_default();
    let problem = if found.topic == DELETED_TOPIC {
        "its topic was deleted, and what is published goes elsewhere"
    } else if found.topic != topic {
        "it is of another topic"
    } else if !found.enable_message_ordering {
        "it keeps no order"
    } else if found.dead_letter_policy.is_some() {
        "its dead-letter policy throws out events that are only held for long"
    } else {
        match means {
            Means::Pull if !pushes_to.is_empty() => "it pushes, and nobody can pull from it",
            Means::Push(target) if pushes_to.is_empty() => {
                let (to, id) = (&target.endpoint, &name);
                return Err(BusError::Refused(format!(
                    "the subscription {id} is for pulling, and pushes nothing to {to}: \
                     delete it and have it created again"
                )));
            }
            _ => return Ok(()),
        }
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
    means: Means<'_>,
) -> Result<(), BusError> {
    match check(clients, project, place, means).await {
        Err(BusError::NotFound(_)) => {}
        Ok(()) => return repoint(clients, project, place, means).await,
        Err(err) => return Err(err),
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
        .set_push_config(means.config())
        // Without a time to live: never.
        .set_expiration_policy(model::ExpirationPolicy::new())
        .send();
    created(in_time(create).await?, place)?;
    check(clients, project, place, means).await
}

/// Has a subscription that pushes do so to where its group is now.
async fn repoint(
    clients: &Clients,
    project: &str,
    place: &Subscription,
    means: Means<'_>,
) -> Result<(), BusError> {
    if matches!(means, Means::Pull) {
        return Ok(());
    }
    let modify = clients
        .subscriptions
        .modify_push_config()
        .set_subscription(names::subscription(project, place)?)
        .set_push_config(means.config());
    let modified = in_time(modify.send()).await?;
    modified
        .map(|_| ())
        .map_err(|err| errors::call(&err, place))
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
