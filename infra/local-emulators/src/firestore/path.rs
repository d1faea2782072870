//! Names of databases, collections and documents.

use std::{cmp::Ordering, fmt, sync::Arc};

use super::{
    error::{Error, Result},
    limits,
};

/// `projects/{project}/databases/{database}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct DatabaseName {
    pub(super) project: String,
    pub(super) database: String,
}

impl DatabaseName {
    pub(super) fn parse(name: &str) -> Result<Self> {
        match name.split('/').collect::<Vec<_>>()[..] {
            ["projects", project, "databases", database]
                if !project.is_empty() && !database.is_empty() =>
            {
                Ok(Self {
                    project: project.to_owned(),
                    database: database.to_owned(),
                })
            }
            _ => Err(Error::invalid(format!(
                "Invalid database name: \"{name}\"."
            ))),
        }
    }

    /// Splits `projects/{p}/databases/{d}/documents[/…]` into the database and the rest.
    fn split(name: &str) -> Result<(Self, Option<&str>)> {
        let malformed = || {
            Error::invalid(format!(
                "Resource name \"{name}\" does not match \"projects/{{project_id}}/databases/{{database_id}}/documents/{{document_path}}\"."
            ))
        };
        let end = name
            .match_indices('/')
            .nth(3)
            .map(|(at, _)| at)
            .ok_or_else(malformed)?;
        let database = Self::parse(&name[..end])?;
        match name[end + 1..].split_once('/') {
            Some(("documents", rest)) => Ok((database, Some(rest))),
            None if &name[end + 1..] == "documents" => Ok((database, None)),
            _ => Err(malformed()),
        }
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "projects/{}/databases/{}", self.project, self.database)
    }
}

/// One segment of a path. Numeric ids (`__id7__`) come first, by number; the others by their bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Id(Arc<str>);

impl Id {
    pub(super) fn parse(segment: &str) -> Result<Self> {
        if segment.is_empty() {
            return Err(Error::invalid("Resource id must not be empty."));
        }
        if segment.len() > limits::MAX_ID_BYTES {
            return Err(Error::invalid(format!(
                "Resource id is longer than {} bytes.",
                limits::MAX_ID_BYTES
            )));
        }
        let id = Self(segment.into());
        if segment == "." || segment == ".." || segment.contains('/') {
            return Err(Error::invalid(format!(
                "Resource id \"{segment}\" is invalid."
            )));
        }
        if limits::is_reserved(segment) && id.number().is_none() {
            return Err(Error::invalid(format!(
                "Resource id \"{segment}\" is invalid because it is reserved."
            )));
        }
        Ok(id)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The number of a numeric id.
    pub(super) fn number(&self) -> Option<i64> {
        self.0
            .strip_prefix("__id")?
            .strip_suffix("__")?
            .parse()
            .ok()
    }
}

impl Ord for Id {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.number(), other.number()) {
            (Some(a), Some(b)) => a.cmp(&b).then_with(|| self.0.cmp(&other.0)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.0.cmp(&other.0),
        }
    }
}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A path below a database's documents: an even number of segments names a document (none, the
/// root), an odd number a collection.
pub(super) type Path = Vec<Id>;

/// A document's path within its database; never the root.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct DocumentPath(Arc<[Id]>);

impl DocumentPath {
    pub(super) fn new(collection: &[Id], id: Id) -> Self {
        Self(collection.iter().cloned().chain([id]).collect())
    }

    /// Parses a document's full name.
    pub(super) fn parse(name: &str) -> Result<(DatabaseName, Self)> {
        let (database, path) = parse_parent(name)?;
        if path.is_empty() {
            return Err(Error::invalid(format!(
                "Document name \"{name}\" has no document path."
            )));
        }
        Ok((database, Self(path.into())))
    }

    /// Parses a document's full name, which must be in `database`.
    pub(super) fn parse_in(database: &DatabaseName, name: &str) -> Result<Self> {
        let (found, path) = Self::parse(name)?;
        if found != *database {
            return Err(Error::invalid(format!(
                "Document \"{name}\" is not in the request's database \"{database}\"."
            )));
        }
        Ok(path)
    }

    pub(super) fn collection(&self) -> &[Id] {
        &self.0[..self.0.len() - 1]
    }

    pub(super) fn id(&self) -> &Id {
        &self.0[self.0.len() - 1]
    }

    pub(super) fn segments(&self) -> &[Id] {
        &self.0
    }

    /// The full name, as requests and responses carry it.
    pub(super) fn name(&self, database: &DatabaseName) -> String {
        full_name(database, &self.0)
    }
}

/// The full name of a document, a collection or, with no segments, the root.
pub(super) fn full_name(database: &DatabaseName, path: &[Id]) -> String {
    let mut name = format!("{database}/documents");
    for segment in path {
        name.push('/');
        name.push_str(segment.as_str());
    }
    name
}

/// Parses the full name of a document, or of the root of all documents.
pub(super) fn parse_parent(name: &str) -> Result<(DatabaseName, Path)> {
    let (database, rest) = DatabaseName::split(name)?;
    if name.len() > limits::MAX_NAME_BYTES {
        return Err(Error::invalid(format!(
            "Document name is longer than {} bytes.",
            limits::MAX_NAME_BYTES
        )));
    }
    let path = match rest {
        None => Vec::new(),
        Some(rest) => rest.split('/').map(Id::parse).collect::<Result<Path>>()?,
    };
    if path.len() % 2 == 1 {
        return Err(Error::invalid(format!(
            "Document name \"{name}\" lacks a document id: its path must have an even number of segments."
        )));
    }
    if path.len() > limits::MAX_PATH_SEGMENTS {
        return Err(Error::invalid(format!(
            "Document name \"{name}\" is nested more than {} collections deep.",
            limits::MAX_PATH_SEGMENTS / 2
        )));
    }
    Ok((database, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Id {
        Id::parse(text).expect("valid id")
    }

    #[test]
    fn a_full_name_parses_and_prints_unchanged() {
        let name = "projects/p/databases/(default)/documents/rooms/a/messages/1";
        let (database, path) = DocumentPath::parse(name).expect("valid name");
        assert_eq!(database.database, "(default)");
        assert_eq!(path.collection(), [id("rooms"), id("a"), id("messages")]);
        assert_eq!(path.id().as_str(), "1");
        assert_eq!(path.name(&database), name);
    }

    #[test]
    fn malformed_names_are_refused() {
        for name in [
            "",
            "projects/p",
            "projects/p/databases/d",
            "projects/p/databases/d/documents",
            "projects/p/databases/d/documents/rooms",
            "projects/p/databases/d/documents/rooms/",
            "projects/p/databases/d/documents/rooms/..",
            "projects/p/databases/d/documents/rooms/__x__",
            "projects/p/databases/d/other/rooms/a",
            "projects//databases/d/documents/rooms/a",
        ] {
            assert!(DocumentPath::parse(name).is_err(), "{name}");
        }
    }

    #[test]
    fn numeric_ids_come_first_and_by_number() {
        let mut ids = ["b", "__id10__", "a", "__id9__", "__id-1__"].map(id);
        ids.sort();
        assert_eq!(
            ids.each_ref().map(Id::as_str),
            ["__id-1__", "__id9__", "__id10__", "a", "b"]
        );
    }
}
