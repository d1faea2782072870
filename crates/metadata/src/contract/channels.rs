//! What [`Channels`](crate::Channels) promises.

use std::sync::Arc;

use infrachat_types::{Channel, SlowReaderPolicy, Visibility};

use super::{Harness, at_once, channel_name, only_winner, region, user_name};
use crate::{ChannelRecord, Metadata, MetadataError};

fn public(name: &str) -> ChannelRecord {
    let creator = user_name("alice");
    ChannelRecord {
        members: [creator.clone()].into(),
        channel: Channel {
            name: channel_name(name),
            home_region: region(),
            created_by: creator,
            created_at: 1_790_000_000_000,
            visibility: Visibility::Public,
            topic: "All of it".to_owned(),
            slow_reader: SlowReaderPolicy::Disconnect,
            version: 1,
        },
    }
}

fn private(name: &str, members: &[&str]) -> ChannelRecord {
    let mut record = public(name);
    record.channel.visibility = Visibility::Private;
    record.members = members.iter().map(|name| user_name(name)).collect();
    record
}

fn versioned(record: &ChannelRecord, version: u64, topic: &str) -> ChannelRecord {
    let mut record = record.clone();
    record.channel.version = version;
    topic.clone_into(&mut record.channel.topic);
    record
}

fn exists(err: &MetadataError) -> bool {
    matches!(err, MetadataError::Exists(_))
}

async fn create(store: &Arc<dyn Metadata>, records: impl IntoIterator<Item = ChannelRecord>) {
    for record in records {
        store.create_channel(record).await.expect("created");
    }
}

