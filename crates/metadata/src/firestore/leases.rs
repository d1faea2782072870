//! What a lease's document holds.
//!
//! Its times are Firestore's, also where this process writes them: a renewal and a request for one are
//! stamped by the write itself, and how long a shard is suspect is counted from when its lease was read.

use std::time::Duration;

use firestore::{FirestoreTimestamp, gcloud_sdk::prost_types::Timestamp, jiff};
use infrachat_types::{OriginId, ShardId};
use serde::{Deserialize, Serialize};

use super::{calls::between, documents::Damaged};
use crate::{Lease, LeaseState, LeaseView};

/// How much later than its document's last change a renewal may look: the one has milliseconds, the
/// other more.
const ROUNDING: Duration = Duration::from_secs(1);

/// Renewing writes all of it, and so ends a suspicion.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredLease {
    shard: String,
    incarnation: String,
    endpoint: String,
    zone: String,
    sessions: u32,
    #[serde(with = "StateText")]
    state: LeaseState,
    #[serde(skip_serializing)]
    renewed_at: Option<FirestoreTimestamp>,
    /// The last time that renewing was refused.
    #[serde(skip_serializing)]
    asked_at: Option<FirestoreTimestamp>,
    #[serde(skip_serializing)]
    suspected_until: Option<FirestoreTimestamp>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "LeaseState", rename_all = "snake_case")]
enum StateText {
    Active,
    Draining,
    Suspect,
}

impl From<&Lease> for StoredLease {
    fn from(lease: &Lease) -> Self {
        Self {
            shard: lease.shard.to_string(),
            incarnation: lease.incarnation.to_string(),
            endpoint: lease.endpoint.clone(),
            zone: lease.zone.clone(),
            sessions: lease.sessions,
            state: lease.state,
            renewed_at: None,
            asked_at: None,
            suspected_until: None,
        }
    }
}

impl StoredLease {
    /// The lease, of a document that was last changed then.
    pub(super) fn kept(self, updated_at: Timestamp) -> Result<KeptLease, Damaged> {
        let renewed_at = self.renewed_at.map(timestamp).ok_or(Damaged::Renewal)?;
        // Somebody wrote it by hand, and it would be good for too long.
        if between(updated_at, renewed_at) > ROUNDING {
            return Err(Damaged::Renewal);
        }
        let asked_at = self.asked_at.map(timestamp);
        Ok(KeptLease {
            lease: Lease {
                shard: ShardId::new(&self.shard)?,
                incarnation: OriginId::from_text(&self.incarnation),
                endpoint: self.endpoint,
                zone: self.zone,
                sessions: self.sessions,
                state: self.state,
            },
            renewed_at,
            asked_after: asked_at.map_or(Duration::ZERO, |at| between(renewed_at, at)),
            suspected_until: self.suspected_until.map(timestamp),
        })
    }
}

/// A lease, and its moments by Firestore's clock.
#[derive(Debug, Clone)]
pub(super) struct KeptLease {
    pub(super) lease: Lease,
    pub(super) renewed_at: Timestamp,
    /// How long after it was renewed it was last asked for, in vain.
    asked_after: Duration,
    suspected_until: Option<Timestamp>,
}

impl KeptLease {
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        between(self.renewed_at, now)
    }

    pub(super) fn is_suspect(&self, now: Timestamp) -> bool {
        self.suspected_until
            .is_some_and(|until| !between(now, until).is_zero())
    }

    /// At this age.
    pub(super) fn view(self, age: Duration) -> LeaseView {
        LeaseView {
            lease: self.lease,
            age,
            asked: age.saturating_sub(self.asked_after),
        }
    }
}

/// What makes a lease suspect.
#[derive(Serialize)]
pub(super) struct Mark {
    #[serde(with = "StateText")]
    state: LeaseState,
    suspected_until: FirestoreTimestamp,
}

impl Mark {
    pub(super) const FIELDS: &[&str] = &["state", "suspected_until"];

    /// For so long from then on.
    pub(super) fn until(now: Timestamp, ttl: Duration) -> Self {
        let until =
            jiff::Timestamp::new(now.seconds, now.nanos).and_then(|now| now.checked_add(ttl));
        Self {
            state: LeaseState::Suspect,
            suspected_until: FirestoreTimestamp(until.unwrap_or(jiff::Timestamp::MAX)),
        }
    }
}

fn timestamp(at: FirestoreTimestamp) -> Timestamp {
    Timestamp {
        seconds: at.0.as_second(),
        nanos: at.0.subsec_nanosecond(),
    }
}
