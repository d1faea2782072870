/** Cloud Armor: what never reaches the programs. */

import * as gcp from "@pulumi/gcp";
import * as pulumi from "@pulumi/pulumi";

import { type Settings } from "./settings";

/** Google's rules after OWASP's core rule set, at the least strict level, since requests are protobuf. Those
 * for SQL and HTML are left out: there is neither, and a password may look like either. */
const OWASP = [
    "protocolattack-v33-stable",
    "rce-v33-stable",
    "lfi-v33-stable",
    "rfi-v33-stable",
    "scannerdetection-v33-stable",
    "sessionfixation-v33-stable",
    "cve-canary",
];

const PER_MINUTE = 60;

type Rule = gcp.types.input.compute.SecurityPolicyRule;

/** Much more than the programs' own limits allow: those answer with a code, this one is for floods. */
function flood(priority: number, count: number): Rule {
    return {
        priority,
        action: "throttle",
        description: "Floods from one address",
        match: { versionedExpr: "SRC_IPS_V1", config: { srcIpRanges: ["*"] } },
        rateLimitOptions: {
            conformAction: "allow",
            exceedAction: "deny(429)",
            enforceOnKey: "IP",
            rateLimitThreshold: { count, intervalSec: PER_MINUTE },
        },
    };
}

/** The bus pushes to the services' own addresses. */
const noPush: Rule = {
    priority: 900,
    action: "deny(404)",
    description: "Nobody pushes events from outside",
    match: { expr: { expression: "request.path.startsWith('/pubsub/')" } },
};

const otherwise: Rule = {
    priority: 2147483647,
    action: "allow",
    description: "Everything else",
    match: { versionedExpr: "SRC_IPS_V1", config: { srcIpRanges: ["*"] } },
};

export function armorOfServices({ armor }: Settings, opts: pulumi.CustomResourceOptions): gcp.compute.SecurityPolicy {
    const owasp = OWASP.map((set, at): Rule => {
        return {
            priority: 1000 + at,
            action: "deny(403)",
            description: `OWASP: ${set}`,
            preview: armor.preview,
            match: { expr: { expression: `evaluatePreconfiguredWaf('${set}', {'sensitivity': 1})` } },
        };
    });
    return new gcp.compute.SecurityPolicy(
        "services",
        {
            name: "infrachat-services",
            description: "Gatekeeper and Switchboard",
            adaptiveProtectionConfig: { layer7DdosDefenseConfig: { enable: armor.adaptive } },
            rules: [noPush, ...owasp, flood(2000, 1200), otherwise],
        },
        opts,
    );
}

/** Streams are few and long, and what they carry is not looked into: only floods of new ones are kept out. Each
 * Switchboard probes each shard every second, and all of them may come from one address. */
export function armorOfShards({ armor, instances }: Settings, opts: pulumi.CustomResourceOptions): gcp.compute.SecurityPolicy {
    return new gcp.compute.SecurityPolicy(
        "shards",
        {
            name: "infrachat-shards",
            description: "ChatShards",
            adaptiveProtectionConfig: { layer7DdosDefenseConfig: { enable: armor.adaptive } },
            rules: [flood(2000, 600 + instances.max * PER_MINUTE), otherwise],
        },
        opts,
    );
}
