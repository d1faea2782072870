//! How ids, places and moments look in documents.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use firestore::{FirestoreTimestamp, jiff::Timestamp};
use infrachat_types::{BadId, BadName, Epoch, Offset, UnixMillis};
use sha2::{Digest as _, Sha256};

/// What a stored record has wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damaged {
    #[error(transparent)]
    Name(#[from] BadName),
    #[error(transparent)]
    Id(#[from] BadId),
    #[error("a hash has 32 bytes, not {0}")]
    Hash(usize),
    #[error("{0:?} is no place in append order")]
    Place(String),
    #[error("its renewed_at is missing, or later than its last change")]
    Renewal,
}

/// A document id for any text. Names that people choose need none: they are plain enough.
///
/// Letters and digits stay, as in the ids that the system makes. All else, which only comes from
/// someone who made it up, is hashed: Firestore refuses some ids, and each has its limit.
pub(super) fn document_id(text: &str) -> String {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if plain && (1..=100).contains(&text.len()) {
        return text.to_owned();
    }
    let hash = Sha256::digest(text.as_bytes());
    hash.iter()
        .fold("~".to_owned(), |id, byte| format!("{id}{byte:02x}"))
}

/// A moment as Firestore keeps it; the last there is for those past it.
pub(super) fn moment(millis: UnixMillis) -> FirestoreTimestamp {
    let limit = if millis < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    FirestoreTimestamp(Timestamp::from_millisecond(millis).unwrap_or(limit))
}

pub(super) fn hash(bytes: &Bytes) -> Result<[u8; 32], Damaged> {
    let hash = <[u8; 32]>::try_from(bytes.as_ref());
    hash.map_err(|_| Damaged::Hash(bytes.len()))
}

/// A place in append order, whose text sorts as it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) epoch: Epoch,
    pub(super) offset: Offset,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.epoch.0, self.offset.0)
    }
}

impl FromStr for Place {
    type Err = Damaged;

    fn from_str(text: &str) -> Result<Self, Damaged> {
        let number = |text| u64::from_str_radix(text, 16).ok();
        text.split_once('-')
            .and_then(|(epoch, offset)| {
                Some(Self {
                    epoch: Epoch(number(epoch)?),
                    offset: Offset(number(offset)?),
                })
            })
            .ok_or_else(|| Damaged::Place(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn made_up_ids_become_ids_that_firestore_takes() {
        assert_eq!(document_id("8z0k3rn5v1"), "8z0k3rn5v1");
        let long = "a".repeat(2_000);
        let odd = ["", ".", "..", "__a__", "a/b", "é", "a%2fb", &long];
        let ids = odd.map(document_id);
        for (id, odd) in ids.iter().zip(odd) {
            assert!(id.starts_with('~') && id.len() == 65, "{odd:?}: {id}");
        }
        assert_eq!(std::collections::HashSet::from(ids).len(), odd.len());
    }

    #[test]
    fn moments_beyond_firestores_calendar_stay_in_it() {
        assert_eq!(
            moment(1_790_000_000_123).0.as_millisecond(),
            1_790_000_000_123
        );
        assert_eq!(moment(i64::MAX).0, Timestamp::MAX);
        assert_eq!(moment(i64::MIN).0, Timestamp::MIN);
    }

    proptest! {
        #[test]
        fn places_sort_as_text_and_read_back(a: (u64, u64), b: (u64, u64)) {
            let place = |(epoch, offset)| Place { epoch: Epoch(epoch), offset: Offset(offset) };
            let (a, b) = (place(a), place(b));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
            prop_assert_eq!(a.to_string().parse::<Place>().expect("a place"), a);
        }
    }
}
