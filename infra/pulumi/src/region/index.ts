/** A region, in two halves: what others need of it, and what needs the others. */

import * as gcp from "@pulumi/gcp";
import * as pulumi from "@pulumi/pulumi";

import { type Edge } from "../edge";
import { type Foundation, type RegionFoundation } from "../foundation";
import { type Service, SERVICES } from "../names";
import { type Settings } from "../settings";
import { Cluster } from "./cluster";
import { Gateway } from "./gateway";
import { Network } from "./network";
import { Scaling } from "./scaling";
import { RunService } from "./services";
import { ShardAccount, Shards } from "./shards";
import { Stores } from "./stores";
import { Subscriptions } from "./subscriptions";
import { Topics } from "./topics";
import { Workloads } from "./workloads";

export class Region extends pulumi.ComponentResource {
    readonly network: Network;
    readonly stores: Stores;
    readonly topics: Topics;
    readonly cluster: Cluster;
    readonly services = new Map<Service, gcp.cloudrunv2.Service>();
    private readonly mine: RegionFoundation;

    constructor(
        readonly name: string,
        private readonly settings: Settings,
        private readonly foundation: Foundation,
        onlySignedImages: pulumi.Resource,
    ) {
        super("infrachat:Region", name);
        const parent = this;
        const mine = foundation.regions.get(name);
        if (!mine) {
            throw new pulumi.RunError(`${name} has no foundation`);
        }
        this.mine = mine;
        const dependsOn = foundation.apis;
        this.network = new Network(name, { parent, dependsOn });
        this.stores = new Stores(name, { settings, foundation: mine, network: this.network }, { parent, dependsOn });
        this.topics = new Topics(name, { settings, foundation: mine }, { parent, dependsOn });
        this.cluster = new Cluster(
            name,
            { settings, foundation: mine, network: this.network, onlySignedImages },
            { parent, dependsOn },
        );
        this.registerOutputs({});
    }

    /** Once all regions are there. */
    join(regions: Region[], gateways: Map<string, gcp.compute.GlobalAddress>, edge: Edge, consumerRole: pulumi.Input<string>): void {
        const parent = this;
        const { name, settings, foundation, stores, topics, cluster } = this;
        const databases = new Map(regions.map((region) => [region.name, region.stores.database]));
        const push = new Map(
            SERVICES.map((service) => {
                const args = { settings, foundation: this.mine, network: this.network, stores, databases, topics };
                const run = new RunService(service, name, args, { parent });
                this.services.set(service, run.service);
                return [service, run.push] as const;
            }),
        );
        const account = new ShardAccount(name, { parent });
        const subscriptions = new Subscriptions(
            name,
            {
                settings,
                sources: regions.map((region) => region.topics),
                shard: account.grantee,
                consumerRole,
                push,
                projectNumber: foundation.projectNumber,
            },
            { parent },
        );
        const shardAddresses = [...gateways.values()].map(({ address }) => address);
        const workloads = new Workloads(
            name,
            { settings, foundation, cluster, serviceAddress: edge.address.address, shardAddresses },
            { parent },
        );
        const place = workloads.place;
        const gateway = gateways.get(name);
        if (!gateway) {
            throw new pulumi.RunError(`${name} has no address for its shards`);
        }
        new Gateway(name, { settings, in: place, edge, address: gateway }, { parent });
        new Shards(
            name,
            { settings, cluster, account, stores, databases, topics, in: place, ready: subscriptions.grants },
            { parent },
        );
        new Scaling(name, { settings, cluster, in: place }, { parent });
    }
}
