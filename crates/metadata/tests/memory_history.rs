//! The history of the store in memory: its bound, its size, and its indexes under random writes.

use std::time::Duration;

use bytes::Bytes;
use infrachat_metadata::{
    DEFAULT_HISTORY_LIMIT, Direction, History as _, HistoryEntry, HistoryPage, MemoryMetadata,
    Routing as _,
};
use infrachat_types::{
    ChannelName, ClientMessageId, Epoch, Message, MessageId, Offset, OriginId, Region, SessionId,
    ShardId, UserName,
};
use proptest::prelude::*;

const PARTITION: u32 = 0;

fn general() -> ChannelName {
    ChannelName::new("#general").expect("valid")
}

fn said(identity: u128, millis: u64, epoch: Epoch, offset: u64) -> HistoryEntry {
    HistoryEntry {
        message: Message {
            channel: general(),
            message_id: MessageId::floor_of(millis),
            sender: UserName::new("alice").expect("valid"),
            client_message_id: ClientMessageId::from_bytes(&identity.to_be_bytes())
                .expect("16 bytes"),
            body: Bytes::from_static(b"hello"),
            published_at: 1,
            region: Region::new("us-west1").expect("valid"),
            session_id: SessionId::from_text("session"),
        },
        epoch,
        offset: Offset(offset),
        origin: OriginId::from_text("origin"),
        origin_seq: offset,
    }
}

async fn take(store: &MemoryMetadata) -> Epoch {
    let shard = ShardId::new("shard-a").expect("valid");
    store
        .take_partition(
            PARTITION,
            &shard,
            &OriginId::from_text("life"),
            Duration::ZERO,
        )
        .await
        .expect("its own")
}

async fn append(store: &MemoryMetadata, epoch: Epoch, entries: &[HistoryEntry]) {
    let appended = store.append_history(PARTITION, epoch, entries).await;
    appended.expect("appended");
}

/// Everything by id, page by page, forward or back.
async fn walk_by_id(store: &MemoryMetadata, forward: bool, limit: usize) -> Vec<HistoryEntry> {
    let mut all = Vec::new();
    let mut at = if forward {
        MessageId::MIN
    } else {
        MessageId::MAX
    };
    loop {
        let direction = if forward {
            Direction::After(at)
        } else {
            Direction::Before(at)
        };
        let page = store.history(&general(), direction, limit).await;
        let HistoryPage { mut entries, more } = page.expect("a page");
        if !forward {
            entries.reverse();
        }
        if let Some(last) = entries.last() {
            at = last.message.message_id;
        }
        all.extend(entries);
        assert!(all.len() <= DEFAULT_HISTORY_LIMIT, "the pages never end");
        if !more {
            break;
        }
    }
    if !forward {
        all.reverse();
    }
    all
}

/// Everything in append order, page by page.
async fn walk_by_place(store: &MemoryMetadata, limit: usize) -> Vec<HistoryEntry> {
    let mut all: Vec<HistoryEntry> = Vec::new();
    loop {
        let (epoch, offset) = all
            .last()
            .map_or_else(Default::default, |last| (last.epoch, last.offset));
        let channel = general();
        let page = store.history_appended_after(&channel, epoch, offset, limit);
        let page = page.await.expect("a page");
        all.extend(page.entries);
        assert!(all.len() <= DEFAULT_HISTORY_LIMIT, "the pages never end");
        if !page.more {
            return all;
        }
    }
}

#[tokio::test]
async fn the_oldest_in_append_order_go_first_and_from_every_index() {
    let store = MemoryMetadata::with_history_limit(3);
    let epoch = take(&store).await;
    // The first ones by append order have the greatest ids.
    let all: Vec<_> = (1..=5)
        .map(|n| said(u128::from(n), 100 - n, epoch, n))
        .collect();
    append(&store, epoch, &all[..2]).await;
    append(&store, epoch, &all[2..]).await;
    let ids_rise: Vec<_> = all[2..].iter().rev().cloned().collect();
    assert_eq!(walk_by_id(&store, true, 10).await, ids_rise);
    assert_eq!(walk_by_place(&store, 10).await, all[2..]);
    assert_eq!(
        store.history_tail(&general(), 10).await.as_deref(),
        Ok(&all[2..])
    );
    for (n, entry) in all.iter().enumerate() {
        let found = store.find_message(&entry.message.identity()).await;
        assert_eq!(found, Ok((n >= 2).then(|| entry.clone())));
    }
}

