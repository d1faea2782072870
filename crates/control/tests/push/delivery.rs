//! What Pub/Sub pushes is applied, again and again until it is, or set aside.

use std::sync::Arc;

use infrachat_bus::{
    BusError, ConsumeLimits, Event, EventBus as _, PubsubBus, PushTarget, Subscription,
};
use infrachat_control::{DeadLetters, GooglePushTokens, Hearing, PushSetUp, announce, topic};
use infrachat_test_services::PubsubEmulator;

use crate::support::{AUDIENCE, PUSHER, Service, changed, pubsub, region, until};

fn pushed(emulator: &PubsubEmulator) -> Hearing {
    let keys = format!("http://{}/oauth2/v3/certs", emulator.address);
    Hearing::Push {
        tokens: Arc::new(GooglePushTokens::new(AUDIENCE, PUSHER, &[keys])),
        set_up: Some(PushSetUp {
            url: None,
            service_account: PUSHER.to_owned(),
            audience: AUDIENCE.to_owned(),
        }),
    }
}

struct Pushing {
    emulator: PubsubEmulator,
    bus: Arc<PubsubBus>,
    service: Service,
}

impl Pushing {
    /// Once everything that is announced is pushed.
    async fn start() -> Self {
        let emulator = PubsubEmulator::start().await.expect("the emulator starts");
        let bus = pubsub(&emulator.address).await;
        let service = Service::start(bus.clone(), pushed(&emulator)).await;
        let pushing = Self {
            emulator,
            bus,
            service,
        };
        let mut every = tokio::time::interval(std::time::Duration::from_millis(50));
        while pushing.service.notes.applied.borrow().is_empty() {
            every.tick().await;
            // Before the topic exists there is nothing to announce on.
            drop(announce(&*pushing.bus, &region(), changed("#ready")).await);
        }
        pushing
    }

    async fn announce(&self, channel: &str) {
        let announced = announce(&*self.bus, &region(), changed(channel)).await;
        announced.expect("is announced");
    }
}

#[tokio::test]
async fn what_is_announced_is_pushed_and_applied() {
    let pushing = Pushing::start().await;
    pushing.announce("#general").await;
    until(&pushing.service.notes.applied, |all| {
        all.iter().any(|name| name == "#general")
    })
    .await;
}

#[tokio::test]
async fn an_event_that_has_to_wait_comes_again_until_it_is_applied() {
    let pushing = Pushing::start().await;
    let notes = &pushing.service.notes;
    notes.away.send_replace(true);
    pushing.announce("#later").await;
    until(&notes.refused, |refused| *refused >= 2).await;
    assert!(!notes.applied.borrow().iter().any(|name| name == "#later"));
    notes.away.send_replace(false);
    until(&notes.applied, |all| {
        all.iter().any(|name| name == "#later")
    })
    .await;
}

#[tokio::test]
async fn unreadable_events_are_set_aside_once_and_later_ones_are_applied() {
    let pushing = Pushing::start().await;
    let letters = DeadLetters::new(pushing.bus.clone(), &region());
    let place = letters.subscription();
    let mut set_aside = pushing
        .bus
        .consume(&place, ConsumeLimits::default())
        .await
        .expect("consumes");
    let poison = Event {
        ordering_key: String::new(),
        payload: b"\xff\xff\xff".as_slice().into(),
        attributes: Default::default(),
    };
    let published = pushing.bus.publish(&topic(&region()), poison).await;
    published.expect("is published");
    pushing.announce("#unreadable").await;
    pushing.announce("#general").await;
    until(&pushing.service.notes.applied, |all| {
        all.iter().any(|name| name == "#general")
    })
    .await;
    let mut why = Vec::new();
    for _ in 0..2 {
        let letter = set_aside.next().await.expect("a dead letter");
        let attributes = &letter.event.attributes;
        assert!(attributes["infrachat-from"].ends_with("us-west1.control.switchboard-us-west1"));
        why.push(attributes["infrachat-error"].clone());
        letter.ack();
    }
    assert!(
        why.iter().any(|why| why.contains("no such thing")),
        "{why:?}"
    );
}

#[tokio::test]
async fn a_subscription_of_the_other_kind_is_refused_with_what_to_do() {
    let emulator = PubsubEmulator::start().await.expect("the emulator starts");
    let bus = pubsub(&emulator.address).await;
    let place = |group: &str| Subscription {
        topic: topic(&region()),
        group: group.to_owned(),
    };
    let target = PushTarget {
        endpoint: "http://127.0.0.1:9/pubsub/push".to_owned(),
        service_account: PUSHER.to_owned(),
        audience: AUDIENCE.to_owned(),
    };
    bus.ensure(&place("pulls")).await.expect("created");
    bus.ensure_pushed(&place("pushes"), &target)
        .await
        .expect("created");
    let refused = |outcome: Result<(), BusError>| match outcome {
        Err(BusError::Refused(why)) => assert!(why.contains("delete it"), "{why}"),
        other => panic!("{other:?}"),
    };
    refused(bus.ensure_pushed(&place("pulls"), &target).await);
    refused(bus.ensure(&place("pushes")).await);
    let consumed = bus
        .consume(&place("pushes"), ConsumeLimits::default())
        .await;
    refused(consumed.map(drop));
}

#[tokio::test]
async fn a_service_that_moved_has_its_events_pushed_to_where_it_is_now() {
    let Pushing {
        emulator,
        bus,
        service,
    } = Pushing::start().await;
    let before = service.address;
    drop(service);
    let moved = Service::start(bus.clone(), pushed(&emulator)).await;
    assert_ne!(before, moved.address);
    let announced = announce(&*bus, &region(), changed("#after")).await;
    announced.expect("is announced");
    until(&moved.notes.applied, |all| {
        all.iter().any(|name| name == "#after")
    })
    .await;
}
