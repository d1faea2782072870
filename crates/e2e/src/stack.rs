//! A stack for one test.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    time::Duration,
};

use infrachat_client::{Client, Options, Password, SignIn};
use infrachat_local::{LocalConfig, LocalStack, Ports, RegionConfig};
use infrachat_proto::{
    Refusal,
    chat::v1::{self as chat, chat_service_client::ChatServiceClient},
    gatekeeper::v1::{self as gatekeeper, gatekeeper_service_client::GatekeeperServiceClient},
    switchboard::v1::{self as switchboard, switchboard_service_client::SwitchboardServiceClient},
};
use infrachat_types::{ChannelName, Region, UserName, WallClock};
use tonic::{Request, transport::Channel};

use crate::{
    RawSession,
    backends::{self, Backends, partitions},
};

/// The regions of a stack, by index.
pub const REGIONS: [&str; 2] = ["us-west1", "asia-northeast1"];
/// Index of us-west1 in a stack's regions.
pub const WEST: usize = 0;
/// Index of asia-northeast1 in a stack's regions.
pub const ASIA: usize = 1;

const PASSWORD: &str = "correct horse";

/// A user's name.
#[must_use]
pub fn user(name: &str) -> UserName {
    UserName::new(name).expect("a valid user name")
}

/// A channel's name.
#[must_use]
pub fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).expect("a valid channel name")
}

/// Two regions on free ports.
#[derive(Debug)]
pub struct TestStack {
    stack: LocalStack,
    backends: Backends,
}

impl Deref for TestStack {
    type Target = LocalStack;
    fn deref(&self) -> &LocalStack {
        &self.stack
    }
}

impl DerefMut for TestStack {
    fn deref_mut(&mut self) -> &mut LocalStack {
        &mut self.stack
    }
}

impl TestStack {
    /// Two regions with two shards each, as tests need them.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same, with a changed configuration.
    pub async fn start_with(change: impl FnOnce(&mut LocalConfig)) -> Self {
        infrachat_runtime::telemetry::init(&backends::Options::of_the_run().log);
        let ports = || Ports {
            shards: vec![0, 0],
            ..Ports::default()
        };
        let region = |name| RegionConfig {
            region: Region::new(name).expect("valid"),
            ports: ports(),
            clock: WallClock::default(),
        };
        let mut config = LocalConfig::two_regions(REGIONS.map(region).into());
        config.tuning.lease_ttl = Duration::from_secs(3);
        config.tuning.lease_renewal = Duration::from_millis(200);
        config.tuning.drain = Duration::from_secs(1);
        config.partitions = partitions();
        change(&mut config);
        let backends = Backends::start(&config).await;
        let mut parts = BTreeMap::new();
        for RegionConfig { region, .. } in &config.regions {
            parts.insert(region.clone(), backends.parts(region).await);
        }
        let stack = LocalStack::start_on(config, |region| parts[region].clone()).await;
        Self {
            stack: stack.expect("the stack starts"),
            backends,
        }
    }

    /// Cuts the regions' buses off from each other, until [`TestStack::heal`].
    pub fn cut(&self) {
        self.set_cut(true);
    }

    /// Joins the regions' buses again.
    pub fn heal(&self) {
        self.set_cut(false);
    }

    fn set_cut(&self, cut: bool) {
        let region = |index: usize| &self.regions[index].region;
        self.backends.set_cut(region(WEST), region(ASIA), cut);
    }

    /// Takes a region's bus away from everyone, or gives it back.
    pub fn set_bus_down(&self, region: usize, down: bool) {
        self.backends.set_down(&self.regions[region].region, down);
    }

    /// Signs in through a region with the client library, registering the user if need be.
    pub async fn client(&self, region: usize, name: &str) -> Client {
        let options = self.options(region, name);
        Client::connect(options).await.expect("signs in")
    }

