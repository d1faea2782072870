/** The policy pack, offline: what we deploy passes, and each rule refuses what it is there for. */

import { type ResourceValidationPolicy, type StackValidationPolicy } from "@pulumi/policy";
import * as assert from "node:assert/strict";
import { test } from "node:test";

import { rules } from "../policy/rules";
import { deploy, deployed, FEW, type Made, STACKS } from "./harness";

type Rule = ResourceValidationPolicy | StackValidationPolicy;

/** What a rule says of resources, as the engine would ask it. */
async function violations(rule: Rule, stack: string, made: Made[]): Promise<string[]> {
    const found: string[] = [];
    const seen = made.map(({ type, name, inputs, protect }) => ({
        type,
        name,
        props: inputs,
        urn: `urn:pulumi:${stack}::infrachat::${type}::${name}`,
        opts: { protect, ignoreChanges: [], aliases: [], additionalSecretOutputs: [] },
    }));
    if ("validateStack" in rule) {
        await rule.validateStack({ resources: seen } as any, (message, urn) => found.push(`${urn}: ${message}`));
        return found;
    }
    const checks = [rule.validateResource ?? []].flat();
    for (const resource of seen) {
        for (const check of checks) {
            await check(resource as any, (message) => found.push(`${resource.type} ${resource.name}: ${message}`));
        }
    }
    return found;
}

for (const stack of STACKS) {
    test(`${stack} passes every rule`, async () => {
        const { made } = await deployed(stack);
        for (const rule of rules) {
            assert.deepEqual(await violations(rule, stack, made), [], rule.name);
        }
    });
}

interface Refused {
    rule: string;
    type: string;
    inputs: Record<string, unknown>;
    why: RegExp;
}

const SUBSCRIPTION = "gcp:pubsub/subscription:Subscription";
const good = {
    name: "us-west1.messages-3.us-west1",
    enableMessageOrdering: true,
    ackDeadlineSeconds: 10,
    retryPolicy: { minimumBackoff: "0.1s" },
    expirationPolicy: { ttl: "" },
};
const container = { name: "c", securityContext: { runAsNonRoot: true, allowPrivilegeEscalation: false } };
const pod = (spec: object) => ({ metadata: { name: "shard" }, spec: { template: { spec } } });
const cluster = {
    enableAutopilot: true,
    privateClusterConfig: { enablePrivateNodes: true },
    controlPlaneEndpointsConfig: { ipEndpointsConfig: { enabled: false } },
    binaryAuthorization: { evaluationMode: "PROJECT_SINGLETON_POLICY_ENFORCE" },
};
const backend = { timeoutSec: 86400, connectionDraining: { drainingTimeoutSec: 600 }, securityPolicy: "p" };

