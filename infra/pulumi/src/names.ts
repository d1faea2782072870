/** Names that the programs and the infrastructure share. The programs' side is in crates/routing and
 * crates/bus/src/pubsub/names.rs; a test compares. */

export type Service = "gatekeeper" | "switchboard";
export const SERVICES: Service[] = ["gatekeeper", "switchboard"];

export const NAMESPACE = "infrachat";
export const STATEFUL_SET = "shard";

/** What the health service knows the shard's own service by: not serving while it drains. */
export const CHAT_SERVICE = "infrachat.chat.v1.ChatService";

export const topicId = (region: string, topic: string): string => `${region}.${topic}`;
export const messagesTopic = (partition: number): string => `messages-${partition}`;
export const CONTROL = "control";
export const DEAD_LETTER = "dead-letter";
export const OPERATORS = "operators";

export const subscriptionId = (region: string, topic: string, group: string): string =>
    `${topicId(region, topic)}.${group}`;

/** The group of a service's instances in a region, which share each control event. */
export const serviceGroup = (service: Service, region: string): string => `${service}-${region}`;

/** A shard's slot: the pod's name with its region, the same over restarts. */
export const slotName = (region: string, ordinal: number): string => `${region}-${STATEFUL_SET}-${ordinal}`;

export const databaseId = (region: string): string => `infrachat-${region}`;

/** One label below the domain each, so that one wildcard certificate covers them all. */
export const hostOf = (label: string, domain: string): string => `${label}.${domain}`;
export const serviceHost = (service: Service, region: string, domain: string): string =>
    hostOf(serviceGroup(service, region), domain);
export const shardHost = (region: string, ordinal: number, domain: string): string =>
    hostOf(slotName(region, ordinal), domain);

export const numbers = (count: number): number[] => Array.from({ length: count }, (_, n) => n);