    /// How a client signs in through a region, registering the user if need be.
    pub fn options(&self, region: usize, name: &str) -> Options {
        let gatekeeper = self.regions[region].gatekeeper.to_string();
        let mut options = Options::new(gatekeeper, user(name), Password::new(PASSWORD));
        options.sign_in = SignIn::LoginOrRegister;
        options
    }

    /// Gatekeeper of a region, by hand.
    pub async fn gatekeeper(&self, region: usize) -> GatekeeperServiceClient<Channel> {
        let endpoint = format!("http://{}", self.regions[region].gatekeeper);
        GatekeeperServiceClient::connect(endpoint)
            .await
            .expect("connects")
    }

    /// Registers a user, and answers the tokens.
    pub async fn register(&self, region: usize, name: &str) -> gatekeeper::SessionResponse {
        let request = gatekeeper::RegisterRequest {
            user: name.to_owned(),
            password: PASSWORD.to_owned(),
        };
        let mut gatekeeper = self.gatekeeper(region).await;
        gatekeeper
            .register(request)
            .await
            .expect("registers")
            .into_inner()
    }

    /// Where a channel is served in a region.
    pub async fn resolve(&self, region: usize, token: &str, name: &str) -> switchboard::Route {
        let endpoint = format!("http://{}", self.regions[region].switchboard);
        let mut switchboard = SwitchboardServiceClient::connect(endpoint)
            .await
            .expect("connects");
        let request = switchboard::ResolveRequest {
            channels: vec![name.to_owned()],
        };
        let response = switchboard
            .resolve(bearer(token, request))
            .await
            .expect("resolves");
        response.into_inner().routes.remove(0)
    }

    /// The chat service of a shard, by hand.
    pub async fn chat(&self, endpoint: &str) -> ChatServiceClient<Channel> {
        ChatServiceClient::connect(format!("http://{endpoint}"))
            .await
            .expect("connects")
    }

    /// Creates a public channel.
    pub async fn create_channel(&self, region: usize, token: &str, name: &str) -> chat::Channel {
        let shard = self.regions[region].shards[0].address.to_string();
        let request = chat::CreateChannelRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        let response = self
            .chat(&shard)
            .await
            .create_channel(bearer(token, request))
            .await;
        response
            .expect("creates")
            .into_inner()
            .channel
            .expect("a channel")
    }

    /// A session on the shard that serves the channel, which exists and is not joined yet.
    pub async fn session_for(&self, region: usize, token: &str, name: &str) -> RawSession {
        let route = self.resolve(region, token, name).await;
        RawSession::hello(&route.endpoint, token).await
    }

    /// A new user's session in the channel, joined; the channel is created if it is missing.
    pub async fn joined(&self, region: usize, name: &str, in_channel: &str) -> RawSession {
        let token = self.register(region, name).await.access_token;
        if !self.resolve(region, &token, in_channel).await.exists {
            let shard = self.regions[region].shards[0].address.to_string();
            let request = chat::CreateChannelRequest {
                name: in_channel.to_owned(),
                ..Default::default()
            };
            // Another user may have been quicker.
            drop(
                self.chat(&shard)
                    .await
                    .create_channel(bearer(&token, request))
                    .await,
            );
        }
        let mut session = self.session_for(region, &token, in_channel).await;
        session.join(in_channel).await;
        session
    }
}

/// Waits until something holds; a test that waits for long has failed.
pub async fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) {
    within(Duration::from_secs(30), what, holds).await;
}

/// Waits until something holds; a test that waits for longer than this has failed.
pub async fn within(patience: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        let mut every = tokio::time::interval(Duration::from_millis(10));
        while !holds().await {
            every.tick().await;
        }
    };
    tokio::time::timeout(patience, waiting)
        .await
        .unwrap_or_else(|_| panic!("in vain waited until {what}"));
}

/// The stable code of a call that must have been refused.
pub fn code<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) -> &'static str {
    Refusal::from_status(&answer.expect_err("refused"))
        .code
        .as_str()
}

/// A request with an access token.
pub fn bearer<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("a header value");
    request.metadata_mut().insert("authorization", value);
    request
}
