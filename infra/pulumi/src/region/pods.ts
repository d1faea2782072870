/** What all our pods have in common. */

import * as kubernetes from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";

import { METRICS_PORT } from "../environment";

type Container = kubernetes.types.input.core.v1.Container;
type PodSpec = kubernetes.types.input.core.v1.PodSpec;

export const labelsOf = (name: string): Record<string, string> => ({ "app.kubernetes.io/name": name });

export const podSecurity: PodSpec["securityContext"] = {
    runAsNonRoot: true,
    runAsUser: 65532,
    runAsGroup: 65532,
    fsGroup: 65532,
    seccompProfile: { type: "RuntimeDefault" },
};

export const containerSecurity: Container["securityContext"] = {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ["ALL"] },
};

/** Autopilot gives what is asked for, so limits are requests. */
export const resources = (cpu: string, memory: string): Container["resources"] => {
    const amount = { cpu, memory, "ephemeral-storage": "1Gi" };
    return { requests: amount, limits: amount };
};

/** Of a quantity such as 2Gi. */
export function bytesOf(quantity: string): number | undefined {
    const [, amount, unit] = /^(\d+)(Mi|Gi)$/.exec(quantity) ?? [];
    return amount === undefined ? undefined : Number(amount) * (unit === "Gi" ? 2 ** 30 : 2 ** 20);
}

export const metricsPort = { name: "metrics", containerPort: METRICS_PORT };

export interface InNamespace {
    namespace: kubernetes.core.v1.Namespace;
    opts: pulumi.CustomResourceOptions;
}

/** Scraped by Managed Prometheus. */
export function scraped(region: string, name: string, { namespace, opts }: InNamespace): void {
    new kubernetes.apiextensions.CustomResource(
        `${region}-${name}-metrics`,
        {
            apiVersion: "monitoring.googleapis.com/v1",
            kind: "PodMonitoring",
            metadata: { name, namespace: namespace.metadata.name },
            spec: {
                selector: { matchLabels: labelsOf(name) },
                endpoints: [{ port: metricsPort.name, interval: "15s" }],
            },
        },
        opts,
    );
}
