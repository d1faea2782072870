//! Shards come and go while people talk: channels move, and nobody misses a message or sees it twice.
#![allow(clippy::expect_used)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use infrachat_client::{ChannelName, Client, Event, JoinOptions};
use infrachat_e2e::{ASIA, RawSession, TestStack, WEST, channel, eventually, partitions};
use infrachat_proto::chat::v1::{self as chat, client_frame::Kind as Frame, server_event::Kind};
use infrachat_routing::{owner, partition_of};
use tokio::task::JoinHandle;

/// Between two messages of a speaker.
const PACE: Duration = Duration::from_millis(20);

/// Nobody is a slow reader here, however long a move takes.
async fn stack() -> TestStack {
    TestStack::start_with(|config| config.tuning.slow_reader_pending = 100_000).await
}

/// The shard that serves a channel in the west, by its index.
async fn serving(stack: &TestStack, token: &str, name: &str) -> usize {
    let route = stack.resolve(WEST, token, name).await;
    let shards = &stack.regions[WEST].shards;
    let found = shards
        .iter()
        .position(|shard| shard.address.to_string() == route.endpoint);
    found.expect("one of the region's shards")
}

/// A channel that a third shard of the west will serve.
fn channel_of_the_third() -> String {
    let shards = [0, 1, 2].map(|slot| format!("us-west1-shard-{slot}"));
    let moves = |name: &String| {
        let partition = partition_of(name, partitions());
        owner(partition, shards.iter().map(String::as_str)) == Some(&shards[2])
    };
    let mut names = (0..10_000).map(|number| format!("#moving{number}"));
    names.find(moves).expect("one of three")
}

/// Talks in a channel until told to stop; answers how many messages it were.
struct Talk {
    enough: Arc<AtomicBool>,
    task: JoinHandle<(RawSession, usize)>,
}

impl Talk {
    fn start(mut session: RawSession, name: &str) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let (stop, name) = (Arc::clone(&enough), name.to_owned());
        let task = tokio::spawn(async move {
            let mut pace = tokio::time::interval(PACE);
            let mut count = 0;
            while !stop.load(Ordering::Acquire) {
                session.say(&name, &count.to_string()).await;
                count += 1;
                pace.tick().await;
            }
            (session, count)
        });
        Self { enough, task }
    }

    async fn stop(self) -> (RawSession, usize) {
        self.enough.store(true, Ordering::Release);
        self.task.await.expect("talked")
    }
}

/// Someone who listens with the bare protocol, and follows the channel wherever it goes.
struct Listener<'a> {
    stack: &'a TestStack,
    session: RawSession,
    name: &'a str,
    position: Bytes,
    /// The shard that it was sent to last.
    shard: String,
    told_to_go: bool,
    /// Sessions on shards that the channel has left.
    behind: Vec<RawSession>,
}

impl<'a> Listener<'a> {
    fn new(stack: &'a TestStack, (session, position): (RawSession, Bytes), name: &'a str) -> Self {
        Self {
            stack,
            session,
            name,
            position,
            shard: String::new(),
            told_to_go: false,
            behind: Vec::new(),
        }
    }

    /// Hears messages 0 to `count`, each once and in order.
    async fn hear(&mut self, count: usize) {
        let mut expected = 0;
        while expected < count {
            match self.session.next().await {
                Kind::Message(message) => {
                    assert_eq!(message.body, expected.to_string().as_bytes());
                    self.position = message.position;
                    expected += 1;
                }
                Kind::Joined(joined) => assert!(joined.recovered, "nothing is missing"),
                Kind::Redirect(redirect) => {
                    assert_eq!(redirect.channel, self.name);
                    self.follow(redirect.endpoint).await;
                }
                Kind::GoAway(_) => self.told_to_go = true,
                Kind::Gap(gap) => panic!("a gap: {gap:?}"),
                Kind::Error(error) => panic!("an error: {error:?}"),
                Kind::Close(close) => panic!("closed without a redirect: {close:?}"),
                _ => {}
            }
        }
    }

    /// Goes where it is sent, or asks.
    async fn follow(&mut self, mut endpoint: String) {
        let token = self.session.token.clone();
        let mut pace = tokio::time::interval(PACE);
        while endpoint.is_empty() {
            pace.tick().await;
            endpoint = self.stack.resolve(WEST, &token, self.name).await.endpoint;
        }
        let mut next = RawSession::open(&endpoint).await;
        self.shard = next.greet(&token).await.shard;
        let join = chat::Join {
            channel: self.name.to_owned(),
            position: self.position.clone(),
            ..Default::default()
        };
        next.send(Frame::Join(join)).await;
        self.behind.push(std::mem::replace(&mut self.session, next));
    }
}

