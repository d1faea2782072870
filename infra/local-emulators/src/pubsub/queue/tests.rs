//! The queue's promises, with time set by hand.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Backoff, ConsumerId, Delivery, Queue, Room, Rules};
use crate::{clock::Moment, proto::PubsubMessage, pubsub::message::Message};

const DEADLINE: Duration = Duration::from_secs(10);
const PLAIN: Rules = Rules {
    ordering: true,
    one_per_key: false,
    retry: None,
    max_attempts: None,
    retention: Duration::from_secs(3_600),
    retain_acked: false,
};
const ROOM: Room = Room {
    messages: 100,
    bytes: usize::MAX,
};

fn at(seconds: u64) -> Moment {
    Moment::after_seconds(seconds)
}

fn message(seq: u64, key: &str) -> Arc<Message> {
    let body = PubsubMessage {
        ordering_key: key.to_owned(),
        ..PubsubMessage::default()
    };
    let publish_time = prost_types::Timestamp::default();
    Arc::new(Message::new(
        seq,
        seq.to_string(),
        at(0),
        publish_time,
        body,
    ))
}

/// A queue with these messages: sequence numbers from 1, and their keys.
fn queue(rules: Rules, keys: &[&str]) -> Queue {
    let mut queue = Queue::new(rules);
    for (seq, key) in (1..).zip(keys) {
        queue.push(message(seq, key), at(0));
    }
    queue
}

fn take(queue: &mut Queue, consumer: ConsumerId, now: Moment) -> Vec<Delivery> {
    queue.take(consumer, ROOM, now, now + DEADLINE, |_| 0)
}

fn take_one(queue: &mut Queue, consumer: ConsumerId, now: Moment) -> Vec<Delivery> {
    let room = Room {
        messages: 1,
        ..ROOM
    };
    queue.take(consumer, room, now, now + DEADLINE, |_| 0)
}

fn seqs(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|each| each.message.seq).collect()
}

#[test]
fn a_leased_message_comes_again_when_its_deadline_passes_and_not_before() {
    let mut queue = queue(PLAIN, &[""]);
    let consumer = queue.join();
    assert_eq!(seqs(&take(&mut queue, consumer, at(0))), [1]);
    assert_eq!(seqs(&take(&mut queue, consumer, at(9))), [0; 0]);
    let again = take(&mut queue, consumer, at(10));
    assert_eq!(seqs(&again), [1]);
    assert_eq!(again[0].attempt, 2);
}

#[test]
fn an_extended_lease_ends_later() {
    let mut queue = queue(PLAIN, &[""]);
    let consumer = queue.join();
    let taken = take(&mut queue, consumer, at(0));
    queue.extend(taken[0].lease, at(30));
    assert!(take(&mut queue, consumer, at(29)).is_empty());
    assert_eq!(seqs(&take(&mut queue, consumer, at(30))), [1]);
}

#[test]
fn an_acknowledged_message_never_comes_again() {
    let mut queue = queue(PLAIN, &["", "k"]);
    let consumer = queue.join();
    for delivery in take(&mut queue, consumer, at(0)) {
        queue.ack(delivery.lease);
    }
    assert!(take(&mut queue, consumer, at(1_000)).is_empty());
    assert_eq!(queue.outstanding(consumer), (0, 0));
    assert!(queue.keys.is_empty() && queue.entries.is_empty() && queue.leases.is_empty());
}

#[test]
fn a_late_acknowledgement_counts_until_the_message_is_delivered_again() {
    let mut queue = queue(PLAIN, &["", ""]);
    let consumer = queue.join();
    let taken = take(&mut queue, consumer, at(0));
    queue.tick(at(10));
    queue.ack(taken[0].lease);
    let again = take(&mut queue, consumer, at(10));
    assert_eq!(seqs(&again), [2]);
    queue.ack(taken[1].lease);
    assert_eq!(
        seqs(&take(&mut queue, consumer, at(20))),
        [2],
        "an old lease counted"
    );
}

#[test]
fn a_key_stays_with_the_consumer_that_has_its_messages() {
    let mut queue = queue(PLAIN, &["a", "a", "b", "a"]);
    let (one, two) = (queue.join(), queue.join());
    let first = take_one(&mut queue, one, at(0));
    assert_eq!(seqs(&first), [1]);
    assert_eq!(seqs(&take(&mut queue, two, at(0))), [3]);
    assert_eq!(seqs(&take_one(&mut queue, one, at(0))), [2]);
    queue.ack(first[0].lease);
    assert_eq!(
        seqs(&take(&mut queue, two, at(0))),
        [0; 0],
        "2 is still out"
    );
    assert_eq!(seqs(&take(&mut queue, one, at(0))), [4]);
}

