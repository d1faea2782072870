//! Who may ask, and what may be asked without a token.

use std::{sync::Arc, time::Duration};

use infrachat_identity::{
    Claims, KeyRing, MemoryRevocations, Revocation, Revocations, RevocationsUnavailable, SigningKey,
};
use infrachat_proto::{
    Refusal,
    switchboard::v1::{ListChannelsRequest, ResolveRequest},
};
use infrachat_types::{ErrorCode, unix_millis};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{Request, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::world::{World, family, uncached, user_name, with_token};

async fn refused(world: &World, request: impl Fn() -> Request<()>) -> [ErrorCode; 2] {
    let mut client = world.client.clone();
    let resolve = client
        .resolve(request().map(|()| ResolveRequest::default()))
        .await;
    let list = client
        .list_channels(request().map(|()| ListChannelsRequest::default()))
        .await;
    [resolve.expect_err("refused"), list.expect_err("refused")]
        .map(|status| Refusal::from_status(&status).code)
}

#[tokio::test]
async fn every_call_without_a_token_is_refused() {
    let world = World::start().await;
    assert_eq!(
        refused(&world, || Request::new(())).await,
        [ErrorCode::Unauthenticated; 2]
    );
    let basic = || {
        let mut request = Request::new(());
        let value = "Basic YWxpY2U6c2VjcmV0".parse().expect("a header");
        request.metadata_mut().insert("authorization", value);
        request
    };
    assert_eq!(
        refused(&world, basic).await,
        [ErrorCode::Unauthenticated; 2]
    );
}

#[tokio::test]
async fn every_call_with_a_forged_token_is_refused() {
    let world = World::start().await;
    let forger = KeyRing::new(SigningKey::generate().expect("a key"));
    let forged = World::token(&forger, "alice", Duration::ZERO);
    assert_eq!(
        refused(&world, || with_token((), &forged)).await,
        [ErrorCode::Unauthenticated; 2]
    );
}

#[tokio::test]
async fn every_call_with_an_expired_token_is_told_to_refresh_it() {
    let world = World::start().await;
    let expired = World::token(&world.keys, "alice", Duration::from_secs(3_600));
    assert_eq!(
        refused(&world, || with_token((), &expired)).await,
        [ErrorCode::TokenExpired; 2]
    );
}

#[tokio::test]
async fn every_call_with_a_revoked_token_is_refused() {
    let revocations = Arc::new(MemoryRevocations::new());
    let world = World::with_revocations(uncached(), revocations.clone()).await;
    let token = World::token(&world.keys, "alice", Duration::ZERO);
    world.try_resolve(&[]).await.expect("not revoked yet");
    let later = unix_millis() + 60_000;
    let revocation = Revocation {
        user: user_name("alice"),
        family: Some(family()),
        issued_until: later,
        forget_after: later,
    };
    revocations.revoke(revocation).await.expect("available");
    assert_eq!(
        refused(&world, || with_token((), &token)).await,
        [ErrorCode::TokenRevoked; 2]
    );
    let other = world.list("bob", ListChannelsRequest::default()).await;
    other.expect("the token of somebody else is good");
}

/// Revocations that fail at once, or never answer.
#[derive(Debug)]
struct Away {
    hangs: bool,
}

#[async_trait::async_trait]
impl Revocations for Away {
    async fn revoke(&self, _: Revocation) -> Result<(), RevocationsUnavailable> {
        self.all().await.map(drop)
    }

    async fn is_revoked(&self, _: &Claims) -> Result<bool, RevocationsUnavailable> {
        self.all().await.map(|_| false)
    }

    async fn all(&self) -> Result<Vec<Revocation>, RevocationsUnavailable> {
        if self.hangs {
            return std::future::pending().await;
        }
        Err(RevocationsUnavailable("set so".to_owned()))
    }
}

#[tokio::test]
async fn routes_and_lists_are_served_while_the_revocations_are_away() {
    for hangs in [false, true] {
        let world = World::with_revocations(uncached(), Arc::new(Away { hangs })).await;
        world.serve(0, "#general").await;
        let route = world.resolve("#general").await;
        assert_ne!(route.shard, "", "{route:?}");
        let listed = world.list("alice", ListChannelsRequest::default()).await;
        listed.expect("listed");
        let forger = KeyRing::new(SigningKey::generate().expect("a key"));
        let forged = World::token(&forger, "alice", Duration::ZERO);
        assert_eq!(
            refused(&world, || with_token((), &forged)).await,
            [ErrorCode::Unauthenticated; 2]
        );
    }
}

#[tokio::test]
async fn health_is_told_without_a_token_over_grpc_and_http() {
    let world = World::start().await;
    let channel = Endpoint::from_shared(format!("http://{}", world.address))
        .expect("an address")
        .connect()
        .await
        .expect("connects");
    let mut health = HealthClient::new(channel);
    let request = HealthCheckRequest {
        service: "infrachat.switchboard.v1.SwitchboardService".to_owned(),
    };
    let answer = health.check(request).await.expect("an answer").into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);

    let mut stream = TcpStream::connect(world.address).await.expect("connects");
    let request = "GET /healthz HTTP/1.1\r\nHost: switchboard\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn it_stops_when_told() {
    let World {
        stop,
        running,
        client,
        ..
    } = World::start().await;
    stop.cancel();
    drop(client);
    running.await.expect("ends by itself");
}
