//! Plays logged days with one session a speaker, and checks every delivery.

mod ledger;
mod parser;
mod plan;
mod players;
mod progress;
mod report;
mod signing_in;

use std::{fs, io::Write as _, path::Path, str::FromStr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use futures::future::{join_all, try_join_all};
use infrachat_client::{ChannelName, UserName};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::Instant,
};

use crate::{
    args::{self, Global},
    exit::Failure,
    session,
};
use ledger::Ledger;
use plan::{Act, Plan};
use players::{Cue, Player};
use progress::Progress;
use report::{Library, Report};
use signing_in::Audition;

/// How long a sign-in may be told to wait: rate limits let a crowd in slowly.
const SIGN_IN_DEADLINE: Duration = Duration::from_secs(900);

/// How fast a day is played.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Speed {
    /// So many times faster than it was.
    Times(f64),
    /// As fast as messages are accepted.
    Max,
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.strip_suffix('x').unwrap_or(text).parse() {
            Ok(times) if times > 0.0 && f64::is_finite(times) => Ok(Self::Times(times)),
            _ => Err("use a number such as 60x, or max".to_owned()),
        }
    }
}

/// One file, ready to be played.
struct Show {
    channel: ChannelName,
    plan: Plan,
    names: Vec<UserName>,
    ledger: Arc<Ledger>,
}

pub(crate) async fn run(global: &Global, args: args::Replay) -> Result<()> {
    if !args.channels.is_empty() && args.channels.len() != args.files.len() {
        return Err(
            Failure::Usage("give one --channel for each --file, or none".to_owned()).into(),
        );
    }
    let shows = shows(&args)?;
    let progress = Progress::start(
        &shows
            .iter()
            .map(|show| Arc::clone(&show.ledger))
            .collect::<Vec<_>>(),
    );
    let casts = sign_in(global, &args, &shows, &progress).await?;
    let listening: Vec<_> = casts
        .iter()
        .flatten()
        .map(|player| player.listen())
        .collect();
    progress.phase("entering");
    for (show, cast) in shows.iter().zip(&casts) {
        enter(show, cast).await?;
    }
    progress.phase("playing");
    let began = Instant::now();
    let room = Arc::new(Semaphore::new(args.in_flight.max(1)));
    let playing = shows
        .iter()
        .zip(&casts)
        .map(|(show, cast)| play(show, cast, args.speed, &room));
    try_join_all(playing).await?;
    progress.phase("waiting for the rest");
    settle(&shows, Duration::from_secs(args.patience)).await;
    let took = began.elapsed();
    drop(progress);

    let mut library = Library::default();
    for player in casts.iter().flatten() {
        library.add(&player.client.stats());
    }
    let tallies: Vec<_> = shows.iter().map(|show| show.ledger.tally()).collect();
    join_all(casts.iter().flatten().map(|player| player.close())).await;
    drop(listening);
    let channels = shows.iter().map(|show| show.channel.to_string()).collect();
    let sessions = casts.iter().map(Vec::len).sum();
    conclude(
        &Report::new(channels, sessions, took, &tallies, library)?,
        args.json,
    )
}

fn conclude(report: &Report, json: bool) -> Result<()> {
    let text = if json {
        serde_json::to_string(report)?
    } else {
        report.to_string()
    };
    writeln!(std::io::stdout(), "{text}")?;
    if !report.passed() {
        return Err(Failure::Verdict(
            "deliveries were missing, repeated or out of order".to_owned(),
        )
        .into());
    }
    if report.failed() > 0 {
        let text = format!("{} messages were never acknowledged", report.failed());
        return Err(Failure::Unavailable(text).into());
    }
    Ok(())
}

fn shows(args: &args::Replay) -> Result<Vec<Show>> {
    let mut shows = Vec::new();
    for (number, file) in args.files.iter().enumerate() {
        let suffix = signing_in::random_text(5);
        let plan = read(file, args.lines)?;
        let stem = file
            .file_stem()
            .map(|stem| stem.to_string_lossy())
            .unwrap_or_default();
        let channel = match args.channels.get(number) {
            Some(channel) => channel.clone(),
            None => signing_in::channel_name(&stem, &suffix)?,
        };
        let names = signing_in::user_names(&plan.people, &suffix)?;
        let ledger = Arc::new(Ledger::new(&plan.people)?);
        shows.push(Show {
            channel,
            plan,
            names,
            ledger,
        });
    }
    Ok(shows)
}

