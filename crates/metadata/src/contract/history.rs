//! What [`History`](crate::History) promises.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use infrachat_types::{
    ClientMessageId, Epoch, Message, MessageId, Offset, OriginId, SessionId, ShardId,
};

use super::{Harness, channel_name, region, user_name};
use crate::{Direction, HistoryEntry, HistoryPage, Metadata, MetadataError};

const PARTITION: u32 = 7;
const GENERAL: &str = "#general";
/// More than any case writes.
const ALL: usize = 100;

/// Alice's `n`th message, stamped at `millis`, at a place in append order.
fn said(n: u8, millis: u64, epoch: Epoch, offset: u64) -> HistoryEntry {
    HistoryEntry {
        message: Message {
            channel: channel_name(GENERAL),
            message_id: id(millis),
            sender: user_name("alice"),
            client_message_id: ClientMessageId::from_bytes(&[n; 16]).expect("16 bytes"),
            body: Bytes::from(format!("message {n}")),
            published_at: i64::try_from(millis).expect("small"),
            region: region(),
            session_id: SessionId::from_text(&format!("session-{millis}")),
        },
        epoch,
        offset: Offset(offset),
        origin: OriginId::from_text(&format!("origin-{millis}")),
        origin_seq: offset,
    }
}

fn said_in(channel: &str, entry: HistoryEntry) -> HistoryEntry {
    let mut entry = entry;
    entry.message.channel = channel_name(channel);
    entry
}

fn id(millis: u64) -> MessageId {
    MessageId::floor_of(millis)
}

/// The copy that is kept of two: this one, at the place of the other.
fn at_place_of(kept: &HistoryEntry, first: &HistoryEntry) -> HistoryEntry {
    HistoryEntry {
        epoch: first.epoch,
        offset: first.offset,
        ..kept.clone()
    }
}

/// Takes the partition, from whoever has it.
async fn take(store: &Arc<dyn Metadata>, shard: &str) -> Epoch {
    let shard = ShardId::new(shard).expect("a valid shard name");
    let incarnation = OriginId::from_text("life");
    store
        .take_partition(PARTITION, &shard, &incarnation, Duration::ZERO)
        .await
        .expect("nobody has a lease")
}

/// An empty store whose partition is owned.
async fn owned(harness: &dyn Harness) -> (Arc<dyn Metadata>, Epoch) {
    let store = harness.fresh().await;
    let epoch = take(&store, "shard-a").await;
    (store, epoch)
}

async fn append(store: &Arc<dyn Metadata>, epoch: Epoch, entries: &[HistoryEntry]) {
    let appended = store.append_history(PARTITION, epoch, entries).await;
    appended.expect("appended");
}

async fn by_id(store: &Arc<dyn Metadata>, direction: Direction, limit: usize) -> HistoryPage {
    let channel = channel_name(GENERAL);
    let page = store.history(&channel, direction, limit).await;
    page.expect("a page")
}

async fn by_append(
    store: &Arc<dyn Metadata>,
    (epoch, offset): (Epoch, u64),
    limit: usize,
) -> HistoryPage {
    store
        .history_appended_after(&channel_name(GENERAL), epoch, Offset(offset), limit)
        .await
        .expect("a page")
}

async fn tail(store: &Arc<dyn Metadata>, limit: usize) -> Vec<HistoryEntry> {
    let tail = store.history_tail(&channel_name(GENERAL), limit).await;
    tail.expect("the tail")
}

fn page(entries: &[HistoryEntry], more: bool) -> HistoryPage {
    HistoryPage {
        entries: entries.to_vec(),
        more,
    }
}

/// The channel holds exactly these, whichever way it is asked.
async fn assert_holds(
    store: &Arc<dyn Metadata>,
    ids_rise: &[HistoryEntry],
    appended: &[HistoryEntry],
) {
    let forward = by_id(store, Direction::After(MessageId::MIN), ALL).await;
    assert_eq!(forward, page(ids_rise, false));
    let back = by_id(store, Direction::Before(MessageId::MAX), ALL).await;
    assert_eq!(back, page(ids_rise, false));
    let in_append_order = by_append(store, (Epoch(0), 0), ALL).await;
    assert_eq!(in_append_order, page(appended, false));
    assert_eq!(tail(store, ALL).await, appended);
    for entry in appended {
        let found = store.find_message(&entry.message.identity()).await;
        assert_eq!(found, Ok(Some(entry.clone())));
    }
}

