//! What it costs to bring an event into the form in which readers get it.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use infrachat_proto::{
    FRAME_HEADER, Frame,
    chat::v1::{self as chat, server_event::Kind},
    event_frame, message_to_wire,
};
use prost::Message as _;

use crate::message;

pub(crate) fn encode(criterion: &mut Criterion) {
    let message = message(0);
    // A position is about as long.
    let position = Bytes::from(vec![1; 40]);
    let frame = || event_frame(Kind::Message(message_to_wire(&message, position.clone())));
    criterion.bench_function("encode/a message", |bencher| bencher.iter(frame));

    let event = frame();
    let event = &event[FRAME_HEADER..];
    let mut group = criterion.benchmark_group("encode/joined");
    for count in [16, 64] {
        let joined = || {
            let mut joined = Frame::with_room(event.len() * count);
            (0..count).for_each(|_| joined.push(black_box(event)));
            joined.finish()
        };
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(count.to_string(), |bencher| bencher.iter(joined));
    }
    group.finish();

    let publish = chat::Publish {
        client_message_id: Bytes::from_static(&[7; 16]),
        channel: message.channel.to_string(),
        body: message.body.clone(),
        attempt: 1,
        ..Default::default()
    };
    let kind = Some(chat::client_frame::Kind::Publish(publish));
    let said = Bytes::from(chat::ClientFrame { kind }.encode_to_vec());
    criterion.bench_function("encode/reading what a client says", |bencher| {
        bencher.iter(|| chat::ClientFrame::decode(black_box(&said).clone()));
    });
}
