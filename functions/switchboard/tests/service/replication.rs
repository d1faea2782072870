//! What other regions decide appears here.

use bytes::Bytes;
use infrachat_bus::{ConsumeLimits, Event, EventBus as _, Subscription, Topic};
use infrachat_metadata::{Channels as _, UserRecord, Users as _};
use infrachat_proto::{
    bus::v1::{ChannelChanged, ControlEvent, Revoked, UserChanged, control_event::Kind},
    switchboard::v1::ListChannelsRequest,
};
use infrachat_types::Visibility;
use prost::Message as _;

use crate::world::{ASIA, WEST, World, channel, channel_name, eventually, region, user_name};

fn topic(region: &str, name: &str) -> Topic {
    Topic {
        region: region.to_owned(),
        name: name.to_owned(),
    }
}

async fn publish(world: &World, source: &str, payload: impl Into<Bytes>) {
    let event = Event {
        ordering_key: String::new(),
        payload: payload.into(),
        attributes: [("traceparent".to_owned(), "00-1-2-01".to_owned())].into(),
    };
    let publishing = world
        .fabric
        .bus(source)
        .publish(&topic(source, "control"), event);
    publishing.await.expect("published");
}

fn control(kind: Kind) -> Vec<u8> {
    ControlEvent {
        region: ASIA.to_owned(),
        kind: Some(kind),
    }
    .encode_to_vec()
}

fn channel_changed(name: &str, home: &str) -> Vec<u8> {
    control(Kind::ChannelChanged(ChannelChanged {
        channel: name.to_owned(),
        version: 1,
        home_region: home.to_owned(),
    }))
}

fn waiting(world: &World, source: &str) -> usize {
    world.fabric.unacknowledged(&Subscription {
        topic: topic(source, "control"),
        group: "switchboard-us-west1".to_owned(),
    })
}

async fn all_acknowledged(world: &World) {
    eventually("all control events are acknowledged", async || {
        (waiting(world, WEST) + waiting(world, ASIA) == 0).then_some(())
    })
    .await;
}

async fn arrives(world: &World, name: &str) {
    eventually("the channel's copy is here", async || {
        world
            .west
            .channel(&channel_name(name))
            .await
            .expect("the store answers")
    })
    .await;
}

#[tokio::test]
async fn a_channel_created_in_another_region_appears_here() {
    let world = World::start().await;
    let record = channel("#tokyo", ASIA, Visibility::Public);
    world
        .asia
        .create_channel(record.clone())
        .await
        .expect("created");
    publish(&world, ASIA, channel_changed("#tokyo", ASIA)).await;
    eventually("the channel is listed", async || {
        let page = world
            .list("alice", ListChannelsRequest::default())
            .await
            .expect("a page");
        page.channels
            .into_iter()
            .find(|channel| channel.name == "#tokyo")
    })
    .await;
    let copy = world
        .west
        .channel(&channel_name("#tokyo"))
        .await
        .expect("an answer");
    assert_eq!(copy, Some(record));
    let route = world.resolve("#tokyo").await;
    assert!(route.exists && route.home_region == ASIA);
    all_acknowledged(&world).await;
}

#[tokio::test]
async fn a_change_that_this_region_announced_for_another_home_is_copied_too() {
    let world = World::start().await;
    let record = channel("#tokyo", ASIA, Visibility::Private);
    world.asia.create_channel(record).await.expect("created");
    publish(&world, WEST, channel_changed("#tokyo", ASIA)).await;
    arrives(&world, "#tokyo").await;
}

#[tokio::test]
async fn a_user_registered_in_another_region_appears_here() {
    let world = World::start().await;
    let user = UserRecord {
        name: user_name("hana"),
        password_hash: "$argon2id$of-no-use".to_owned(),
        home_region: region(ASIA),
        created_at: 1,
        version: 1,
    };
    world.asia.create_user(user.clone()).await.expect("created");
    let change = UserChanged {
        user: "hana".to_owned(),
        version: 1,
        home_region: ASIA.to_owned(),
    };
    publish(&world, ASIA, control(Kind::UserChanged(change))).await;
    let copy = eventually("the user's copy is here", async || {
        world
            .west
            .user(&user.name)
            .await
            .expect("the store answers")
    })
    .await;
    assert_eq!(copy, user);
}

