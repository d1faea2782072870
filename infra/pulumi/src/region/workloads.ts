/** What runs beside the shards: the namespace with its walls, the collector of traces, the canary. */

import * as gcp from "@pulumi/gcp";
import * as kubernetes from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";

import { collectorConfig, HEALTH_PORT } from "../collector";
import { METRICS_PORT, OTLP_PORT, PORT } from "../environment";
import { CANARY_PASSWORD, type Foundation } from "../foundation";
import { Grants, memberOf } from "../iam";
import { COLLECTOR_IMAGE, imageOf } from "../images";
import { NAMESPACE, serviceHost, STATEFUL_SET } from "../names";
import { codeOf, rangesOf } from "../regions";
import { type Settings } from "../settings";
import { type Cluster } from "./cluster";
import { GOOGLE_APIS_RANGE } from "./network";
import { containerSecurity, type InNamespace, labelsOf, metricsPort, podSecurity, resources, scraped } from "./pods";

/** Where Google's load balancers and health checks come from. */
const LOAD_BALANCERS = ["35.191.0.0/16", "130.211.0.0/22"];
const METADATA = [
    { cidr: "169.254.169.254/32", ports: [80, 53] },
    { cidr: "169.254.169.252/32", ports: [988] },
    { cidr: "169.254.20.10/32", ports: [53] },
];

const COLLECTOR = "collector";
const CANARY = "canary";

export interface WorkloadsArgs {
    settings: Settings;
    foundation: Foundation;
    cluster: Cluster;
    /** Of the public services, for keys; and of every region's shards, for the canary. */
    serviceAddress: pulumi.Input<string>;
    shardAddresses: pulumi.Input<string>[];
}

export class Workloads extends pulumi.ComponentResource {
    readonly place: InNamespace;

    constructor(
        private readonly region: string,
        private readonly args: WorkloadsArgs,
        opts: pulumi.ComponentResourceOptions,
    ) {
        super("infrachat:region:Workloads", region, {}, opts);
        const own = { parent: this, provider: args.cluster.provider };
        const namespace = new kubernetes.core.v1.Namespace(
            `${region}-${NAMESPACE}`,
            { metadata: { name: NAMESPACE, labels: { "pod-security.kubernetes.io/enforce": "restricted" } } },
            own,
        );
        this.place = { namespace, opts: own };
        this.walls();
        this.collector();
        this.canary();
        this.registerOutputs({});
    }

