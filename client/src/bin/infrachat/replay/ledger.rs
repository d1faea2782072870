//! Who was owed which message, and who got it: the verdict of a replay, for one channel.
//!
//! A session is owed a message when it had heard that it is joined before the publish call was made,
//! and had not begun to leave. Who begins to leave first waits for everything owed, so a leave owes
//! nothing. A message whose publish began outside of that time is optional: it may come once, or
//! not at all. A message that was never acknowledged is owed to nobody, and may come once. Nobody
//! gets a message twice, nobody gets their own, and each sender's messages come in the order of
//! their publish calls.

use std::{collections::HashMap, sync::Mutex, time::Instant};

use hdrhistogram::CreationError;
use infrachat_client::ClientMessageId;
use tokio::sync::Notify;

use super::report::{Tally, latency};

const OWED: u8 = 1;
const GOT: u8 = 2;
/// Offenders that are named.
const NAMED: usize = 10;

/// One channel's account.
#[derive(Debug)]
pub(crate) struct Ledger {
    book: Mutex<Book>,
    changed: Notify,
}

#[derive(Debug)]
struct Book {
    people: Vec<Person>,
    messages: Vec<Sent>,
    by_id: HashMap<ClientMessageId, usize>,
    tally: Tally,
    /// Messages neither acknowledged nor failed.
    waiting: usize,
}

#[derive(Debug)]
struct Person {
    name: String,
    region: String,
    place: Place,
    /// Owed and not yet got.
    owed: usize,
    /// By sender, the number of the newest message got.
    newest: Vec<Option<usize>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Away,
    Here,
    Leaving,
}

#[derive(Debug)]
struct Sent {
    id: ClientMessageId,
    sender: usize,
    began: Instant,
    outcome: Outcome,
    cells: Box<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Waiting,
    Acknowledged,
    Failed,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) sent: usize,
    pub(crate) deliveries: u64,
    /// Acknowledgements and deliveries that are still to come.
    pub(crate) outstanding: usize,
}

