//! The links between the regions, and what goes wrong on them.

use std::{collections::BTreeSet, time::Duration};

use tokio::sync::watch;

use super::faults::{Dice, Faults};
use crate::BusError;

pub(super) struct Network {
    links: watch::Sender<Links>,
    dice: Dice,
}

/// The network's state at a moment.
pub(super) struct Links {
    cross_region_delay: Duration,
    cut: BTreeSet<(String, String)>,
    down: BTreeSet<String>,
    faults: Faults,
}

impl Links {
    /// How long an event of a region's topic takes to a region; `None`: it does not get there.
    pub(super) fn reach(&self, from: &str, to: &str) -> Option<Duration> {
        if self.down.contains(from) {
            return None;
        }
        if from == to {
            return Some(Duration::ZERO);
        }
        if !self.cut.is_empty() && self.cut.contains(&link(from, to)) {
            return None;
        }
        Some(self.cross_region_delay)
    }
}

/// What became of a publish, and what its publisher is told.
pub(super) struct Fate {
    pub(super) accepted: bool,
    pub(super) answer: Result<(), BusError>,
}

impl Network {
    pub(super) fn new(cross_region_delay: Duration, faults: Faults) -> Self {
        Self {
            dice: Dice::new(faults.seed),
            links: watch::Sender::new(Links {
                cross_region_delay,
                cut: BTreeSet::new(),
                down: BTreeSet::new(),
                faults,
            }),
        }
    }

    pub(super) fn set_cross_region_delay(&self, delay: Duration) {
        self.links
            .send_modify(|links| links.cross_region_delay = delay);
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        self.dice.restart(faults.seed);
        self.links.send_modify(|links| links.faults = faults);
    }

    pub(super) fn set_cut(&self, a: &str, b: &str, cut: bool) {
        self.links.send_modify(|links| {
            if cut {
                links.cut.insert(link(a, b));
            } else {
                links.cut.remove(&link(a, b));
            }
        });
    }

    pub(super) fn set_down(&self, region: &str, down: bool) {
        self.links.send_modify(|links| {
            if down {
                links.down.insert(region.to_owned());
            } else {
                links.down.remove(region);
            }
        });
    }

    pub(super) fn watch(&self) -> watch::Receiver<Links> {
        self.links.subscribe()
    }

    /// As [`Links::reach`], now: between a client in one region and the bus of another.
    pub(super) fn reach(&self, client: &str, bus: &str) -> Option<Duration> {
        self.links.borrow().reach(bus, client)
    }

    pub(super) fn publish(&self, client: &str, bus: &str) -> Fate {
        let links = self.links.borrow();
        let lost = if links.reach(bus, client).is_none() {
            Some(self.dice.chance(0.5))
        } else {
            let lost = self.dice.chance(links.faults.lose_publish_reply);
            lost.then_some(true)
        };
        match lost {
            Some(accepted) => Fate {
                accepted,
                answer: Err(unavailable(bus)),
            },
            None => Fate {
                accepted: true,
                answer: Ok(()),
            },
        }
    }

    /// How often a group gets an accepted event, and how long each copy takes.
    pub(super) fn copies(&self) -> impl Iterator<Item = Duration> + use<> {
        let links = self.links.borrow();
        let faults = &links.faults;
        let first = self.dice.within(&faults.delay);
        let second = self
            .dice
            .chance(faults.duplicate)
            .then(|| self.dice.within(&faults.delay));
        std::iter::once(first).chain(second)
    }

    pub(super) fn loses_ack(&self) -> bool {
        self.dice.chance(self.links.borrow().faults.redeliver)
    }
}

pub(super) fn unavailable(region: &str) -> BusError {
    BusError::Unavailable(format!("the bus of {region} can't be reached"))
}

/// A link has no direction.
fn link(a: &str, b: &str) -> (String, String) {
    if a < b {
        (a.to_owned(), b.to_owned())
    } else {
        (b.to_owned(), a.to_owned())
    }
}
