//! The gRPC service: every method, by what it does.

mod reads;
mod write_stream;
mod writes;

use std::{pin::Pin, sync::Arc};

use prost::Message;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    database::{Consistency, Databases},
    error::{Error, Result as Checked},
    limits, listen,
    proto::v1::{self, firestore_server::Firestore},
};
use crate::faults::{Faults, Service as Faulty};

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Firestore, as clients see it.
#[derive(Debug)]
pub(super) struct Service {
    databases: Arc<Databases>,
    faults: Faults,
    /// Ends the streams.
    stop: CancellationToken,
}

impl Service {
    pub(super) fn new(databases: Arc<Databases>, faults: Faults, stop: CancellationToken) -> Self {
        Self {
            databases,
            faults,
            stop,
        }
    }

    async fn admit(&self, method: &str) -> Result<(), Status> {
        self.faults.admit(Faulty::Firestore, method).await
    }
}

/// A stream of answers that are all known.
fn stream<T: Send + 'static>(answers: Vec<T>) -> Response<Answers<T>> {
    Response::new(Box::pin(tokio_stream::iter(answers.into_iter().map(Ok))))
}

/// Refuses requests that are too large.
fn check_size(request: &impl Message) -> Checked<()> {
    if request.encoded_len() > limits::MAX_REQUEST_BYTES {
        return Err(Error::invalid(format!(
            "Request payload size exceeds the limit: {} bytes.",
            limits::MAX_REQUEST_BYTES
        )));
    }
    Ok(())
}

#[tonic::async_trait]
impl Firestore for Service {
    async fn get_document(&self, request: Request<v1::GetDocumentRequest>) -> Answer<v1::Document> {
        self.admit("GetDocument").await?;
        Ok(Response::new(reads::get(
            &self.databases,
            request.into_inner(),
        )?))
    }

    async fn list_documents(
        &self,
        request: Request<v1::ListDocumentsRequest>,
    ) -> Answer<v1::ListDocumentsResponse> {
        self.admit("ListDocuments").await?;
        Ok(Response::new(reads::list(
            &self.databases,
            request.into_inner(),
        )?))
    }

    async fn update_document(
        &self,
        request: Request<v1::UpdateDocumentRequest>,
    ) -> Answer<v1::Document> {
        self.admit("UpdateDocument").await?;
        Ok(Response::new(writes::update(
            &self.databases,
            request.into_inner(),
        )?))
    }

    async fn delete_document(&self, request: Request<v1::DeleteDocumentRequest>) -> Answer<()> {
        self.admit("DeleteDocument").await?;
        Ok(Response::new(writes::delete(
            &self.databases,
            request.into_inner(),
        )?))
    }

    type BatchGetDocumentsStream = Answers<v1::BatchGetDocumentsResponse>;

    async fn batch_get_documents(
        &self,
        request: Request<v1::BatchGetDocumentsRequest>,
    ) -> Answer<Self::BatchGetDocumentsStream> {
        self.admit("BatchGetDocuments").await?;
        Ok(stream(reads::batch_get(
            &self.databases,
            request.into_inner(),
        )?))
    }

    async fn begin_transaction(
        &self,
        request: Request<v1::BeginTransactionRequest>,
    ) -> Answer<v1::BeginTransactionResponse> {
        self.admit("BeginTransaction").await?;
        let request = request.into_inner();
        let transaction = self
            .databases
            .by_name(&request.database)?
            .begin(request.options)?;
        Ok(Response::new(v1::BeginTransactionResponse { transaction }))
    }

    async fn commit(&self, request: Request<v1::CommitRequest>) -> Answer<v1::CommitResponse> {
        self.admit("Commit").await?;
        Ok(Response::new(writes::commit(
            &self.databases,
            request.into_inner(),
        )?))
    }

    async fn rollback(&self, request: Request<v1::RollbackRequest>) -> Answer<()> {
        self.admit("Rollback").await?;
        let request = request.into_inner();
        self.databases
            .by_name(&request.database)?
            .rollback(&request.transaction)?;
        Ok(Response::new(()))
    }

    type RunQueryStream = Answers<v1::RunQueryResponse>;

