use infrachat_proto::chat::v1::{self as chat, server_event::Kind};
use infrachat_types::SessionId;
use proptest::prelude::*;
use prost::Message as _;

use super::*;

const EPOCH: Epoch = Epoch(1);

fn ring(entries: usize) -> Ring {
    Ring::new(
        RingLimits {
            entries,
            bytes: usize::MAX,
        },
        (EPOCH, Offset(0)),
        Bytes::from_static(b"0"),
    )
}

fn position(offset: u64) -> Bytes {
    Bytes::from(offset.to_string())
}

fn session(name: &str) -> Author {
    Author::new(SessionId::from_text(name))
}

/// Stands for a message, whose number can be read again.
fn message(offset: u64, author: Option<&Author>) -> Entry {
    Entry {
        frame: infrachat_proto::event_frame(Kind::Pong(chat::Pong { nonce: offset })),
        author: author.cloned(),
        message: Some(((EPOCH, Offset(offset)), position(offset))),
        facts: None,
    }
}

fn presence() -> Entry {
    let kind = Kind::Presence(chat::Presence::default());
    Entry {
        frame: infrachat_proto::event_frame(kind),
        author: None,
        message: None,
        facts: None,
    }
}

fn everything_stable() -> Place {
    (Epoch(u64::MAX), Offset(u64::MAX))
}

/// The numbers of the messages in a frame, which must be a whole gRPC message.
fn numbers(frame: &[u8]) -> Vec<u64> {
    let length = u32::from_be_bytes(frame[1..FRAME_HEADER].try_into().expect("a header"));
    assert_eq!(frame[0], 0, "not compressed");
    assert_eq!(length as usize, frame.len() - FRAME_HEADER);
    let batch = chat::ServerBatch::decode(&frame[FRAME_HEADER..]).expect("a batch");
    let kinds = batch.events.into_iter().filter_map(|event| event.kind);
    kinds
        .filter_map(|kind| match kind {
            Kind::Pong(pong) => Some(pong.nonce),
            _ => None,
        })
        .collect()
}

/// Reads until nothing is left, or the reader is slow.
fn read_on(
    ring: &mut Ring,
    cursor: &mut Cursor,
    reader: &Author,
    limits: (u64, usize),
) -> (Vec<u64>, bool) {
    let mut read = Vec::new();
    loop {
        match ring.read(cursor, reader, limits, &mut Tally::default()) {
            Read::Frame(frame, more) => {
                read.extend(numbers(&frame));
                if !more {
                    return (read, false);
                }
            }
            Read::Nothing => return (read, false),
            Read::Slow => return (read, true),
        }
    }
}

fn read_all(ring: &mut Ring, cursor: &mut Cursor, reader: &Author) -> Vec<u64> {
    let (read, slow) = read_on(ring, cursor, reader, (u64::MAX, usize::MAX));
    assert!(!slow);
    read
}

#[test]
fn the_author_gets_no_echo_and_others_do() {
    let (me, other) = (session("me"), session("other"));
    let mut ring = ring(10);
    let mut cursor = ring.tail();
    ring.append(message(1, Some(&me)), everything_stable());
    assert!(read_all(&mut ring, &mut cursor.clone(), &me).is_empty());
    assert_eq!(read_all(&mut ring, &mut cursor.clone(), &other), [1]);
    ring.append(message(2, Some(&other)), everything_stable());
    assert_eq!(read_all(&mut ring, &mut cursor.clone(), &me), [2]);
    assert_eq!(read_all(&mut ring, &mut cursor, &other), [1]);
}

#[test]
fn readers_at_one_place_share_one_frame() {
    let mut ring = ring(10);
    let mut cursor = ring.tail();
    (1..=3).for_each(|offset| ring.append(message(offset, None), everything_stable()));
    let mut read = |name: &str, cursor: &mut Cursor| {
        let limits = (u64::MAX, usize::MAX);
        match ring.read(cursor, &session(name), limits, &mut Tally::default()) {
            Read::Frame(frame, false) => frame,
            other => panic!("instead of a frame came {other:?}"),
        }
    };
    let first = read("first", &mut cursor.clone());
    let second = read("second", &mut cursor);
    assert_eq!(numbers(&first), [1, 2, 3]);
    assert_eq!(first.as_ptr(), second.as_ptr());
}

#[test]
fn a_slow_reader_learns_exactly_what_it_missed() {
    let me = session("me");
    let mut ring = ring(100);
    let mut cursor = ring.tail();
    (1..=20).for_each(|offset| ring.append(message(offset, None), everything_stable()));
    let (read, slow) = read_on(&mut ring, &mut cursor, &me, (10, usize::MAX));
    assert!(slow && read.is_empty());
    let skipped = ring.skip_ahead(&mut cursor, 5);
    assert_eq!(
        skipped,
        Skipped {
            missed: 15,
            from: position(0),
            to: position(15)
        }
    );
    let rest: Vec<_> = (16..=20).collect();
    assert_eq!(read_all(&mut ring, &mut cursor, &me), rest);
}