/// A channel nobody wrote to has nothing, in every way of asking.
pub async fn an_empty_channel_has_no_history(harness: &dyn Harness) {
    let store = harness.fresh().await;
    assert_holds(&store, &[], &[]).await;
    let identity = said(1, 1, Epoch(1), 1).message.identity();
    assert_eq!(store.find_message(&identity).await, Ok(None));
}

/// A batch may span the channels of a partition; an empty one does nothing.
pub async fn a_batch_of_several_channels_is_kept_whole(harness: &dyn Harness) {
    let (store, epoch) = owned(harness).await;
    append(&store, epoch, &[]).await;
    let here = [said(1, 10, epoch, 1), said(2, 20, epoch, 2)];
    let there = said_in("#other", said(3, 15, epoch, 1));
    let batch = [here[0].clone(), there.clone(), here[1].clone()];
    append(&store, epoch, &batch).await;
    assert_holds(&store, &here, &here).await;
    let other = store.history_tail(&channel_name("#other"), ALL).await;
    assert_eq!(other, Ok(vec![there]));
}

/// A former owner's batch fails and leaves nothing behind, not even in channels that were empty.
pub async fn a_writer_of_an_older_epoch_writes_nothing(harness: &dyn Harness) {
    let (store, old) = owned(harness).await;
    let kept = [said(1, 10, old, 1)];
    append(&store, old, &kept).await;
    let new = take(&store, "shard-b").await;
    let late = [
        said(2, 20, old, 2),
        said_in("#other", said(3, 30, old, 1)),
        // Would win over the message that is there.
        said(1, 5, old, 3),
    ];
    let fenced = MetadataError::Fenced {
        partition: PARTITION,
        current: new.0,
    };
    let appended = store.append_history(PARTITION, old, &late).await;
    assert_eq!(appended, Err(fenced.clone()));
    // Nor may anyone write ahead of an epoch that is still to come.
    let ahead = Epoch(new.0 + 1);
    let appended = store.append_history(PARTITION, ahead, &late).await;
    assert_eq!(appended, Err(fenced));
    assert_holds(&store, &kept, &kept).await;
    let other = store.history_tail(&channel_name("#other"), ALL).await;
    assert_eq!(other, Ok(Vec::new()));
}

/// Without an owner nobody writes: not before the first, and not under an epoch that was given back.
pub async fn nobody_writes_to_a_partition_never_taken_or_released(harness: &dyn Harness) {
    let (store, epoch) = owned(harness).await;
    let batch = [said(1, 10, epoch, 1)];
    for epoch in [Epoch(0), epoch] {
        let appended = store.append_history(PARTITION + 1, epoch, &batch).await;
        let expected = MetadataError::Fenced {
            partition: PARTITION + 1,
            current: 0,
        };
        assert_eq!(appended, Err(expected));
    }
    let released = store.release_partition(PARTITION, epoch).await;
    released.expect("released");
    let appended = store.append_history(PARTITION, epoch, &batch).await;
    let expected = MetadataError::Fenced {
        partition: PARTITION,
        current: epoch.0,
    };
    assert_eq!(appended, Err(expected));
    assert_holds(&store, &[], &[]).await;
}

/// Of writes that race with a takeover, those that succeeded are there and the others are not; and
/// once the new owner has read, nothing is added behind its back.
pub async fn a_takeover_splits_writes_cleanly(harness: &dyn Harness) {
    let (store, old) = owned(harness).await;
    let writes = (1..=10).map(|n| {
        let store = Arc::clone(&store);
        let entry = said(n, u64::from(n), old, u64::from(n));
        tokio::spawn(async move {
            let written = store
                .append_history(PARTITION, old, std::slice::from_ref(&entry))
                .await;
            (entry, written)
        })
    });
    let writes: Vec<_> = writes.collect();
    take(&store, "shard-b").await;
    let read_by_new_owner = tail(&store, ALL).await;
    let mut written = Vec::new();
    for write in writes {
        let (entry, answer) = write.await.expect("no panic");
        match answer {
            Ok(()) => written.push(entry),
            Err(err) => assert!(matches!(err, MetadataError::Fenced { .. }), "{err:?}"),
        }
    }
    assert_eq!(read_by_new_owner, written);
    assert_holds(&store, &written, &written).await;
}

/// Five messages whose ids rise in append order, at 10, 20, 30, 40 and 50 ms.
async fn five(harness: &dyn Harness) -> (Arc<dyn Metadata>, Vec<HistoryEntry>) {
    let (store, epoch) = owned(harness).await;
    let entries: Vec<_> = (1..=5)
        .map(|n| said(n, u64::from(n) * 10, epoch, u64::from(n)))
        .collect();
    append(&store, epoch, &entries).await;
    (store, entries)
}

