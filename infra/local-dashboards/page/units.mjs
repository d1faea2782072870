/** Numbers as people read them; units are Cloud Monitoring's (UCUM). */

const rounded = (value) => Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 6 });

/** A prefix, what it stands for, and from where on it is used: 1234 is read more easily than 1.23k. */
const DECIMAL = [["G", 1e9, 1e9], ["M", 1e6, 1e6], ["k", 1e3, 1e4]];
const BINARY = [["Gi", 2 ** 30, 2 ** 30], ["Mi", 2 ** 20, 2 ** 20], ["Ki", 2 ** 10, 2 ** 10]];

function scaled(value, prefixes) {
    const size = Math.abs(value);
    const [prefix, factor] = prefixes.find(([, , least]) => size >= least) ?? ["", 1];
    return [rounded(value / factor), prefix];
}

export function told(value, unit = "") {
    if (unit === "s") return seconds(value);
    if (unit === "1") return `${rounded(value * 100)} %`;
    if (unit === "By" || unit === "By/s") {
        const [number, prefix] = scaled(value, BINARY);
        return `${number} ${prefix}B${unit.slice(2)}`;
    }
    const [number, prefix] = scaled(value, DECIMAL);
    if (unit === "1/s") return `${number}${prefix}/s`;
    // Seconds of a processor in a second.
    if (unit === "s/s") return `${number} cores`;
    return `${number}${prefix}${unit && ` ${unit}`}`;
}

function seconds(value) {
    const size = Math.abs(value);
    if (size === 0) return "0 s";
    if (size < 0.001) return `${rounded(value * 1e6)} µs`;
    if (size < 1) return `${rounded(value * 1000)} ms`;
    if (size < 120) return `${rounded(value)} s`;
    if (size < 7200) return `${rounded(value / 60)} min`;
    return `${rounded(value / 3600)} h`;
}