#[test]
fn a_reader_that_the_ring_overtook_is_slow() {
    let me = session("me");
    let mut ring = ring(3);
    let mut cursor = ring.tail();
    (1..=5).for_each(|offset| ring.append(message(offset, None), everything_stable()));
    let (_, slow) = read_on(&mut ring, &mut cursor, &me, (1_000, usize::MAX));
    assert!(slow);
    assert_eq!(ring.skip_ahead(&mut cursor, 100).missed, 2);
}

#[test]
fn what_history_lacks_stays_in_the_ring() {
    let mut ring = ring(2);
    for offset in 1..=5 {
        ring.append(message(offset, None), (EPOCH, Offset(1)));
    }
    assert!(
        ring.after((EPOCH, Offset(1))).is_some(),
        "2 to 5 are still there"
    );
    assert!(ring.after((EPOCH, Offset(0))).is_none(), "1 is gone");
}

#[test]
fn what_is_trimmed_is_what_history_has_beyond_what_is_to_be_kept() {
    let mut ring = ring(100);
    for number in 1..=10 {
        ring.append(message(number, None), everything_stable());
        ring.append(presence(), everything_stable());
    }
    let mut cursor = ring.oldest();
    let full = ring.weight();
    ring.trim(4, usize::MAX, (EPOCH, Offset(3)));
    assert!(ring.after((EPOCH, Offset(3))).is_some(), "history lacks 4");
    assert!(ring.after((EPOCH, Offset(2))).is_none());
    assert!(ring.weight() < full);
    ring.trim(4, usize::MAX, everything_stable());
    assert!(ring.after((EPOCH, Offset(6))).is_some());
    assert!(ring.after((EPOCH, Offset(5))).is_none());
    ring.trim(4, 1, everything_stable());
    let skipped = ring.skip_ahead(&mut cursor, 100);
    assert_eq!((skipped.missed, skipped.to), (10, position(10)));
    assert_eq!(ring.pending(&cursor), 0);
}

#[test]
fn a_place_in_an_older_epoch_is_behind_everything_newer() {
    let mut ring = Ring::new(
        RingLimits {
            entries: 10,
            bytes: usize::MAX,
        },
        (Epoch(1), Offset(4)),
        Bytes::from_static(b"x"),
    );
    ring.append(
        Entry {
            message: Some(((Epoch(2), Offset(1)), position(1))),
            ..message(1, None)
        },
        everything_stable(),
    );
    assert!(ring.after((Epoch(1), Offset(3))).is_none());
    let mut cursor = ring
        .after((Epoch(1), Offset(9)))
        .expect("nothing after it is missing");
    assert_eq!(read_all(&mut ring, &mut cursor, &session("r")), [1]);
}

proptest! {
    /// Whatever is appended, and wherever a reader starts, it reads every message after its place
    /// once and in order, or learns how many it missed.
    #[test]
    fn read_and_missed_add_up(
        capacity in 1_usize..20, start in 0_u64..30, kinds in prop::collection::vec(any::<bool>(), 1..60),
        budget in 1_usize..200, threshold in 1_u64..30,
    ) {
        let me = session("me");
        let mut ring = ring(capacity);
        let mut offset = 0;
        for is_message in kinds {
            if is_message {
                offset += 1;
                ring.append(message(offset, None), everything_stable());
            } else {
                ring.append(presence(), everything_stable());
            }
        }
        let start = start.min(offset);
        let Some(mut cursor) = ring.after((EPOCH, Offset(start))) else { return Ok(()) };
        let mut all = Vec::new();
        let mut missed = 0;
        loop {
            let (read, slow) = read_on(&mut ring, &mut cursor, &me, (threshold, budget));
            all.extend(read);
            if !slow {
                break;
            }
            missed += ring.skip_ahead(&mut cursor, usize::try_from(threshold / 2).expect("small")).missed;
        }
        prop_assert_eq!(all.len() as u64 + missed, offset - start);
        prop_assert!(all.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        prop_assert_eq!(cursor.position, position(offset));
    }

    /// Readers that share what was joined read what each would read alone: everything but its own.
    #[test]
    fn what_is_shared_is_what_each_would_read_alone(
        steps in prop::collection::vec((0_u8..4, 0_usize..3), 1..80), budget in 1_usize..100,
    ) {
        let readers = [session("a"), session("b"), session("c")];
        let mut ring = ring(1_000);
        let mut cursors = [ring.tail(), ring.tail(), ring.tail()];
        let mut read = [const { Vec::new() }; 3];
        let mut expected = [const { Vec::new() }; 3];
        let mut offset = 0;
        for (what, who) in steps {
            if what == 0 {
                let limits = (u64::MAX, budget);
                read[who].extend(read_on(&mut ring, &mut cursors[who], &readers[who], limits).0);
                continue;
            }
            offset += 1;
            let author = (what == 1).then(|| &readers[who]);
            ring.append(message(offset, author), everything_stable());
            for (reader, expected) in readers.iter().zip(&mut expected) {
                if author != Some(reader) {
                    expected.push(offset);
                }
            }
        }
        for who in 0..3 {
            read[who].extend(read_on(&mut ring, &mut cursors[who], &readers[who], (u64::MAX, budget)).0);
            prop_assert_eq!(&read[who], &expected[who]);
            prop_assert_eq!(ring.pending(&cursors[who]), 0);
        }
    }
}
