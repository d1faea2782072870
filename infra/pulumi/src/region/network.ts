/** A region's network: private, its own, with a way out by NAT and to Google's APIs by their private address. */

import * as gcp from "@pulumi/gcp";
import * as pulumi from "@pulumi/pulumi";

import { rangesOf } from "../regions";

/** private.googleapis.com */
export const GOOGLE_APIS_RANGE = "199.36.153.8/30";
const GOOGLE_APIS = ["199.36.153.8", "199.36.153.9", "199.36.153.10", "199.36.153.11"];

export class Network extends pulumi.ComponentResource {
    readonly network: gcp.compute.Network;
    readonly nodes: gcp.compute.Subnetwork;
    readonly run: gcp.compute.Subnetwork;
    readonly stores: gcp.compute.Subnetwork;

    constructor(region: string, opts: pulumi.ComponentResourceOptions) {
        super("infrachat:region:Network", region, {}, opts);
        const parent = this;
        const ranges = rangesOf(region);
        this.network = new gcp.compute.Network(
            region,
            { name: `infrachat-${region}`, autoCreateSubnetworks: false, routingMode: "REGIONAL" },
            { parent },
        );
        const subnet = (use: string, ipCidrRange: string, more: Partial<gcp.compute.SubnetworkArgs> = {}) =>
            new gcp.compute.Subnetwork(
                `${region}-${use}`,
                {
                    name: `infrachat-${use}`,
                    region,
                    network: this.network.id,
                    ipCidrRange,
                    privateIpGoogleAccess: true,
                    logConfig: { aggregationInterval: "INTERVAL_10_MIN", flowSampling: 0.1 },
                    ...more,
                },
                { parent },
            );
        this.nodes = subnet("nodes", ranges.nodes, {
            secondaryIpRanges: [
                { rangeName: "pods", ipCidrRange: ranges.pods },
                { rangeName: "services", ipCidrRange: ranges.services },
            ],
        });
        this.run = subnet("run", ranges.run);
        this.stores = subnet("stores", ranges.stores);
        this.wayOut(region);
        this.googleApis(region);
        new gcp.compute.Firewall(
            `${region}-nothing-comes-in`,
            {
                name: `infrachat-${region}-nothing-comes-in`,
                network: this.network.id,
                direction: "INGRESS",
                priority: 65534,
                sourceRanges: ["0.0.0.0/0"],
                denies: [{ protocol: "all" }],
                logConfig: { metadata: "INCLUDE_ALL_METADATA" },
            },
            { parent },
        );
        this.registerOutputs({});
    }

    private wayOut(region: string): void {
        const parent = this;
        const router = new gcp.compute.Router(
            region,
            { name: "infrachat", region, network: this.network.id },
            { parent },
        );
        new gcp.compute.RouterNat(
            region,
            {
                name: "infrachat",
                region,
                router: router.name,
                natIpAllocateOption: "AUTO_ONLY",
                sourceSubnetworkIpRangesToNat: "ALL_SUBNETWORKS_ALL_IP_RANGES",
                enableDynamicPortAllocation: true,
                minPortsPerVm: 64,
                maxPortsPerVm: 4096,
                logConfig: { enable: true, filter: "ERRORS_ONLY" },
            },
            { parent },
        );
    }

    /** Pub/Sub, Firestore and telemetry leave by an address that the network policies can name. */
    private googleApis(region: string): void {
        const parent = this;
        const zone = new gcp.dns.ManagedZone(
            `${region}-googleapis`,
            {
                name: `infrachat-${region}-googleapis`,
                dnsName: "googleapis.com.",
                visibility: "private",
                privateVisibilityConfig: { networks: [{ networkUrl: this.network.id }] },
            },
            { parent },
        );
        const record = (name: string, type: string, rrdatas: string[]) =>
            new gcp.dns.RecordSet(
                `${region}-${name}`,
                { managedZone: zone.name, name: `${name}.`, type, ttl: 300, rrdatas },
                { parent },
            );
        record("private.googleapis.com", "A", GOOGLE_APIS);
        record("*.googleapis.com", "CNAME", ["private.googleapis.com."]);
    }
}
