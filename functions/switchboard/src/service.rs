//! The gRPC service.

use std::{fmt, sync::Arc, time::Duration};

use futures::StreamExt as _;
use infrachat_identity::Claims;
use infrachat_metadata::{LeaseState, Metadata, MetadataError};
use infrachat_proto::{
    Refusal,
    switchboard::v1::{
        ChannelSummary, ListChannelsRequest, ListChannelsResponse, ResolveRequest, ResolveResponse,
        Route, switchboard_service_server::SwitchboardService,
    },
};
use infrachat_routing::{PartitionCount, home_region, partition_of};
use infrachat_types::{Channel, ChannelName, ErrorCode, Region, Visibility};
use quick_cache::sync::Cache;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use crate::{
    cache::{Known, RoutingCache},
    callers::Callers,
    config::Config,
    counted::COUNTED,
};

/// Most channels in one `Resolve`.
const MAX_CHANNELS: usize = 1_000;
/// Records read from the store at once for one call.
const LOOKUPS_AT_ONCE: usize = 32;
/// All of a call's reads of records together end by then.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);
/// Channels whose home is remembered. Channels are never deleted and never move home, so what is
/// remembered stays true.
const REMEMBERED_HOMES: usize = 50_000;
/// Page sizes of `ListChannels`.
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;
/// When the store may be back.
const RETRY: Duration = Duration::from_secs(1);

/// How often gauges are set.
const OBSERVED: Duration = Duration::from_secs(2);

/// What the calls work with.
pub(crate) struct Service {
    store: Arc<dyn Metadata>,
    callers: Callers,
    routes: Arc<RoutingCache<dyn Metadata>>,
    partitions: PartitionCount,
    regions: Vec<String>,
    homes: Cache<ChannelName, Region>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("store", &self.store)
            .field("partitions", &self.partitions)
            .field("regions", &self.regions)
            .finish_non_exhaustive()
    }
}

/// What is known of a channel's home.
enum Home {
    /// The channel exists, and this is in its record.
    Recorded(Region),
    /// There is no such channel here.
    Absent,
    /// The store did not say.
    Unknown,
}

impl Service {
    pub(crate) fn new(
        config: &Config,
        store: Arc<dyn Metadata>,
        routes: Arc<RoutingCache<dyn Metadata>>,
        regions: Vec<String>,
        callers: Callers,
    ) -> Self {
        Self {
            routes,
            store,
            callers,
            partitions: config.partitions,
            regions,
            homes: Cache::new(REMEMBERED_HOMES),
        }
    }

    /// Tells, for ever, which shards there are and how old the routes are.
    pub(crate) async fn observe(self: Arc<Self>) {
        COUNTED.partitions.set(self.partitions.get());
        loop {
            if let Ok(known) = self.routes.current().await {
                COUNTED.routes_age.set(known.stale.unwrap_or_default());
                let of = |state| known.table.shards(state).count() as f64;
                COUNTED.active.set(of(LeaseState::Active));
                COUNTED.draining.set(of(LeaseState::Draining));
                COUNTED.suspect.set(of(LeaseState::Suspect));
            }
            tokio::time::sleep(OBSERVED).await;
        }
    }

    /// The routes, counted.
    async fn resolved(&self, channels: Vec<String>) -> Result<Vec<Route>, Refusal> {
        let (asked, began) = (channels.len() as u64, Instant::now());
        let routes = self.routes(channels).await;
        COUNTED.resolve_seconds.record(began.elapsed());
        match &routes {
            Ok(routes) => routes.iter().for_each(|route| {
                let counter = match ErrorCode::from_text(&route.code) {
                    None => &COUNTED.resolved,
                    Some(ErrorCode::NoOwner) => &COUNTED.no_owner,
                    Some(_) => &COUNTED.refused,
                };
                counter.increment(1);
            }),
            Err(refusal) if refusal.code == ErrorCode::Unavailable => {
                COUNTED.unavailable.increment(asked);
            }
            Err(_) => COUNTED.refused.increment(asked),
        }
        routes
    }

    async fn routes(&self, channels: Vec<String>) -> Result<Vec<Route>, Refusal> {
        if channels.len() > MAX_CHANNELS {
            let asked = channels.len();
            return Err(Refusal::new(
                ErrorCode::BadRequest,
                format!(
                    "{asked} channels are too many for one call: ask for {MAX_CHANNELS} at most"
                ),
            ));
        }
        let known = &self.routes.current().await.map_err(unavailable)?;
        let deadline = Instant::now() + LOOKUP_TIMEOUT;
        let routes = channels
            .into_iter()
            .map(|channel| self.route(channel, known, deadline));
        Ok(futures::stream::iter(routes)
            .buffered(LOOKUPS_AT_ONCE)
            .collect()
            .await)
    }