#[test]
fn a_key_is_free_once_nothing_of_it_is_out() {
    let mut queue = queue(PLAIN, &["a", "a"]);
    let (one, two) = (queue.join(), queue.join());
    let first = take_one(&mut queue, one, at(0));
    queue.ack(first[0].lease);
    assert_eq!(seqs(&take(&mut queue, two, at(0))), [2]);
}

#[test]
fn a_consumer_that_left_keeps_its_key_until_its_leases_end() {
    let mut queue = queue(PLAIN, &["a", "a"]);
    let (one, two) = (queue.join(), queue.join());
    take_one(&mut queue, one, at(0));
    queue.leave(one);
    assert!(take(&mut queue, two, at(9)).is_empty());
    assert_eq!(seqs(&take(&mut queue, two, at(10))), [1, 2]);
}

#[test]
fn a_redelivery_replays_all_later_messages_of_its_key_acknowledged_ones_too() {
    let mut queue = queue(PLAIN, &["a", "a", "b", "a", "a"]);
    let consumer = queue.join();
    let room = Room {
        messages: 4,
        ..ROOM
    };
    let out = queue.take(consumer, room, at(0), at(10), |_| 0);
    assert_eq!(seqs(&out), [1, 2, 3, 4]);
    queue.ack(out[0].lease);
    queue.ack(out[3].lease);
    queue.nack(out[1].lease, at(1));
    let again = take(&mut queue, consumer, at(1));
    assert_eq!(seqs(&again), [2, 4, 5]);
    assert_eq!(again[0].attempt, 2);
    assert_eq!(again[1].attempt, 1, "only the one given back counts");
    queue.ack(out[1].lease);
    for delivery in &again[1..] {
        queue.ack(delivery.lease);
    }
    let once_more = seqs(&take(&mut queue, consumer, at(11)));
    let of_key: Vec<u64> = once_more.into_iter().filter(|seq| *seq != 3).collect();
    assert_eq!(
        of_key,
        [2, 4, 5],
        "an acknowledgement of the first delivery counted"
    );
}

#[test]
fn a_consumer_that_takes_once_gets_what_there_is_of_a_key_and_the_next_none() {
    let mut queue = queue(PLAIN, &["a", "a"]);
    let (one, two) = (queue.join(), queue.join());
    let out = take(&mut queue, one, at(0));
    queue.leave(one);
    assert_eq!(seqs(&out), [1, 2]);
    queue.push(message(3, "a"), at(0));
    assert!(take(&mut queue, two, at(0)).is_empty());
    queue.ack(out[0].lease);
    assert!(take(&mut queue, two, at(0)).is_empty());
    queue.ack(out[1].lease);
    assert_eq!(seqs(&take(&mut queue, two, at(0))), [3]);
}

#[test]
fn an_overdue_message_of_a_key_replays_the_later_ones_once() {
    let mut queue = queue(PLAIN, &["a", "a", "a"]);
    let consumer = queue.join();
    take(&mut queue, consumer, at(0));
    let again = take(&mut queue, consumer, at(10));
    assert_eq!(seqs(&again), [1, 2, 3]);
    assert_eq!(
        again.iter().map(|each| each.attempt).collect::<Vec<_>>(),
        [2, 1, 1]
    );
}

#[test]
fn with_push_one_message_of_a_key_is_out_at_a_time() {
    let rules = Rules {
        one_per_key: true,
        ..PLAIN
    };
    let mut queue = queue(rules, &["a", "a", "b", ""]);
    let consumer = queue.join();
    let out = take(&mut queue, consumer, at(0));
    assert_eq!(seqs(&out), [1, 3, 4]);
    queue.ack(out[0].lease);
    assert_eq!(seqs(&take(&mut queue, consumer, at(0))), [2]);
}

#[test]
fn without_ordering_keys_mean_nothing() {
    let rules = Rules {
        ordering: false,
        ..PLAIN
    };
    let mut queue = queue(rules, &["a", "a"]);
    let (one, two) = (queue.join(), queue.join());
    let first = take_one(&mut queue, one, at(0));
    assert_eq!(seqs(&take(&mut queue, two, at(0))), [2]);
    queue.nack(first[0].lease, at(0));
    assert_eq!(seqs(&take(&mut queue, two, at(0))), [1]);
}

