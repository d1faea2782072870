//! Pulling, redelivery, filters, dead letters and seeks, by plain gRPC.

mod common;

use std::time::Duration;

use common::{Ours, Server, data, message, numbered, subscription};
use infrachat_emulators::proto::{
    CreateSnapshotRequest, DeadLetterPolicy, DeleteTopicRequest, DetachSubscriptionRequest,
    GetSubscriptionRequest, ModifyAckDeadlineRequest, PublishRequest, PullRequest, RetryPolicy,
    SeekRequest, Subscription, Topic, seek_request::Target,
};
use tonic::{Code, codec::CompressionEncoding};

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_after_its_deadline() {
    let server = Server::start().await;
    let topic = server.topic("deadline").await;
    let sub = server.subscription(subscription("deadline", &topic)).await;
    server
        .publish(&topic, vec![message("a"), message("b")])
        .await;
    let received = server.pull(&sub).await;
    server.ack(&sub, &received[..1]).await;
    assert!(server.pull_now(&sub).await.is_empty());
    server.pass(Duration::from_secs(10)).await;
    assert_eq!(data(&server.pull(&sub).await), ["b"]);
}

#[tokio::test]
async fn a_compressed_publish_is_read() {
    let server = Server::start().await;
    let topic = server.topic("gzip").await;
    let sub = server.subscription(subscription("gzip", &topic)).await;
    let text = "again and ".repeat(1_000);
    let request = PublishRequest {
        topic,
        messages: vec![message(&text)],
    };
    let mut publisher = server
        .publisher()
        .send_compressed(CompressionEncoding::Gzip);
    publisher.publish(request).await.expect("published");
    assert_eq!(data(&server.pull(&sub).await), [text]);
}

#[tokio::test]
async fn a_pull_waits_for_a_message() {
    let server = Server::start().await;
    let topic = server.topic("waiting").await;
    let sub = server.subscription(subscription("waiting", &topic)).await;
    let (received, _) = tokio::join!(
        server.pull(&sub),
        server.publish(&topic, vec![message("late")])
    );
    assert_eq!(data(&received), ["late"]);
}

#[tokio::test]
async fn a_filter_lets_only_matching_messages_in() {
    let server = Server::start().await;
    let topic = server.topic("filtered").await;
    let settings = Subscription {
        filter: r#"attributes.kind = "good" OR hasPrefix(attributes.kind, "very")"#.to_owned(),
        ..subscription("filtered", &topic)
    };
    let sub = server.subscription(settings).await;
    let with = |kind: &str| {
        let mut message = message(kind);
        message
            .attributes
            .insert("kind".to_owned(), kind.to_owned());
        message
    };
    let messages = vec![
        with("good"),
        with("bad"),
        with("very good"),
        message("none"),
    ];
    server.publish(&topic, messages).await;
    assert_eq!(data(&server.pull(&sub).await), ["good", "very good"]);
}

#[tokio::test]
async fn a_message_given_back_five_times_goes_to_the_dead_letter_topic() {
    let server = Server::start().await;
    let (topic, grave) = (server.topic("mortal").await, server.topic("grave").await);
    let settings = Subscription {
        dead_letter_policy: Some(DeadLetterPolicy {
            dead_letter_topic: grave.clone(),
            max_delivery_attempts: 5,
        }),
        ..subscription("mortal", &topic)
    };
    let sub = server.subscription(settings).await;
    let dead = server.subscription(subscription("grave", &grave)).await;
    server.publish(&topic, vec![message("cursed")]).await;
    for attempt in 1..=5 {
        let received = server.pull(&sub).await;
        assert_eq!(received[0].delivery_attempt, attempt);
        server.nack(&sub, &received).await;
    }
    let buried = server.pull(&dead).await;
    assert_eq!(data(&buried), ["cursed"]);
    let attributes = &buried[0].message.as_ref().expect("a message").attributes;
    assert_eq!(attributes["CloudPubSubDeadLetterSourceDeliveryCount"], "5");
    assert_eq!(
        attributes["CloudPubSubDeadLetterSourceSubscription"],
        "mortal"
    );
    assert!(server.pull_now(&sub).await.is_empty());
}

