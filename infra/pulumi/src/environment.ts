/** What the programs are told, by environment. The flags of each program explain the variables. */

import * as pulumi from "@pulumi/pulumi";

import { databaseId, hostOf, SERVICES, serviceHost } from "./names";
import { type Settings } from "./settings";

export const PORT = 8080;
export const METRICS_PORT = 9464;
export const OTLP_PORT = 4317;
export const REDIS_CA = "/etc/infrachat/redis/ca.pem";

export type Variables = Record<string, pulumi.Input<string>>;

export const issuerOf = (region: string, { domain }: Settings): string =>
    `https://${serviceHost("gatekeeper", region, domain)}`;

export const pushAudience = (service: string, region: string, { domain }: Settings): string =>
    `https://${hostOf(`${service}-${region}`, domain)}/pubsub/push`;

const endpointsOf = ({ regions, domain }: Settings): string =>
    regions
        .map((region) => `${region}=${SERVICES.map((service) => `${serviceHost(service, region, domain)}:443`).join(",")}`)
        .join(";");

const issuersOf = (settings: Settings): string =>
    settings.regions
        .map((region) => issuerOf(region, settings))
        .map((issuer) => `${issuer}=${issuer}/.well-known/jwks.json`)
        .join(",");

/** What all programs share. */
export function common(region: string, settings: Settings, redisUrl: pulumi.Input<string>): Variables {
    const { regions, project, traceRatio } = settings;
    return {
        INFRACHAT_LISTEN: `0.0.0.0:${PORT}`,
        INFRACHAT_REGION: region,
        INFRACHAT_REGIONS: regions.join(","),
        INFRACHAT_PROJECT: project,
        INFRACHAT_BUS: "pubsub",
        INFRACHAT_METADATA: "firestore",
        INFRACHAT_STATE: "redis",
        INFRACHAT_FIRESTORE_DATABASES: regions.map((region) => `${region}=${databaseId(region)}`).join(","),
        REDIS_URL: redisUrl,
        INFRACHAT_REDIS_AUTH: "iam",
        INFRACHAT_REDIS_CA: REDIS_CA,
        INFRACHAT_LOG: "info",
        INFRACHAT_LOG_FORMAT: "cloud",
        INFRACHAT_TRACE_RATIO: traceRatio,
    };
}

/** What Switchboard and the shards share: the one number of partitions among it. */
export function routing(settings: Settings): Variables {
    return {
        INFRACHAT_PARTITIONS: String(settings.partitions),
        INFRACHAT_ISSUERS: issuersOf(settings),
    };
}

/** Of Gatekeeper. */
export function signIn(region: string, settings: Settings): Variables {
    return {
        INFRACHAT_ENDPOINTS: endpointsOf(settings),
        INFRACHAT_ISSUER: issuerOf(region, settings),
        // The load balancer appends the client's address and its own.
        INFRACHAT_TRUSTED_PROXIES: "2",
    };
}

export const asList = (variables: Variables): { name: string; value: pulumi.Input<string> }[] =>
    Object.entries(variables).map(([name, value]) => ({ name, value }));
