use std::collections::BTreeMap;

use super::*;
use crate::memory::Faults;

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_what_was_acknowledged() {
    let network = Network::new(Duration::ZERO, Faults::none());
    let queue = Queue::new(Arc::new(network), Duration::ZERO);
    for key in ["a", "", "b", "a", ""] {
        let event = Event {
            ordering_key: key.to_owned(),
            payload: bytes::Bytes::new(),
            attributes: BTreeMap::new(),
        };
        queue.push(event, Duration::ZERO);
    }
    let member = queue.join(ConsumeLimits::default(), Arc::default());
    let mut taken = Vec::new();
    while let Next::Taken(next) = queue.take(member, Duration::ZERO) {
        taken.push(next);
    }
    for taken in taken.iter().rev() {
        queue.settle(&taken.grip, true);
    }
    let state = queue.state.lock();
    assert_eq!(taken.len(), 5);
    assert_eq!(state.unacknowledged, 0);
    assert!(state.lanes.is_empty() && state.by_key.is_empty() && state.unowned.is_empty());
    let member = &state.members[&member];
    assert!(member.lanes.is_empty() && member.waiting.is_empty());
    assert_eq!((member.events, member.bytes), (0, 0));
}