#[test]
fn backoff_doubles_from_its_minimum_to_its_maximum_and_holds_up_the_key() {
    let rules = Rules {
        retry: Some(Backoff {
            min: Duration::from_secs(1),
            max: Duration::from_secs(3),
        }),
        ..PLAIN
    };
    let mut queue = queue(rules, &["a", "a", "b"]);
    let consumer = queue.join();
    let mut now = at(0);
    for wait in [1, 2, 3, 3] {
        let out = take(&mut queue, consumer, now);
        let first = out.iter().find(|each| each.message.seq == 1);
        queue.nack(first.expect("1 is out").lease, now);
        let due = now + Duration::from_secs(wait);
        assert_eq!(queue.next_due(consumer), Some(due));
        let early = take(&mut queue, consumer, due - Duration::from_millis(1));
        assert!(!seqs(&early).contains(&1) && !seqs(&early).contains(&2));
        now = due;
    }
}

#[test]
fn a_message_delivered_in_vain_too_often_is_a_dead_letter() {
    let rules = Rules {
        max_attempts: Some(2),
        ..PLAIN
    };
    let mut queue = queue(rules, &["a", "a"]);
    let consumer = queue.join();
    let out = take_one(&mut queue, consumer, at(0));
    queue.nack(out[0].lease, at(0));
    take_one(&mut queue, consumer, at(0));
    queue.tick(at(10));
    let dead = queue.take_dead();
    assert_eq!((dead[0].message.seq, dead[0].attempts), (1, 2));
    assert_eq!(seqs(&take(&mut queue, consumer, at(10))), [2]);
}

#[test]
fn room_bounds_messages_and_bytes() {
    let mut queue = queue(PLAIN, &["", "", ""]);
    let consumer = queue.join();
    let bytes = message(1, "").bytes;
    let room = Room {
        messages: 100,
        bytes: bytes + 1,
    };
    let out = queue.take(consumer, room, at(0), at(10), |_| 0);
    assert_eq!(seqs(&out), [1, 2]);
    assert_eq!(queue.outstanding(consumer), (2, 2 * bytes));
    queue.ack(out[0].lease);
    assert_eq!(queue.outstanding(consumer), (1, bytes));
    queue.tick(at(10));
    assert_eq!(queue.outstanding(consumer), (0, 0));
}

#[test]
fn what_is_older_than_the_retention_is_dropped() {
    let mut queue = queue(PLAIN, &["", "a", "a"]);
    let consumer = queue.join();
    take(&mut queue, consumer, at(0));
    assert!(take(&mut queue, consumer, at(3_601)).is_empty());
    assert!(queue.entries.is_empty() && queue.keys.is_empty() && queue.due.is_empty());
    assert_eq!(queue.next_tick(), None);
}

#[test]
fn retained_messages_can_be_had_back_and_old_leases_are_void() {
    let rules = Rules {
        retain_acked: true,
        ..PLAIN
    };
    let mut queue = queue(rules, &["", "a", "a"]);
    let consumer = queue.join();
    let out = take(&mut queue, consumer, at(0));
    queue.ack(out[0].lease);
    queue.ack(out[1].lease);
    assert_eq!(queue.unacked().into_keys().collect::<Vec<_>>(), [3]);
    queue.reset(queue.held(), at(1));
    queue.ack(out[2].lease);
    assert_eq!(seqs(&take(&mut queue, consumer, at(1))), [1, 2, 3]);
    queue.reset(BTreeMap::new(), at(2));
    assert!(take(&mut queue, consumer, at(1_000)).is_empty());
    assert_eq!(
        queue.held().len(),
        3,
        "acknowledged by the seek, and retained"
    );
}

#[test]
fn reordering_moves_keys_against_each_other_and_nothing_within_a_key() {
    let keys: Vec<String> = (0..60).map(|n| format!("k{}", n % 6)).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut queue = queue(PLAIN, &keys);
    let consumer = queue.join();
    let mut turn = 0;
    let out = queue.take(consumer, ROOM, at(0), at(10), |reach| {
        turn += 1;
        turn % (reach + 1)
    });
    let order = seqs(&out);
    assert_eq!(order.len(), 60);
    assert!(!order.is_sorted(), "nothing was reordered");
    for key in 0..6 {
        let within = order.iter().filter(|seq| (*seq - 1) % 6 == key);
        assert!(within.is_sorted(), "key {key} was reordered");
    }
}
