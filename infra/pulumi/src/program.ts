/** Everything, in order. */

import * as gcp from "@pulumi/gcp";
import * as pulumi from "@pulumi/pulumi";

import { check, whatRuns } from "./check";
import { Edge } from "./edge";
import { Foundation } from "./foundation";
import { onlySignedImages } from "./images";
import { Monitoring } from "./monitoring";
import { Region } from "./region";
import { type Image, readSettings } from "./settings";

export interface Outputs {
    /** What the next deployment is compared with. */
    partitions?: number;
    nameServers?: pulumi.Output<string[]>;
    registries: Record<string, string>;
    /** The digests that run. */
    images?: Record<Image, string>;
}

export async function deploy(): Promise<Outputs> {
    const settings = readSettings();
    const running = await whatRuns();
    check(settings, running);
    const { project, regions, partitions } = settings;
    const foundation = new Foundation(settings);
    const registries = Object.fromEntries(
        regions.map((region) => [region, `${region}-docker.pkg.dev/${project}/infrachat`]),
    );
    if (settings.foundationOnly) {
        return { registries };
    }
    const policy = onlySignedImages(settings, foundation);
    const edge = new Edge(settings, foundation.apis);
    const addresses = new Map(
        regions.map((region) => [
            region,
            new gcp.compute.GlobalAddress(
                `${region}-shards`,
                { name: `infrachat-${region}-shards` },
                { parent: edge, dependsOn: foundation.apis },
            ),
        ]),
    );
    const places = regions.map((region) => new Region(region, settings, foundation, policy));
    const consumer = new gcp.projects.IAMCustomRole("consumer", {
        project,
        roleId: "infrachatConsumer",
        title: "Consumes a subscription, and looks at how it is set",
        permissions: ["pubsub.subscriptions.consume", "pubsub.subscriptions.get"],
    });
    for (const place of places) {
        place.join(places, addresses, edge, consumer.name);
    }
    edge.serve(new Map(places.map((place) => [place.name, place.services])));
    new Monitoring(settings, foundation.apis);
    return { partitions, nameServers: edge.zone.nameServers, registries, images: settings.images };
}