#[tokio::test]
async fn the_wrong_shard_answers_a_join_with_where_the_channel_is() {
    let stack = stack().await;
    let alice = stack.joined(WEST, "alice", "#general").await;
    let right = serving(&stack, &alice.token, "#general").await;
    let address = |shard: usize| stack.regions[WEST].shards[shard].address.to_string();
    let mut lost = RawSession::hello(&address(1 - right), &alice.token).await;
    // A shard that has not looked yet says so by an empty endpoint.
    let endpoint = loop {
        lost.send(Frame::Join(chat::Join {
            channel: "#general".to_owned(),
            ..Default::default()
        }))
        .await;
        let redirect = lost
            .until(|kind| match kind {
                Kind::Redirect(redirect) => Some(redirect),
                Kind::Joined(joined) => panic!("joined on the wrong shard: {joined:?}"),
                _ => None,
            })
            .await;
        assert_eq!(redirect.channel, "#general");
        if !redirect.endpoint.is_empty() {
            break redirect.endpoint;
        }
    };
    assert_eq!(endpoint, address(right));
    let mut found = RawSession::hello(&endpoint, &alice.token).await;
    found.join("#general").await;
    lost.ping(1).await;
}

#[tokio::test]
async fn a_channel_that_moves_to_a_new_shard_takes_its_readers_along() {
    let mut stack = stack().await;
    let name = channel_of_the_third();
    let charlie = stack.joined(ASIA, "charlie", &name).await;
    let token = stack.register(WEST, "bob").await.access_token;
    let mut session = stack.session_for(WEST, &token, &name).await;
    let position = session.join(&name).await.position;

    let talk = Talk::start(charlie, &name);
    stack.add_shard(WEST).await.expect("starts");
    stack.settled().await.expect("settles");
    let mut bob = Listener::new(&stack, (session, position), &name);
    let (mut charlie, count) = talk.stop().await;
    charlie.say(&name, &count.to_string()).await;
    bob.hear(count + 1).await;
    assert!(!bob.told_to_go, "the shard goes on without the channel");
    bob.behind[0].ping(1).await;
    assert_eq!(bob.shard, "us-west1-shard-2");
}

#[tokio::test]
async fn a_shard_that_stops_sends_its_readers_on_and_the_rest_serve_everything() {
    let mut stack = stack().await;
    let name = "#general";
    let charlie = stack.joined(ASIA, "charlie", name).await;
    let token = stack.register(WEST, "bob").await.access_token;
    let mut session = stack.session_for(WEST, &token, name).await;
    let position = session.join(name).await.position;
    let stopping = serving(&stack, &token, name).await;

    let talk = Talk::start(charlie, name);
    stack.stop_shard(WEST, stopping).await;
    stack.settled().await.expect("settles");
    let rest = stack.regions[WEST].shards[0].address.to_string();
    let count = partitions();
    for partition in 0..count.get() {
        let mut names = (0..).map(|number| format!("#c{number}"));
        let name = names.find(|name| partition_of(name, count) == partition);
        let name = name.expect("a channel of every partition");
        // What Switchboard says may be a moment old.
        eventually("the rest serves it", async || {
            stack.resolve(WEST, &token, &name).await.endpoint == rest
        })
        .await;
    }
    let mut bob = Listener::new(&stack, (session, position), name);
    let (mut charlie, count) = talk.stop().await;
    charlie.say(name, &count.to_string()).await;
    bob.hear(count + 1).await;
    let mut left = bob.behind.remove(0);
    let mut told_to_go = bob.told_to_go;
    let close = loop {
        match left.next().await {
            Kind::GoAway(_) => told_to_go = true,
            Kind::Close(close) => break close,
            other => panic!("a channel that has moved says {other:?}"),
        }
    };
    assert!(told_to_go, "the shard says that it stops");
    assert_eq!(
        (close.code.as_str(), close.reconnect),
        ("shutting_down", true)
    );
}

