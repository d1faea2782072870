//! What was said from each region, and what was heard of it in each.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::time::Instant;

/// From which region, to which.
pub(crate) type Pair = (String, String);

/// What happened between two regions.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) heard: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) reordered: u64,
    /// From sending to hearing, in microseconds.
    pub(crate) delivery: Histogram<u64>,
}

impl Default for Counts {
    fn default() -> Self {
        let delivery = Histogram::new(3);
        Self {
            sent: 0,
            heard: 0,
            lost: 0,
            doubled: 0,
            reordered: 0,
            // Three digits are always a valid precision.
            delivery: delivery.unwrap_or_else(|err| unreachable!("{err}")),
        }
    }
}

/// What became of a probe that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hearing {
    /// For the first time.
    First { after: Duration, reordered: bool },
    /// Once more.
    Again,
    /// It is not of this run, or was given up as lost.
    Unknown,
}

#[derive(Debug, Default)]
struct Way {
    counts: Counts,
    /// Said and not heard: when it was said, and when it was acknowledged.
    open: BTreeMap<u64, (Instant, Option<Instant>)>,
    /// Heard lately.
    heard: BTreeSet<u64>,
    newest: Option<u64>,
}

/// Everything.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    ways: BTreeMap<Pair, Way>,
}

/// Probes remembered after they were heard.
const REMEMBERED: usize = 1_000;

impl Ledger {
    pub(crate) fn new(regions: &[String]) -> Self {
        let pairs = regions
            .iter()
            .flat_map(|from| regions.iter().map(|to| (from.clone(), to.clone())));
        Self {
            ways: pairs.map(|pair| (pair, Way::default())).collect(),
        }
    }

    fn from<'a>(&'a mut self, from: &'a str) -> impl Iterator<Item = &'a mut Way> {
        let ways = self.ways.iter_mut();
        ways.filter(move |((said, _), _)| said == from)
            .map(|(_, way)| way)
    }

    /// A probe goes out.
    pub(crate) fn said(&mut self, from: &str, number: u64, at: Instant) {
        for way in self.from(from) {
            way.open.insert(number, (at, None));
        }
    }

    /// It was acknowledged: every region should hear it.
    pub(crate) fn acknowledged(&mut self, from: &str, number: u64, at: Instant) {
        for way in self.from(from) {
            way.counts.sent += 1;
            if let Some((_, acknowledged)) = way.open.get_mut(&number) {
                *acknowledged = Some(at);
            }
        }
    }

    /// It never was: it may be heard, and need not.
    pub(crate) fn failed(&mut self, from: &str, number: u64) {
        for way in self.from(from) {
            way.open.remove(&number);
        }
    }

    /// A region heard it.
    pub(crate) fn heard(&mut self, from: &str, to: &str, number: u64, at: Instant) -> Hearing {
        let Some(way) = self.ways.get_mut(&(from.to_owned(), to.to_owned())) else {
            return Hearing::Unknown;
        };
        if way.heard.contains(&number) {
            way.counts.doubled += 1;
            return Hearing::Again;
        }
        let Some((said, _)) = way.open.remove(&number) else {
            return Hearing::Unknown;
        };
        way.heard.insert(number);
        if way.heard.len() > REMEMBERED {
            way.heard.pop_first();
        }
        let reordered = way.newest.is_some_and(|newest| number < newest);
        way.newest = way.newest.max(Some(number));
        let after = at.duration_since(said);
        way.counts.heard += 1;
        way.counts.reordered += u64::from(reordered);
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        // It resizes itself; only memory could run out.
        let _ = way.counts.delivery.record(micros);
        Hearing::First { after, reordered }
    }

    /// Gives up what was acknowledged so long ago and not heard; answers how many of each pair.
    pub(crate) fn give_up(&mut self, now: Instant, deadline: Duration) -> Vec<(Pair, u64)> {
        let mut lost = Vec::new();
        for (pair, way) in &mut self.ways {
            let before = way.open.len();
            way.open.retain(|_, (_, acknowledged)| {
                acknowledged.is_none_or(|at| now.duration_since(at) < deadline)
            });
            let gone = (before - way.open.len()) as u64;
            if gone > 0 {
                way.counts.lost += gone;
                lost.push((pair.clone(), gone));
            }
        }
        lost
    }

    /// Whether something acknowledged was not heard yet.
    pub(crate) fn is_waiting(&self) -> bool {
        self.ways.values().any(|way| !way.open.is_empty())
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = (&Pair, &Counts)> {
        self.ways.iter().map(|(pair, way)| (pair, &way.counts))
    }

    /// Nothing was lost, repeated or out of order.
    pub(crate) fn is_good(&self) -> bool {
        self.counts()
            .all(|(_, counts)| counts.lost + counts.doubled + counts.reordered == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    fn ledger() -> Ledger {
        Ledger::new(&["west".to_owned(), "asia".to_owned()])
    }

    fn counts(ledger: &Ledger, from: &str, to: &str) -> Counts {
        let pair = (from.to_owned(), to.to_owned());
        let found = ledger.counts().find(|(of, _)| **of == pair);
        found.expect("a pair of regions").1.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_acknowledged_and_not_heard_is_lost_after_the_deadline_and_not_before() {
        let mut ledger = ledger();
        let now = Instant::now();
        ledger.said("west", 1, now);
        ledger.acknowledged("west", 1, now);
        let first = ledger.heard("west", "west", 1, now + Duration::from_millis(5));
        let after = Duration::from_millis(5);
        assert_eq!(
            first,
            Hearing::First {
                after,
                reordered: false
            }
        );
        assert!(ledger.give_up(now + DEADLINE / 2, DEADLINE).is_empty());
        let lost = ledger.give_up(now + DEADLINE, DEADLINE);
        assert_eq!(lost, [(("west".to_owned(), "asia".to_owned()), 1)]);
        assert_eq!(counts(&ledger, "west", "asia").lost, 1);
        assert_eq!(counts(&ledger, "west", "west").lost, 0);
        assert!(!ledger.is_good() && !ledger.is_waiting());
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_is_not_expected() {
        let mut ledger = ledger();
        let now = Instant::now();
        ledger.said("west", 1, now);
        ledger.failed("west", 1);
        assert!(ledger.give_up(now + DEADLINE * 2, DEADLINE).is_empty());
        assert!(ledger.is_good());
    }

    #[tokio::test(start_paused = true)]
    async fn repeats_and_overtakings_are_counted() {
        let mut ledger = ledger();
        let now = Instant::now();
        for number in 1..=2 {
            ledger.said("west", number, now);
            ledger.acknowledged("west", number, now);
        }
        ledger.heard("west", "asia", 2, now);
        ledger.heard("west", "asia", 1, now);
        assert_eq!(ledger.heard("west", "asia", 1, now), Hearing::Again);
        assert_eq!(ledger.heard("mars", "asia", 1, now), Hearing::Unknown);
        let counts = counts(&ledger, "west", "asia");
        assert_eq!((counts.heard, counts.doubled, counts.reordered), (2, 1, 1));
    }
}
