//! The `Listen` stream, as the protocol has it.

use std::{collections::BTreeMap, time::Duration};

use gcloud_sdk::google::firestore::v1::{
    ListenRequest, ListenResponse, StructuredQuery, Target, Value,
    listen_request::TargetChange as Change,
    listen_response::ResponseType,
    structured_query::{
        CollectionSelector, Direction, FieldFilter, FieldReference, Filter, Order,
        field_filter::Operator, filter::FilterType,
    },
    target::{DocumentsTarget, QueryTarget, ResumeType, TargetType, query_target},
    target_change::TargetChangeType,
};
use infrachat_emulators::{faults::Service, firestore::History};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::support::{
    DATABASE, Raw, Running, int, name, number_of, remove, root, set, soon, start, start_ours, text,
    write,
};

/// A listening client: what it is told, and the state that follows from it.
struct Listening {
    requests: mpsc::Sender<ListenRequest>,
    responses: Streaming<ListenResponse>,
    /// `n` of each document, by target.
    state: BTreeMap<i32, BTreeMap<String, i64>>,
    current: Vec<i32>,
    removed: Vec<(i32, i32)>,
    reset: Vec<i32>,
    counted: Vec<i32>,
    token: Vec<u8>,
    /// What was told since the last snapshot.
    told: Vec<String>,
}

impl Listening {
    async fn start(raw: &mut Raw, target: Target) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        requests.send(add(target)).await.expect("open");
        let responses = raw
            .listen(ReceiverStream::new(receiver))
            .await
            .expect("accepted")
            .into_inner();
        Self {
            requests,
            responses,
            state: BTreeMap::new(),
            current: Vec::new(),
            removed: Vec::new(),
            reset: Vec::new(),
            counted: Vec::new(),
            token: Vec::new(),
            told: Vec::new(),
        }
    }

    async fn send(&self, change: Change) {
        let request = ListenRequest {
            database: DATABASE.to_owned(),
            target_change: Some(change),
            ..Default::default()
        };
        self.requests.send(request).await.expect("open");
    }

    /// Reads up to the next snapshot.
    async fn snapshot(&mut self) -> Result<(), Status> {
        self.told.clear();
        loop {
            let response = soon(self.responses.message())
                .await?
                .expect("the stream goes on");
            if self.take(response) {
                return Ok(());
            }
        }
    }

    /// Reads until a target has these documents.
    async fn until(&mut self, target: i32, expected: &[(&str, i64)]) {
        let expected: BTreeMap<_, _> = expected.iter().map(|(path, n)| (name(path), *n)).collect();
        soon(async {
            while self.state.get(&target) != Some(&expected) {
                self.snapshot().await.expect("the stream goes on");
            }
        })
        .await;
    }

    fn take(&mut self, response: ListenResponse) -> bool {
        match response.response_type.expect("has one") {
            ResponseType::TargetChange(change) => {
                let kind = change.target_change_type();
                match (kind, &change.target_ids[..]) {
                    (TargetChangeType::Add, [id]) => {
                        self.state.insert(*id, BTreeMap::new());
                    }
                    (TargetChangeType::Current, [id]) => self.current.push(*id),
                    (TargetChangeType::Reset, [id]) => self.reset.push(*id),
                    (TargetChangeType::Remove, [id]) => {
                        let code = change.cause.as_ref().map_or(0, |cause| cause.code);
                        self.removed.push((*id, code));
                        return true;
                    }
                    (TargetChangeType::NoChange, []) => {
                        assert!(change.read_time.is_some());
                        self.token = change.resume_token;
                        return true;
                    }
                    other => panic!("{other:?}"),
                }
            }
            ResponseType::DocumentChange(change) => {
                let document = change.document.expect("has one");
                self.told.push(document.name.clone());
                for id in change.target_ids {
                    let n = number_of(&document).expect("has n");
                    self.of(id).insert(document.name.clone(), n);
                }
                for id in change.removed_target_ids {
                    self.of(id).remove(&document.name);
                }
            }
            ResponseType::DocumentDelete(gone) => {
                self.told.push(format!("{} deleted", gone.document));
                for id in gone.removed_target_ids {
                    self.of(id).remove(&gone.document);
                }
            }
            ResponseType::DocumentRemove(left) => {
                self.told.push(format!("{} left", left.document));
                for id in left.removed_target_ids {
                    self.of(id).remove(&left.document);
                }
            }
            ResponseType::Filter(filter) => self.counted.push(filter.count),
        }
        false
    }

    fn of(&mut self, target: i32) -> &mut BTreeMap<String, i64> {
        self.state.entry(target).or_default()
    }
}

