/** Draws the deployed dashboards from what a Prometheus knows, and says in words what is missing. */

import { chart, html, scorecard } from "./chart.mjs";
import { dataSets, filled, legend, whyEmpty } from "./queries.mjs";

const EVERY = 5_000;
const POINTS = 120;
const LEAST_STEP = 5;

const $ = (id) => document.getElementById(id);
const chosen = {};
let boards = [];
let board;
let drawing = 0;

/** Something is wrong that concerns the whole page, not one tile. */
class Away extends Error {}

async function get(path) {
    let response;
    try {
        response = await fetch(path);
    } catch {
        throw new Away("This page's server has ended. Start it again: `make dashboards`");
    }
    const text = await response.text();
    if (response.status === 502) throw new Away(text);
    if (!response.headers.get("content-type")?.startsWith("application/json")) throw new Error(text);
    return JSON.parse(text);
}

async function ask(path, parameters = {}) {
    const answer = await get(`/api/v1/${path}?${new URLSearchParams(parameters)}`);
    if (answer.status !== "success") throw new Error(answer.error);
    return answer.data;
}

/** The time that is shown. */
function timeShown() {
    const span = Number($("span").value);
    const step = Math.max(LEAST_STEP, Math.round(span / POINTS));
    // On whole steps, so that lines don't tremble from one drawing to the next.
    const end = Math.floor(Date.now() / 1000 / step) * step;
    return { start: end - span, end, step };
}

async function series({ timeSeriesQuery: { prometheusQuery, unitOverride = "" }, legendTemplate }, time) {
    const { result } = await ask("query_range", { query: filled(prometheusQuery, chosen), ...time });
    return result.map(({ metric, values }) => ({
        name: legend(legendTemplate, metric),
        unit: unitOverride,
        points: values.map(([at, value]) => [at, Number(value)]).filter(([, value]) => Number.isFinite(value)),
    })).filter(({ points }) => points.length > 0);
}

async function tile(widget, time, width) {
    const sets = dataSets(widget);
    const all = (await Promise.all(sets.map((set) => series(set, time)))).flat();
    if (all.length === 0) {
        const why = sets.map(({ timeSeriesQuery }) => whyEmpty(timeSeriesQuery.prometheusQuery)).find(Boolean);
        return [html("p", { className: "note", textContent: why ?? "No data." })];
    }
    return widget.xyChart
        ? chart(all, time, width)
        : scorecard(all[0], widget.scorecard.thresholds ?? [], time, width);
}

async function draw() {
    const number = ++drawing;
    const time = timeShown();
    try {
        const targets = await ask("targets", { state: "active" });
        const drawn = await Promise.all(board.gridLayout.widgets.map(async (widget, index) => {
            const width = $("main").children[index].clientWidth - 24;
            try {
                return await tile(widget, time, width);
            } catch (err) {
                if (err instanceof Away) throw err;
                return [html("p", { className: "error", textContent: err.message })];
            }
        }));
        if (number !== drawing) return;
        drawn.forEach((content, index) => fill(index, content));
        notices(targets.activeTargets);
        $("state").textContent = `as of ${new Date().toLocaleTimeString()}`;
    } catch (err) {
        if (number !== drawing) return;
        $("notices").replaceChildren(notice(err.message, true));
        $("state").textContent = "";
    }
}

/** Not while somebody reads a tile: its tip would go. */
function fill(index, content) {
    const section = $("main").children[index];
    if (section.matches(":hover") && section.querySelector("svg")) return;
    const scrolled = section.querySelector("ul")?.scrollTop ?? 0;
    section.replaceChildren(section.firstElementChild, ...content);
    section.querySelector("ul")?.scrollTo(0, scrolled);
}

/** What stands in backticks is to be typed. */
function notice(text, bad) {
    const parts = text.split("`").map((part, index) => (index % 2 ? html("code", { textContent: part }) : part));
    return html("p", { className: bad ? "bad" : "" }, ...parts);
}

