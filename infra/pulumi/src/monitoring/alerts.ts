/** What somebody must know. docs/operations.md says what to do about each, under its name. */

import { BURNS, burning, OBJECTIVES } from "./objectives";

export interface Alert {
    name: string;
    /** What is wrong, for whoever is woken. */
    summary: string;
    query: string;
    /** How long it must be so. */
    seconds: number;
    /** Somebody is woken; otherwise somebody looks in the morning. */
    wakes: boolean;
    /** The section of docs/operations.md. */
    section: string;
}

/** Metrics of Google's that alerts use, beside those of metrics.json. */
export const GOOGLE_METRICS = [
    "pubsub_googleapis_com:subscription_oldest_unacked_message_age",
    "pubsub_googleapis_com:subscription_num_undelivered_messages",
    "monitoring_googleapis_com:uptime_check_check_passed",
    "logging_googleapis_com:user_infrachat_errors",
    "logging_googleapis_com:user_infrachat_panics",
    "kubernetes_io:container_restart_count",
];

const burns: Alert[] = OBJECTIVES.flatMap((objective) =>
    BURNS.map((burn) => ({
        name: `${objective.name}-burns-${burn.name}`,
        summary: `Promise in danger: ${objective.title}. Its budget burns ${burn.rate} times too fast over ${burn.long}.`,
        query: burning(objective, burn),
        seconds: 60,
        wakes: burn.wakes,
        section: `${objective.name}-burns`,
    })),
);

