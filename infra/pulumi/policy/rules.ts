/** What must never be deployed, by this program or another in the same project. */

import { type ResourceValidationArgs, type ResourceValidationPolicy, type StackValidationPolicy } from "@pulumi/policy";

import { busRules } from "./bus";
import { podRules } from "./pods";
import { rule } from "./rule";

const PUBLIC = ["allUsers", "allAuthenticatedUsers"];
const PRIMITIVE = /^roles\/(owner|editor|viewer)$/;

/** Roles that exist on projects only, and give nobody any of our data. */
const ON_PROJECT = [
    "roles/container.defaultNodeServiceAccount",
    "roles/logging.logWriter",
    "roles/monitoring.metricWriter",
    "roles/monitoring.viewer",
    "roles/telemetry.tracesWriter",
];

const isProtecting = ({ opts }: ResourceValidationArgs): boolean => opts.protect;

const accessRules = [
    rule("no-public-access", "Nothing of ours is open to everybody by IAM.", (args, report) => {
        const members: unknown[] = [args.props.member, ...(args.props.members ?? [])];
        if (/iam/i.test(args.type) && members.some((member) => PUBLIC.includes(String(member)))) {
            report("everybody on the internet would get this role: name the accounts that need it");
        }
    }),
    rule("no-primitive-roles", "Nobody is owner, editor or viewer by this program.", ({ type, props }, report) => {
        if (/iam/i.test(type) && PRIMITIVE.test(props.role ?? "")) {
            report(`${props.role} covers the whole project: grant a role on the one resource`);
        }
    }),
    rule("roles-on-single-resources", "Roles are granted on one resource, or by a condition that names it.", ({ type, props }, report) => {
        if (!type.startsWith("gcp:projects/iAM") || type.includes("CustomRole")) {
            return;
        }
        const isNarrow = /resource\.name == "/.test(props.condition?.expression ?? "") || ON_PROJECT.includes(props.role);
        if (!isNarrow) {
            report(`${props.role} would hold for everything in the project: grant it on the one resource`);
        }
    }),
    rule("no-policies-that-take-over", "Bindings are added, never replaced as a whole.", ({ type }, report) => {
        if (/iam(Policy|Binding)$/i.test(type)) {
            report("this removes what others granted: use the IamMember resource");
        }
    }),
    rule("no-account-keys", "Service accounts have no keys that could be stolen.", ({ type }, report) => {
        if (type === "gcp:serviceaccount/key:Key") {
            report("use Workload Identity, or impersonation");
        }
    }),
];

const dataRules = [
    rule("databases-are-kept", "Firestore can be taken back to any moment of a week, and deletes nothing by mistake.", ({ type, props }, report) => {
        if (type !== "gcp:firestore/database:Database") {
            return;
        }
        if (props.pointInTimeRecoveryEnablement !== "POINT_IN_TIME_RECOVERY_ENABLED") {
            report("turn point-in-time recovery on");
        }
        if (props.type !== "FIRESTORE_NATIVE") {
            report("the programs speak to Firestore in native mode");
        }
    }),
    rule("production-is-protected", "What production keeps can't be deleted by one command.", (args, report) => {
        const { type, props } = args;
        const isProduction = /::prod::|^urn:pulumi:prod/.test(args.urn);
        const isKept = ["gcp:firestore/database:Database", "gcp:container/cluster:Cluster", "gcp:pubsub/topic:Topic"].includes(type);
        if (isProduction && isKept && !isProtecting(args)) {
            report("protect it: deletionProtection is off");
        }
        if (isProduction && type === "gcp:firestore/database:Database" && props.deleteProtectionState !== "DELETE_PROTECTION_ENABLED") {
            report("turn delete protection on");
        }
    }),
    rule("redis-is-private", "Redis is spoken to with TLS, and asks who calls.", ({ type, props }, report) => {
        if (type === "gcp:redis/instance:Instance" || type === "gcp:redis/cluster:Cluster") {
            report("use Memorystore for Valkey (gcp.memorystore.Instance)");
        }
        if (type !== "gcp:memorystore/instance:Instance") {
            return;
        }
        if (props.transitEncryptionMode !== "SERVER_AUTHENTICATION") {
            report("TLS is off, and can't be turned on later");
        }
        if (props.authorizationMode !== "IAM_AUTH") {
            report("IAM authentication is off, and can't be turned on later");
        }
    }),
    rule("no-secrets-in-the-clear", "Secrets come from Secret Manager, never from a variable's value.", ({ props }, report) => {
        const containers: any[] = [...(props.template?.containers ?? []), ...(props.spec?.template?.spec?.containers ?? [])];
        for (const { name, value } of containers.flatMap((container) => [...(container.envs ?? []), ...(container.env ?? [])])) {
            const isSecret = /PASSWORD|SECRET|TOKEN|_KEY$|CREDENTIAL/.test(name) && value && !String(value).startsWith("/");
            if (isSecret || /-----BEGIN [A-Z ]*PRIVATE KEY/.test(String(value))) {
                report(`the variable ${name} holds a secret: mount it from Secret Manager`);
            }
        }
    }),
];