    /** Nothing goes in or out but what is named. */
    private walls(): void {
        const { namespace, opts } = this.place;
        const policy = (name: string, spec: kubernetes.types.input.networking.v1.NetworkPolicySpec) =>
            new kubernetes.networking.v1.NetworkPolicy(
                `${this.region}-${name}`,
                { metadata: { name, namespace: namespace.metadata.name }, spec },
                opts,
            );
        const tcp = (...ports: number[]) => ports.map((port) => ({ protocol: "TCP", port }));
        const blocks = (cidrs: pulumi.Input<string>[]) => cidrs.map((cidr) => ({ ipBlock: { cidr } }));
        const hosts = (addresses: pulumi.Input<string>[]) =>
            blocks(addresses.map((address) => pulumi.interpolate`${address}/32`));
        const only = (name: string) => ({ matchLabels: labelsOf(name) });
        policy("default-deny", { podSelector: {}, policyTypes: ["Ingress", "Egress"] });
        policy("names-and-identity", {
            podSelector: {},
            policyTypes: ["Egress"],
            egress: [
                ...METADATA.map(({ cidr, ports }) => ({
                    to: blocks([cidr]),
                    ports: [...tcp(...ports), ...(ports.includes(53) ? [{ protocol: "UDP", port: 53 }] : [])],
                })),
                {
                    to: [{ namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "kube-system" } } }],
                    ports: [...tcp(53), { protocol: "UDP", port: 53 }],
                },
            ],
        });
        policy("google-apis", {
            podSelector: {},
            policyTypes: ["Egress"],
            egress: [{ to: blocks([GOOGLE_APIS_RANGE]), ports: tcp(443) }],
        });
        policy("scraping", {
            podSelector: {},
            policyTypes: ["Ingress"],
            ingress: [
                {
                    from: [{ namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "gke-gmp-system" } } }],
                    ports: tcp(METRICS_PORT),
                },
            ],
        });
        policy(STATEFUL_SET, {
            podSelector: only(STATEFUL_SET),
            policyTypes: ["Ingress", "Egress"],
            ingress: [{ from: blocks(LOAD_BALANCERS), ports: tcp(PORT) }],
            egress: [
                { to: blocks([rangesOf(this.region).stores]), ports: tcp(6379) },
                // The issuers' keys.
                { to: hosts([this.args.serviceAddress]), ports: tcp(443) },
                { to: [{ podSelector: only(COLLECTOR) }], ports: tcp(OTLP_PORT) },
            ],
        });
        policy(COLLECTOR, {
            podSelector: only(COLLECTOR),
            policyTypes: ["Ingress"],
            ingress: [{ from: [{ podSelector: {} }], ports: tcp(OTLP_PORT) }],
        });
        policy(CANARY, {
            podSelector: only(CANARY),
            policyTypes: ["Egress"],
            egress: [
                { to: hosts([this.args.serviceAddress, ...this.args.shardAddresses]), ports: tcp(443) },
                { to: [{ podSelector: only(COLLECTOR) }], ports: tcp(OTLP_PORT) },
            ],
        });
    }

    private identity(name: string): { account: gcp.serviceaccount.Account; user: kubernetes.core.v1.ServiceAccount; grants: Grants } {
        const { settings, cluster } = this.args;
        const { namespace, opts } = this.place;
        const id = `${name}-${this.region}`;
        const account = new gcp.serviceaccount.Account(
            id,
            { accountId: `${name}-${codeOf(this.region)}`, displayName: `${name} in ${this.region}` },
            { parent: this },
        );
        const grants = new Grants(settings.project, this);
        const pods = cluster.cluster.workloadIdentityConfig.apply(
            ({ workloadPool }) => `serviceAccount:${workloadPool}[${NAMESPACE}/${name}]`,
        );
        grants.account({ name: "pods", member: pods }, id, account, "roles/iam.workloadIdentityUser");
        const user = new kubernetes.core.v1.ServiceAccount(
            `${this.region}-${name}`,
            {
                metadata: {
                    name,
                    namespace: namespace.metadata.name,
                    annotations: { "iam.gke.io/gcp-service-account": account.email },
                },
            },
            opts,
        );
        return { account, user, grants };
    }

    private collector(): void {
        const { namespace, opts } = this.place;
        const { account, user, grants } = this.identity(COLLECTOR);
        grants.onProject({ name: `${COLLECTOR}-${this.region}`, member: memberOf(account) }, "roles/telemetry.tracesWriter");
        const metadata = { name: COLLECTOR, namespace: namespace.metadata.name, labels: labelsOf(COLLECTOR) };
        const config = new kubernetes.core.v1.ConfigMap(
            `${this.region}-${COLLECTOR}`,
            {
                metadata,
                data: { "config.yaml": collectorConfig({ project: this.args.settings.project, listen: "0.0.0.0" }) },
            },
            opts,
        );
        new kubernetes.apps.v1.Deployment(
            `${this.region}-${COLLECTOR}`,
            {
                metadata,
                spec: {
                    replicas: 2,
                    selector: { matchLabels: labelsOf(COLLECTOR) },
                    template: {
                        metadata: { labels: labelsOf(COLLECTOR) },
                        spec: {
                            serviceAccountName: user.metadata.name,
                            automountServiceAccountToken: false,
                            securityContext: podSecurity,
                            containers: [
                                {
                                    name: COLLECTOR,
                                    image: COLLECTOR_IMAGE,
                                    args: ["--config=/etc/otelcol-google/config.yaml"],
                                    ports: [{ name: "otlp", containerPort: OTLP_PORT }],
                                    resources: resources("500m", "1Gi"),
                                    securityContext: containerSecurity,
                                    readinessProbe: { httpGet: { path: "/", port: HEALTH_PORT } },
                                    volumeMounts: [{ name: "config", mountPath: "/etc/otelcol-google", readOnly: true }],
                                },
                            ],
                            volumes: [{ name: "config", configMap: { name: config.metadata.name } }],
                        },
                    },
                },
            },
            { ...opts, dependsOn: grants.all },
        );
        new kubernetes.core.v1.Service(
            `${this.region}-${COLLECTOR}`,
            {
                metadata,
                spec: { type: "ClusterIP", selector: labelsOf(COLLECTOR), ports: [{ name: "otlp", port: OTLP_PORT }] },
            },
            opts,
        );
    }

    /** Talks to itself through every pair of regions, from this one. */
    private canary(): void {
        const { settings, foundation } = this.args;
        const { namespace, opts } = this.place;
        const { account, user, grants } = this.identity(CANARY);
        const to = { name: `${CANARY}-${this.region}`, member: memberOf(account) };
        grants.secret(to, CANARY_PASSWORD, foundation.canaryPassword.id);
        const metadata = { name: CANARY, namespace: namespace.metadata.name, labels: labelsOf(CANARY) };
        const directory = "/etc/infrachat/canary";
        const provider = new kubernetes.apiextensions.CustomResource(
            `${this.region}-${CANARY_PASSWORD}`,
            {
                apiVersion: "secrets-store.csi.x-k8s.io/v1",
                kind: "SecretProviderClass",
                metadata: { name: CANARY_PASSWORD, namespace: namespace.metadata.name },
                spec: {
                    provider: "gke",
                    parameters: {
                        secrets: foundation.canaryPassword.id.apply((secret) =>
                            JSON.stringify([
                                { resourceName: `${secret}/versions/${settings.canaryPassword}`, path: "password" },
                            ]),
                        ),
                    },
                },
            },
            opts,
        );
        new kubernetes.apps.v1.Deployment(
            `${this.region}-${CANARY}`,
            {
                metadata,
                spec: {
                    replicas: 1,
                    strategy: { type: "Recreate" },
                    selector: { matchLabels: labelsOf(CANARY) },
                    template: {
                        metadata: { labels: labelsOf(CANARY) },
                        spec: {
                            serviceAccountName: user.metadata.name,
                            securityContext: podSecurity,
                            containers: [
                                {
                                    name: CANARY,
                                    image: imageOf(settings, this.region, "canary"),
                                    args: ["canary", "--register", `--password-file=${directory}/password`],
                                    env: [
                                        {
                                            name: "INFRACHAT_SERVER",
                                            value: `${serviceHost("gatekeeper", this.region, settings.domain)}:443`,
                                        },
                                        { name: "INFRACHAT_USER", value: `canary-${this.region}` },
                                        { name: "INFRACHAT_REGION", value: this.region },
                                        { name: "INFRACHAT_METRICS_LISTEN", value: `0.0.0.0:${METRICS_PORT}` },
                                    ],
                                    ports: [metricsPort],
                                    resources: resources("250m", "512Mi"),
                                    securityContext: containerSecurity,
                                    volumeMounts: [{ name: "password", mountPath: directory, readOnly: true }],
                                },
                            ],
                            volumes: [
                                {
                                    name: "password",
                                    csi: {
                                        driver: "secrets-store-gke.csi.k8s.io",
                                        readOnly: true,
                                        volumeAttributes: { secretProviderClass: provider.metadata.name },
                                    },
                                },
                            ],
                        },
                    },
                },
            },
            { ...opts, dependsOn: grants.all },
        );
        scraped(this.region, CANARY, this.place);
    }
}
