//! The command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use infrachat_client::{ChannelName, Region, UserName};

use crate::replay::Speed;

const EXAMPLES: &str = "\
Examples:
  infrachat chat --user alice                        chat in #general on localhost:8001
  infrachat send '#ops' --user robot deployed 1.4    say one line, wait until it is accepted
  make 2>&1 | infrachat send '#build' - --user robot say every line of standard input
  infrachat tail '#general' --user robot --json      messages as JSON lines, as they come
  infrachat replay --file 2006-06-01.txt --speed max play a logged day, and check every delivery
  infrachat explain '#general' --user robot          who serves it in each region, and why
  infrachat canary --user robot --rounds 10          what arrives between the regions, and how fast

Passwords:
  From INFRACHAT_PASSWORD, or --password-file, or asked for on the terminal. With a server on this
  machine and none of these, a random password is made once and kept, readable by you alone, in
  $XDG_STATE_HOME/infrachat/<server>-<user> (~/.local/state without XDG_STATE_HOME), and the user
  is registered when there is none: so local play needs no password.

Exit codes:
  0  done
  1  another failure
  2  the command line was wrong
  3  not signed in: wrong name or password, or the sign-in was ended
  4  refused: no such channel, not a member, too large, ...
  5  unavailable: a server can't be reached, or did not do it in time
  6  the verdict of replay or canary: a delivery was missing, repeated or out of order";

/// InfraChat in a terminal.
#[derive(Debug, Parser)]
#[command(name = "infrachat", version, after_long_help = EXAMPLES, after_help = "--help tells more: examples, passwords, exit codes.")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Global {
    /// A Gatekeeper, as host:port; https:// or port 443 means TLS.
    #[arg(
        long,
        global = true,
        env = "INFRACHAT_SERVER",
        default_value = "localhost:8001"
    )]
    pub(crate) server: String,

    /// Who you are: lower-case letters, digits, '.', '_' or '-'.
    #[arg(long, global = true, env = "INFRACHAT_USER")]
    pub(crate) user: Option<UserName>,

    /// Regions to go to when the server's own can't be used any more, in this order; without it, that
    /// region is waited for.
    #[arg(
        long = "fallback-region",
        global = true,
        env = "INFRACHAT_FALLBACK_REGION",
        value_name = "REGION",
        value_delimiter = ','
    )]
    pub(crate) fallback_regions: Vec<Region>,

    /// A file whose first line is the password.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,

    /// The password; better given in the environment, since others can see a command line.
    #[arg(
        long,
        global = true,
        env = "INFRACHAT_PASSWORD",
        hide_env_values = true,
        hide = true
    )]
    pub(crate) password: Option<String>,

    /// Register the user when there is none of that name (always done by chat, and on this machine).
    #[arg(long, global = true)]
    pub(crate) register: bool,

    /// What to log to standard error: a level, or a RUST_LOG expression.
    #[arg(
        long,
        global = true,
        env = "RUST_LOG",
        default_value = "error",
        hide_env_values = true
    )]
    pub(crate) log: String,

    /// Where remembered passwords are kept.
    #[arg(long, global = true, env = "XDG_STATE_HOME", hide = true)]
    pub(crate) state_home: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Chat, line by line.
    #[command(after_long_help = crate::chat::HELP)]
    Chat(Chat),
    /// Say something, and wait until it is accepted.
    Send(Send),
    /// Print messages as they come.
    Tail(Tail),
    /// Play logged IRC days with one session a speaker, and check that every message reaches
    /// everybody who was there exactly once and in order.
    Replay(Replay),
    /// Tell where a channel is served in each region, by whom, why, and how far each region's history is.
    Explain(Explain),
    /// Talk to oneself through every pair of regions, and report what arrives and how fast.
    Canary(Canary),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// The channel, such as '#general' (quote it: the shell takes # for a comment).
    pub(crate) channel: ChannelName,
    /// Print one JSON object a region and line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Canary {
    /// The channel to talk in; created when there is none.
    #[arg(long, default_value = "#canary")]
    pub(crate) channel: ChannelName,
    /// How often each region's probe says something, in milliseconds.
    #[arg(long = "every-ms", value_name = "MS", default_value = "1000", value_parser = millis)]
    pub(crate) every: Duration,
    /// A probe that is not heard so long after it was acknowledged is lost, in milliseconds.
    #[arg(long = "deadline-ms", value_name = "MS", default_value = "30000", value_parser = millis)]
    pub(crate) deadline: Duration,
    /// End after this many rounds, with exit code 6 if anything was lost, repeated or out of order;
    /// without it, go on until told to stop.
    #[arg(long)]
    pub(crate) rounds: Option<u64>,
    /// The region that the canary runs in, for its metrics; by default the server's.
    #[arg(long, env = "INFRACHAT_REGION")]
    pub(crate) region: Option<String>,
    /// Serve Prometheus metrics at http://HOST:PORT/metrics.
    #[arg(long, env = "INFRACHAT_METRICS_LISTEN", value_name = "HOST:PORT")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Print each report as a JSON line.
    #[arg(long)]
    pub(crate) json: bool,
}

fn millis(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_millis)
}

#[derive(Debug, clap::Args)]
pub(crate) struct Chat {
    /// The channel to start in; created when there is none.
    #[arg(long, default_value = "#general")]
    pub(crate) channel: ChannelName,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Send {
    /// The channel, such as '#general' (quote it: the shell takes # for a comment).
    pub(crate) channel: ChannelName,
    /// What to say; without it, or with -, every line of standard input.
    #[arg(trailing_var_arg = true)]
    pub(crate) text: Vec<String>,
    /// Print {"channel","message_id","client_message_id"} for each message accepted.
    #[arg(long)]
    pub(crate) json: bool,
    /// Create the channel when there is none.
    #[arg(long)]
    pub(crate) create: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Tail {
    /// The channel, such as '#general' (quote it: the shell takes # for a comment).
    pub(crate) channel: ChannelName,
    /// Print JSON lines. The fields are stable: channel, message_id, client_message_id, sender,
    /// body, published_at_ms (milliseconds since 1970), region.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print this many recent messages first.
    #[arg(long, default_value_t = 0)]
    pub(crate) recent: u32,
    /// End after this many messages.
    #[arg(long)]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Replay {
    /// A log: `[HH:MM] <nick> text` and `=== nick [host] has joined #channel` lines. Several files
    /// are played at once, each in a channel of its own.
    #[arg(long = "file", required = true, value_name = "LOG")]
    pub(crate) files: Vec<PathBuf>,
    /// How many times faster than it was, such as 60x; or max: as fast as messages are accepted.
    #[arg(long, default_value = "60x")]
    pub(crate) speed: Speed,
    /// The channel of each file, in their order; without it, a fresh one named after the file.
    #[arg(long = "channel")]
    pub(crate) channels: Vec<ChannelName>,
    /// Gatekeepers to spread the sessions over; without it, those of all the server's regions.
    #[arg(long, value_delimiter = ',')]
    pub(crate) servers: Vec<String>,
    /// Most messages that wait for their acknowledgement, over all files.
    #[arg(long, default_value_t = 256)]
    pub(crate) in_flight: usize,
    /// How many seconds nothing may come while something is owed, before the verdict.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) patience: u64,
    /// Play only this many lines of each file.
    #[arg(long)]
    pub(crate) lines: Option<usize>,
    /// Print the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
