//! What can be set, and the defaults.

use std::{num::ParseIntError, time::Duration};

use infrachat_routing::PartitionCount;
use infrachat_types::ShardId;

use crate::{channel::ChannelLimits, log::RingLimits};

/// What a shard is, on the command line, in the environment, or from code.
#[derive(Debug, Clone, clap::Args)]
pub struct ShardConfig {
    /// Its slot's name, the same over restarts, and no other shard's in any region.
    #[arg(long, env = "INFRACHAT_SHARD")]
    pub shard: ShardId,
    /// Where to listen, "host:port"; port 0 picks a free one.
    #[arg(long, env = "INFRACHAT_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: String,
    /// Where clients reach it, "host:port"; by default the address it listens on.
    #[arg(long, env = "INFRACHAT_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// How many partitions the deployment has: a power of two, the same everywhere, set once.
    #[arg(long, env = "INFRACHAT_PARTITIONS", default_value_t)]
    pub partitions: PartitionCount,
    /// Sizes, limits and times.
    #[command(flatten)]
    pub tuning: Tuning,
}

/// Sizes, limits and times. The defaults suit production; tests shorten them.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Sizes, limits and times")]
pub struct Tuning {
    /// Longest body, in bytes.
    #[arg(long, env = "INFRACHAT_MAX_BODY_BYTES", default_value = "16384")]
    pub max_body_bytes: usize,
    /// Most channels a session may join.
    #[arg(long, env = "INFRACHAT_MAX_CHANNELS", default_value = "1000")]
    pub max_channels: usize,
    /// Most messages of a session that wait for their acknowledgement.
    #[arg(long, env = "INFRACHAT_MAX_IN_FLIGHT", default_value = "256")]
    pub max_in_flight: usize,
    /// Messages a second a session may publish, sustained; bursts may be four times that.
    #[arg(long, env = "INFRACHAT_PUBLISH_PER_SECOND", default_value = "100")]
    pub publish_per_second: u32,
    /// Frames a second of a session that are read, beside the messages it publishes, sustained; more
    /// wait. Beyond that it may leave and join as many channels as a session may have at once.
    #[arg(long, env = "INFRACHAT_FRAMES_PER_SECOND", default_value = "200")]
    pub frames_per_second: u32,
    /// Unread messages after which a session is a slow reader.
    #[arg(long, env = "INFRACHAT_SLOW_READER_PENDING", default_value = "1000")]
    pub slow_reader_pending: u64,
    /// Most sessions of a shard.
    #[arg(long, env = "INFRACHAT_MAX_SESSIONS", default_value = "50000")]
    pub max_sessions: usize,
    /// How often a client is asked to send a heartbeat, unless it asks for another interval,
    /// milliseconds.
    #[arg(long = "heartbeat-interval-ms", env = "INFRACHAT_HEARTBEAT_INTERVAL_MS",
        value_parser = millis, default_value = "20000")]
    pub heartbeat_interval: Duration,
    /// How long the first frame may take, milliseconds.
    #[arg(long = "hello-timeout-ms", env = "INFRACHAT_HELLO_TIMEOUT_MS",
        value_parser = millis, default_value = "10000")]
    pub hello_timeout: Duration,
    /// How long a message is tried to be put on the bus, milliseconds.
    #[arg(long = "publish-deadline-ms", env = "INFRACHAT_PUBLISH_DEADLINE_MS",
        value_parser = millis, default_value = "10000")]
    pub publish_deadline: Duration,
    /// How long a lease is good without being renewed, milliseconds; the same everywhere.
    #[arg(long = "lease-ttl-ms", env = "INFRACHAT_LEASE_TTL_MS",
        value_parser = millis, default_value = "4000")]
    pub lease_ttl: Duration,
    /// How often the lease is renewed, milliseconds.
    #[arg(long = "lease-renewal-ms", env = "INFRACHAT_LEASE_RENEWAL_MS",
        value_parser = millis, default_value = "1000")]
    pub lease_renewal: Duration,
    /// How long a seat in a channel is good without being refreshed, milliseconds.
    #[arg(long = "seat-ttl-ms", env = "INFRACHAT_SEAT_TTL_MS",
        value_parser = millis, default_value = "45000")]
    pub seat_ttl: Duration,
    /// Over how long sessions are sent away when the shard stops, and how long it waits for them,
    /// milliseconds.
    #[arg(long = "drain-ms", env = "INFRACHAT_DRAIN_MS",
        value_parser = millis, default_value = "5000")]
    pub drain: Duration,
    /// Messages of a partition that may wait for history.
    #[arg(long, env = "INFRACHAT_HISTORY_BACKLOG", default_value = "10000")]
    pub history_backlog: usize,
    /// Bytes of message bodies that may wait for history, in all partitions of a shard.
    #[arg(
        long,
        env = "INFRACHAT_HISTORY_BACKLOG_BYTES",
        default_value = "268435456"
    )]
    pub history_backlog_bytes: usize,
    /// Bytes that a shard may hold in all: sessions, channel logs, and messages on their way. Short of it, a
    /// shard first gives up what it can read again, then what slow readers have not read, then takes no
    /// more sessions, and at last takes nothing in until there is room.
    #[arg(
        long,
        env = "INFRACHAT_MEMORY_BUDGET_BYTES",
        default_value = "2147483648"
    )]
    pub memory_budget_bytes: usize,
    /// Events taken from the bus and not yet acknowledged, a partition and source region.
    #[arg(long, env = "INFRACHAT_CONSUME_EVENTS", default_value = "1000")]
    pub consume_events: usize,
    #[arg(skip = CHANNEL)]
    pub(crate) channel: ChannelLimits,
}

