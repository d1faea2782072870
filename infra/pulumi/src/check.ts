/** What must be right before anything is made. */

import * as pulumi from "@pulumi/pulumi";

import { bytesOf } from "./region/pods";
import { isKnown, knownRegions } from "./regions";
import { type Settings } from "./settings";

const MOST_PARTITIONS = 4096;
const MOST_SESSIONS_OF_A_SHARD = 50_000;
/** Sixteen bits of a region's load balancer: a backend, a route and an address a slot. */
const MOST_SHARDS = 100;

/** What runs now, by the stack's own last outputs; undefined before the first deployment. */
export interface Running {
    partitions?: number;
}

export async function whatRuns(): Promise<Running> {
    const name = `${pulumi.getOrganization()}/${pulumi.getProject()}/${pulumi.getStack()}`;
    const stack = new pulumi.StackReference("what-runs", { name });
    const { value } = await stack.getOutputDetails("partitions");
    return typeof value === "number" ? { partitions: value } : {};
}

/** Throws with every reason why these settings can't be deployed. */
export function check(settings: Settings, running: Running): void {
    const problems = [
        ...placeProblems(settings),
        ...partitionProblems(settings, running),
        ...foundationProblems(settings, running),
        ...sizeProblems(settings),
        ...alertProblems(settings),
        ...(settings.foundationOnly ? [] : secretProblems(settings)),
    ];
    if (problems.length > 0) {
        const list = problems.map((problem) => `\n  - ${problem}`).join("");
        throw new pulumi.RunError(`the stack ${settings.stack} can't be deployed:${list}`);
    }
}

function placeProblems({ project, domain, regions }: Settings): string[] {
    const problems: string[] = [];
    if (!project) {
        problems.push("gcp:project is not set: pulumi config set gcp:project PROJECT");
    }
    if (!/^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}$/.test(domain)) {
        problems.push(`domain is ${JSON.stringify(domain)}: set a DNS name, such as chat.example.com`);
    }
    if (regions.length === 0) {
        problems.push("regions is empty: name at least one");
    }
    for (const region of regions.filter((region) => !isKnown(region))) {
        problems.push(
            `the region ${JSON.stringify(region)} is not known: use one of ${knownRegions.join(", ")}, ` +
                "or add it to src/regions.ts with an address block of its own",
        );
    }
    if (new Set(regions).size < regions.length) {
        problems.push("regions names one twice");
    }
    return problems;
}

function partitionProblems({ partitions }: Settings, running: Running): string[] {
    const problems: string[] = [];
    const isPowerOfTwo = Number.isInteger(partitions) && Number.isInteger(Math.log2(partitions));
    if (!isPowerOfTwo || partitions < 1 || partitions > MOST_PARTITIONS) {
        problems.push(`partitions is ${partitions}: use a power of two from 1 to ${MOST_PARTITIONS}`);
    }
    if (running.partitions !== undefined && running.partitions !== partitions) {
        problems.push(
            `partitions is ${partitions}, but this stack runs with ${running.partitions}: another number would ` +
                "put every channel elsewhere, away from its topics and its history. " +
                `Set it back: pulumi config set partitions ${running.partitions}`,
        );
    }
    return problems;
}

function foundationProblems({ foundationOnly }: Settings, running: Running): string[] {
    return foundationOnly && running.partitions !== undefined
        ? ["foundationOnly is true, but the whole stack runs: it would be deleted. Set it to false"]
        : [];
}

function sizeProblems(settings: Settings): string[] {
    const { shards, instances, traceRatio, binaryAuthorization, budget } = settings;
    const problems: string[] = [];
    const isCount = (n: number): boolean => Number.isInteger(n) && n > 0;
    if (!isCount(shards.min) || !isCount(shards.max) || shards.min > shards.max || shards.max > MOST_SHARDS) {
        problems.push(
            `shardsMin is ${shards.min} and shardsMax ${shards.max}: use 1 ≤ shardsMin ≤ shardsMax ≤ ${MOST_SHARDS}`,
        );
    }
    if (!isCount(shards.sessions) || shards.sessions >= MOST_SESSIONS_OF_A_SHARD) {
        problems.push(
            `sessionsPerShard is ${shards.sessions}: a shard takes ${MOST_SESSIONS_OF_A_SHARD}, grow well below that`,
        );
    }
    if (bytesOf(shards.memory) === undefined) {
        problems.push(`shardMemory is ${shards.memory}: use a number of Mi or Gi, such as 8Gi`);
    }
    if (!isCount(instances.min) || !isCount(instances.max) || instances.min > instances.max) {
        problems.push(`serviceInstancesMin is ${instances.min} and serviceInstancesMax ${instances.max}`);
    }
    const ratio = Number(traceRatio);
    if (traceRatio === "" || !(ratio >= 0 && ratio <= 1)) {
        problems.push(`traceRatio is ${JSON.stringify(traceRatio)}: use a number from 0 to 1`);
    }
    if (!["enforce", "audit"].includes(binaryAuthorization)) {
        problems.push(`binaryAuthorization is ${JSON.stringify(binaryAuthorization)}: use enforce or audit`);
    }
    if (budget.usd > 0 && !budget.billingAccount) {
        problems.push("budgetUsd is set and billingAccount is not: pulumi config set billingAccount ACCOUNT");
    }
    return problems;
}

function alertProblems({ alertEmails, pagerduty }: Settings): string[] {
    return alertEmails.length === 0 && !pagerduty.isSet
        ? ["nobody gets the alerts: set alertEmails or pagerdutyServiceKey"]
        : [];
}

function secretProblems(settings: Settings): string[] {
    const problems: string[] = [];
    const isVersion = (version: string | undefined): boolean => /^[1-9][0-9]*$/.test(version ?? "");
    settings.regions.forEach((region, at) => {
        if (!isVersion(settings.signingKeys.get(region))) {
            problems.push(
                `${region}'s Gatekeeper has no signing key: add a version to the secret signing-key-${region}, ` +
                    `then pulumi config set --path 'signingKeys[${at}]' ${region}=VERSION (docs/operations.md, "Keys")`,
            );
        }
    });
    for (const region of [...settings.signingKeys.keys(), ...settings.publishedKeys.keys()]) {
        if (!settings.regions.includes(region)) {
            problems.push(`a key is named for ${JSON.stringify(region)}, which is not among the regions`);
        }
    }
    for (const [region, versions] of settings.publishedKeys) {
        if (!versions.every(isVersion)) {
            problems.push(`a published key of ${region} has no version: write ${region}=VERSION`);
        }
    }
    if (!isVersion(settings.canaryPassword)) {
        problems.push(
            "the canary has no password: add a version to the secret canary-password, then " +
                'pulumi config set canaryPassword VERSION (docs/operations.md, "Keys")',
        );
    }
    for (const [image, digest] of Object.entries(settings.images)) {
        if (!/^sha256:[0-9a-f]{64}$/.test(digest)) {
            const key = `image${image[0]?.toUpperCase()}${image.slice(1)}`;
            problems.push(`${key} is ${JSON.stringify(digest)}: set the digest that the pipeline printed, sha256:…`);
        }
    }
    return problems;
}