#[tokio::test]
async fn events_that_are_not_for_it_are_acknowledged() {
    let world = World::start().await;
    // Field 99, which no version knows so far.
    let from_the_future = [0x9a, 0x06, 0x00];
    publish(&world, ASIA, from_the_future.to_vec()).await;
    publish(&world, ASIA, control(Kind::Revoked(Revoked::default()))).await;
    publish(&world, WEST, channel_changed("#of-this-region", WEST)).await;
    publish(&world, ASIA, channel_changed("#unknown-at-home", ASIA)).await;
    all_acknowledged(&world).await;
}

#[tokio::test]
async fn an_event_waits_for_the_home_regions_store() {
    let world = World::start().await;
    let record = channel("#tokyo", ASIA, Visibility::Public);
    world.asia.create_channel(record).await.expect("created");
    world.asia.set_unavailable(true);
    publish(&world, ASIA, channel_changed("#tokyo", ASIA)).await;
    // A later event that needs no other store does not wait behind it.
    publish(&world, ASIA, channel_changed("#of-this-region", WEST)).await;
    eventually("only the event that waits is left", async || {
        (waiting(&world, ASIA) == 1).then_some(())
    })
    .await;
    world.asia.set_unavailable(false);
    arrives(&world, "#tokyo").await;
    all_acknowledged(&world).await;
}

#[tokio::test]
async fn an_event_waits_for_the_own_regions_store() {
    let world = World::start().await;
    let record = channel("#tokyo", ASIA, Visibility::Public);
    world.asia.create_channel(record).await.expect("created");
    world.west.set_unavailable(true);
    publish(&world, ASIA, channel_changed("#tokyo", ASIA)).await;
    publish(&world, ASIA, channel_changed("#of-this-region", WEST)).await;
    eventually("only the event that waits is left", async || {
        (waiting(&world, ASIA) == 1).then_some(())
    })
    .await;
    world.west.set_unavailable(false);
    arrives(&world, "#tokyo").await;
    all_acknowledged(&world).await;
}

#[tokio::test]
async fn unreadable_events_go_to_the_dead_letter_topic_and_later_ones_are_handled() {
    let world = World::start().await;
    let bus = world.fabric.bus(WEST);
    let dead_letters = Subscription {
        topic: topic(WEST, "dead-letter"),
        group: "test".to_owned(),
    };
    bus.ensure(&dead_letters).await.expect("ensured");
    let mut set_aside = bus
        .consume(&dead_letters, ConsumeLimits::default())
        .await
        .expect("consumes");
    let record = channel("#tokyo", ASIA, Visibility::Public);
    world.asia.create_channel(record).await.expect("created");

    let unreadable = [
        b"\xff\xff\xff".to_vec(),
        channel_changed("Not A Channel", ASIA),
        channel_changed("#tokyo", "mars-north1"),
    ];
    for payload in &unreadable {
        publish(&world, ASIA, payload.clone()).await;
    }
    publish(&world, ASIA, channel_changed("#tokyo", ASIA)).await;
    arrives(&world, "#tokyo").await;

    let mut payloads = Vec::new();
    for _ in &unreadable {
        let delivery = set_aside.next().await.expect("a dead letter");
        let attributes = &delivery.event.attributes;
        assert_eq!(
            attributes["infrachat-from"],
            "asia-northeast1/control@switchboard-us-west1"
        );
        assert!(
            attributes.contains_key("infrachat-error") && attributes.contains_key("traceparent")
        );
        payloads.push(delivery.event.payload.to_vec());
        delivery.ack();
    }
    payloads.sort();
    let mut expected = unreadable.to_vec();
    expected.sort();
    assert_eq!(payloads, expected);
    all_acknowledged(&world).await;
}

#[tokio::test]
async fn events_published_while_a_region_was_away_arrive_on_its_return() {
    let world = World::start().await;
    let record = channel("#tokyo", ASIA, Visibility::Public);
    world.asia.create_channel(record).await.expect("created");
    world.fabric.cut(WEST, ASIA);
    publish(&world, ASIA, channel_changed("#tokyo", ASIA)).await;
    assert_eq!(waiting(&world, ASIA), 1);
    world.fabric.heal(WEST, ASIA);
    arrives(&world, "#tokyo").await;
}
