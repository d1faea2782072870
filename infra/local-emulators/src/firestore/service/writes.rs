//! Methods that write.

use std::collections::BTreeSet;

use rand::distr::{Alphanumeric, SampleString};

use super::check_size;
use crate::firestore::{
    database::{Database, Databases},
    document::parse_mask,
    error::{Error, Result},
    limits,
    path::{DatabaseName, DocumentPath, Id, parse_parent},
    proto::{
        rpc,
        v1::{self, Precondition, Write, precondition::ConditionType, write::Operation},
    },
};

/// The length of an id that the server makes up.
const GENERATED_ID: usize = 20;

pub(super) fn commit(
    databases: &Databases,
    request: v1::CommitRequest,
) -> Result<v1::CommitResponse> {
    check_size(&request)?;
    let committed = databases
        .by_name(&request.database)?
        .commit(request.writes, &request.transaction)?;
    Ok(v1::CommitResponse {
        write_results: committed.results,
        commit_time: Some(committed.time.into()),
    })
}

/// Writes one by one: each succeeds or fails by itself.
pub(super) fn batch(
    databases: &Databases,
    request: v1::BatchWriteRequest,
) -> Result<v1::BatchWriteResponse> {
    check_size(&request)?;
    let database = databases.by_name(&request.database)?;
    if request.writes.len() > limits::MAX_BATCH_WRITES {
        return Err(Error::invalid(format!(
            "Cannot write more than {} entities in a single call.",
            limits::MAX_BATCH_WRITES
        )));
    }
    let mut names = BTreeSet::new();
    for name in request.writes.iter().filter_map(target) {
        if !names.insert(name) {
            return Err(Error::invalid(format!(
                "Cannot write to the same document more than once in a batch: {name}."
            )));
        }
    }
    let mut response = v1::BatchWriteResponse::default();
    for write in request.writes {
        let (result, status) = match database.commit(vec![write], &[]) {
            Ok(mut committed) => (
                committed.results.pop().unwrap_or_default(),
                rpc::Status::default(),
            ),
            Err(error) => (v1::WriteResult::default(), error.into()),
        };
        response.write_results.push(result);
        response.status.push(status);
    }
    Ok(response)
}

fn target(write: &Write) -> Option<&str> {
    write.operation.as_ref().map(|operation| match operation {
        Operation::Update(document) => document.name.as_str(),
        Operation::Delete(name) => name,
        Operation::Transform(transform) => &transform.document,
    })
}

pub(super) fn create(
    databases: &Databases,
    request: v1::CreateDocumentRequest,
) -> Result<v1::Document> {
    check_size(&request)?;
    let (database, mut collection) = parse_parent(&request.parent)?;
    collection.push(Id::parse(&request.collection_id)?);
    let id = match request.document_id.as_str() {
        "" => Id::parse(&Alphanumeric.sample_string(&mut rand::rng(), GENERATED_ID))?,
        id => Id::parse(id)?,
    };
    let path = DocumentPath::new(&collection, id);
    let mut document = request.document.unwrap_or_default();
    if !document.name.is_empty() {
        return Err(Error::invalid(
            "The document's name must not be set: it follows from the parent and the ids.",
        ));
    }
    document.name = path.name(&database);
    let write = Write {
        operation: Some(Operation::Update(document)),
        current_document: Some(Precondition {
            condition_type: Some(ConditionType::Exists(false)),
        }),
        ..Write::default()
    };
    write_one(&databases.get(&database), write, request.mask)
}

pub(super) fn update(
    databases: &Databases,
    request: v1::UpdateDocumentRequest,
) -> Result<v1::Document> {
    check_size(&request)?;
    let document = request
        .document
        .ok_or_else(|| Error::invalid("Document is not set."))?;
    let (database, _) = DocumentPath::parse(&document.name)?;
    let write = Write {
        operation: Some(Operation::Update(document)),
        update_mask: request.update_mask,
        current_document: request.current_document,
        ..Write::default()
    };
    write_one(&databases.get(&database), write, request.mask)
}

pub(super) fn delete(databases: &Databases, request: v1::DeleteDocumentRequest) -> Result<()> {
    let (database, _): (DatabaseName, _) = DocumentPath::parse(&request.name)?;
    let write = Write {
        operation: Some(Operation::Delete(request.name)),
        current_document: request.current_document,
        ..Write::default()
    };
    databases.get(&database).commit(vec![write], &[])?;
    Ok(())
}

/// Applies one write and returns the document as it is then.
fn write_one(
    database: &Database,
    write: Write,
    mask: Option<v1::DocumentMask>,
) -> Result<v1::Document> {
    let mask = parse_mask(mask)?;
    let committed = database.commit(vec![write], &[])?;
    Ok(committed
        .documents
        .into_iter()
        .flatten()
        .next()
        .map(|document| document.to_proto(&database.name, mask.as_deref()))
        .unwrap_or_default())
}