#[tokio::test]
async fn a_message_given_back_waits_for_its_backoff() {
    let server = Server::start().await;
    let topic = server.topic("backoff").await;
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let settings = Subscription {
        retry_policy: Some(RetryPolicy {
            minimum_backoff: seconds(20),
            maximum_backoff: seconds(60),
        }),
        ..subscription("backoff", &topic)
    };
    let sub = server.subscription(settings).await;
    server.publish(&topic, vec![message("a")]).await;
    let received = server.pull(&sub).await;
    server.nack(&sub, &received).await;
    assert!(server.pull_now(&sub).await.is_empty());
    server.pass(Duration::from_secs(20)).await;
    assert_eq!(data(&server.pull(&sub).await), ["a"]);
}

async fn seek(server: &Server, subscription: &str, target: Target) {
    let request = SeekRequest {
        subscription: subscription.to_owned(),
        target: Some(target),
    };
    server.subscriber().seek(request).await.expect("a seek");
}

#[tokio::test]
async fn a_seek_to_a_time_acknowledges_before_it_and_brings_back_after_it() {
    let server = Server::start().await;
    let topic = server.topic("seek").await;
    let settings = Subscription {
        retain_acked_messages: true,
        ..subscription("seek", &topic)
    };
    let sub = server.subscription(settings).await;
    for text in ["a", "b", "c"] {
        server.publish(&topic, vec![message(text)]).await;
        server.pass(Duration::from_secs(1)).await;
    }
    let received = server.pull(&sub).await;
    server.ack(&sub, &received).await;
    let second = received[1].message.as_ref().expect("a message");
    let time = second.publish_time.expect("a publish time");
    seek(&server, &sub, Target::Time(time)).await;
    assert_eq!(data(&server.pull(&sub).await), ["b", "c"]);

    let future = prost_types::Timestamp {
        seconds: time.seconds + 3_600,
        ..time
    };
    seek(&server, &sub, Target::Time(future)).await;
    server.pass(Duration::from_secs(11)).await;
    assert!(
        server.pull_now(&sub).await.is_empty(),
        "a seek ahead purges"
    );
}

#[tokio::test]
async fn a_topic_that_retains_brings_back_what_was_published_before_the_subscription() {
    let server = Ours::start().await;
    let kept = Topic {
        name: common::topic("kept"),
        message_retention_duration: Some(prost_types::Duration {
            seconds: 600,
            nanos: 0,
        }),
        ..Topic::default()
    };
    let topic = kept.name.clone();
    server
        .publisher()
        .create_topic(kept)
        .await
        .expect("a topic");
    server.publish(&topic, vec![message("old")]).await;
    server.clock.advance(Duration::from_secs(400));
    server.publish(&topic, vec![message("young")]).await;
    let sub = server.subscription(subscription("kept", &topic)).await;
    assert!(server.pull_now(&sub).await.is_empty());
    let start = prost_types::Timestamp::default();
    seek(&server, &sub, Target::Time(start)).await;
    assert_eq!(data(&server.pull(&sub).await), ["old", "young"]);
    server.clock.advance(Duration::from_secs(300));
    seek(&server, &sub, Target::Time(start)).await;
    let all = data(&server.pull(&sub).await);
    assert!(all.contains(&"young".to_owned()));
}

