import { TERMINATION_GRACE } from "../src/timing";
import { rule } from "./rule";

/** Google's, which carry no digest of ours. */
const GOOGLES = ["us-docker.pkg.dev/cloud-ops-agents-artifacts/", "gcr.io/gke-release/"];

const podOf = (props: any): any => props.spec?.template?.spec ?? (props.spec?.containers ? props.spec : undefined);

const containersOf = (props: any): any[] => {
    const pod = podOf(props);
    return [...(pod?.containers ?? []), ...(pod?.initContainers ?? []), ...(props.template?.containers ?? [])];
};

export const podRules = [
    rule("images-by-digest", "What was tested is what runs.", ({ props }, report) => {
        for (const { image } of containersOf(props)) {
            const isGoogles = GOOGLES.some((prefix) => String(image).startsWith(prefix));
            const isPinned = /@sha256:[0-9a-f]{64}$/.test(image) || (isGoogles && /:v?\d/.test(image));
            if (!isPinned) {
                report(`${image} may be another image tomorrow: name it by its digest`);
            }
        }
    }),
    rule("pods-have-no-power", "No container is root, privileged or in the node's own namespaces.", ({ type, props }, report) => {
        const pod = podOf(props);
        if (!type.startsWith("kubernetes:") || !pod) {
            return;
        }
        if (pod.hostNetwork || pod.hostPID || pod.hostIPC || pod.volumes?.some((volume: any) => volume.hostPath)) {
            report("it would see the node");
        }
        for (const { name, securityContext } of pod.containers ?? []) {
            if (!(securityContext?.runAsNonRoot ?? pod.securityContext?.runAsNonRoot)) {
                report(`${name} might run as root`);
            }
            if (securityContext?.privileged || securityContext?.allowPrivilegeEscalation !== false) {
                report(`${name} could gain power`);
            }
        }
    }),
    rule("no-way-past-the-gateway", "Pods are reached through the Gateway only.", ({ type, props }, report) => {
        if (type === "kubernetes:core/v1:Service" && ["LoadBalancer", "NodePort"].includes(props.spec?.type)) {
            report("it would be reached past TLS and Cloud Armor");
        }
    }),
    rule("shards-may-leave-in-order", "A shard gets the time that its drain takes, and so do its streams.", ({ type, props }, report) => {
        const isShard = props.metadata?.name === "shard";
        const grace = props.spec?.template?.spec?.terminationGracePeriodSeconds ?? 30;
        if (type === "kubernetes:apps/v1:StatefulSet" && isShard && grace < TERMINATION_GRACE) {
            report(`it would be killed after ${grace} s; leaving takes up to ${TERMINATION_GRACE} s (src/timing.ts)`);
        }
        if (type === "kubernetes:networking.gke.io/v1:GCPBackendPolicy") {
            const { timeoutSec, connectionDraining } = props.spec?.default ?? {};
            if (!(timeoutSec >= 3600)) {
                report("the load balancer would cut streams: its timeout is 30 s unless it is set");
            }
            if (!(connectionDraining?.drainingTimeoutSec >= TERMINATION_GRACE)) {
                report("the load balancer would cut the streams of a shard that leaves");
            }
        }
    }),
];
