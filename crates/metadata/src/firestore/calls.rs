//! Calls to Firestore, bounded in time, and what their failures mean.
//!
//! They go through the generated client, not the fluent one on top of it, which reads one
//! collection at a time, begins each transaction with a call of its own, and hides read times.

use std::{collections::HashMap, time::Duration};

use firestore::{
    FirestoreDb,
    gcloud_sdk::{
        google::firestore::v1::{
            BatchGetDocumentsRequest, CommitRequest, Document, DocumentMask, Precondition,
            RollbackRequest, RunQueryRequest, StructuredQuery, TransactionOptions, Write,
            batch_get_documents_request::ConsistencySelector,
            batch_get_documents_response::Result as Answer,
            document_transform::{
                FieldTransform,
                field_transform::{ServerValue, TransformType},
            },
            precondition::ConditionType,
            run_query_request::{self, QueryType},
            transaction_options::{ConcurrencyMode, Mode, ReadWrite},
            write::Operation,
        },
        prost_types::Timestamp,
        tonic::{Code, Status},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{sleep, timeout};

use super::{counted::ASKED, documents::Damaged};
use crate::MetadataError;

/// How often something is tried that lost against another writer, or did not get through.
const ATTEMPTS: u32 = 6;
/// The longest pause after the first attempt; it doubles with each.
const PAUSE: Duration = Duration::from_millis(20);

/// Why an attempt failed.
#[derive(Debug)]
pub(super) enum CallError {
    /// It changed nothing, and may succeed now.
    Again(String),
    /// It lost against another writer, changed nothing, and may succeed now.
    Conflict(String),
    /// A write's precondition did not hold, and nothing was written.
    Refused(String),
    /// Trying again doesn't help, or could do it twice.
    Final(MetadataError),
}

impl From<MetadataError> for CallError {
    fn from(err: MetadataError) -> Self {
        Self::Final(err)
    }
}

pub(super) fn too_slow(limit: Duration) -> MetadataError {
    MetadataError::Unavailable(format!("no answer from Firestore within {limit:?}"))
}

fn unavailable(status: &Status) -> CallError {
    CallError::Final(MetadataError::Unavailable(status.to_string()))
}

/// A failed read, or a failed call before a transaction's commit.
fn read_failed(status: Status) -> CallError {
    match status.code() {
        // A lost connection shows as any of the last three.
        Code::Aborted => CallError::Conflict(status.to_string()),
        Code::Unavailable | Code::Unknown | Code::Internal => CallError::Again(status.to_string()),
        _ => unavailable(&status),
    }
}

fn commit_failed(status: Status) -> CallError {
    match status.code() {
        Code::Aborted => CallError::Conflict(status.to_string()),
        Code::AlreadyExists | Code::FailedPrecondition | Code::NotFound => {
            CallError::Refused(status.to_string())
        }
        _ => unavailable(&status),
    }
}

/// At which moment documents are read.
#[derive(Debug, Clone)]
pub(super) enum At {
    /// Now.
    Latest,
    /// Now, and at that moment a transaction begins.
    Begin,
    /// When a transaction began.
    Transaction(Vec<u8>),
}

impl From<At> for Option<ConsistencySelector> {
    fn from(at: At) -> Self {
        match at {
            At::Latest => None,
            At::Begin => Some(ConsistencySelector::NewTransaction(optimistic())),
            At::Transaction(id) => Some(ConsistencySelector::Transaction(id)),
        }
    }
}

fn optimistic() -> TransactionOptions {
    TransactionOptions {
        mode: Some(Mode::ReadWrite(ReadWrite {
            retry_transaction: Vec::new(),
            concurrency_mode: ConcurrencyMode::Optimistic.into(),
        })),
    }
}

/// A document as it was read.
#[derive(Debug)]
pub(super) struct Found {
    document: Document,
    read_at: Timestamp,
    updated_at: Timestamp,
}

impl Found {
    fn new(document: Document, read_at: Option<Timestamp>) -> Result<Self, CallError> {
        let (Some(read_at), Some(updated_at)) = (read_at, document.update_time) else {
            let text = format!("{} came without its times", document.name);
            return Err(MetadataError::Unavailable(text).into());
        };
        Ok(Self {
            document,
            read_at,
            updated_at,
        })
    }

    /// The record in it.
    pub(super) fn decode<S: DeserializeOwned, T>(
        &self,
        record: impl FnOnce(S) -> Result<T, Damaged>,
    ) -> Result<T, CallError> {
        Ok(decode(&self.document, record)?)
    }

    /// The document's full name.
    pub(super) fn name(&self) -> &str {
        &self.document.name
    }

    /// When it was last changed, by Firestore's clock.
    pub(super) fn updated_at(&self) -> Timestamp {
        self.updated_at
    }

    /// When it was read, by Firestore's clock.
    pub(super) fn read_at(&self) -> Timestamp {
        self.read_at
    }
}

/// The record in a document.
pub(super) fn decode<S: DeserializeOwned, T>(
    document: &Document,
    record: impl FnOnce(S) -> Result<T, Damaged>,
) -> Result<T, MetadataError> {
    let name = &document.name;
    let damaged = |why: &dyn std::fmt::Display| {
        MetadataError::Unavailable(format!("the record {name} can't be read: {why}"))
    };
    let stored = FirestoreDb::deserialize_doc_to(document).map_err(|err| damaged(&err))?;
    record(stored).map_err(|err| damaged(&err))
}

/// The time from one moment to a later one.
pub(super) fn between(from: Timestamp, to: Timestamp) -> Duration {
    let nanos = |at: Timestamp| i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    Duration::from_nanos(u64::try_from(nanos(to) - nanos(from)).unwrap_or_default())
}

/// What a write asks of the document that is there.
#[derive(Debug, Clone, Copy)]
pub(super) enum If {
    /// Nothing.
    Always,
    /// That there is none.
    Absent,
    /// That it was not changed since then.
    Unchanged(Timestamp),
}

impl If {
    /// That nobody has changed, or created, what was read.
    pub(super) fn as_read(found: Option<&Found>) -> Self {
        found.map_or(Self::Absent, |found| Self::Unchanged(found.updated_at))
    }
}

impl From<If> for Option<Precondition> {
    fn from(condition: If) -> Self {
        let condition_type = match condition {
            If::Always => return None,
            If::Absent => ConditionType::Exists(false),
            If::Unchanged(updated_at) => ConditionType::UpdateTime(updated_at),
        };
        Some(Precondition {
            condition_type: Some(condition_type),
        })
    }
}

/// Writes a whole document.
pub(super) fn put(name: &str, record: &impl Serialize, condition: If) -> Result<Write, CallError> {
    let document = FirestoreDb::serialize_to_doc(name, record).map_err(|err| {
        CallError::Final(MetadataError::Unavailable(format!(
            "the record {name} can't be written: {err}"
        )))
    })?;
    Ok(Write {
        current_document: condition.into(),
        operation: Some(Operation::Update(document)),
        ..Write::default()
    })
}

/// Writes these fields of a document, and none of the others.
pub(super) fn put_only(
    name: &str,
    fields: &[&str],
    record: &impl Serialize,
    condition: If,
) -> Result<Write, CallError> {
    let mut write = put(name, record, condition)?;
    write.update_mask = Some(DocumentMask {
        field_paths: fields.iter().map(|field| (*field).to_owned()).collect(),
    });
    Ok(write)
}

/// Has a write set a field to its own moment, by Firestore's clock.
pub(super) fn stamp(write: &mut Write, field: &str) {
    write.update_transforms.push(FieldTransform {
        field_path: field.to_owned(),
        transform_type: Some(TransformType::SetToServerValue(
            ServerValue::RequestTime.into(),
        )),
    });
}

/// Removes a document.
pub(super) fn delete(name: &str, condition: If) -> Write {
    Write {
        current_document: condition.into(),
        operation: Some(Operation::Delete(name.to_owned())),
        ..Write::default()
    }
}

/// The documents of a read that are there, by name.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) found: HashMap<String, Found>,
    /// The transaction that began with this read, if one did.
    pub(super) transaction: Vec<u8>,
}

/// The way to a database.
#[derive(Debug)]
pub(super) struct Calls {
    db: FirestoreDb,
    limit: Duration,
}

impl Calls {
    pub(super) fn new(db: FirestoreDb, limit: Duration) -> Self {
        Self { db, limit }
    }

    /// A document's full name.
    pub(super) fn name(&self, collection: &str, id: &str) -> String {
        format!("{}/{collection}/{id}", self.db.get_documents_path())
    }

    /// Does something, again if need be, within the time that a call may take.
    pub(super) async fn run<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, MetadataError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let attempts = async {
            let mut attempts = 1;
            loop {
                let why = match attempt().await {
                    Ok(answer) => return Ok(answer),
                    Err(CallError::Final(err)) => return Err(err),
                    Err(
                        CallError::Again(why) | CallError::Conflict(why) | CallError::Refused(why),
                    ) => why,
                };
                if attempts == ATTEMPTS {
                    return Err(MetadataError::Unavailable(why));
                }
                ASKED.retries.increment(1);
                tracing::debug!(attempts, why, "trying a call to Firestore again");
                let longest = PAUSE * 2_u32.pow(attempts - 1);
                sleep(longest.mul_f64(rand::random())).await;
                attempts += 1;
            }
        };
        timeout(self.limit, attempts)
            .await
            .unwrap_or_else(|_| Err(too_slow(self.limit)))
    }

    /// Reads documents, all at one moment.
    pub(super) async fn read(&self, names: Vec<String>, at: At) -> Result<Read, CallError> {
        ASKED.read.count(self.do_read(names, at)).await
    }

    async fn do_read(&self, names: Vec<String>, at: At) -> Result<Read, CallError> {
        let asked = names.len();
        let request = BatchGetDocumentsRequest {
            database: self.db.get_database_path().clone(),
            documents: names,
            consistency_selector: at.into(),
            ..BatchGetDocumentsRequest::default()
        };
        let mut client = self.db.client().get();
        let answers = client.batch_get_documents(request).await;
        let mut answers = answers.map_err(read_failed)?.into_inner();
        let mut read = Read {
            found: HashMap::with_capacity(asked),
            transaction: Vec::new(),
        };
        let mut missing = 0;
        while let Some(answer) = answers.message().await.map_err(read_failed)? {
            if !answer.transaction.is_empty() {
                read.transaction = answer.transaction;
            }
            match answer.result {
                Some(Answer::Found(document)) => {
                    let name = document.name.clone();
                    let found = Found::new(document, answer.read_time)?;
                    read.found.insert(name, found);
                }
                Some(Answer::Missing(_)) => missing += 1,
                None => {}
            }
        }
        if read.found.len() + missing != asked {
            return Err(CallError::Again(
                "not every document was answered".to_owned(),
            ));
        }
        Ok(read)
    }

    /// Reads one document as it is now.
    pub(super) async fn read_one(&self, name: &str) -> Result<Option<Found>, CallError> {
        let read = self.read(vec![name.to_owned()], At::Latest).await?;
        Ok(read.found.into_values().next())
    }

    /// The documents that a query finds below a parent; none is below the database itself.
    pub(super) async fn query(
        &self,
        parent: Option<String>,
        query: StructuredQuery,
    ) -> Result<Vec<Found>, CallError> {
        let queried = self.do_query(parent, query, None);
        ASKED.query.count(queried).await.map(|(found, _)| found)
    }

    /// The documents that a query finds below the database, and the transaction that begins with it.
    pub(super) async fn query_to_write(
        &self,
        query: StructuredQuery,
    ) -> Result<(Vec<Found>, Vec<u8>), CallError> {
        let begin = run_query_request::ConsistencySelector::NewTransaction(optimistic());
        let queried = self.do_query(None, query, Some(begin));
        ASKED.query.count(queried).await
    }

    async fn do_query(
        &self,
        parent: Option<String>,
        query: StructuredQuery,
        at: Option<run_query_request::ConsistencySelector>,
    ) -> Result<(Vec<Found>, Vec<u8>), CallError> {
        let request = RunQueryRequest {
            parent: parent.unwrap_or_else(|| self.db.get_documents_path().clone()),
            query_type: Some(QueryType::StructuredQuery(query)),
            consistency_selector: at,
            ..RunQueryRequest::default()
        };
        let mut client = self.db.client().get();
        let answers = client.run_query(request).await;
        let mut answers = answers.map_err(read_failed)?.into_inner();
        let (mut found, mut transaction) = (Vec::new(), Vec::new());
        while let Some(answer) = answers.message().await.map_err(read_failed)? {
            if !answer.transaction.is_empty() {
                transaction = answer.transaction;
            }
            if let Some(document) = answer.document {
                found.push(Found::new(document, answer.read_time)?);
            }
        }
        Ok((found, transaction))
    }

    /// Ends a transaction that is not to write anything. Without an answer, Firestore ends it itself
    /// after a while.
    pub(super) async fn roll_back(&self, transaction: Vec<u8>) {
        let request = RollbackRequest {
            database: self.db.get_database_path().clone(),
            transaction,
            ..RollbackRequest::default()
        };
        let mut client = self.db.client().get();
        if let Err(err) = client.rollback(request).await {
            tracing::debug!(%err, "a transaction can't be rolled back");
        }
    }

    /// Writes, all or nothing. With a transaction, only if nothing changed that it had read.
    pub(super) async fn commit(
        &self,
        writes: Vec<Write>,
        transaction: Option<Vec<u8>>,
    ) -> Result<(), CallError> {
        let request = CommitRequest {
            database: self.db.get_database_path().clone(),
            writes,
            transaction: transaction.unwrap_or_default(),
            ..CommitRequest::default()
        };
        let committing = async {
            let mut client = self.db.client().get();
            client.commit(request).await.map_err(commit_failed)
        };
        ASKED.commit.count(committing).await.map(drop)
    }
}
