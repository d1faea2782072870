import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";

import { dashboards } from "../dashboards.mjs";
import { QUIET, dataSets, filled, legend, whyEmpty } from "../page/queries.mjs";
import { told } from "../page/units.mjs";
import { server } from "../serve.mjs";

async function listening(serving) {
    serving.listen(0, "127.0.0.1");
    await once(serving, "listening");
    return `http://127.0.0.1:${serving.address().port}`;
}

async function stop(serving) {
    serving.closeAllConnections();
    serving.close();
    await once(serving, "close");
}

test("numbers are told as people read them", () => {
    const cases = [
        [0, "s", "0 s"], [0.0123, "s", "12.3 ms"], [0.0000042, "s", "4.2 µs"], [90, "s", "90 s"], [7200, "s", "2 h"],
        [0.015, "1", "1.5 %"], [12345, "", "12.3k"], [999, "", "999"], [2.5, "1/s", "2.5/s"],
        [2 ** 20, "By", "1 MiB"], [2048, "By/s", "2 KiB/s"], [0.5, "s/s", "0.5 cores"],
    ];
    for (const [value, unit, text] of cases) assert.equal(told(value, unit), text);
});

test("filters become matchers", () => {
    const query = "sum (a{${region}, ${shard}})";
    assert.equal(filled(query), 'sum (a{region=~".+", shard=~".+"})');
    assert.equal(filled(query, { region: "us-west1" }), 'sum (a{region="us-west1", shard=~".+"})');
    assert.equal(legend("{{a}} → {{b}}", { a: "x", b: "y" }), "x → y");
    assert.equal(legend(undefined, { a: "x" }), "a=x");
});

test("what may be empty says why", async () => {
    const widgets = (await dashboards()).flatMap(({ gridLayout }) => gridLayout.widgets);
    const queries = widgets.flatMap(dataSets).map(({ timeSeriesQuery }) => timeSeriesQuery.prometheusQuery);
    for (const [pattern] of QUIET) assert.ok(queries.some((query) => pattern.test(query)), `${pattern} is asked for`);
    assert.match(whyEmpty("rate(infrachat_canary_recovery_seconds_bucket[5m])"), /has broken/);
    assert.match(whyEmpty("rate(infrachat_canary_sent_total[5m])"), /make canary/);
    assert.equal(whyEmpty("infrachat_sessions"), undefined);
});

test("the page has every file it names, and the deployed dashboards", async () => {
    const serving = server("http://127.0.0.1:1");
    const at = await listening(serving);
    const seen = new Set();
    const visit = async (path) => {
        if (seen.has(path)) return;
        seen.add(path);
        const response = await fetch(at + path);
        assert.equal(response.status, 200, path);
        const text = await response.text();
        assert.doesNotMatch(text, /(src|href|from|url)\W+https?:/, `${path} needs nothing from elsewhere`);
        const named = [...text.matchAll(/(?:src|href)="(\/[^"]+)"|from "\.(\/[^"]+)"/g)].map(([, one, other]) => one ?? other);
        await Promise.all(named.map(visit));
    };
    await visit("/");
    assert.ok(["/main.mjs", "/chart.mjs", "/units.mjs", "/style.css"].every((path) => seen.has(path)), [...seen].join());
    const boards = await (await fetch(`${at}/dashboards`)).json();
    assert.ok(boards.some(({ name }) => name === "system"));
    assert.equal((await fetch(`${at}/serve.mjs`)).status, 404);
    await stop(serving);
});

test("Prometheus is asked, and nothing but what the page asks", async () => {
    const asked = [];
    const prometheus = createServer((request, response) => {
        asked.push(request.url);
        response.writeHead(200, { "content-type": "application/json" }).end('{"status":"success"}');
    });
    const serving = server(await listening(prometheus));
    const at = await listening(serving);
    assert.deepEqual(await (await fetch(`${at}/api/v1/query_range?query=up`)).json(), { status: "success" });
    assert.equal((await fetch(`${at}/api/v1/admin/tsdb/snapshot`, { method: "POST" })).status, 404);
    assert.deepEqual(asked, ["/api/v1/query_range?query=up"]);
    await stop(prometheus);
    const away = await fetch(`${at}/api/v1/series`);
    assert.equal(away.status, 502);
    assert.match(await away.text(), /^Prometheus does not answer at .*make dashboards/);
    await stop(serving);
});
