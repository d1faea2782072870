//! The store on Firestore, against an emulator: what it is like to live with a service that has
//! limits, other writers, and bad days.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use firestore::{
    FirestoreDb, FirestoreDbOptions,
    gcloud_sdk::{
        google::firestore::v1::{
            BatchGetDocumentsRequest, BeginTransactionRequest, CommitRequest, Document,
            ListDocumentsRequest, Write, batch_get_documents_request::ConsistencySelector,
            write::Operation,
        },
        google_cloud_auth::credentials::anonymous::Builder as Anonymous,
    },
};
use infrachat_metadata::{
    ChannelRecord, Channels as _, Direction, FirestoreConfig, FirestoreMetadata, History as _,
    HistoryEntry, Lease, LeaseState, MetadataError, Routing as _, TokenFamily, UserRecord,
    Users as _,
};
use infrachat_test_services::FirestoreEmulator;
use infrachat_types::{
    Channel, ChannelName, ClientMessageId, Epoch, Message, MessageId, Offset, OriginId, Region,
    SessionId, ShardId, SlowReaderPolicy, TokenFamilyId, UserName, Visibility,
};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};

const PARTITION: u32 = 3;
/// Longer than anything here takes, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(address: &str, database: &str) -> FirestoreConfig {
    FirestoreConfig {
        emulator: Some(address.to_owned()),
        request_timeout: Duration::from_secs(30),
        ..FirestoreConfig::new("demo-infrachat", database)
    }
}

async fn connect(emulator: &FirestoreEmulator, database: &str) -> FirestoreMetadata {
    let store = FirestoreMetadata::connect(config(&emulator.address, database)).await;
    store.expect("connected")
}

async fn started() -> (FirestoreEmulator, Arc<FirestoreMetadata>) {
    let emulator = FirestoreEmulator::start().await.expect("an emulator");
    let store = Arc::new(connect(&emulator, "us-west1").await);
    (emulator, store)
}

fn general() -> ChannelName {
    ChannelName::new("#general").expect("valid")
}

fn user_name(name: &str) -> UserName {
    UserName::new(name).expect("valid")
}

fn alice() -> UserRecord {
    UserRecord {
        name: user_name("alice"),
        password_hash: "$argon2id$secret".to_owned(),
        home_region: Region::new("us-west1").expect("valid"),
        created_at: 1,
        version: 1,
    }
}

fn said(n: u64, millis: u64, epoch: Epoch, body: Bytes) -> HistoryEntry {
    HistoryEntry {
        message: Message {
            channel: general(),
            message_id: MessageId::floor_of(millis),
            sender: user_name("alice"),
            client_message_id: ClientMessageId::from_bytes(&u128::from(n).to_be_bytes())
                .expect("16 bytes"),
            body,
            published_at: 1_790_000_000_000,
            region: Region::new("us-west1").expect("valid"),
            session_id: SessionId::from_text("session"),
        },
        epoch,
        offset: Offset(n),
        origin: OriginId::from_text("origin"),
        origin_seq: n,
    }
}

async fn take(store: &FirestoreMetadata) -> Epoch {
    let shard = ShardId::new("shard-a").expect("valid");
    let life = OriginId::from_text("life");
    let taken = store.take_partition(PARTITION, &shard, &life, Duration::ZERO);
    taken.await.expect("nobody has a lease")
}

async fn tail(store: &FirestoreMetadata) -> Vec<HistoryEntry> {
    let tail = store.history_tail(&general(), 1_000).await;
    tail.expect("the tail")
}

/// Appends each entry by a call of its own, all at once.
async fn append_at_once(store: &Arc<FirestoreMetadata>, epoch: Epoch, entries: &[HistoryEntry]) {
    let mut appends = JoinSet::new();
    for entry in entries.iter().cloned() {
        let store = Arc::clone(store);
        appends.spawn(async move { store.append_history(PARTITION, epoch, &[entry]).await });
    }
    for appended in appends.join_all().await {
        appended.expect("appended");
    }
}

fn unavailable<T: std::fmt::Debug>(answer: Result<T, MetadataError>) {
    let is = matches!(answer, Err(MetadataError::Unavailable(_)));
    assert!(is, "{answer:?}");
}

