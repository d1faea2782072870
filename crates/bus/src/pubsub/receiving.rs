//! Moves what a stream brings to one consumer, within its limits.

use google_cloud_pubsub::{
    model::Message,
    subscriber::{MessageStream, handler::Handler},
};
use tokio::sync::mpsc;

use super::room::{Held, Room};
use crate::{Acker, ConsumeLimits, Delivery, DeliverySink, Event, Subscription};

/// Ends when the consumer is dropped, or the stream for good. Then everything unsettled is handed
/// back at once, and acknowledgements given before are sent.
pub(super) fn start(
    subscription: Subscription,
    stream: MessageStream,
    limits: ConsumeLimits,
    sink: DeliverySink,
) {
    let DeliverySink {
        deliveries,
        stopped,
    } = sink;
    let shutdown = stream.shutdown_token();
    // Pub/Sub keeps to limits only roughly.
    let room = Room::new(limits.events, limits.bytes);
    tokio::spawn(async move {
        let forwarding = forward(&subscription, stream, &room, deliveries);
        let _: Option<()> = stopped.run_until_cancelled(forwarding).await;
        shutdown.shutdown().await;
    });
}

async fn forward(
    subscription: &Subscription,
    mut stream: MessageStream,
    room: &Room,
    deliveries: mpsc::Sender<Delivery>,
) {
    loop {
        match stream.next().await {
            Some(Ok((message, handler))) => {
                let Some(held) = room.take(message.data.len()).await else {
                    return;
                };
                if deliveries
                    .send(delivery(message, handler, held))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Some(Err(err)) => {
                tracing::warn!(%subscription, %err, "consuming ended");
                return;
            }
            None => return,
        }
    }
}

fn delivery(message: Message, handler: Handler, held: Held) -> Delivery {
    // Pub/Sub counts only where there is a dead-letter policy.
    let attempt = handler.delivery_attempt();
    let attempt = attempt.and_then(|attempt| u32::try_from(attempt).ok());
    let event = Event {
        ordering_key: message.ordering_key,
        payload: message.data,
        attributes: message.attributes.into_iter().collect(),
    };
    let acker = Leased {
        handler,
        _held: held,
    };
    Delivery::new(event, attempt.unwrap_or(1), Box::new(acker))
}

/// A delivery's way back. The client renews its lease meanwhile.
struct Leased {
    handler: Handler,
    _held: Held,
}

impl Acker for Leased {
    fn ack(self: Box<Self>) {
        self.handler.ack();
    }

    fn nack(self: Box<Self>) {
        self.handler.nack();
    }
}
