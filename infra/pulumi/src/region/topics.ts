/** A region's topics. */

import * as gcp from "@pulumi/gcp";
import * as pulumi from "@pulumi/pulumi";

import { type RegionFoundation } from "../foundation";
import { CONTROL, DEAD_LETTER, messagesTopic, numbers, OPERATORS, subscriptionId, topicId } from "../names";
import { type Settings } from "../settings";
import { BUS_RETENTION } from "../timing";

export interface TopicsArgs {
    settings: Settings;
    foundation: RegionFoundation;
}

export class Topics extends pulumi.ComponentResource {
    /** By partition. */
    readonly messages: gcp.pubsub.Topic[];
    readonly control: gcp.pubsub.Topic;
    readonly deadLetter: gcp.pubsub.Topic;

    constructor(
        readonly region: string,
        { settings, foundation }: TopicsArgs,
        opts: pulumi.ComponentResourceOptions,
    ) {
        super("infrachat:region:Topics", region, {}, opts);
        const topic = (name: string) =>
            new gcp.pubsub.Topic(
                topicId(region, name),
                {
                    name: topicId(region, name),
                    kmsKeyName: foundation.kmsKey,
                    // At rest in its own region only; any of ours may read it.
                    messageStoragePolicy: { allowedPersistenceRegions: [region], enforceInTransit: false },
                },
                { parent: this, dependsOn: foundation.ready, protect: settings.deletionProtection },
            );
        this.messages = numbers(settings.partitions).map((partition) => topic(messagesTopic(partition)));
        this.control = topic(CONTROL);
        this.deadLetter = topic(DEAD_LETTER);
        const operators = subscriptionId(region, DEAD_LETTER, OPERATORS);
        new gcp.pubsub.Subscription(
            operators,
            {
                name: operators,
                topic: this.deadLetter.id,
                enableMessageOrdering: true,
                ackDeadlineSeconds: 600,
                messageRetentionDuration: BUS_RETENTION,
                expirationPolicy: { ttl: "" },
            },
            { parent: this },
        );
        this.registerOutputs({});
    }
}