/** Which parts of the stack don't answer; `__part` is what run.sh calls them. */
function notices(targets) {
    const part = ({ discoveredLabels, scrapeUrl }) => discoveredLabels.__part ?? scrapeUrl;
    const [canaries, parts] = [targets.filter((one) => part(one) === "canary"), targets.filter((one) => part(one) !== "canary")];
    const away = parts.filter(({ health }) => health === "down");
    const said = [];
    if (away.length > 0 && away.length === parts.length) {
        const [first] = parts.map(({ scrapeUrl }) => new URL(scrapeUrl).host).sort();
        said.push(notice(`Nothing of the stack answers (its first metrics would be at ${first}). Start it: \`make stack\``, true));
    } else if (away.length > 0) {
        said.push(notice(`No answer from ${away.map((one) => `${part(one)} (${new URL(one.scrapeUrl).host})`).join(", ")}.`, true));
    } else if (canaries.some(({ health }) => health === "down")) {
        said.push(notice("No canary runs, so the tiles called Canary are empty. Start one in another terminal: `make canary`"));
    }
    $("notices").replaceChildren(...said);
}

async function filters() {
    const selects = [];
    for (const { labelKey, templateVariable } of board.dashboardFilters ?? []) {
        // A shard is one of the chosen region.
        const within = templateVariable === "shard" && chosen.region ? `,region="${chosen.region}"` : "";
        let values = [];
        try {
            const known = await ask("series", { "match[]": `infrachat_build_info{${labelKey}!=""${within}}` });
            values = [...new Set(known.map((metric) => metric[labelKey]))].sort();
        } catch { /* The notices say why. */ }
        if (!values.includes(chosen[templateVariable])) delete chosen[templateVariable];
        const select = html("select", {}, new Option("all", ""), ...values.map((value) => new Option(value)));
        select.value = chosen[templateVariable] ?? "";
        select.onchange = async () => {
            chosen[templateVariable] = select.value;
            await filters();
            await draw();
        };
        selects.push(html("label", {}, `${labelKey[0].toUpperCase()}${labelKey.slice(1)} `, select));
    }
    const busy = $("filters").contains(document.activeElement) && selects.length === $("filters").children.length;
    const options = (parent) => [...parent].map((one) => one.querySelector("select").innerHTML).join();
    if (busy && options(selects) === options($("filters").children)) return;
    $("filters").replaceChildren(...selects);
}

async function show() {
    const name = location.hash.slice(1);
    board = boards.find((one) => one.name === name) ?? boards.find((one) => one.name === "system") ?? boards[0];
    document.title = board.displayName;
    $("boards").replaceChildren(...boards.map((one) => {
        const link = html("a", { href: `#${one.name}`, textContent: one.displayName.replace(/^InfraChat: /, "") });
        if (one === board) link.setAttribute("aria-current", "page");
        return link;
    }));
    $("main").style.setProperty("--columns", board.gridLayout.columns);
    $("main").replaceChildren(...board.gridLayout.widgets.map(({ title }) => html("section", {}, html("h2", { textContent: title }))));
    await filters();
    await draw();
}

function theme() {
    const name = localStorage.getItem("theme") ?? "";
    document.documentElement.dataset.theme = name;
    $("theme").value = name;
}

$("theme").onchange = () => {
    localStorage.setItem("theme", $("theme").value);
    theme();
};
$("span").onchange = draw;
addEventListener("hashchange", show);
addEventListener("resize", draw);
theme();
try {
    boards = await get("/dashboards");
    // From the whole to the parts.
    const order = ["system", "region", "shard", "bus", "auth"];
    boards.sort((a, b) => order.indexOf(a.name) - order.indexOf(b.name));
    await show();
    setInterval(async () => {
        await filters();
        await draw();
    }, EVERY);
} catch (err) {
    $("notices").replaceChildren(notice(err.message, true));
}
