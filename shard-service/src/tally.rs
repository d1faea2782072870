//! What a frame carries, noted while it is put together and counted when it is sent.

use std::sync::Arc;

use infrachat_types::{RegionTag, SessionId, UnixMillis};
use tokio::time::Instant;

use crate::{
    counted::COUNTED,
    parts::Parts,
    traces::{self, Traced},
};

/// What is known of a message in the log, beside its text.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) source: RegionTag,
    pub(crate) published_at: UnixMillis,
    pub(crate) appended: Instant,
    /// Its trace, if that is kept.
    pub(crate) trace: Option<Arc<Traced>>,
}

/// The messages of a frame.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    by_source: Vec<(RegionTag, u64)>,
    /// Of those that came after their reader.
    oldest: Option<Facts>,
    traced: Vec<(Arc<Traced>, Instant)>,
}

impl Tally {
    /// Notes a message; `live`: it came after its reader.
    pub(crate) fn add(&mut self, facts: &Facts, live: bool) {
        let found = self
            .by_source
            .iter_mut()
            .find(|(source, _)| *source == facts.source);
        match found {
            Some((_, count)) => *count += 1,
            None => self.by_source.push((facts.source, 1)),
        }
        if !live {
            return;
        }
        self.note_live(facts);
        if let Some(trace) = &facts.trace {
            self.traced.push((Arc::clone(trace), facts.appended));
        }
    }

    /// Notes what another has noted.
    pub(crate) fn add_all(&mut self, other: &Self) {
        for (source, more) in &other.by_source {
            match self.by_source.iter_mut().find(|(known, _)| known == source) {
                Some((_, count)) => *count += more,
                None => self.by_source.push((*source, *more)),
            }
        }
        if let Some(oldest) = &other.oldest {
            self.note_live(oldest);
        }
        self.traced.extend_from_slice(&other.traced);
    }

    fn note_live(&mut self, facts: &Facts) {
        let older = |oldest: &Facts| oldest.appended <= facts.appended;
        if !self.oldest.as_ref().is_some_and(older) {
            self.oldest = Some(facts.clone());
        }
    }

    /// Counts what was noted as sent, and forgets it.
    pub(crate) fn sent(&mut self, parts: &Parts, reader: &SessionId, now: Instant) {
        if self.by_source.is_empty() {
            return;
        }
        COUNTED.frames.increment(1);
        let of = |tag: RegionTag| parts.sources.iter().find(|source| source.tag == tag);
        for (tag, count) in self.by_source.drain(..) {
            if let Some(source) = of(tag) {
                source.deliveries.increment(count);
            }
        }
        if let Some(oldest) = self.oldest.take() {
            COUNTED
                .fanout
                .record(now.saturating_duration_since(oldest.appended));
            let age = parts.clock.now().saturating_sub(oldest.published_at).max(0);
            if let Some(source) = of(oldest.source) {
                source.delivery.record(age as f64 / 1_000.0);
            }
        }
        for (trace, appended) in self.traced.drain(..) {
            traces::deliver(&trace, appended, reader);
        }
    }
}