/// The newest before an id, oldest first; `more` exactly when older ones are left.
pub async fn pages_go_back_by_message_id(harness: &dyn Harness) {
    let (store, all) = five(harness).await;
    let before = async |id, limit| by_id(&store, Direction::Before(id), limit).await;
    assert_eq!(before(MessageId::MAX, 2).await, page(&all[3..], true));
    assert_eq!(before(id(40), 2).await, page(&all[1..3], true));
    assert_eq!(before(id(20), 2).await, page(&all[..1], false));
    assert_eq!(before(id(30), 2).await, page(&all[..2], false));
    assert_eq!(before(id(31), 2).await, page(&all[1..3], true));
    assert_eq!(before(MessageId::MAX, 5).await, page(&all, false));
    assert_eq!(before(MessageId::MAX, 4).await, page(&all[1..], true));
    assert_eq!(before(id(10), 2).await, page(&[], false));
}

/// The oldest after an id, oldest first; `more` exactly when newer ones are left.
pub async fn pages_go_forward_by_message_id(harness: &dyn Harness) {
    let (store, all) = five(harness).await;
    let after = async |id, limit| by_id(&store, Direction::After(id), limit).await;
    assert_eq!(after(MessageId::MIN, 2).await, page(&all[..2], true));
    assert_eq!(after(id(20), 2).await, page(&all[2..4], true));
    assert_eq!(after(id(40), 2).await, page(&all[4..], false));
    assert_eq!(after(id(30), 2).await, page(&all[3..], false));
    assert_eq!(after(id(29), 2).await, page(&all[2..4], true));
    assert_eq!(after(MessageId::MIN, 5).await, page(&all, false));
    assert_eq!(after(MessageId::MIN, 4).await, page(&all[..4], true));
    assert_eq!(after(id(50), 2).await, page(&[], false));
}

/// A message that arrives late has an old id and a new place in append order.
pub async fn the_two_orders_differ(harness: &dyn Harness) {
    let (store, epoch) = owned(harness).await;
    let [x, y, z] = [(1, 30), (2, 10), (3, 20)].map(|(n, ms)| said(n, ms, epoch, u64::from(n)));
    append(&store, epoch, &[x.clone(), y.clone()]).await;
    append(&store, epoch, std::slice::from_ref(&z)).await;
    let ids_rise = [y.clone(), z.clone(), x.clone()];
    assert_holds(&store, &ids_rise, &[x, y, z]).await;
}

/// Resuming at any place, of this epoch or a former one, gives exactly what was appended after it.
pub async fn append_order_is_exact_across_epochs(harness: &dyn Harness) {
    let (store, first) = owned(harness).await;
    let mut all = vec![
        said(1, 50, first, 1),
        said(2, 40, first, 2),
        said(3, 60, first, 3),
    ];
    append(&store, first, &all).await;
    let second = take(&store, "shard-b").await;
    // Offsets begin again with each epoch.
    let later = [said(4, 30, second, 1), said(5, 20, second, 2)];
    append(&store, second, &later).await;
    all.extend(later);

    let after = async |place, limit| by_append(&store, place, limit).await;
    for (n, entry) in all.iter().enumerate() {
        let place = (entry.epoch, entry.offset.0);
        assert_eq!(after(place, ALL).await, page(&all[n + 1..], false));
    }
    assert_eq!(after((Epoch(0), 0), 2).await, page(&all[..2], true));
    assert_eq!(after((first, 2), 2).await, page(&all[2..4], true));
    assert_eq!(after((first, 3), 2).await, page(&all[3..], false));
    // Places that no entry has: the end of one epoch, the start of the next, and past everything.
    assert_eq!(after((first, 99), 1).await, page(&all[3..4], true));
    assert_eq!(after((second, 0), 2).await, page(&all[3..], false));
    assert_eq!(after((Epoch(second.0 + 1), 0), 2).await, page(&[], false));
}

/// The tail is in append order, not by id, and reaches back into former epochs.
pub async fn the_tail_is_the_newest_in_append_order(harness: &dyn Harness) {
    let (store, first) = owned(harness).await;
    let mut all = vec![said(1, 50, first, 1), said(2, 60, first, 2)];
    append(&store, first, &all).await;
    let second = take(&store, "shard-b").await;
    all.push(said(3, 10, second, 1));
    append(&store, second, &all[2..]).await;
    assert_eq!(tail(&store, 1).await, all[2..]);
    assert_eq!(tail(&store, 2).await, all[1..]);
    assert_eq!(tail(&store, 3).await, all);
    assert_eq!(tail(&store, 0).await, []);
}