fn read(file: &Path, lines: Option<usize>) -> Result<Plan> {
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let mut entries = parser::parse(&String::from_utf8_lossy(&bytes));
    entries.truncate(lines.unwrap_or(usize::MAX));
    let plan = Plan::new(&entries);
    if plan.people.is_empty() {
        bail!(
            "{} has no line such as \"[12:34] <nick> text\"",
            file.display()
        );
    }
    Ok(plan)
}

async fn sign_in(
    global: &Global,
    args: &args::Replay,
    shows: &[Show],
    progress: &Progress,
) -> Result<Vec<Vec<Arc<Player>>>> {
    let names: Vec<_> = shows
        .iter()
        .flat_map(|show| show.names.iter().cloned())
        .collect();
    progress.sessions(names.len());
    let mut audition = Audition::new(&global.server, &args.servers, &global.fallback_regions);
    let mut clients = audition
        .sign_in(&names, || progress.signed_in())
        .await?
        .into_iter();
    let cast = |show: &Show| {
        let players = clients.by_ref().take(show.names.len()).enumerate();
        players
            .map(|(person, client)| {
                let (channel, ledger) = (show.channel.clone(), Arc::clone(&show.ledger));
                Arc::new(Player {
                    client,
                    person,
                    channel,
                    ledger,
                })
            })
            .collect()
    };
    Ok(shows.iter().map(cast).collect())
}

/// Creates the channel, and lets those in who are there from the beginning.
async fn enter(show: &Show, cast: &[Arc<Player>]) -> Result<()> {
    let Some(first) = show
        .plan
        .present
        .first()
        .or(Some(&0))
        .and_then(|first| cast.get(*first))
    else {
        return Ok(());
    };
    session::enter(&first.client, &show.channel, 0, true)
        .await
        .context("creating the channel")?;
    if !show.plan.present.contains(&first.person) {
        first.client.leave(&show.channel).await?;
    }
    try_join_all(
        show.plan
            .present
            .iter()
            .filter_map(|person| cast.get(*person))
            .map(|player| player.join()),
    )
    .await?;
    Ok(())
}

async fn play(
    show: &Show,
    cast: &[Arc<Player>],
    speed: Speed,
    room: &Arc<Semaphore>,
) -> Result<()> {
    let mut playing = JoinSet::new();
    let mut cues: Vec<mpsc::UnboundedSender<Cue>> = Vec::new();
    for player in cast {
        let (sender, receiver) = mpsc::unbounded_channel();
        cues.push(sender);
        playing.spawn(Arc::clone(player).play(receiver));
    }
    let directing = direct(show, cues, speed, room);
    tokio::pin!(directing);
    let mut directed = false;
    loop {
        tokio::select! {
            done = &mut directing, if !directed => {
                done?;
                directed = true;
            }
            player = playing.join_next() => match player {
                Some(played) => played.context("a player failed")??,
                None => return Ok(()),
            },
        }
    }
}

/// Gives everybody their cues, each at its time.
async fn direct(
    show: &Show,
    cues: Vec<mpsc::UnboundedSender<Cue>>,
    speed: Speed,
    room: &Arc<Semaphore>,
) -> Result<()> {
    let began = Instant::now();
    for step in &show.plan.steps {
        if let Speed::Times(times) = speed {
            tokio::time::sleep_until(began + step.at.div_f64(times)).await;
        }
        let permit = match step.act {
            Act::Say(_) => Some(Arc::clone(room).acquire_owned().await?),
            Act::Join | Act::Leave => None,
        };
        // A player that is gone has failed, which `play` tells.
        cues[step.person].send((step.act.clone(), permit)).ok();
    }
    Ok(())
}

/// Waits until everything owed has come, or nothing comes any more.
async fn settle(shows: &[Show], patience: Duration) {
    let mut seen = Vec::new();
    let mut since = Instant::now();
    let mut looking = tokio::time::interval(Duration::from_millis(20));
    loop {
        looking.tick().await;
        let progress: Vec<_> = shows.iter().map(|show| show.ledger.progress()).collect();
        if progress.iter().all(|progress| progress.outstanding == 0) {
            return;
        }
        if progress != seen {
            (seen, since) = (progress, Instant::now());
        } else if since.elapsed() > patience {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_numbers_or_max() {
        assert_eq!("60x".parse(), Ok(Speed::Times(60.0)));
        assert_eq!("2.5".parse(), Ok(Speed::Times(2.5)));
        assert_eq!("max".parse(), Ok(Speed::Max));
        for bad in ["", "fast", "0x", "-1", "inf"] {
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
    }
}
