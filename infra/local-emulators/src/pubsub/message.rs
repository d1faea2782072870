//! A published message, shared by every subscription that has it.

use prost::Message as _;
use prost_types::Timestamp;

use crate::{clock::Moment, proto::PubsubMessage};

/// A message as its topic took it.
#[derive(Debug)]
pub(crate) struct Message {
    /// Its place in its topic: rises with every message.
    pub(crate) seq: u64,
    pub(crate) published: Moment,
    /// With id and publish time.
    pub(crate) body: PubsubMessage,
    /// What flow control counts.
    pub(crate) bytes: usize,
}

impl Message {
    pub(crate) fn new(
        seq: u64,
        id: String,
        published: Moment,
        publish_time: Timestamp,
        mut body: PubsubMessage,
    ) -> Self {
        body.message_id = id;
        body.publish_time = Some(publish_time);
        Self {
            seq,
            published,
            bytes: body.encoded_len(),
            body,
        }
    }

    pub(crate) fn ordering_key(&self) -> &str {
        &self.body.ordering_key
    }
}
