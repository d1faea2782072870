// Asks everything that the dashboards ask, and says what has no answer: node check.mjs PROMETHEUS_URL
// Fails when something is empty that should not be while a stack runs, people talk and a canary sings.

import { dashboards } from "./dashboards.mjs";
import { dataSets, filled, whyEmpty } from "./page/queries.mjs";

const [prometheus = "http://127.0.0.1:9090"] = process.argv.slice(2);

async function series(query) {
    const answer = await (await fetch(`${prometheus}/api/v1/query?${new URLSearchParams({ query })}`)).json();
    if (answer.status !== "success") throw new Error(`${query}: ${answer.error}`);
    return answer.data.result.filter(({ value: [, value] }) => value !== "NaN").length;
}

let [asked, empty, explained] = [0, 0, 0];
for (const { name, gridLayout } of await dashboards()) {
    for (const widget of gridLayout.widgets) {
        for (const { timeSeriesQuery: { prometheusQuery } } of dataSets(widget)) {
            asked += 1;
            if (await series(filled(prometheusQuery)) > 0) continue;
            const why = whyEmpty(prometheusQuery);
            if (why) explained += 1;
            else empty += 1;
            console.log(`${why ? "quiet" : "EMPTY"}  ${name}, ${widget.title}: ${why ?? prometheusQuery}`);
        }
    }
}
console.log(`${asked} queries: ${asked - empty - explained} answered, ${explained} empty for a known reason, ${empty} empty`);
process.exit(empty > 0 ? 1 : 0);