/// The names that a list holds, in its order.
async fn listed(
    store: &Arc<dyn Metadata>,
    user: &str,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Vec<String> {
    let after = after.map(channel_name);
    store
        .list_channels(&user_name(user), prefix, after.as_ref(), limit)
        .await
        .expect("listed")
        .iter()
        .map(|channel| channel.name.to_string())
        .collect()
}

/// A channel is read back as created, members included, and no other is there.
pub async fn a_channel_reads_back(harness: &dyn Harness) {
    let store = harness.fresh().await;
    for record in [public("#general"), private("#staff", &["alice", "bob"])] {
        create(&store, [record.clone()]).await;
        assert_eq!(store.channel(&record.channel.name).await, Ok(Some(record)));
    }
    assert_eq!(store.channel(&channel_name("#other")).await, Ok(None));
}

/// Of 50 calls at once for one name, one succeeds, and its record is the one that stays.
pub async fn of_concurrent_creates_exactly_one_wins(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let answers = at_once((0..50).map(|n| {
        let store = Arc::clone(&store);
        let record = versioned(&public("#general"), 1, &format!("topic {n}"));
        async move { store.create_channel(record.clone()).await.map(|()| record) }
    }))
    .await;
    let winner = only_winner(answers, exists);
    let general = channel_name("#general");
    assert_eq!(store.channel(&general).await, Ok(Some(winner)));
}

/// A copy is taken when it is new or newer, and otherwise changes nothing, which the answer tells.
pub async fn a_copied_channel_never_goes_back(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let base = public("#general");
    let name = &base.channel.name;
    let second = versioned(&base, 2, "second");
    assert_eq!(store.copy_channel(second.clone()).await, Ok(true));
    for stale in [versioned(&base, 1, "first"), versioned(&base, 2, "again")] {
        assert_eq!(store.copy_channel(stale).await, Ok(false));
        assert_eq!(store.channel(name).await, Ok(Some(second.clone())));
    }
    let third = versioned(&base, 3, "third");
    assert_eq!(store.copy_channel(third.clone()).await, Ok(true));
    assert_eq!(store.channel(name).await, Ok(Some(third)));
}

/// A name that came as a copy can't be created again.
pub async fn a_copied_channel_name_is_taken(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let copy = versioned(&public("#general"), 4, "copy");
    assert_eq!(store.copy_channel(copy.clone()).await, Ok(true));
    let err = store.create_channel(public("#general")).await;
    assert!(exists(&err.expect_err("taken")));
    assert_eq!(store.channel(&copy.channel.name).await, Ok(Some(copy)));
}

/// Lists go by name and continue after a name, whether or not there is a channel of that name.
pub async fn a_list_pages_by_name(harness: &dyn Harness) {
    let store = harness.fresh().await;
    create(&store, ["#d", "#a", "#c", "#b", "#e"].map(public)).await;
    let page = async |after, limit| listed(&store, "bob", "", after, limit).await;
    assert_eq!(page(None, 2).await, ["#a", "#b"]);
    assert_eq!(page(Some("#b"), 2).await, ["#c", "#d"]);
    assert_eq!(page(Some("#bb"), 2).await, ["#c", "#d"]);
    assert_eq!(page(Some("#d"), 2).await, ["#e"]);
    assert_eq!(page(Some("#e"), 2).await, [""; 0]);
    assert_eq!(page(None, 0).await, [""; 0]);
    let whole = store.list_channels(&user_name("bob"), "#a", None, 1).await;
    assert_eq!(whole, Ok(vec![public("#a").channel]));
}

/// Only names with the prefix are listed; paging goes on within it.
pub async fn a_list_keeps_to_its_prefix(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let names = ["#dev", "#dev-api", "#dev-web", "#de", "#dew", "#general"];
    create(&store, names.map(public)).await;
    let page = async |prefix, after, limit| listed(&store, "bob", prefix, after, limit).await;
    assert_eq!(
        page("#dev", None, 10).await,
        ["#dev", "#dev-api", "#dev-web"]
    );
    assert_eq!(page("#dev", None, 2).await, ["#dev", "#dev-api"]);
    assert_eq!(page("#dev", Some("#dev-api"), 2).await, ["#dev-web"]);
    // A name before or behind the prefix neither hides what has it nor shows what has not.
    assert_eq!(page("#dev", Some("#a"), 1).await, ["#dev"]);
    assert_eq!(page("#dev", Some("#z"), 10).await, [""; 0]);
    assert_eq!(page("#x", None, 10).await, [""; 0]);
    assert_eq!(page("#", None, 10).await.len(), names.len());
}

/// A private channel is listed to its members and to nobody else.
pub async fn private_channels_are_listed_to_members_only(harness: &dyn Harness) {
    let store = harness.fresh().await;
    create(
        &store,
        [
            private("#staff", &["alice", "bob"]),
            public("#general"),
            private("#board", &["alice"]),
        ],
    )
    .await;
    let all = async |user| listed(&store, user, "", None, 10).await;
    assert_eq!(all("alice").await, ["#board", "#general", "#staff"]);
    assert_eq!(all("bob").await, ["#general", "#staff"]);
    assert_eq!(all("carol").await, ["#general"]);
}

/// A page is full as long as there are channels to show, however many hidden ones lie between.
pub async fn hidden_channels_take_no_room_in_a_list(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let hidden = (0..20).map(|n| private(&format!("#b{n:02}"), &["alice"]));
    create(&store, hidden).await;
    create(&store, [public("#a"), public("#c"), public("#d")]).await;
    let page = async |after, limit| listed(&store, "bob", "", after, limit).await;
    assert_eq!(page(None, 2).await, ["#a", "#c"]);
    assert_eq!(page(Some("#a"), 2).await, ["#c", "#d"]);
}

/// A newer copy changes who gets to see the channel at once.
pub async fn a_list_follows_changes(harness: &dyn Harness) {
    let store = harness.fresh().await;
    create(&store, [private("#staff", &["alice", "bob"])]).await;
    let seen_by = async |user| !listed(&store, user, "", None, 10).await.is_empty();
    let steps = [
        (private("#staff", &["alice", "carol"]), [true, false, true]),
        (public("#staff"), [true, true, true]),
        (private("#staff", &["bob"]), [false, true, false]),
    ];
    for (version, (record, expected)) in (2..).zip(steps) {
        let record = versioned(&record, version, "changed");
        assert_eq!(store.copy_channel(record).await, Ok(true));
        for (user, sees) in ["alice", "bob", "carol"].into_iter().zip(expected) {
            assert_eq!(seen_by(user).await, sees, "{user} in version {version}");
        }
    }
}
