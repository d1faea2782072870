// Writes the deployed dashboards as Grafana's: node grafana.mjs FOLDER

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

import { dashboards } from "./dashboards.mjs";
import { dataSets } from "./page/queries.mjs";

const SOURCE = { type: "prometheus", uid: "prometheus" };
/** Grafana's grid. */
const COLUMNS = 24;
const HEIGHTS = { stat: 4, timeseries: 8 };
const UNITS = { s: "s", "1": "percentunit", By: "bytes", "By/s": "binBps", "1/s": "suffix:/s", "s/s": "suffix: cores" };
const COLOURS = { RED: "red", YELLOW: "yellow" };

function unit({ timeSeriesQuery: { unitOverride } }) {
    if (unitOverride === undefined) return "short";
    const known = UNITS[unitOverride];
    if (!known) throw new Error(`grafana.mjs has no unit for ${unitOverride}: add it to UNITS`);
    return known;
}

/** A filter's value is a pattern, so that "all" is one too. */
const filled = (query) => query.replace(/\$\{([a-z]+)\}/g, '$1=~"$${$1}"');

/** Grafana's steps are what holds from a value on; ours are all ABOVE. */
function thresholds(passed = []) {
    const steps = passed.map(({ value, color, direction }) => {
        if (direction !== "ABOVE") throw new Error(`grafana.mjs knows no threshold ${direction}`);
        // A step begins at its value, and a threshold above it.
        return { value: value === 0 ? Number.MIN_VALUE : value, color: COLOURS[color] };
    });
    return { mode: "absolute", steps: [{ value: null, color: steps.length > 0 ? "green" : "text" }, ...steps.sort((a, b) => a.value - b.value)] };
}

function panel(widget, id, gridPos) {
    const sets = dataSets(widget);
    const letter = (index) => String.fromCharCode("A".charCodeAt(0) + index);
    const type = widget.xyChart ? "timeseries" : "stat";
    return {
        id,
        type,
        title: widget.title,
        gridPos,
        datasource: SOURCE,
        targets: sets.map(({ timeSeriesQuery, legendTemplate }, index) => ({
            refId: letter(index),
            datasource: SOURCE,
            expr: filled(timeSeriesQuery.prometheusQuery),
            legendFormat: legendTemplate ?? "__auto",
        })),
        fieldConfig: {
            defaults: { unit: unit(sets[0]), min: 0, thresholds: thresholds(widget.scorecard?.thresholds) },
            overrides: sets.slice(1).map((set, index) => ({
                matcher: { id: "byFrameRefID", options: letter(index + 1) },
                properties: [{ id: "unit", value: unit(set) }],
            })),
        },
        options: type === "stat"
            ? { graphMode: "area", colorMode: "value", reduceOptions: { calcs: ["lastNotNull"] } }
            : { legend: { displayMode: "table", placement: "bottom", calcs: ["lastNotNull"] }, tooltip: { mode: "multi", sort: "desc" } },
    };
}

/** Row by row; a row is as high as its highest. */
function panels({ columns, widgets }) {
    const across = Number(columns);
    let y = 0;
    const placed = [];
    for (let begin = 0; begin < widgets.length; begin += across) {
        const row = widgets.slice(begin, begin + across);
        const height = Math.max(...row.map(({ xyChart }) => HEIGHTS[xyChart ? "timeseries" : "stat"]));
        row.forEach((widget, column) => {
            const w = COLUMNS / across;
            placed.push(panel(widget, begin + column + 1, { x: column * w, y, w, h: height }));
        });
        y += height;
    }
    return placed;
}

function variable({ labelKey, templateVariable }) {
    const within = templateVariable === "shard" ? '{region=~"${region}"}' : "";
    const query = `label_values(infrachat_build_info${within}, ${labelKey})`;
    return {
        name: templateVariable,
        type: "query",
        datasource: SOURCE,
        query: { query, refId: templateVariable },
        definition: query,
        includeAll: true,
        allValue: ".+",
        current: { text: "All", value: "$__all" },
        refresh: 2,
        sort: 1,
    };
}

/** One of ours as Grafana's. */
export const converted = (board) => ({
    uid: `infrachat-${board.name}`,
    title: board.displayName,
    tags: ["infrachat"],
    links: [{ type: "dashboards", tags: ["infrachat"], title: "InfraChat", keepTime: true, includeVars: true }],
    schemaVersion: 41,
    editable: true,
    refresh: "5s",
    time: { from: "now-15m", to: "now" },
    templating: { list: (board.dashboardFilters ?? []).map(variable) },
    panels: panels(board.gridLayout),
});

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
    for (const board of await dashboards()) {
        await writeFile(join(process.argv[2], `${board.name}.json`), JSON.stringify(converted(board), undefined, 2));
    }
}
