//! One database: reads at a time, atomic commits, and word of every commit.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tokio::sync::broadcast;

use super::{
    History,
    commit::Write,
    document::{Document, Version},
    error::{Error, Result},
    path::{DatabaseName, DocumentPath},
    proto::v1::{self, TransactionOptions},
    query::{Plan, Results},
    store::Store,
    time::{Clock, Time},
    transaction::{Transactions, contention},
};

/// Commits that a listener may be behind before it reads everything afresh.
const COMMITS_KEPT: usize = 1024;

/// Every database; one that is named exists.
#[derive(Debug)]
pub(super) struct Databases {
    history: History,
    open: Mutex<HashMap<DatabaseName, Arc<Database>>>,
}

impl Databases {
    pub(super) fn new(history: History) -> Self {
        Self {
            history,
            open: Mutex::default(),
        }
    }

    pub(super) fn get(&self, name: &DatabaseName) -> Arc<Database> {
        let mut open = lock(&self.open);
        match open.get(name) {
            Some(database) => database.clone(),
            None => {
                let database = Arc::new(Database::new(name.clone(), self.history));
                open.insert(name.clone(), database.clone());
                database
            }
        }
    }

    pub(super) fn by_name(&self, name: &str) -> Result<Arc<Database>> {
        Ok(self.get(&DatabaseName::parse(name)?))
    }
}

/// A database in memory.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) name: DatabaseName,
    history: History,
    clock: Clock,
    store: RwLock<Store>,
    transactions: Mutex<Transactions>,
    commits: broadcast::Sender<Arc<Commit>>,
}

/// What one commit changed.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) time: Time,
    /// Each document once, as it is now; none if it is gone.
    pub(super) changes: Vec<(DocumentPath, Option<Version>)>,
}

/// A commit's answer.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) time: Time,
    pub(super) results: Vec<v1::WriteResult>,
    /// What each write's document is now.
    pub(super) documents: Vec<Option<Version>>,
}

/// As of when a request wants to read.
#[derive(Debug)]
pub(super) enum Consistency {
    Now,
    At(prost_types::Timestamp),
    Transaction(Vec<u8>),
    NewTransaction(TransactionOptions),
}

/// As of when a request reads.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) time: Time,
    transaction: Option<Vec<u8>>,
    is_new: bool,
}

impl Snapshot {
    pub(super) fn is_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// The transaction's id, if this request began it.
    pub(super) fn new_transaction(&self) -> Vec<u8> {
        if self.is_new {
            self.transaction.clone().unwrap_or_default()
        } else {
            Vec::new()
        }
    }
}

impl Database {
    fn new(name: DatabaseName, history: History) -> Self {
        Self {
            name,
            history,
            clock: Clock::new(),
            store: RwLock::new(Store::new()),
            transactions: Mutex::default(),
            commits: broadcast::channel(COMMITS_KEPT).0,
        }
    }

    pub(super) fn begin(&self, options: Option<TransactionOptions>) -> Result<Vec<u8>> {
        lock(&self.transactions).begin(options)
    }

    pub(super) fn rollback(&self, transaction: &[u8]) -> Result<()> {
        lock(&self.transactions).rollback(transaction)
    }

    /// Settles as of when the request reads.
    pub(super) fn snapshot(&self, consistency: Consistency) -> Result<Snapshot> {
        let (transaction, is_new) = match consistency {
            Consistency::Now => {
                return Ok(Snapshot {
                    time: self.clock.read_time(),
                    transaction: None,
                    is_new: false,
                });
            }
            Consistency::At(time) => {
                return Ok(Snapshot {
                    time: self.check_past(time.try_into()?)?,
                    transaction: None,
                    is_new: false,
                });
            }
            Consistency::Transaction(id) => (id, false),
            Consistency::NewTransaction(options) => (self.begin(Some(options))?, true),
        };
        let (time, read_only) = {
            let mut transactions = lock(&self.transactions);
            let found = transactions.get(&transaction)?;
            (
                found.snapshot(|| self.clock.read_time()),
                found.is_read_only(),
            )
        };
        Ok(Snapshot {
            time: if read_only {
                self.check_past(time)?
            } else {
                time
            },
            transaction: Some(transaction),
            is_new,
        })
    }

    /// Whether a time that a client chose can be read.
    fn check_past(&self, time: Time) -> Result<Time> {
        let now = self.clock.read_time();
        if time > now {
            return Err(Error::invalid(
                "The requested read time cannot be in the future.",
            ));
        }
        if time < now.minus(self.history.retention) {
            return Err(too_old());
        }
        Ok(time)
    }

    /// Reads as of the snapshot, if that is still kept.
    fn read_at<T>(&self, snapshot: &Snapshot, read: impl FnOnce(&Store, Time) -> T) -> Result<T> {
        let store = self.read();
        if snapshot.time >= store.horizon() {
            return Ok(read(&store, snapshot.time));
        }
        Err(match snapshot.transaction {
            Some(_) => contention(),
            None => too_old(),
        })
    }

