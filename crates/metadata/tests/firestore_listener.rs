//! Following the routing records on Firestore, against an emulator, when the way there fails.

use std::{sync::Arc, time::Duration};

use infrachat_metadata::{
    FirestoreConfig, FirestoreMetadata, Lease, LeaseState, Routing as _, RoutingView, RoutingWatch,
};
use infrachat_test_services::FirestoreEmulator;
use infrachat_types::{OriginId, ShardId};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

/// Longer than anything here takes, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(60);

async fn connect(address: &str, silence: Duration) -> FirestoreMetadata {
    let config = FirestoreConfig {
        emulator: Some(address.to_owned()),
        silence,
        ..FirestoreConfig::new("demo-infrachat", "us-west1")
    };
    FirestoreMetadata::connect(config).await.expect("connected")
}

async fn renew(store: &FirestoreMetadata, slot: u32, sessions: u32) {
    let lease = Lease {
        shard: ShardId::new(&format!("shard-{slot}")).expect("valid"),
        incarnation: OriginId::from_text("life"),
        endpoint: "shard.example:7003".to_owned(),
        zone: "us-west1-b".to_owned(),
        sessions,
        state: LeaseState::Active,
    };
    store.renew_lease(lease).await.expect("renewed");
}

/// The sessions of each lease.
fn sessions(view: &RoutingView) -> Vec<u32> {
    view.leases().map(|view| view.lease.sessions).collect()
}

async fn seen(watch: &mut RoutingWatch, what: &str, is: impl Fn(&RoutingView) -> bool) {
    let looking = async {
        while !is(&watch.latest()) {
            watch.changed().await;
        }
    };
    let found = timeout(PATIENCE, looking).await;
    assert!(
        found.is_ok(),
        "a follower never saw {what}: {:?}",
        watch.latest()
    );
}

/// Sees exactly these.
async fn sees(watch: &mut RoutingWatch, expected: &[u32]) {
    let what = format!("{expected:?}");
    let is = |view: &RoutingView| view.is_current() && sessions(view) == expected;
    seen(watch, &what, is).await;
}

#[tokio::test]
async fn a_broken_stream_goes_on() {
    let emulator = FirestoreEmulator::start().await.expect("an emulator");
    // Only the end of the stream can tell.
    let store = connect(&emulator.address, PATIENCE).await;
    renew(&store, 0, 1).await;
    renew(&store, 1, 1).await;
    let mut watch = store.watch();
    sees(&mut watch, &[1, 1]).await;
    for round in 2..5 {
        emulator.break_streams().await.expect("broken");
        renew(&store, 0, round).await;
        sees(&mut watch, &[round, 1]).await;
    }
}

#[tokio::test]
async fn a_service_that_starts_over_with_nothing_is_seen_as_it_is() {
    let mut emulator = FirestoreEmulator::start().await.expect("an emulator");
    let store = connect(&emulator.address, PATIENCE).await;
    renew(&store, 0, 1).await;
    renew(&store, 1, 1).await;
    let mut watch = store.watch();
    sees(&mut watch, &[1, 1]).await;
    emulator.stop().expect("stopped");
    seen(&mut watch, "that it is gone", |view| !view.is_current()).await;
    assert_eq!(sessions(&watch.latest()), [1, 1]);
    emulator.start_again().await.expect("started");
    sees(&mut watch, &[]).await;
    // The store's own connection comes back too.
    let store = connect(&emulator.address, PATIENCE).await;
    renew(&store, 1, 2).await;
    sees(&mut watch, &[2]).await;
}

#[tokio::test]
async fn a_service_that_freezes_is_noticed_and_found_again() {
    let emulator = FirestoreEmulator::start().await.expect("an emulator");
    let store = connect(&emulator.address, Duration::from_millis(200)).await;
    renew(&store, 0, 1).await;
    let mut watch = store.watch();
    sees(&mut watch, &[1]).await;
    let paused = r#"{"firestore": {"paused": true}}"#;
    emulator.set_faults(paused).await.expect("paused");
    seen(&mut watch, "the silence", |view| !view.is_current()).await;
    emulator.clear_faults().await.expect("lifted");
    renew(&store, 0, 2).await;
    sees(&mut watch, &[2]).await;
}

