//! StreamingPull: messages one way, acknowledgements and deadlines the other.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{
    broker::Broker,
    names,
    queue::Room,
    settings::ACK_DEADLINES,
    subscriber::check_pullable,
    subscription::{Consumer, Subscription},
};
use crate::{
    faults::Service,
    proto::{
        StreamingPullRequest, StreamingPullResponse,
        streaming_pull_response::SubscriptionProperties,
    },
};

/// Responses that wait for a slow client.
const AHEAD: usize = 2;
/// The most messages in one response.
const LARGEST_BATCH: usize = 250;
/// After how many bytes a response is full.
const FULL: usize = 1024 * 1024;

type Responses = mpsc::Sender<Result<StreamingPullResponse, Status>>;

/// Serves a stream until either side ends it; what goes back comes out of the receiver.
pub(crate) fn open(
    broker: Arc<Broker>,
    requests: Streaming<StreamingPullRequest>,
) -> mpsc::Receiver<Result<StreamingPullResponse, Status>> {
    let (responses, outgoing) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        if let Err(status) = serve(broker, requests, &responses).await {
            // A client that is gone needs no reason.
            drop(responses.send(Err(status)).await);
        }
    });
    outgoing
}

async fn serve(
    broker: Arc<Broker>,
    mut requests: Streaming<StreamingPullRequest>,
    responses: &Responses,
) -> Result<(), Status> {
    let Some(first) = requests.message().await? else {
        return Ok(());
    };
    let subscription = broker.subscription(&first.subscription)?;
    let limits = Limits::of(&first)?;
    let mut stream = Stream {
        consumer: subscription.join(),
        broker,
        limits,
        acks_heartbeats: first.protocol_version > 0,
    };
    stream.confirm(&first)?;
    stream.run(&mut requests, responses).await
}

/// What the client said it can bear; `None` for no limit.
#[derive(Debug, Clone, Copy)]
struct Limits {
    messages: Option<usize>,
    bytes: Option<usize>,
    ack_deadline: Duration,
}

impl Limits {
    fn of(first: &StreamingPullRequest) -> Result<Self, Status> {
        let limit = |value| usize::try_from(value).ok().filter(|limit| *limit > 0);
        Ok(Self {
            messages: limit(first.max_outstanding_messages),
            bytes: limit(first.max_outstanding_bytes),
            ack_deadline: ack_deadline(first.stream_ack_deadline_seconds)?,
        })
    }
}

fn ack_deadline(seconds: i32) -> Result<Duration, Status> {
    if !ACK_DEADLINES.contains(&seconds) {
        return Err(Status::invalid_argument(format!(
            "Invalid stream_ack_deadline_seconds given ({seconds}). The value must be between 10 \
             and 600."
        )));
    }
    Ok(Duration::from_secs(
        u64::try_from(seconds).unwrap_or_default(),
    ))
}

#[derive(Debug)]
struct Stream {
    broker: Arc<Broker>,
    consumer: Consumer,
    limits: Limits,
    /// The client counts on an answer to each of its heartbeats.
    acks_heartbeats: bool,
}

impl Stream {
    fn subscription(&self) -> &Subscription {
        &self.consumer.subscription
    }

    async fn run(
        &mut self,
        requests: &mut Streaming<StreamingPullRequest>,
        responses: &Responses,
    ) -> Result<(), Status> {
        let mut changes = self.subscription().changes();
        let mut faults = self.broker.faults.changes();
        let mut breaker = self.broker.faults.breaker(Service::Pubsub);
        let mut heartbeat = false;
        loop {
            check_pullable(&self.subscription().settings())?;
            // Messages are leased only when there is room to send them at once.
            if let Ok(permit) = responses.try_reserve() {
                let batch = self.batch();
                if std::mem::take(&mut heartbeat) || !batch.received_messages.is_empty() {
                    permit.send(Ok(batch));
                    continue;
                }
            }
            let is_full = responses.capacity() == 0;
            tokio::select! {
                request = requests.message() => match request? {
                    Some(request) => heartbeat |= self.receive(&request)?,
                    None => return Ok(()),
                },
                reserved = responses.reserve(), if is_full => {
                    if reserved.is_err() {
                        return Ok(());
                    }
                }
                _ = changes.changed() => {}
                _ = faults.changed() => {}
                status = breaker.broken() => return Err(status),
                () = self.broker.clock.sleep_until(self.next_due()), if !is_full => {}
                () = responses.closed() => return Ok(()),
                () = self.subscription().closed().cancelled() => {
                    return Err(names::not_found(&self.subscription().name));
                }
                () = self.broker.stop.cancelled() => {
                    return Err(Status::unavailable("The service is stopping."));
                }
            }
        }
    }

    /// What the client can take now.
    fn room(&self) -> Option<Room> {
        let (messages, bytes) = self.consumer.outstanding();
        let messages = match self.limits.messages {
            Some(most) => most.saturating_sub(messages).min(LARGEST_BATCH),
            None => LARGEST_BATCH,
        };
        let bytes = match self.limits.bytes {
            Some(most) => most.saturating_sub(bytes).min(FULL),
            None => FULL,
        };
        (messages > 0 && bytes > 0).then_some(Room { messages, bytes })
    }

    /// When there is something to send next; never while the client can take nothing.
    fn next_due(&self) -> Option<crate::clock::Moment> {
        self.room()?;
        self.consumer.next_due()
    }

    fn batch(&self) -> StreamingPullResponse {
        let received_messages = match self.room() {
            Some(room) => {
                let deadline = Some(self.limits.ack_deadline);
                self.consumer.take(room, deadline)
            }
            None => Vec::new(),
        };
        StreamingPullResponse {
            received_messages,
            subscription_properties: Some(SubscriptionProperties {
                exactly_once_delivery_enabled: false,
                message_ordering_enabled: self.subscription().settings().enable_message_ordering,
            }),
            ..StreamingPullResponse::default()
        }
    }

    /// Does what a later request asks for; true when it is a heartbeat to answer.
    fn receive(&mut self, request: &StreamingPullRequest) -> Result<bool, Status> {
        let repeated = !request.subscription.is_empty()
            || request.max_outstanding_messages > 0
            || request.max_outstanding_bytes > 0
            || request.protocol_version > 0;
        if repeated {
            return Err(Status::invalid_argument(
                "subscription, max_outstanding_messages, max_outstanding_bytes and \
                 protocol_version must be set on the initial request only.",
            ));
        }
        if request.stream_ack_deadline_seconds != 0 {
            self.limits.ack_deadline = ack_deadline(request.stream_ack_deadline_seconds)?;
        }
        self.confirm(request)?;
        let is_heartbeat = request.ack_ids.is_empty() && request.modify_deadline_ack_ids.is_empty();
        Ok(self.acks_heartbeats && is_heartbeat)
    }

    /// Acknowledges and moves deadlines as a request says.
    fn confirm(&self, request: &StreamingPullRequest) -> Result<(), Status> {
        let (ids, seconds) = (
            &request.modify_deadline_ack_ids,
            &request.modify_deadline_seconds,
        );
        if ids.len() != seconds.len() {
            return Err(Status::invalid_argument(
                "modify_deadline_seconds and modify_deadline_ack_ids must have the same length.",
            ));
        }
        if !request.ack_ids.is_empty() {
            self.subscription().ack(&request.ack_ids)?;
        }
        if !ids.is_empty() {
            let changes = ids.iter().cloned().zip(seconds.iter().copied());
            self.subscription()
                .modify_deadline(&changes.collect::<Vec<_>>())?;
        }
        Ok(())
    }
}
