//! Ids that the system makes, each a type of its own.

use std::{fmt, str::FromStr};

use rand::Rng as _;

/// Why an id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0}")]
pub struct BadId(&'static str);

/// A message's place in its channel's order: a ULID from a hybrid logical clock.
///
/// Sorts the same everywhere, as number, bytes and text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(u128);

impl MessageId {
    /// Below every id that a clock makes.
    pub const MIN: Self = Self(0);
    /// Above every id that a clock makes.
    pub const MAX: Self = Self(u128::MAX);

    /// The lowest id of a millisecond.
    #[must_use]
    pub fn floor_of(millis: u64) -> Self {
        Self(u128::from(millis) << 80)
    }

    pub(crate) fn from_parts(millis: u64, random: u128) -> Self {
        Self(ulid::Ulid::from_parts(millis, random).0)
    }

    /// The next id in order.
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The clock's milliseconds since the Unix epoch.
    #[must_use]
    pub fn millis(self) -> u64 {
        ulid::Ulid(self.0).timestamp_ms()
    }

    /// Its 16 bytes, in sorting order.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From its 16 bytes.
    ///
    /// # Errors
    /// When there are not 16.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadId> {
        let bytes = bytes
            .try_into()
            .map_err(|_| BadId("message id: 16 bytes are expected"))?;
        Ok(Self(u128::from_be_bytes(bytes)))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; ulid::ULID_LEN];
        f.write_str(ulid::Ulid(self.0).array_to_str(&mut text))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MessageId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        ulid::Ulid::from_string(text)
            .map(|id| Self(id.0))
            .map_err(|_| BadId("message id: a ULID of 26 characters is expected"))
    }
}

/// The sender's own id of a message: 128 random bits, kept over retries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientMessageId([u8; 16]);

impl ClientMessageId {
    /// A fresh one.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Its 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// From its 16 bytes.
    ///
    /// # Errors
    /// When there are not 16.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadId> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| BadId("client_message_id: 16 random bytes are expected"))
    }
}

impl fmt::Display for ClientMessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClientMessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// A fresh one: 20 letters and digits at random, about 100 bits.
            #[must_use]
            pub fn random() -> Self {
                const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
                let mut rng = rand::rng();
                let text: String =
                    (0..20).map(|_| char::from(ALPHABET[rng.next_u32() as usize % 32])).collect();
                Self(text.into())
            }

            /// As it was written elsewhere.
            #[must_use]
            pub fn from_text(text: &str) -> Self {
                Self(text.into())
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text_id! {
    /// One stream of one client with one shard.
    SessionId
}

text_id! {
    /// One life of one shard as publisher: its numbers of a channel are dense.
    OriginId
}

text_id! {
    /// One sign-in: all refresh and access tokens that descend from it.
    TokenFamilyId
}

/// One ownership of a partition in a region; only ever rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// A message's number in a channel's log within an epoch: dense, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// The one after.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_sort_the_same_as_number_bytes_and_text() {
        let ids = [
            MessageId::from_parts(5, 9),
            MessageId::from_parts(5, 10),
            MessageId::from_parts(6, 0),
        ];
        for pair in ids.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[0].to_bytes() < pair[1].to_bytes());
            assert!(pair[0].to_string() < pair[1].to_string());
        }
        assert_eq!(ids[0].to_string().parse(), Ok(ids[0]));
        assert_eq!(MessageId::from_bytes(&ids[0].to_bytes()), Ok(ids[0]));
        assert_eq!(ids[2].millis(), 6);
    }

    #[test]
    fn wrong_lengths_are_refused() {
        assert!(ClientMessageId::from_bytes(&[0; 15]).is_err());
        assert!(MessageId::from_bytes(&[0; 17]).is_err());
        assert!("nonsense".parse::<MessageId>().is_err());
    }
}
