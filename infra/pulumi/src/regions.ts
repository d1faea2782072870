/** The regions that are known, and what follows from a region's name. */

interface Known {
    /** Short, for names that Google limits to 30 characters. */
    code: string;
    /** Its share of 10.0.0.0/8: 10.(16 × block).0.0/12. Never reuse a number. */
    block: number;
}

const KNOWN: Record<string, Known> = {
    "us-west1": { code: "usw1", block: 0 },
    "asia-northeast1": { code: "ane1", block: 1 },
    "us-central1": { code: "usc1", block: 2 },
    "us-east1": { code: "use1", block: 3 },
    "us-east4": { code: "use4", block: 4 },
    "europe-west1": { code: "euw1", block: 5 },
    "europe-west4": { code: "euw4", block: 6 },
    "europe-north1": { code: "eun1", block: 7 },
    "asia-southeast1": { code: "ase1", block: 8 },
    "asia-south1": { code: "as1", block: 9 },
    "australia-southeast1": { code: "aus1", block: 10 },
    "southamerica-east1": { code: "sae1", block: 11 },
};

export const knownRegions = Object.keys(KNOWN);

export function isKnown(region: string): boolean {
    return region in KNOWN;
}

function known(region: string): Known {
    const found = KNOWN[region];
    if (!found) {
        throw new Error(`the region ${region} is not known: add it to src/regions.ts`);
    }
    return found;
}

export function codeOf(region: string): string {
    return known(region).code;
}

export interface Ranges {
    nodes: string;
    pods: string;
    services: string;
    /** Cloud Run's way into the network. */
    run: string;
    /** Where Memorystore's endpoints are. */
    stores: string;
}

export function rangesOf(region: string): Ranges {
    const first = known(region).block * 16;
    return {
        nodes: `10.${first}.0.0/20`,
        run: `10.${first}.32.0/22`,
        stores: `10.${first}.48.0/27`,
        pods: `10.${first + 4}.0.0/14`,
        services: `10.${first + 8}.0.0/20`,
    };
}
