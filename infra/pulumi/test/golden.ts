/** Every environment's resources, as committed. After a wanted change: npm run golden, and look at the diff. */

import * as assert from "node:assert/strict";
import * as fs from "node:fs";
import { test } from "node:test";
import { stringify } from "yaml";

import { projectFile } from "../src/files";
import { dashboards } from "../src/monitoring";
import { deployed, type Made, STACKS } from "./harness";

for (const stack of STACKS) {
    test(`${stack} is as in its golden file`, async () => {
        const { made } = await deployed(stack);
        const file = projectFile(`test/golden/${stack}.yaml`);
        const now = golden(made);
        if (process.env.UPDATE_GOLDEN) {
            fs.writeFileSync(file, now);
        }
        const committed = fs.existsSync(file) ? fs.readFileSync(file, "utf8") : "";
        const difference = firstDifference(committed, now);
        assert.ok(!difference, `${file} differs from what would be deployed; if that is wanted: npm run golden\n${difference}`);
    });
}

/** One entry for all that differ in the number of the partition or slot only. */
function golden(made: Made[]): string {
    const boards = new Map([...dashboards()].map(([name, json]) => [json, `dashboards/${name}.json`]));
    const entries = new Map<string, { entry: object; numbers: Set<string> }>();
    for (const { type, name, inputs, protect } of made) {
        const board = boards.get(inputs.dashboardJson);
        const shown = board ? { ...inputs, dashboardJson: board } : inputs;
        const entry = { [`${type} ${name}`]: { ...(protect && { protect }), ...shown } };
        const [, of, number] = /(messages|shard)-(\d+)/.exec(name) ?? [];
        const text = JSON.stringify(entry);
        const folded = of ? text.replace(new RegExp(`${of}-${number}(?!\\d)`, "g"), `${of}-{n}`) : text;
        const found = entries.get(folded) ?? { entry: JSON.parse(folded), numbers: new Set() };
        if (number) {
            found.numbers.add(number);
        }
        entries.set(folded, found);
    }
    const list = [...entries.values()].map(({ entry, numbers }) => {
        const n = [...numbers].map(Number).sort((a, b) => a - b);
        return n.length > 0 ? { ...entry, n: ranges(n) } : entry;
    });
    return `# ${made.length} resources\n${stringify(list, { lineWidth: 0, aliasDuplicateObjects: false })}`;
}

function ranges(numbers: number[]): string {
    const parts: [number, number][] = [];
    for (const n of numbers) {
        const last = parts.at(-1);
        if (last && last[1] === n - 1) {
            last[1] = n;
        } else {
            parts.push([n, n]);
        }
    }
    return parts.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(", ");
}

function firstDifference(committed: string, now: string): string | undefined {
    if (committed === now) {
        return undefined;
    }
    const [old, fresh] = [committed.split("\n"), now.split("\n")];
    const at = fresh.findIndex((line, at) => line !== old[at]);
    const line = at < 0 ? fresh.length : at;
    const context = (lines: string[]) => lines.slice(Math.max(0, line - 3), line + 4).join("\n");
    return `from line ${line + 1}; committed:\n${context(old)}\nnow:\n${context(fresh)}`;
}
