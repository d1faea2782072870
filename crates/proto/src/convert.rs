//! Between wire and domain types.

use bytes::{BufMut as _, Bytes, BytesMut};
use infrachat_types::{
    BadId, Channel, ChannelName, ClientMessageId, Message, MessageId, Region, SessionId,
    SlowReaderPolicy, UserName, Visibility,
};
use prost::Message as _;

use crate::chat::v1 as chat;

/// One event as an entry of a `ServerBatch`: entries, joined in order, are a valid batch.
#[must_use]
pub fn event_entry(kind: chat::server_event::Kind) -> Bytes {
    let mut entry = BytesMut::new();
    put_event(&mut entry, kind);
    entry.freeze()
}

fn put_event(out: &mut BytesMut, kind: chat::server_event::Kind) {
    let event = chat::ServerEvent { kind: Some(kind) };
    let length = event.encoded_len();
    out.reserve(length + 6);
    // Field 1, length-delimited, as in `ServerBatch.events`.
    out.put_u8(0x0a);
    prost::encoding::encode_varint(length as u64, out);
    event.encode_raw(out);
}

/// Bytes of a gRPC message before its content.
pub const FRAME_HEADER: usize = 5;

/// A gRPC message with a `ServerBatch`, put together of entries that are encoded already.
#[derive(Debug)]
pub struct Frame(BytesMut);

impl Frame {
    /// An empty one, with room for entries of so many bytes: what grows keeps up to twice what it needs.
    #[must_use]
    pub fn with_room(bytes: usize) -> Self {
        let mut frame = BytesMut::with_capacity(FRAME_HEADER + bytes);
        // Not compressed; the length follows once it is known.
        frame.put_bytes(0, FRAME_HEADER);
        Self(frame)
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: &[u8]) {
        self.0.extend_from_slice(entry);
    }

    /// Bytes of the entries so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len() - FRAME_HEADER
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message.
    #[must_use]
    pub fn finish(mut self) -> Bytes {
        let length = u32::try_from(self.len()).unwrap_or(u32::MAX);
        self.0[1..FRAME_HEADER].copy_from_slice(&length.to_be_bytes());
        self.0.freeze()
    }
}

/// A message with one event.
#[must_use]
pub fn event_frame(kind: chat::server_event::Kind) -> Bytes {
    let mut frame = Frame::with_room(0);
    put_event(&mut frame.0, kind);
    frame.finish()
}

/// A message for the wire, with its place in the stream.
#[must_use]
pub fn message_to_wire(message: &Message, position: Bytes) -> chat::Message {
    chat::Message {
        channel: message.channel.to_string(),
        message_id: message.message_id.to_string(),
        sender: message.sender.to_string(),
        client_message_id: Bytes::copy_from_slice(message.client_message_id.as_bytes()),
        body: message.body.clone(),
        published_at_ms: message.published_at,
        region: message.region.to_string(),
        position,
        session_id: message.session_id.to_string(),
    }
}

/// A message from the wire.
///
/// # Errors
/// When a name or an id in it is not valid.
pub fn message_from_wire(
    wire: chat::Message,
) -> Result<Message, Box<dyn std::error::Error + Send + Sync>> {
    Ok(Message {
        channel: ChannelName::new(&wire.channel)?,
        message_id: wire.message_id.parse::<MessageId>()?,
        sender: UserName::new(&wire.sender)?,
        client_message_id: ClientMessageId::from_bytes(&wire.client_message_id)
            .map_err(|err: BadId| err)?,
        body: wire.body,
        published_at: wire.published_at_ms,
        region: Region::new(&wire.region)?,
        session_id: SessionId::from_text(&wire.session_id),
    })
}

/// A channel's record for the wire.
#[must_use]
pub fn channel_to_wire(channel: &Channel) -> chat::Channel {
    chat::Channel {
        name: channel.name.to_string(),
        home_region: channel.home_region.to_string(),
        created_by: channel.created_by.to_string(),
        created_at_ms: channel.created_at,
        visibility: match channel.visibility {
            Visibility::Public => chat::Visibility::Public,
            Visibility::Private => chat::Visibility::Private,
        }
        .into(),
        topic: channel.topic.clone(),
        slow_reader: match channel.slow_reader {
            SlowReaderPolicy::DropOldest => chat::SlowReaderPolicy::DropOldest,
            SlowReaderPolicy::Disconnect => chat::SlowReaderPolicy::Disconnect,
        }
        .into(),
        version: channel.version,
    }
}

/// A channel's record from the wire.
///
/// # Errors
/// When a name in it is not valid.
pub fn channel_from_wire(wire: chat::Channel) -> Result<Channel, infrachat_types::BadName> {
    Ok(Channel {
        visibility: match wire.visibility() {
            chat::Visibility::Private => Visibility::Private,
            chat::Visibility::Public | chat::Visibility::Unspecified => Visibility::Public,
        },
        slow_reader: match wire.slow_reader() {
            chat::SlowReaderPolicy::Disconnect => SlowReaderPolicy::Disconnect,
            chat::SlowReaderPolicy::DropOldest | chat::SlowReaderPolicy::Unspecified => {
                SlowReaderPolicy::DropOldest
            }
        },
        name: ChannelName::new(&wire.name)?,
        home_region: Region::new(&wire.home_region)?,
        created_by: UserName::new(&wire.created_by)?,
        created_at: wire.created_at_ms,
        topic: wire.topic,
        version: wire.version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_entries_are_a_batch() {
        let entries =
            [1, 2].map(|nonce| event_entry(chat::server_event::Kind::Pong(chat::Pong { nonce })));
        let batch = chat::ServerBatch::decode(entries.concat().as_slice()).expect("a valid batch");
        let nonces: Vec<_> = batch
            .events
            .into_iter()
            .map(|event| match event.kind {
                Some(chat::server_event::Kind::Pong(pong)) => pong.nonce,
                other => panic!("not a pong: {other:?}"),
            })
            .collect();
        assert_eq!(nonces, [1, 2]);
    }
}
