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

use futures::future::BoxFuture;
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
/// How often a silent client is asked whether it is there, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Most turns that the connection and its streams take before other tasks have theirs.
const TURNS: usize = 4;

/// Ends a connection, as an extension of each request on it.
#[derive(Debug, Clone)]
pub struct Hangup(CancellationToken);

impl Hangup {
    /// Ends it at once, with all that goes on in it: nobody reads on the other side.
    pub fn now(&self) {
        self.0.cancel();
    }
}

/// Serves one connection until it is over; from `stop` on it takes no more requests.
pub(crate) async fn serve(
    connection: Connection,
    service: Spanned<Routes>,
    settings: ServeSettings,
    stop: CancellationToken,
) {
    let opened = Opened::default();
    let mut together = Together::new(opened.clone());
    let mut builder = Builder::new(opened);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams_per_connection)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.stream_window * 4)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .keep_alive_timeout(KEEP_ALIVE);
    // hyper gives up on a slow header only with a timer.
    builder.http1().timer(TokioTimer::new());
    let about = connection.connect_info();
    let hangup = CancellationToken::new();
    let handle = Hangup(hangup.clone());
    let service = service.map_request(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(about.clone());
        request.extensions_mut().insert(handle.clone());
        request.map(Body::new)
    });
    let serving =
        builder.serve_connection(TokioIo::new(connection), TowerToHyperService::new(service));
    let mut serving = std::pin::pin!(serving);
    together.add(Box::pin(async move {
        stop.cancelled().await;
        Event::Stop
    }));
    together.add(Box::pin(async move {
        hangup.cancelled().await;
        Event::Hangup
    }));
    loop {
        match std::future::poll_fn(|context| together.poll(serving.as_mut(), context)).await {
            Turn::Event(Event::Over) => {}
            Turn::Event(Event::Stop) => {
                serving.as_mut().graceful_shutdown();
                together.look_again();
            }
            Turn::Event(Event::Hangup) => return,
            Turn::Ended(ended) => {
                if let Err(err) = ended {
                    tracing::debug!(err, "a connection failed");
                }
                return;
            }
        }
    }
}

/// What goes on in a connection has come to this.
#[derive(Debug)]
enum Event {
    /// A stream is over.
    Over,
    /// The connection is to take no more requests.
    Stop,
    /// The connection is to end.
    Hangup,
}

/// What a connection's task has to look at.
#[derive(Debug)]
enum Turn<T> {
    Event(Event),
    Ended(T),
}

type Running = BoxFuture<'static, Event>;

/// The executor of one connection: what it is given is run by [`Together`].
#[derive(Clone, Default)]
pub(crate) struct Opened(Arc<Mutex<Vec<Running>>>);

impl Opened {
    fn lock(&self) -> MutexGuard<'_, Vec<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> hyper::rt::Executor<F> for Opened
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.lock().push(Box::pin(async move {
            stream.await;
            Event::Over
        }));
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
    task: Arc<Task>,
}

impl Bell {
    /// Rung, since everything is polled once.
    fn new(task: &Arc<Task>) -> Arc<Self> {
        Arc::new(Self {
            rung: AtomicBool::new(true),
            task: Arc::clone(task),
        })
    }

    fn take(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        if !self.task.running.load(Ordering::SeqCst) {
            self.task
                .lock()
                .as_ref()
                .inspect(|waker| waker.wake_by_ref());
        }
    }
}

/// Something that runs beside the connection.
struct Part {
    future: Running,
    bell: Arc<Bell>,
    waker: Waker,
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
                let polled = match part.bell.take() {
                    true => part
                        .future
                        .as_mut()
                        .poll(&mut Context::from_waker(&part.waker)),
                    false => Poll::Pending,
                };
                match polled {
                    Poll::Pending => number += 1,
                    Poll::Ready(event) => {
                        drop(self.parts.swap_remove(number));
                        if !matches!(event, Event::Over) {
                            return Poll::Ready(Turn::Event(event));
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
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    /// Whatever is woken, from whichever thread and at whichever moment, is polled.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_is_lost() {
        const MESSAGES: usize = 200_000;
        let opened = Opened::default();
        let mut together = Together::new(opened.clone());
        let (to_connection, mut at_connection) = mpsc::unbounded_channel();
        // One alone: nobody else's wake makes up for one that is lost.
        let (to_stream, mut at_stream) = mpsc::channel::<()>(1);
        hyper::rt::Executor::execute(&opened, async move {
            while at_stream.recv().await.is_some() {
                to_connection.send(()).expect("the connection runs");
            }
        });
        tokio::spawn(async move {
            for _ in 0..MESSAGES {
                to_stream.send(()).await.expect("the stream runs");
            }
        });
        let connection = async move {
            let mut count = 0;
            while at_connection.recv().await.is_some() {
                count += 1;
            }
            count
        };
        let running = tokio::spawn(async move {
            let mut connection = std::pin::pin!(connection);
            std::future::poll_fn(|context| together.poll(connection.as_mut(), context)).await
        });
        match running.await.expect("runs to its end") {
            Turn::Ended(count) => assert_eq!(count, MESSAGES),
            Turn::Event(event) => panic!("instead of the end came {event:?}"),
        }
    }

    /// Others have their turn in between, and then it goes on.
    #[tokio::test]
    async fn who_has_more_to_do_than_a_turn_takes_is_polled_on() {
        let mut left = 10 * TURNS;
        let connection = std::future::poll_fn(move |context| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        });
        let mut connection = std::pin::pin!(connection);
        let mut together = Together::new(Opened::default());
        let running = std::future::poll_fn(|context| together.poll(connection.as_mut(), context));
        let ended = tokio::time::timeout(Duration::from_secs(10), running).await;
        assert!(matches!(ended, Ok(Turn::Ended(()))));
    }
}
