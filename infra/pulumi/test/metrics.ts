/** metrics.json, and that everything that is looked at is in it. */

import * as assert from "node:assert/strict";
import * as fs from "node:fs";
import { test } from "node:test";

import { projectFile } from "../src/files";
import { dashboards } from "../src/monitoring";
import { ALERTS, GOOGLE_METRICS } from "../src/monitoring/alerts";
import { BURNS, DELIVERED_WITHIN, OBJECTIVES } from "../src/monitoring/objectives";
import { deployed, named, ofType } from "./harness";
import { groupedBy, selectors } from "./queries";

interface Metric {
    name: string;
    type: "counter" | "gauge" | "histogram";
    unit: string;
    help: string;
    services: string[];
    labels: Record<string, string[] | string>;
    buckets?: string;
}

interface Contract {
    commonLabels: Record<string, string[] | string>;
    serviceLabels: Record<string, Record<string, string>>;
    sets: Record<string, string>;
    buckets: Record<string, number[]>;
    metrics: Metric[];
}

const contract: Contract = JSON.parse(fs.readFileSync(projectFile("metrics.json"), "utf8"));
const byName = new Map(contract.metrics.map((metric) => [metric.name, metric]));

function labelsOf(metric: Metric): Record<string, string[] | string> {
    const own = metric.services.map((service) => contract.serviceLabels[service] ?? {});
    return { ...contract.commonLabels, ...metric.labels, ...Object.assign({}, ...own) };
}

/** The metric behind a series' name, as far as its type has such a series. */
function metricOf(series: string): Metric | undefined {
    const direct = byName.get(series);
    if (direct && direct.type !== "histogram") {
        return direct;
    }
    const base = byName.get(series.replace(/_(bucket|sum|count)$/, ""));
    return base?.type === "histogram" && base.name !== series ? base : undefined;
}

/** What is wrong with a query, by the contract. */
function problems(query: string): string[] {
    const found: string[] = [];
    const seen: Record<string, string[] | string>[] = [];
    for (const { metric: series, labels } of selectors(query)) {
        if (GOOGLE_METRICS.includes(series)) {
            return found;
        }
        const metric = metricOf(series);
        if (!metric) {
            found.push(`${series} is not in metrics.json`);
            continue;
        }
        const known: Record<string, string[] | string> = {
            ...labelsOf(metric),
            ...(series.endsWith("_bucket") && { le: "@le" }),
        };
        seen.push(known);
        for (const { name, operator, value } of labels) {
            const values = known[name];
            if (values === undefined) {
                found.push(`${series} has no label ${name}`);
            } else if (name === "le") {
                const bounds = contract.buckets[metric.buckets ?? ""] ?? [];
                if (!bounds.map(String).includes(value)) {
                    found.push(`${series} has no bucket ${value}`);
                }
            } else if (Array.isArray(values)) {
                const asked = operator.endsWith("~") ? value.split("|") : [value];
                asked.filter((one) => one !== ".*" && !values.includes(one)).forEach((one) => found.push(`${name} of ${series} is never ${one}`));
            }
        }
    }
    for (const label of groupedBy(query)) {
        if (!seen.some((labels) => label in labels)) {
            found.push(`nothing in it has the label ${label}`);
        }
    }
    return found;
}

test("metrics are named, explained and bounded", () => {
    assert.equal(byName.size, contract.metrics.length, "each name once");
    const most = 200;
    for (const metric of contract.metrics) {
        const { name, type, unit, help, labels, services, buckets } = metric;
        assert.match(name, /^(infrachat|process)_[a-z0-9_]+$/, name);
        assert.ok(help.endsWith(".") && help.length > 5, `${name} is explained`);
        assert.ok(services.length > 0 && unit, name);
        assert.equal(name.endsWith("_total"), type === "counter", `${name}: counters, and only they, end in _total`);
        assert.equal(type === "histogram", buckets !== undefined && buckets in contract.buckets, `${name}: histograms have buckets`);
        if (unit === "seconds" && type !== "counter") {
            assert.ok(name.endsWith("_seconds"), `${name} says its unit`);
        }
        let series = 1;
        for (const [label, values] of Object.entries(labels)) {
            assert.doesNotMatch(label, /channel|user|session|sender|message/, `${name} must not be counted by ${label}`);
            assert.ok(!(label in contract.commonLabels), `${name}: ${label} is a common label`);
            assert.ok(Array.isArray(values) || values in contract.sets, `${name}: ${label} has a known set of values`);
            series *= Array.isArray(values) ? new Set(values).size : 4;
        }
        assert.ok(series <= most, `${name} has ${series} series a process`);
    }
});

