/** The collector's configuration: traces to Cloud Trace, and beside Cloud Run's services, which nobody
 * scrapes, metrics to Managed Prometheus. */

import { METRICS_PORT, OTLP_PORT } from "./environment";

export const HEALTH_PORT = 13133;

export interface CollectorOptions {
    project: string;
    /** Where spans come in: the host of the listening address. */
    listen: string;
    /** Scrape the service beside it, under this job's name. */
    scrape?: string;
}

/** JSON is YAML. */
export function collectorConfig({ project, listen, scrape }: CollectorOptions): string {
    const batch = { send_batch_size: 200, timeout: "5s" };
    const traces = {
        receivers: ["otlp"],
        processors: ["memory_limiter", "resourcedetection", "resource/project", "batch"],
        exporters: ["otlphttp/google"],
    };
    const metrics = {
        receivers: ["prometheus"],
        processors: ["memory_limiter", "resourcedetection", "batch"],
        exporters: ["googlemanagedprometheus"],
    };
    const scraping = {
        job_name: scrape,
        scrape_interval: "30s",
        static_configs: [{ targets: [`127.0.0.1:${METRICS_PORT}`] }],
    };
    const config = {
        extensions: {
            health_check: { endpoint: `0.0.0.0:${HEALTH_PORT}` },
            googleclientauth: {},
        },
        receivers: {
            otlp: { protocols: { grpc: { endpoint: `${listen}:${OTLP_PORT}` } } },
            ...(scrape && { prometheus: { config: { scrape_configs: [scraping] } } }),
        },
        processors: {
            memory_limiter: { check_interval: "1s", limit_percentage: 80, spike_limit_percentage: 20 },
            resourcedetection: { detectors: ["gcp"], timeout: "10s" },
            "resource/project": { attributes: [{ key: "gcp.project_id", value: project, action: "upsert" }] },
            batch,
        },
        exporters: {
            "otlphttp/google": {
                endpoint: "https://telemetry.googleapis.com",
                encoding: "proto",
                auth: { authenticator: "googleclientauth" },
            },
            ...(scrape && { googlemanagedprometheus: {} }),
        },
        service: {
            extensions: ["health_check", "googleclientauth"],
            pipelines: { traces, ...(scrape && { metrics }) },
        },
    };
    return JSON.stringify(config, null, 2);
}
