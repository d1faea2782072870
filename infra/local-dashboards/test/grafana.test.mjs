import assert from "node:assert/strict";
import { test } from "node:test";

import { dashboards } from "../dashboards.mjs";
import { converted } from "../grafana.mjs";
import { dataSets, filled } from "../page/queries.mjs";

const boards = await dashboards();

test("every tile is a panel that asks the same", () => {
    assert.ok(boards.length >= 5);
    for (const board of boards) {
        const { panels, templating } = converted(board);
        const variables = templating.list.map(({ name }) => name);
        assert.equal(panels.length, board.gridLayout.widgets.length, board.name);
        board.gridLayout.widgets.forEach((widget, index) => {
            const panel = panels[index];
            assert.equal(panel.title, widget.title);
            assert.equal(panel.type, widget.xyChart ? "timeseries" : "stat");
            const asked = panel.targets.map(({ expr }) => expr.replace(/\$\{([a-z]+)\}/g, (_, name) => {
                assert.ok(variables.includes(name), `${widget.title}: ${name} is a variable`);
                return ".+";
            }));
            assert.deepEqual(asked, dataSets(widget).map(({ timeSeriesQuery }) => filled(timeSeriesQuery.prometheusQuery)));
            const legends = panel.targets.map(({ legendFormat }) => legendFormat);
            assert.deepEqual(legends, dataSets(widget).map(({ legendTemplate }) => legendTemplate ?? "__auto"));
        });
        assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
    }
});

test("panels don't lie on each other, and don't leave the grid", () => {
    for (const board of boards) {
        const cells = new Set();
        for (const { title, gridPos: { x, y, w, h } } of converted(board).panels) {
            assert.ok(x >= 0 && x + w <= 24, title);
            for (let column = x; column < x + w; column++) {
                for (let row = y; row < y + h; row++) {
                    assert.ok(!cells.has(`${column} ${row}`), `${board.name}, ${title}`);
                    cells.add(`${column} ${row}`);
                }
            }
        }
    }
});

test("thresholds colour what is above them, not what is at them", () => {
    const widget = {
        title: "Lost",
        scorecard: {
            timeSeriesQuery: { prometheusQuery: "sum (lost{${region}})", unitOverride: "1" },
            thresholds: [{ value: 0.5, color: "RED", direction: "ABOVE" }, { value: 0, color: "YELLOW", direction: "ABOVE" }],
        },
    };
    const [panel] = converted({ name: "b", displayName: "B", gridLayout: { columns: "3", widgets: [widget] } }).panels;
    const steps = panel.fieldConfig.defaults.thresholds.steps;
    assert.deepEqual(steps.map(({ color }) => color), ["green", "yellow", "red"]);
    assert.ok(steps[1].value > 0);
    assert.equal(panel.fieldConfig.defaults.unit, "percentunit");
    assert.equal(panel.targets[0].expr, 'sum (lost{region=~"${region}"})');
});

test("what it doesn't know, it refuses", () => {
    const board = (timeSeriesQuery, thresholds) =>
        ({ name: "b", displayName: "B", gridLayout: { columns: "1", widgets: [{ title: "T", scorecard: { timeSeriesQuery, thresholds } }] } });
    assert.throws(() => converted(board({ prometheusQuery: "up", unitOverride: "m" })), /no unit for m/);
    assert.throws(() => converted(board({ prometheusQuery: "up" }, [{ value: 1, color: "RED", direction: "BELOW" }])), /threshold BELOW/);
});
