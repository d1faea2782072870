//! Pieces of the message path, each by itself.
#![allow(missing_docs, reason = "criterion's macros write functions")]

mod encode;
mod log;
mod routing;

use bytes::Bytes;
use criterion::{criterion_group, criterion_main};
use infrachat_types::{
    ChannelName, ClientMessageId, Message, MessageId, Region, SessionId, UserName,
};

const CHANNEL: &str = "#team-engineering";

/// A message of 150 bytes.
fn message(number: u64) -> Message {
    let moment = 1_800_000_000_000 + number;
    let id = u128::from(number).to_be_bytes();
    Message {
        channel: ChannelName::new(CHANNEL).expect("valid"),
        message_id: MessageId::floor_of(moment),
        sender: UserName::new("alice").expect("valid"),
        client_message_id: ClientMessageId::from_bytes(&id).expect("16 bytes"),
        body: Bytes::from(vec![b'x'; 150]),
        published_at: 1_800_000_000_000,
        region: Region::new("us-west1").expect("valid"),
        session_id: SessionId::random(),
    }
}

criterion_group!(
    pieces,
    routing::routing,
    encode::encode,
    log::log,
    log::dedupe
);
criterion_main!(pieces);
