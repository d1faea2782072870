/** Deploys a stack against mocks, and says what would have been made. */

import * as pulumi from "@pulumi/pulumi";
import { MockMonitor } from "@pulumi/pulumi/runtime/mocks";
import * as fs from "fs";
import { parse } from "yaml";

import { projectFile } from "../src/files";

export const STACKS = ["dev", "staging", "prod"];

export type Inputs = Record<string, any>;

export interface Made {
    type: string;
    name: string;
    inputs: Inputs;
    protect: boolean;
}

/** Everything of a type, such as "pubsub/topic". */
export const ofType = ({ made }: Deployed, type: string): Made[] =>
    made.filter((resource) => resource.type.includes(`${type}:`) || resource.type.endsWith(type));

export function named(deployed: Deployed, type: string, name: string): Made {
    const found = ofType(deployed, type).find((resource) => resource.name === name);
    if (!found) {
        throw new Error(`no ${type} is called ${name}`);
    }
    return found;
}

export interface Deployed {
    made: Made[];
    outputs: Record<string, any>;
}

interface Field {
    type?: string;
    default?: unknown;
    items?: { type: string };
}

const read = (name: string): any => parse(fs.readFileSync(projectFile(name), "utf8"));
export const schema: Record<string, Field> = read("Pulumi.yaml").config;

/** What the pipeline sets. */
const images = Object.fromEntries(
    ["Gatekeeper", "Switchboard", "Shard", "Canary"].map((image, at) => [
        `infrachat:image${image}`,
        `sha256:${String(at + 1).repeat(64)}`,
    ]),
);

/** A stack file's configuration, checked against the schema as the CLI does. */
export function configOf(stack: string, overrides: Record<string, unknown> = {}): Record<string, string> {
    const defaults = Object.entries(schema).filter(([, field]) => field.default !== undefined);
    const config: Record<string, unknown> = {
        ...Object.fromEntries(defaults.map(([key, field]) => [`infrachat:${key}`, field.default])),
        ...read(`Pulumi.${stack}.yaml`).config,
        ...images,
        ...Object.fromEntries(Object.entries(overrides).map(([key, value]) => [key.includes(":") ? key : `infrachat:${key}`, value])),
    };
    for (const [key, value] of Object.entries(config)) {
        const field = schema[key.replace(/^infrachat:/, "")];
        if (key.startsWith("infrachat:") && !field) {
            throw new Error(`Pulumi.${stack}.yaml sets ${key}, which Pulumi.yaml does not know`);
        }
        if (field && !isOfType(value, field)) {
            throw new Error(`Pulumi.${stack}.yaml sets ${key} to ${JSON.stringify(value)}, which is no ${field.type}`);
        }
    }
    const text = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));
    const given = Object.entries(config).filter(([, value]) => value !== undefined);
    return Object.fromEntries(given.map(([key, value]) => [key, text(value)]));
}

function isOfType(value: unknown, { type, items }: Field): boolean {
    switch (type) {
        case "integer":
            return Number.isInteger(value);
        case "array":
            return Array.isArray(value) && value.every((item) => typeof item === items?.type);
        default:
            return typeof value === type;
    }
}

/** Mocks are not told of options, but the monitor that stands for the engine is. */
const protectedOnes = new Set<string>();
const register = MockMonitor.prototype.registerResource;
MockMonitor.prototype.registerResource = function (req, callback) {
    const id = `${req.getType()} ${req.getName()}`;
    if (req.getProtect()) {
        protectedOnes.add(id);
    } else {
        protectedOnes.delete(id);
    }
    return register.call(this, req, callback);
};

export interface Options {
    overrides?: Record<string, unknown>;
    /** The outputs of the deployment before. */
    before?: Record<string, unknown>;
}

const stacks = new Map<string, Promise<Deployed>>();

/** A stack as its file says. Made once, so not to be changed. */
export function deployed(stack: string): Promise<Deployed> {
    const found = stacks.get(stack) ?? deploy(stack);
    stacks.set(stack, found);
    return found;
}

/** With less of what there is much of, for what does not depend on it. */
export const FEW = { partitions: 2, shardsMax: 2 };