    async fn route(&self, channel: String, known: &Known, deadline: Instant) -> Route {
        let name = match ChannelName::new(&channel) {
            Ok(name) => name,
            Err(err) => {
                return Route {
                    channel,
                    code: ErrorCode::BadChannelName.to_string(),
                    reason: err.to_string(),
                    ..Route::default()
                };
            }
        };
        let home = self.home(&name, known, deadline).await;
        let partition = partition_of(name.as_str(), self.partitions);
        let placement = known.table.place(partition);
        let by_name = || {
            home_region(name.as_str(), &self.regions)
                .unwrap_or_default()
                .to_owned()
        };
        let (home_region, exists, home) = match home {
            Home::Recorded(region) => (region.to_string(), true, "as recorded"),
            Home::Absent => (
                by_name(),
                false,
                "by name, since there is no such channel here",
            ),
            Home::Unknown => (
                by_name(),
                false,
                "by name, since its record can't be looked up now",
            ),
        };
        let mut route = Route {
            channel,
            partition,
            reason: format!("{}; home region {home_region} {home}", placement.reason),
            home_region,
            exists,
            ..Route::default()
        };
        if let Some(age) = known.stale {
            route.reason += &format!(
                "; as it was {} ms ago, since the store does not answer",
                age.as_millis()
            );
        }
        match placement.owner {
            Ok(owner) => {
                route.shard = owner.shard.to_string();
                owner.endpoint.clone_into(&mut route.endpoint);
                route.epoch = owner.epoch;
            }
            Err(wait) => {
                route.code = ErrorCode::NoOwner.to_string();
                route.retry_after_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
            }
        }
        route
    }

    async fn home(&self, name: &ChannelName, known: &Known, deadline: Instant) -> Home {
        if let Some(home) = self.homes.get(name) {
            return Home::Recorded(home);
        }
        // A store that did not answer a moment ago is not asked again for each channel.
        if known.stale.is_some() {
            return Home::Unknown;
        }
        match timeout_at(deadline, self.store.channel(name)).await {
            Ok(Ok(Some(record))) => {
                let home = record.channel.home_region;
                self.homes.insert(name.clone(), home.clone());
                Home::Recorded(home)
            }
            Ok(Ok(None)) => Home::Absent,
            Ok(Err(_)) | Err(_) => Home::Unknown,
        }
    }

    async fn page(
        &self,
        claims: &Claims,
        request: ListChannelsRequest,
    ) -> Result<ListChannelsResponse, Refusal> {
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(ChannelName::new(token).map_err(|_| {
                Refusal::new(
                    ErrorCode::BadRequest,
                    "the page token is not from an earlier answer: start again without one",
                )
            })?),
        };
        let size = match request.page_size as usize {
            0 => DEFAULT_PAGE,
            size => size.min(MAX_PAGE),
        };
        let listing =
            self.store
                .list_channels(&claims.user, &request.prefix, after.as_ref(), size + 1);
        let mut channels = timeout_at(Instant::now() + LOOKUP_TIMEOUT, listing)
            .await
            .unwrap_or_else(|_| {
                Err(MetadataError::Unavailable(format!(
                    "no answer in {LOOKUP_TIMEOUT:?}"
                )))
            })
            .map_err(unavailable)?;
        let more = channels.len() > size;
        channels.truncate(size);
        let next_page_token = match channels.last() {
            Some(last) if more => last.name.to_string(),
            _ => String::new(),
        };
        Ok(ListChannelsResponse {
            channels: channels.into_iter().map(summary).collect(),
            next_page_token,
        })
    }
}

fn summary(channel: Channel) -> ChannelSummary {
    ChannelSummary {
        name: channel.name.to_string(),
        topic: channel.topic,
        home_region: channel.home_region.to_string(),
        created_by: channel.created_by.to_string(),
        private: channel.visibility == Visibility::Private,
    }
}

fn unavailable(err: MetadataError) -> Refusal {
    Refusal::new(ErrorCode::Unavailable, format!("{err}: try again")).retry_after(RETRY)
}

#[tonic::async_trait]
impl SwitchboardService for Service {
    async fn resolve(
        &self,
        request: Request<ResolveRequest>,
    ) -> Result<Response<ResolveResponse>, Status> {
        self.callers.check(request.metadata()).await?;
        let routes = self.resolved(request.into_inner().channels).await?;
        Ok(Response::new(ResolveResponse { routes }))
    }

    async fn list_channels(
        &self,
        request: Request<ListChannelsRequest>,
    ) -> Result<Response<ListChannelsResponse>, Status> {
        let claims = self.callers.check(request.metadata()).await?;
        let page = self.page(&claims, request.into_inner()).await?;
        Ok(Response::new(page))
    }
}
