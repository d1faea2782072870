//! In the long form, a real day is played meanwhile, by a process of its own that checks every delivery.

use std::{path::Path, process::Stdio};

use infrachat_e2e::{ASIA, REGIONS, WEST, program};
use tokio::process::{Child, Command};

use crate::{is_long, rounds, world::World};

/// Two hours of #ubuntu, in two minutes.
const LOG: &str = "data/ubuntu-irc/2008-04-27.txt";
const SPEED: &str = "60x";

/// A day that is being played; none in the short form.
pub(crate) struct Day(Option<Child>);

impl Day {
    /// Begins it; its people come from both regions, and may go to the other one.
    pub(crate) fn begin(world: &World) -> Self {
        if !is_long() {
            return Self(None);
        }
        let log = Path::new(env!("CARGO_MANIFEST_DIR")).join(LOG);
        let servers = [WEST, ASIA]
            .map(|region| world.gatekeeper(region))
            .join(",");
        let playing = Command::new(program("infrachat"))
            .args(["replay", "--register", "--json", "--speed", SPEED, "--file"])
            .arg(log)
            .args(["--server", &world.gatekeeper(WEST), "--servers", &servers])
            .args(
                REGIONS
                    .iter()
                    .flat_map(|region| ["--fallback-region", *region]),
            )
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        Self(Some(playing.expect("starts")))
    }

    /// Whether something should happen once more: as often as was asked for, and until the day is over.
    pub(crate) fn goes_on(&mut self, round: usize) -> bool {
        let playing = self.0.as_mut().is_some_and(|playing| {
            let ended = playing.try_wait().expect("its state");
            ended.is_none()
        });
        round < rounds() || playing
    }

    /// Waits for its end, and for its verdict: all that was acknowledged was delivered, once and in order.
    pub(crate) async fn verdict(self) {
        let Some(playing) = self.0 else {
            return;
        };
        let ended = playing.wait_with_output().await.expect("ends");
        let report = String::from_utf8_lossy(&ended.stdout);
        let why = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{report}{why}");
        println!("  a day meanwhile: {}", report.trim());
    }
}
