//! A channel as it begins here: from what history has of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use infrachat_metadata::HistoryEntry;
use infrachat_types::{ChannelName, Epoch, Offset, OriginId, Region};

use super::{Channel, ChannelLimits, Inner, Origin, encode_position};
use crate::{
    comings::Comings, dedupe::DuplicateWindow, history::HistoryQueue, log::Ring, memory::Weight,
    observe::Lag, reader::Readers, refused::Refused,
};

/// The newest entries of a channel's history, in append order.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) entries: Vec<HistoryEntry>,
    /// There are no older ones.
    pub(crate) complete: bool,
}

impl Channel {
    /// A channel as history left it. Of `regions`, the first is the one whose log this is.
    pub(crate) fn load(
        name: ChannelName,
        regions: &[Region],
        epoch: Epoch,
        Tail {
            entries: tail,
            complete,
        }: Tail,
        (limits, weight): (ChannelLimits, Weight),
        history: HistoryQueue,
        lag: Arc<Lag>,
    ) -> Self {
        let region = regions[0].clone();
        // What came before the tail had come from every region by about the tail's first moment.
        let floor = match tail.first() {
            Some(oldest) if !complete => oldest.message.message_id.millis(),
            _ => 0,
        };
        let seen = regions
            .iter()
            .map(|region| (region.into(), floor))
            .collect();
        let before = match tail.first() {
            Some(oldest) if !complete => (oldest.epoch, oldest.offset),
            _ => (Epoch(0), Offset(0)),
        };
        let stable = tail
            .last()
            .map_or((epoch, Offset(0)), |last| (last.epoch, last.offset));
        let next_offset = if stable.0 == epoch {
            stable.1.next()
        } else {
            Offset(1)
        };
        let mut inner = Inner {
            ring: Ring::new(
                limits.ring,
                before,
                encode_position(&name, &region, before, &seen),
            ),
            weight,
            window: DuplicateWindow::new(limits.duplicate_window),
            next_offset,
            stable,
            seen,
            parked: BTreeMap::new(),
            waiting: BTreeMap::new(),
            origin: Origin {
                id: OriginId::random(),
                next: 1,
            },
            refused: Refused::default(),
            comings: Comings::default(),
            idle_since: None,
        };
        for entry in tail.iter().skip(usize::from(!complete)) {
            let place = (entry.epoch, entry.offset);
            inner.take_in((&name, &region), &entry.message, place, None);
        }
        if !complete
            && let Some(newest) = tail
                .iter()
                .map(|entry| entry.message.message_id.millis())
                .max()
        {
            inner.window.forget_until(newest);
        }
        Self {
            name,
            epoch,
            region,
            inner: Mutex::new(inner),
            readers: Readers::default(),
            history,
            lag,
        }
    }
}
