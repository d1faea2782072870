//! Sessions in both regions that talk all the time, while something happens to them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use infrachat_client::{Client, ErrorCode, NewChannel, Region};
use infrachat_e2e::{ASIA, Ledger, REGIONS, WEST, channel, histories_agree, join, listen, talk};
use tokio::task::JoinHandle;

use crate::world::{World, within};

/// Users of a region.
const TALKERS: usize = 3;
/// Enough for every shard to have some.
const CHANNELS: usize = 6;
/// Between messages of a user.
const PAUSE: Duration = Duration::from_millis(80);

/// A user with a session.
#[derive(Debug)]
pub(crate) struct Talker {
    pub(crate) name: String,
    pub(crate) client: Client,
}

/// Users who talk, in every channel and both regions.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) ledger: Arc<Ledger>,
    /// By region.
    pub(crate) talkers: [Vec<Talker>; 2],
    enough: Arc<AtomicBool>,
    talking: Vec<JoinHandle<()>>,
    listening: Vec<JoinHandle<()>>,
}

/// The channels of every load.
pub(crate) fn channels() -> Vec<String> {
    (0..CHANNELS)
        .map(|number| format!("#talk-{number}"))
        .collect()
}

impl Load {
    /// Signs everyone in, has them join, and starts the talk. Everyone stays in their region.
    pub(crate) async fn start(world: &World) -> Self {
        Self::with(world, false).await
    }

    /// The same, of users who may go to the other region.
    pub(crate) async fn with_fallback(world: &World) -> Self {
        Self::with(world, true).await
    }

    async fn with(world: &World, fallback: bool) -> Self {
        let ledger = Arc::new(Ledger::default());
        let mut talkers = [Vec::new(), Vec::new()];
        for region in [WEST, ASIA] {
            for number in 0..TALKERS {
                let name = format!("{}{number}", ["w", "a"][region]);
                let mut options = world.options(region, &name);
                options.failover_after = Duration::from_secs(2);
                if fallback {
                    let other = Region::new(REGIONS[1 - region]).expect("valid");
                    options.fallback_regions = vec![other];
                }
                let client = Client::connect(options).await.expect("signs in");
                talkers[region].push(Talker { name, client });
            }
        }
        let creator = &talkers[WEST][0].client;
        for name in channels().iter().map(|name| channel(name)) {
            let created = creator.create_channel(&name, NewChannel::default()).await;
            let known =
                |err: &infrachat_client::ClientError| err.code() == Some(ErrorCode::ChannelExists);
            assert!(created.as_ref().err().is_none_or(known), "{created:?}");
        }
        let mut load = Self {
            ledger,
            talkers,
            enough: Arc::default(),
            talking: Vec::new(),
            listening: Vec::new(),
        };
        for talker in load.talkers.iter().flatten() {
            for name in channels() {
                join(&talker.client, &channel(&name)).await;
            }
            let ledger = Arc::clone(&load.ledger);
            load.listening
                .push(tokio::spawn(listen(talker.client.clone(), ledger)));
        }
        for talker in load.talkers.iter().flatten() {
            let talking = talk(
                talker.client.clone(),
                channels(),
                PAUSE,
                Arc::clone(&load.ledger),
                Arc::clone(&load.enough),
            );
            load.talking.push(tokio::spawn(talking));
        }
        load.goes_on(&[WEST, ASIA], &[WEST, ASIA]).await;
        load
    }

    /// The names of a region's users.
    pub(crate) fn names(&self, region: usize) -> Vec<String> {
        self.talkers[region]
            .iter()
            .map(|talker| talker.name.clone())
            .collect()
    }

    fn everyone(&self) -> Vec<String> {
        [self.names(WEST), self.names(ASIA)].concat()
    }

    /// Waits until every user of these regions was shown something in every channel that users of
    /// those regions say from now on.
    pub(crate) async fn goes_on(&self, readers: &[usize], senders: &[usize]) {
        let then = Instant::now();
        let named = |regions: &[usize]| -> Vec<String> {
            regions
                .iter()
                .flat_map(|region| self.names(*region))
                .collect()
        };
        let senders: Vec<_> = senders.iter().map(|region| named(&[*region])).collect();
        for reader in named(readers) {
            for name in channels() {
                for senders in &senders {
                    let what = format!("{reader} hears {senders:?} in {name} again");
                    let others: Vec<_> = senders
                        .iter()
                        .filter(|sender| **sender != reader)
                        .cloned()
                        .collect();
                    within(&what, async || {
                        let first = self.ledger.first_heard(&reader, &others, &name, then);
                        assert_eq!(self.ledger.faults(), Vec::<String>::new());
                        first.is_some()
                    })
                    .await;
                }
            }
        }
    }

    /// Ends the talk, waits until everyone was shown everything that was acknowledged, and checks
    /// that nothing came twice or out of order, and that both regions' histories agree and have it
    /// all. Answers what was counted.
    pub(crate) async fn settle(mut self, world: &World) -> String {
        self.enough.store(true, Ordering::Release);
        for talking in self.talking.drain(..) {
            talking.await.expect("talked to the end");
        }
        let everyone = self.everyone();
        let mut left = Vec::new();
        let shown = tokio::time::timeout(crate::world::PATIENCE, async {
            loop {
                left = self.ledger.missing(&everyone);
                if left.is_empty() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        if shown.await.is_err() {
            let lines: Vec<_> = world
                .lines()
                .into_iter()
                .map(|(who, line)| format!("{who} {line}"))
                .collect();
            panic!(
                "{} deliveries are missing: {:#?}\n{}",
                left.len(),
                &left[..left.len().min(20)],
                lines.join("\n")
            );
        }
        let faults = self.ledger.faults();
        assert!(faults.is_empty(), "{faults:#?}");
        for name in channels() {
            let [west, asia] = [WEST, ASIA].map(|region| &self.talkers[region][0].client);
            within(&format!("both histories of {name} are whole"), async || {
                histories_agree(west, asia, &name, &self.ledger).await
            })
            .await;
        }
        let counted = format!(
            "{} acknowledged, {} delivered, 0 lost, 0 duplicated, 0 out of order; histories agree",
            self.ledger.acknowledged(),
            self.ledger.delivered()
        );
        for talker in self.talkers.iter().flatten() {
            talker.client.close().await;
        }
        self.listening.drain(..).for_each(|task| task.abort());
        counted
    }
}
