//! One trace follows a message from its sender's shard over the bus to each reader.

use std::collections::BTreeSet;

use infrachat_e2e::{ASIA, WEST, eventually};
use infrachat_test_services::{Collector, Sent};

use crate::world::{World, say};

/// The spans of a trace, by name.
fn named<'a>(trace: &'a [Sent], name: &str) -> Vec<&'a Sent> {
    trace.iter().filter(|sent| sent.span.name == name).collect()
}

/// The trace that a `publish` began, once it is whole: three readers have it, one of them in asia.
fn whole(sent: &[Sent]) -> Option<Vec<Sent>> {
    let publish = sent.iter().find(|sent| sent.span.name == "publish")?;
    let id = &publish.span.trace_id;
    let trace: Vec<_> = sent
        .iter()
        .filter(|sent| sent.span.trace_id == *id)
        .cloned()
        .collect();
    (named(&trace, "deliver").len() == 3 && named(&trace, "relay").len() == 2).then_some(trace)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_spans_the_shards_of_two_regions() {
    let collector = Collector::start().await.expect("a free port");
    let args = ["--otlp-endpoint", &collector.endpoint, "--trace-ratio", "1"];
    let world = World::start("warn", &args).await;
    let alice = world.person(WEST, "alice").await;
    let carol = world.person(WEST, "carol").await;
    let bob = world.person(ASIA, "bob").await;
    let dave = world.person(ASIA, "dave").await;
    say(&alice, "hello", &[&carol, &bob, &dave]).await;

    let mut trace = Vec::new();
    eventually("the spans have come", async || {
        whole(&collector.sent()).is_some_and(|whole| {
            trace = whole;
            true
        })
    })
    .await;

    let publish = named(&trace, "publish")[0];
    assert_eq!(publish.service, "chat-shard");
    assert_eq!(publish.region, "us-west1");
    assert!(publish.shard.starts_with("us-west1-shard-"), "{publish:?}");
    assert!(
        publish.span.parent_span_id.is_empty(),
        "the client named no trace"
    );
    assert_eq!(publish.attribute("infrachat.channel"), "#general");
    assert_eq!(publish.attribute("infrachat.message_id").len(), 26);

    let on_bus = named(&trace, "bus");
    assert_eq!(on_bus.len(), 1, "handed over once");
    let bus = &on_bus[0].span;
    assert_eq!(bus.parent_span_id, publish.span.span_id);
    assert!(
        publish.span.start_time_unix_nano <= bus.start_time_unix_nano
            && bus.end_time_unix_nano <= publish.span.end_time_unix_nano,
        "the sender hears after the bus has answered: {bus:?}"
    );

    let relays = named(&trace, "relay");
    let regions: BTreeSet<_> = relays.iter().map(|relay| relay.region.as_str()).collect();
    assert_eq!(regions, BTreeSet::from(["us-west1", "asia-northeast1"]));
    for relay in &relays {
        assert_eq!(relay.span.parent_span_id, publish.span.span_id, "{relay:?}");
    }

    // A reader follows what brought the message to its region's log first.
    let parents: BTreeSet<_> = relays
        .iter()
        .copied()
        .chain([publish])
        .map(|sent| (sent.region.as_str(), sent.span.span_id.as_slice()))
        .collect();
    let deliveries = named(&trace, "deliver");
    for deliver in &deliveries {
        let parent = (
            deliver.region.as_str(),
            deliver.span.parent_span_id.as_slice(),
        );
        assert!(parents.contains(&parent), "{deliver:?}");
    }
    let readers: BTreeSet<_> = deliveries
        .iter()
        .map(|sent| sent.attribute("infrachat.session"))
        .collect();
    assert_eq!(readers.len(), 3, "each reader has its own");
    let in_asia = deliveries
        .iter()
        .filter(|deliver| deliver.region == "asia-northeast1");
    assert_eq!(in_asia.count(), 2);

    let bodies = format!("{:?}", collector.sent());
    assert!(!bodies.contains("hello"), "no span has a message's body");
    world.stop().await;
}
