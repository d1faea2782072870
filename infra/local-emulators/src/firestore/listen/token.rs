//! Resume tokens: the time up to which a client has seen everything.

use crate::firestore::{
    error::{Error, Result},
    time::Time,
};

pub(super) fn encode(time: Time) -> Vec<u8> {
    time.micros().to_be_bytes().to_vec()
}

pub(super) fn decode(token: &[u8]) -> Result<Time> {
    token
        .try_into()
        .map(|bytes| Time::from_micros(i64::from_be_bytes(bytes)))
        .map_err(|_| Error::invalid("Invalid resume token."))
}