#[tokio::test]
async fn a_snapshot_brings_back_what_was_open_and_all_published_since() {
    let server = Server::start().await;
    let topic = server.topic("snapped").await;
    let sub = server.subscription(subscription("snapped", &topic)).await;
    let other = server.subscription(subscription("another", &topic)).await;
    server.publish(&topic, numbered(2, "")).await;
    let received = server.pull(&sub).await;
    server.ack(&sub, &received[..1]).await;
    let name = "projects/p/snapshots/snap".to_owned();
    let create = CreateSnapshotRequest {
        name: name.clone(),
        subscription: sub.clone(),
        ..CreateSnapshotRequest::default()
    };
    let snapshot = server.subscriber().create_snapshot(create).await;
    assert_eq!(snapshot.expect("a snapshot").into_inner().topic, topic);
    server.ack(&sub, &received[1..]).await;
    server.publish(&topic, vec![message("2")]).await;
    let later = server.pull(&sub).await;
    server.ack(&sub, &later).await;
    assert!(server.pull_now(&sub).await.is_empty());

    seek(&server, &sub, Target::Snapshot(name.clone())).await;
    assert_eq!(data(&server.pull(&sub).await), ["1", "2"]);
    seek(&server, &other, Target::Snapshot(name)).await;
    assert_eq!(
        data(&server.pull(&other).await),
        ["1", "2"],
        "any subscription of the topic"
    );
}

#[tokio::test]
async fn a_subscription_outlives_its_topic() {
    let server = Server::start().await;
    let topic = server.topic("mayfly").await;
    let sub = server.subscription(subscription("mayfly", &topic)).await;
    server.publish(&topic, vec![message("left")]).await;
    let delete = DeleteTopicRequest { topic };
    server
        .publisher()
        .delete_topic(delete)
        .await
        .expect("deleted");
    let get = GetSubscriptionRequest {
        subscription: sub.clone(),
    };
    let shown = server
        .subscriber()
        .get_subscription(get)
        .await
        .expect("it is there");
    assert_eq!(shown.into_inner().topic, "_deleted-topic_");
    assert_eq!(data(&server.pull(&sub).await), ["left"]);
}

#[tokio::test]
async fn a_detached_subscription_gives_nothing() {
    let server = Server::start().await;
    let topic = server.topic("detached").await;
    let sub = server.subscription(subscription("detached", &topic)).await;
    server.publish(&topic, vec![message("lost")]).await;
    let detach = DetachSubscriptionRequest {
        subscription: sub.clone(),
    };
    let detached = server.publisher().detach_subscription(detach).await;
    detached.expect("detached");
    let pull = PullRequest {
        subscription: sub,
        max_messages: 1,
        ..PullRequest::default()
    };
    let refused = server.subscriber().pull(pull).await.expect_err("no pull");
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn refusals_have_googles_codes() {
    let server = Server::start().await;
    let topic = server.topic("refusals").await;
    let sub = server.subscription(subscription("refusals", &topic)).await;
    let mut publisher = server.publisher();
    let mut subscriber = server.subscriber();

    let twice = Topic {
        name: topic.clone(),
        ..Topic::default()
    };
    let twice = publisher.create_topic(twice).await.expect_err("twice");
    assert_eq!(twice.code(), Code::AlreadyExists);

    let nowhere = PublishRequest {
        topic: common::topic("nowhere"),
        messages: vec![message("a")],
    };
    let nowhere = publisher.publish(nowhere).await.expect_err("no topic");
    assert_eq!(nowhere.code(), Code::NotFound);

    let orphan = subscription("orphan", &common::topic("nowhere"));
    let orphan = subscriber.create_subscription(orphan).await;
    assert_eq!(orphan.expect_err("no topic").code(), Code::NotFound);

    let unreadable = Subscription {
        filter: "attributes.a = ".to_owned(),
        ..subscription("unreadable", &topic)
    };
    let unreadable = subscriber.create_subscription(unreadable).await;
    assert_eq!(
        unreadable.expect_err("no filter").code(),
        Code::InvalidArgument
    );

    let once = Subscription {
        enable_exactly_once_delivery: true,
        ..subscription("exactly-once", &topic)
    };
    let once = subscriber.create_subscription(once).await;
    assert_eq!(once.expect_err("not emulated").code(), Code::Unimplemented);

    let garbage = ModifyAckDeadlineRequest {
        subscription: sub,
        ack_ids: vec!["garbage".to_owned()],
        ack_deadline_seconds: 10,
    };
    let garbage = subscriber.modify_ack_deadline(garbage).await;
    assert_eq!(
        garbage.expect_err("no ack id").code(),
        Code::InvalidArgument
    );
}
