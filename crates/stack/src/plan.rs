//! Which processes there are, and what each is told.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::ValueEnum;

/// The regions, the first one at the first ports.
pub(crate) const REGIONS: [&str; 2] = ["us-west1", "asia-northeast1"];
/// Shards of a region.
const SHARDS: usize = 2;
/// From a service's port to that of its metrics.
const METRICS: u16 = 1_000;
/// Who pushes control events, and to whom: an emulator signs for any account.
const PUSHER: &str = "pubsub@infrachat.iam.gserviceaccount.com";
const AUDIENCE: &str = "infrachat";

/// What carries events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bus {
    /// The Pub/Sub emulator; control events are pushed.
    Pubsub,
    /// Streams in Redis.
    RedisStreams,
}

/// What the processes stand on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    /// The Pub/Sub emulator, `host:port`.
    pub pubsub: String,
    /// The Firestore emulator, `host:port`.
    pub firestore: String,
    /// Redis, `redis://…`; the regions share it.
    pub redis: String,
}

/// Where the processes of a region listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// Gatekeeper.
    pub gatekeeper: u16,
    /// Switchboard.
    pub switchboard: u16,
    /// The shards.
    pub shards: Vec<u16>,
}

impl Ports {
    /// In a row.
    #[must_use]
    pub fn from(first: u16) -> Self {
        Self {
            gatekeeper: first,
            switchboard: first + 1,
            shards: (2..).take(SHARDS).map(|step| first + step).collect(),
        }
    }
}

/// A stack to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the programs are.
    pub programs: PathBuf,
    /// Where the regions listen, us-west1 first.
    pub ports: [Ports; 2],
    /// What carries events.
    pub bus: Bus,
    /// What the processes stand on.
    pub services: Services,
    /// Where the Gatekeepers' signing keys are, as `REGION.pem`: they outlive a restart.
    pub keys: PathBuf,
    /// The log filter of the processes.
    pub log: String,
    /// Whether each process serves metrics, on the port a thousand above its own.
    pub metrics: bool,
    /// Further arguments for all processes.
    pub args: Vec<String>,
    /// Further arguments for the shards.
    pub shard_args: Vec<String>,
    /// Where clients reach the shards that listen on these ports, `host:port`, if not there.
    pub advertised: BTreeMap<u16, String>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What to call it, such as `us-west1 gatekeeper`.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// What it is told.
    pub args: Vec<String>,
    /// Where it listens.
    pub address: String,
    /// Where it serves metrics, if it does.
    pub metrics: Option<String>,
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn issuer(region: &str) -> String {
    format!("https://gatekeeper.{region}.infrachat")
}

impl Plan {
    /// A region's Gatekeeper, `host:port`.
    #[must_use]
    pub fn gatekeeper(&self, region: usize) -> String {
        address(self.ports[region].gatekeeper)
    }

    /// All processes, in the order in which they start.
    #[must_use]
    pub fn services(&self) -> Vec<Service> {
        let mut services = Vec::new();
        for (region, ports) in REGIONS.iter().zip(&self.ports) {
            services.push(self.gatekeeper_of(region, ports));
            services.push(
                self.service(region, "switchboard", ports.switchboard, |args| {
                    args.extend(self.verifier());
                    args.extend(self.push());
                }),
            );
            for (slot, port) in ports.shards.iter().enumerate() {
                let shard = format!("{region}-shard-{slot}");
                let mut service = self.service(region, "chat-shard", *port, |args| {
                    args.extend(self.verifier());
                    args.extend(["--shard".to_owned(), shard]);
                    args.extend(self.shard_args.clone());
                    if let Some(advertised) = self.advertised.get(port) {
                        args.extend(["--advertise".to_owned(), advertised.clone()]);
                    }
                });
                service.name = format!("{region} shard-{slot}");
                services.push(service);
            }
        }
        services
    }

    fn gatekeeper_of(&self, region: &str, ports: &Ports) -> Service {
        self.service(region, "gatekeeper", ports.gatekeeper, |args| {
            args.extend(self.push());
            let key = key_file(&self.keys, region).display().to_string();
            args.extend(["--signing-key".to_owned(), key]);
            let reached = REGIONS.iter().zip(&self.ports).map(|(region, ports)| {
                let (gatekeeper, switchboard) =
                    (address(ports.gatekeeper), address(ports.switchboard));
                format!("{region}={gatekeeper},{switchboard}")
            });
            let reached: Vec<_> = reached.collect();
            args.extend(["--endpoints".to_owned(), reached.join(";")]);
            // Everyone comes from the same address here.
            for limit in ["registrations", "sign-ins", "refreshes"] {
                let name = format!("--{limit}-per-minute-per-address");
                args.extend([name, "100000".to_owned()]);
            }
        })
    }

    fn service(
        &self,
        region: &str,
        program: &str,
        port: u16,
        more: impl FnOnce(&mut Vec<String>),
    ) -> Service {
        let bus = match self.bus {
            Bus::Pubsub => "pubsub",
            Bus::RedisStreams => "redis-streams",
        };
        let Services {
            pubsub,
            firestore,
            redis,
        } = &self.services;
        let regions = REGIONS.join(",");
        let listen = address(port);
        let said = [
            ("--region", region),
            ("--regions", &regions),
            ("--listen", &listen),
            ("--bus", bus),
            ("--metadata", "firestore"),
            ("--state", "redis"),
            ("--pubsub-emulator", pubsub),
            ("--firestore-emulator", firestore),
            ("--redis-url", redis),
            ("--log", &self.log),
        ];
        let said = said.iter().flat_map(|(name, value)| [*name, value]);
        let mut args: Vec<String> = said.map(str::to_owned).collect();
        args.push("--create-topics".to_owned());
        if self.metrics {
            args.extend(["--metrics-listen".to_owned(), address(port + METRICS)]);
        }
        args.extend(self.args.clone());
        more(&mut args);
        Service {
            name: format!("{region} {program}"),
            program: self.programs.join(program),
            args,
            metrics: self.metrics.then(|| address(port + METRICS)),
            address: listen,
        }
    }

    fn verifier(&self) -> [String; 2] {
        let issuers = REGIONS.iter().zip(&self.ports).map(|(region, ports)| {
            let keys = address(ports.gatekeeper);
            format!("{}=http://{keys}/.well-known/jwks.json", issuer(region))
        });
        let issuers: Vec<_> = issuers.collect();
        ["--issuers".to_owned(), issuers.join(",")]
    }

    fn push(&self) -> Vec<String> {
        match self.bus {
            Bus::Pubsub => {
                let push = [
                    "--push-audience",
                    AUDIENCE,
                    "--push-service-account",
                    PUSHER,
                ];
                push.map(str::to_owned).to_vec()
            }
            Bus::RedisStreams => Vec::new(),
        }
    }
}

/// Where a region's signing key is.
pub(crate) fn key_file(keys: &Path, region: &str) -> PathBuf {
    keys.join(format!("{region}.pem"))
}
