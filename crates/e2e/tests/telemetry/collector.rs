//! Takes spans as a collector does.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, transport::Server};

/// A span, and who sent it.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) service: String,
    pub(crate) region: String,
    pub(crate) shard: String,
    pub(crate) span: Span,
}

impl Sent {
    /// The text of one of the span's attributes.
    pub(crate) fn attribute(&self, name: &str) -> String {
        text(&self.span.attributes, name)
    }
}

/// A collector that keeps what it is sent.
#[derive(Debug)]
pub(crate) struct Collector {
    /// `http://host:port`.
    pub(crate) endpoint: String,
    sent: Arc<Mutex<Vec<Sent>>>,
    _stop: DropGuard,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let sent = Arc::default();
        let (stop, service) = (CancellationToken::new(), Service(Arc::clone(&sent)));
        let serving = Server::builder()
            .add_service(TraceServiceServer::new(service))
            .serve_with_incoming_shutdown(
                TcpListenerStream::new(listener),
                stop.clone().cancelled_owned(),
            );
        tokio::spawn(serving);
        Self {
            endpoint,
            sent,
            _stop: stop.drop_guard(),
        }
    }

    /// What came so far.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.clone()
    }
}

#[derive(Debug)]
struct Service(Arc<Mutex<Vec<Sent>>>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for of_process in request.into_inner().resource_spans {
            let resource = of_process.resource.unwrap_or_default().attributes;
            for span in of_process
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans)
            {
                sent.push(Sent {
                    service: text(&resource, "service.name"),
                    region: text(&resource, "cloud.region"),
                    shard: text(&resource, "service.instance.id"),
                    span,
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn text(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == name);
    let value = found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref());
    match value {
        Some(Value::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}