const conditions: Omit<Alert, "section">[] = [
    {
        name: "partitions-without-owner",
        summary: "Some partitions are served by no shard: their channels can't be joined.",
        query: "max by (region) (infrachat_partitions) - sum by (region) (infrachat_partitions_owned) > 0",
        seconds: 60,
        wakes: true,
    },
    {
        name: "partition-counts-differ",
        summary: "Programs were told different numbers of partitions: they look for channels in different places.",
        query: "max (infrachat_partitions) != min (infrachat_partitions)",
        seconds: 60,
        wakes: true,
    },
    {
        name: "message-lost",
        summary: "The canary did not hear a message that was acknowledged.",
        query: "sum by (from_region, to_region) (increase(infrachat_canary_lost_total[10m])) > 0",
        seconds: 0,
        wakes: true,
    },
    {
        name: "canary-silent",
        summary: "A region's canary sends nothing, so nobody knows whether messages arrive.",
        query:
            "sum by (region) (rate(infrachat_canary_sent_total[10m])) == 0 or " +
            "absent(infrachat_canary_sent_total)",
        seconds: 300,
        wakes: true,
    },
    {
        name: "order-broken",
        summary: "The canary heard a sender's messages in another order than they were sent.",
        query: "sum by (from_region, to_region) (increase(infrachat_canary_reordered_total[10m])) > 0",
        seconds: 0,
        wakes: true,
    },
    {
        name: "history-backlog",
        summary: "Half of what may wait for history is used: soon publishes will be refused.",
        query: "max by (region, shard) (infrachat_history_backlog_bytes / infrachat_history_backlog_max_bytes) > 0.5",
        seconds: 60,
        wakes: true,
    },
    {
        name: "degraded",
        summary: "A region works with less than its full promises.",
        query: "max by (region, part) (infrachat_degraded) > 0",
        seconds: 120,
        wakes: true,
    },
    {
        name: "bus-behind",
        summary: "Messages wait on the bus for more than a minute: a region does not hear them.",
        query: String.raw`max by (subscription_id) (pubsub_googleapis_com:subscription_oldest_unacked_message_age{monitored_resource="pubsub_subscription", subscription_id=~".+\\.messages-.+"}) > 60`,
        seconds: 120,
        wakes: true,
    },
    {
        name: "control-behind",
        summary: "Control events, revoked tokens among them, wait for more than five minutes.",
        query: String.raw`max by (subscription_id) (pubsub_googleapis_com:subscription_oldest_unacked_message_age{monitored_resource="pubsub_subscription", subscription_id=~".+\\.control\\.(gatekeeper|switchboard)-.+"}) > 300`,
        seconds: 120,
        wakes: true,
    },
    {
        name: "dead-letters",
        summary: "There are events that no program could read.",
        query: String.raw`max by (subscription_id) (pubsub_googleapis_com:subscription_num_undelivered_messages{monitored_resource="pubsub_subscription", subscription_id=~".+\\.dead-letter\\.operators"}) > 0`,
        seconds: 0,
        wakes: false,
    },
    {
        name: "push-refused",
        summary: "Somebody else than the bus pushes events, or the bus does so with the wrong token.",
        query: 'sum by (region, service) (rate(infrachat_push_requests_total{outcome="unauthenticated"}[5m])) > 0',
        seconds: 300,
        wakes: false,
    },
    {
        name: "fenced",
        summary: "A shard stopped serving because it could not renew its lease.",
        query: 'sum by (region, shard) (increase(infrachat_ownership_changes_total{change="fenced"}[10m])) > 0',
        seconds: 0,
        wakes: false,
    },
    {
        name: "sequence-holes",
        summary: "Messages of an origin are missing in a region, or came out of order.",
        query: "sum by (region, shard) (increase(infrachat_sequence_holes_total[10m])) > 0",
        seconds: 0,
        wakes: false,
    },
    {
        name: "sequence-missing",
        summary: "Readers were told of a gap: the bus did not deliver messages, and history does not have them.",
        query: "sum by (region, shard) (increase(infrachat_sequence_missing_total[10m])) > 0",
        seconds: 0,
        wakes: true,
    },
    {
        name: "sessions-near-limit",
        summary: "A region's shards are nearly full, and can't be made more by themselves.",
        query: "sum by (region) (infrachat_sessions) / sum by (region) (infrachat_sessions_max) > 0.8",
        seconds: 300,
        wakes: true,
    },
    {
        name: "slow-readers",
        summary: "Many readers fall behind: a shard or a network is too slow.",
        query: "sum by (region) (rate(infrachat_slow_readers_total[5m])) > 0.01 * sum by (region) (infrachat_sessions)",
        seconds: 300,
        wakes: false,
    },
    {
        name: "firestore-errors",
        summary: "Firestore fails or does not answer in time.",
        query:
            'sum by (region) (rate(infrachat_firestore_errors_total{code!="conflict"}[5m])) > ' +
            "0.01 * sum by (region) (rate(infrachat_firestore_seconds_count[5m]))",
        seconds: 300,
        wakes: true,
    },
    {
        name: "redis-errors",
        summary: "Redis fails or does not answer in time: presence is stale, limits are decided in process.",
        query:
            "sum by (region) (rate(infrachat_redis_errors_total[5m])) > " +
            "0.05 * sum by (region) (rate(infrachat_redis_seconds_count[5m]))",
        seconds: 300,
        wakes: false,
    },
    {
        name: "keys-unavailable",
        summary: "Tokens can't be verified, because an issuer's keys can't be had.",
        query: 'sum by (region, service) (rate(infrachat_token_verifications_total{outcome="keys_unavailable"}[5m])) > 0',
        seconds: 120,
        wakes: true,
    },
    {
        name: "routes-old",
        summary: "Switchboard serves routes that it can't refresh.",
        query: "max by (region) (infrachat_routes_age_seconds) > 10",
        seconds: 60,
        wakes: true,
    },
    {
        name: "shard-suspect",
        summary: "A shard lives and can't be reached: it is counted out, and the others serve its channels.",
        query: 'max by (region) (infrachat_shards{state="suspect"}) > 0',
        seconds: 60,
        wakes: true,
    },
    {
        name: "prober-lost",
        summary: "A Switchboard reaches fewer shards than it misses, so that it counts none out.",
        query: "max by (region) (infrachat_prober_lost) > 0",
        seconds: 60,
        wakes: true,
    },
    {
        name: "not-reachable",
        summary: "A public address does not answer from several places of the world.",
        query:
            "avg by (check_id) (avg_over_time(monitoring_googleapis_com:uptime_check_check_passed" +
            '{monitored_resource="uptime_url"}[5m])) < 0.5',
        seconds: 60,
        wakes: true,
    },
    {
        name: "panics",
        summary: "A program had a defect and ended a task or itself.",
        query: "sum (increase(logging_googleapis_com:user_infrachat_panics[10m])) > 0",
        seconds: 0,
        wakes: false,
    },
    {
        name: "errors-logged",
        summary: "Many errors in the logs.",
        query: "sum (rate(logging_googleapis_com:user_infrachat_errors[10m])) > 1",
        seconds: 600,
        wakes: false,
    },
    {
        name: "restarts",
        summary: "A container restarts again and again.",
        query:
            "max by (pod_name, container_name) (increase(kubernetes_io:container_restart_count" +
            '{monitored_resource="k8s_container", namespace_name="infrachat"}[30m])) > 2',
        seconds: 0,
        wakes: true,
    },
    {
        name: "descriptors-near-limit",
        summary: "A process has used most of its file descriptors.",
        query: "max by (region, service, shard) (process_open_fds / process_max_fds) > 0.8",
        seconds: 300,
        wakes: false,
    },
];

export const ALERTS: Alert[] = [...burns, ...conditions.map((alert) => ({ ...alert, section: alert.name }))];
