/** A region's ChatShards: a StatefulSet, whose pods are the slots. */

import * as gcp from "@pulumi/gcp";
import * as kubernetes from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";

import { asList, common, METRICS_PORT, OTLP_PORT, PORT, REDIS_CA, routing } from "../environment";
import { Grants, type Grantee, memberOf } from "../iam";
import { imageOf } from "../images";
import {
    CHAT_SERVICE,
    CONTROL,
    DEAD_LETTER,
    hostOf,
    messagesTopic,
    NAMESPACE,
    STATEFUL_SET,
    topicId,
} from "../names";
import { codeOf } from "../regions";
import { type Settings } from "../settings";
import { PRE_STOP, TERMINATION_GRACE } from "../timing";
import { type Cluster } from "./cluster";
import { bytesOf, containerSecurity, type InNamespace, labelsOf, metricsPort, podSecurity, resources, scraped } from "./pods";
import { type Stores } from "./stores";
import { type Topics } from "./topics";

/** The part of a shard's memory that it may hold by its own count; the rest is for what it does not count. */
const BUDGETED = 0.75;

/** The shards' account comes before the subscriptions, which come before the shards. */
export class ShardAccount extends pulumi.ComponentResource {
    readonly account: gcp.serviceaccount.Account;
    readonly grantee: Grantee;

    constructor(region: string, opts: pulumi.ComponentResourceOptions) {
        super("infrachat:region:ShardAccount", region, {}, opts);
        this.account = new gcp.serviceaccount.Account(
            `shard-${region}`,
            { accountId: `shard-${codeOf(region)}`, displayName: `ChatShards in ${region}` },
            { parent: this },
        );
        this.grantee = { name: `shard-${region}`, member: memberOf(this.account) };
        this.registerOutputs({});
    }
}

export interface ShardsArgs {
    settings: Settings;
    cluster: Cluster;
    account: ShardAccount;
    stores: Stores;
    databases: Map<string, gcp.firestore.Database>;
    topics: Topics;
    in: InNamespace;
    /** Subscriptions and who may use them: a shard checks them when it starts. */
    ready: pulumi.Resource[];
}

export class Shards extends pulumi.ComponentResource {
    constructor(
        private readonly region: string,
        args: ShardsArgs,
        opts: pulumi.ComponentResourceOptions,
    ) {
        super("infrachat:region:Shards", region, {}, opts);
        const place = { ...args.in, opts: { ...args.in.opts, parent: this } };
        const grants = this.grants(args);
        const metadata = { namespace: place.namespace.metadata.name };
        const labels = labelsOf(STATEFUL_SET);
        const account = new kubernetes.core.v1.ServiceAccount(
            `${region}-shard`,
            {
                metadata: {
                    ...metadata,
                    name: STATEFUL_SET,
                    annotations: { "iam.gke.io/gcp-service-account": args.account.account.email },
                },
                automountServiceAccountToken: false,
            },
            place.opts,
        );
        const authorities = new kubernetes.core.v1.ConfigMap(
            `${region}-redis-ca`,
            { metadata: { ...metadata, name: "redis-ca" }, data: { "ca.pem": args.stores.redisAuthorities } },
            place.opts,
        );
        const headless = new kubernetes.core.v1.Service(
            `${region}-shards`,
            {
                metadata: { ...metadata, name: "shards", labels },
                spec: { clusterIP: "None", selector: labels, ports: [{ name: "h2c", port: PORT }] },
            },
            place.opts,
        );
        new kubernetes.apps.v1.StatefulSet(
            `${region}-shard`,
            {
                metadata: { ...metadata, name: STATEFUL_SET, labels },
                spec: {
                    serviceName: headless.metadata.name,
                    replicas: args.settings.shards.min,
                    // Slots are independent, but leave one after another.
                    podManagementPolicy: "Parallel",
                    updateStrategy: { type: "RollingUpdate" },
                    minReadySeconds: 20,
                    selector: { matchLabels: labels },
                    template: {
                        metadata: {
                            labels,
                            // Autopilot then moves a shard only when it must.
                            annotations: { "cluster-autoscaler.kubernetes.io/safe-to-evict": "false" },
                        },
                        spec: this.podSpec(args, account, authorities),
                    },
                },
            },
            {
                ...place.opts,
                dependsOn: [...grants.all, ...args.ready],
                // The autoscaler's.
                ignoreChanges: ["spec.replicas"],
            },
        );
        new kubernetes.policy.v1.PodDisruptionBudget(
            `${region}-shard`,
            {
                metadata: { ...metadata, name: STATEFUL_SET },
                spec: { maxUnavailable: 1, selector: { matchLabels: labels } },
            },
            place.opts,
        );
        scraped(region, STATEFUL_SET, place);
        this.registerOutputs({});
    }

