/** A region's cluster: GKE Autopilot with private nodes. */

import * as gcp from "@pulumi/gcp";
import * as kubernetes from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";

import { type RegionFoundation } from "../foundation";
import { Grants, memberOf } from "../iam";
import { codeOf } from "../regions";
import { type Settings } from "../settings";
import { type Network } from "./network";

export interface ClusterArgs {
    settings: Settings;
    foundation: RegionFoundation;
    network: Network;
    /** The cluster's policy, before anything can run. */
    onlySignedImages: pulumi.Resource;
}

export class Cluster extends pulumi.ComponentResource {
    readonly cluster: gcp.container.Cluster;
    readonly provider: kubernetes.Provider;

    constructor(region: string, args: ClusterArgs, opts: pulumi.ComponentResourceOptions) {
        super("infrachat:region:Cluster", region, {}, opts);
        const parent = this;
        const { settings, foundation, network } = args;
        const nodes = new gcp.serviceaccount.Account(
            `nodes-${region}`,
            { accountId: `nodes-${codeOf(region)}`, displayName: `The cluster's nodes in ${region}` },
            { parent },
        );
        const grants = new Grants(settings.project, this);
        const to = { name: `nodes-${region}`, member: memberOf(nodes) };
        grants.onProject(to, "roles/container.defaultNodeServiceAccount");
        grants.repository(to, `${region}-images`, foundation.repository, "roles/artifactregistry.reader");
        const encryption = foundation.kmsKey
            ? { databaseEncryption: { state: "ENCRYPTED", keyName: foundation.kmsKey } }
            : {};
        this.cluster = new gcp.container.Cluster(
            region,
            {
                name: `infrachat-${region}`,
                location: region,
                enableAutopilot: true,
                network: network.network.id,
                subnetwork: network.nodes.id,
                ipAllocationPolicy: { clusterSecondaryRangeName: "pods", servicesSecondaryRangeName: "services" },
                privateClusterConfig: { enablePrivateNodes: true },
                // Reached by its DNS name only, which asks IAM; there is no address to scan.
                controlPlaneEndpointsConfig: {
                    dnsEndpointConfig: { allowExternalTraffic: true },
                    ipEndpointsConfig: { enabled: false },
                },
                releaseChannel: { channel: "REGULAR" },
                gatewayApiConfig: { channel: "CHANNEL_STANDARD" },
                workloadIdentityConfig: { workloadPool: `${settings.project}.svc.id.goog` },
                clusterAutoscaling: { autoProvisioningDefaults: { serviceAccount: nodes.email } },
                binaryAuthorization: { evaluationMode: "PROJECT_SINGLETON_POLICY_ENFORCE" },
                securityPostureConfig: { mode: "BASIC", vulnerabilityMode: "VULNERABILITY_BASIC" },
                monitoringConfig: {
                    enableComponents: ["SYSTEM_COMPONENTS", "POD", "STATEFULSET", "DEPLOYMENT", "HPA"],
                    managedPrometheus: { enabled: true },
                },
                loggingConfig: { enableComponents: ["SYSTEM_COMPONENTS", "WORKLOADS"] },
                // Secrets as files, for the canary's password.
                secretManagerConfig: { enabled: true },
                costManagementConfig: { enabled: true },
                // Outside the busy hours of either side of the Pacific; a shard leaves in order anyway.
                maintenancePolicy: {
                    recurringWindow: {
                        startTime: "2025-01-01T17:00:00Z",
                        endTime: "2025-01-01T21:00:00Z",
                        recurrence: "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH",
                    },
                },
                deletionProtection: settings.deletionProtection,
                ...encryption,
            },
            {
                parent,
                dependsOn: [args.onlySignedImages, ...grants.all, ...foundation.ready],
                protect: settings.deletionProtection,
            },
        );
        this.provider = new kubernetes.Provider(
            region,
            { kubeconfig: this.kubeconfig(), enableServerSideApply: true },
            { parent },
        );
        this.registerOutputs({});
    }

    /** By the DNS name, whose certificate is a public one. */
    private kubeconfig(): pulumi.Output<string> {
        return this.cluster.controlPlaneEndpointsConfig.apply(({ dnsEndpointConfig }) => {
            const name = "infrachat";
            return JSON.stringify({
                apiVersion: "v1",
                kind: "Config",
                clusters: [{ name, cluster: { server: `https://${dnsEndpointConfig?.endpoint}` } }],
                contexts: [{ name, context: { cluster: name, user: name } }],
                "current-context": name,
                users: [
                    {
                        name,
                        user: {
                            exec: {
                                apiVersion: "client.authentication.k8s.io/v1beta1",
                                command: "gke-gcloud-auth-plugin",
                                provideClusterInfo: true,
                                interactiveMode: "Never",
                            },
                        },
                    },
                ],
            });
        });
    }
}
