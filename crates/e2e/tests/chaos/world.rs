//! Both regions as separate processes on emulators and Redis, and who speaks to them by hand.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use infrachat_client::{Client, Options, Password, SignIn};
use infrachat_e2e::{Ground, REGIONS, WEST, bearer, eventually, user};
use infrachat_proto::{
    gatekeeper::v1::{self as gatekeeper, gatekeeper_service_client::GatekeeperServiceClient},
    switchboard::v1::{self as switchboard, switchboard_service_client::SwitchboardServiceClient},
};
use infrachat_stack::{Plan, Stack};
use infrachat_test_services::Link;
use rustix::process::Signal;
use tokio::sync::{MutexGuard, mpsc};

pub(crate) const PASSWORD: &str = "correct horse";
/// Longer than anything takes that comes at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// The machine carries one world at a time: leases are renewed by real clocks.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What runs.
pub(crate) struct World {
    pub(crate) ground: Ground,
    pub(crate) stack: Stack,
    /// Before the shards of us-west1, if any are, by slot.
    pub(crate) links: Vec<Link>,
    plan: Plan,
    said: Said,
    _alone: MutexGuard<'static, ()>,
}

type Said = Arc<Mutex<Vec<(String, String)>>>;

impl World {
    /// Starts everything, with further arguments for the shards.
    pub(crate) async fn start(shard_args: &[&str]) -> Self {
        Self::with(shard_args, async |_| Vec::new()).await
    }

    /// The same, of programs that serve metrics.
    pub(crate) async fn with_metrics() -> Self {
        Self::with(&[], async |plan| {
            plan.metrics = true;
            Vec::new()
        })
        .await
    }

    /// The same, with a link before each shard of us-west1.
    pub(crate) async fn behind_links(shard_args: &[&str]) -> Self {
        Self::with(shard_args, async |plan| {
            let mut links = Vec::new();
            for port in &plan.ports[WEST].shards {
                let link = Link::to(&format!("127.0.0.1:{port}")).await;
                let link = link.expect("a port");
                plan.advertised.insert(*port, link.address.clone());
                links.push(link);
            }
            links
        })
        .await
    }

    async fn with(shard_args: &[&str], change: impl AsyncFnOnce(&mut Plan) -> Vec<Link>) -> Self {
        infrachat_runtime::telemetry::init(&crate::options().log);
        let alone = ONE.lock().await;
        let ground = Ground::start().await;
        let mut plan = Plan {
            shard_args: shard_args.iter().copied().map(str::to_owned).collect(),
            ..ground.plan()
        };
        let links = change(&mut plan).await;
        let (lines, mut heard) = mpsc::unbounded_channel();
        let said = Said::default();
        let lists = Arc::clone(&said);
        tokio::spawn(async move {
            while let Some(line) = heard.recv().await {
                lists.lock().expect("whole").push(line);
            }
        });
        let stack = Stack::start(&plan, lines).await.expect("starts");
        let world = Self {
            ground,
            stack,
            links,
            plan,
            said,
            _alone: alone,
        };
        for region in 0..REGIONS.len() {
            world.served(region).await;
        }
        world
    }

    /// What the processes said so far.
    pub(crate) fn lines(&self) -> Vec<(String, String)> {
        self.said.lock().expect("whole").clone()
    }

    /// Waits until a process has said something with this in it, after the first `since` lines.
    pub(crate) async fn says(&self, name: &str, text: &str, since: usize) {
        let what = format!("{name} says {text}");
        eventually(&what, async || {
            let said = self.lines();
            let mut new = said.iter().skip(since);
            new.any(|(who, line)| who == name && line.contains(text))
        })
        .await;
    }

    /// Where a region's Gatekeeper is.
    pub(crate) fn gatekeeper(&self, region: usize) -> String {
        self.plan.gatekeeper(region)
    }

    /// How a client signs in through a region.
    pub(crate) fn options(&self, region: usize, name: &str) -> Options {
        let mut options = Options::new(
            self.plan.gatekeeper(region),
            user(name),
            Password::new(PASSWORD),
        );
        options.sign_in = SignIn::LoginOrRegister;
        // Longer than any story keeps a message waiting.
        options.publish_deadline = PATIENCE;
        options.call_deadline = PATIENCE;
        options.event_buffer = 65_536;
        options
    }

    pub(crate) async fn client(&self, region: usize, name: &str) -> Client {
        Client::connect(self.options(region, name))
            .await
            .expect("signs in")
    }

    /// An access token of a user made for this.
    pub(crate) async fn token(&self, region: usize, name: &str) -> String {
        let address = format!("http://{}", self.plan.gatekeeper(region));
        let mut gatekeeper = GatekeeperServiceClient::connect(address)
            .await
            .expect("connects");
        let request = gatekeeper::RegisterRequest {
            user: name.to_owned(),
            password: PASSWORD.to_owned(),
        };
        let session = gatekeeper.register(request).await.expect("registers");
        session.into_inner().access_token
    }

    /// Where channels are served in a region; none while Switchboard does not answer.
    pub(crate) async fn routes(
        &self,
        region: usize,
        token: &str,
        channels: &[String],
    ) -> Option<Vec<switchboard::Route>> {
        let address = format!("http://127.0.0.1:{}", self.plan.ports[region].switchboard);
        let mut switchboard = SwitchboardServiceClient::connect(address).await.ok()?;
        let request = switchboard::ResolveRequest {
            channels: channels.to_vec(),
        };
        let answer = switchboard.resolve(bearer(token, request)).await.ok()?;
        Some(answer.into_inner().routes)
    }

    /// Waits until every partition of a region has an owner: asked by names enough to meet them all.
    pub(crate) async fn served(&self, region: usize) {
        let token = self.token(region, &format!("served-{}", rand_name())).await;
        let names: Vec<_> = (0..500).map(|number| format!("#served-{number}")).collect();
        let what = format!("every partition of {} is served", REGIONS[region]);
        within(&what, async || {
            let routes = self.routes(region, &token, &names).await;
            routes.is_some_and(|routes| routes.iter().all(|route| !route.endpoint.is_empty()))
        })
        .await;
    }

    /// Kills a process, as a crash would, and waits for its end.
    pub(crate) async fn kill(&mut self, name: &str) {
        let process = self.stack.process(name);
        process.signal(Signal::KILL);
        process.wait().await.expect("ends");
    }

    pub(crate) async fn restart(&mut self, name: &str) {
        self.stack.restart(name).await.expect("serves");
    }

    /// Stops everything; each must end well.
    pub(crate) async fn stop(self) {
        for (name, status) in self.stack.stop().await {
            let status = status.expect("ends");
            assert!(status.success(), "{name} ended with {status}");
        }
    }
}

fn rand_name() -> String {
    infrachat_client::ClientMessageId::random().to_string()[..12].to_owned()
}

/// Waits until something holds; a test that waits for longer than [`PATIENCE`] has failed.
pub(crate) async fn within(what: &str, holds: impl AsyncFnMut() -> bool) {
    infrachat_e2e::within(PATIENCE, what, holds).await;
}
