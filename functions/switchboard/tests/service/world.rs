//! A Switchboard in us-west1, with the parts around it in the test's hands.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use infrachat_bus::{FabricConfig, MemoryFabric};
use infrachat_control::Hearing;
use infrachat_identity::{
    ExposeSecret as _, FixedKeys, KeyRing, MemoryRevocations, Revocations, SigningKey, TokenIssuer,
    TokenVerifier,
};
use infrachat_metadata::{
    ChannelRecord, Lease, LeaseState, MemoryMetadata, Metadata, Routing as _,
};
use infrachat_proto::{
    Refusal,
    switchboard::v1::{
        ListChannelsRequest, ListChannelsResponse, ResolveRequest, Route,
        switchboard_service_client::SwitchboardServiceClient,
    },
};
use infrachat_switchboard::{Config, Dependencies, Switchboard};
use infrachat_types::{
    Channel, ChannelName, OriginId, Region, ShardId, SlowReaderPolicy, TokenFamilyId, UserName,
    Visibility, unix_millis,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Request;

pub(crate) const WEST: &str = "us-west1";
pub(crate) const ASIA: &str = "asia-northeast1";
const ISSUER: &str = "https://gatekeeper.us-west1.infrachat";
/// Nothing takes this long: it only bounds a test that fails.
const AT_LAST: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) fabric: MemoryFabric,
    pub(crate) west: Arc<MemoryMetadata>,
    pub(crate) asia: Arc<MemoryMetadata>,
    pub(crate) address: SocketAddr,
    pub(crate) client: SwitchboardServiceClient<tonic::transport::Channel>,
    pub(crate) keys: KeyRing,
    pub(crate) stop: CancellationToken,
    pub(crate) running: JoinHandle<()>,
}

/// Reads the store for every call, so that tests need not wait for the cache.
pub(crate) fn uncached() -> Config {
    Config {
        refresh: Duration::ZERO,
        ..Config::default()
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(uncached()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        Self::with_revocations(config, Arc::new(MemoryRevocations::new())).await
    }

    pub(crate) async fn with_revocations(
        config: Config,
        revocations: Arc<dyn Revocations>,
    ) -> Self {
        let west = Arc::new(MemoryMetadata::new());
        Self::over(west, config, revocations).await
    }

    pub(crate) async fn over(
        west: Arc<MemoryMetadata>,
        config: Config,
        revocations: Arc<dyn Revocations>,
    ) -> Self {
        let fabric = MemoryFabric::new(FabricConfig::default());
        let asia = Arc::new(MemoryMetadata::new());
        let keys = KeyRing::new(SigningKey::generate().expect("a key"));
        let stores: [(Region, Arc<dyn Metadata>); 2] =
            [(region(WEST), west.clone()), (region(ASIA), asia.clone())];
        let known = FixedKeys::default().with_issuer(ISSUER, &keys.jwks());
        let dependencies = Dependencies {
            region: region(WEST),
            stores: BTreeMap::from(stores),
            bus: Arc::new(fabric.bus(WEST)),
            verifier: Arc::new(TokenVerifier::new(Arc::new(known))),
            revocations,
            hearing: Hearing::Pull,
        };
        let switchboard = Switchboard::bind(config, dependencies)
            .await
            .expect("binds");
        let address = switchboard.address();
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let running = tokio::spawn(async move { switchboard.run(stopping).await.expect("serves") });
        let client = SwitchboardServiceClient::connect(format!("http://{address}"))
            .await
            .expect("connects");
        Self {
            fabric,
            west,
            asia,
            address,
            client,
            keys,
            stop,
            running,
        }
    }

    /// A token issued so long ago.
    pub(crate) fn token(keys: &KeyRing, user: &str, ago: Duration) -> String {
        let lifetime = Duration::from_secs(600);
        let issuer = TokenIssuer::new(ISSUER, region(WEST), keys.clone(), lifetime);
        let issued = unix_millis() - i64::try_from(ago.as_millis()).expect("short");
        let family = family();
        let token = issuer
            .issue(&user_name(user), &family, issued)
            .expect("signs");
        token.token.expose_secret().to_owned()
    }

    pub(crate) fn authorized<T>(&self, user: &str, message: T) -> Request<T> {
        with_token(message, &Self::token(&self.keys, user, Duration::ZERO))
    }

    pub(crate) async fn try_resolve(&self, channels: &[&str]) -> Result<Vec<Route>, Refusal> {
        let channels = channels.iter().map(ToString::to_string).collect();
        let request = self.authorized("alice", ResolveRequest { channels });
        let answer = self.client.clone().resolve(request).await;
        answer
            .map(|response| response.into_inner().routes)
            .map_err(|status| Refusal::from_status(&status))
    }

    pub(crate) async fn resolve(&self, channel: &str) -> Route {
        let routes = self.try_resolve(&[channel]).await.expect("routes");
        let [route] = <[Route; 1]>::try_from(routes).expect("one route");
        route
    }

    pub(crate) async fn list(
        &self,
        user: &str,
        request: ListChannelsRequest,
    ) -> Result<ListChannelsResponse, Refusal> {
        let request = self.authorized(user, request);
        let answer = self.client.clone().list_channels(request).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| Refusal::from_status(&status))
    }

    /// A shard of us-west1 that lives, and the partition of a channel in its hands.
    pub(crate) async fn serve(&self, slot: u32, channel: &str) -> u32 {
        let lease = lease(slot);
        let partition = infrachat_routing::partition_of(channel, Config::default().partitions);
        self.west.renew_lease(lease.clone()).await.expect("renewed");
        self.west
            .take_partition(
                partition,
                &lease.shard,
                &lease.incarnation,
                Duration::from_secs(5),
            )
            .await
            .expect("taken");
        partition
    }
}

pub(crate) fn lease(slot: u32) -> Lease {
    Lease {
        shard: ShardId::new(&format!("{WEST}-shard-{slot}")).expect("a shard"),
        incarnation: OriginId::from_text("life"),
        endpoint: format!("shard-{slot}.example:7003"),
        zone: "us-west1-a".to_owned(),
        sessions: 0,
        state: LeaseState::Active,
    }
}

/// The sign-in of every token here.
pub(crate) fn family() -> TokenFamilyId {
    TokenFamilyId::from_text("family")
}

pub(crate) fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("a header");
    request.metadata_mut().insert("authorization", value);
    request
}

pub(crate) fn region(name: &str) -> Region {
    Region::new(name).expect("a region")
}

pub(crate) fn user_name(name: &str) -> UserName {
    UserName::new(name).expect("a user name")
}

pub(crate) fn channel_name(name: &str) -> ChannelName {
    ChannelName::new(name).expect("a channel name")
}

pub(crate) fn channel(name: &str, home: &str, visibility: Visibility) -> ChannelRecord {
    ChannelRecord {
        channel: Channel {
            name: channel_name(name),
            home_region: region(home),
            created_by: user_name("bob"),
            created_at: 1,
            visibility,
            topic: format!("about {name}"),
            slow_reader: SlowReaderPolicy::DropOldest,
            version: 1,
        },
        members: [user_name("bob")].into(),
    }
}

/// Asks until the answer is there.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(AT_LAST, asking)
        .await
        .unwrap_or_else(|_| panic!("never happened: {what}"))
}