    async fn run_query(
        &self,
        request: Request<v1::RunQueryRequest>,
    ) -> Answer<Self::RunQueryStream> {
        self.admit("RunQuery").await?;
        Ok(stream(reads::query(&self.databases, request.into_inner())?))
    }

    type ExecutePipelineStream = Answers<v1::ExecutePipelineResponse>;

    async fn execute_pipeline(
        &self,
        _request: Request<v1::ExecutePipelineRequest>,
    ) -> Answer<Self::ExecutePipelineStream> {
        Err(Status::unimplemented(
            "Pipelines are not available in this emulator.",
        ))
    }

    type RunAggregationQueryStream = Answers<v1::RunAggregationQueryResponse>;

    async fn run_aggregation_query(
        &self,
        request: Request<v1::RunAggregationQueryRequest>,
    ) -> Answer<Self::RunAggregationQueryStream> {
        self.admit("RunAggregationQuery").await?;
        Ok(stream(vec![reads::aggregate(
            &self.databases,
            request.into_inner(),
        )?]))
    }

    async fn partition_query(
        &self,
        request: Request<v1::PartitionQueryRequest>,
    ) -> Answer<v1::PartitionQueryResponse> {
        self.admit("PartitionQuery").await?;
        Ok(Response::new(reads::partition(
            &self.databases,
            request.into_inner(),
        )?))
    }

    type WriteStream = Answers<v1::WriteResponse>;

    async fn write(
        &self,
        request: Request<Streaming<v1::WriteRequest>>,
    ) -> Answer<Self::WriteStream> {
        self.admit("Write").await?;
        Ok(Response::new(write_stream::open(
            self.databases.clone(),
            self.faults.clone(),
            request.into_inner(),
            self.stop.clone(),
        )))
    }

    type ListenStream = Answers<v1::ListenResponse>;

    async fn listen(
        &self,
        request: Request<Streaming<v1::ListenRequest>>,
    ) -> Answer<Self::ListenStream> {
        self.admit("Listen").await?;
        Ok(Response::new(listen::open(
            self.databases.clone(),
            self.faults.clone(),
            request.into_inner(),
            self.stop.clone(),
        )))
    }

    async fn list_collection_ids(
        &self,
        request: Request<v1::ListCollectionIdsRequest>,
    ) -> Answer<v1::ListCollectionIdsResponse> {
        self.admit("ListCollectionIds").await?;
        Ok(Response::new(reads::collection_ids(
            &self.databases,
            request.into_inner(),
        )?))
    }

    async fn batch_write(
        &self,
        request: Request<v1::BatchWriteRequest>,
    ) -> Answer<v1::BatchWriteResponse> {
        self.admit("BatchWrite").await?;
        Ok(Response::new(writes::batch(
            &self.databases,
            request.into_inner(),
        )?))
    }

    async fn create_document(
        &self,
        request: Request<v1::CreateDocumentRequest>,
    ) -> Answer<v1::Document> {
        self.admit("CreateDocument").await?;
        Ok(Response::new(writes::create(
            &self.databases,
            request.into_inner(),
        )?))
    }
}

/// Reads a request's choice of consistency; none means now.
macro_rules! consistency {
    ($($request:ident: $($choice:ident),+;)+) => {$(
        impl From<Option<v1::$request::ConsistencySelector>> for Consistency {
            fn from(selector: Option<v1::$request::ConsistencySelector>) -> Self {
                match selector {
                    None => Self::Now,
                    $(Some(v1::$request::ConsistencySelector::$choice(value)) => {
                        consistency!(@ $choice value)
                    })+
                }
            }
        }
    )+};
    (@ ReadTime $value:ident) => { Self::At($value) };
    (@ Transaction $value:ident) => { Self::Transaction($value) };
    (@ NewTransaction $value:ident) => { Self::NewTransaction($value) };
}

consistency! {
    get_document_request: Transaction, ReadTime;
    list_documents_request: Transaction, ReadTime;
    batch_get_documents_request: Transaction, NewTransaction, ReadTime;
    run_query_request: Transaction, NewTransaction, ReadTime;
    run_aggregation_query_request: Transaction, NewTransaction, ReadTime;
    partition_query_request: ReadTime;
    list_collection_ids_request: ReadTime;
}