    private podSpec(
        { settings, stores }: ShardsArgs,
        account: kubernetes.core.v1.ServiceAccount,
        authorities: kubernetes.core.v1.ConfigMap,
    ): kubernetes.types.input.core.v1.PodSpec {
        const slot = `${this.region}-$(POD_NAME)`;
        const variables = {
            ...common(this.region, settings, stores.redisUrl),
            ...routing(settings),
            INFRACHAT_SHARD: slot,
            INFRACHAT_ADVERTISE: `${hostOf(slot, settings.domain)}:443`,
            INFRACHAT_MEMORY_BUDGET_BYTES: String((bytesOf(settings.shards.memory) ?? 0) * BUDGETED),
            INFRACHAT_METRICS_LISTEN: `0.0.0.0:${METRICS_PORT}`,
            INFRACHAT_OTLP_ENDPOINT: `http://collector.${NAMESPACE}.svc.cluster.local:${OTLP_PORT}`,
        };
        const spread = (topologyKey: string, whenUnsatisfiable: string) => ({
            topologyKey,
            whenUnsatisfiable,
            maxSkew: 1,
            labelSelector: { matchLabels: labelsOf(STATEFUL_SET) },
        });
        return {
            serviceAccountName: account.metadata.name,
            automountServiceAccountToken: false,
            enableServiceLinks: false,
            securityContext: podSecurity,
            terminationGracePeriodSeconds: TERMINATION_GRACE,
            topologySpreadConstraints: [
                spread("topology.kubernetes.io/zone", "DoNotSchedule"),
                spread("kubernetes.io/hostname", "ScheduleAnyway"),
            ],
            containers: [
                {
                    name: STATEFUL_SET,
                    image: imageOf(settings, this.region, "shard"),
                    ports: [{ name: "h2c", containerPort: PORT }, metricsPort],
                    env: [
                        // Before the variables that it is part of.
                        { name: "POD_NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
                        ...asList(variables),
                    ],
                    resources: resources(settings.shards.cpu, settings.shards.memory),
                    securityContext: containerSecurity,
                    volumeMounts: [{ name: "redis-ca", mountPath: REDIS_CA.replace(/\/[^/]*$/, ""), readOnly: true }],
                    lifecycle: { preStop: { sleep: { seconds: PRE_STOP } } },
                    startupProbe: { grpc: { port: PORT }, periodSeconds: 2, failureThreshold: 60 },
                    // The process as a whole: one that drains must live on.
                    livenessProbe: { grpc: { port: PORT }, periodSeconds: 5, timeoutSeconds: 3, failureThreshold: 6 },
                    readinessProbe: {
                        grpc: { port: PORT, service: CHAT_SERVICE },
                        periodSeconds: 2,
                        timeoutSeconds: 2,
                        failureThreshold: 2,
                    },
                },
            ],
            volumes: [{ name: "redis-ca", configMap: { name: authorities.metadata.name } }],
        };
    }

    private grants({ settings, cluster, account, stores, databases, topics }: ShardsArgs): Grants {
        const grants = new Grants(settings.project, this);
        const to = account.grantee;
        const publish = "roles/pubsub.publisher";
        topics.messages.forEach((topic, partition) =>
            grants.topic(to, topicId(this.region, messagesTopic(partition)), topic.id, publish),
        );
        grants.topic(to, topicId(this.region, CONTROL), topics.control.id, publish);
        grants.topic(to, topicId(this.region, DEAD_LETTER), topics.deadLetter.id, publish);
        for (const [region, database] of databases) {
            const type = "firestore.googleapis.com/Database";
            grants.conditional(to, `database-${region}`, "roles/datastore.user", type, database.id);
        }
        grants.conditional(
            to,
            `memorystore-${this.region}`,
            "roles/memorystore.dbConnectionUser",
            "memorystore.googleapis.com/Instance",
            stores.valkey.name,
        );
        grants.account(
            // The pool of identities exists once there is a cluster.
            {
                name: "pods",
                member: cluster.cluster.workloadIdentityConfig.apply(
                    ({ workloadPool }) => `serviceAccount:${workloadPool}[${NAMESPACE}/${STATEFUL_SET}]`,
                ),
            },
            `shard-${this.region}`,
            account.account,
            "roles/iam.workloadIdentityUser",
        );
        return grants;
    }
}