export async function deploy(stack: string, { overrides, before = {} }: Options = {}): Promise<Deployed> {
    const made: Made[] = [];
    const mocks: pulumi.runtime.Mocks = {
        newResource: ({ type, name, inputs }) => {
            if (type === "pulumi:pulumi:StackReference") {
                return { id: name, state: { ...inputs, outputs: before } };
            }
            made.push({ type, name, inputs: plain(inputs), protect: protectedOnes.has(`${type} ${name}`) });
            return { id: idOf(type, name, inputs), state: { ...inputs, ...computed(type, name, inputs) } };
        },
        call: ({ token, inputs }) => {
            switch (token) {
                case "gcp:organizations/getProject:getProject":
                    return { ...inputs, number: "123456789012" };
                case "gcp:kms/getKMSCryptoKeyVersion:getKMSCryptoKeyVersion":
                    return { ...inputs, id: `${inputs.cryptoKey}/cryptoKeyVersions/${inputs.version}`, publicKeys: [{ pem: "a public key" }] };
                default:
                    throw new Error(`the mocks know no answer to ${token}`);
            }
        },
    };
    await pulumi.runtime.setMocks(mocks, "infrachat", stack, false, "acme");
    pulumi.runtime.setAllConfig(configOf(stack, overrides), []);
    const program = await import("../src/program");
    const outputs = await program.deploy();
    await pulumi.runtime.disconnect();
    const known = await Promise.all(
        Object.entries(outputs).map(async ([key, value]) => [key, await new Promise((resolve) => pulumi.output(value as any).apply(resolve))]),
    );
    made.sort((a, b) => compare(a.type, b.type) || compare(a.name, b.name));
    return { made, outputs: Object.fromEntries(known) };
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** Without the marks of secrets. */
function plain(value: any): any {
    if (Array.isArray(value)) {
        return value.map(plain);
    }
    if (value && typeof value === "object") {
        if ("4dabf18193072939515e22adb298388d" in value && "value" in value) {
            return plain(value.value);
        }
        return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]));
    }
    return value;
}

const PROJECT = "projects/the-project";

/** What Google would answer, as far as the program reads it. */
function idOf(type: string, name: string, inputs: Inputs): string {
    switch (type) {
        case "gcp:pubsub/topic:Topic":
            return `${PROJECT}/topics/${inputs.name}`;
        case "gcp:firestore/database:Database":
            return `${PROJECT}/databases/${inputs.name}`;
        case "gcp:secretmanager/secret:Secret":
            return `${PROJECT}/secrets/${inputs.secretId}`;
        default:
            return `${name}-id`;
    }
}

function computed(type: string, name: string, inputs: Inputs): Inputs {
    switch (type) {
        case "gcp:serviceaccount/account:Account":
            return { email: `${inputs.accountId}@the-project.iam.gserviceaccount.com`, name: `${PROJECT}/serviceAccounts/${inputs.accountId}` };
        case "gcp:projects/serviceIdentity:ServiceIdentity":
            return { member: `serviceAccount:agent-of-${inputs.service}` };
        case "gcp:cloudrunv2/service:Service":
            return { uri: `https://${inputs.name}-${inputs.location}.run.app` };
        case "gcp:compute/globalAddress:GlobalAddress":
            return { address: `address-of-${name}` };
        case "gcp:dns/managedZone:ManagedZone":
            return { nameServers: ["ns1.example.net."] };
        case "gcp:certificatemanager/dnsAuthorization:DnsAuthorization":
            return { dnsResourceRecords: [{ name: `_proof.${inputs.domain}.`, type: "CNAME", data: "proof.example.net." }] };
        case "gcp:container/cluster:Cluster":
            return {
                controlPlaneEndpointsConfig: { dnsEndpointConfig: { ...inputs.controlPlaneEndpointsConfig.dnsEndpointConfig, endpoint: `${inputs.name}.gke.goog` } },
            };
        case "gcp:projects/iAMCustomRole:IAMCustomRole":
            return { name: `${PROJECT}/roles/${inputs.roleId}` };
        case "gcp:secretmanager/secretVersion:SecretVersion":
            return { version: "1" };
        case "gcp:memorystore/instance:Instance":
            return {
                name: `${PROJECT}/locations/${inputs.location}/instances/${inputs.instanceId}`,
                endpoints: [{ connections: [{ pscAutoConnection: { connectionType: "CONNECTION_TYPE_PRIMARY", ipAddress: `valkey.${inputs.location}`, port: 6379 } }] }],
                managedServerCas: [{ caCerts: [{ certificates: ["a certificate"] }] }],
            };
        default:
            return {};
    }
}
