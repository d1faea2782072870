/** What a region hears: every region's messages by pull, every region's control events by push and pull. */

import * as gcp from "@pulumi/gcp";
import * as pulumi from "@pulumi/pulumi";

import { Grants, type Grantee } from "../iam";
import { CONTROL, messagesTopic, numbers, type Service, serviceGroup, SERVICES, slotName, subscriptionId } from "../names";
import { type Settings } from "../settings";
import { BUS_LEASE, BUS_RETENTION } from "../timing";
import { type Topics } from "./topics";

/** Where a service gets its control events, and who the bus says it is. */
export interface Push {
    endpoint: pulumi.Output<string>;
    audience: string;
    account: gcp.serviceaccount.Account;
}

export interface SubscriptionsArgs {
    settings: Settings;
    /** Of all regions. */
    sources: Topics[];
    shard: Grantee;
    /** May consume and look at a subscription, nothing else. */
    consumerRole: pulumi.Input<string>;
    push: Map<Service, Push>;
    projectNumber: pulumi.Output<string>;
}

export class Subscriptions extends pulumi.ComponentResource {
    readonly grants: pulumi.Resource[];

    constructor(region: string, args: SubscriptionsArgs, opts: pulumi.ComponentResourceOptions) {
        super("infrachat:region:Subscriptions", region, {}, opts);
        const { settings, shard, consumerRole } = args;
        const grants = new Grants(settings.project, this);
        for (const source of args.sources) {
            source.messages.forEach((topic, partition) => {
                const id = subscriptionId(source.region, messagesTopic(partition), region);
                const { name } = this.pull(id, topic);
                grants.subscription(shard, id, name, consumerRole);
            });
            for (const ordinal of numbers(settings.shards.max)) {
                const id = subscriptionId(source.region, CONTROL, slotName(region, ordinal));
                const { name } = this.pull(id, source.control);
                grants.subscription(shard, id, name, consumerRole);
            }
            for (const service of SERVICES) {
                const push = args.push.get(service);
                if (push) {
                    this.push(subscriptionId(source.region, CONTROL, serviceGroup(service, region)), source, push);
                }
            }
        }
        const bus = pulumi.interpolate`serviceAccount:service-${args.projectNumber}@gcp-sa-pubsub.iam.gserviceaccount.com`;
        for (const [service, { account }] of args.push) {
            const to = { name: "pubsub", member: bus };
            grants.account(to, `push-${serviceGroup(service, region)}`, account, "roles/iam.serviceAccountTokenCreator");
        }
        this.grants = grants.all;
        this.registerOutputs({});
    }

    /** No dead-letter policy: a message that is held back until history has it would count as failed. */
    private pull(id: string, topic: gcp.pubsub.Topic): gcp.pubsub.Subscription {
        return new gcp.pubsub.Subscription(
            id,
            {
                name: id,
                topic: topic.id,
                enableMessageOrdering: true,
                ackDeadlineSeconds: BUS_LEASE,
                retryPolicy: { minimumBackoff: "0.1s", maximumBackoff: "1s" },
                messageRetentionDuration: BUS_RETENTION,
                expirationPolicy: { ttl: "" },
            },
            { parent: this },
        );
    }

    /** Nor here: a revocation waits for as long as the region's stores are away. The services set aside
     * what they can't read. */
    private push(id: string, source: Topics, { endpoint, audience, account }: Push): void {
        new gcp.pubsub.Subscription(
            id,
            {
                name: id,
                topic: source.control.id,
                enableMessageOrdering: true,
                ackDeadlineSeconds: 30,
                retryPolicy: { minimumBackoff: "0.1s", maximumBackoff: "10s" },
                messageRetentionDuration: BUS_RETENTION,
                expirationPolicy: { ttl: "" },
                pushConfig: {
                    pushEndpoint: endpoint,
                    oidcToken: { audience, serviceAccountEmail: account.email },
                },
            },
            { parent: this },
        );
    }
}
