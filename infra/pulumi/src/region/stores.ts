/** A region's data: Firestore and Memorystore. */

import * as gcp from "@pulumi/gcp";
import * as pulumi from "@pulumi/pulumi";

import { type RegionFoundation } from "../foundation";
import { databaseId } from "../names";
import { type Settings } from "../settings";
import { type Network } from "./network";

export interface StoresArgs {
    settings: Settings;
    foundation: RegionFoundation;
    network: Network;
}

export class Stores extends pulumi.ComponentResource {
    readonly database: gcp.firestore.Database;
    readonly valkey: gcp.memorystore.Instance;
    /** rediss://host:port */
    readonly redisUrl: pulumi.Output<string>;
    /** PEM: Memorystore's certificates are signed by an authority of their own. */
    readonly redisAuthorities: pulumi.Output<string>;

    constructor(region: string, args: StoresArgs, opts: pulumi.ComponentResourceOptions) {
        super("infrachat:region:Stores", region, {}, opts);
        this.database = this.firestore(region, args);
        this.valkey = this.memorystore(region, args);
        this.redisUrl = this.valkey.endpoints.apply((endpoints) => {
            const links = endpoints.flatMap(({ connections }) => connections ?? []);
            const found = links
                .map(({ pscAutoConnection }) => pscAutoConnection)
                .find((link) => link?.connectionType === "CONNECTION_TYPE_PRIMARY");
            if (!found?.ipAddress) {
                throw new pulumi.RunError(`${region}'s Memorystore has no primary endpoint`);
            }
            return `rediss://${found.ipAddress}:${found.port ?? 6379}`;
        });
        this.redisAuthorities = this.valkey.managedServerCas.apply((authorities) =>
            authorities.flatMap(({ caCerts }) => caCerts.flatMap(({ certificates }) => certificates)).join("\n"),
        );
        this.registerOutputs({});
    }

    private firestore(region: string, { settings, foundation }: StoresArgs): gcp.firestore.Database {
        const parent = this;
        const { kmsKey } = foundation;
        const database = new gcp.firestore.Database(
            region,
            {
                name: databaseId(region),
                locationId: region,
                type: "FIRESTORE_NATIVE",
                databaseEdition: "STANDARD",
                // The store asks for it in each transaction too: a frozen shard must hold no lock.
                concurrencyMode: "OPTIMISTIC",
                pointInTimeRecoveryEnablement: "POINT_IN_TIME_RECOVERY_ENABLED",
                deleteProtectionState: settings.deletionProtection
                    ? "DELETE_PROTECTION_ENABLED"
                    : "DELETE_PROTECTION_DISABLED",
                deletionPolicy: settings.deletionProtection ? "ABANDON" : "DELETE",
                ...(kmsKey && { cmekConfig: { kmsKeyName: kmsKey } }),
            },
            { parent, dependsOn: foundation.ready, protect: settings.deletionProtection },
        );
        const field = (collection: string, name: string, more: Partial<gcp.firestore.FieldArgs>) =>
            new gcp.firestore.Field(
                `${region}-${collection}-${name === "*" ? "all" : name}`,
                { database: database.name, collection, field: name, ...more },
                { parent },
            );
        // As crates/metadata/src/firestore/mod.rs says: every index of a message is paid for with it.
        const rising = { indexes: [{ order: "ASCENDING" }, { order: "DESCENDING" }] };
        field("families", "expires_at", { ttlConfig: {}, indexConfig: {} });
        field("messages", "expires_at", { ttlConfig: {}, indexConfig: {} });
        field("revocations", "forget_after", { ttlConfig: {}, indexConfig: rising });
        field("messages", "*", { indexConfig: {} });
        field("messages", "message_id", { indexConfig: rising });
        field("messages", "place", { indexConfig: rising });
        new gcp.firestore.BackupSchedule(
            region,
            { database: database.name, retention: `${7 * 24 * 60 * 60}s`, dailyRecurrence: {} },
            { parent },
        );
        return database;
    }

    private memorystore(region: string, { settings, foundation, network }: StoresArgs): gcp.memorystore.Instance {
        const parent = this;
        const policy = new gcp.networkconnectivity.ServiceConnectionPolicy(
            region,
            {
                name: `infrachat-${region}-memorystore`,
                location: region,
                network: network.network.id,
                serviceClass: "gcp-memorystore",
                pscConfig: { subnetworks: [network.stores.id] },
            },
            { parent },
        );
        return new gcp.memorystore.Instance(
            region,
            {
                instanceId: "infrachat",
                location: region,
                // One shard: the programs speak to one server, and what they keep is small.
                mode: "CLUSTER_DISABLED",
                shardCount: 1,
                replicaCount: settings.valkey.replicas,
                nodeType: settings.valkey.nodeType,
                engineVersion: "VALKEY_8_0",
                // Neither can be changed later.
                transitEncryptionMode: "SERVER_AUTHENTICATION",
                authorizationMode: "IAM_AUTH",
                // Presence and limits rebuild themselves, revocations from Firestore. Full: evict what expires first.
                engineConfigs: { "maxmemory-policy": "volatile-ttl" },
                persistenceConfig: { mode: "DISABLED" },
                zoneDistributionConfig: { mode: "MULTI_ZONE" },
                deletionProtectionEnabled: settings.deletionProtection,
                desiredAutoCreatedEndpoints: [{ network: network.network.id, projectId: settings.project }],
                kmsKey: foundation.kmsKey,
                maintenancePolicy: {
                    weeklyMaintenanceWindows: [{ day: "TUESDAY", startTime: { hours: 18 } }],
                },
            },
            { parent, dependsOn: [policy, ...foundation.ready], protect: settings.deletionProtection },
        );
    }
}