const CHANNEL: ChannelLimits = ChannelLimits {
    ring: RingLimits {
        entries: 4_096,
        bytes: 8 * 1024 * 1024,
    },
    duplicate_window: 4_096,
};

impl Default for Tuning {
    fn default() -> Self {
        Self {
            max_body_bytes: 16 * 1024,
            max_channels: 1_000,
            max_in_flight: 256,
            publish_per_second: 100,
            frames_per_second: 200,
            slow_reader_pending: 1_000,
            max_sessions: 50_000,
            heartbeat_interval: Duration::from_secs(20),
            hello_timeout: Duration::from_secs(10),
            publish_deadline: Duration::from_secs(10),
            lease_ttl: Duration::from_secs(4),
            lease_renewal: Duration::from_secs(1),
            seat_ttl: Duration::from_secs(45),
            drain: Duration::from_secs(5),
            history_backlog: 10_000,
            history_backlog_bytes: 256 * 1024 * 1024,
            memory_budget_bytes: 2 * 1024 * 1024 * 1024,
            consume_events: 1_000,
            channel: CHANNEL,
        }
    }
}

fn millis(text: &str) -> Result<Duration, ParseIntError> {
    text.parse().map(Duration::from_millis)
}

/// The settings contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTuning(&'static str);

impl Tuning {
    /// That the settings go together.
    pub(crate) fn check(&self) -> Result<(), BadTuning> {
        let checks = [
            (
                self.lease_renewal * 3 <= self.lease_ttl,
                "the lease must be renewed at least three times before it ends: raise --lease-ttl-ms or lower --lease-renewal-ms",
            ),
            (
                self.max_body_bytes > 0 && self.max_body_bytes <= 1024 * 1024,
                "--max-body-bytes must be 1 to 1048576: events of more don't pass every bus",
            ),
            (
                self.max_channels > 0 && self.max_in_flight > 0 && self.max_sessions > 0,
                "--max-channels, --max-in-flight and --max-sessions must be at least 1",
            ),
            (
                self.publish_per_second > 0 && self.frames_per_second > 0,
                "--publish-per-second and --frames-per-second must be at least 1",
            ),
            (
                self.history_backlog > 0 && self.consume_events > 0,
                "--history-backlog and --consume-events must be at least 1",
            ),
            (
                self.memory_budget_bytes >= 1024 * 1024,
                "--memory-budget-bytes must be at least 1048576: with less a shard takes nothing in",
            ),
            (
                self.slow_reader_pending > 0,
                "--slow-reader-pending must be at least 1",
            ),
        ];
        match checks.iter().find(|(good, _)| !good) {
            Some((_, problem)) => Err(BadTuning(problem)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    #[test]
    fn the_defaults_are_the_same_on_the_command_line_and_in_code() {
        let command = ShardConfig::augment_args(clap::Command::new("chat-shard"));
        let matches = command.get_matches_from(["chat-shard", "--shard", "us-west1-shard-0"]);
        let parsed = ShardConfig::from_arg_matches(&matches).expect("parses");
        assert_eq!(
            format!("{:?}", parsed.tuning),
            format!("{:?}", Tuning::default())
        );
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        Tuning::default().check().expect("the defaults are good");
        let lease_ttl = Duration::from_secs(2);
        let hasty = Tuning {
            lease_ttl,
            ..Tuning::default()
        };
        assert!(hasty.check().is_err());
        let empty = Tuning {
            max_body_bytes: 0,
            ..Tuning::default()
        };
        assert!(empty.check().is_err());
    }
}
