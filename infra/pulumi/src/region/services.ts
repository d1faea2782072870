/** Gatekeeper and Switchboard in a region: Cloud Run, each with an account of its own. */

import * as gcp from "@pulumi/gcp";
import * as pulumi from "@pulumi/pulumi";

import { collectorConfig, HEALTH_PORT } from "../collector";
import {
    asList,
    common,
    METRICS_PORT,
    OTLP_PORT,
    PORT,
    pushAudience,
    REDIS_CA,
    routing,
    signIn,
    type Variables,
} from "../environment";
import { type RegionFoundation } from "../foundation";
import { Grants, memberOf } from "../iam";
import { COLLECTOR_IMAGE, imageOf } from "../images";
import { CONTROL, DEAD_LETTER, type Service, serviceGroup, topicId } from "../names";
import { codeOf } from "../regions";
import { type Settings } from "../settings";
import { type Network } from "./network";
import { type Push } from "./subscriptions";
import { type Stores } from "./stores";
import { type Topics } from "./topics";

export interface ServiceArgs {
    settings: Settings;
    foundation: RegionFoundation;
    network: Network;
    stores: Stores;
    /** Every region's databases: users and channels are decided at their home. */
    databases: Map<string, gcp.firestore.Database>;
    topics: Topics;
}

interface Files {
    name: string;
    directory: string;
    secret: pulumi.Input<string>;
    items: { version: pulumi.Input<string>; path: string }[];
}

export class RunService extends pulumi.ComponentResource {
    readonly account: gcp.serviceaccount.Account;
    readonly service: gcp.cloudrunv2.Service;
    readonly push: Push;

    constructor(
        private readonly name: Service,
        private readonly region: string,
        args: ServiceArgs,
        opts: pulumi.ComponentResourceOptions,
    ) {
        super("infrachat:region:RunService", serviceGroup(name, region), {}, opts);
        const parent = this;
        const { settings } = args;
        const code = codeOf(region);
        this.account = new gcp.serviceaccount.Account(
            serviceGroup(name, region),
            { accountId: `${name}-${code}`, displayName: `${name} in ${region}` },
            { parent },
        );
        const pushes = new gcp.serviceaccount.Account(
            `push-${serviceGroup(name, region)}`,
            { accountId: `push-${name}-${code}`, displayName: `Pub/Sub, when it pushes to ${name} in ${region}` },
            { parent },
        );
        const authorities = this.file("redis-ca", args, args.stores.redisAuthorities);
        const collector = this.file(
            "collector",
            args,
            collectorConfig({ project: settings.project, listen: "127.0.0.1", scrape: name }),
        );
        const files: Files[] = [
            {
                name: "redis-ca",
                directory: REDIS_CA.replace(/\/[^/]*$/, ""),
                secret: authorities.secret,
                items: [{ version: authorities.version, path: "ca.pem" }],
            },
        ];
        const grants = this.grants(args);
        for (const file of [authorities, collector]) {
            grants.secret({ name, member: memberOf(this.account) }, file.id, file.secret);
        }
        const variables: Variables = {
            ...common(region, settings, args.stores.redisUrl),
            INFRACHAT_PUSH_AUDIENCE: pushAudience(name, region, settings),
            INFRACHAT_PUSH_SERVICE_ACCOUNT: pushes.email,
            INFRACHAT_METRICS_LISTEN: `127.0.0.1:${METRICS_PORT}`,
            INFRACHAT_OTLP_ENDPOINT: `http://127.0.0.1:${OTLP_PORT}`,
        };
        if (name === "gatekeeper") {
            Object.assign(variables, signIn(region, settings), this.keys(args, files));
            grants.secret({ name, member: memberOf(this.account) }, `signing-key-${region}`, args.foundation.signingKey.id);
        } else {
            Object.assign(variables, routing(settings));
        }
        this.service = this.run(args, variables, files, collector, grants.all);
        this.push = {
            endpoint: pulumi.interpolate`${this.service.uri}/pubsub/push`,
            audience: pushAudience(name, region, settings),
            account: pushes,
        };
        this.registerOutputs({});
    }

    private grants({ settings, stores, databases, topics }: ServiceArgs): Grants {
        const grants = new Grants(settings.project, this);
        const to = { name: serviceGroup(this.name, this.region), member: memberOf(this.account) };
        const publish = "roles/pubsub.publisher";
        if (this.name === "gatekeeper") {
            grants.topic(to, topicId(this.region, CONTROL), topics.control.id, publish);
        }
        grants.topic(to, topicId(this.region, DEAD_LETTER), topics.deadLetter.id, publish);
        for (const [region, database] of databases) {
            grants.conditional(
                to,
                `database-${region}`,
                "roles/datastore.user",
                "firestore.googleapis.com/Database",
                database.id,
            );
        }
        grants.conditional(
            to,
            `memorystore-${this.region}`,
            "roles/memorystore.dbConnectionUser",
            "memorystore.googleapis.com/Instance",
            stores.valkey.name,
        );
        grants.telemetry(to);
        return grants;
    }

