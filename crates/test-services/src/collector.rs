//! Takes spans as a collector does.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

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
pub struct Sent {
    /// The program.
    pub service: String,
    /// Its region.
    pub region: String,
    /// Its slot's name, if it is a shard.
    pub shard: String,
    /// What it sent.
    pub span: Span,
}

impl Sent {
    /// The text of one of the span's attributes; empty if it has none.
    #[must_use]
    pub fn attribute(&self, name: &str) -> String {
        text(&self.span.attributes, name)
    }

    /// Whether the span has an attribute that is true.
    #[must_use]
    pub fn is_true(&self, name: &str) -> bool {
        matches!(
            value(&self.span.attributes, name),
            Some(Value::BoolValue(true))
        )
    }
}

/// A collector that keeps what it is sent; it ends when this is dropped.
#[derive(Debug)]
pub struct Collector {
    /// `http://host:port`.
    pub endpoint: String,
    sent: Arc<Mutex<Vec<Sent>>>,
    _stop: DropGuard,
}

impl Collector {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let sent = Arc::default();
        let (stop, service) = (CancellationToken::new(), Service(Arc::clone(&sent)));
        let serving = Server::builder()
            .add_service(TraceServiceServer::new(service))
            .serve_with_incoming_shutdown(
                TcpListenerStream::new(listener),
                stop.clone().cancelled_owned(),
            );
        tokio::spawn(serving);
        Ok(Self {
            endpoint,
            sent,
            _stop: stop.drop_guard(),
        })
    }

    /// What came so far.
    #[must_use]
    pub fn sent(&self) -> Vec<Sent> {
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
    match value(attributes, name) {
        Some(Value::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

fn value<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    found.value.as_ref()?.value.as_ref()
}
