//! What holds of a queue whatever is done to it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;

use super::{ConsumerId, Delivery, Lease, Queue, Room, Rules, State};
use crate::{clock::Moment, proto::PubsubMessage, pubsub::message::Message};

const DEADLINE: Duration = Duration::from_secs(10);
const CONSUMERS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Push { key: u8 },
    Take { consumer: usize, messages: usize },
    Ack { delivery: usize },
    Nack { delivery: usize },
    Extend { delivery: usize },
    Replace { consumer: usize },
    Wait { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let consumer = 0..CONSUMERS;
    prop_oneof![
        4 => (0..4_u8).prop_map(|key| Step::Push { key }),
        4 => (consumer.clone(), 1..5_usize)
            .prop_map(|(consumer, messages)| Step::Take { consumer, messages }),
        4 => any::<usize>().prop_map(|delivery| Step::Ack { delivery }),
        1 => any::<usize>().prop_map(|delivery| Step::Nack { delivery }),
        1 => any::<usize>().prop_map(|delivery| Step::Extend { delivery }),
        1 => consumer.prop_map(|consumer| Step::Replace { consumer }),
        1 => (1..15_u64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// A queue, and what its clients have seen.
struct Run {
    queue: Queue,
    now: Moment,
    consumers: Vec<ConsumerId>,
    pushed: Vec<Arc<Message>>,
    deliveries: Vec<Lease>,
    delivered: BTreeSet<u64>,
    /// The place in its key's line of each key's last delivery.
    last: HashMap<String, usize>,
}

impl Run {
    fn new() -> Self {
        let mut queue = Queue::new(Rules {
            ordering: true,
            one_per_key: false,
            retry: None,
            max_attempts: None,
            retention: Duration::from_secs(1_000_000),
            retain_acked: false,
        });
        Self {
            consumers: (0..CONSUMERS).map(|_| queue.join()).collect(),
            queue,
            now: Moment::default(),
            pushed: Vec::new(),
            deliveries: Vec::new(),
            delivered: BTreeSet::new(),
            last: HashMap::new(),
        }
    }

    fn act(&mut self, step: Step) {
        let pick = |deliveries: &[Lease], at: usize| {
            (!deliveries.is_empty()).then(|| deliveries[at % deliveries.len()])
        };
        match step {
            Step::Push { key } => self.push(key),
            Step::Take { consumer, messages } => {
                self.take(self.consumers[consumer], messages);
            }
            Step::Ack { delivery } => {
                if let Some(lease) = pick(&self.deliveries, delivery) {
                    self.queue.ack(lease);
                }
            }
            Step::Nack { delivery } => {
                if let Some(lease) = pick(&self.deliveries, delivery) {
                    self.queue.nack(lease, self.now);
                }
            }
            Step::Extend { delivery } => {
                if let Some(lease) = pick(&self.deliveries, delivery) {
                    self.queue.extend(lease, self.now + DEADLINE);
                }
            }
            Step::Replace { consumer } => {
                self.queue.leave(self.consumers[consumer]);
                self.consumers[consumer] = self.queue.join();
            }
            Step::Wait { seconds } => self.now = self.now + Duration::from_secs(seconds),
        }
        self.check();
    }

    /// Key 0 is none.
    fn push(&mut self, key: u8) {
        let seq = self.pushed.len() as u64 + 1;
        let ordering_key = if key == 0 {
            String::new()
        } else {
            key.to_string()
        };
        let body = PubsubMessage {
            ordering_key,
            ..PubsubMessage::default()
        };
        let publish_time = prost_types::Timestamp::default();
        let message = Message::new(seq, seq.to_string(), self.now, publish_time, body);
        let message = Arc::new(message);
        self.pushed.push(Arc::clone(&message));
        self.queue.push(message, self.now);
    }

    fn take(&mut self, consumer: ConsumerId, messages: usize) -> Vec<Delivery> {
        let room = Room {
            messages,
            bytes: usize::MAX,
        };
        let until = self.now + DEADLINE;
        let taken = self.queue.take(consumer, room, self.now, until, |_| 0);
        for delivery in &taken {
            self.deliveries.push(delivery.lease);
            self.delivered.insert(delivery.message.seq);
            self.check_order(&delivery.message);
        }
        taken
    }

    /// Within a key, a delivery is the next of the line, or goes back in it; it never skips.
    fn check_order(&mut self, message: &Message) {
        let key = message.ordering_key();
        if key.is_empty() {
            return;
        }
        let line = self.pushed.iter().filter(|each| each.ordering_key() == key);
        let place = line.take_while(|each| each.seq < message.seq).count();
        let next = self.last.get(key).map_or(0, |last| last + 1);
        assert!(place <= next, "key {key} skipped from {next} to {place}");
        self.last.insert(key.to_owned(), place);
    }

    fn check(&self) {
        let mut out: BTreeMap<ConsumerId, usize> = BTreeMap::new();
        let mut holders: HashMap<&str, BTreeSet<ConsumerId>> = HashMap::new();
        let mut leased = 0;
        for entry in self.queue.entries.values() {
            if let State::Leased { consumer, .. } = entry.state {
                leased += 1;
                *out.entry(consumer).or_default() += 1;
                let key = entry.message.ordering_key();
                holders.entry(key).or_default().insert(consumer);
            }
        }
        holders.remove("");
        assert_eq!(leased, self.queue.leases.len());
        assert!(
            holders.values().all(|holders| holders.len() == 1),
            "a key has two holders"
        );
        for consumer in &self.consumers {
            let counted = out.get(consumer).copied().unwrap_or_default();
            assert_eq!(self.queue.outstanding(*consumer).0, counted);
        }
    }

    /// Lets all leases end, and takes and acknowledges until nothing comes.
    fn drain(&mut self) {
        let consumer = self.consumers[0];
        self.now = self.now + DEADLINE;
        loop {
            let taken = self.take(consumer, 7);
            if taken.is_empty() {
                break;
            }
            for delivery in taken {
                self.queue.ack(delivery.lease);
            }
        }
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_and_no_key_skips(steps in prop::collection::vec(step(), 1..200)) {
        let mut run = Run::new();
        for step in steps {
            run.act(step);
        }
        run.drain();
        let all: BTreeSet<u64> = run.pushed.iter().map(|message| message.seq).collect();
        prop_assert_eq!(&run.delivered, &all);
        prop_assert!(run.queue.entries.is_empty(), "left: {:?}", run.queue.entries);
        prop_assert!(run.queue.keys.is_empty() && run.queue.due.is_empty());
    }
}
