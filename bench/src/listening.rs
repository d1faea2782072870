//! Many connections read by one thread, at as little cost as possible.

use std::{cell::RefCell, rc::Rc, time::Duration};

use anyhow::bail;
use bytes::BytesMut;
use hdrhistogram::Histogram;
use tokio::{
    io::AsyncWriteExt as _,
    sync::Notify,
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::{scan::Scanner, target::Subscriber};

/// Nothing at all arrives for this long: it never will.
const STUCK: Duration = Duration::from_secs(15);
/// After this long, nothing is on its way.
const QUIET: Duration = Duration::from_secs(1);
const BUFFER: usize = 64 * 1024;

/// How eagerly a connection is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As soon as something is there.
    AtOnce,
    /// So many bytes, then a pause.
    Slowly(usize, Duration),
}

/// What all connections of one pace have heard.
#[derive(Debug)]
struct Heard {
    deliveries: u64,
    /// From publishing to reading, nanoseconds.
    latency: Histogram<u64>,
    ended: Option<String>,
    buffer: Vec<u8>,
}

/// Connections that are being read. They are closed when this is dropped.
#[derive(Debug)]
pub(crate) struct Listening {
    heard: Rc<RefCell<Heard>>,
    changed: Rc<Notify>,
    tasks: Vec<JoinHandle<()>>,
    began: Instant,
}

impl Listening {
    /// Moments in messages count from `began`. Must be called in a `LocalSet`.
    pub(crate) fn start(subscribers: Vec<Subscriber>, pace: Pace, began: Instant) -> Self {
        let heard = Rc::new(RefCell::new(Heard {
            deliveries: 0,
            latency: histogram(),
            ended: None,
            buffer: vec![0; BUFFER],
        }));
        let changed = Rc::new(Notify::new());
        let tasks = subscribers.into_iter().map(|subscriber| {
            let (heard, changed) = (Rc::clone(&heard), Rc::clone(&changed));
            tokio::task::spawn_local(async move {
                if let Err(err) = listen(subscriber, pace, began, &heard, &changed).await {
                    heard.borrow_mut().ended.get_or_insert(err.to_string());
                    changed.notify_one();
                }
            })
        });
        let tasks = tasks.collect();
        Self {
            heard,
            changed,
            tasks,
            began,
        }
    }

    /// How many connections.
    pub(crate) fn count(&self) -> u64 {
        self.tasks.len() as u64
    }

    /// Nanoseconds since the beginning.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Messages that were delivered, over all connections.
    pub(crate) fn deliveries(&self) -> u64 {
        self.heard.borrow().deliveries
    }

    /// Why a connection ended, if one did.
    pub(crate) fn ended(&self) -> Option<String> {
        self.heard.borrow().ended.clone()
    }

    /// Forgets the latencies so far.
    pub(crate) fn forget_latency(&self) {
        self.heard.borrow_mut().latency.reset();
    }

    /// From publishing to reading, nanoseconds.
    pub(crate) fn latency(&self) -> Histogram<u64> {
        self.heard.borrow().latency.clone()
    }

    /// Waits until nothing comes any more.
    pub(crate) async fn settled(&self) {
        while timeout(QUIET, self.changed.notified()).await.is_ok() {}
    }

    /// Waits until so many messages were delivered, over all connections.
    pub(crate) async fn until(&self, deliveries: u64) -> anyhow::Result<()> {
        loop {
            let has = self.deliveries();
            if has >= deliveries {
                return Ok(());
            }
            if let Some(why) = self.ended() {
                bail!("a connection ended: {why}");
            }
            if timeout(STUCK, self.changed.notified()).await.is_err() && self.deliveries() == has {
                bail!("{has} of {deliveries} deliveries came, and then nothing for {STUCK:?}");
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// For latencies in nanoseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    // Three digits are always a valid precision.
    Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap_or_else(|err| unreachable!("{err}"))
}

async fn listen(
    subscriber: Subscriber,
    pace: Pace,
    began: Instant,
    heard: &RefCell<Heard>,
    changed: &Notify,
) -> anyhow::Result<()> {
    let Subscriber {
        mut stream,
        mut wire,
    } = subscriber;
    let mut scanner = Scanner::default();
    let mut out = BytesMut::new();
    let most = match pace {
        Pace::AtOnce => BUFFER,
        Pace::Slowly(bytes, _) => bytes,
    };
    loop {
        stream.readable().await?;
        {
            let mut guard = heard.borrow_mut();
            let Heard {
                deliveries,
                latency,
                buffer,
                ..
            } = &mut *guard;
            let read = match stream.try_read(&mut buffer[..most]) {
                Ok(0) => bail!("the server hung up"),
                Ok(read) => read,
                Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(err) => return Err(err.into()),
            };
            let now = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            wire.feed(&buffer[..read], &mut out, |data| {
                scanner.feed(data, |moment| {
                    *deliveries += 1;
                    latency.saturating_record(now.saturating_sub(moment));
                });
            })?;
        }
        changed.notify_one();
        if !out.is_empty() {
            stream.write_all(&out.split()).await?;
        }
        if let Pace::Slowly(_, pause) = pace {
            tokio::time::sleep(pause).await;
        }
    }
}
