//! Who said what, and who heard it: the verdict over a story.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::Instant,
};

/// A sender's messages in a channel, or a reader's of one sender there.
pub type Said = (String, String);
type Heard = (String, String, String);

/// What became of a message.
#[derive(Debug, Clone)]
pub struct Fate {
    /// Said then.
    pub at: Instant,
    /// Acknowledged then.
    pub acked: Option<Instant>,
    failed: Option<String>,
}

#[derive(Debug, Default)]
struct Pages {
    said: BTreeMap<Said, Vec<Fate>>,
    /// By reader, sender and channel: numbers, and when they came.
    heard: BTreeMap<Heard, Vec<(usize, Instant)>>,
    /// What must not happen to a user.
    wrong: Vec<String>,
}

/// Everything that happened, of all sessions of a load.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Pages>);

impl Ledger {
    fn with<T>(&self, work: impl FnOnce(&mut Pages) -> T) -> T {
        work(&mut self.0.lock().expect("whole"))
    }

    /// Notes that a message is said; answers its number.
    pub fn says(&self, sender: &str, channel: &str) -> usize {
        self.with(|pages| {
            let said = pages.said.entry((sender.to_owned(), channel.to_owned()));
            let said = said.or_default();
            said.push(Fate {
                at: Instant::now(),
                acked: None,
                failed: None,
            });
            said.len() - 1
        })
    }

    /// Notes what the sender was answered.
    pub fn answered(&self, sender: &str, channel: &str, number: usize, answer: Result<(), String>) {
        self.with(|pages| {
            let said = pages.said.get_mut(&(sender.to_owned(), channel.to_owned()));
            let fate = &mut said.expect("was said")[number];
            match answer {
                Ok(()) => fate.acked = Some(Instant::now()),
                Err(err) => fate.failed = Some(err),
            }
        });
    }

    /// Notes that a message was shown to a reader.
    pub fn hears(&self, reader: &str, sender: &str, channel: &str, number: usize) {
        let key = (reader.to_owned(), sender.to_owned(), channel.to_owned());
        let came = (number, Instant::now());
        self.with(|pages| pages.heard.entry(key).or_default().push(came));
    }

    /// Notes what must not be.
    pub fn wrong(&self, what: String) {
        self.with(|pages| pages.wrong.push(what));
    }

    /// How many were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.with(|pages| {
            let fates = pages.said.values().flatten();
            fates.filter(|fate| fate.acked.is_some()).count()
        })
    }

    /// How many were delivered.
    pub fn delivered(&self) -> usize {
        self.with(|pages| pages.heard.values().map(Vec::len).sum())
    }

    /// The bodies of a channel that were acknowledged.
    pub fn bodies(&self, channel: &str) -> BTreeSet<String> {
        self.with(|pages| {
            let of_channel = pages.said.iter().filter(|((_, name), _)| name == channel);
            let bodies = of_channel.flat_map(|((sender, _), fates)| {
                let acked = fates
                    .iter()
                    .enumerate()
                    .filter(|(_, fate)| fate.acked.is_some());
                acked.map(move |(number, _)| format!("{sender} {number}"))
            });
            bodies.collect()
        })
    }

    /// Since `then`, the reader was first shown something in the channel that one of these senders
    /// said after `then`.
    pub fn first_heard(
        &self,
        reader: &str,
        senders: &[String],
        channel: &str,
        then: Instant,
    ) -> Option<Instant> {
        self.with(|pages| {
            let heard = senders.iter().filter_map(|sender| {
                let fates = pages.said.get(&(sender.clone(), channel.to_owned()))?;
                let key = (reader.to_owned(), sender.clone(), channel.to_owned());
                let heard = pages.heard.get(&key)?.iter();
                heard
                    .filter(|(number, _)| fates[*number].at > then)
                    .map(|(_, at)| *at)
                    .min()
            });
            heard.min()
        })
    }

    /// When the last of what was said before `then` was shown to the reader, if any came after `then`.
    pub fn last_late(&self, reader: &str, channel: &str, then: Instant) -> Option<Instant> {
        self.with(|pages| {
            let heard = pages.heard.iter();
            let heard = heard.filter(|((who, _, name), _)| who == reader && name == channel);
            let late = heard.flat_map(|((_, sender, name), heard)| {
                let fates = &pages.said[&(sender.clone(), name.clone())];
                let late = heard.iter();
                late.filter(|(number, at)| fates[*number].at <= then && *at > then)
                    .map(|(_, at)| *at)
            });
            late.max()
        })
    }

    /// Acknowledged messages that a reader was not shown so far.
    pub fn missing(&self, readers: &[String]) -> Vec<String> {
        self.with(|pages| {
            let mut missing = Vec::new();
            for ((sender, channel), fates) in &pages.said {
                for reader in readers.iter().filter(|reader| *reader != sender) {
                    let key = (reader.clone(), sender.clone(), channel.clone());
                    let heard = pages.heard.get(&key);
                    let heard: BTreeSet<usize> =
                        heard.into_iter().flatten().map(|(n, _)| *n).collect();
                    let acked = fates
                        .iter()
                        .enumerate()
                        .filter(|(_, fate)| fate.acked.is_some());
                    missing.extend(acked.filter(|(number, _)| !heard.contains(number)).map(
                        |(number, _)| format!("{reader} misses {sender} {number} in {channel}"),
                    ));
                }
            }
            missing
        })
    }

    /// What must not be: messages shown twice or out of order, messages that failed, and whatever was
    /// noted as wrong.
    pub fn faults(&self) -> Vec<String> {
        self.with(|pages| {
            let mut faults = pages.wrong.clone();
            for ((reader, sender, channel), heard) in &pages.heard {
                let pairs = heard.windows(2).filter(|pair| pair[0].0 >= pair[1].0);
                faults.extend(pairs.map(|pair| {
                    let (before, after) = (pair[0].0, pair[1].0);
                    format!("{reader} was shown {sender} {after} after {before} in {channel}")
                }));
            }
            for ((sender, channel), fates) in &pages.said {
                let failed = fates.iter().enumerate();
                faults.extend(failed.filter_map(|(number, fate)| {
                    let why = fate.failed.as_ref()?;
                    Some(format!("{sender} {number} in {channel} failed: {why}"))
                }));
            }
            faults
        })
    }
}
