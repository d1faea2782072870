//! One connection and all that goes on in it, as one task.
//!
//! hyper hands every HTTP/2 stream to an executor, which by default makes a task of it. Then each
//! message that is sent wakes one task, and that wakes the connection's to write. Here the streams of
//! a connection run in the connection's own task, so that a message costs one wake and one write.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, service::Routes, transport::server::Connected as _};
use tower::ServiceExt as _;

use crate::{ServeSettings, connection::Connection, telemetry::requests::Spanned};

/// Bytes of a stream that wait to be written before it has to wait.
const SEND_BUFFER: usize = 16 * 1024;
/// Bytes of a request's headers: the token is the longest of them.
const HEADER_LIST: u32 = 16 * 1024;
/// Streams that a client has opened and reset before they were looked at, and streams that were reset because
/// of what a client did: with more the connection ends (ENHANCE_YOUR_CALM; CVE-2023-44487, CVE-2025-8671).
const RESET_UNSEEN: usize = 20;
const RESET_BY_US: usize = 1_024;
/// How often a silent client is asked whether it is there, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Most turns that the connection and its streams take before other tasks have theirs.
const TURNS: usize = 4;

/// The server's end of a stream, as an extension of its request.
#[derive(Debug, Clone)]
pub struct Line(Arc<Bell>);

impl Line {
    /// Ends a stream whose other side does not read: resets it at once, with all that waits to be sent.
    /// Other streams of the connection go on: a proxy may have put many clients on it.
    pub fn hang_up(&self) {
        self.0.cut.store(true, Ordering::SeqCst);
        self.0.ring();
    }

    /// Says that the stream need not be polled for what has woken it until now. Only for the body of
    /// its response, while that is polled and before it looks for more: hyper wakes a stream by asking
    /// for room for a frame that it has in hand, and then asks the body for more anyway.
    pub fn is_answered(&self) {
        self.0.rung.store(false, Ordering::SeqCst);
    }
}

/// Serves one connection until it is over; from `stop` on it takes no more requests.
///
/// Not an `async fn`, whose future would keep room for what it is made from as well.
pub(crate) fn serve(
    connection: Connection,
    service: Spanned<Routes>,
    settings: ServeSettings,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send {
    let opened = Opened::default();
    let mut together = Together::new(opened.clone());
    let mut builder = Builder::new(opened.clone());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams_per_connection)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.stream_window * 4)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADER_LIST)
        .max_pending_accept_reset_streams(RESET_UNSEEN)
        .max_local_error_reset_streams(RESET_BY_US)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .keep_alive_timeout(KEEP_ALIVE);
    // hyper gives up on a slow header only with a timer.
    builder.http1().timer(TokioTimer::new());
    let about = connection.connect_info();
    let service = service.map_request(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(about.clone());
        if let Some(line) = opened.line() {
            request.extensions_mut().insert(line);
        }
        request.map(Body::new)
    });
    let serving =
        builder.serve_connection(TokioIo::new(connection), TowerToHyperService::new(service));
    let mut serving = Box::pin(serving.into_owned());
    together.add(Box::pin(async move {
        stop.cancelled().await;
        Event::Stop
    }));
    async move {
        loop {
            match std::future::poll_fn(|context| together.poll(serving.as_mut(), context)).await {
                Turn::Stop => {
                    serving.as_mut().graceful_shutdown();
                    together.look_again();
                }
                Turn::Ended(ended) => {
                    if let Err(err) = ended {
                        tracing::debug!(err, "a connection failed");
                    }
                    return;
                }
            }
        }
    }
}

/// What a part has come to.
#[derive(Debug)]
enum Event {
    /// A stream is over.
    Over,
    /// The connection is to take no more requests.
    Stop,
}

/// What a connection's task has to look at.
#[derive(Debug)]
enum Turn<T> {
    /// The connection is to take no more requests.
    Stop,
    /// The connection is over.
    Ended(T),
}

type Running = BoxFuture<'static, Event>;

/// The executor of one connection: what it is given is run by [`Together`].
#[derive(Clone, Default)]
pub(crate) struct Opened(Arc<Handed>);

#[derive(Default)]
struct Handed {
    /// To be run.
    streams: Mutex<Vec<Running>>,
    /// Of the stream that is polled for the first time at the moment, and then asks its service.
    beginning: Mutex<Option<Arc<Bell>>>,
}

impl Opened {
    fn lock(&self) -> MutexGuard<'_, Vec<Running>> {
        self.0
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_beginning(&self) -> MutexGuard<'_, Option<Arc<Bell>>> {
        self.0
            .beginning
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Of the stream that asks its service at the moment.
    fn line(&self) -> Option<Line> {
        self.lock_beginning().clone().map(Line)
    }
}

impl<F> hyper::rt::Executor<F> for Opened
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.lock().push(Box::pin(stream.map(|()| Event::Over)));
    }
}

