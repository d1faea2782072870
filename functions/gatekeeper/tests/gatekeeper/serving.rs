//! One port: gRPC, health, and plain HTTP.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::world::World;

async fn get(world: &World, path: &str) -> String {
    let address = world.west.http.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let sent = stream.write_all(request.as_bytes()).await;
    sent.expect("is sent");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer).await;
    read.expect("is answered");
    answer.to_ascii_lowercase()
}

#[tokio::test]
async fn plain_http_1_is_answered_on_the_same_port() {
    let world = World::start().await;
    let healthz = get(&world, "/healthz").await;
    assert!(healthz.starts_with("http/1.1 200"), "{healthz}");
    let keys = get(&world, "/.well-known/jwks.json").await;
    assert!(keys.starts_with("http/1.1 200"), "{keys}");
    assert!(keys.contains("cache-control: public, max-age="), "{keys}");
    assert!(keys.contains("content-type: application/jwk-set+json"));
    assert!(keys.contains(r#""crv":"ed25519""#) && !keys.contains(r#""d":"#));
}

#[tokio::test]
async fn the_service_says_that_it_serves() {
    let world = World::start().await;
    for service in ["", "infrachat.gatekeeper.v1.GatekeeperService"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = HealthClient::new(world.west.channel.clone())
            .check(request)
            .await;
        let status = answer.expect("answers").into_inner().status();
        assert_eq!(status, ServingStatus::Serving);
    }
}