#[tokio::test]
async fn a_service_that_refuses_at_first_is_followed_in_the_end() {
    let emulator = FirestoreEmulator::start().await.expect("an emulator");
    let way = Way::to(&emulator.address).await;
    let store = connect(&way.address, PATIENCE).await;
    renew(&store, 0, 1).await;
    let refuse = r#"{"firestore": {"refuse": {"Listen": 1.0}}}"#;
    emulator.set_faults(refuse).await.expect("set");
    let mut watch = store.watch();
    // Its own connection, and those of two attempts that failed and one that may.
    let mut opened = way.opened.subscribe();
    // What was waited for is locked while it is held, and the next connection counts there too.
    let tried = timeout(PATIENCE, opened.wait_for(|opened| *opened >= 4))
        .await
        .is_ok();
    assert!(tried, "{} connections were opened", *way.opened.borrow());
    assert_eq!(watch.latest().heard(), None);
    assert!(!watch.latest().is_current());
    emulator.clear_faults().await.expect("lifted");
    sees(&mut watch, &[1]).await;
}

/// A way to a service, on which connections can be made to go silent without ending.
struct Way {
    address: String,
    /// Connections that are open.
    open: Arc<watch::Sender<usize>>,
    /// Connections opened before this many go silent.
    silent: Arc<watch::Sender<usize>>,
    opened: Arc<watch::Sender<usize>>,
}

impl Way {
    async fn to(service: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let way = Self {
            address: listener.local_addr().expect("an address").to_string(),
            open: Arc::default(),
            silent: Arc::default(),
            opened: Arc::default(),
        };
        let (open, silent) = (Arc::clone(&way.open), Arc::clone(&way.silent));
        let (opened, service) = (Arc::clone(&way.opened), service.to_owned());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let number = *opened.borrow();
                opened.send_replace(number + 1);
                let (open, mut silent) = (Arc::clone(&open), silent.subscribe());
                let service = service.clone();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(service).await.expect("connected");
                    open.send_modify(|open| *open += 1);
                    let silence = async {
                        let fell_silent = silent.wait_for(|silent| number < *silent);
                        drop(fell_silent.await.expect("the way is there"));
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        // Both ends stay open.
                        () = silence => std::future::pending().await,
                    }
                    open.send_modify(|open| *open -= 1);
                });
            }
        });
        way
    }

    /// All that is open now carries nothing any more.
    fn fall_silent(&self) {
        self.silent.send_replace(*self.opened.borrow());
    }
}

#[tokio::test]
async fn a_connection_that_carries_nothing_any_more_is_replaced() {
    let emulator = FirestoreEmulator::start().await.expect("an emulator");
    let way = Way::to(&emulator.address).await;
    let store = connect(&emulator.address, PATIENCE).await;
    let far = connect(&way.address, Duration::from_millis(500)).await;
    renew(&store, 0, 1).await;
    let mut watch = far.watch();
    sees(&mut watch, &[1]).await;
    way.fall_silent();
    renew(&store, 0, 2).await;
    sees(&mut watch, &[2]).await;
}

#[tokio::test]
async fn the_last_follower_takes_its_connection_along() {
    let emulator = FirestoreEmulator::start().await.expect("an emulator");
    let way = Way::to(&emulator.address).await;
    let store = connect(&way.address, PATIENCE).await;
    let mut open = way.open.subscribe();
    let mut watch = store.watch();
    sees(&mut watch, &[]).await;
    assert_eq!(*open.borrow(), 2);
    let mut other = watch.clone();
    drop(watch);
    renew(&store, 0, 1).await;
    sees(&mut other, &[1]).await;
    drop(other);
    let closed = timeout(PATIENCE, open.wait_for(|open| *open == 1)).await;
    assert!(
        closed.is_ok(),
        "{} connections are open",
        *way.open.borrow()
    );
}