impl Ledger {
    pub(crate) fn new(names: &[String]) -> Result<Self, CreationError> {
        let person = |name: &String| Person {
            name: name.clone(),
            region: String::new(),
            place: Place::Away,
            owed: 0,
            newest: vec![None; names.len()],
        };
        let book = Book {
            people: names.iter().map(person).collect(),
            messages: Vec::new(),
            by_id: HashMap::new(),
            tally: Tally::new()?,
            waiting: 0,
        };
        Ok(Self {
            book: Mutex::new(book),
            changed: Notify::new(),
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        // A poisoned book would be one whose writer panicked, which the verdict should still tell.
        let mut book = self
            .book
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let answer = change(&mut book);
        drop(book);
        self.changed.notify_waiters();
        answer
    }

    pub(crate) fn connected(&self, person: usize, region: &str) {
        self.with(|book| region.clone_into(&mut book.people[person].region));
    }

    /// The session has heard that it is joined.
    pub(crate) fn joined(&self, person: usize) {
        self.with(|book| {
            let place = &mut book.people[person].place;
            if *place == Place::Away {
                *place = Place::Here;
            }
        });
    }

    /// The session will leave: nothing published from here on is owed to it.
    pub(crate) fn leaving(&self, person: usize) {
        self.with(|book| book.people[person].place = Place::Leaving);
    }

    /// The session has heard that it left.
    pub(crate) fn left(&self, person: usize) {
        self.with(|book| book.people[person].place = Place::Away);
    }

    /// Enters a message, which `send` publishes, and answers its number.
    pub(crate) fn publish<T>(
        &self,
        sender: usize,
        send: impl FnOnce() -> (ClientMessageId, T),
    ) -> (usize, T) {
        // Within the lock, so that no delivery comes before the entry.
        self.with(|book| {
            let began = Instant::now();
            let (id, sending) = send();
            (book.enter(sender, id, began), sending)
        })
    }

    pub(crate) fn acknowledged(&self, message: usize) {
        self.with(|book| {
            let sent = &mut book.messages[message];
            sent.outcome = Outcome::Acknowledged;
            book.tally
                .ack_latency
                .saturating_record(latency(sent.began));
            book.waiting -= 1;
        });
    }

    /// A message was not acknowledged for good: nobody is owed it any more.
    pub(crate) fn failed(&self, message: usize) {
        self.with(|book| {
            let sent = &mut book.messages[message];
            sent.outcome = Outcome::Failed;
            book.waiting -= 1;
            for (cell, person) in sent.cells.iter_mut().zip(&mut book.people) {
                if *cell == OWED {
                    person.owed -= 1;
                }
                *cell &= !OWED;
            }
        });
    }

    /// A session was shown a message.
    pub(crate) fn delivered(&self, receiver: usize, id: ClientMessageId) {
        self.with(|book| book.deliver(receiver, id));
    }

    /// Resolves once the session has everything that it is owed.
    pub(crate) async fn settled(&self, person: usize) {
        loop {
            let changed = self.changed.notified();
            if self.read(|book| book.people[person].owed == 0) {
                return;
            }
            changed.await;
        }
    }

    /// Resolves once the session has heard that it is joined.
    pub(crate) async fn is_here(&self, person: usize) {
        loop {
            let changed = self.changed.notified();
            if self.read(|book| book.people[person].place == Place::Here) {
                return;
            }
            changed.await;
        }
    }

    fn read<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(
            &self
                .book
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }

    pub(crate) fn progress(&self) -> Progress {
        self.read(|book| Progress {
            sent: book.messages.len(),
            deliveries: book.tally.got,
            outstanding: book.waiting + book.people.iter().map(|person| person.owed).sum::<usize>(),
        })
    }

    /// The account as it stands.
    pub(crate) fn tally(&self) -> Tally {
        self.read(Book::balance)
    }
}

impl Book {
    fn enter(&mut self, sender: usize, id: ClientMessageId, began: Instant) -> usize {
        let number = self.messages.len();
        let mut cells = vec![0; self.people.len()].into_boxed_slice();
        for (index, (cell, person)) in cells.iter_mut().zip(&mut self.people).enumerate() {
            if index != sender && person.place == Place::Here {
                *cell = OWED;
                person.owed += 1;
            }
        }
        self.messages.push(Sent {
            id,
            sender,
            began,
            outcome: Outcome::Waiting,
            cells,
        });
        self.by_id.insert(id, number);
        self.waiting += 1;
        number
    }

    fn deliver(&mut self, receiver: usize, id: ClientMessageId) {
        let Some(number) = self.by_id.get(&id).copied() else {
            self.tally.strangers += 1;
            return;
        };
        self.tally.got += 1;
        let sender = self.messages[number].sender;
        if receiver == sender {
            self.tally.echoed += 1;
            return self.name(number, receiver, "came back to its sender");
        }
        let sent = &mut self.messages[number];
        let cell = &mut sent.cells[receiver];
        if *cell & GOT != 0 {
            self.tally.duplicated += 1;
            return self.name(number, receiver, "came again to");
        }
        *cell |= GOT;
        if *cell & OWED != 0 {
            self.people[receiver].owed -= 1;
            let same = self.people[receiver].region == self.people[sender].region;
            let latencies = if same {
                &mut self.tally.same_region
            } else {
                &mut self.tally.cross_region
            };
            latencies.saturating_record(latency(sent.began));
        }
        let newest = &mut self.people[receiver].newest[sender];
        if newest.is_some_and(|newest| newest > number) {
            self.tally.out_of_order += 1;
            self.name(number, receiver, "came too late, after a later one, to");
        } else {
            *newest = Some(number);
        }
    }

    fn name(&mut self, number: usize, receiver: usize, what: &str) {
        if self.tally.offenders.len() < NAMED {
            let offender = self.offender(number, receiver, what);
            self.tally.offenders.push(offender);
        }
    }

    fn offender(&self, number: usize, receiver: usize, what: &str) -> String {
        let sent = &self.messages[number];
        let (sender, receiver) = (&self.people[sent.sender], &self.people[receiver]);
        format!(
            "message {number} ({}) of {} {what} {}",
            sent.id, sender.name, receiver.name
        )
    }

    fn balance(&self) -> Tally {
        let mut tally = self.tally.clone();
        tally.sent = self.messages.len() as u64;
        for (number, sent) in self.messages.iter().enumerate() {
            let got = |cell: &u8| u64::from(*cell == GOT);
            tally.optional += sent.cells.iter().map(got).sum::<u64>();
            match sent.outcome {
                Outcome::Acknowledged => tally.acknowledged += 1,
                Outcome::Failed | Outcome::Waiting => {
                    tally.failed += 1;
                    continue;
                }
            }
            for (receiver, cell) in sent
                .cells
                .iter()
                .enumerate()
                .filter(|(_, cell)| *cell & OWED != 0)
            {
                tally.expected += 1;
                if cell & GOT != 0 {
                    tally.delivered += 1;
                } else {
                    tally.missing += 1;
                    if tally.offenders.len() < 2 * NAMED {
                        tally
                            .offenders
                            .push(self.offender(number, receiver, "never came to"));
                    }
                }
            }
        }
        tally
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
