//! A running emulator, clients of it, and short ways to write requests.

use std::{collections::HashMap, future::Future, time::Duration};

use firestore::{FirestoreDb, FirestoreDbOptions};
use gcloud_sdk::google::firestore::v1::{
    self as api, Document, Precondition, Value, Write, firestore_client::FirestoreClient,
    precondition::ConditionType, value::ValueType, write::Operation,
};
use infrachat_emulators::{
    faults::Faults,
    firestore::{Config, Emulator, History},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

pub(crate) const DATABASE: &str = "projects/emulated/databases/(default)";

pub(crate) type Raw = FirestoreClient<InterceptedService<Channel, AsOwner>>;

/// The headers that Google's clients send: their emulator wants an owner's for some calls, and the database's for `Listen`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AsOwner;

impl Interceptor for AsOwner {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let headers = request.metadata_mut();
        headers.insert("authorization", MetadataValue::from_static("Bearer owner"));
        headers.insert(
            "google-cloud-resource-prefix",
            MetadataValue::from_static(DATABASE),
        );
        Ok(request)
    }
}

/// Longer than anything here takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running emulator.
pub(crate) struct Running {
    pub(crate) url: String,
    /// Ours runs until dropped.
    _stop: Option<DropGuard>,
}

/// The emulator that `INFRACHAT_TEST_FIRESTORE` names, with nothing in it, else one of ours. Tests share a named one: run
/// them one at a time.
pub(crate) async fn start() -> Running {
    let Some(address) = std::env::var_os("INFRACHAT_TEST_FIRESTORE") else {
        return start_ours(History::default()).await.0;
    };
    let url = format!("http://{}", address.into_string().expect("an address"));
    for database in ["(default)", "us-west1", "asia-northeast1"] {
        let documents =
            format!("{url}/emulator/v1/projects/emulated/databases/{database}/documents");
        let emptied = reqwest::Client::new().delete(documents).send().await;
        let emptied = emptied.expect("the emulator listens");
        assert!(emptied.status().is_success(), "{database} is not emptied");
    }
    Running { url, _stop: None }
}

/// One of ours, with faults on demand and as much of the past as it is told to keep.
pub(crate) async fn start_ours(history: History) -> (Running, Faults) {
    let faults = Faults::default();
    let emulator = Emulator::bind(Config {
        address: "127.0.0.1:0".to_owned(),
        faults: faults.clone(),
        history,
    })
    .await
    .expect("a free port");
    let url = format!("http://{}", emulator.address());
    let stop = CancellationToken::new();
    tokio::spawn(emulator.run(stop.clone()));
    let running = Running {
        url,
        _stop: Some(stop.drop_guard()),
    };
    (running, faults)
}

impl Running {
    /// A plain gRPC client.
    pub(crate) async fn raw(&self) -> Raw {
        let channel = Endpoint::from_shared(self.url.clone()).expect("an address");
        let channel = channel.connect().await.expect("the emulator listens");
        FirestoreClient::with_interceptor(channel, AsOwner)
            .max_encoding_message_size(64 * 1024 * 1024)
    }

    /// The `firestore` crate's client of one database.
    pub(crate) async fn db(&self, database: &str) -> FirestoreDb {
        let options = FirestoreDbOptions::new("emulated".to_owned())
            .with_database_id(database.to_owned())
            .with_firebase_api_url(self.url.clone())
            .with_request_timeout(PATIENCE);
        let anonymous =
            gcloud_sdk::google_cloud_auth::credentials::anonymous::Builder::new().build();
        FirestoreDb::with_options_auth(options, anonymous)
            .await
            .expect("the emulator listens")
    }
}

/// Gives up on what should have come long ago.
pub(crate) async fn soon<T>(waiting: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("it should have come by now")
}

pub(crate) fn name(path: &str) -> String {
    format!("{DATABASE}/documents/{path}")
}

pub(crate) fn root() -> String {
    format!("{DATABASE}/documents")
}

pub(crate) fn value(value: ValueType) -> Value {
    Value {
        value_type: Some(value),
    }
}

pub(crate) fn int(number: i64) -> Value {
    value(ValueType::IntegerValue(number))
}

pub(crate) fn text(text: &str) -> Value {
    value(ValueType::StringValue(text.to_owned()))
}

pub(crate) fn fields<const N: usize>(fields: [(&str, Value); N]) -> HashMap<String, Value> {
    fields.map(|(name, value)| (name.to_owned(), value)).into()
}

pub(crate) fn document<const N: usize>(path: &str, values: [(&str, Value); N]) -> Document {
    Document {
        name: name(path),
        fields: fields(values),
        ..Document::default()
    }
}

pub(crate) fn set<const N: usize>(path: &str, values: [(&str, Value); N]) -> Write {
    Write {
        operation: Some(Operation::Update(document(path, values))),
        ..Write::default()
    }
}

pub(crate) fn remove(path: &str) -> Write {
    Write {
        operation: Some(Operation::Delete(name(path))),
        ..Write::default()
    }
}

pub(crate) fn only_if(write: Write, condition: ConditionType) -> Write {
    Write {
        current_document: Some(Precondition {
            condition_type: Some(condition),
        }),
        ..write
    }
}

pub(crate) fn commit(writes: Vec<Write>) -> api::CommitRequest {
    api::CommitRequest {
        database: DATABASE.to_owned(),
        writes,
        ..api::CommitRequest::default()
    }
}

/// Commits what must succeed.
pub(crate) async fn write(raw: &mut Raw, writes: Vec<Write>) -> api::CommitResponse {
    raw.commit(commit(writes))
        .await
        .expect("the writes are accepted")
        .into_inner()
}

/// The field `n` of a document; none if there is no such document.
pub(crate) async fn number(raw: &mut Raw, path: &str) -> Option<i64> {
    let request = api::GetDocumentRequest {
        name: name(path),
        ..api::GetDocumentRequest::default()
    };
    match raw.get_document(request).await {
        Ok(found) => number_of(&found.into_inner()),
        Err(status) if status.code() == tonic::Code::NotFound => None,
        Err(status) => panic!("{status}"),
    }
}

pub(crate) fn number_of(document: &Document) -> Option<i64> {
    match document.fields.get("n")?.value_type {
        Some(ValueType::IntegerValue(number)) => Some(number),
        _ => None,
    }
}
