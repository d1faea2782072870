//! Writes: what one does to one document, and what it requires.

use super::{
    document::{Document, Version, parse_mask},
    error::{Error, Result},
    field_path::{FieldPath, Fields},
    limits,
    path::{DatabaseName, DocumentPath},
    proto::v1::{self, Value, precondition::ConditionType, write::Operation},
    time::Time,
    transform::Transform,
    value,
};

/// One write, checked.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) path: DocumentPath,
    change: Change,
    transforms: Vec<Transform>,
    condition: Option<Condition>,
}

#[derive(Debug)]
enum Change {
    Replace(Fields),
    /// Sets the fields of the mask; those without a value go.
    Merge(Fields, Vec<FieldPath>),
    Delete,
}

#[derive(Debug, Clone, Copy)]
enum Condition {
    Exists(bool),
    UpdatedAt(Time),
}

/// What a write makes of a document.
#[derive(Debug)]
pub(super) struct Applied {
    /// The fields; none if the document is gone.
    pub(super) fields: Option<Fields>,
    pub(super) transform_results: Vec<Value>,
}

impl Write {
    pub(super) fn parse(database: &DatabaseName, write: v1::Write) -> Result<Self> {
        let mask = parse_mask(write.update_mask)?;
        let (name, change, mut transforms) = match write.operation {
            Some(Operation::Update(document)) => {
                let mut fields = document.fields;
                value::normalize_fields(&mut fields)?;
                let change = match mask {
                    Some(mask) => {
                        mask.iter().try_for_each(FieldPath::check_writable)?;
                        check_apart(&mask)?;
                        Change::Merge(fields, mask)
                    }
                    None => Change::Replace(fields),
                };
                (document.name, change, Vec::new())
            }
            Some(Operation::Delete(name)) => (name, Change::Delete, Vec::new()),
            Some(Operation::Transform(transform)) => (
                transform.document,
                Change::Merge(Fields::new(), Vec::new()),
                transform.field_transforms,
            ),
            None => return Err(Error::invalid("Write has no operation.")),
        };
        transforms.extend(write.update_transforms);
        if transforms.len() > limits::MAX_TRANSFORMS {
            return Err(Error::invalid(format!(
                "Cannot apply more than {} field transforms to a document.",
                limits::MAX_TRANSFORMS
            )));
        }
        if matches!(change, Change::Delete) && !transforms.is_empty() {
            return Err(Error::invalid("Cannot transform a deleted document."));
        }
        Ok(Self {
            path: DocumentPath::parse_in(database, &name)?,
            change,
            transforms: transforms
                .into_iter()
                .map(Transform::parse)
                .collect::<Result<_>>()?,
            condition: parse_condition(write.current_document)?,
        })
    }

    /// Applies the write to the document as it is. `time` is the commit's.
    pub(super) fn apply(
        &self,
        database: &DatabaseName,
        current: Option<&Version>,
        time: Time,
    ) -> Result<Applied> {
        if let Some(condition) = self.condition {
            condition.check(current.map(Version::as_ref), &self.path, database)?;
        }
        let mut fields = match &self.change {
            Change::Delete => {
                return Ok(Applied {
                    fields: None,
                    transform_results: Vec::new(),
                });
            }
            Change::Replace(fields) => fields.clone(),
            Change::Merge(changed, mask) => {
                let mut fields = current.map(|doc| doc.fields.clone()).unwrap_or_default();
                for path in mask {
                    match path.get(changed) {
                        Some(value) => path.set(&mut fields, value.clone()),
                        None => path.remove(&mut fields),
                    }
                }
                fields
            }
        };
        let transform_results = self
            .transforms
            .iter()
            .map(|transform| transform.apply(&mut fields, time))
            .collect();
        let size = value::document_size(&self.path, &fields);
        if size > limits::MAX_DOCUMENT_BYTES {
            return Err(Error::invalid(format!(
                "Document '{}' cannot be written because its size ({size} bytes) exceeds the maximum allowed size of {} bytes.",
                self.path.name(database),
                limits::MAX_DOCUMENT_BYTES
            )));
        }
        Ok(Applied {
            fields: Some(fields),
            transform_results,
        })
    }
}

impl Condition {
    fn check(
        self,
        current: Option<&Document>,
        path: &DocumentPath,
        database: &DatabaseName,
    ) -> Result<()> {
        match (self, current) {
            (Self::Exists(true), None) => Err(Error::NotFound(format!(
                "No document to update: {}",
                path.name(database)
            ))),
            (Self::Exists(false), Some(_)) => Err(Error::AlreadyExists(format!(
                "Document already exists: {}",
                path.name(database)
            ))),
            (Self::UpdatedAt(required), found)
                if found.map(|doc| doc.update_time) != Some(required) =>
            {
                Err(Error::FailedPrecondition(format!(
                    "the stored version ({}) does not match the required base version ({})",
                    found.map_or(0, |doc| doc.update_time.micros()),
                    required.micros()
                )))
            }
            _ => Ok(()),
        }
    }
}

fn parse_condition(precondition: Option<v1::Precondition>) -> Result<Option<Condition>> {
    Ok(
        match precondition.and_then(|precondition| precondition.condition_type) {
            None => None,
            Some(ConditionType::Exists(exists)) => Some(Condition::Exists(exists)),
            Some(ConditionType::UpdateTime(time)) => Some(Condition::UpdatedAt(time.try_into()?)),
        },
    )
}

/// Refuses a mask that names a field and another inside it.
fn check_apart(mask: &[FieldPath]) -> Result<()> {
    let mut sorted: Vec<_> = mask.iter().collect();
    sorted.sort();
    match sorted.windows(2).find(|pair| pair[0].overlaps(pair[1])) {
        Some(pair) => Err(Error::invalid(format!(
            "The update mask holds both \"{}\" and \"{}\".",
            pair[0], pair[1]
        ))),
        None => Ok(()),
    }
}