    /// The documents, in the order of the paths; none for one that isn't there.
    pub(super) fn get(
        &self,
        snapshot: &Snapshot,
        paths: &[DocumentPath],
    ) -> Result<Vec<Option<Version>>> {
        let found = self.read_at(snapshot, |store, time| {
            paths
                .iter()
                .map(|path| store.at(path, time).cloned())
                .collect()
        })?;
        if let Some(id) = &snapshot.transaction {
            let mut transactions = lock(&self.transactions);
            let transaction = transactions.get(id)?;
            for path in paths {
                transaction.has_read(path.clone());
            }
        }
        Ok(found)
    }

    pub(super) fn query(&self, snapshot: &Snapshot, plan: &Plan) -> Result<Results> {
        let results = self.read_at(snapshot, |store, time| plan.run(store, time))?;
        if let Some(id) = &snapshot.transaction {
            lock(&self.transactions)
                .get(id)?
                .has_run(plan.clone(), &results.documents);
        }
        Ok(results)
    }

    /// Reads the store directly, outside any transaction.
    pub(super) fn inspect<T>(
        &self,
        snapshot: &Snapshot,
        read: impl FnOnce(&Store, Time) -> T,
    ) -> Result<T> {
        self.read_at(snapshot, read)
    }

    /// Reads the store as it is. Every commit up to the time given has been told to subscribers.
    pub(super) fn observe<T>(&self, read: impl FnOnce(&Store, Time) -> T) -> T {
        let store = self.read();
        let now = self.clock.read_time();
        read(&store, now)
    }

    /// Applies all writes, in order, or none. With a transaction, nothing it has read may have changed;
    /// the transaction is over whatever comes of it.
    pub(super) fn commit(&self, writes: Vec<v1::Write>, transaction: &[u8]) -> Result<Committed> {
        let transaction = match transaction {
            [] => None,
            id => Some(lock(&self.transactions).take(id)?),
        };
        let writes = writes
            .into_iter()
            .map(|write| Write::parse(&self.name, write))
            .collect::<Result<Vec<_>>>()?;
        if writes.is_empty() {
            return Ok(Committed {
                time: self.clock.read_time(),
                results: Vec::new(),
                documents: Vec::new(),
            });
        }
        let mut store = self.write();
        if let Some(transaction) = transaction {
            transaction.validate(&store)?;
        }
        let time = self.clock.commit_time();
        let mut staged: HashMap<&DocumentPath, Option<Version>> = HashMap::new();
        let mut transform_results = Vec::with_capacity(writes.len());
        for write in &writes {
            let current = match staged.get(&write.path) {
                Some(current) => current.as_ref(),
                None => store.latest(&write.path),
            };
            let applied = write.apply(&self.name, current, time)?;
            transform_results.push(applied.transform_results);
            let create_time = current.map_or(time, |current| current.create_time);
            let next = applied.fields.map(|fields| {
                Arc::new(Document {
                    path: write.path.clone(),
                    fields,
                    create_time,
                    update_time: time,
                })
            });
            staged.insert(&write.path, next);
        }
        // A write that changes nothing leaves the version, and its time, as they were.
        staged.retain(|path, next| match (store.latest(path), &next) {
            (None, None) => false,
            (Some(old), Some(new)) => {
                old.create_time != new.create_time || old.fields != new.fields
            }
            _ => true,
        });
        let changes: Vec<_> = staged
            .into_iter()
            .map(|(path, version)| (path.clone(), version))
            .collect();
        self.apply(&mut store, time, changes);
        let documents: Vec<_> = writes
            .iter()
            .map(|write| store.latest(&write.path).cloned())
            .collect();
        let results = documents
            .iter()
            .zip(transform_results)
            .map(|(document, transform_results)| v1::WriteResult {
                update_time: document.as_ref().map(|found| found.update_time.into()),
                transform_results,
            })
            .collect();
        Ok(Committed {
            time,
            results,
            documents,
        })
    }

    /// Deletes every document. Listeners see it as one commit.
    pub(super) fn clear(&self) {
        let mut store = self.write();
        let time = self.clock.commit_time();
        let changes = store
            .iter(time)
            .map(|document| (document.path.clone(), None))
            .collect();
        self.apply(&mut store, time, changes);
    }

    fn apply(
        &self,
        store: &mut Store,
        time: Time,
        mut changes: Vec<(DocumentPath, Option<Version>)>,
    ) {
        if changes.is_empty() {
            return;
        }
        changes.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, version) in &changes {
            store.put(&self.name, path, version.clone(), time);
        }
        store.prune(time.minus(self.history.retention), self.history.versions);
        // Sent under the lock, so that commits arrive in their order. No listener is no error.
        let _ = self.commits.send(Arc::new(Commit { time, changes }));
    }

    /// Every commit from now on.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Arc<Commit>> {
        self.commits.subscribe()
    }

    fn read(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Store> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_old() -> Error {
    Error::FailedPrecondition("The requested snapshot version is too old.".to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
