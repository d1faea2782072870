//! The port's gRPC service: streams are opened here, and all else is answered by generated code.
//!
//! tonic would copy every frame of a stream once for every reader. Here what is sent is framed once,
//! and handed to the connection as it is.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use infrachat_proto::chat::v1::server::chat_service_server::{ChatServiceServer, SERVICE_NAME};
use infrachat_runtime::Line;
use tokio_util::task::TaskTracker;
use tonic::{body::Body, server::NamedService};
use tower::Service;

use crate::{grpc::Chat, inbound::Inbound, parts::Parts, session};

const OPEN: &str = "/infrachat.chat.v1.ChatService/Open";
/// Bytes of a client's frame: the longest body that a shard may be set to take, and what is beside it.
/// A body that this shard does not take is then refused by name.
const LARGEST_FRAME: usize = (1024 + 64) * 1024;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    parts: Arc<Parts>,
    sessions: TaskTracker,
    calls: ChatServiceServer<Chat>,
}

impl Gate {
    pub(crate) fn new(parts: &Arc<Parts>, sessions: &TaskTracker) -> Self {
        let chat = Chat {
            parts: Arc::clone(parts),
        };
        Self {
            parts: Arc::clone(parts),
            sessions: sessions.clone(),
            calls: ChatServiceServer::new(chat),
        }
    }

    fn open(&self, request: Request<Body>) -> Response<Body> {
        let line = request.extensions().get::<Line>().cloned();
        let inbound = Inbound::new(request.into_body(), LARGEST_FRAME);
        let (session, body) = session::open(&self.parts, inbound, line);
        self.sessions.spawn(session);
        let mut response = Response::new(Body::new(body));
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(CONTENT_TYPE, grpc);
        response
    }
}

impl NamedService for Gate {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<Request<Body>> for Gate {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() == OPEN {
            Box::pin(std::future::ready(Ok(self.open(request))))
        } else {
            self.calls.call(request)
        }
    }
}
