// Serves the page, the dashboards as they are deployed, and Prometheus' answers to it.
// node serve.mjs PORT PROMETHEUS_URL

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

import { dashboards } from "./dashboards.mjs";

const PAGE = new URL("./page/", import.meta.url);
const FILES = new Map([
    ["/", "index.html"],
    ...["style.css", "main.mjs", "chart.mjs", "queries.mjs", "units.mjs"].map((file) => [`/${file}`, file]),
]);
const TYPES = { html: "text/html", css: "text/css", mjs: "text/javascript" };
/** What the page may ask. */
const QUERIES = ["/api/v1/query_range", "/api/v1/series", "/api/v1/targets"];

async function answer(url, prometheus) {
    const file = FILES.get(url.pathname);
    if (file) {
        const type = `${TYPES[file.split(".").at(-1)]}; charset=utf-8`;
        return { type, body: await readFile(new URL(file, PAGE)) };
    }
    if (url.pathname === "/dashboards") {
        // Read anew each time, so that a change shows when the page is loaded again.
        return { type: "application/json", body: JSON.stringify(await dashboards()) };
    }
    if (QUERIES.includes(url.pathname)) {
        return asked(url, prometheus);
    }
    return { status: 404, type: "text/plain", body: "There is nothing here.\n" };
}

async function asked(url, prometheus) {
    let answered;
    try {
        answered = await fetch(prometheus + url.pathname + url.search);
    } catch {
        const body = `Prometheus does not answer at ${prometheus}. It may be starting; if not, start it again: \`make dashboards\``;
        return { status: 502, type: "text/plain; charset=utf-8", body };
    }
    return { status: answered.status, type: answered.headers.get("content-type") ?? "text/plain", body: await answered.text() };
}

/** The server, not yet listening. */
export function server(prometheus) {
    return createServer(async (request, response) => {
        let answered;
        try {
            answered = await answer(new URL(request.url, "http://localhost"), prometheus);
        } catch (err) {
            answered = { status: 500, type: "text/plain", body: `${err.message}\n` };
        }
        const { status = 200, type, body } = answered;
        response.writeHead(status, { "content-type": type, "cache-control": "no-store" }).end(body);
    });
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
    const [port, prometheus] = process.argv.slice(2);
    const serving = server(prometheus);
    serving.on("error", (err) => {
        console.error(`the page can't be served: ${err.message}; choose another port: make dashboards ARGS="--page PORT"`);
        process.exit(1);
    });
    serving.listen(Number(port), "127.0.0.1", () => {
        console.log(`Dashboards: http://localhost:${port}  (Prometheus: ${prometheus}, Ctrl-C ends both)`);
    });
}
