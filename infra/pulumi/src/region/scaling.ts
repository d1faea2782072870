/** How many shards: by sessions, by lag, by CPU. And the adapter that lets the autoscaler see metrics. */

import * as gcp from "@pulumi/gcp";
import * as kubernetes from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";

import { Grants, memberOf } from "../iam";
import { METRICS_ADAPTER_IMAGE } from "../images";
import { STATEFUL_SET } from "../names";
import { codeOf } from "../regions";
import { type Settings } from "../settings";
import { type Cluster } from "./cluster";
import { type InNamespace, labelsOf, resources } from "./pods";

/** As Managed Prometheus names it in Cloud Monitoring. */
const gauge = (metric: string): string => `prometheus.googleapis.com|${metric}|gauge`;

/** Seconds between the sender and the append at which a region grows; two regions are 0.15 apart. */
const MOST_LAG = "2";

export interface ScalingArgs {
    settings: Settings;
    cluster: Cluster;
    in: InNamespace;
}

export class Scaling extends pulumi.ComponentResource {
    constructor(region: string, { settings, cluster, in: { namespace, opts: place } }: ScalingArgs, opts: pulumi.ComponentResourceOptions) {
        super("infrachat:region:Scaling", region, {}, opts);
        const adapter = this.adapter(region, settings, cluster, { ...place, parent: this });
        const { shards } = settings;
        const perPod = (metric: string, averageValue: string) => ({
            type: "Pods",
            pods: { metric: { name: gauge(metric) }, target: { type: "AverageValue", averageValue } },
        });
        new kubernetes.autoscaling.v2.HorizontalPodAutoscaler(
            `${region}-shard`,
            {
                metadata: { name: STATEFUL_SET, namespace: namespace.metadata.name },
                spec: {
                    scaleTargetRef: { apiVersion: "apps/v1", kind: "StatefulSet", name: STATEFUL_SET },
                    minReplicas: shards.min,
                    maxReplicas: shards.max,
                    metrics: [
                        perPod("infrachat_sessions", String(shards.sessions)),
                        perPod("infrachat_relay_lag_seconds", MOST_LAG),
                        {
                            type: "Resource",
                            resource: { name: "cpu", target: { type: "Utilization", averageUtilization: 65 } },
                        },
                    ],
                    behavior: {
                        scaleUp: {
                            stabilizationWindowSeconds: 30,
                            policies: [{ type: "Pods", value: 2, periodSeconds: 60 }],
                        },
                        // Each shard that leaves sends its sessions elsewhere: rarely, and one at a time.
                        scaleDown: {
                            stabilizationWindowSeconds: 1800,
                            policies: [{ type: "Pods", value: 1, periodSeconds: 600 }],
                        },
                    },
                },
            },
            { ...place, parent: this, dependsOn: adapter },
        );
        this.registerOutputs({});
    }