/// A copy with a smaller id replaces the one that is there, which keeps its place.
pub async fn the_smaller_id_wins_when_it_comes_second(harness: &dyn Harness) {
    let (store, first) = owned(harness).await;
    let early = [said(1, 30, first, 1), said(2, 20, first, 2)];
    append(&store, first, &early).await;
    let second = take(&store, "shard-b").await;
    let smaller = said(1, 10, second, 1);
    append(&store, second, std::slice::from_ref(&smaller)).await;
    let kept = [at_place_of(&smaller, &early[0]), early[1].clone()];
    assert_holds(&store, &kept, &kept).await;
}

/// A copy with a greater id changes nothing.
pub async fn the_smaller_id_wins_when_it_comes_first(harness: &dyn Harness) {
    let (store, first) = owned(harness).await;
    let early = [said(1, 10, first, 1), said(2, 20, first, 2)];
    append(&store, first, &early).await;
    let second = take(&store, "shard-b").await;
    append(&store, second, &[said(1, 30, second, 1)]).await;
    assert_holds(&store, &early, &early).await;
}

/// Copies that meet in one batch are one message, whichever comes first.
pub async fn the_smaller_id_wins_within_one_batch(harness: &dyn Harness) {
    let (store, epoch) = owned(harness).await;
    let batch = [
        said(1, 30, epoch, 1),
        said(2, 20, epoch, 2),
        said(1, 10, epoch, 3),
        said(2, 40, epoch, 4),
        said(1, 25, epoch, 5),
    ];
    append(&store, epoch, &batch).await;
    let kept = [at_place_of(&batch[2], &batch[0]), batch[1].clone()];
    assert_holds(&store, &kept, &kept).await;
}

/// A batch whose outcome was unknown may be written again.
pub async fn a_repeated_batch_changes_nothing(harness: &dyn Harness) {
    let (store, epoch) = owned(harness).await;
    let batch = [said(1, 10, epoch, 1), said(2, 20, epoch, 2)];
    for _ in 0..2 {
        append(&store, epoch, &batch).await;
        assert_holds(&store, &batch, &batch).await;
    }
}

/// Identity is channel, sender and the sender's own id, all three.
pub async fn a_message_is_found_by_its_identity(harness: &dyn Harness) {
    let (store, all) = five(harness).await;
    let found = store.find_message(&all[2].message.identity()).await;
    assert_eq!(found, Ok(Some(all[2].clone())));
    let mut another = all[2].message.identity();
    another.sender = user_name("bob");
    assert_eq!(store.find_message(&another).await, Ok(None));
    let mut elsewhere = all[2].message.identity();
    elsewhere.channel = channel_name("#other");
    assert_eq!(store.find_message(&elsewhere).await, Ok(None));
    let unsaid = said(99, 30, Epoch(1), 1).message.identity();
    assert_eq!(store.find_message(&unsaid).await, Ok(None));

    // Another sender's use of the same id is another message.
    let mut bobs = said(3, 35, all[2].epoch, 6);
    bobs.message.sender = user_name("bob");
    append(&store, bobs.epoch, std::slice::from_ref(&bobs)).await;
    assert_eq!(store.find_message(&another).await, Ok(Some(bobs)));
    let found = store.find_message(&all[2].message.identity()).await;
    assert_eq!(found, Ok(Some(all[2].clone())));
}

/// Channels of one partition may share sender, ids, and offsets, and stay apart.
pub async fn channels_do_not_mix(harness: &dyn Harness) {
    let (store, epoch) = owned(harness).await;
    let here = [said(1, 20, epoch, 1), said(2, 30, epoch, 2)];
    append(&store, epoch, &here).await;
    for other in ["#general-2", "#gen"] {
        // The same identity but for the channel, with an id that would win.
        let there = [said(1, 10, epoch, 1), said(3, 20, epoch, 2)];
        let there = there.map(|entry| said_in(other, entry));
        append(&store, epoch, &there).await;
        let tail = store.history_tail(&channel_name(other), ALL).await;
        assert_eq!(tail, Ok(there.to_vec()));
        let found = store.find_message(&there[0].message.identity()).await;
        assert_eq!(found, Ok(Some(there[0].clone())));
    }
    assert_holds(&store, &here, &here).await;
}