const networkRules = [
    rule("nodes-are-private", "Clusters are Autopilot, with nodes that have no public address.", ({ type, props }, report) => {
        if (type === "gcp:container/nodePool:NodePool" || type === "gcp:compute/instance:Instance") {
            report("machines of our own are not meant to be: use Autopilot");
        }
        if (type !== "gcp:container/cluster:Cluster") {
            return;
        }
        if (!props.enableAutopilot) {
            report("use Autopilot");
        }
        if (!props.privateClusterConfig?.enablePrivateNodes) {
            report("nodes would have public addresses");
        }
        if (props.controlPlaneEndpointsConfig?.ipEndpointsConfig?.enabled !== false) {
            report("the control plane would have an address: reach it by its DNS name");
        }
        if (!props.binaryAuthorization || props.binaryAuthorization.evaluationMode === "DISABLED") {
            report("any image could run: turn Binary Authorization on");
        }
    }),
    rule("nothing-comes-in", "No firewall rule lets the internet in.", ({ type, props }, report) => {
        const isOpen = (props.sourceRanges ?? []).some((range: string) => ["0.0.0.0/0", "::/0"].includes(range));
        if (type === "gcp:compute/firewall:Firewall" && props.direction !== "EGRESS" && props.allows && isOpen) {
            report("the internet would reach machines: let the load balancer in only");
        }
    }),
    rule("services-behind-the-load-balancer", "Cloud Run is reached through the load balancer only, with an account of its own.", ({ type, props }, report) => {
        if (type !== "gcp:cloudrunv2/service:Service") {
            return;
        }
        if (!/^INGRESS_TRAFFIC_INTERNAL/.test(props.ingress ?? "")) {
            report("the service would be reached past Cloud Armor: set its ingress");
        }
        if (!props.template?.serviceAccount) {
            report("it would run as the project's default account: give it its own");
        }
        if (!props.binaryAuthorization) {
            report("any image could run: set binaryAuthorization");
        }
    }),
    rule("encrypted-on-the-way", "TLS 1.2 or newer, and no plain HTTP but the redirect.", ({ type, props }, report) => {
        if (type === "gcp:compute/sSLPolicy:SSLPolicy" && !["TLS_1_2", "TLS_1_3"].includes(props.minTlsVersion)) {
            report("set minTlsVersion to TLS_1_2");
        }
        if (type === "gcp:compute/targetHttpsProxy:TargetHttpsProxy" && !props.sslPolicy) {
            report("set an SSL policy: the default takes TLS 1.0");
        }
        if (type === "kubernetes:gateway.networking.k8s.io/v1:Gateway") {
            const listeners: any[] = props.spec?.listeners ?? [];
            if (listeners.some(({ protocol }) => protocol !== "HTTPS")) {
                report("a shard would be spoken to in the clear");
            }
        }
    }),
    rule("armored", "What the internet reaches is behind Cloud Armor.", ({ type, props }, report) => {
        const isBackend = type === "gcp:compute/backendService:BackendService";
        const isPolicy = type === "kubernetes:networking.gke.io/v1:GCPBackendPolicy";
        if ((isBackend && !props.securityPolicy) || (isPolicy && !props.spec?.default?.securityPolicy)) {
            report("set a security policy");
        }
    }),
];

export const rules: (ResourceValidationPolicy | StackValidationPolicy)[] = [
    ...accessRules,
    ...dataRules,
    ...networkRules,
    ...busRules,
    ...podRules,
];
