//! The store on Firestore: one named database a region.
//!
//! | collection | document | holds |
//! |---|---|---|
//! | `users` | the user's name | a user |
//! | `families` | the sign-in's id | a sign-in; ends by itself at `expires_at` |
//! | `revocations` | the user's name, and `~` and the sign-in's id if it is about one | tokens that are no longer good; ends by itself at `forget_after` |
//! | `channels` | the channel's name | a channel, its members, and whom it is listed to |
//! | `leases` | the shard's name | a lease; its age is the read's time less `renewed_at`, which a renewal stamps |
//! | `partitions` | the partition's number | who owns it; written only when that changes |
//! | `channels-history/{channel}/messages` | sender and client message id | a message, at `message_id` and at `place` |
//!
//! No composite index is needed. A database should have a TTL policy on `expires_at` of `families`
//! and of `messages`, another on `forget_after` of `revocations`, and no index on any field of `messages` but `message_id` and `place`: each
//! is paid for with every message. Both rise with time, so one channel takes about 500 messages a
//! second for long, Firestore's limit for such an index.
//!
//! Leases and partitions are listened to: see [`Routing::watch`]. With n shards a follower is told, and
//! billed for, n documents a second, and one whenever a partition changes hands; what is there, once,
//! and again only after half an hour without a connection.
//!
//! [`Routing::watch`]: crate::Routing::watch
//!
//! Transactions are optimistic, whatever the database's default: a shard that freezes in the middle
//! of one must not hold a lock on its partition that keeps the next owner out.

mod calls;
mod channels;
mod counted;
mod documents;
mod followed;
mod history;
mod leases;
mod listener;
mod query;
mod revocations;
mod routing;
mod users;

use std::time::Duration;

use firestore::{
    FirestoreDb, FirestoreDbOptions, FirestoreResult,
    gcloud_sdk::google_cloud_auth::credentials::anonymous::Builder as Anonymous,
};

use self::calls::Calls;
use crate::MetadataError;

/// Where a region's database is, and how long things take and last there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirestoreConfig {
    /// The Google Cloud project.
    pub project: String,
    /// The region's database.
    pub database: String,
    /// An emulator's "host:port", which is spoken to in the clear and without credentials. None is
    /// the service, with the process's default credentials; or, as with every client of Firestore,
    /// the emulator that the variable `FIRESTORE_EMULATOR_HOST` names.
    pub emulator: Option<String>,
    /// How long a call may take in all, repeated attempts included.
    pub request_timeout: Duration,
    /// How long following the routing records may hear nothing before it connects anew: longer than
    /// shards take between renewals of their leases, shorter than leases last.
    pub silence: Duration,
    /// How long after it was published a message is kept. Firestore removes it within a day of that.
    pub history_ttl: Duration,
}

impl FirestoreConfig {
    /// A database of the service, calls of at most 5 s, silence of at most 3 s, and history of 30 days.
    #[must_use]
    pub fn new(project: &str, database: &str) -> Self {
        Self {
            project: project.to_owned(),
            database: database.to_owned(),
            emulator: None,
            request_timeout: Duration::from_secs(5),
            silence: Duration::from_secs(3),
            history_ttl: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

/// A region's store on Firestore.
///
/// What a call answers as done is durable. Reads see every write that was answered before. A call
/// that loses against another writer tries again a few times within
/// [`FirestoreConfig::request_timeout`], and so does a read that did not get through; a write whose
/// outcome is unknown is not repeated, but answered [`MetadataError::Unavailable`].
#[derive(Debug)]
pub struct FirestoreMetadata {
    calls: Calls,
    config: FirestoreConfig,
}

impl FirestoreMetadata {
    /// Connects to a region's database. The connection comes back by itself when it was lost.
    ///
    /// # Errors
    /// [`MetadataError::Unavailable`] when there are no credentials, or nothing answers in time.
    pub async fn connect(config: FirestoreConfig) -> Result<Self, MetadataError> {
        let connecting = Box::pin(open(&config));
        let db = tokio::time::timeout(config.request_timeout, connecting)
            .await
            .map_err(|_| calls::too_slow(config.request_timeout))?
            .map_err(|err| MetadataError::Unavailable(err.to_string()))?;
        Ok(Self {
            calls: Calls::new(db, config.request_timeout),
            config,
        })
    }
}

/// Another connection to the database.
async fn open(config: &FirestoreConfig) -> FirestoreResult<FirestoreDb> {
    let options =
        FirestoreDbOptions::new(config.project.clone()).with_database_id(config.database.clone());
    match &config.emulator {
        Some(address) => {
            let options = options.with_firebase_api_url(format!("http://{address}"));
            FirestoreDb::with_options_auth(options, Anonymous::new().build()).await
        }
        None => FirestoreDb::with_options(options).await,
    }
}
