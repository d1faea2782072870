//! Gatekeeper, Switchboard and a shard that hands its streams to the test.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use infrachat_proto::{
    Refusal,
    chat::v1::{
        self as chat,
        server::chat_service_server::{ChatService, ChatServiceServer, SERVICE_NAME},
    },
    codec::Raw,
    gatekeeper::v1::{self as gatekeeper, gatekeeper_service_server::GatekeeperService},
    switchboard::v1::{self as switchboard, switchboard_service_server::SwitchboardService},
};
use infrachat_types::{ErrorCode, unix_millis};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    server::{Grpc, NamedService, StreamingService},
};
use tower::Service;

use crate::support::{Session, State, message};

pub(crate) struct Servers(pub(crate) Arc<State>);

impl Servers {
    fn session(&self, user: &str) -> gatekeeper::SessionResponse {
        let address = self.0.own_address.lock().expect("not poisoned").clone();
        let number = self.0.issued.fetch_add(1, Ordering::SeqCst);
        let other = self.0.other.lock().expect("not poisoned").clone();
        let regions = [("us-west1", Some(address)), ("asia-northeast1", other)];
        let regions = regions.into_iter().filter_map(|(region, address)| {
            Some(gatekeeper::RegionEndpoint {
                region: region.to_owned(),
                gatekeeper: address.clone()?,
                switchboard: address?,
            })
        });
        gatekeeper::SessionResponse {
            access_token: format!("access-{number}"),
            access_expires_at_ms: unix_millis()
                + i64::from(self.0.token_life_ms.load(Ordering::SeqCst)),
            refresh_token: format!("refresh-{number}"),
            refresh_expires_at_ms: unix_millis() + 86_400_000,
            user: user.to_owned(),
            regions: regions.collect(),
        }
    }

    fn wait_first(&self) -> Result<(), Status> {
        let busy = &self.0.busy;
        if busy.load(Ordering::SeqCst) > 0 {
            busy.fetch_sub(1, Ordering::SeqCst);
            let refusal = Refusal::new(ErrorCode::RateLimited, "wait");
            return Err(refusal.retry_after(Duration::from_millis(5)).into());
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl GatekeeperService for Servers {
    async fn register(
        &self,
        request: Request<gatekeeper::RegisterRequest>,
    ) -> Result<Response<gatekeeper::SessionResponse>, Status> {
        let request = request.into_inner();
        let mut users = self.0.users.lock().expect("not poisoned");
        if users.contains_key(&request.user) {
            return Err(Refusal::new(ErrorCode::UserExists, "taken").into());
        }
        users.insert(request.user.clone(), request.password);
        Ok(Response::new(self.session(&request.user)))
    }

    async fn login(
        &self,
        request: Request<gatekeeper::LoginRequest>,
    ) -> Result<Response<gatekeeper::SessionResponse>, Status> {
        self.wait_first()?;
        let request = request.into_inner();
        let users = self.0.users.lock().expect("not poisoned");
        if users.get(&request.user) != Some(&request.password) {
            return Err(Refusal::new(ErrorCode::BadCredentials, "wrong").into());
        }
        Ok(Response::new(self.session(&request.user)))
    }

    async fn refresh(
        &self,
        _: Request<gatekeeper::RefreshRequest>,
    ) -> Result<Response<gatekeeper::SessionResponse>, Status> {
        self.wait_first()?;
        Ok(Response::new(self.session("alice")))
    }

    async fn revoke(
        &self,
        _: Request<gatekeeper::RevokeRequest>,
    ) -> Result<Response<gatekeeper::RevokeResponse>, Status> {
        Ok(Response::new(gatekeeper::RevokeResponse {}))
    }
}

#[tonic::async_trait]
impl SwitchboardService for Servers {
    async fn resolve(
        &self,
        request: Request<switchboard::ResolveRequest>,
    ) -> Result<Response<switchboard::ResolveResponse>, Status> {
        self.0.resolved.fetch_add(1, Ordering::SeqCst);
        let address = self.0.own_address.lock().expect("not poisoned").clone();
        let mut scripted = self.0.routes.lock().expect("not poisoned");
        let routes =
            request
                .into_inner()
                .channels
                .into_iter()
                .map(|channel| match scripted.pop() {
                    Some(route) => switchboard::Route { channel, ..route },
                    None => switchboard::Route {
                        channel,
                        endpoint: address.clone(),
                        ..Default::default()
                    },
                });
        Ok(Response::new(switchboard::ResolveResponse {
            routes: routes.collect(),
        }))
    }

    async fn list_channels(
        &self,
        _: Request<switchboard::ListChannelsRequest>,
    ) -> Result<Response<switchboard::ListChannelsResponse>, Status> {
        Ok(Response::new(switchboard::ListChannelsResponse::default()))
    }
}

/// The shard: its calls are answered, and its streams handed to the test.
#[derive(Clone)]
pub(crate) struct Shard {
    state: Arc<State>,
    calls: ChatServiceServer<Servers>,
}

impl Shard {
    pub(crate) fn new(state: &Arc<State>) -> Self {
        Self {
            state: Arc::clone(state),
            calls: ChatServiceServer::new(Servers(Arc::clone(state))),
        }
    }
}

impl NamedService for Shard {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for Shard {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != "/infrachat.chat.v1.ChatService/Open" {
            return self.calls.call(request);
        }
        let streams = Streams(Arc::clone(&self.state));
        Box::pin(async move { Ok(Grpc::new(Raw).streaming(streams, request).await) })
    }
}

struct Streams(Arc<State>);

impl StreamingService<Bytes> for Streams {
    type Response = Bytes;
    type ResponseStream = ReceiverStream<Result<Bytes, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (events, outgoing) = mpsc::channel(1);
        let session = Session {
            frames: request.into_inner(),
            events,
        };
        let opened = self.0.opened.lock().expect("not poisoned").clone();
        Box::pin(async move {
            let handed_over = opened.expect("open").send(session).await;
            handed_over.map_err(|_| Status::unavailable("over"))?;
            Ok(Response::new(ReceiverStream::new(outgoing)))
        })
    }
}

#[tonic::async_trait]
impl ChatService for Servers {
    async fn create_channel(
        &self,
        _: Request<chat::CreateChannelRequest>,
    ) -> Result<Response<chat::CreateChannelResponse>, Status> {
        Err(Refusal::new(ErrorCode::ChannelExists, "join it").into())
    }

    async fn get_history(
        &self,
        _: Request<chat::GetHistoryRequest>,
    ) -> Result<Response<chat::GetHistoryResponse>, Status> {
        let messages = vec![message("bob", [9; 16], "earlier", "p")];
        Ok(Response::new(chat::GetHistoryResponse {
            messages,
            more: true,
        }))
    }

    async fn list_members(
        &self,
        _: Request<chat::ListMembersRequest>,
    ) -> Result<Response<chat::ListMembersResponse>, Status> {
        Ok(Response::new(chat::ListMembersResponse::default()))
    }
}