/// The task, as its parts wake it.
#[derive(Debug, Default)]
struct Task {
    /// It looks at every bell before it sleeps again.
    running: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Task {
    fn lock(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that a part of the task wants to be polled, and wakes the task for it if it sleeps.
#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    /// The part is to be dropped.
    cut: AtomicBool,
    task: Arc<Task>,
}

impl Bell {
    /// Rung, since everything is polled once.
    fn new(task: &Arc<Task>) -> Arc<Self> {
        Arc::new(Self {
            rung: AtomicBool::new(true),
            cut: AtomicBool::new(false),
            task: Arc::clone(task),
        })
    }

    fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        if !self.task.running.load(Ordering::SeqCst) {
            self.task
                .lock()
                .as_ref()
                .inspect(|waker| waker.wake_by_ref());
        }
    }

    fn take(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// Something that runs beside the connection.
struct Part {
    future: Running,
    begun: bool,
    bell: Arc<Bell>,
    waker: Waker,
}

impl Part {
    fn poll(&mut self, opened: &Opened) -> Poll<Event> {
        let mut context = Context::from_waker(&self.waker);
        if std::mem::replace(&mut self.begun, true) {
            return self.future.as_mut().poll(&mut context);
        }
        *opened.lock_beginning() = Some(Arc::clone(&self.bell));
        let polled = self.future.as_mut().poll(&mut context);
        *opened.lock_beginning() = None;
        polled
    }
}

/// A connection with its streams.
struct Together {
    opened: Opened,
    parts: Vec<Part>,
    task: Arc<Task>,
    /// The connection's own.
    bell: Arc<Bell>,
    waker: Waker,
    /// The task that the bells wake.
    known: Option<Waker>,
}

impl Together {
    fn new(opened: Opened) -> Self {
        let task = Arc::new(Task::default());
        let bell = Bell::new(&task);
        Self {
            opened,
            parts: Vec::new(),
            task,
            waker: Waker::from(Arc::clone(&bell)),
            bell,
            known: None,
        }
    }

    /// Runs something beside the streams.
    fn add(&mut self, future: Running) {
        let bell = Bell::new(&self.task);
        let waker = Waker::from(Arc::clone(&bell));
        self.parts.push(Part {
            future,
            begun: false,
            bell,
            waker,
        });
    }

    /// Has the connection polled at the next turn.
    fn look_again(&self) {
        self.bell.rung.store(true, Ordering::SeqCst);
    }

    /// Runs the connection and the streams that it opens.
    fn poll<C: Future>(
        &mut self,
        connection: Pin<&mut C>,
        context: &mut Context<'_>,
    ) -> Poll<Turn<C::Output>> {
        let known = self.known.as_ref();
        if !known.is_some_and(|known| known.will_wake(context.waker())) {
            *self.task.lock() = Some(context.waker().clone());
            self.known = Some(context.waker().clone());
        }
        self.task.running.store(true, Ordering::SeqCst);
        let turned = self.turn(connection);
        self.task.running.store(false, Ordering::SeqCst);
        // Rung too late for the last turn, and too early to wake the task.
        if turned.is_pending() && self.is_wanted() {
            context.waker().wake_by_ref();
        }
        turned
    }

    fn is_wanted(&self) -> bool {
        let bells = self.parts.iter().map(|part| &part.bell);
        bells
            .chain([&self.bell])
            .any(|bell| bell.rung.load(Ordering::SeqCst))
    }

    fn turn<C: Future>(&mut self, mut connection: Pin<&mut C>) -> Poll<Turn<C::Output>> {
        for _ in 0..TURNS {
            // Streams first: what they send, the connection writes at once.
            let mut number = 0;
            while let Some(part) = self.parts.get_mut(number) {
                if !part.bell.take() {
                    number += 1;
                    continue;
                }
                if part.bell.cut.load(Ordering::SeqCst) {
                    drop(self.parts.swap_remove(number));
                    // The other side is told.
                    self.look_again();
                    continue;
                }
                match part.poll(&self.opened) {
                    // Who hung up rang in vain if the stream was just being answered.
                    Poll::Pending if part.bell.cut.load(Ordering::SeqCst) => {
                        part.bell.rung.store(true, Ordering::SeqCst);
                    }
                    Poll::Pending => number += 1,
                    Poll::Ready(event) => {
                        drop(self.parts.swap_remove(number));
                        if let Event::Stop = event {
                            return Poll::Ready(Turn::Stop);
                        }
                    }
                }
            }
            if !self.bell.take() {
                break;
            }
            let mut context = Context::from_waker(&self.waker);
            if let Poll::Ready(output) = connection.as_mut().poll(&mut context) {
                return Poll::Ready(Turn::Ended(output));
            }
            let opened = std::mem::take(&mut *self.opened.lock());
            if !opened.is_empty() {
                opened.into_iter().for_each(|stream| self.add(stream));
                // They may have something to send.
                self.look_again();
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
