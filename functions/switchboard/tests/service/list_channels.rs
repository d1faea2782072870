//! Which channels there are.

use infrachat_metadata::Channels as _;
use infrachat_proto::switchboard::v1::ListChannelsRequest;
use infrachat_types::{ErrorCode, Visibility};

use crate::world::{ASIA, WEST, World, channel};

async fn names(world: &World, user: &str, prefix: &str, page_size: u32) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListChannelsRequest {
            prefix: prefix.to_owned(),
            page_size,
            page_token,
        };
        let page = world.list(user, request).await.expect("a page");
        pages.push(
            page.channels
                .into_iter()
                .map(|channel| channel.name)
                .collect(),
        );
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return pages;
        }
    }
}

#[tokio::test]
async fn pages_follow_each_other_by_name_until_the_last() {
    let world = World::start().await;
    for name in ["#e", "#b", "#d", "#a", "#c", "#other"] {
        let record = channel(name, WEST, Visibility::Public);
        world.west.create_channel(record).await.expect("created");
    }
    assert_eq!(
        names(&world, "alice", "", 4).await,
        [vec!["#a", "#b", "#c", "#d"], vec!["#e", "#other"]]
    );
    assert_eq!(
        names(&world, "alice", "", 3).await,
        [vec!["#a", "#b", "#c"], vec!["#d", "#e", "#other"]]
    );
    assert_eq!(names(&world, "alice", "#o", 0).await, [vec!["#other"]]);
    assert_eq!(
        names(&world, "alice", "#z", 0).await,
        [Vec::<String>::new()]
    );
}

#[tokio::test]
async fn private_channels_are_listed_to_their_members_only() {
    let world = World::start().await;
    for (name, visibility) in [
        ("#open", Visibility::Public),
        ("#secret", Visibility::Private),
    ] {
        let record = channel(name, WEST, visibility);
        world.west.create_channel(record).await.expect("created");
    }
    assert_eq!(names(&world, "alice", "", 0).await, [vec!["#open"]]);
    assert_eq!(
        names(&world, "bob", "", 0).await,
        [vec!["#open", "#secret"]]
    );
}

#[tokio::test]
async fn a_channel_is_listed_with_what_it_is_about() {
    let world = World::start().await;
    let record = channel("#secret", ASIA, Visibility::Private);
    world.west.copy_channel(record).await.expect("copied");
    let page = world
        .list("bob", ListChannelsRequest::default())
        .await
        .expect("a page");
    let [listed] = page.channels.as_slice() else {
        panic!("one channel is expected: {page:?}");
    };
    assert_eq!(listed.topic, "about #secret");
    assert_eq!(listed.created_by, "bob");
    assert_eq!(listed.home_region, ASIA);
    assert!(listed.private);
}

#[tokio::test]
async fn a_page_token_that_was_not_given_out_is_refused() {
    let world = World::start().await;
    let request = ListChannelsRequest {
        page_token: "7".to_owned(),
        ..ListChannelsRequest::default()
    };
    let refusal = world.list("alice", request).await.expect_err("refused");
    assert_eq!(refusal.code, ErrorCode::BadRequest);
}

#[tokio::test]
async fn while_the_store_is_away_lists_are_unavailable_for_now() {
    let world = World::start().await;
    world.west.set_unavailable(true);
    let refusal = world
        .list("alice", ListChannelsRequest::default())
        .await
        .expect_err("away");
    assert_eq!(refusal.code, ErrorCode::Unavailable);
    assert!(refusal.retry_after.is_some());
}
