//! In the long form, a real day is played meanwhile, by a process of its own that checks every delivery.

use std::{
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
};

use infrachat_e2e::{ASIA, REGIONS, WEST, program};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::{
    is_long, rounds,
    world::{World, within},
};

/// Two hours of #ubuntu, in two minutes.
const LOG: &str = "data/ubuntu-irc/2008-04-27.txt";
const SPEED: &str = "60x";
/// Longer than the regions are cut off from each other.
const PATIENCE: &str = "120";

/// A day that is being played; none in the short form.
pub(crate) struct Day(Option<Playing>);

struct Playing {
    process: Child,
    /// What it said of its progress.
    said: Arc<Mutex<Vec<String>>>,
}

impl Playing {
    fn said(&self) -> Vec<String> {
        self.said.lock().expect("whole").clone()
    }
}

impl Day {
    /// Begins it, and waits until everybody is there; they come from both regions, and may go to the other one.
    pub(crate) async fn begin(world: &World) -> Self {
        if !is_long() {
            return Self(None);
        }
        let log = Path::new(env!("CARGO_MANIFEST_DIR")).join(LOG);
        let servers = [WEST, ASIA]
            .map(|region| world.gatekeeper(region))
            .join(",");
        let fallback = REGIONS.join(",");
        let process = Command::new(program("infrachat"))
            .args(["replay", "--register", "--json", "--speed", SPEED])
            .args(["--patience", PATIENCE, "--fallback-region", &fallback])
            .args(["--server", &world.gatekeeper(WEST), "--servers", &servers])
            .arg("--file")
            .arg(log)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut process = process.expect("starts");
        let mut lines = BufReader::new(process.stderr.take().expect("piped")).lines();
        let said = Arc::default();
        let list: Arc<Mutex<Vec<String>>> = Arc::clone(&said);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                list.lock().expect("whole").push(line);
            }
        });
        let playing = Playing { process, said };
        within("the day is played", async || {
            playing
                .said()
                .iter()
                .any(|line| line.starts_with("playing"))
        })
        .await;
        Self(Some(playing))
    }

    /// Whether something should happen once more: as often as was asked for, and until the day is over.
    pub(crate) fn goes_on(&mut self, round: usize) -> bool {
        let playing = self.0.as_mut().is_some_and(|playing| {
            let ended = playing.process.try_wait().expect("its state");
            ended.is_none()
        });
        round < rounds() || playing
    }

    /// Waits for its end, and for its verdict: all that was acknowledged was delivered, once and in order.
    pub(crate) async fn verdict(self) {
        let Some(playing) = self.0 else {
            return;
        };
        let said = Arc::clone(&playing.said);
        let ended = playing.process.wait_with_output().await.expect("ends");
        let report = String::from_utf8_lossy(&ended.stdout);
        assert!(
            ended.status.success(),
            "{report}{}",
            said.lock().expect("whole").join("\n")
        );
        println!("  a day meanwhile: {}", report.trim());
    }
}