#[tokio::test]
async fn a_service_that_never_answers_is_unavailable_within_the_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    let config = FirestoreConfig {
        request_timeout: Duration::from_millis(200),
        ..config(&address, "us-west1")
    };
    let answered = timeout(PATIENCE, async {
        let store = FirestoreMetadata::connect(config).await?;
        unavailable(store.create_user(alice()).await);
        unavailable(store.user(&alice().name).await);
        unavailable(store.leases().await);
        let channel = general();
        let page = store.history(&channel, Direction::After(MessageId::MIN), 1);
        unavailable(page.await);
        let said = [said(1, 1, Epoch(1), Bytes::new())];
        store.append_history(PARTITION, Epoch(1), &said).await
    });
    unavailable(answered.await.expect("every call ends"));
}

#[tokio::test]
async fn a_service_that_comes_back_is_found_again() {
    let (mut emulator, store) = started().await;
    store.create_user(alice()).await.expect("created");
    emulator.stop().expect("stopped");
    unavailable(store.create_user(alice()).await);
    unavailable(store.user(&alice().name).await);
    emulator.start_again().await.expect("started");
    // The emulator comes back empty.
    let back = timeout(PATIENCE, async {
        while store.user(&alice().name).await != Ok(None) {
            tokio::task::yield_now().await;
        }
    });
    back.await.expect("connected again");
    store.create_user(alice()).await.expect("created again");
}

#[tokio::test]
async fn nothing_to_connect_to_is_unavailable() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    unavailable(FirestoreMetadata::connect(config(&address, "us-west1")).await);
}

#[tokio::test]
async fn regions_databases_are_apart_and_outlive_a_connection() {
    let (emulator, west) = started().await;
    west.create_user(alice()).await.expect("created");
    let asia = connect(&emulator, "asia-northeast1").await;
    assert_eq!(asia.user(&alice().name).await, Ok(None));
    drop(west);
    let west = connect(&emulator, "us-west1").await;
    assert_eq!(west.user(&alice().name).await, Ok(Some(alice())));
}