const refused: Refused[] = [
    { rule: "no-public-access", type: "gcp:cloudrunv2/serviceIamMember:ServiceIamMember", inputs: { role: "roles/run.invoker", member: "allUsers" }, why: /everybody/ },
    { rule: "no-public-access", type: "gcp:pubsub/topicIAMMember:TopicIAMMember", inputs: { role: "roles/pubsub.publisher", member: "allAuthenticatedUsers" }, why: /everybody/ },
    { rule: "no-primitive-roles", type: "gcp:projects/iAMMember:IAMMember", inputs: { role: "roles/editor", member: "user:a" }, why: /whole project/ },
    { rule: "roles-on-single-resources", type: "gcp:projects/iAMMember:IAMMember", inputs: { role: "roles/pubsub.subscriber", member: "serviceAccount:a" }, why: /everything in the project/ },
    { rule: "roles-on-single-resources", type: "gcp:projects/iAMMember:IAMMember", inputs: { role: "roles/datastore.user", member: "serviceAccount:a", condition: { expression: "true" } }, why: /everything in the project/ },
    { rule: "no-policies-that-take-over", type: "gcp:projects/iAMPolicy:IAMPolicy", inputs: {}, why: /removes/ },
    { rule: "no-policies-that-take-over", type: "gcp:pubsub/topicIAMBinding:TopicIAMBinding", inputs: {}, why: /removes/ },
    { rule: "no-account-keys", type: "gcp:serviceaccount/key:Key", inputs: {}, why: /Workload Identity/ },
    { rule: "databases-are-kept", type: "gcp:firestore/database:Database", inputs: { type: "FIRESTORE_NATIVE" }, why: /point-in-time/ },
    { rule: "production-is-protected", type: "gcp:firestore/database:Database", inputs: { deleteProtectionState: "DELETE_PROTECTION_DISABLED" }, why: /delete protection/ },
    { rule: "production-is-protected", type: "gcp:pubsub/topic:Topic", inputs: {}, why: /protect it/ },
    { rule: "redis-is-private", type: "gcp:memorystore/instance:Instance", inputs: { authorizationMode: "IAM_AUTH" }, why: /TLS/ },
    { rule: "redis-is-private", type: "gcp:memorystore/instance:Instance", inputs: { transitEncryptionMode: "SERVER_AUTHENTICATION" }, why: /IAM/ },
    { rule: "redis-is-private", type: "gcp:redis/instance:Instance", inputs: {}, why: /Valkey/ },
    { rule: "no-secrets-in-the-clear", type: "gcp:cloudrunv2/service:Service", inputs: { template: { containers: [{ envs: [{ name: "DB_PASSWORD", value: "hunter2" }] }] } }, why: /DB_PASSWORD/ },
    { rule: "no-secrets-in-the-clear", type: "kubernetes:apps/v1:Deployment", inputs: pod({ containers: [{ env: [{ name: "X", value: "-----BEGIN PRIVATE KEY-----" }] }] }), why: /X holds/ },
    { rule: "nodes-are-private", type: "gcp:container/cluster:Cluster", inputs: { ...cluster, privateClusterConfig: {} }, why: /public addresses/ },
    { rule: "nodes-are-private", type: "gcp:container/cluster:Cluster", inputs: { ...cluster, enableAutopilot: false }, why: /Autopilot/ },
    { rule: "nodes-are-private", type: "gcp:container/cluster:Cluster", inputs: { ...cluster, controlPlaneEndpointsConfig: {} }, why: /control plane/ },
    { rule: "nodes-are-private", type: "gcp:container/cluster:Cluster", inputs: { ...cluster, binaryAuthorization: undefined }, why: /any image/ },
    { rule: "nothing-comes-in", type: "gcp:compute/firewall:Firewall", inputs: { direction: "INGRESS", allows: [{ protocol: "tcp" }], sourceRanges: ["0.0.0.0/0"] }, why: /internet/ },
    { rule: "services-behind-the-load-balancer", type: "gcp:cloudrunv2/service:Service", inputs: { ingress: "INGRESS_TRAFFIC_ALL" }, why: /past Cloud Armor/ },
    { rule: "services-behind-the-load-balancer", type: "gcp:cloudrunv2/service:Service", inputs: { ingress: "INGRESS_TRAFFIC_INTERNAL_ONLY", template: {} }, why: /default account/ },
    { rule: "encrypted-on-the-way", type: "gcp:compute/sSLPolicy:SSLPolicy", inputs: { minTlsVersion: "TLS_1_0" }, why: /TLS_1_2/ },
    { rule: "encrypted-on-the-way", type: "kubernetes:gateway.networking.k8s.io/v1:Gateway", inputs: { spec: { listeners: [{ protocol: "HTTP" }] } }, why: /in the clear/ },
    { rule: "armored", type: "gcp:compute/backendService:BackendService", inputs: {}, why: /security policy/ },
    { rule: "messages-are-never-thrown-out", type: SUBSCRIPTION, inputs: { ...good, deadLetterPolicy: { maxDeliveryAttempts: 5 } }, why: /thrown out/ },
    { rule: "messages-are-never-thrown-out", type: SUBSCRIPTION, inputs: { ...good, enableMessageOrdering: false }, why: /any order/ },
    { rule: "messages-are-never-thrown-out", type: SUBSCRIPTION, inputs: { ...good, ackDeadlineSeconds: 60 }, why: /10 s/ },
    { rule: "messages-are-never-thrown-out", type: SUBSCRIPTION, inputs: { ...good, retryPolicy: undefined }, why: /100 ms/ },
    { rule: "messages-are-never-thrown-out", type: SUBSCRIPTION, inputs: { ...good, name: "sneaky", topic: "projects/p/topics/us-west1.messages-1", filter: "a" }, why: /filter/ },
    { rule: "subscriptions-never-expire", type: SUBSCRIPTION, inputs: { ...good, expirationPolicy: undefined }, why: /31 idle days/ },
    { rule: "pushes-say-who-they-are", type: SUBSCRIPTION, inputs: { pushConfig: { pushEndpoint: "https://x/" } }, why: /oidcToken/ },
    { rule: "pushes-say-who-they-are", type: SUBSCRIPTION, inputs: { pushConfig: { pushEndpoint: "http://x/", oidcToken: { audience: "a", serviceAccountEmail: "b" } } }, why: /clear/ },
    { rule: "topics-stay-in-their-region", type: "gcp:pubsub/topic:Topic", inputs: { name: "us-west1.messages-0" }, why: /storage policy/ },
    { rule: "images-by-digest", type: "kubernetes:apps/v1:Deployment", inputs: pod({ containers: [{ image: "nginx:latest" }] }), why: /digest/ },
    { rule: "images-by-digest", type: "gcp:cloudrunv2/service:Service", inputs: { template: { containers: [{ image: "us-west1-docker.pkg.dev/p/infrachat/gatekeeper:1" }] } }, why: /digest/ },
    { rule: "pods-have-no-power", type: "kubernetes:apps/v1:Deployment", inputs: pod({ containers: [{ name: "c" }] }), why: /root/ },
    { rule: "pods-have-no-power", type: "kubernetes:apps/v1:Deployment", inputs: pod({ hostNetwork: true, containers: [container] }), why: /node/ },
    { rule: "pods-have-no-power", type: "kubernetes:apps/v1:Deployment", inputs: pod({ containers: [{ ...container, securityContext: { runAsNonRoot: true, privileged: true } }] }), why: /power/ },
    { rule: "no-way-past-the-gateway", type: "kubernetes:core/v1:Service", inputs: { spec: { type: "LoadBalancer" } }, why: /past TLS/ },
    { rule: "shards-may-leave-in-order", type: "kubernetes:apps/v1:StatefulSet", inputs: pod({ terminationGracePeriodSeconds: 5 }), why: /killed/ },
    { rule: "shards-may-leave-in-order", type: "kubernetes:networking.gke.io/v1:GCPBackendPolicy", inputs: { spec: { default: { ...backend, timeoutSec: 30 } } }, why: /cut streams/ },
    { rule: "shards-may-leave-in-order", type: "kubernetes:networking.gke.io/v1:GCPBackendPolicy", inputs: { spec: { default: { ...backend, connectionDraining: undefined } } }, why: /that leaves/ },
];

