//! No password and no token is ever logged, at any level.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
};

use infrachat_bus::{FabricConfig, MemoryFabric};
use infrachat_control::Hearing;
use infrachat_gatekeeper::{Config, Dependencies, Gatekeeper};
use infrachat_identity::{KeyRing, MemoryLimiter, MemoryRevocations, SigningKey};
use infrachat_metadata::{MemoryMetadata, Metadata, Users as _};
use infrachat_proto::gatekeeper::v1::{
    LoginRequest, RefreshRequest, RegisterRequest, RevokeRequest, SessionResponse,
    gatekeeper_service_client::GatekeeperServiceClient,
};
use infrachat_types::{Region, UserName};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.write(line)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Captured {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Captured {
    fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&lines).into_owned()
    }
}

const PASSWORD: &str = "swordfish-7731";
const WRONG_PASSWORD: &str = "marlin-9942";
const SHORT_PASSWORD: &str = "eel-313";

#[tokio::test]
async fn no_password_and_no_token_is_ever_logged() {
    let captured = Captured::default();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(captured.clone())
        .init();
    let region = Region::new("us-west1").expect("a region");
    let store = Arc::new(MemoryMetadata::new());
    let fabric = MemoryFabric::new(FabricConfig::default());
    let dependencies = Dependencies {
        region: region.clone(),
        stores: BTreeMap::from([(region.clone(), Arc::clone(&store) as Arc<dyn Metadata>)]),
        bus: Arc::new(fabric.bus("us-west1")),
        limiter: Arc::new(MemoryLimiter::new()),
        revocations: Arc::new(MemoryRevocations::new()),
        hearing: Hearing::Pull,
        keys: KeyRing::new(SigningKey::generate().expect("a key")),
    };
    let gatekeeper = Gatekeeper::bind(Config::default(), dependencies).await;
    let gatekeeper = gatekeeper.expect("binds");
    let address = gatekeeper.address();
    let stop = CancellationToken::new();
    let running = tokio::spawn(gatekeeper.run(stop.clone()));
    let mut client = GatekeeperServiceClient::connect(format!("http://{address}"))
        .await
        .expect("connects");

    let user = || "alice".to_owned();
    let register = |password: &str| RegisterRequest {
        user: user(),
        password: password.to_owned(),
    };
    let login = |password: &str| LoginRequest {
        user: user(),
        password: password.to_owned(),
    };
    let refresh = |session: &SessionResponse| RefreshRequest {
        refresh_token: session.refresh_token.clone(),
    };
    let refused = client.register(register(SHORT_PASSWORD)).await;
    refused.expect_err("is too short");
    let first = client.register(register(PASSWORD)).await;
    let first = first.expect("registers").into_inner();
    let refused = client.login(login(WRONG_PASSWORD)).await;
    refused.expect_err("is wrong");
    let second = client.login(login(PASSWORD)).await;
    let second = second.expect("signs in").into_inner();
    let third = client.refresh(refresh(&second)).await;
    let third = third.expect("refreshes").into_inner();
    let fourth = client.refresh(refresh(&third)).await;
    let fourth = fourth.expect("refreshes").into_inner();
    let reused = client.refresh(refresh(&second)).await;
    reused.expect_err("was used before");
    let revoke = RevokeRequest {
        refresh_token: first.refresh_token.clone(),
        everywhere: true,
    };
    client.revoke(revoke).await.expect("signs out");
    stop.cancel();
    drop(client);
    let ended = running.await.expect("ends");
    ended.expect("without an error");

    let name = UserName::new("alice").expect("a name");
    let record = store.user(&name).await.expect("available");
    let hash = record.expect("is there").password_hash;
    let mut secrets = vec![PASSWORD, WRONG_PASSWORD, SHORT_PASSWORD, &hash];
    for session in [&first, &second, &third, &fourth] {
        let (_, secret) = session.refresh_token.rsplit_once('.').expect("parts");
        let (_, signature) = session.access_token.rsplit_once('.').expect("parts");
        secrets.extend([secret, signature]);
    }
    let log = captured.text();
    assert!(
        log.contains("refused") && log.contains("signed in"),
        "the log was captured"
    );
    for line in log.lines() {
        let leaked = secrets.iter().any(|secret| line.contains(secret));
        assert!(!leaked, "a secret is in the log: {line}");
    }
}