    private adapter(region: string, settings: Settings, cluster: Cluster, opts: pulumi.CustomResourceOptions): pulumi.Resource[] {
        const name = "custom-metrics-stackdriver-adapter";
        const space = "custom-metrics";
        const account = new gcp.serviceaccount.Account(
            `metrics-adapter-${region}`,
            { accountId: `metrics-adapter-${codeOf(region)}`, displayName: `The autoscaler's view of metrics in ${region}` },
            { parent: this },
        );
        const grants = new Grants(settings.project, this);
        grants.onProject({ name: `metrics-adapter-${region}`, member: memberOf(account) }, "roles/monitoring.viewer");
        const pods = cluster.cluster.workloadIdentityConfig.apply(
            ({ workloadPool }) => `serviceAccount:${workloadPool}[${space}/${name}]`,
        );
        const identity = "roles/iam.workloadIdentityUser";
        grants.account({ name: "pods", member: pods }, `metrics-adapter-${region}`, account, identity);
        const namespace = new kubernetes.core.v1.Namespace(`${region}-${space}`, { metadata: { name: space } }, opts);
        const inSpace = { name, namespace: namespace.metadata.name, labels: labelsOf(name) };
        const user = new kubernetes.core.v1.ServiceAccount(
            `${region}-${name}`,
            { metadata: { ...inSpace, annotations: { "iam.gke.io/gcp-service-account": account.email } } },
            opts,
        );
        const subjects = [{ kind: "ServiceAccount", name: user.metadata.name, namespace: namespace.metadata.name }];
        const apiGroup = "rbac.authorization.k8s.io";
        new kubernetes.rbac.v1.ClusterRoleBinding(
            `${region}-metrics-auth-delegator`,
            {
                metadata: { name: "custom-metrics:system:auth-delegator" },
                roleRef: { apiGroup, kind: "ClusterRole", name: "system:auth-delegator" },
                subjects,
            },
            opts,
        );
        new kubernetes.rbac.v1.RoleBinding(
            `${region}-metrics-auth-reader`,
            {
                metadata: { name: "custom-metrics-auth-reader", namespace: "kube-system" },
                roleRef: { apiGroup, kind: "Role", name: "extension-apiserver-authentication-reader" },
                subjects,
            },
            opts,
        );
        const reader = new kubernetes.rbac.v1.ClusterRole(
            `${region}-metrics-resource-reader`,
            {
                metadata: { name: "custom-metrics-resource-reader" },
                rules: [{ apiGroups: [""], resources: ["pods", "nodes", "nodes/stats"], verbs: ["get", "list", "watch"] }],
            },
            opts,
        );
        new kubernetes.rbac.v1.ClusterRoleBinding(
            `${region}-metrics-resource-reader`,
            {
                metadata: { name: "custom-metrics-resource-reader" },
                roleRef: { apiGroup, kind: "ClusterRole", name: reader.metadata.name },
                subjects,
            },
            opts,
        );
        const autoscaler = [{ kind: "ServiceAccount", name: "horizontal-pod-autoscaler", namespace: "kube-system" }];
        const served = new kubernetes.rbac.v1.ClusterRole(
            `${region}-metrics-reader`,
            {
                metadata: { name: "custom-metrics-reader" },
                rules: [{ apiGroups: ["custom.metrics.k8s.io"], resources: ["*"], verbs: ["get", "list"] }],
            },
            opts,
        );
        new kubernetes.rbac.v1.ClusterRoleBinding(
            `${region}-metrics-reader`,
            {
                metadata: { name: "custom-metrics-reader" },
                roleRef: { apiGroup, kind: "ClusterRole", name: served.metadata.name },
                subjects: autoscaler,
            },
            opts,
        );
        const deployment = new kubernetes.apps.v1.Deployment(
            `${region}-${name}`,
            {
                metadata: inSpace,
                spec: {
                    replicas: 2,
                    selector: { matchLabels: labelsOf(name) },
                    template: {
                        metadata: { labels: labelsOf(name) },
                        spec: {
                            serviceAccountName: user.metadata.name,
                            securityContext: { runAsNonRoot: true, runAsUser: 65532, seccompProfile: { type: "RuntimeDefault" } },
                            containers: [
                                {
                                    name: "adapter",
                                    image: METRICS_ADAPTER_IMAGE,
                                    command: [
                                        "/adapter",
                                        "--use-new-resource-model=true",
                                        "--fallback-for-container-metrics=true",
                                        "--secure-port=8443",
                                        "--cert-dir=/tmp",
                                    ],
                                    ports: [{ name: "https", containerPort: 8443 }],
                                    resources: resources("250m", "512Mi"),
                                    securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
                                },
                            ],
                        },
                    },
                },
            },
            { ...opts, dependsOn: grants.all },
        );
        const service = new kubernetes.core.v1.Service(
            `${region}-${name}`,
            {
                metadata: inSpace,
                spec: { type: "ClusterIP", selector: labelsOf(name), ports: [{ port: 443, targetPort: "https" }] },
            },
            opts,
        );
        const apis = ["v1beta1", "v1beta2"].map(
            (version, at) =>
                new kubernetes.apiregistration.v1.APIService(
                    `${region}-${version}.custom.metrics.k8s.io`,
                    {
                        metadata: { name: `${version}.custom.metrics.k8s.io` },
                        spec: {
                            group: "custom.metrics.k8s.io",
                            version,
                            insecureSkipTLSVerify: true,
                            groupPriorityMinimum: 100,
                            versionPriority: 100 * (at + 1),
                            service: { name: service.metadata.name, namespace: namespace.metadata.name },
                        },
                    },
                    opts,
                ),
        );
        return [deployment, ...apis];
    }
}
