/** What matters of what would be deployed, in every environment. */

import * as assert from "node:assert/strict";
import * as fs from "node:fs";
import { test } from "node:test";

import { projectFile } from "../src/files";
import { TELEMETRY_ROLES } from "../src/iam";
import { rangesOf } from "../src/regions";
import { CONNECTION_DRAINING, PRE_STOP, SHARD, SHARD_STOPS_WITHIN, TERMINATION_GRACE } from "../src/timing";
import { configOf, deploy, deployed, type Deployed, FEW, named, ofType, STACKS } from "./harness";

const REGIONS = ["us-west1", "asia-northeast1"];
/** A file of the programs. */
const rust = (path: string): string => fs.readFileSync(projectFile(`../../${path}`), "utf8");

/** What the programs understand: the services by the table that their `--help` makes, the canary by its arguments. */
const VARIABLES = [
    ...rust("docs/configuration.md").matchAll(/^\| `([A-Z_]+)`/gm),
    ...rust("client/src/bin/infrachat/args.rs").matchAll(/env = "([A-Z_]+)"/g),
].map(([, name]) => name);

interface Env {
    name: string;
    value?: string;
}
const valueOf = (env: Env[], name: string): string | undefined => env.find((variable) => variable.name === name)?.value;
const shardPod = (made: Deployed, region: string): any =>
    named(made, "StatefulSet", `${region}-shard`).inputs.spec.template.spec;
const serviceEnv = (made: Deployed, service: string, region: string): Env[] =>
    named(made, "cloudrunv2/service", `${service}-${region}`).inputs.template.containers[0].envs;

