/** What a dashboard asks, as Prometheus understands it. */

/** Cloud Monitoring replaces a filter by a matcher; when none is chosen, all that have the label match. */
export const filled = (query, chosen = {}) =>
    query.replace(/\$\{([a-z]+)\}/g, (_, name) => (chosen[name] ? `${name}="${chosen[name]}"` : `${name}=~".+"`));

/** The data sets of a widget, in one form. */
export const dataSets = ({ xyChart, scorecard }) => xyChart?.dataSets ?? [scorecard];

/** A series' name. */
export const legend = (template, metric) =>
    template
        ? template.replace(/\{\{([a-z_]+)\}\}/g, (_, name) => metric[name] ?? "").trim()
        : Object.entries(metric).map(([name, value]) => `${name}=${value}`).join(" ");

/** What is empty while all is well, or while nobody does it, and why. */
export const QUIET = [
    [/infrachat_canary_recovery_seconds/, "No session of the canary has broken."],
    [/infrachat_canary_/, "No canary runs here. Start one: make canary"],
    [/infrachat_password_hash_seconds|infrachat_auth_seconds/, "Nobody has signed in lately."],
    [/infrachat_resolve_seconds/, "Nobody has asked for a route lately."],
    [/infrachat_stable_seconds|infrachat_publish_ack_seconds|infrachat_history_write_seconds/, "Nobody has said anything lately."],
    [/infrachat_(fanout|delivery)_seconds/, "Nobody has been sent a message lately."],
    [/infrachat_(firestore|redis|bus_publish|lease_renewal)_seconds/, "It has not been used lately."],
    [/infrachat_frames_sent_total/, "Nobody has been sent a message lately."],
];

/** Why a query has no answer, if that is nothing bad. */
export const whyEmpty = (query) => QUIET.find(([pattern]) => pattern.test(query))?.[1];
