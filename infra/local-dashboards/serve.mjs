// Serves the page, the dashboards as they are deployed, and Prometheus' answers to it.
// node serve.mjs PORT PROMETHEUS_URL

import { createServer } from "node:http";
import { readdir, readFile } from "node:fs/promises";

const [port, prometheus] = process.argv.slice(2);
const page = new URL("./page.html", import.meta.url);
const folder = new URL("../pulumi/dashboards/", import.meta.url);
/** What the page may ask. */
const QUERIES = ["/api/v1/query_range", "/api/v1/series"];

/** Read anew each time, so that a change shows when the page is loaded again. */
async function dashboards() {
    const files = (await readdir(folder)).filter((file) => file.endsWith(".json")).sort();
    const read = files.map(async (file) => {
        const board = JSON.parse(await readFile(new URL(file, folder), "utf8"));
        return { name: file.replace(/\.json$/, ""), ...board };
    });
    return Promise.all(read);
}

async function answer(url) {
    if (url.pathname === "/") {
        return { type: "text/html; charset=utf-8", body: await readFile(page) };
    }
    if (url.pathname === "/dashboards") {
        return { type: "application/json", body: JSON.stringify(await dashboards()) };
    }
    if (QUERIES.includes(url.pathname)) {
        const answered = await fetch(prometheus + url.pathname + url.search);
        return { status: answered.status, type: "application/json", body: await answered.text() };
    }
    return { status: 404, type: "text/plain", body: "There is nothing here.\n" };
}

const server = createServer(async (request, response) => {
    let answered;
    try {
        answered = await answer(new URL(request.url, "http://localhost"));
    } catch (err) {
        answered = { status: 502, type: "text/plain", body: `${err.message}: ${err.cause ?? ""}\n` };
    }
    const { status = 200, type, body } = answered;
    response.writeHead(status, { "content-type": type, "cache-control": "no-store" }).end(body);
});
server.on("error", (err) => {
    console.error(`the page can't be served: ${err.message}; choose another port with --page`);
    process.exit(1);
});
server.listen(Number(port), "127.0.0.1", () => {
    console.log(`Dashboards: http://localhost:${port}  (Prometheus: ${prometheus}, Ctrl-C ends both)`);
});
