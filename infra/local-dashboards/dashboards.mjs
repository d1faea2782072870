/** The dashboards as they are deployed. */

import { readdir, readFile } from "node:fs/promises";

const FOLDER = new URL("../pulumi/dashboards/", import.meta.url);

export async function dashboards() {
    const files = (await readdir(FOLDER)).filter((file) => file.endsWith(".json")).sort();
    return Promise.all(files.map(async (file) => {
        const board = JSON.parse(await readFile(new URL(file, FOLDER), "utf8"));
        return { name: file.replace(/\.json$/, ""), ...board };
    }));
}
