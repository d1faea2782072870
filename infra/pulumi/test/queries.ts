/** Which metrics and labels a query names. */

export interface Selector {
    metric: string;
    labels: { name: string; operator: string; value: string }[];
}

const WORDS = new Set(
    ("sum avg min max count by without on ignoring and or unless rate increase irate absent avg_over_time " +
        "max_over_time histogram_quantile time bool group_left group_right offset le").split(" "),
);

/** Each metric with its matchers; `${region}` and its like are matchers that the dashboard fills in. */
export function selectors(query: string): Selector[] {
    // Labels to group by, and what stands in quotes, are no metrics.
    const bare = query.replace(/\b(by|without|on|ignoring)\s*\([^)]*\)/g, " ");
    const found: Selector[] = [];
    const pattern = /([a-zA-Z_][a-zA-Z0-9_:]*)\s*(?:\{((?:[^{}"]|"(?:[^"\\]|\\.)*"|\$\{[a-z]+\})*)\})?/g;
    for (const [, name = "", matchers] of bare.replace(/\[[^\]]*\]/g, " ").matchAll(pattern)) {
        if (WORDS.has(name) && matchers === undefined) {
            continue;
        }
        found.push({ metric: name, labels: labelsIn(matchers ?? "") });
    }
    return found;
}

function labelsIn(matchers: string): Selector["labels"] {
    const filled = matchers.replace(/\$\{([a-z]+)\}/g, '$1=~".*"');
    return [...filled.matchAll(/([a-z_]+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"/g)].map(
        ([, name = "", operator = "", value = ""]) => ({ name, operator, value }),
    );
}

/** The labels that a query groups by or shows in its legend. */
export function groupedBy(query: string): string[] {
    return [...query.matchAll(/\b(?:by|without|on|ignoring)\s*\(([^)]*)\)/g)].flatMap(([, list = ""]) =>
        list.split(",").map((label) => label.trim()).filter(Boolean),
    );
}