#[tokio::test]
async fn each_channel_has_the_limit_to_itself() {
    let store = MemoryMetadata::with_history_limit(2);
    let epoch = take(&store).await;
    let here = [said(1, 1, epoch, 1), said(2, 2, epoch, 2)];
    let there: Vec<_> = (1..=4)
        .map(|n| {
            let mut entry = said(u128::from(n), n, epoch, n);
            entry.message.channel = ChannelName::new("#other").expect("valid");
            entry
        })
        .collect();
    append(&store, epoch, &here).await;
    append(&store, epoch, &there).await;
    assert_eq!(walk_by_place(&store, 10).await, here);
}

#[tokio::test]
async fn a_full_channel_is_walked_by_small_pages_and_found_one_by_one() {
    const MESSAGES: u64 = 100_000;
    let store = MemoryMetadata::new();
    let epoch = take(&store).await;
    // Ids run against append order within each hundred, as if lanes overtook each other.
    let all: Vec<_> = (0..MESSAGES)
        .map(|n| said(u128::from(n), n / 100 * 100 + 100 - n % 100, epoch, n + 1))
        .collect();
    for batch in all.chunks(200) {
        append(&store, epoch, batch).await;
    }
    // Everything once more, as after a crash before the acknowledgement.
    for batch in all.chunks(200) {
        append(&store, epoch, batch).await;
    }
    assert!(walk_by_place(&store, 20).await == all);
    let mut ids_rise = all.clone();
    ids_rise.sort_by_key(|entry| entry.message.message_id);
    assert!(walk_by_id(&store, true, 20).await == ids_rise);
    assert!(walk_by_id(&store, false, 20).await == ids_rise);
    for entry in &all {
        let found = store.find_message(&entry.message.identity()).await;
        assert!(found.as_ref() == Ok(&Some(entry.clone())));
    }
}

/// What a history should hold, kept in the plainest way: in the order of arrival.
struct Model {
    kept: Vec<HistoryEntry>,
    limit: usize,
}

impl Model {
    fn append(&mut self, entry: &HistoryEntry) {
        let identity = entry.message.identity();
        match self
            .kept
            .iter_mut()
            .find(|kept| kept.message.identity() == identity)
        {
            Some(kept) if entry.message.message_id < kept.message.message_id => {
                let (epoch, offset) = (kept.epoch, kept.offset);
                *kept = entry.clone();
                (kept.epoch, kept.offset) = (epoch, offset);
            }
            Some(_) => {}
            None => {
                self.kept.push(entry.clone());
                if self.kept.len() > self.limit {
                    self.kept.remove(0);
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Write {
    /// A batch of (identity, id).
    Batch(Vec<(u128, u64)>),
    /// The partition changes hands.
    Takeover,
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let entry = (0_u128..12, 1_u64..40);
    let write = prop_oneof![
        5 => prop::collection::vec(entry, 0..8).prop_map(Write::Batch),
        1 => Just(Write::Takeover),
    ];
    prop::collection::vec(write, 0..20)
}

proptest! {
    #[test]
    fn random_writes_keep_every_index_in_step(writes in writes(), limit in 1_usize..16) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let store = MemoryMetadata::with_history_limit(limit);
            let mut model = Model { kept: Vec::new(), limit };
            let (mut epoch, mut offset) = (take(&store).await, 0);
            for write in writes {
                match write {
                    Write::Takeover => (epoch, offset) = (take(&store).await, 0),
                    Write::Batch(batch) => {
                        let batch: Vec<_> = batch
                            .into_iter()
                            .map(|(identity, millis)| {
                                offset += 1;
                                // The identity makes ids differ, as a clock's random part does.
                                let millis = millis * 100 + u64::try_from(identity).expect("small");
                                said(identity, millis, epoch, offset)
                            })
                            .collect();
                        batch.iter().for_each(|entry| model.append(entry));
                        append(&store, epoch, &batch).await;
                    }
                }
                let mut ids_rise = model.kept.clone();
                ids_rise.sort_by_key(|entry| entry.message.message_id);
                prop_assert_eq!(&walk_by_id(&store, true, 3).await, &ids_rise);
                prop_assert_eq!(&walk_by_id(&store, false, 3).await, &ids_rise);
                prop_assert_eq!(&walk_by_place(&store, 3).await, &model.kept);
                let tail = store.history_tail(&general(), limit).await;
                prop_assert_eq!(tail.as_ref(), Ok(&model.kept));
                for identity in 0..12 {
                    let identity = said(identity, 1, epoch, 1).message.identity();
                    let kept = model.kept.iter().find(|kept| kept.message.identity() == identity);
                    let found = store.find_message(&identity).await;
                    prop_assert_eq!(found, Ok(kept.cloned()));
                }
            }
            Ok(())
        })?;
    }
}
