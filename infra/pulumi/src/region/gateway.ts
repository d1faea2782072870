/** One address a shard: a Gateway a region, and in it a hostname, a route and a backend a slot.
 *
 * The alternative, a passthrough load balancer a shard with TLS in the shard, is in docs/operations.md. */

import * as gcp from "@pulumi/gcp";
import * as kubernetes from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";

import { type Edge } from "../edge";
import { PORT } from "../environment";
import { CHAT_SERVICE, numbers, shardHost, STATEFUL_SET } from "../names";
import { type Settings } from "../settings";
import { CONNECTION_DRAINING, STREAM_TIMEOUT } from "../timing";
import { type InNamespace, labelsOf } from "./pods";

export interface GatewayArgs {
    settings: Settings;
    in: InNamespace;
    edge: Edge;
    address: gcp.compute.GlobalAddress;
}

export class Gateway extends pulumi.ComponentResource {
    constructor(
        private readonly region: string,
        args: GatewayArgs,
        opts: pulumi.ComponentResourceOptions,
    ) {
        super("infrachat:region:Gateway", region, {}, opts);
        const parent = this;
        const { settings, edge, address } = args;
        const place = { ...args.in, opts: { ...args.in.opts, parent } };
        const gateway = this.object(place, "gateway.networking.k8s.io/v1", "Gateway", "shards", {
            gatewayClassName: "gke-l7-global-external-managed",
            addresses: [{ type: "NamedAddress", value: address.name }],
            // No port 80: nobody speaks to a shard in the clear.
            listeners: [
                { name: "https", protocol: "HTTPS", port: 443, allowedRoutes: { namespaces: { from: "Same" } } },
            ],
        }, { "networking.gke.io/certmap": edge.certificateMap.name });
        this.object(place, "networking.gke.io/v1", "GCPGatewayPolicy", "shards", {
            default: { sslPolicy: edge.tls.name },
            targetRef: { group: "gateway.networking.k8s.io", kind: "Gateway", name: "shards" },
        });
        for (const ordinal of numbers(settings.shards.max)) {
            const host = shardHost(region, ordinal, settings.domain);
            this.slot(place, `${STATEFUL_SET}-${ordinal}`, host, edge.shardArmor, gateway);
            new gcp.dns.RecordSet(
                host,
                { managedZone: edge.zone.name, name: `${host}.`, type: "A", ttl: 300, rrdatas: [address.address] },
                { parent },
            );
        }
        this.registerOutputs({});
    }

    private slot(
        place: InNamespace,
        pod: string,
        host: string,
        armor: gcp.compute.SecurityPolicy,
        gateway: pulumi.Resource,
    ): void {
        const service = new kubernetes.core.v1.Service(
            `${this.region}-${pod}`,
            {
                metadata: { name: pod, namespace: place.namespace.metadata.name },
                spec: {
                    type: "ClusterIP",
                    selector: { ...labelsOf(STATEFUL_SET), "statefulset.kubernetes.io/pod-name": pod },
                    ports: [{ name: "h2c", port: PORT, appProtocol: "kubernetes.io/h2c" }],
                },
            },
            place.opts,
        );
        const targetRef = { group: "", kind: "Service", name: pod };
        const behind = { ...place, opts: { ...place.opts, dependsOn: [service, gateway] } };
        this.object(behind, "gateway.networking.k8s.io/v1", "HTTPRoute", pod, {
            parentRefs: [{ name: "shards", sectionName: "https" }],
            hostnames: [host],
            rules: [{ backendRefs: [{ name: pod, port: PORT }] }],
        });
        this.object(behind, "networking.gke.io/v1", "GCPBackendPolicy", pod, {
            default: {
                timeoutSec: STREAM_TIMEOUT,
                connectionDraining: { drainingTimeoutSec: CONNECTION_DRAINING },
                securityPolicy: armor.name,
                logging: { enabled: true, sampleRate: 100_000 },
            },
            targetRef,
        });
        this.object(behind, "networking.gke.io/v1", "HealthCheckPolicy", pod, {
            default: {
                checkIntervalSec: 5,
                timeoutSec: 3,
                healthyThreshold: 1,
                unhealthyThreshold: 2,
                config: { type: "GRPC", grpcHealthCheck: { port: PORT, grpcServiceName: CHAT_SERVICE } },
            },
            targetRef,
        });
    }

    private object(
        { namespace, opts }: InNamespace,
        apiVersion: string,
        kind: string,
        name: string,
        spec: object,
        annotations?: Record<string, pulumi.Input<string>>,
    ): kubernetes.apiextensions.CustomResource {
        return new kubernetes.apiextensions.CustomResource(
            `${this.region}-${kind}-${name}`,
            { apiVersion, kind, metadata: { name, namespace: namespace.metadata.name, annotations }, spec },
            opts,
        );
    }
}