for (const { rule: name, type, inputs, why } of refused) {
    test(`${name} refuses ${type} ${JSON.stringify(inputs).slice(0, 80)}`, async () => {
        const rule = rules.find((rule) => rule.name === name);
        assert.ok(rule, `there is a rule ${name}`);
        const found = await violations(rule, "prod", [{ type, name: "bad", inputs, protect: false }]);
        assert.ok(found.some((message) => why.test(message)), `${JSON.stringify(found)} says ${why}`);
    });
}

test("one-number-of-partitions refuses a program that was told another number", async () => {
    const { made } = await deploy("dev", { overrides: FEW });
    const rule = rules.find((rule) => rule.name === "one-number-of-partitions");
    assert.ok(rule);
    const set = made.find(({ type }) => type === "kubernetes:apps/v1:StatefulSet");
    const [shard] = set?.inputs.spec.template.spec.containers;
    shard.env.find(({ name }: { name: string }) => name === "INFRACHAT_PARTITIONS").value = "32";
    const found = await violations(rule, "dev", made);
    assert.match(found.join(), /told of 32 partitions.*topics for 2/);
});

test("every rule is seen to refuse something", () => {
    const seen = new Set([...refused.map(({ rule }) => rule), "one-number-of-partitions"]);
    assert.deepEqual(rules.map(({ name }) => name).filter((name) => !seen.has(name)), []);
});
