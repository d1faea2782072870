//! What Pub/Sub's refusals mean on the bus.

use google_cloud_gax::error::{Error, rpc::Code};
use google_cloud_pubsub::error::PublishError;

use crate::BusError;

/// The code that Pub/Sub answered, if it did.
pub(super) fn code(err: &Error) -> Option<Code> {
    err.status().map(|status| status.code)
}

/// `about`: the topic or subscription of the call.
pub(super) fn call(err: &Error, about: impl ToString) -> BusError {
    match code(err) {
        Some(Code::NotFound) => BusError::NotFound(about.to_string()),
        Some(Code::InvalidArgument) => BusError::Refused(err.to_string()),
        // A permission that is missing too: it is no fault of the event, and may be granted.
        _ => BusError::Unavailable(err.to_string()),
    }
}

pub(super) fn publish(err: &PublishError, topic: impl ToString) -> BusError {
    match err {
        PublishError::Rpc(err) => call(err, topic),
        PublishError::OrderingKeyPaused => BusError::Halted,
        _ => BusError::Unavailable(err.to_string()),
    }
}