test("queries are read rightly", () => {
    assert.deepEqual(problems("sum (rate(infrachat_session[5m]))"), ["infrachat_session is not in metrics.json"]);
    assert.deepEqual(problems("sum (rate(infrachat_delivery_seconds[5m]))"), ["infrachat_delivery_seconds is not in metrics.json"]);
    assert.deepEqual(problems("infrachat_sessions_bucket"), ["infrachat_sessions_bucket is not in metrics.json"]);
    assert.deepEqual(problems('infrachat_delivery_seconds_bucket{le="0.3"}'), ["infrachat_delivery_seconds_bucket has no bucket 0.3"]);
    assert.deepEqual(problems('infrachat_publishes_total{outcome=~"acked|lost"}'), ["outcome of infrachat_publishes_total is never lost"]);
    assert.deepEqual(problems("infrachat_sessions{${region}, user=\"a\"}"), ["infrachat_sessions has no label user"]);
    assert.deepEqual(problems("sum by (channel) (infrachat_sessions)"), ["nothing in it has the label channel"]);
    assert.deepEqual(problems("sum by (region, shard) (infrachat_sessions{${region}, ${shard}}) > 0.5"), []);
});

test("dashboards name only what is exported", () => {
    const boards = dashboards();
    assert.deepEqual([...boards.keys()], ["auth", "bus", "region", "shard", "system"]);
    for (const [name, json] of boards) {
        const board = JSON.parse(json);
        const variables = new Set((board.dashboardFilters ?? []).map(({ templateVariable }: any) => templateVariable));
        const titles = board.gridLayout.widgets.map(({ title }: any) => title);
        assert.equal(new Set(titles).size, titles.length, `${name} has two widgets of one title`);
        for (const { title, xyChart, scorecard } of board.gridLayout.widgets) {
            const sets = xyChart ? xyChart.dataSets : [scorecard];
            for (const { timeSeriesQuery, legendTemplate } of sets) {
                const query: string = timeSeriesQuery.prometheusQuery;
                assert.deepEqual(problems(query), [], `${name}, ${title}: ${query}`);
                for (const [, variable] of query.matchAll(/\$\{([a-z]+)\}/g)) {
                    assert.ok(variables.has(variable), `${name}, ${title}: no filter fills ${variable} in`);
                }
                for (const [, label] of (legendTemplate ?? "").matchAll(/\{\{([a-z_]+)\}\}/g)) {
                    assert.ok(groupedBy(query).includes(label ?? ""), `${name}, ${title}: the legend shows ${label}`);
                }
            }
        }
    }
});

test("every metric of the programs is looked at", () => {
    const queries = [...dashboards().values()].join() + ALERTS.map(({ query }) => query).join();
    const unseen = contract.metrics.map(({ name }) => name).filter((name) => !queries.includes(name));
    assert.deepEqual(unseen, []);
});

test("alerts name only what is exported, and docs/operations.md says what to do", () => {
    const operations = fs.readFileSync(projectFile("../../docs/operations.md"), "utf8");
    for (const { name, query, section } of ALERTS) {
        assert.deepEqual(problems(query), [], `${name}: ${query}`);
        assert.ok(operations.includes(`### ${section}\n`), `docs/operations.md has a section ${section}`);
    }
    assert.equal(new Set(ALERTS.map(({ name }) => name)).size, ALERTS.length);
});

test("promises burn in several windows, and are kept as Cloud Monitoring's objectives", async () => {
    const dev = await deployed("dev");
    assert.equal(ALERTS.filter(({ name }) => name.includes("-burns-")).length, OBJECTIVES.length * BURNS.length);
    const objectives = ofType(dev, "monitoring/slo");
    assert.equal(objectives.length, OBJECTIVES.length);
    for (const { inputs } of objectives) {
        const filters = JSON.stringify(inputs.requestBasedSli);
        const named = [...filters.matchAll(/prometheus\.googleapis\.com\/([a-z_]+)\/(counter|gauge|histogram)/g)];
        assert.ok(named.length > 0);
        for (const [, metric = "", type] of named) {
            assert.equal(byName.get(metric)?.type, type, metric);
        }
        for (const [, label = "", list = ""] of filters.matchAll(/metric\.label\.([a-z_]+)=one_of\(([^)]*)\)/g)) {
            const values = byName.get(named[0]?.[1] ?? "")?.labels[label] ?? [];
            for (const [, value] of list.matchAll(/\\"([a-z_]+)\\"/g)) {
                assert.ok(values.includes(value ?? ""), `${label} is never ${value}`);
            }
        }
    }
    const latency = named(dev, "monitoring/slo", "delivery-latency").inputs.requestBasedSli;
    assert.equal(latency.distributionCut.range.max, DELIVERED_WITHIN);
    assert.ok(contract.buckets.latency?.includes(DELIVERED_WITHIN));
});

test("the autoscaler goes by gauges that are exported", async () => {
    const dev = await deployed("dev");
    const scalers = ofType(dev, "HorizontalPodAutoscaler");
    assert.equal(scalers.length, 2);
    for (const { inputs } of scalers) {
        const metrics = inputs.spec.metrics.filter(({ type }: any) => type === "Pods").map(({ pods }: any) => pods.metric.name);
        assert.ok(metrics.length >= 2);
        for (const metric of metrics) {
            const [, name = "", type] = metric.split("|");
            assert.equal(byName.get(name)?.type, type, metric);
            assert.deepEqual(byName.get(name)?.labels, {}, `${name} is one series a pod`);
        }
    }
});
