/** Which images run, and that no others do. */

import * as gcp from "@pulumi/gcp";
import * as pulumi from "@pulumi/pulumi";

import { type Foundation } from "./foundation";
import { type Image, type Settings } from "./settings";

/** Google's own, which are not signed by us. */
export const COLLECTOR_IMAGE =
    "us-docker.pkg.dev/cloud-ops-agents-artifacts/google-cloud-opentelemetry-collector/otelcol-google:0.159.0";
export const METRICS_ADAPTER_IMAGE = "gcr.io/gke-release/custom-metrics-stackdriver-adapter:v0.16.11-gke.0";

const PROGRAMS: Record<Image, string> = {
    gatekeeper: "gatekeeper",
    switchboard: "switchboard",
    shard: "chat-shard",
    canary: "infrachat",
};

/** By digest, from the region's own registry: a region starts alone. */
export function imageOf(settings: Settings, region: string, image: Image): string {
    const { project, images } = settings;
    return `${region}-docker.pkg.dev/${project}/infrachat/${PROGRAMS[image]}@${images[image]}`;
}

export function onlySignedImages(settings: Settings, foundation: Foundation): gcp.binaryauthorization.Policy {
    const enforcementMode =
        settings.binaryAuthorization === "enforce" ? "ENFORCED_BLOCK_AND_AUDIT_LOG" : "DRYRUN_AUDIT_LOG_ONLY";
    return new gcp.binaryauthorization.Policy(
        "only-signed-images",
        {
            project: settings.project,
            globalPolicyEvaluationMode: "ENABLE",
            admissionWhitelistPatterns: [COLLECTOR_IMAGE, METRICS_ADAPTER_IMAGE].map((image) => ({
                namePattern: image.replace(/:[^:]*$/, ":*"),
            })),
            defaultAdmissionRule: {
                evaluationMode: "REQUIRE_ATTESTATION",
                enforcementMode,
                requireAttestationsBies: [foundation.attestor.name],
            },
        },
        { parent: foundation } as pulumi.CustomResourceOptions,
    );
}