fn add(target: Target) -> ListenRequest {
    ListenRequest {
        database: DATABASE.to_owned(),
        target_change: Some(Change::AddTarget(target)),
        ..Default::default()
    }
}

fn documents(id: i32, paths: &[&str]) -> Target {
    Target {
        target_id: id,
        target_type: Some(TargetType::Documents(DocumentsTarget {
            documents: paths.iter().map(|path| name(path)).collect(),
        })),
        ..Default::default()
    }
}

fn query(id: i32, query: StructuredQuery) -> Target {
    Target {
        target_id: id,
        target_type: Some(TargetType::Query(QueryTarget {
            parent: root(),
            query_type: Some(query_target::QueryType::StructuredQuery(query)),
        })),
        ..Default::default()
    }
}

fn from_a() -> StructuredQuery {
    StructuredQuery {
        from: vec![CollectionSelector {
            collection_id: "a".to_owned(),
            all_descendants: false,
        }],
        ..Default::default()
    }
}

fn at_least(n: i64) -> StructuredQuery {
    let n: Value = int(n);
    StructuredQuery {
        r#where: Some(Filter {
            filter_type: Some(FilterType::FieldFilter(FieldFilter {
                field: Some(FieldReference {
                    field_path: "n".to_owned(),
                }),
                op: Operator::GreaterThanOrEqual as i32,
                value: Some(n),
            })),
        }),
        ..from_a()
    }
}

fn largest(limit: i32) -> StructuredQuery {
    StructuredQuery {
        order_by: vec![Order {
            field: Some(FieldReference {
                field_path: "n".to_owned(),
            }),
            direction: Direction::Descending as i32,
        }],
        limit: Some(limit),
        ..from_a()
    }
}

async fn ready() -> (Running, Raw) {
    let emulator = start().await;
    let raw = filled(&emulator).await;
    (emulator, raw)
}

/// A client of an emulator, now with three documents.
async fn filled(emulator: &Running) -> Raw {
    let mut raw = emulator.raw().await;
    let writes = (1..=3)
        .map(|n| set(&format!("a/{n}"), [("n", int(n))]))
        .collect();
    write(&mut raw, writes).await;
    raw
}

#[tokio::test]
async fn a_document_that_is_missing_is_told_and_then_followed() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let mut listening = Listening::start(&mut raw, documents(1, &["a/1"])).await;
    listening.snapshot().await.expect("open");
    assert_eq!(listening.current, [1]);
    assert_eq!(listening.told, [format!("{} deleted", name("a/1"))]);
    write(&mut raw, vec![set("a/1", [("n", int(5))])]).await;
    listening.until(1, &[("a/1", 5)]).await;
    write(&mut raw, vec![remove("a/1")]).await;
    listening.until(1, &[]).await;
}

#[tokio::test]
async fn targets_of_one_stream_change_together() {
    let (_emulator, mut raw) = ready().await;
    let mut listening = Listening::start(&mut raw, query(1, at_least(2))).await;
    listening.until(1, &[("a/2", 2), ("a/3", 3)]).await;
    listening
        .send(Change::AddTarget(query(2, largest(2))))
        .await;
    listening.until(2, &[("a/3", 3), ("a/2", 2)]).await;
    assert_eq!(listening.current, [1, 2]);
    write(
        &mut raw,
        vec![set("a/4", [("n", int(4))]), set("a/2", [("n", int(0))])],
    )
    .await;
    listening.snapshot().await.expect("open");
    assert_eq!(
        listening.told,
        [format!("{} left", name("a/2")), name("a/4")],
        "each document in one message"
    );
    let expected: BTreeMap<_, _> = [(name("a/3"), 3), (name("a/4"), 4)].into();
    assert_eq!(listening.state[&1], expected);
    assert_eq!(listening.state[&2], expected);
}

