//! Two regions and their Gatekeepers.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

use infrachat_bus::{FabricConfig, MemoryFabric};
use infrachat_control::Hearing;
use infrachat_gatekeeper::{Config, Dependencies, Gatekeeper};
use infrachat_identity::{
    Claims, KeyRing, MemoryLimiter, MemoryRevocations, RemoteKeys, SigningKey, TokenError,
    TokenIssuer, TokenVerifier,
};
use infrachat_metadata::{MemoryMetadata, Metadata};
use infrachat_proto::{
    Refusal,
    gatekeeper::v1::{
        LoginRequest, RefreshRequest, RegisterRequest, RevokeRequest, SessionResponse,
        gatekeeper_service_client::GatekeeperServiceClient,
    },
};
use infrachat_types::{Region, UserName};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, transport::Channel};

pub(crate) const WEST: &str = "us-west1";
pub(crate) const EAST: &str = "asia-northeast1";
pub(crate) const PASSWORD: &str = "correct horse battery";

pub(crate) fn region(name: &str) -> Region {
    Region::new(name).expect("a valid region")
}

pub(crate) fn user(name: &str) -> UserName {
    UserName::new(name).expect("a valid name")
}

/// A user name that is decided in a region.
pub(crate) fn name_at_home_in(home: &str) -> String {
    let regions = [WEST.to_owned(), EAST.to_owned()];
    (0..)
        .map(|n| format!("user-{n}"))
        .find(|name| infrachat_routing::home_region(name, &regions) == Some(home))
        .expect("names do not end")
}

/// The code of a refusal, and the rest of it.
pub(crate) fn refusal<T: std::fmt::Debug>(outcome: Result<T, Status>) -> Refusal {
    Refusal::from_status(&outcome.expect_err("is refused"))
}

/// A Gatekeeper and what it stands on.
pub(crate) struct Site {
    pub(crate) store: Arc<MemoryMetadata>,
    pub(crate) revocations: Arc<MemoryRevocations>,
    pub(crate) http: String,
    pub(crate) channel: Channel,
}

/// All of it; dropping it stops it.
pub(crate) struct World {
    pub(crate) west: Site,
    pub(crate) east: Site,
    pub(crate) fabric: MemoryFabric,
    _stop: DropGuard,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(configure: impl Fn(&mut Config)) -> Self {
        let fabric = MemoryFabric::new(FabricConfig::default());
        let stores = [WEST, EAST].map(|name| (region(name), Arc::new(MemoryMetadata::new())));
        let stores = BTreeMap::from(stores);
        let stop = CancellationToken::new();
        let start = async |name: &str| {
            let mut config = Config::default();
            let many = NonZeroU32::new(10_000).expect("not zero");
            config.registrations_per_minute_per_address = many;
            config.sign_ins_per_minute_per_address = many;
            config.sign_ins_per_minute_per_account = many;
            config.endpoints = [WEST, EAST]
                .map(|name| format!("{name}=gate.{name}:443,switch.{name}:443"))
                .map(|endpoints| endpoints.parse().expect("valid endpoints"))
                .to_vec();
            configure(&mut config);
            let revocations = Arc::new(MemoryRevocations::new());
            let as_trait = |(region, store): (&Region, &Arc<MemoryMetadata>)| {
                (region.clone(), Arc::clone(store) as Arc<dyn Metadata>)
            };
            let dependencies = Dependencies {
                region: region(name),
                stores: stores.iter().map(as_trait).collect(),
                bus: Arc::new(fabric.bus(name)),
                limiter: Arc::new(MemoryLimiter::new()),
                revocations: Arc::clone(&revocations) as _,
                hearing: Hearing::Pull,
                keys: KeyRing::new(SigningKey::generate().expect("a key")),
            };
            let gatekeeper = Gatekeeper::bind(config, dependencies).await;
            let gatekeeper = gatekeeper.expect("binds");
            let http = format!("http://{}", gatekeeper.address());
            tokio::spawn(gatekeeper.run(stop.clone()));
            let endpoint = Channel::from_shared(http.clone()).expect("a URL");
            Site {
                store: Arc::clone(&stores[&region(name)]),
                revocations,
                channel: endpoint.connect().await.expect("connects"),
                http,
            }
        };
        Self {
            west: start(WEST).await,
            east: start(EAST).await,
            fabric,
            _stop: stop.drop_guard(),
        }
    }

    /// Verifies tokens of both regions, with keys that it fetches from them.
    pub(crate) fn verifier(&self) -> TokenVerifier {
        let issuer = |name: &str, site: &Site| {
            let url = format!("{}/.well-known/jwks.json", site.http);
            (TokenIssuer::default_name(&region(name)), url)
        };
        let issuers = [issuer(WEST, &self.west), issuer(EAST, &self.east)];
        TokenVerifier::new(Arc::new(RemoteKeys::new(issuers).expect("valid URLs")))
    }

    pub(crate) async fn verify(&self, session: &SessionResponse) -> Result<Claims, TokenError> {
        self.verifier().verify(&session.access_token).await
    }
}

impl Site {
    fn client(&self) -> GatekeeperServiceClient<Channel> {
        GatekeeperServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn register(
        &self,
        user: &str,
        password: &str,
    ) -> Result<SessionResponse, Status> {
        let request = RegisterRequest {
            user: user.to_owned(),
            password: password.to_owned(),
        };
        let answer = self.client().register(request).await?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn login(
        &self,
        user: &str,
        password: &str,
    ) -> Result<SessionResponse, Status> {
        let request = LoginRequest {
            user: user.to_owned(),
            password: password.to_owned(),
        };
        let answer = self.client().login(request).await?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn refresh(&self, refresh_token: &str) -> Result<SessionResponse, Status> {
        let request = RefreshRequest {
            refresh_token: refresh_token.to_owned(),
        };
        let answer = self.client().refresh(request).await?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn revoke(&self, refresh_token: &str, everywhere: bool) -> Result<(), Status> {
        let request = RevokeRequest {
            refresh_token: refresh_token.to_owned(),
            everywhere,
        };
        self.client().revoke(request).await.map(drop)
    }

    pub(crate) async fn signed_up(&self, user: &str) -> SessionResponse {
        let session = self.register(user, PASSWORD).await;
        session.expect("registers")
    }
}
