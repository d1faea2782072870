//! Transactions: what each has read, and how long it may go on.
//!
//! They are optimistic. A transaction reads as of the time of its first read; its commit is refused
//! with `ABORTED` if anything it read has changed since. So nothing waits for a lock, and of
//! transactions in conflict the first to commit wins.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;

use super::{
    document::Version,
    error::{Error, Result},
    limits,
    path::DocumentPath,
    proto::v1::{
        TransactionOptions,
        transaction_options::{Mode, read_only::ConsistencySelector},
    },
    query::Plan,
    store::Store,
    time::Time,
};

/// The open transactions of a database.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    open: HashMap<u64, Transaction>,
    last: u64,
    last_sweep: Option<Instant>,
}

/// One open transaction.
#[derive(Debug)]
pub(super) struct Transaction {
    read_only: bool,
    /// When it reads; none until it does.
    snapshot: Option<Time>,
    documents: HashSet<DocumentPath>,
    queries: Vec<(Plan, Vec<(DocumentPath, Time)>)>,
    began: Instant,
    last_used: Instant,
}

impl Transactions {
    pub(super) fn begin(&mut self, options: Option<TransactionOptions>) -> Result<Vec<u8>> {
        let (read_only, snapshot) = match options.and_then(|options| options.mode) {
            None | Some(Mode::ReadWrite(_)) => (false, None),
            Some(Mode::ReadOnly(options)) => match options.consistency_selector {
                Some(ConsistencySelector::ReadTime(time)) => (true, Some(time.try_into()?)),
                None => (true, None),
            },
        };
        let now = Instant::now();
        if self
            .last_sweep
            .is_none_or(|last| now - last > limits::TRANSACTION_IDLE)
        {
            self.open.retain(|_, transaction| !transaction.is_over(now));
            self.last_sweep = Some(now);
        }
        self.last += 1;
        self.open.insert(
            self.last,
            Transaction {
                read_only,
                snapshot,
                documents: HashSet::new(),
                queries: Vec::new(),
                began: now,
                last_used: now,
            },
        );
        Ok(self.last.to_be_bytes().to_vec())
    }

    /// The open transaction of that id.
    pub(super) fn get(&mut self, id: &[u8]) -> Result<&mut Transaction> {
        let now = Instant::now();
        let id = parse_id(id)?;
        if self.open.get(&id).is_some_and(|found| found.is_over(now)) {
            self.open.remove(&id);
        }
        let transaction = self.open.get_mut(&id).ok_or_else(gone)?;
        transaction.last_used = now;
        Ok(transaction)
    }

    /// Ends the transaction, for a commit.
    pub(super) fn take(&mut self, id: &[u8]) -> Result<Transaction> {
        self.get(id)?;
        self.open.remove(&parse_id(id)?).ok_or_else(gone)
    }

    /// Ends the transaction. One that has ended before is no error.
    pub(super) fn rollback(&mut self, id: &[u8]) -> Result<()> {
        let id = parse_id(id)?;
        if id == 0 || id > self.last {
            return Err(gone());
        }
        self.open.remove(&id);
        Ok(())
    }
}

impl Transaction {
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn is_over(&self, now: Instant) -> bool {
        now - self.began > limits::TRANSACTION_LIFETIME
            || now - self.last_used > limits::TRANSACTION_IDLE
    }

    /// The time it reads at, which its first read decides.
    pub(super) fn snapshot(&mut self, now: impl FnOnce() -> Time) -> Time {
        *self.snapshot.get_or_insert_with(now)
    }

    pub(super) fn has_read(&mut self, path: DocumentPath) {
        if !self.read_only {
            self.documents.insert(path);
        }
    }

    pub(super) fn has_run(&mut self, plan: Plan, documents: &[Version]) {
        if !self.read_only {
            self.queries.push((plan, identify(documents)));
        }
    }

    /// Whether it may commit writes: everything it read is as it was.
    pub(super) fn validate(&self, store: &Store) -> Result<()> {
        if self.read_only {
            return Err(Error::invalid(
                "Cannot modify entities in a read-only transaction.",
            ));
        }
        let Some(snapshot) = self.snapshot else {
            return Ok(());
        };
        let changed = snapshot < store.horizon()
            || (snapshot < store.last_commit()
                && (self
                    .documents
                    .iter()
                    .any(|path| store.last_change(path).is_some_and(|time| time > snapshot))
                    || self.queries.iter().any(|(plan, seen)| {
                        identify(&plan.run(store, store.last_commit()).documents) != *seen
                    })));
        if changed {
            return Err(contention());
        }
        Ok(())
    }
}

pub(super) fn contention() -> Error {
    Error::Aborted(
        "Too much contention on these documents. Please try again. Another write changed what this transaction read.".to_owned(),
    )
}

fn identify(documents: &[Version]) -> Vec<(DocumentPath, Time)> {
    documents
        .iter()
        .map(|doc| (doc.path.clone(), doc.update_time))
        .collect()
}

fn gone() -> Error {
    Error::invalid("The referenced transaction has expired or is no longer valid.")
}

fn parse_id(id: &[u8]) -> Result<u64> {
    id.try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| Error::invalid("Invalid transaction."))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_transaction_that_does_nothing_for_a_minute_is_over() {
        let mut transactions = Transactions::default();
        let id = transactions.begin(None).expect("begun");
        tokio::time::advance(limits::TRANSACTION_IDLE).await;
        assert!(transactions.get(&id).is_ok(), "just in time");
        tokio::time::advance(limits::TRANSACTION_IDLE + Duration::from_millis(1)).await;
        assert_eq!(transactions.get(&id).err(), Some(gone()));
        assert!(transactions.rollback(&id).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_transaction_is_over_at_the_end_of_its_lifetime() {
        let mut transactions = Transactions::default();
        let id = transactions.begin(None).expect("begun");
        let step = Duration::from_secs(30);
        for _ in 0..limits::TRANSACTION_LIFETIME.as_secs() / step.as_secs() {
            tokio::time::advance(step).await;
            assert!(transactions.get(&id).is_ok());
        }
        tokio::time::advance(step).await;
        assert_eq!(transactions.get(&id).err(), Some(gone()));
    }

    #[tokio::test(start_paused = true)]
    async fn forgotten_transactions_are_swept() {
        let mut transactions = Transactions::default();
        for _ in 0..100 {
            transactions.begin(None).expect("begun");
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        assert!(transactions.open.len() < 20, "{}", transactions.open.len());
    }
}
