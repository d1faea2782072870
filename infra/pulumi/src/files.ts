/** Files beside the program, wherever it was compiled to. */

import * as fs from "fs";
import * as path from "path";

export function projectFile(name: string): string {
    let directory = __dirname;
    while (!fs.existsSync(path.join(directory, "Pulumi.yaml"))) {
        directory = path.dirname(directory);
    }
    return path.join(directory, name);
}
