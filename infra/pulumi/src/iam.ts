/** Who may do what, always on one resource. */

import * as gcp from "@pulumi/gcp";
import * as pulumi from "@pulumi/pulumi";

export const memberOf = (account: gcp.serviceaccount.Account): pulumi.Output<string> =>
    pulumi.interpolate`serviceAccount:${account.email}`;

/** The roles that exist on projects only and let nobody read anything: writing telemetry. */
export const TELEMETRY_ROLES = [
    "roles/logging.logWriter",
    "roles/monitoring.metricWriter",
    "roles/telemetry.tracesWriter",
];

export interface Grantee {
    /** Short, for the names of the bindings. */
    name: string;
    member: pulumi.Input<string>;
}

/** Bindings of one parent component. */
export class Grants {
    readonly all: pulumi.Resource[] = [];

    constructor(
        private readonly project: string,
        private readonly parent: pulumi.Resource,
    ) {}

    private add(binding: pulumi.Resource): void {
        this.all.push(binding);
    }

    topic(to: Grantee, id: string, topic: pulumi.Input<string>, role: string): void {
        const args = { topic, role, member: to.member };
        this.add(new gcp.pubsub.TopicIAMMember(`${id}.${to.name}`, args, { parent: this.parent }));
    }

    subscription(to: Grantee, id: string, subscription: pulumi.Input<string>, role: pulumi.Input<string>): void {
        const args = { subscription, role, member: to.member };
        this.add(new gcp.pubsub.SubscriptionIAMMember(`${id}.${to.name}`, args, { parent: this.parent }));
    }

    secret(to: Grantee, id: string, secretId: pulumi.Input<string>): void {
        const args = { secretId, role: "roles/secretmanager.secretAccessor", member: to.member };
        this.add(new gcp.secretmanager.SecretIamMember(`${id}.${to.name}`, args, { parent: this.parent }));
    }

    account(to: Grantee, id: string, account: gcp.serviceaccount.Account, role: string): void {
        const args = { serviceAccountId: account.name, role, member: to.member };
        this.add(new gcp.serviceaccount.IAMMember(`${id}.${to.name}`, args, { parent: this.parent }));
    }

    key(to: Grantee, id: string, cryptoKeyId: pulumi.Input<string>, role: string): void {
        const args = { cryptoKeyId, role, member: to.member };
        this.add(new gcp.kms.CryptoKeyIAMMember(`${id}.${to.name}`, args, { parent: this.parent }));
    }

    repository(to: Grantee, id: string, repository: gcp.artifactregistry.Repository, role: string): void {
        const { location, repositoryId } = repository;
        const args = { location, repository: repositoryId, role, member: to.member };
        this.add(new gcp.artifactregistry.RepositoryIamMember(`${id}.${to.name}`, args, { parent: this.parent }));
    }

    /** For services whose data has no policies of its own: the condition names the one resource. */
    conditional(to: Grantee, id: string, role: string, type: string, resource: pulumi.Input<string>): void {
        const expression = pulumi.interpolate`resource.type == "${type}" && resource.name == "${resource}"`;
        const condition = { title: `only ${id}`, expression };
        const args = { project: this.project, role, member: to.member, condition };
        this.add(new gcp.projects.IAMMember(`${id}.${to.name}`, args, { parent: this.parent }));
    }

    telemetry(to: Grantee): void {
        for (const role of TELEMETRY_ROLES) {
            this.onProject(to, role);
        }
    }

    /** For roles that exist on projects only. The policy pack lists which may be used. */
    onProject(to: Grantee, role: string): void {
        const args = { project: this.project, role, member: to.member };
        const name = `${role.replace("roles/", "")}.${to.name}`;
        this.add(new gcp.projects.IAMMember(name, args, { parent: this.parent }));
    }
}
