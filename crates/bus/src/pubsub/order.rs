//! Which events of a key have failed, so that a later one is never taken for accepted.

use std::{collections::HashMap, ops::Range};

use crate::BusError;

/// The keys of one topic that were published to.
#[derive(Debug, Default)]
pub(super) struct Keys {
    keys: HashMap<String, Key>,
}

/// An event's place among those of its key.
pub(super) type Place = u64;

#[derive(Debug, Default)]
struct Key {
    next: Place,
    /// The first that failed since the key was last resumed. While there is one, the key is halted.
    failed: Option<Place>,
    /// From the one that failed before, up to where the key was resumed.
    void: Range<Place>,
}

impl Keys {
    /// The next place of the key, unless it is halted.
    pub(super) fn take(&mut self, key: &str) -> Result<Place, BusError> {
        let key = match self.keys.get_mut(key) {
            Some(key) => key,
            None => self.keys.entry(key.to_owned()).or_default(),
        };
        if key.failed.is_some() {
            return Err(BusError::Halted);
        }
        key.next += 1;
        Ok(key.next - 1)
    }

    /// What to answer for the event at this place, given how it went. A failure halts the key, unless
    /// it was resumed since. An event that passed after an earlier one failed counts as failed.
    pub(super) fn settle(
        &mut self,
        key: &str,
        place: Place,
        went: Result<(), BusError>,
    ) -> Result<(), BusError> {
        let Some(key) = self.keys.get_mut(key) else {
            return went;
        };
        if went.is_err() {
            if place >= key.void.end && key.failed.is_none_or(|failed| place < failed) {
                key.failed = Some(place);
            }
            return went;
        }
        if key.void.contains(&place) || key.failed.is_some_and(|failed| failed < place) {
            return Err(BusError::Unavailable(
                "an earlier event of its key failed".to_owned(),
            ));
        }
        Ok(())
    }

    /// Lets the key continue. Whether it was halted.
    pub(super) fn resume(&mut self, key: &str) -> bool {
        let Some(key) = self.keys.get_mut(key) else {
            return false;
        };
        let Some(failed) = key.failed.take() else {
            return false;
        };
        key.void = failed..key.next;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Result<(), BusError> {
        Err(BusError::Unavailable("away".to_owned()))
    }

    fn places<const N: usize>(keys: &mut Keys) -> [Place; N] {
        std::array::from_fn(|_| keys.take("key").expect("the key is not halted"))
    }

    #[test]
    fn a_failure_halts_its_key_alone_until_it_is_resumed() {
        let mut keys = Keys::default();
        let [first] = places(&mut keys);
        assert_eq!(keys.settle("key", first, failed()), failed());
        assert_eq!(keys.take("key"), Err(BusError::Halted));
        keys.take("other").expect("other keys go on");
        assert!(keys.resume("key"));
        assert!(!keys.resume("key"), "it was resumed before");
        let [second] = places(&mut keys);
        assert_eq!(keys.settle("key", second, Ok(())), Ok(()));
    }

    #[test]
    fn only_what_came_before_the_failed_one_passes() {
        let mut keys = Keys::default();
        let [before, failing, after] = places(&mut keys);
        assert_eq!(keys.settle("key", failing, failed()), failed());
        assert_eq!(keys.settle("key", before, Ok(())), Ok(()));
        assert!(keys.settle("key", after, Ok(())).is_err());
    }

    #[test]
    fn what_was_void_stays_so_after_the_key_is_resumed() {
        let mut keys = Keys::default();
        let [before, failing, after] = places(&mut keys);
        assert_eq!(keys.settle("key", failing, failed()), failed());
        keys.resume("key");
        assert_eq!(keys.settle("key", before, Ok(())), Ok(()));
        assert!(keys.settle("key", after, Ok(())).is_err());
    }

    #[test]
    fn a_failure_from_before_the_key_was_resumed_halts_nothing() {
        let mut keys = Keys::default();
        let [first, second] = places(&mut keys);
        assert_eq!(keys.settle("key", first, failed()), failed());
        keys.resume("key");
        assert_eq!(keys.settle("key", second, failed()), failed());
        let [third] = places(&mut keys);
        assert_eq!(keys.settle("key", third, Ok(())), Ok(()));
    }

    #[test]
    fn the_earliest_failure_counts_whichever_is_told_first() {
        let mut keys = Keys::default();
        let [first, second, third] = places(&mut keys);
        assert_eq!(keys.settle("key", third, failed()), failed());
        assert_eq!(keys.settle("key", first, failed()), failed());
        assert!(keys.settle("key", second, Ok(())).is_err());
    }
}
