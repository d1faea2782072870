//! Resource names, and Google's refusals about them.

use tonic::Status;

/// What a subscription names when its topic is gone.
pub(crate) const DELETED_TOPIC: &str = "_deleted-topic_";

/// The collections of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Topic,
    Subscription,
    Snapshot,
}

impl Kind {
    fn collection(self) -> &'static str {
        match self {
            Self::Topic => "topics",
            Self::Subscription => "subscriptions",
            Self::Snapshot => "snapshots",
        }
    }
}

/// Checks a full name of an existing or a new resource: `projects/P/topics/ID`.
pub(crate) fn check(kind: Kind, name: &str) -> Result<(), Status> {
    let parts: Vec<&str> = name.split('/').collect();
    match parts[..] {
        ["projects", project, collection, id]
            if !project.is_empty() && collection == kind.collection() && is_id(id) =>
        {
            Ok(())
        }
        _ => Err(Status::invalid_argument(format!(
            "Invalid resource name given (name={name}). Refer to \
             https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names for more information."
        ))),
    }
}

/// Checks `projects/P`.
pub(crate) fn check_project(name: &str) -> Result<(), Status> {
    match name.strip_prefix("projects/") {
        Some(project) if !project.is_empty() && !project.contains('/') => Ok(()),
        _ => Err(Status::invalid_argument(format!(
            "Invalid project name given (name={name})."
        ))),
    }
}

fn is_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~+%".contains(&byte);
    (3..=255).contains(&id.len())
        && id.starts_with(|first: char| first.is_ascii_alphabetic())
        && id.bytes().all(allowed)
        && !id.to_ascii_lowercase().starts_with("goog")
}

/// The last part of a full name.
pub(crate) fn id(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// The project's id in a full name.
pub(crate) fn project(name: &str) -> &str {
    name.split('/').nth(1).unwrap_or_default()
}

pub(crate) fn not_found(name: &str) -> Status {
    Status::not_found(format!("Resource not found (resource={}).", id(name)))
}

pub(crate) fn already_exists(name: &str) -> Status {
    Status::already_exists(format!(
        "Resource already exists in the project (resource={}).",
        id(name)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_google_allows_them() {
        assert!(check(Kind::Topic, "projects/p/topics/us-west1.messages-17").is_ok());
        for bad in [
            "projects/p/subscriptions/abc",
            "projects//topics/abc",
            "projects/p/topics/ab",
            "projects/p/topics/1bc",
            "projects/p/topics/googly",
            "projects/p/topics/a b c",
            "projects/p/topics/abc/d",
            "topics/abc",
        ] {
            assert!(check(Kind::Topic, bad).is_err(), "{bad} was taken");
        }
    }
}
