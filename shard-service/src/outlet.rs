//! What a session is sent, and the one place where it waits: the connection takes it from here as it
//! can write, so that a message goes from the log to the socket without another task in between.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use infrachat_proto::Frame;
use infrachat_runtime::Line;
use tokio::{sync::Notify, time::Instant};

use crate::{
    memory::Weight, parts::Parts, reader::Reader, run::Author, session::Mailbox, tally::Tally,
};

/// About the most bytes of one frame.
pub(crate) const FRAME: usize = 15 * 1024;
/// Answers that may wait before the session stops listening, and their bytes.
const ANSWERS: usize = 256;
const ANSWERED: usize = 64 * 1024;
/// Fewer bytes of answers are part of what every session takes.
const COUNTED: usize = 4 * 1024;

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Answers and channels.
    Open,
    /// Only the answers that wait.
    Closing,
    /// Nothing after the answers that wait.
    Ended,
    /// The connection takes nothing any more.
    Gone,
}

/// What a session is sent.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) parts: Arc<Parts>,
    pub(crate) reader: Author,
    pub(crate) mailbox: Mailbox,
    waiting: Mutex<Waiting>,
    /// Frames that the connection took.
    taken: AtomicU64,
    /// For the session: answers were taken, or the connection is gone.
    turned: Notify,
}

#[derive(Debug)]
struct Waiting {
    /// Encoded answers, to be sent before anything from a channel.
    answers: VecDeque<Bytes>,
    /// Their bytes.
    bytes: usize,
    weight: Weight,
    /// Channels that have something to read.
    ready: VecDeque<Arc<Reader>>,
    phase: Phase,
    /// The connection's task.
    task: Option<Waker>,
    /// Whether the task sleeps.
    asleep: bool,
}

impl Waiting {
    fn wake(&mut self) {
        if std::mem::take(&mut self.asleep)
            && let Some(task) = &self.task
        {
            task.wake_by_ref();
        }
    }

    fn weigh(&mut self, bytes: usize) {
        self.bytes = bytes;
        self.weight.set(bytes / COUNTED * COUNTED);
    }

    fn next_answers(&mut self) -> Option<Bytes> {
        // Asked before each delivery, mostly in vain.
        if self.answers.is_empty() {
            return None;
        }
        let mut frame = Frame::with_room(self.bytes.min(FRAME));
        while frame.len() < FRAME
            && let Some(answer) = self.answers.pop_front()
        {
            self.weigh(self.bytes - answer.len());
            frame.push(&answer);
        }
        Some(frame.finish())
    }
}

impl Outlet {
    pub(crate) fn new(parts: &Arc<Parts>, reader: Author, mailbox: Mailbox) -> Arc<Self> {
        Arc::new(Self {
            parts: Arc::clone(parts),
            reader,
            mailbox,
            waiting: Mutex::new(Waiting {
                answers: VecDeque::new(),
                bytes: 0,
                weight: parts.memory.weightless(),
                ready: VecDeque::new(),
                phase: Phase::Open,
                task: None,
                asleep: false,
            }),
            taken: AtomicU64::new(0),
            turned: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Queues an encoded answer.
    pub(crate) fn say(&self, answer: Bytes) {
        let mut waiting = self.lock();
        if waiting.phase < Phase::Ended {
            let bytes = waiting.bytes + answer.len();
            waiting.weigh(bytes);
            waiting.answers.push_back(answer);
            waiting.wake();
        }
    }

    /// Queues a channel that has something to read.
    pub(crate) fn ready(&self, reader: Arc<Reader>) {
        let mut waiting = self.lock();
        if waiting.phase == Phase::Open {
            waiting.ready.push_back(reader);
            waiting.wake();
        }
    }

    /// From now on only the answers that wait are sent.
    pub(crate) fn close(&self) {
        self.turn_to(Phase::Closing);
    }

    /// The stream ends when the answers that wait are sent.
    pub(crate) fn end(&self) {
        self.turn_to(Phase::Ended);
    }

    fn turn_to(&self, phase: Phase) {
        let mut waiting = self.lock();
        waiting.phase = phase.max(waiting.phase);
        let unread = std::mem::take(&mut waiting.ready);
        waiting.wake();
        drop(waiting);
        // Readers hold their outlet: not under its lock.
        drop(unread);
    }

    /// Whether so few answers wait that the session may go on listening.
    pub(crate) fn has_room(&self) -> bool {
        let waiting = self.lock();
        waiting.answers.len() < ANSWERS && waiting.bytes < ANSWERED
    }

    /// Whether every answer was taken, or never will be.
    pub(crate) fn is_drained(&self) -> bool {
        let waiting = self.lock();
        waiting.answers.is_empty() || waiting.phase == Phase::Gone
    }

    /// Whether the connection takes nothing any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.lock().phase == Phase::Gone
    }

    /// Whether something waits to be taken, and how many frames were taken so far.
    pub(crate) fn progress(&self) -> (bool, u64) {
        let waiting = self.lock();
        let pending = !waiting.answers.is_empty() || !waiting.ready.is_empty();
        (pending, self.taken.load(Ordering::Relaxed))
    }

    /// Waits until answers were taken, or the connection is gone.
    pub(crate) async fn turned(&self) {
        self.turned.notified().await;
    }

    /// The next frame; none at the end.
    fn poll(&self, context: &mut Context<'_>, tally: &mut Tally) -> Poll<Option<Bytes>> {
        loop {
            let mut waiting = self.lock();
            if let Some(answers) = waiting.next_answers() {
                drop(waiting);
                self.turned.notify_one();
                return self.take(answers);
            }
            let next = match waiting.phase {
                Phase::Open => waiting.ready.pop_front(),
                Phase::Closing => None,
                Phase::Ended | Phase::Gone => return Poll::Ready(None),
            };
            let Some(reader) = next else {
                waiting.asleep = true;
                match &mut waiting.task {
                    Some(task) => task.clone_from(context.waker()),
                    task => *task = Some(context.waker().clone()),
                }
                return Poll::Pending;
            };
            drop(waiting);
            let now = Instant::now();
            if let Some(frame) = reader.read(now, tally) {
                tally.sent(&self.parts, self.reader.session(), now);
                return self.take(frame);
            }
        }
    }

    fn take(&self, frame: Bytes) -> Poll<Option<Bytes>> {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(frame))
    }
}

/// The body of a stream's response.
#[derive(Debug)]
pub(crate) struct Body {
    outlet: Arc<Outlet>,
    tally: Tally,
    line: Option<Line>,
    over: bool,
}

impl Body {
    pub(crate) fn new(outlet: Arc<Outlet>, line: Option<Line>) -> Self {
        Self {
            outlet,
            tally: Tally::default(),
            line,
            over: false,
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.outlet.turn_to(Phase::Gone);
        self.outlet.turned.notify_one();
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(line) = &self.line {
            line.is_answered();
        }
        let this = &mut *self;
        let next = std::task::ready!(this.outlet.poll(context, &mut this.tally));
        Poll::Ready(Some(Ok(match next {
            Some(frame) => http_body::Frame::data(frame),
            None => {
                this.over = true;
                http_body::Frame::trailers(ok())
            }
        })))
    }
}

/// How a gRPC stream ends in good order.
fn ok() -> HeaderMap {
    HeaderMap::from_iter([(tonic::Status::GRPC_STATUS, HeaderValue::from_static("0"))])
}