#[tokio::test]
async fn who_is_sent_on_by_a_shard_that_stops_goes_at_a_moment_of_its_own() {
    let mut stack = stack().await;
    let name = "#general";
    let founder = stack.joined(WEST, "founder", name).await;
    let mut sessions = Vec::new();
    for _ in 0..100 {
        let mut session = stack.session_for(WEST, &founder.token, name).await;
        session.join(name).await;
        sessions.push(session);
    }
    let stopping = serving(&stack, &founder.token, name).await;
    let redirects = sessions.iter_mut().map(|session| {
        session.until(|kind| match kind {
            Kind::Redirect(redirect) => Some(redirect.retry_after_ms),
            _ => None,
        })
    });
    let stopped = stack.stop_shard(WEST, stopping);
    let (waits, ()) = tokio::join!(futures::future::join_all(redirects), stopped);
    let (shortest, longest) = (waits.iter().min(), waits.iter().max());
    let spread = longest.expect("some") - shortest.expect("some");
    // A hundred sessions within 50 ms: that all have the same moment by chance does not happen.
    assert!((1..=50).contains(&spread), "{waits:?}");
}

/// The last thing that a member says.
const BYE: &str = "bye";

/// Talks until told to stop; answers how many messages it were before the goodbye.
async fn talk(client: &Client, name: &ChannelName, enough: &AtomicBool) -> usize {
    let mut pace = tokio::time::interval(PACE);
    let mut count = 0;
    while !enough.load(Ordering::Acquire) {
        let said = client.publish(name, count.to_string()).await;
        said.expect("is acknowledged in the end");
        count += 1;
        pace.tick().await;
    }
    client.publish(name, BYE).await.expect("says goodbye");
    count
}

/// Listens until `others` members said goodbye; answers what each said.
async fn listen(client: &Client, others: usize) -> BTreeMap<String, Vec<String>> {
    let mut heard: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut left = others;
    while left > 0 {
        match client.next_event().await.expect("goes on") {
            Event::Message(message) => {
                let text = String::from_utf8(message.body.to_vec()).expect("UTF-8");
                left -= usize::from(text == BYE);
                let sender = message.sender.to_string();
                heard.entry(sender).or_default().push(text);
            }
            Event::Gap { reason, .. } => panic!("a gap: {reason}"),
            Event::Closed { reason, .. } => panic!("closed: {reason}"),
            _ => {}
        }
    }
    heard
}

/// Waits until each has followed the channel so many times.
async fn moved_along(clients: &[Client], times: u64) {
    eventually("everyone followed the channel", async || {
        let rejoins = clients.iter().map(|client| client.stats().rejoins);
        rejoins.min() >= Some(times)
    })
    .await;
}

/// What a member said and heard.
struct Heard {
    user: String,
    said: usize,
    heard: BTreeMap<String, Vec<String>>,
}

#[tokio::test]
async fn nobody_misses_or_doubles_a_message_while_shards_come_and_go() {
    let mut stack = stack().await;
    let name = channel_of_the_third();
    let mut clients = Vec::new();
    for (region, user) in [
        (WEST, "alice"),
        (WEST, "bob"),
        (ASIA, "charlie"),
        (ASIA, "dora"),
    ] {
        let client = stack.client(region, user).await;
        clients.push(client);
    }
    let token = stack.register(WEST, "founder").await.access_token;
    stack.create_channel(WEST, &token, &name).await;
    for client in &clients {
        let name = channel(&name);
        let joined = client.join(&name, JoinOptions::default());
        joined.await.expect("joins");
    }
    let enough = Arc::new(AtomicBool::new(false));
    let others = clients.len() - 1;
    let west = clients[..2].to_vec();
    let members: Vec<_> = clients
        .into_iter()
        .map(|client| {
            let (name, enough) = (channel(&name), Arc::clone(&enough));
            tokio::spawn(async move {
                let (said, heard) =
                    tokio::join!(talk(&client, &name, &enough), listen(&client, others));
                let user = client.user().to_string();
                Heard { user, said, heard }
            })
        })
        .collect();

    stack.add_shard(WEST).await.expect("starts");
    moved_along(&west, 1).await;
    stack.stop_shard(WEST, 2).await;
    moved_along(&west, 2).await;
    enough.store(true, Ordering::Release);

    let mut all = Vec::new();
    for member in members {
        all.push(member.await.expect("talked and listened"));
    }
    for listener in &all {
        for speaker in all.iter().filter(|other| other.user != listener.user) {
            let mut expected: Vec<_> = (0..speaker.said).map(|number| number.to_string()).collect();
            expected.push(BYE.to_owned());
            let heard = listener.heard.get(&speaker.user);
            assert_eq!(
                heard,
                Some(&expected),
                "{} of {}",
                listener.user,
                speaker.user
            );
        }
    }
}
