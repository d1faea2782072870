//! One session reading one channel, and how it is woken when it sleeps.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    channel::Channel,
    log::{Cursor, Read},
    outlet::{FRAME, Outlet},
    partition::Partition,
    session::Note,
    tally::Tally,
};

/// A reader.
#[derive(Debug)]
pub(crate) struct Reader {
    outlet: Arc<Outlet>,
    /// The session's own number for it.
    number: u64,
    pub(crate) channel: Arc<Channel>,
    pub(crate) partition: Arc<Partition>,
    queued: AtomicBool,
    /// Messages of the log that are behind it.
    read: AtomicU64,
    place: Mutex<Place>,
}

#[derive(Debug)]
struct Place {
    /// None: nobody knows yet where it starts.
    cursor: Option<Cursor>,
    /// The session has something to do first; nothing is read meanwhile.
    held: bool,
}

impl Reader {
    /// A reader, held until the session releases it.
    pub(crate) fn new(
        outlet: &Arc<Outlet>,
        number: u64,
        (partition, channel): (Arc<Partition>, Arc<Channel>),
    ) -> Arc<Self> {
        Arc::new(Self {
            outlet: Arc::clone(outlet),
            number,
            channel,
            partition,
            queued: AtomicBool::new(false),
            read: AtomicU64::new(u64::MAX),
            place: Mutex::new(Place {
                cursor: None,
                held: true,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.place
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Only the sleeping are woken: one that is queued will look anyway.
    pub(crate) fn wake(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.outlet.ready(Arc::clone(self));
        }
    }

    /// How many of so many messages are before it.
    fn lag(&self, messages: u64) -> u64 {
        messages.saturating_sub(self.read.load(Ordering::Relaxed))
    }

    /// Says where it goes on, without reading yet.
    pub(crate) fn place_at(&self, cursor: Cursor) {
        self.read.store(cursor.messages_before, Ordering::Relaxed);
        self.lock().cursor = Some(cursor);
    }

    /// Where it would go on.
    pub(crate) fn cursor(&self) -> Option<Cursor> {
        self.lock().cursor.clone()
    }

    /// Reads on, or for the first time.
    pub(crate) fn release(self: &Arc<Self>) {
        self.lock().held = false;
        self.wake();
    }

    /// What comes next, if anything does. Whatever else there is to do, the session is told.
    pub(crate) fn read(self: &Arc<Self>, now: Instant, tally: &mut Tally) -> Option<Bytes> {
        // Before reading, so that what is appended meanwhile queues it again.
        self.queued.store(false, Ordering::Release);
        let mut place = self.lock();
        if !self.partition.is_open_at(now) {
            place.held = true;
            self.outlet.mailbox.send(Note::Moved(self.number));
            return None;
        }
        let Place {
            cursor: Some(cursor),
            held: false,
        } = &mut *place
        else {
            return None;
        };
        let threshold = self.outlet.parts.tuning.slow_reader_pending;
        let read = self
            .channel
            .read(cursor, &self.outlet.reader, (threshold, FRAME), tally);
        self.read.store(cursor.messages_before, Ordering::Relaxed);
        match read {
            Read::Nothing => None,
            Read::Frame(frame, more) => {
                drop(place);
                if more {
                    self.wake();
                }
                Some(frame)
            }
            Read::Slow => {
                place.held = true;
                self.outlet.mailbox.send(Note::Slow(self.number));
                None
            }
        }
    }
}

/// All readers of a channel.
#[derive(Debug, Default)]
pub(crate) struct Readers(Mutex<Vec<Arc<Reader>>>);

impl Readers {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Reader>>> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Adds a reader, to be woken from now on.
    pub(crate) fn add(&self, reader: Arc<Reader>) {
        self.lock().push(reader);
    }

    /// Stops waking a reader.
    pub(crate) fn remove(&self, reader: &Arc<Reader>) {
        self.lock().retain(|other| !Arc::ptr_eq(other, reader));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// How many of so many messages are before the one that is furthest behind.
    pub(crate) fn lag(&self, messages: u64) -> u64 {
        let readers = self.lock();
        let lags = readers.iter().map(|reader| reader.lag(messages));
        lags.max().unwrap_or(0)
    }

    /// Has every reader look at the channel.
    pub(crate) fn wake(&self) {
        self.lock().iter().for_each(Reader::wake);
    }
}
