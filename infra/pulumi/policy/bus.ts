import { type StackValidationPolicy } from "@pulumi/policy";

import { rule } from "./rule";

const SUBSCRIPTION = "gcp:pubsub/subscription:Subscription";
const TOPIC = "gcp:pubsub/topic:Topic";

const seconds = (duration: unknown): number => Number(String(duration ?? "").replace(/s$/, "") || Number.NaN);

/** Everything that reads topics of messages, by the name that it or its topic has. */
const isOfMessages = (props: any): boolean => /\.messages-\d+/.test(`${props.name} ${props.topic}`);

const oneCount: StackValidationPolicy = {
    name: "one-number-of-partitions",
    description: "All programs are told the number of partitions for which there are topics.",
    enforcementLevel: "mandatory",
    validateStack: ({ resources }, report) => {
        const topics = new Map<string, number>();
        for (const { type, props } of resources) {
            const [, region] = /^(.+)\.messages-\d+$/.exec(props.name ?? "") ?? [];
            if (type === TOPIC && region) {
                topics.set(region, (topics.get(region) ?? 0) + 1);
            }
        }
        const told = resources.flatMap(({ props, urn }) => {
            const containers: any[] = [...(props.template?.containers ?? []), ...(props.spec?.template?.spec?.containers ?? [])];
            const variables = containers.flatMap((container) => [...(container.envs ?? []), ...(container.env ?? [])]);
            return variables
                .filter(({ name }) => name === "INFRACHAT_PARTITIONS")
                .map(({ value }) => ({ urn, count: Number(value) }));
        });
        for (const { urn, count } of told) {
            for (const [region, topicCount] of topics) {
                if (topicCount !== count) {
                    report(`it is told of ${count} partitions, and ${region} has topics for ${topicCount}`, urn);
                }
            }
        }
    },
};

export const busRules = [
    rule("messages-are-never-thrown-out", "Subscriptions to messages have no dead-letter policy, keep order and never expire.", ({ type, props }, report) => {
        if (type !== SUBSCRIPTION || !isOfMessages(props)) {
            return;
        }
        if (props.deadLetterPolicy) {
            report("a message that is held back until history has it would count as failed, and be thrown out");
        }
        if (props.filter) {
            report("a filter would acknowledge messages that nobody read");
        }
        if (!props.enableMessageOrdering) {
            report("messages would come in any order");
        }
        if (props.ackDeadlineSeconds !== 10) {
            report("the lease must be 10 s: it bounds how long the messages of a dead shard are missing");
        }
        if (!(seconds(props.retryPolicy?.minimumBackoff) <= 0.1)) {
            report("what is handed back would rest for longer than 100 ms");
        }
    }),
    rule("subscriptions-never-expire", "A region may be away for longer than a month.", ({ type, props }, report) => {
        if (type === SUBSCRIPTION && props.expirationPolicy?.ttl !== "") {
            report('set expirationPolicy to { ttl: "" }: without, a subscription is deleted after 31 idle days');
        }
    }),
    rule("pushes-say-who-they-are", "The bus pushes with a token for one audience.", ({ type, props }, report) => {
        if (type !== SUBSCRIPTION || !props.pushConfig) {
            return;
        }
        const { oidcToken, pushEndpoint } = props.pushConfig;
        if (!oidcToken?.serviceAccountEmail || !oidcToken?.audience) {
            report("the receiver could not tell the bus from anybody else: set oidcToken with an audience");
        }
        if (!/^https:/.test(pushEndpoint ?? "")) {
            report("it would be pushed in the clear");
        }
    }),
    rule("topics-stay-in-their-region", "What a topic holds rests in the region of its name.", ({ type, props }, report) => {
        const regions: string[] = props.messageStoragePolicy?.allowedPersistenceRegions ?? [];
        const [region] = String(props.name ?? "").split(".");
        if (type === TOPIC && (regions.length !== 1 || regions[0] !== region)) {
            report(`set a storage policy for ${region} alone: a part of the world could hold messages of another`);
        }
    }),
    oneCount,
];
