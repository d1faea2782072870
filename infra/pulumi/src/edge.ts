/** How the world gets in: names, certificates, the load balancer of Gatekeeper and Switchboard, Cloud Armor. */

import * as gcp from "@pulumi/gcp";
import * as pulumi from "@pulumi/pulumi";

import { armorOfServices, armorOfShards } from "./armor";
import { hostOf, type Service, serviceGroup, serviceHost, SERVICES } from "./names";
import { type Settings } from "./settings";

/** What regions need of it. */
export class Edge extends pulumi.ComponentResource {
    readonly zone: gcp.dns.ManagedZone;
    readonly address: gcp.compute.GlobalAddress;
    readonly certificateMap: gcp.certificatemanager.CertificateMap;
    readonly tls: gcp.compute.SSLPolicy;
    readonly shardArmor: gcp.compute.SecurityPolicy;
    private readonly serviceArmor: gcp.compute.SecurityPolicy;

    constructor(
        private readonly settings: Settings,
        apis: pulumi.Resource[],
    ) {
        super("infrachat:Edge", "edge");
        const parent = this;
        const { domain } = settings;
        const dependsOn = apis;
        this.zone = new gcp.dns.ManagedZone(
            "public",
            { name: "infrachat", dnsName: `${domain}.`, description: "InfraChat", dnssecConfig: { state: "on" } },
            { parent, dependsOn, protect: settings.deletionProtection },
        );
        this.address = new gcp.compute.GlobalAddress("services", { name: "infrachat-services" }, { parent, dependsOn });
        this.tls = new gcp.compute.SSLPolicy(
            "modern",
            { name: "infrachat", profile: "MODERN", minTlsVersion: "TLS_1_2" },
            { parent, dependsOn },
        );
        this.certificateMap = this.certificates(dependsOn);
        this.serviceArmor = armorOfServices(settings, { parent, dependsOn });
        this.shardArmor = armorOfShards(settings, { parent, dependsOn });
        this.registerOutputs({});
    }

    /** One certificate for everything: all names are one label below the domain. */
    private certificates(dependsOn: pulumi.Resource[]): gcp.certificatemanager.CertificateMap {
        const parent = this;
        const { domain } = this.settings;
        const proof = new gcp.certificatemanager.DnsAuthorization("domain", { name: "infrachat", domain }, { parent, dependsOn });
        const record = proof.dnsResourceRecords.apply(([record]) => record);
        new gcp.dns.RecordSet(
            "certificate-proof",
            {
                managedZone: this.zone.name,
                name: record.apply((record) => record?.name ?? ""),
                type: record.apply((record) => record?.type ?? ""),
                ttl: 300,
                rrdatas: [record.apply((record) => record?.data ?? "")],
            },
            { parent },
        );
        const certificate = new gcp.certificatemanager.Certificate(
            "domain",
            { name: "infrachat", managed: { domains: [domain, `*.${domain}`], dnsAuthorizations: [proof.id] } },
            { parent },
        );
        const map = new gcp.certificatemanager.CertificateMap("domain", { name: "infrachat" }, { parent, dependsOn });
        for (const [name, hostname] of [
            ["apex", domain],
            ["all", `*.${domain}`],
        ] as const) {
            new gcp.certificatemanager.CertificateMapEntry(
                name,
                { name, map: map.name, hostname, certificates: [certificate.id] },
                { parent },
            );
        }
        return map;
    }

    /** The load balancer, once the services are there. */
    serve(services: Map<string, Map<Service, gcp.cloudrunv2.Service>>): void {
        const parent = this;
        const { domain } = this.settings;
        const hosts: { host: string; backend: gcp.compute.BackendService }[] = [];
        for (const service of SERVICES) {
            const groups = [...services].map(([region, of]) => ({
                region,
                group: new gcp.compute.RegionNetworkEndpointGroup(
                    serviceGroup(service, region),
                    {
                        name: serviceGroup(service, region),
                        region,
                        networkEndpointType: "SERVERLESS",
                        cloudRun: { service: of.get(service)?.name },
                    },
                    { parent },
                ).id,
            }));
            hosts.push({ host: hostOf(service, domain), backend: this.backend(service, groups.map(({ group }) => group)) });
            for (const { region, group } of groups) {
                hosts.push({
                    host: serviceHost(service, region, domain),
                    backend: this.backend(serviceGroup(service, region), [group]),
                });
            }
        }
        this.frontEnd(hosts);
        for (const { host } of hosts) {
            new gcp.dns.RecordSet(
                host,
                { managedZone: this.zone.name, name: `${host}.`, type: "A", ttl: 300, rrdatas: [this.address.address] },
                { parent },
            );
        }
    }

    private backend(name: string, groups: pulumi.Input<string>[]): gcp.compute.BackendService {
        return new gcp.compute.BackendService(
            name,
            {
                name: `infrachat-${name}`,
                loadBalancingScheme: "EXTERNAL_MANAGED",
                protocol: "HTTP2",
                securityPolicy: this.serviceArmor.id,
                backends: groups.map((group) => ({ group })),
                logConfig: { enable: true, sampleRate: 0.1 },
                ...(groups.length > 1 && {
                    // A region that only answers errors is passed over for a while.
                    outlierDetection: {
                        consecutiveErrors: 5,
                        interval: { seconds: 5 },
                        baseEjectionTime: { seconds: 30 },
                        maxEjectionPercent: 50,
                        enforcingConsecutiveErrors: 100,
                    },
                }),
            },
            { parent: this },
        );
    }

    private frontEnd(hosts: { host: string; backend: gcp.compute.BackendService }[]): void {
        const parent = this;
        const [first] = hosts;
        if (!first) {
            throw new pulumi.RunError("there are no services to balance");
        }
        const routes = new gcp.compute.URLMap(
            "services",
            {
                name: "infrachat-services",
                defaultService: first.backend.id,
                hostRules: hosts.map(({ host }) => ({ hosts: [host], pathMatcher: host.split(".")[0] ?? host })),
                pathMatchers: hosts.map(({ host, backend }) => ({
                    name: host.split(".")[0] ?? host,
                    defaultService: backend.id,
                })),
            },
            { parent },
        );
        const https = new gcp.compute.TargetHttpsProxy(
            "services",
            {
                name: "infrachat-services",
                urlMap: routes.id,
                certificateMap: pulumi.interpolate`//certificatemanager.googleapis.com/${this.certificateMap.id}`,
                sslPolicy: this.tls.id,
            },
            { parent },
        );
        const toHttps = new gcp.compute.URLMap(
            "to-https",
            {
                name: "infrachat-to-https",
                defaultUrlRedirect: {
                    httpsRedirect: true,
                    redirectResponseCode: "MOVED_PERMANENTLY_DEFAULT",
                    stripQuery: false,
                },
            },
            { parent },
        );
        const http = new gcp.compute.TargetHttpProxy(
            "to-https",
            { name: "infrachat-to-https", urlMap: toHttps.id },
            { parent },
        );
        for (const [name, target, portRange] of [
            ["services", https.id, "443"],
            ["to-https", http.id, "80"],
        ] as const) {
            new gcp.compute.GlobalForwardingRule(
                name,
                {
                    name: `infrachat-${name}`,
                    loadBalancingScheme: "EXTERNAL_MANAGED",
                    ipAddress: this.address.id,
                    ipProtocol: "TCP",
                    portRange,
                    target,
                },
                { parent },
            );
        }
    }
}
