//! Publishes one topic's events in the order of the calls.
//!
//! One batch of a topic is under way at a time, and Redis takes it as a whole or not at all. So an
//! event never overtakes an earlier one that failed; and a batch that Redis took without the answer
//! coming through is followed by the same events again, in the same order.

use std::{
    collections::{HashSet, VecDeque},
    mem,
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use super::commands::{Failure, Redis};
use crate::{BusError, Event, Topic};

/// The largest payload. Pub/Sub has the same limit.
const LARGEST: usize = 10_000_000;
/// The most attributes of an event. Pub/Sub has the same limit.
const MOST_ATTRIBUTES: usize = 100;
/// A batch is at most so many events, and ends with the one that passes so many bytes.
const BATCH: usize = 200;
const BATCH_BYTES: usize = 1_000_000;
/// How many may wait: beyond, Redis is too slow for them to be in time.
const WAITING: usize = 50_000;
/// How long a batch rests before it is tried again.
const AGAIN: Duration = Duration::from_millis(100);

type Answer = Result<(), BusError>;

pub(super) struct Publisher {
    topic: Topic,
    stream: String,
    redis: Arc<Redis>,
    deadline: Duration,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Of these keys, nothing is taken until they are resumed.
    halted: HashSet<String>,
    sending: bool,
}

struct Waiting {
    event: Event,
    until: Instant,
    answer: oneshot::Sender<Answer>,
}

/// What is under way.
struct Batch {
    events: Vec<Event>,
    answers: Vec<oneshot::Sender<Answer>>,
    until: Instant,
}

impl Publisher {
    pub(super) fn new(topic: Topic, stream: String, redis: Arc<Redis>, deadline: Duration) -> Self {
        Self {
            topic,
            stream,
            redis,
            deadline,
            queue: Mutex::default(),
        }
    }

    pub(super) fn publish(self: &Arc<Self>, event: Event) -> BoxFuture<'static, Answer> {
        let (answer, answered) = oneshot::channel();
        let mut queue = self.queue.lock();
        if queue.halted.contains(&event.ordering_key) {
            return Box::pin(async { Err(BusError::Halted) });
        }
        if let Err(refused) = check(&event, queue.waiting.len()) {
            queue.halt(event.ordering_key);
            return Box::pin(async { Err(refused) });
        }
        queue.waiting.push_back(Waiting {
            event,
            until: Instant::now() + self.deadline,
            answer,
        });
        if !queue.sending {
            queue.sending = true;
            tokio::spawn(Arc::clone(self).send());
        }
        Box::pin(async {
            let unanswered = |_| Err(BusError::Unavailable("the publisher has ended".to_owned()));
            answered.await.unwrap_or_else(unanswered)
        })
    }

    pub(super) fn resume(&self, ordering_key: &str) {
        self.queue.lock().halted.remove(ordering_key);
    }

    /// Sends batch after batch until nothing waits.
    async fn send(self: Arc<Self>) {
        loop {
            let Some(batch) = self.queue.lock().next_batch() else {
                return;
            };
            match self.accept(&batch).await {
                Ok(()) => {
                    for answer in batch.answers {
                        // Whoever dropped the future did not want to know.
                        let _ = answer.send(Ok(()));
                    }
                }
                Err(failure) => self
                    .queue
                    .lock()
                    .fail_batch(batch, &failure.about(&self.topic)),
            }
        }
    }

    /// Tries until the deadline.
    async fn accept(&self, batch: &Batch) -> Result<(), Failure> {
        loop {
            match self.redis.publish(&self.stream, &batch.events).await {
                Err(Failure::Away(_)) if Instant::now() + AGAIN < batch.until => sleep(AGAIN).await,
                done => return done,
            }
        }
    }
}

fn check(event: &Event, waiting: usize) -> Answer {
    if event.payload.len() > LARGEST {
        let why = format!("its payload is larger than {LARGEST} bytes");
        return Err(BusError::Refused(why));
    }
    if event.attributes.len() > MOST_ATTRIBUTES {
        let why = format!("it has more than {MOST_ATTRIBUTES} attributes");
        return Err(BusError::Refused(why));
    }
    if waiting >= WAITING {
        let why = format!("{WAITING} events wait already");
        return Err(BusError::Unavailable(why));
    }
    Ok(())
}

impl Queue {
    /// `None`, and the sender ends, when nothing waits.
    fn next_batch(&mut self) -> Option<Batch> {
        let now = Instant::now();
        let mut late = false;
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.until <= now) {
            let halted = self.halted.contains(&waiting.event.ordering_key);
            let _ = waiting.answer.send(Err(if halted {
                BusError::Halted
            } else {
                BusError::Unavailable("its turn did not come before the deadline".to_owned())
            }));
            self.halt(waiting.event.ordering_key);
            late = true;
        }
        if late {
            self.refuse_halted();
        }
        let Some(first) = self.waiting.front() else {
            self.sending = false;
            return None;
        };
        let mut batch = Batch {
            events: Vec::new(),
            answers: Vec::new(),
            until: first.until,
        };
        let mut bytes = 0;
        while batch.events.len() < BATCH && bytes < BATCH_BYTES {
            let Some(waiting) = self.waiting.pop_front() else {
                break;
            };
            bytes += waiting.event.payload.len();
            batch.events.push(waiting.event);
            batch.answers.push(waiting.answer);
        }
        Some(batch)
    }

    /// All of them may have been accepted, so none is told [`BusError::Halted`].
    fn fail_batch(&mut self, batch: Batch, error: &BusError) {
        for (event, answer) in batch.events.into_iter().zip(batch.answers) {
            let _ = answer.send(Err(error.clone()));
            self.halt(event.ordering_key);
        }
        self.refuse_halted();
    }

    fn halt(&mut self, key: String) {
        if !key.is_empty() {
            self.halted.insert(key);
        }
    }

    fn refuse_halted(&mut self) {
        if self.halted.is_empty() {
            return;
        }
        for waiting in mem::take(&mut self.waiting) {
            if self.halted.contains(&waiting.event.ordering_key) {
                let _ = waiting.answer.send(Err(BusError::Halted));
            } else {
                self.waiting.push_back(waiting);
            }
        }
    }
}
