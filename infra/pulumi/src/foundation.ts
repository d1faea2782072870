/** What comes first in an empty project: services, keys, registries, secrets, who signs images. */

import * as gcp from "@pulumi/gcp";
import * as pulumi from "@pulumi/pulumi";

import { Grants } from "./iam";
import { type Settings } from "./settings";

const APIS = [
    "artifactregistry",
    "billingbudgets",
    "binaryauthorization",
    "certificatemanager",
    "cloudkms",
    "compute",
    "container",
    "containeranalysis",
    "containerscanning",
    "dns",
    "firestore",
    "iam",
    "iamcredentials",
    "logging",
    "memorystore",
    "monitoring",
    "networkconnectivity",
    "pubsub",
    "run",
    "secretmanager",
    "serviceconsumermanagement",
    "telemetry",
];

/** Google's services that encrypt with our keys. */
const ENCRYPTING = ["artifactregistry", "container", "firestore", "memorystore", "pubsub", "run", "secretmanager"];

const ROTATION = `${90 * 24 * 60 * 60}s`;

export const CANARY_PASSWORD = "canary-password";
export const signingKeyId = (region: string): string => `signing-key-${region}`;

export interface RegionFoundation {
    repository: gcp.artifactregistry.Repository;
    signingKey: gcp.secretmanager.Secret;
    /** Of our own, if wished. */
    kmsKey: pulumi.Output<string> | undefined;
    /** What needs the key waits for these. */
    ready: pulumi.Resource[];
}

export class Foundation extends pulumi.ComponentResource {
    readonly apis: gcp.projects.Service[];
    readonly regions: Map<string, RegionFoundation>;
    readonly canaryPassword: gcp.secretmanager.Secret;
    readonly attestor: gcp.binaryauthorization.Attestor;
    readonly projectNumber: pulumi.Output<string>;

    constructor(private readonly settings: Settings) {
        super("infrachat:Foundation", "foundation");
        const { project, regions } = settings;
        const parent = this;
        this.apis = APIS.map(
            (api) =>
                new gcp.projects.Service(
                    api,
                    { project, service: `${api}.googleapis.com`, disableOnDestroy: false },
                    { parent },
                ),
        );
        this.projectNumber = gcp.organizations.getProjectOutput({ projectId: project }, { parent }).number;
        const agents = settings.cmek ? this.serviceAgents() : [];
        this.regions = new Map(regions.map((region) => [region, this.inRegion(region, agents)]));
        const locations = [...this.regions.entries()];
        this.canaryPassword = new gcp.secretmanager.Secret(
            CANARY_PASSWORD,
            {
                secretId: CANARY_PASSWORD,
                replication: { userManaged: { replicas: locations.map(([at, { kmsKey }]) => replica(at, kmsKey)) } },
            },
            { parent, dependsOn: [...this.apis, ...locations.flatMap(([, { ready }]) => ready)] },
        );
        this.attestor = this.imageSignatures();
        this.registerOutputs({});
    }

    private inRegion(region: string, agents: Agent[]): RegionFoundation {
        const parent = this;
        const key = this.settings.cmek ? this.ownKey(region, agents) : undefined;
        const kmsKey = key?.id;
        const dependsOn = [...this.apis, ...(key?.grants ?? [])];
        const repository = new gcp.artifactregistry.Repository(
            `${region}-images`,
            {
                location: region,
                repositoryId: "infrachat",
                format: "DOCKER",
                kmsKeyName: kmsKey,
                dockerConfig: { immutableTags: true },
                vulnerabilityScanningConfig: { enablementConfig: "INHERITED" },
                cleanupPolicies: [
                    { id: "keep-recent", action: "KEEP", mostRecentVersions: { keepCount: 50 } },
                    { id: "delete-old", action: "DELETE", condition: { olderThan: ROTATION, tagState: "ANY" } },
                ],
            },
            { parent, dependsOn },
        );
        const signingKey = new gcp.secretmanager.Secret(
            signingKeyId(region),
            {
                secretId: signingKeyId(region),
                replication: { userManaged: { replicas: [replica(region, kmsKey)] } },
                versionDestroyTtl: `${7 * 24 * 60 * 60}s`,
            },
            { parent, dependsOn, protect: this.settings.deletionProtection },
        );
        return { repository, signingKey, kmsKey, ready: key?.grants ?? [] };
    }

    private serviceAgents(): Agent[] {
        return ENCRYPTING.map((service) => {
            const identity = new gcp.projects.ServiceIdentity(
                service,
                { project: this.settings.project, service: `${service}.googleapis.com` },
                { parent: this, dependsOn: this.apis },
            );
            return { name: service, member: identity.member };
        });
    }

    private ownKey(region: string, agents: Agent[]): { id: pulumi.Output<string>; grants: pulumi.Resource[] } {
        const parent = this;
        const ring = new gcp.kms.KeyRing(
            region,
            { name: "infrachat", location: region },
            { parent, dependsOn: this.apis },
        );
        const key = new gcp.kms.CryptoKey(
            region,
            { name: "data", keyRing: ring.id, purpose: "ENCRYPT_DECRYPT", rotationPeriod: ROTATION },
            { parent, protect: true },
        );
        const grants = new Grants(this.settings.project, this);
        for (const agent of agents) {
            grants.key(agent, `${region}-key`, key.id, "roles/cloudkms.cryptoKeyEncrypterDecrypter");
        }
        return { id: key.id, grants: grants.all };
    }

    /** Only what the pipeline signed runs. */
    private imageSignatures(): gcp.binaryauthorization.Attestor {
        const parent = this;
        const [first = ""] = this.settings.regions;
        const ring = new gcp.kms.KeyRing(
            "image-signatures",
            { name: "image-signatures", location: first },
            { parent, dependsOn: this.apis },
        );
        const key = new gcp.kms.CryptoKey(
            "image-signatures",
            {
                name: "image-signatures",
                keyRing: ring.id,
                purpose: "ASYMMETRIC_SIGN",
                versionTemplate: { algorithm: "EC_SIGN_P256_SHA256", protectionLevel: "HSM" },
            },
            { parent, protect: true },
        );
        const version = gcp.kms.getKMSCryptoKeyVersionOutput(
            { cryptoKey: key.id, version: Number(this.settings.signatureVersion) },
            { parent },
        );
        const note = new gcp.containeranalysis.Note(
            "built-by-the-pipeline",
            {
                name: "built-by-the-pipeline",
                attestationAuthority: { hint: { humanReadableName: "Built, tested and scanned by the pipeline" } },
            },
            { parent, dependsOn: this.apis },
        );
        return new gcp.binaryauthorization.Attestor(
            "built-by-the-pipeline",
            {
                name: "built-by-the-pipeline",
                attestationAuthorityNote: {
                    noteReference: note.name,
                    publicKeys: [
                        {
                            id: version.id,
                            pkixPublicKey: {
                                publicKeyPem: version.publicKeys.apply(([first]) => first?.pem ?? ""),
                                signatureAlgorithm: "ECDSA_P256_SHA256",
                            },
                        },
                    ],
                },
            },
            { parent },
        );
    }
}

interface Agent {
    name: string;
    member: pulumi.Output<string>;
}

function replica(location: string, kmsKey: pulumi.Output<string> | undefined) {
    return kmsKey ? { location, customerManagedEncryption: { kmsKeyName: kmsKey } } : { location };
}
