//! A place in a channel's stream, which clients keep as opaque bytes.

use xxhash_rust::xxh3::xxh3_64;

use crate::{ChannelName, Epoch, Offset, Region};

const VERSION: u8 = 1;
/// A position is encoded again for each message that is replayed, so what clients send is bounded.
const MAX_REGIONS: usize = 16;

/// Where in a channel a session is.
///
/// Within `region`, (`epoch`, `offset`) is exact. For another region, `seen` tells by source region
/// up to which moment messages had been received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The region whose log this counts in.
    pub region: RegionTag,
    /// The ownership whose log this counts in.
    pub epoch: Epoch,
    /// The last message seen; 0 before the first.
    pub offset: Offset,
    /// By source region, the milliseconds of the newest message id received.
    pub seen: Vec<(RegionTag, u64)>,
}

/// A region's name as four bytes: positions travel with every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionTag(u32);

impl From<&Region> for RegionTag {
    fn from(region: &Region) -> Self {
        Self(low_half(xxh3_64(region.as_str().as_bytes())))
    }
}

/// Why a position was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPosition {
    /// Cut short, too long, or of another version.
    #[error("the position is damaged or of an unknown version")]
    Malformed,
    /// It was given out for another channel.
    #[error("the position belongs to another channel")]
    OtherChannel,
}

impl Position {
    /// The start of a channel's log in an epoch.
    #[must_use]
    pub fn start(region: &Region, epoch: Epoch) -> Self {
        Self {
            region: region.into(),
            epoch,
            offset: Offset(0),
            seen: Vec::new(),
        }
    }

    /// The newest moment received from a source region.
    #[must_use]
    pub fn seen_from(&self, source: &Region) -> Option<u64> {
        let tag = RegionTag::from(source);
        self.seen
            .iter()
            .find(|(region, _)| *region == tag)
            .map(|(_, millis)| *millis)
    }

    /// As clients get it: version, channel tag, region tag, epoch, offset, then (tag, millis) pairs.
    #[must_use]
    pub fn encode(&self, channel: &ChannelName) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.seen.len() * 10);
        bytes.push(VERSION);
        bytes.extend(channel_tag(channel).to_le_bytes());
        bytes.extend(self.region.0.to_le_bytes());
        put_varint(&mut bytes, self.epoch.0);
        put_varint(&mut bytes, self.offset.0);
        for (region, millis) in &self.seen {
            bytes.extend(region.0.to_le_bytes());
            put_varint(&mut bytes, *millis);
        }
        bytes
    }

    /// Reads what [`Position::encode`] wrote.
    ///
    /// # Errors
    /// When it is damaged, of another version, or of another channel.
    pub fn decode(channel: &ChannelName, bytes: &[u8]) -> Result<Self, BadPosition> {
        let mut rest = bytes;
        if take::<1>(&mut rest)? != [VERSION] {
            return Err(BadPosition::Malformed);
        }
        if u32::from_le_bytes(take(&mut rest)?) != channel_tag(channel) {
            return Err(BadPosition::OtherChannel);
        }
        let region = RegionTag(u32::from_le_bytes(take(&mut rest)?));
        let epoch = Epoch(take_varint(&mut rest)?);
        let offset = Offset(take_varint(&mut rest)?);
        let mut seen = Vec::new();
        while !rest.is_empty() {
            if seen.len() == MAX_REGIONS {
                return Err(BadPosition::Malformed);
            }
            seen.push((
                RegionTag(u32::from_le_bytes(take(&mut rest)?)),
                take_varint(&mut rest)?,
            ));
        }
        Ok(Self {
            region,
            epoch,
            offset,
            seen,
        })
    }
}

fn low_half(hash: u64) -> u32 {
    u32::try_from(hash & u64::from(u32::MAX)).unwrap_or_default()
}

fn channel_tag(channel: &ChannelName) -> u32 {
    low_half(xxh3_64(channel.as_str().as_bytes()))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BadPosition> {
    let (head, tail) = rest
        .split_first_chunk::<N>()
        .ok_or(BadPosition::Malformed)?;
    *rest = tail;
    Ok(*head)
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, BadPosition> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take::<1>(rest)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return Err(BadPosition::Malformed);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(BadPosition::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn general() -> ChannelName {
        ChannelName::new("#general").expect("valid")
    }

    #[test]
    fn another_channels_position_is_refused() {
        let region = Region::new("us-west1").expect("valid");
        let bytes = Position::start(&region, Epoch(3)).encode(&general());
        let other = ChannelName::new("#other").expect("valid");
        assert_eq!(
            Position::decode(&other, &bytes),
            Err(BadPosition::OtherChannel)
        );
    }

    #[test]
    fn what_was_seen_is_told_by_source_region() {
        let west = Region::new("us-west1").expect("valid");
        let asia = Region::new("asia-northeast1").expect("valid");
        let mut position = Position::start(&west, Epoch(1));
        position.seen.push(((&asia).into(), 42));
        assert_eq!(position.seen_from(&asia), Some(42));
        assert_eq!(position.seen_from(&west), None);
    }

    proptest! {
        #[test]
        fn positions_read_back(
            epoch: u64, offset: u64, region: u32, seen in prop::collection::vec((any::<u32>(), any::<u64>()), 0..5)
        ) {
            let position = Position {
                region: RegionTag(region),
                epoch: Epoch(epoch),
                offset: Offset(offset),
                seen: seen.into_iter().map(|(tag, millis)| (RegionTag(tag), millis)).collect(),
            };
            prop_assert_eq!(Position::decode(&general(), &position.encode(&general())), Ok(position));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            drop(Position::decode(&general(), &bytes));
        }
    }
}
