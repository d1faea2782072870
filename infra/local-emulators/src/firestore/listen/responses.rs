//! The messages of a listen stream.

use std::collections::BTreeMap;

use super::{
    target::{Change, Changes, Target},
    token,
};
use crate::firestore::{
    document::Version,
    field_path::FieldPath,
    path::{DatabaseName, DocumentPath},
    proto::v1::{
        DocumentChange, DocumentDelete, DocumentRemove, ExistenceFilter, ListenResponse,
        TargetChange, listen_response::ResponseType, target_change::TargetChangeType,
    },
    time::Time,
};

/// Changes of several targets, each document in one message as far as they want the same fields.
#[derive(Debug, Default)]
pub(super) struct Batch(BTreeMap<(DocumentPath, Option<Vec<FieldPath>>), Merged>);

#[derive(Debug, Default)]
struct Merged {
    /// The document, unless it doesn't exist or no target has it.
    version: Option<Version>,
    deleted: bool,
    targets: Vec<i32>,
    removed: Vec<i32>,
}

impl Batch {
    pub(super) fn add(&mut self, id: i32, target: &Target, changes: Changes) {
        for (path, change) in changes {
            let key = (path, target.projection().map(<[FieldPath]>::to_vec));
            let merged = self.0.entry(key).or_default();
            match change {
                Change::Set(version) => {
                    merged.version = Some(version);
                    merged.targets.push(id);
                }
                Change::Left => merged.removed.push(id),
                Change::Deleted => {
                    merged.deleted = true;
                    merged.removed.push(id);
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The messages; clients must not take them for complete before a snapshot follows.
    pub(super) fn into_responses(
        self,
        database: &DatabaseName,
        time: Time,
    ) -> impl Iterator<Item = ListenResponse> {
        self.0.into_iter().map(move |((path, projection), merged)| {
            let name = path.name(database);
            response(match merged.version {
                Some(version) => ResponseType::DocumentChange(DocumentChange {
                    document: Some(version.to_proto(database, projection.as_deref())),
                    target_ids: merged.targets,
                    removed_target_ids: merged.removed,
                }),
                None if merged.deleted => ResponseType::DocumentDelete(DocumentDelete {
                    document: name,
                    removed_target_ids: merged.removed,
                    read_time: Some(time.into()),
                }),
                None => ResponseType::DocumentRemove(DocumentRemove {
                    document: name,
                    removed_target_ids: merged.removed,
                    read_time: Some(time.into()),
                }),
            })
        })
    }
}

/// Everything up to `time` has been sent, to all targets.
pub(super) fn snapshot(time: Time) -> ListenResponse {
    change(TargetChangeType::NoChange, Vec::new(), Some(time))
}

/// A change of one target's state.
pub(super) fn target(kind: TargetChangeType, id: i32, time: Option<Time>) -> ListenResponse {
    change(kind, vec![id], time)
}

/// The target is refused.
pub(super) fn refused(id: i32, cause: crate::firestore::error::Error) -> ListenResponse {
    response(ResponseType::TargetChange(TargetChange {
        target_change_type: TargetChangeType::Remove as i32,
        target_ids: vec![id],
        cause: Some(cause.into()),
        ..TargetChange::default()
    }))
}

/// How many documents the client should have: it asks anew if that differs.
pub(super) fn existence(id: i32, count: usize) -> ListenResponse {
    response(ResponseType::Filter(ExistenceFilter {
        target_id: id,
        count: i32::try_from(count).unwrap_or(i32::MAX),
        unchanged_names: None,
    }))
}

fn change(kind: TargetChangeType, target_ids: Vec<i32>, time: Option<Time>) -> ListenResponse {
    response(ResponseType::TargetChange(TargetChange {
        target_change_type: kind as i32,
        target_ids,
        cause: None,
        resume_token: time.map(token::encode).unwrap_or_default(),
        read_time: time.map(Into::into),
    }))
}

fn response(response: ResponseType) -> ListenResponse {
    ListenResponse {
        response_type: Some(response),
    }
}