#[tokio::test]
async fn a_limited_query_is_filled_up_from_those_behind() {
    let (_emulator, mut raw) = ready().await;
    let mut listening = Listening::start(&mut raw, query(1, largest(2))).await;
    listening.until(1, &[("a/3", 3), ("a/2", 2)]).await;
    write(&mut raw, vec![remove("a/3")]).await;
    listening.until(1, &[("a/2", 2), ("a/1", 1)]).await;
    write(&mut raw, vec![set("a/9", [("n", int(9))])]).await;
    listening.until(1, &[("a/9", 9), ("a/2", 2)]).await;
}

#[tokio::test]
async fn a_removed_target_is_told_no_more() {
    let (_emulator, mut raw) = ready().await;
    let mut listening = Listening::start(&mut raw, documents(1, &["a/1"])).await;
    listening.until(1, &[("a/1", 1)]).await;
    listening
        .send(Change::AddTarget(documents(2, &["a/2"])))
        .await;
    listening.until(2, &[("a/2", 2)]).await;
    listening.send(Change::RemoveTarget(1)).await;
    listening.snapshot().await.expect("open");
    assert_eq!(listening.removed, [(1, 0)]);
    write(
        &mut raw,
        vec![set("a/1", [("n", int(7))]), set("a/2", [("n", int(8))])],
    )
    .await;
    listening.until(2, &[("a/2", 8)]).await;
    assert_eq!(listening.state[&1][&name("a/1")], 1);
}

#[tokio::test]
async fn a_target_that_makes_no_sense_is_removed_with_its_cause_and_the_others_go_on() {
    let (_emulator, mut raw) = ready().await;
    let mut listening = Listening::start(&mut raw, documents(1, &["a/1"])).await;
    listening.until(1, &[("a/1", 1)]).await;
    listening
        .send(Change::AddTarget(documents(2, &["not/a/document"])))
        .await;
    listening.snapshot().await.expect("open");
    assert_eq!(listening.removed, [(2, Code::InvalidArgument as i32)]);
    write(&mut raw, vec![set("a/1", [("n", int(7))])]).await;
    listening.until(1, &[("a/1", 7)]).await;
}

#[tokio::test]
async fn a_resumed_target_gets_just_what_it_missed() {
    let (_emulator, mut raw) = ready().await;
    let mut listening = Listening::start(&mut raw, query(1, at_least(2))).await;
    listening.until(1, &[("a/2", 2), ("a/3", 3)]).await;
    let token = listening.token.clone();
    drop(listening);
    write(
        &mut raw,
        vec![
            set("a/4", [("n", int(4))]),
            set("a/1", [("n", int(0))]),
            remove("a/2"),
        ],
    )
    .await;
    let mut target = query(1, at_least(2));
    target.resume_type = Some(ResumeType::ResumeToken(token));
    let mut resumed = Listening::start(&mut raw, target).await;
    resumed.snapshot().await.expect("open");
    assert_eq!(resumed.current, [1]);
    assert_eq!(
        resumed.told,
        [format!("{} deleted", name("a/2")), name("a/4")],
        "a/3 is as it was"
    );
    assert_eq!(resumed.counted, [2], "a/3 and a/4 there must be");
    assert!(resumed.reset.is_empty());
}

#[tokio::test]
async fn a_target_that_resumes_from_too_long_ago_starts_over() {
    let history = History {
        retention: Duration::from_secs(60),
        versions: 2,
    };
    let (emulator, _) = start_ours(history).await;
    let mut raw = filled(&emulator).await;
    let mut listening = Listening::start(&mut raw, query(1, at_least(3))).await;
    listening.until(1, &[("a/3", 3)]).await;
    let token = listening.token.clone();
    drop(listening);
    for n in 10..20 {
        write(&mut raw, vec![set("a/3", [("n", int(n))])]).await;
    }
    let mut target = query(1, at_least(3));
    target.resume_type = Some(ResumeType::ResumeToken(token));
    let mut resumed = Listening::start(&mut raw, target).await;
    resumed.until(1, &[("a/3", 19)]).await;
    assert_eq!(resumed.reset, [1]);
}