for (const stack of STACKS) {
    test(stack, async (t) => {
        const made = await deployed(stack);
        const partitions = Number(configOf(stack)["infrachat:partitions"]);
        const slots = Number(configOf(stack)["infrachat:shardsMax"]);
        const subscriptions = ofType(made, "pubsub/subscription");
        const messages = subscriptions.filter(({ name }) => /\.messages-\d+\./.test(name));

        await t.test("every region hears every partition of every region", () => {
            const topics = ofType(made, "pubsub/topic").map(({ name }) => name);
            for (const source of REGIONS) {
                for (let partition = 0; partition < partitions; partition += 1) {
                    assert.ok(topics.includes(`${source}.messages-${partition}`));
                    for (const region of REGIONS) {
                        named(made, "pubsub/subscription", `${source}.messages-${partition}.${region}`);
                    }
                }
                for (const name of ["control", "dead-letter"]) {
                    assert.ok(topics.includes(`${source}.${name}`));
                }
            }
            assert.equal(topics.length, REGIONS.length * (partitions + 2));
            assert.equal(messages.length, REGIONS.length ** 2 * partitions);
        });

        await t.test("messages keep their order and are never thrown out", () => {
            for (const { name, inputs } of messages) {
                assert.equal(inputs.deadLetterPolicy, undefined, name);
                assert.equal(inputs.enableMessageOrdering, true, name);
                assert.equal(inputs.ackDeadlineSeconds, 10, name);
                assert.equal(inputs.retryPolicy.minimumBackoff, "0.1s", name);
            }
            for (const { name, inputs } of subscriptions) {
                assert.deepEqual(inputs.expirationPolicy, { ttl: "" }, name);
                assert.equal(inputs.deadLetterPolicy, undefined, name);
            }
        });

        await t.test("each slot has an address, a route, a backend and a control subscription in every region", () => {
            const domain = configOf(stack)["infrachat:domain"];
            for (const region of REGIONS) {
                for (let slot = 0; slot < slots; slot += 1) {
                    const host = `${region}-shard-${slot}.${domain}`;
                    named(made, "dns/recordSet", host);
                    const route = named(made, "HTTPRoute", `${region}-HTTPRoute-shard-${slot}`).inputs.spec;
                    assert.deepEqual(route.hostnames, [host]);
                    assert.deepEqual(route.rules, [{ backendRefs: [{ name: `shard-${slot}`, port: 8080 }] }]);
                    const service = named(made, "core/v1:Service", `${region}-shard-${slot}`).inputs.spec;
                    assert.equal(service.selector["statefulset.kubernetes.io/pod-name"], `shard-${slot}`);
                    assert.equal(service.ports[0].appProtocol, "kubernetes.io/h2c");
                    const check = named(made, "HealthCheckPolicy", `${region}-HealthCheckPolicy-shard-${slot}`).inputs.spec;
                    assert.equal(check.default.config.grpcHealthCheck.grpcServiceName, "infrachat.chat.v1.ChatService");
                    for (const source of REGIONS) {
                        named(made, "pubsub/subscription", `${source}.control.${region}-shard-${slot}`);
                    }
                }
                const scaler = named(made, "HorizontalPodAutoscaler", `${region}-shard`).inputs.spec;
                assert.equal(scaler.maxReplicas, slots, "no shard without a slot");
            }
        });

        await t.test("control events are pushed with a token that the service expects", () => {
            for (const region of REGIONS) {
                for (const service of ["gatekeeper", "switchboard"]) {
                    const env = serviceEnv(made, service, region);
                    const account = valueOf(env, "INFRACHAT_PUSH_SERVICE_ACCOUNT");
                    for (const source of REGIONS) {
                        const { pushConfig } = named(made, "pubsub/subscription", `${source}.control.${service}-${region}`).inputs;
                        assert.equal(pushConfig.oidcToken.serviceAccountEmail, account);
                        assert.equal(pushConfig.oidcToken.audience, valueOf(env, "INFRACHAT_PUSH_AUDIENCE"));
                        assert.match(pushConfig.pushEndpoint, /^https:.*\/pubsub\/push$/);
                    }
                }
            }
            const accounts = ofType(made, "serviceaccount/account").filter(({ name }) => name.startsWith("push-"));
            assert.equal(accounts.length, REGIONS.length * 2);
        });

        await t.test("roles hold for single resources, and are the least", () => {
            const onProject = ofType(made, "projects/iAMMember");
            for (const { name, inputs } of onProject) {
                const isConditional = /resource\.name == "projects\//.test(inputs.condition?.expression ?? "");
                const telemetry = [...TELEMETRY_ROLES, "roles/container.defaultNodeServiceAccount", "roles/monitoring.viewer"];
                assert.ok(isConditional || telemetry.includes(inputs.role), `${name} grants ${inputs.role} on the project`);
            }
            const roles = new Set([...ofType(made, "pubsub/topicIAMMember"), ...ofType(made, "pubsub/subscriptionIAMMember")].map(({ inputs }) => inputs.role));
            assert.deepEqual([...roles].sort(), ["projects/the-project/roles/infrachatConsumer", "roles/pubsub.publisher"]);
            for (const { name, inputs } of ofType(made, "pubsub/topicIAMMember")) {
                const [, region] = /(?:shard|gatekeeper|switchboard)-(.+)$/.exec(name) ?? [];
                assert.ok(inputs.topic.includes(`topics/${region}.`), `${name} publishes in its own region only`);
            }
            for (const { name, inputs } of ofType(made, "pubsub/subscriptionIAMMember")) {
                const [, region] = /\.shard-(.+)$/.exec(name) ?? [];
                assert.match(inputs.subscription, new RegExp(`\\.${region}(-shard-\\d+)?$`), `${name} consumes its own region's only`);
            }
            const keys = ofType(made, "secretmanager/secretIamMember").filter(({ name }) => name.startsWith("signing-key"));
            assert.deepEqual(keys.map(({ inputs }) => inputs.member).sort(), [
                "serviceAccount:gatekeeper-ane1@the-project.iam.gserviceaccount.com",
                "serviceAccount:gatekeeper-usw1@the-project.iam.gserviceaccount.com",
            ]);
        });

        await t.test("a shard takes nothing in before its pod's memory is used up", () => {
            for (const region of REGIONS) {
                const { env, resources } = shardPod(made, region).containers[0];
                const [, gibibytes] = /^(\d+)Gi$/.exec(resources.limits.memory) ?? [];
                assert.equal(Number(valueOf(env, "INFRACHAT_MEMORY_BUDGET_BYTES")), Number(gibibytes) * 2 ** 30 * 0.75);
            }
        });

        await t.test("one number of partitions, told to everyone who must know", () => {
            for (const region of REGIONS) {
                assert.equal(valueOf(shardPod(made, region).containers[0].env, "INFRACHAT_PARTITIONS"), String(partitions));
                assert.equal(valueOf(serviceEnv(made, "switchboard", region), "INFRACHAT_PARTITIONS"), String(partitions));
            }
            assert.equal(made.outputs.partitions, partitions, "the next deployment compares with it");
        });

        await t.test("the programs are told only what they understand", () => {
            const pods = [...ofType(made, "StatefulSet"), ...ofType(made, "apps/v1:Deployment")].map(({ inputs }) => inputs.spec.template.spec);
            const services = ofType(made, "cloudrunv2/service").map(({ inputs }) => inputs.template);
            const env: Env[] = [...pods, ...services].flatMap(({ containers }) => containers).flatMap((container) => container.env ?? container.envs ?? []);
            const unknown = env.map(({ name }) => name).filter((name) => ![...VARIABLES, "POD_NAME"].includes(name));
            assert.ok(env.length > 0);
            assert.deepEqual([...new Set(unknown)], []);
        });

        await t.test("the shard, its pod and the load balancer agree on how long leaving takes", () => {
            for (const region of REGIONS) {
                const pod = shardPod(made, region);
                assert.equal(pod.terminationGracePeriodSeconds, TERMINATION_GRACE);
                assert.equal(pod.containers[0].lifecycle.preStop.sleep.seconds, PRE_STOP);
                const { default: backend } = named(made, "GCPBackendPolicy", `${region}-GCPBackendPolicy-shard-0`).inputs.spec;
                assert.equal(backend.connectionDraining.drainingTimeoutSec, CONNECTION_DRAINING);
                assert.ok(backend.timeoutSec >= 3600);
                const { readinessProbe, livenessProbe } = pod.containers[0];
                assert.equal(readinessProbe.grpc.service, "infrachat.chat.v1.ChatService", "not ready while it drains");
                assert.equal(livenessProbe.grpc.service, undefined, "but alive");
            }
            assert.ok(TERMINATION_GRACE > PRE_STOP + SHARD_STOPS_WITHIN);
            assert.ok(TERMINATION_GRACE <= 600, "Autopilot waits no longer");
        });

        await t.test("shards are spread, are not disturbed, and are asked by whom may", () => {
            for (const region of REGIONS) {
                const { template } = named(made, "StatefulSet", `${region}-shard`).inputs.spec;
                assert.equal(template.metadata.annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"], "false");
                assert.equal(template.spec.topologySpreadConstraints[0].whenUnsatisfiable, "DoNotSchedule");
                assert.equal(named(made, "PodDisruptionBudget", `${region}-shard`).inputs.spec.maxUnavailable, 1);
                const deny = named(made, "NetworkPolicy", `${region}-default-deny`).inputs.spec;
                assert.deepEqual(deny, { podSelector: {}, policyTypes: ["Ingress", "Egress"] });
                for (const { inputs } of ofType(made, "NetworkPolicy")) {
                    const text = JSON.stringify(inputs);
                    assert.ok(!text.includes("0.0.0.0/0"), `${inputs.metadata.name} lets the whole world through`);
                }
                const account = named(made, "core/v1:ServiceAccount", `${region}-shard`).inputs.metadata;
                assert.match(account.annotations["iam.gke.io/gcp-service-account"], /^shard-/);
                named(made, "PodMonitoring", `${region}-shard-metrics`);
            }
        });

        await t.test("nothing of ours has a public address but the load balancers", () => {
            for (const { inputs } of ofType(made, "container/cluster")) {
                assert.equal(inputs.enableAutopilot, true);
                assert.equal(inputs.privateClusterConfig.enablePrivateNodes, true);
                assert.equal(inputs.controlPlaneEndpointsConfig.ipEndpointsConfig.enabled, false);
            }
            for (const { inputs } of ofType(made, "cloudrunv2/service")) {
                assert.equal(inputs.ingress, "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER");
            }
            assert.equal(ofType(made, "compute/globalAddress").length, 1 + REGIONS.length);
        });

        await t.test("Cloud Run speaks h2c, is probed by gRPC, and works between requests", () => {
            for (const { inputs } of ofType(made, "cloudrunv2/service")) {
                const [program, collector] = inputs.template.containers;
                assert.deepEqual(program.ports, { name: "h2c", containerPort: 8080 });
                assert.equal(program.resources.cpuIdle, false);
                assert.ok(inputs.template.scaling.minInstanceCount >= 1);
                for (const probe of ["startupProbe", "livenessProbe", "readinessProbe"]) {
                    assert.equal(program[probe].grpc.port, 8080, probe);
                }
                assert.equal(collector.name, "collector");
            }
        });

        await t.test("the stores are private, encrypted and kept", () => {
            const isKept = stack !== "dev";
            const isEncrypted = stack !== "dev";
            for (const { inputs, protect } of ofType(made, "firestore/database")) {
                assert.equal(inputs.pointInTimeRecoveryEnablement, "POINT_IN_TIME_RECOVERY_ENABLED");
                assert.equal(inputs.deleteProtectionState, isKept ? "DELETE_PROTECTION_ENABLED" : "DELETE_PROTECTION_DISABLED");
                assert.equal(protect, isKept);
                assert.equal(inputs.cmekConfig !== undefined, isEncrypted);
            }
            for (const { inputs } of ofType(made, "memorystore/instance")) {
                assert.equal(inputs.transitEncryptionMode, "SERVER_AUTHENTICATION");
                assert.equal(inputs.authorizationMode, "IAM_AUTH");
                assert.equal(inputs.kmsKey !== undefined, isEncrypted);
            }
            for (const { inputs, protect, name } of ofType(made, "pubsub/topic")) {
                assert.deepEqual(inputs.messageStoragePolicy.allowedPersistenceRegions, [name.split(".")[0]]);
                assert.equal(protect, isKept);
                assert.equal(inputs.kmsKeyName !== undefined, isEncrypted);
            }
            for (const region of REGIONS) {
                assert.match(valueOf(shardPod(made, region).containers[0].env, "REDIS_URL") ?? "", /^rediss:/);
                const indexed = named(made, "firestore/field", `${region}-messages-all`).inputs;
                assert.deepEqual(indexed.indexConfig, {}, "no index on messages but the two that are read by");
                for (const field of ["families-expires_at", "messages-expires_at", "revocations-forget_after"]) {
                    assert.deepEqual(named(made, "firestore/field", `${region}-${field}`).inputs.ttlConfig, {});
                }
            }
        });

        await t.test("only signed images run", () => {
            const [policy] = ofType(made, "binaryauthorization/policy");
            assert.equal(policy?.inputs.defaultAdmissionRule.evaluationMode, "REQUIRE_ATTESTATION");
            const mode = stack === "dev" ? "DRYRUN_AUDIT_LOG_ONLY" : "ENFORCED_BLOCK_AND_AUDIT_LOG";
            assert.equal(policy?.inputs.defaultAdmissionRule.enforcementMode, mode);
        });

        await t.test("the internet gets HTTPS, and no way to push events", () => {
            const [redirect] = ofType(made, "compute/uRLMap").filter(({ name }) => name === "to-https");
            assert.equal(redirect?.inputs.defaultUrlRedirect.httpsRedirect, true);
            for (const { inputs, name } of ofType(made, "compute/backendService")) {
                const count = REGIONS.some((region) => name.endsWith(region)) ? 1 : REGIONS.length;
                assert.equal(inputs.backends.length, count, name);
                assert.ok(inputs.securityPolicy, name);
            }
            const armor = named(made, "compute/securityPolicy", "services").inputs.rules;
            const push = armor.find(({ match }: any) => match.expr?.expression.includes("/pubsub/"));
            assert.equal(push?.action, "deny(404)");
        });
    });
}

test("a rotated key is published beside the one that signs", async () => {
    const overrides = { ...FEW, signingKeys: ["us-west1=2", "asia-northeast1=1"], publishedKeys: ["us-west1=1"] };
    const made = await deploy("dev", { overrides });
    const env = serviceEnv(made, "gatekeeper", "us-west1");
    assert.equal(valueOf(env, "INFRACHAT_SIGNING_KEY"), "/etc/infrachat/keys/2.pem");
    assert.equal(valueOf(env, "INFRACHAT_PUBLISHED_KEYS"), "/etc/infrachat/keys/1.pem");
    assert.equal(valueOf(serviceEnv(made, "gatekeeper", "asia-northeast1"), "INFRACHAT_PUBLISHED_KEYS"), undefined);
    const { volumes } = named(made, "cloudrunv2/service", "gatekeeper-us-west1").inputs.template;
    const keys = volumes.find(({ name }: any) => name === "keys").secret.items.map(({ version }: any) => version);
    assert.deepEqual(keys, ["2", "1"]);
});

test("a third region is a line of configuration", async () => {
    const regions = [...REGIONS, "europe-west4"];
    const overrides = { ...FEW, regions, signingKeys: regions.map((region) => `${region}=1`) };
    const made = await deploy("dev", { overrides });
    assert.equal(ofType(made, "container/cluster").length, 3);
    assert.equal(ofType(made, "pubsub/subscription").filter(({ name }) => /\.messages-/.test(name)).length, 9 * FEW.partitions);
    const ranges = regions.flatMap((region) => Object.values(rangesOf(region)));
    assert.equal(new Set(ranges).size, ranges.length);
});

test("the pager is told what wakes, mail the rest, and the budget is watched", async () => {
    const overrides = { ...FEW, shardsMin: 1, pagerdutyServiceKey: "a key", billingAccount: "01-02-03", budgetUsd: 500 };
    const made = await deploy("prod", { overrides });
    const channels = (name: string) => named(made, "monitoring/alertPolicy", name).inputs.notificationChannels;
    assert.deepEqual(channels("message-lost"), ["pagerduty-id"]);
    assert.equal(channels("dead-letters").length, 2);
    assert.equal(ofType(made, "billing/budget")[0]?.inputs.amount.specifiedAmount.units, "500");
});

test("names and times are those of the programs", () => {
    const routing = rust("crates/routing/src/lib.rs");
    assert.match(routing, /CONTROL_TOPIC: &str = "control"/);
    assert.match(routing, /DEAD_LETTER_TOPIC: &str = "dead-letter"/);
    assert.match(routing, /format!\("messages-\{partition\}"\)/);
    assert.match(rust("crates/bus/src/pubsub/names.rs"), /parts\.join\("\."\)/);
    const seconds = (file: string, pattern: RegExp): number => {
        const found = pattern.exec(rust(file));
        assert.ok(found, `${file} has ${pattern}: if it moved, tell test and src/timing.ts`);
        return Number(found[1]);
    };
    assert.equal(seconds("shard-service/src/config.rs", /drain: Duration::from_secs\((\d+)\)/), SHARD.drain);
    assert.equal(seconds("shard-service/src/ownership.rs", /HAND_OVER: Duration = Duration::from_secs\((\d+)\)/), SHARD.handOver);
    assert.equal(seconds("crates/runtime/src/listener.rs", /grace: Duration::from_secs\((\d+)\)/), SHARD.openCalls);
    assert.equal(seconds("crates/bus/src/pubsub/clients.rs", /LEASE: Duration = Duration::from_secs\((\d+)\)/), 10);
});