    /** Cloud Run mounts files from secrets only. */
    private file(use: string, { foundation }: ServiceArgs, secretData: pulumi.Input<string>) {
        const id = `${use}-${serviceGroup(this.name, this.region)}`;
        const encryption = foundation.kmsKey && { customerManagedEncryption: { kmsKeyName: foundation.kmsKey } };
        const secret = new gcp.secretmanager.Secret(
            id,
            { secretId: id, replication: { userManaged: { replicas: [{ location: this.region, ...encryption }] } } },
            { parent: this, dependsOn: foundation.ready },
        );
        const version = new gcp.secretmanager.SecretVersion(id, { secret: secret.id, secretData }, { parent: this });
        return { id, secret: secret.id, version: version.version };
    }

    /** The signing key, and the others that are still published while keys are rotated. */
    private keys({ settings, foundation }: ServiceArgs, files: Files[]): Variables {
        const directory = "/etc/infrachat/keys";
        const signing = settings.signingKeys.get(this.region) ?? "";
        const published = (settings.publishedKeys.get(this.region) ?? []).filter((version) => version !== signing);
        const path = (version: string) => `${version}.pem`;
        files.push({
            name: "keys",
            directory,
            secret: foundation.signingKey.id,
            items: [signing, ...published].map((version) => ({ version, path: path(version) })),
        });
        return {
            INFRACHAT_SIGNING_KEY: `${directory}/${path(signing)}`,
            ...(published.length > 0 && {
                INFRACHAT_PUBLISHED_KEYS: published.map((version) => `${directory}/${path(version)}`).join(","),
            }),
        };
    }

    private run(
        { settings, network, foundation }: ServiceArgs,
        variables: Variables,
        files: Files[],
        collector: { secret: pulumi.Input<string>; version: pulumi.Input<string> },
        grants: pulumi.Resource[],
    ): gcp.cloudrunv2.Service {
        const grpc = { port: PORT };
        const mounts: Files[] = [
            ...files,
            {
                name: "collector",
                directory: "/etc/otelcol-google",
                secret: collector.secret,
                items: [{ version: collector.version, path: "config.yaml" }],
            },
        ];
        const mountOf = ({ name, directory }: Files) => ({ name, mountPath: directory });
        return new gcp.cloudrunv2.Service(
            serviceGroup(this.name, this.region),
            {
                name: this.name,
                location: this.region,
                // From the load balancer, and from Pub/Sub of this project. Nothing else reaches the service.
                ingress: "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER",
                // Callers have InfraChat's tokens; the programs verify those, and Pub/Sub's.
                invokerIamDisabled: true,
                deletionProtection: settings.deletionProtection,
                binaryAuthorization: { useDefault: true },
                template: {
                    serviceAccount: this.account.email,
                    executionEnvironment: "EXECUTION_ENVIRONMENT_GEN2",
                    encryptionKey: foundation.kmsKey,
                    timeout: "60s",
                    maxInstanceRequestConcurrency: this.name === "gatekeeper" ? 80 : 250,
                    scaling: { minInstanceCount: settings.instances.min, maxInstanceCount: settings.instances.max },
                    vpcAccess: {
                        networkInterfaces: [{ network: network.network.id, subnetwork: network.run.id }],
                        egress: "PRIVATE_RANGES_ONLY",
                    },
                    containers: [
                        {
                            name: this.name,
                            image: imageOf(settings, this.region, this.name),
                            ports: { name: "h2c", containerPort: PORT },
                            envs: asList(variables),
                            resources: {
                                limits: { cpu: "2", memory: "1Gi" },
                                // Instance-based: routes are refreshed and revocations heard between requests too.
                                cpuIdle: false,
                                startupCpuBoost: true,
                            },
                            volumeMounts: files.map(mountOf),
                            dependsOns: ["collector"],
                            startupProbe: { grpc, periodSeconds: 2, timeoutSeconds: 2, failureThreshold: 30 },
                            livenessProbe: { grpc, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 3 },
                            // What the load balancer's failover between regions goes by.
                            readinessProbe: { grpc, periodSeconds: 5, timeoutSeconds: 4, failureThreshold: 2 },
                        },
                        {
                            name: "collector",
                            image: COLLECTOR_IMAGE,
                            args: ["--config=/etc/otelcol-google/config.yaml"],
                            resources: { limits: { cpu: "0.5", memory: "512Mi" }, cpuIdle: false },
                            volumeMounts: mounts.filter(({ name }) => name === "collector").map(mountOf),
                            startupProbe: { httpGet: { path: "/", port: HEALTH_PORT }, periodSeconds: 5 },
                        },
                    ],
                    volumes: mounts.map(({ name, secret, items }) => ({ name, secret: { secret, items } })),
                },
                traffics: [{ type: "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", percent: 100 }],
            },
            { parent: this, dependsOn: grants },
        );
    }
}