#[tokio::test]
async fn a_target_wanted_once_ends_when_it_is_current() {
    let (_emulator, mut raw) = ready().await;
    let mut target = documents(1, &["a/1"]);
    target.once = true;
    let mut listening = Listening::start(&mut raw, target).await;
    listening.snapshot().await.expect("open");
    assert_eq!(listening.current, [1]);
    assert_eq!(listening.removed, [(1, 0)]);
    assert_eq!(listening.state[&1], [(name("a/1"), 1)].into());
}

/// Creates documents one commit each while the client reads nothing, and returns all that there are.
async fn flood(raw: &mut Raw, commits: i64) -> Vec<(String, i64)> {
    // Large, so that a connection soon takes no more of them.
    let padding = text(&"x".repeat(8 * 1024));
    for n in 0..commits {
        let fields = [("n", int(n)), ("padding", padding.clone())];
        write(raw, vec![set(&format!("a/f{n}"), fields)]).await;
    }
    let before = (1..=3).map(|n| (format!("a/{n}"), n));
    before
        .chain((0..commits).map(|n| (format!("a/f{n}"), n)))
        .collect()
}

fn borrow(documents: &[(String, i64)]) -> Vec<(&str, i64)> {
    documents
        .iter()
        .map(|(path, n)| (path.as_str(), *n))
        .collect()
}

#[tokio::test]
async fn a_client_that_falls_far_behind_still_hears_of_every_document() {
    let (_emulator, mut raw) = ready().await;
    let mut listening = Listening::start(&mut raw, query(1, from_a())).await;
    listening.snapshot().await.expect("open");
    // More than the connection and all queues hold.
    let all = flood(&mut raw, 2_500).await;
    listening.until(1, &borrow(&all)).await;
}

#[tokio::test]
async fn a_target_added_while_commits_wait_takes_none_from_the_others() {
    let (_emulator, mut raw) = ready().await;
    let mut listening = Listening::start(&mut raw, query(1, from_a())).await;
    listening.snapshot().await.expect("open");
    // More than the connection holds, but not more than waits for a slow client.
    let all = flood(&mut raw, 1_000).await;
    listening.send(Change::AddTarget(query(2, from_a()))).await;
    listening.until(2, &borrow(&all)).await;
    listening.until(1, &borrow(&all)).await;
}

#[tokio::test]
async fn commits_arrive_in_their_order() {
    let (_emulator, mut raw) = ready().await;
    let mut listening = Listening::start(&mut raw, documents(1, &["a/1"])).await;
    listening.snapshot().await.expect("open");
    for n in 2..=500 {
        write(&mut raw, vec![set("a/1", [("n", int(n))])]).await;
    }
    let mut last = 1;
    while last < 500 {
        listening.snapshot().await.expect("open");
        let n = listening.state[&1][&name("a/1")];
        assert_eq!(n, last + 1);
        last = n;
    }
}

#[tokio::test]
async fn streams_end_when_the_emulator_stops() {
    let (emulator, _) = start_ours(History::default()).await;
    let mut raw = filled(&emulator).await;
    let mut listening = Listening::start(&mut raw, documents(1, &["a/1"])).await;
    listening.snapshot().await.expect("open");
    drop(emulator);
    let ended = listening.snapshot().await.expect_err("stopped");
    assert_eq!(ended.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_broken_stream_is_unavailable_and_another_can_be_opened() {
    let (emulator, faults) = start_ours(History::default()).await;
    let mut raw = filled(&emulator).await;
    let mut listening = Listening::start(&mut raw, documents(1, &["a/1"])).await;
    listening.snapshot().await.expect("open");
    faults.break_streams(Service::Firestore);
    let broken = listening.snapshot().await.expect_err("broken");
    assert_eq!(broken.code(), Code::Unavailable);
    let mut again = Listening::start(&mut raw, documents(1, &["a/1"])).await;
    again.until(1, &[("a/1", 1)]).await;
}

#[tokio::test]
async fn requests_for_another_database_end_the_stream() {
    let (_emulator, mut raw) = ready().await;
    let mut listening = Listening::start(&mut raw, documents(1, &["a/1"])).await;
    listening.until(1, &[("a/1", 1)]).await;
    let mut stray = add(documents(2, &["a/1"]));
    stray.database = DATABASE.replace("(default)", "other");
    listening.requests.send(stray).await.expect("open");
    let ended = listening.snapshot().await.expect_err("refused");
    assert_eq!(ended.code(), Code::InvalidArgument);
}