#[tokio::test]
async fn appends_at_once_to_one_partition_all_land() {
    let (_emulator, store) = started().await;
    let epoch = take(&store).await;
    let entries: Vec<_> = (1..=30)
        .map(|n| said(n, n, epoch, Bytes::from_static(b"hello")))
        .collect();
    append_at_once(&store, epoch, &entries).await;
    assert_eq!(tail(&store).await, entries);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_a_partition_is_taken_its_former_owner_adds_nothing() {
    let (_emulator, store) = started().await;
    for round in 0..5_u64 {
        let old = take(&store).await;
        let mut writers = JoinSet::new();
        for writer in 0..8_u64 {
            let store = Arc::clone(&store);
            writers.spawn(async move {
                for n in 1.. {
                    let n = (round * 8 + writer) * 1_000 + n;
                    let entry = said(n, n, old, Bytes::new());
                    match store.append_history(PARTITION, old, &[entry]).await {
                        Ok(()) => {}
                        Err(err) => return (n, err),
                    }
                }
                unreachable!("the loop ends by an error");
            });
        }
        // All are at it by then.
        let busy = timeout(PATIENCE, async {
            while tail(&store)
                .await
                .last()
                .is_none_or(|entry| entry.epoch < old)
            {}
        });
        busy.await.expect("somebody writes");
        let new = take(&store).await;
        let read_by_new_owner = tail(&store).await;
        for (n, err) in writers.join_all().await {
            assert!(
                matches!(err, MetadataError::Fenced { current, .. } if current == new.0),
                "{n}: {err}"
            );
        }
        assert!(tail(&store).await == read_by_new_owner, "in round {round}");
    }
}

#[tokio::test]
async fn reads_get_through_while_some_calls_are_refused() {
    let (emulator, store) = started().await;
    store.create_user(alice()).await.expect("created");
    let epoch = take(&store).await;
    let said = [said(1, 1, epoch, Bytes::new())];
    let appended = store.append_history(PARTITION, epoch, &said).await;
    appended.expect("appended");
    let faults = r#"{"firestore": {"refuse": {"BatchGetDocuments": 0.3, "RunQuery": 0.3}}}"#;
    emulator.set_faults(faults).await.expect("set");
    for _ in 0..20 {
        assert_eq!(store.user(&alice().name).await, Ok(Some(alice())));
        assert_eq!(tail(&store).await, said);
    }
}

#[tokio::test]
async fn a_write_that_is_refused_is_unavailable_and_can_be_repeated() {
    let (emulator, store) = started().await;
    let epoch = take(&store).await;
    let said = [said(1, 1, epoch, Bytes::new())];
    let faults = r#"{"firestore": {"refuse": {"Commit": 1.0}}}"#;
    emulator.set_faults(faults).await.expect("set");
    unavailable(store.create_user(alice()).await);
    unavailable(store.append_history(PARTITION, epoch, &said).await);
    assert_eq!(store.user(&alice().name).await, Ok(None));
    assert_eq!(tail(&store).await, []);
    emulator.clear_faults().await.expect("lifted");
    store.create_user(alice()).await.expect("created");
    let appended = store.append_history(PARTITION, epoch, &said).await;
    appended.expect("appended");
    assert_eq!(tail(&store).await, said);
}

#[tokio::test]
async fn copies_of_a_message_that_race_leave_the_one_with_the_smallest_id() {
    let (_emulator, store) = started().await;
    let epoch = take(&store).await;
    let copies: Vec<_> = (1..=4)
        .map(|millis| said(1, millis, epoch, Bytes::from(format!("copy {millis}"))))
        .collect();
    append_at_once(&store, epoch, &copies).await;
    assert_eq!(tail(&store).await, copies[..1]);
}

#[tokio::test]
async fn the_largest_batch_is_one_transaction() {
    let (_emulator, store) = started().await;
    let epoch = take(&store).await;
    let body = Bytes::from(vec![b'x'; 16 * 1024]);
    let batch: Vec<_> = (1..=200).map(|n| said(n, n, epoch, body.clone())).collect();
    // The second time, all of it is read and nothing written.
    for _ in 0..2 {
        let appended = store.append_history(PARTITION, epoch, &batch).await;
        appended.expect("appended");
        assert!(tail(&store).await == batch);
    }
}

#[tokio::test]
async fn ids_that_somebody_made_up_are_looked_up_like_others() {
    let (_emulator, store) = started().await;
    for text in ["", "..", "__id__", "a/b", "ä", &"a".repeat(3_000)] {
        let id = TokenFamilyId::from_text(text);
        assert_eq!(store.family(&id).await, Ok(None));
        let family = TokenFamily {
            id: id.clone(),
            user: user_name("alice"),
            current_hash: [1; 32],
            previous_hash: Some([2; 32]),
            rotated_at: 1,
            expires_at: 2,
            revoked: false,
            version: 1,
        };
        store.create_family(family.clone()).await.expect("created");
        assert_eq!(store.family(&id).await, Ok(Some(family)));
    }
}

#[tokio::test]
async fn a_prefix_that_no_name_has_lists_nothing() {
    let (_emulator, store) = started().await;
    let channel = Channel {
        name: general(),
        home_region: Region::new("us-west1").expect("valid"),
        created_by: user_name("alice"),
        created_at: 1,
        visibility: Visibility::Public,
        topic: String::new(),
        slow_reader: SlowReaderPolicy::DropOldest,
        version: 1,
    };
    let record = ChannelRecord {
        channel,
        members: BTreeSet::new(),
    };
    store.create_channel(record).await.expect("created");
    let bob = user_name("bob");
    for prefix in ["general", "#general/", "/", "##", "#é", &"#g".repeat(1_000)] {
        let listed = store.list_channels(&bob, prefix, None, 10).await;
        assert_eq!(listed, Ok(Vec::new()), "{prefix}");
    }
    for prefix in ["", "#", "#general"] {
        let listed = store.list_channels(&bob, prefix, None, 10).await;
        assert_eq!(listed.expect("listed").len(), 1, "{prefix}");
    }
}

/// Another client of the database.
async fn by_hand(emulator: &FirestoreEmulator) -> FirestoreDb {
    let options = FirestoreDbOptions::new("demo-infrachat".to_owned())
        .with_database_id("us-west1".to_owned())
        .with_firebase_api_url(format!("http://{}", emulator.address));
    let db = FirestoreDb::with_options_auth(options, Anonymous::new().build()).await;
    db.expect("connected")
}

/// Begins a transaction; the emulator numbers them.
async fn begin(db: &FirestoreDb) -> u64 {
    let request = BeginTransactionRequest {
        database: db.get_database_path().clone(),
        ..BeginTransactionRequest::default()
    };
    let begun = db.client().get().begin_transaction(request).await;
    let id = begun.expect("begun").into_inner().transaction;
    u64::from_be_bytes(id.try_into().expect("a number"))
}

async fn is_open(db: &FirestoreDb, transaction: u64) -> bool {
    let id = transaction.to_be_bytes().to_vec();
    let request = BatchGetDocumentsRequest {
        database: db.get_database_path().clone(),
        consistency_selector: Some(ConsistencySelector::Transaction(id)),
        ..BatchGetDocumentsRequest::default()
    };
    let read = db.client().get().batch_get_documents(request).await;
    read.is_ok()
}

#[tokio::test]
async fn a_transaction_that_writes_nothing_does_not_stay_open() {
    let (emulator, store) = started().await;
    let db = by_hand(&emulator).await;
    let holder = Lease {
        shard: ShardId::new("shard-a").expect("valid"),
        incarnation: OriginId::from_text("life"),
        endpoint: "shard-a.example:7003".to_owned(),
        zone: "us-west1-b".to_owned(),
        sessions: 0,
        state: LeaseState::Active,
    };
    store.begin_lease(holder).await.expect("begun");
    let epoch = take(&store).await;
    let written = [said(1, 1, epoch, Bytes::new())];
    let append = |epoch| store.append_history(PARTITION, epoch, &written);
    append(epoch).await.expect("appended");

    let before = begin(&db).await;
    let other = (
        ShardId::new("shard-b").expect("valid"),
        OriginId::from_text("other"),
    );
    let held = store.take_partition(PARTITION, &other.0, &other.1, PATIENCE);
    let held = held.await;
    assert!(matches!(held, Err(MetadataError::Held { .. })), "{held:?}");
    let fenced = append(Epoch(epoch.0 + 1)).await;
    assert!(
        matches!(fenced, Err(MetadataError::Fenced { .. })),
        "{fenced:?}"
    );
    append(epoch).await.expect("there already");
    let alone = store.suspect(&other.0, &other.1, PATIENCE).await;
    assert_eq!(alone, Ok(false));
    let after = begin(&db).await;

    assert_eq!(after - before - 1, 4, "each had one of its own");
    for transaction in before + 1..after {
        assert!(!is_open(&db, transaction).await, "{transaction} of {after}");
    }
    assert!(is_open(&db, before).await && is_open(&db, after).await);
}

#[tokio::test]
async fn a_message_that_is_there_twice_is_shown_once() {
    let (emulator, store) = started().await;
    let epoch = take(&store).await;
    let entries: Vec<_> = (1..=4)
        .map(|n| said(n, n, epoch, Bytes::from_static(b"hello")))
        .collect();
    let appended = store.append_history(PARTITION, epoch, &entries).await;
    appended.expect("appended");
    copy_first(&by_hand(&emulator).await, 5).await;
    let channel = general();

    assert_eq!(tail(&store).await, entries);
    let newest = store.history_tail(&channel, 2).await;
    assert_eq!(newest, Ok(entries[2..].to_vec()));
    // Page by page, of any size.
    for size in 1..=5 {
        let (mut forwards, mut place) = (Vec::new(), Offset(0));
        let (mut by_id, mut last) = (Vec::new(), MessageId::MIN);
        loop {
            let page = store.history_appended_after(&channel, epoch, place, size);
            let appended = page.await.expect("a page");
            let page = store.history(&channel, Direction::After(last), size);
            let sorted = page.await.expect("a page");
            assert_eq!(appended.more, sorted.more);
            place = appended.entries.last().expect("some").offset;
            last = sorted.entries.last().expect("some").message.message_id;
            forwards.extend(appended.entries);
            by_id.extend(sorted.entries);
            if !appended.more {
                break;
            }
        }
        assert_eq!((&forwards, &by_id), (&entries, &entries), "{size} a page");
    }
}

/// Copies the oldest message into documents of other names.
async fn copy_first(db: &FirestoreDb, copies: u32) {
    let request = ListDocumentsRequest {
        parent: format!("{}/channels-history/#general", db.get_documents_path()),
        collection_id: "messages".to_owned(),
        ..ListDocumentsRequest::default()
    };
    let listed = db.client().get().list_documents(request).await;
    let mut documents = listed.expect("listed").into_inner().documents;
    documents.sort_by(|a, b| a.name.cmp(&b.name));
    let first = documents.remove(0);
    let writes = (0..copies).map(|number| Write {
        operation: Some(Operation::Update(Document {
            name: format!("{}-copy-{number}", first.name),
            ..first.clone()
        })),
        ..Write::default()
    });
    let request = CommitRequest {
        database: db.get_database_path().clone(),
        writes: writes.collect(),
        ..CommitRequest::default()
    };
    db.client().get().commit(request).await.expect("copied");
}
