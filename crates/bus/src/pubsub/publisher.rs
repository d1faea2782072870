//! Publishing to one topic: the order of each key, deadlines, and a bound on what is under way.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use google_cloud_pubsub::{client::Publisher, model::Message, publisher::PublishFuture};
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

use super::{
    PubsubConfig, errors, names,
    order::{Keys, Place},
    room::{Held, Room},
};
use crate::{BusError, Event, Topic};

type Answer = oneshot::Sender<Result<(), BusError>>;

#[derive(Debug)]
pub(super) struct TopicPublisher {
    topic: Topic,
    client: Publisher,
    deadline: Duration,
    room: Room,
    keys: Mutex<Keys>,
}

/// An event's key and its place in it; none without a key.
type Turn = Option<(String, Place)>;

impl TopicPublisher {
    pub(super) fn new(topic: Topic, client: Publisher, config: &PubsubConfig) -> Self {
        let limits = config.publish_limits;
        Self {
            topic,
            client,
            deadline: config.publish_deadline,
            room: Room::new(limits.events, limits.bytes),
            keys: Mutex::default(),
        }
    }

    pub(super) fn publish(
        self: &Arc<Self>,
        event: Event,
    ) -> BoxFuture<'static, Result<(), BusError>> {
        let (answer, answered) = oneshot::channel();
        // Held until the client has the event: so the order of places is the order of handing over.
        let mut keys = self.keys.lock();
        let turn = match &event.ordering_key {
            key if key.is_empty() => Ok(None),
            key => keys.take(key).map(|place| Some((key.clone(), place))),
        };
        match turn.and_then(|turn| self.admit(&mut keys, turn, &event)) {
            Ok((turn, held)) => {
                let accepted = self.client.publish(message(event));
                drop(keys);
                tokio::spawn(Arc::clone(self).follow(turn, accepted, held, answer));
            }
            Err(err) => drop(answer.send(Err(err))),
        }
        let stopped = || Err(BusError::Unavailable("the process is stopping".to_owned()));
        async move { answered.await.unwrap_or_else(|_| stopped()) }.boxed()
    }

    fn admit(&self, keys: &mut Keys, turn: Turn, event: &Event) -> Result<(Turn, Held), BusError> {
        let held = names::check(event).and_then(|()| {
            let held = self.room.try_take(event.payload.len());
            held.ok_or_else(|| {
                BusError::Unavailable("too many events wait for Pub/Sub's answer".to_owned())
            })
        });
        match held {
            Ok(held) => Ok((turn, held)),
            Err(err) => Err(settle(keys, &turn, Err(err.clone())).err().unwrap_or(err)),
        }
    }

    /// Tells what becomes of an event, in time. What the client keeps longer counts as under way.
    async fn follow(
        self: Arc<Self>,
        turn: Turn,
        mut accepted: PublishFuture,
        held: Held,
        answer: Answer,
    ) {
        let went = match timeout(self.deadline, &mut accepted).await {
            Ok(went) => Some(went.map(drop)),
            Err(_) => None,
        };
        let is_late = went.is_none();
        let went = match went {
            Some(went) => went.map_err(|err| errors::publish(&err, &self.topic)),
            None => Err(BusError::Unavailable(format!(
                "no answer within {:?}",
                self.deadline
            ))),
        };
        let went = settle(&mut self.keys.lock(), &turn, went);
        // Nobody may be waiting; the order is kept all the same.
        drop(answer.send(went));
        if is_late {
            drop(accepted.await);
        }
        drop(held);
    }

    pub(super) fn resume(&self, ordering_key: &str) {
        let mut keys = self.keys.lock();
        if keys.resume(ordering_key) {
            // The client tells of a failure before it pauses the key. After a flush it has paused,
            // so that resuming it is not too early. Polled once, the flush is on its way.
            let _: Option<()> = self.client.flush().now_or_never();
            self.client.resume_publish(ordering_key);
        }
    }
}

fn settle(keys: &mut Keys, turn: &Turn, went: Result<(), BusError>) -> Result<(), BusError> {
    match turn {
        Some((key, place)) => keys.settle(key, *place, went),
        None => went,
    }
}

fn message(event: Event) -> Message {
    Message::new()
        .set_data(event.payload)
        .set_attributes(event.attributes)
        .set_ordering_key(event.ordering_key)
}
