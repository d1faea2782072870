/** The configuration, read once. Defaults are in Pulumi.yaml. */

import * as pulumi from "@pulumi/pulumi";

import { type Service } from "./names";

export type Image = Service | "shard" | "canary";

export interface Settings {
    stack: string;
    project: string;
    domain: string;
    regions: string[];
    partitions: number;
    foundationOnly: boolean;
    /** Digests. */
    images: Record<Image, string>;
    /** Secret versions by region. */
    signingKeys: Map<string, string>;
    publishedKeys: Map<string, string[]>;
    canaryPassword: string;
    shards: { min: number; max: number; sessions: number; cpu: string; memory: string };
    instances: { min: number; max: number };
    valkey: { nodeType: string; replicas: number };
    deletionProtection: boolean;
    cmek: boolean;
    binaryAuthorization: string;
    signatureVersion: string;
    armor: { adaptive: boolean; preview: boolean };
    traceRatio: string;
    alertEmails: string[];
    /** Empty: none. */
    pagerduty: { isSet: boolean; serviceKey: pulumi.Output<string> };
    budget: { billingAccount: string; usd: number };
}

export function readSettings(): Settings {
    const config = new pulumi.Config();
    const keys = pairs(config.requireObject<string[]>("publishedKeys"));
    return {
        stack: pulumi.getStack(),
        project: new pulumi.Config("gcp").get("project") ?? "",
        domain: config.get("domain") ?? "",
        regions: config.requireObject<string[]>("regions"),
        partitions: config.requireNumber("partitions"),
        foundationOnly: config.requireBoolean("foundationOnly"),
        images: {
            gatekeeper: config.require("imageGatekeeper"),
            switchboard: config.require("imageSwitchboard"),
            shard: config.require("imageShard"),
            canary: config.require("imageCanary"),
        },
        signingKeys: new Map(pairs(config.requireObject<string[]>("signingKeys"))),
        publishedKeys: new Map(
            keys.map(([region]) => [region, keys.filter(([other]) => other === region).map(([, version]) => version)]),
        ),
        canaryPassword: config.require("canaryPassword"),
        shards: {
            min: config.requireNumber("shardsMin"),
            max: config.requireNumber("shardsMax"),
            sessions: config.requireNumber("sessionsPerShard"),
            cpu: config.require("shardCpu"),
            memory: config.require("shardMemory"),
        },
        instances: {
            min: config.requireNumber("serviceInstancesMin"),
            max: config.requireNumber("serviceInstancesMax"),
        },
        valkey: { nodeType: config.require("valkeyNodeType"), replicas: config.requireNumber("valkeyReplicas") },
        deletionProtection: config.requireBoolean("deletionProtection"),
        cmek: config.requireBoolean("cmek"),
        binaryAuthorization: config.require("binaryAuthorization"),
        signatureVersion: config.require("signatureVersion"),
        armor: {
            adaptive: config.requireBoolean("adaptiveProtection"),
            preview: config.requireBoolean("armorPreview"),
        },
        traceRatio: config.require("traceRatio"),
        alertEmails: config.requireObject<string[]>("alertEmails"),
        pagerduty: {
            isSet: config.require("pagerdutyServiceKey") !== "",
            serviceKey: config.requireSecret("pagerdutyServiceKey"),
        },
        budget: { billingAccount: config.require("billingAccount"), usd: config.requireNumber("budgetUsd") },
    };
}

/** REGION=VERSION; what is not of that form has an empty version, which the check refuses. */
function pairs(lines: string[]): [string, string][] {
    return lines.map((line) => {
        const [region = "", version = ""] = line.split("=", 2);
        return [region.trim(), version.trim()];
    });
}
