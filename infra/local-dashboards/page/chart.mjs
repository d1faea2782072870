/** Charts, drawn as SVG. */

import { told } from "./units.mjs";

const COLOURS = ["#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#14b8a6", "#ec4899", "#84cc16", "#6366f1", "#f97316"];
const HEIGHT = 150;
const MARGIN = { left: 66, right: 6, top: 8, bottom: 20 };

export const html = (name, attributes = {}, ...children) => {
    const made = Object.assign(document.createElement(name), attributes);
    made.append(...children);
    return made;
};
const svg = (name, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    if (text !== undefined) made.textContent = text;
    return made;
};
const colour = (number) => COLOURS[number % COLOURS.length];
const clock = (at, seconds) =>
    new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", ...(seconds && { second: "2-digit" }) });

/** Where values stand: a round top, and room for one line when all are the same. */
function range(values) {
    const most = Math.max(...values, 0);
    const least = Math.min(...values, 0);
    if (most === least) return [0, 1];
    const step = 10 ** Math.floor(Math.log10(most - least));
    const top = [1, 2, 2.5, 5, 10].map((factor) => factor * step).find((one) => one >= most - least) ?? most - least;
    return [least, least + top];
}

/** Lines end where points are missing, as when a process was away. */
function path(points, x, y, step) {
    let before;
    return points.map(([at, value]) => {
        const goesOn = before !== undefined && at - before <= step * 1.5;
        before = at;
        return `${goesOn ? "L" : "M"}${x(at).toFixed(1)},${y(value).toFixed(1)}${goesOn ? "" : "h.01"}`;
    }).join("");
}

/** A line chart of series `{name, unit, points}`, with its legend. */
export function chart(series, { start, end, step }, width) {
    const units = new Set(series.map(({ unit }) => unit));
    // An axis of several units would tell nothing: then the legend does, and each unit has its own scale.
    const scales = new Map([...units].map((unit) =>
        [unit, range(series.filter((one) => one.unit === unit).flatMap(({ points }) => points.map(([, value]) => value)))]));
    const [inner, tall] = [width - MARGIN.left - MARGIN.right, HEIGHT - MARGIN.top - MARGIN.bottom];
    const x = (at) => MARGIN.left + inner * (at - start) / (end - start);
    const y = (unit) => (value) => {
        const [bottom, top] = scales.get(unit);
        return MARGIN.top + tall * (1 - (value - bottom) / (top - bottom));
    };
    const drawn = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img" });
    const [[unit, [bottom, top]]] = scales;
    for (const value of [bottom, (bottom + top) / 2, top]) {
        const at = y(unit)(value);
        drawn.append(svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at }));
        drawn.append(svg("text", { x: MARGIN.left - 6, y: at + 4, "text-anchor": "end" }, told(value, unit)));
    }
    for (const share of [0, 0.5, 1]) {
        const at = start + (end - start) * share;
        const anchor = ["start", "middle", "end"][share * 2];
        drawn.append(svg("text", { x: x(at), y: HEIGHT - 4, "text-anchor": anchor }, clock(at)));
    }
    const lines = series.map((one, number) => svg("path", {
        d: path(one.points, x, y(one.unit), step), fill: "none", stroke: colour(number), "stroke-width": 1.6, "stroke-linecap": "round",
    }));
    drawn.append(...lines);
    const plot = html("div", { className: "plot" }, drawn);
    pointing(plot, drawn, series, { start, end, step, x, inner });
    return [plot, legendOf(series, lines)];
}

/** Pointing at a name fades the others. */
function legendOf(series, lines) {
    const items = series.map(({ name, unit, points }, number) => {
        const mark = html("i");
        mark.style.background = colour(number);
        const last = points.at(-1)[1];
        const item = html("li", { className: last === 0 ? "zero" : "" },
            mark, html("span", { textContent: name || "all" }), html("span", { textContent: told(last, unit) }));
        const fade = (faded) => items.forEach((other, index) => {
            other.classList.toggle("faded", faded && index !== number);
            lines[index].style.opacity = faded && index !== number ? 0.15 : "";
        });
        item.onmouseenter = () => fade(true);
        item.onmouseleave = () => fade(false);
        return item;
    });
    // The largest first, and what is nothing last.
    const order = series.map((_, number) => number).sort((a, b) => series[b].points.at(-1)[1] - series[a].points.at(-1)[1]);
    return html("ul", {}, ...order.map((number) => items[number]));
}

/** What the values were, where the pointer is. */
function pointing(plot, drawn, series, { start, end, step, x, inner }) {
    const line = svg("line", { class: "at", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom });
    drawn.append(line);
    const tip = html("div", { className: "tip" });
    plot.append(tip);
    const show = (visible) => [line, tip].forEach((one) => (one.style.visibility = visible ? "visible" : "hidden"));
    drawn.onmousemove = ({ offsetX }) => {
        const at = start + (end - start) * (offsetX - MARGIN.left) / inner;
        const near = series.map((one, number) => {
            const point = one.points.find(([when]) => Math.abs(when - at) <= step / 2);
            return point && { name: one.name || "all", unit: one.unit, value: point[1], number };
        }).filter(Boolean).sort((a, b) => b.value - a.value).slice(0, 12);
        show(near.length > 0);
        if (near.length === 0) return;
        line.setAttribute("x1", x(at));
        line.setAttribute("x2", x(at));
        tip.replaceChildren(html("b", { textContent: clock(at, true) }), ...near.map(({ name, unit, value, number }) => {
            const row = html("div", { textContent: `${name}: ${told(value, unit)}` });
            row.style.color = colour(number);
            return row;
        }));
        const right = offsetX > inner / 2;
        tip.style.left = right ? "" : `${offsetX + 14}px`;
        tip.style.right = right ? `${inner + MARGIN.left + MARGIN.right - offsetX + 14}px` : "";
    };
    drawn.onmouseleave = () => show(false);
}

/** One number, coloured by its thresholds, and how it came to be. */
export function scorecard({ points, unit }, thresholds, { start, end, step }, width) {
    const now = points.at(-1)[1];
    const passed = thresholds.filter(({ direction, value }) => (direction === "ABOVE" ? now > value : now < value));
    const colours = passed.map(({ color }) => color);
    const worst = colours.includes("RED") ? "RED" : colours[0] ?? (thresholds.length > 0 ? "FINE" : "");
    const height = 44;
    const [bottom, top] = range(points.map(([, value]) => value));
    const x = (at) => width * (at - start) / (end - start);
    const y = (value) => 3 + (height - 6) * (1 - (value - bottom) / (top - bottom));
    const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, height });
    drawn.append(svg("path", { d: path(points, x, y, step), fill: "none", stroke: colour(0), "stroke-width": 1.6 }));
    return [html("div", { className: `number ${worst}`, textContent: told(now, unit) }), drawn];
}
