/** Bad input is refused before anything is made, with the reason. */

import * as assert from "node:assert/strict";
import { test } from "node:test";

import { configOf, deploy, FEW, type Options } from "./harness";

interface Case {
    what: string;
    options: Options;
    says: RegExp[];
}

const cases: Case[] = [
    {
        what: "an unknown region",
        options: { overrides: { regions: ["us-west1", "mars-north1"], signingKeys: ["us-west1=1", "mars-north1=1"] } },
        says: [/"mars-north1" is not known: use one of us-west1, asia-northeast1/],
    },
    { what: "no region", options: { overrides: { regions: [], signingKeys: [] } }, says: [/regions is empty/] },
    { what: "a region twice", options: { overrides: { regions: ["us-west1", "us-west1"] } }, says: [/names one twice/] },
    { what: "a partition count that is no power of two", options: { overrides: { partitions: 48 } }, says: [/partitions is 48: use a power of two/] },
    { what: "too many partitions", options: { overrides: { partitions: 8192 } }, says: [/partitions is 8192/] },
    {
        what: "a partition count that differs from the running one",
        options: { overrides: { partitions: 32 }, before: { partitions: 16 } },
        says: [/partitions is 32, but this stack runs with 16/, /pulumi config set partitions 16/],
    },
    {
        what: "taking everything away but the foundation",
        options: { overrides: { foundationOnly: true }, before: { partitions: 16 } },
        says: [/it would be deleted/],
    },
    {
        what: "a missing signing key",
        options: { overrides: { signingKeys: ["us-west1=1"] } },
        says: [/asia-northeast1's Gatekeeper has no signing key: add a version to the secret signing-key-asia-northeast1/],
    },
    { what: "a signing key without a version", options: { overrides: { signingKeys: ["us-west1", "asia-northeast1=1"] } }, says: [/us-west1's Gatekeeper has no signing key/] },
    { what: "a key of another region", options: { overrides: { publishedKeys: ["us-east1=1"] } }, says: [/"us-east1", which is not among the regions/] },
    { what: "a missing password of the canary", options: { overrides: { canaryPassword: "" } }, says: [/the canary has no password/] },
    { what: "a missing image", options: { overrides: { imageShard: "" } }, says: [/imageShard is "": set the digest/] },
    { what: "an image by tag", options: { overrides: { imageGatekeeper: "latest" } }, says: [/imageGatekeeper is "latest"/] },
    { what: "no project", options: { overrides: { "gcp:project": "" } }, says: [/gcp:project is not set/] },
    { what: "a bad domain", options: { overrides: { domain: "chat" } }, says: [/domain is "chat"/] },
    { what: "nobody to tell", options: { overrides: { alertEmails: [] } }, says: [/nobody gets the alerts/] },
    { what: "fewer shards at most than at least", options: { overrides: { shardsMin: 5, shardsMax: 2 } }, says: [/shardsMin is 5 and shardsMax 2/] },
    { what: "memory in another unit", options: { overrides: { shardMemory: "8G" } }, says: [/shardMemory is 8G: use a number of Mi or Gi/] },
    { what: "more sessions than a shard takes", options: { overrides: { sessionsPerShard: 60000 } }, says: [/a shard takes 50000/] },
    { what: "a share of traces above one", options: { overrides: { traceRatio: "2" } }, says: [/traceRatio is "2"/] },
    { what: "an unknown way to enforce", options: { overrides: { binaryAuthorization: "maybe" } }, says: [/use enforce or audit/] },
    { what: "a budget without an account", options: { overrides: { budgetUsd: 100 } }, says: [/billingAccount is not/] },
    {
        what: "several mistakes, all of them at once",
        options: { overrides: { partitions: 3, canaryPassword: "x", domain: "" } },
        says: [/partitions is 3/, /the canary has no password/, /domain is ""/],
    },
];

for (const { what, options, says } of cases) {
    test(`refuses ${what}`, async () => {
        await assert.rejects(deploy("dev", options), (error: Error) => {
            says.forEach((reason) => assert.match(error.message, reason));
            assert.match(error.message, /^the stack dev can't be deployed:/);
            return true;
        });
    });
}

test("a first deployment has nothing to differ from, and a second the same number", async () => {
    const { outputs } = await deploy("dev", { overrides: FEW });
    assert.equal(outputs.partitions, FEW.partitions);
    await deploy("dev", { overrides: FEW, before: outputs });
});

test("a value of the wrong type, or of no meaning, is refused by the schema", () => {
    assert.throws(() => configOf("dev", { partitions: "many" }), /infrachat:partitions to "many", which is no integer/);
    assert.throws(() => configOf("dev", { partition: 16 }), /Pulumi.yaml does not know/);
});

test("the foundation alone needs neither images nor keys", async () => {
    const overrides = { foundationOnly: true, signingKeys: [], canaryPassword: "", imageShard: "" };
    const { made, outputs } = await deploy("dev", { overrides });
    assert.ok(!made.some(({ type }) => type.includes("container/cluster")));
    assert.equal(made.filter(({ type }) => type === "gcp:artifactregistry/repository:Repository").length, 2);
    assert.equal(outputs.partitions, undefined);
});
