/** What is promised, and how a broken promise is noticed: slowly burning or fast. */

export interface Objective {
    name: string;
    title: string;
    /** The share that must be good over 28 days. */
    goal: number;
    /** The bad share over a window, in PromQL. */
    bad: (window: string) => string;
    /** The same, as Cloud Monitoring's SLOs take it. */
    indicator: { total: string; bad: string } | { distribution: string; below: number };
}

/** What a message may take from its sender to its readers, between any two regions. A bound of the
 * histogram's buckets. */
export const DELIVERED_WITHIN = 0.5;

const ratio = (part: string, whole: string): string => `sum (rate(${part})) / sum (rate(${whole}))`;

const OUR_FAULT = ["overloaded", "unavailable", "internal"];

const counter = (metric: string): string =>
    `metric.type="prometheus.googleapis.com/${metric}/counter" AND resource.type="prometheus_target"`;
const oneOf = (label: string, values: string[]): string =>
    ` AND metric.label.${label}=one_of(${values.map((value) => JSON.stringify(value)).join(",")})`;

export const OBJECTIVES: Objective[] = [
    {
        name: "delivery-success",
        title: "Acknowledged messages reach every region",
        goal: 0.9995,
        bad: (w) => ratio(`infrachat_canary_lost_total[${w}]`, `infrachat_canary_sent_total[${w}]`),
        indicator: { total: counter("infrachat_canary_sent_total"), bad: counter("infrachat_canary_lost_total") },
    },
    {
        name: "delivery-latency",
        title: `Messages reach their readers within ${DELIVERED_WITHIN} s`,
        goal: 0.99,
        bad: (w) =>
            `1 - ${ratio(
                `infrachat_delivery_seconds_bucket{le="${DELIVERED_WITHIN}"}[${w}]`,
                `infrachat_delivery_seconds_count[${w}]`,
            )}`,
        indicator: {
            distribution:
                'metric.type="prometheus.googleapis.com/infrachat_delivery_seconds/histogram" AND ' +
                'resource.type="prometheus_target"',
            below: DELIVERED_WITHIN,
        },
    },
    {
        name: "publish-success",
        title: "Messages that may be sent are accepted",
        goal: 0.999,
        bad: (w) =>
            ratio(
                `infrachat_publishes_total{outcome="unavailable"}[${w}]`,
                `infrachat_publishes_total{outcome=~"acked|duplicate|unavailable"}[${w}]`,
            ),
        indicator: {
            total:
                counter("infrachat_publishes_total") + oneOf("outcome", ["acked", "duplicate", "unavailable"]),
            bad: counter("infrachat_publishes_total") + oneOf("outcome", ["unavailable"]),
        },
    },
    {
        name: "sign-in",
        title: "Who may sign in, can",
        goal: 0.999,
        bad: (w) =>
            ratio(
                `infrachat_auth_requests_total{outcome=~"${OUR_FAULT.join("|")}"}[${w}]`,
                `infrachat_auth_requests_total[${w}]`,
            ),
        indicator: {
            total: counter("infrachat_auth_requests_total"),
            bad: counter("infrachat_auth_requests_total") + oneOf("outcome", OUR_FAULT),
        },
    },
];

/** How fast the budget of 28 days may burn, over a long window and still in a short one. */
export const BURNS = [
    { name: "fast", long: "1h", short: "5m", rate: 14.4, wakes: true },
    { name: "steady", long: "6h", short: "30m", rate: 6, wakes: true },
    { name: "slow", long: "1d", short: "2h", rate: 3, wakes: false },
] as const;

export function burning({ bad, goal }: Objective, { long, short, rate }: (typeof BURNS)[number]): string {
    const limit = Number((rate * (1 - goal)).toPrecision(4));
    return `(${bad(long)}) > ${limit} and (${bad(short)}) > ${limit}`;
}
