/** What is looked at, and who is told. */

import * as gcp from "@pulumi/gcp";
import * as pulumi from "@pulumi/pulumi";
import * as fs from "fs";
import * as path from "path";

import { projectFile } from "../files";
import { SERVICES, serviceHost, shardHost } from "../names";
import { type Settings } from "../settings";
import { type Alert, ALERTS } from "./alerts";
import { type Objective, OBJECTIVES } from "./objectives";

const RUNBOOK = "docs/operations.md";

/** The dashboards, by file name. */
export function dashboards(): Map<string, string> {
    const directory = projectFile("dashboards");
    const files = fs.readdirSync(directory).filter((file) => file.endsWith(".json"));
    return new Map(files.sort().map((file) => [file.replace(/\.json$/, ""), fs.readFileSync(path.join(directory, file), "utf8")]));
}

export class Monitoring extends pulumi.ComponentResource {
    private readonly project: string;
    /** Who looks in the morning, and who is woken. */
    private readonly told: pulumi.Output<string>[];
    private readonly woken: pulumi.Output<string>[];

    constructor(
        private readonly settings: Settings,
        private readonly apis: pulumi.Resource[],
    ) {
        super("infrachat:Monitoring", "monitoring");
        this.project = settings.project;
        const pager = this.pager();
        this.told = [...this.mail(), ...pager];
        this.woken = pager.length > 0 ? pager : this.told;
        for (const [name, dashboardJson] of dashboards()) {
            new gcp.monitoring.Dashboard(name, { project: this.project, dashboardJson }, this.opts());
        }
        const logs = this.logMetrics();
        this.uptime();
        this.objectives();
        for (const alert of ALERTS) {
            this.alert(alert, logs);
        }
        this.budget();
        this.registerOutputs({});
    }

    private opts(dependsOn: pulumi.Resource[] = []): pulumi.CustomResourceOptions {
        return { parent: this, dependsOn: [...this.apis, ...dependsOn] };
    }

    private mail(): pulumi.Output<string>[] {
        return this.settings.alertEmails.map(
            (address) =>
                new gcp.monitoring.NotificationChannel(
                    address,
                    { project: this.project, displayName: address, type: "email", labels: { email_address: address } },
                    this.opts(),
                ).id,
        );
    }

    private pager(): pulumi.Output<string>[] {
        const { isSet, serviceKey } = this.settings.pagerduty;
        if (!isSet) {
            return [];
        }
        const channel = new gcp.monitoring.NotificationChannel(
            "pagerduty",
            { project: this.project, displayName: "PagerDuty", type: "pagerduty", sensitiveLabels: { serviceKey } },
            this.opts(),
        );
        return [channel.id];
    }

    private logMetrics(): pulumi.Resource[] {
        const programs = '(resource.type="k8s_container" AND resource.labels.namespace_name="infrachat") OR resource.type="cloud_run_revision"';
        const metric = (name: string, description: string, filter: string) =>
            new gcp.logging.Metric(
                name,
                {
                    project: this.project,
                    name: `infrachat_${name}`,
                    description,
                    filter: `(${programs}) AND ${filter}`,
                    metricDescriptor: { metricKind: "DELTA", valueType: "INT64", unit: "1" },
                },
                this.opts(),
            );
        return [
            metric("errors", "Lines that the programs logged as errors", "severity>=ERROR"),
            metric("panics", "Defects that ended a task or a process", '"panicked at"'),
        ];
    }

    private uptime(): void {
        const { regions, domain } = this.settings;
        const hosts = regions.flatMap((region) => [
            ...SERVICES.map((service) => serviceHost(service, region, domain)),
            shardHost(region, 0, domain),
        ]);
        for (const host of hosts) {
            new gcp.monitoring.UptimeCheckConfig(
                host,
                {
                    project: this.project,
                    displayName: host,
                    period: "60s",
                    timeout: "10s",
                    selectedRegions: ["USA_OREGON", "USA_VIRGINIA", "EUROPE", "ASIA_PACIFIC"],
                    monitoredResource: { type: "uptime_url", labels: { project_id: this.project, host } },
                    httpCheck: { path: "/healthz", port: 443, useSsl: true, validateSsl: true },
                },
                this.opts(),
            );
        }
    }

    private objectives(): void {
        const service = new gcp.monitoring.CustomService(
            "infrachat",
            { project: this.project, serviceId: "infrachat", displayName: "InfraChat" },
            this.opts(),
        );
        for (const objective of OBJECTIVES) {
            new gcp.monitoring.Slo(
                objective.name,
                {
                    project: this.project,
                    service: service.serviceId,
                    sloId: objective.name,
                    displayName: objective.title,
                    goal: objective.goal,
                    rollingPeriodDays: 28,
                    requestBasedSli: indicator(objective),
                },
                this.opts(),
            );
        }
    }

    private alert({ name, summary, query, seconds, wakes, section }: Alert, logs: pulumi.Resource[]): void {
        new gcp.monitoring.AlertPolicy(
            name,
            {
                project: this.project,
                displayName: name,
                combiner: "OR",
                severity: wakes ? "CRITICAL" : "WARNING",
                notificationChannels: wakes ? this.woken : this.told,
                documentation: {
                    mimeType: "text/markdown",
                    subject: `InfraChat ${this.settings.stack}: ${name}`,
                    content: `${summary}\n\nWhat to do: ${RUNBOOK}, "${section}".`,
                },
                conditions: [
                    {
                        displayName: name,
                        conditionPrometheusQueryLanguage: {
                            query,
                            duration: `${seconds}s`,
                            evaluationInterval: "30s",
                            ruleGroup: "infrachat",
                            alertRule: name,
                            disableMetricValidation: true,
                        },
                    },
                ],
                alertStrategy: { autoClose: `${24 * 60 * 60}s` },
            },
            this.opts(logs),
        );
    }

    private budget(): void {
        const { billingAccount, usd } = this.settings.budget;
        if (usd === 0) {
            return;
        }
        new gcp.billing.Budget(
            "month",
            {
                billingAccount,
                displayName: `InfraChat ${this.settings.stack}`,
                budgetFilter: { projects: [`projects/${this.project}`], calendarPeriod: "MONTH" },
                amount: { specifiedAmount: { currencyCode: "USD", units: String(usd) } },
                thresholdRules: [
                    { thresholdPercent: 0.5 },
                    { thresholdPercent: 0.9 },
                    { thresholdPercent: 1, spendBasis: "FORECASTED_SPEND" },
                    { thresholdPercent: 1.2 },
                ],
                allUpdatesRule: {
                    monitoringNotificationChannels: this.told,
                    disableDefaultIamRecipients: false,
                },
            },
            this.opts(),
        );
    }
}

function indicator({ indicator }: Objective): gcp.types.input.monitoring.SloRequestBasedSli {
    if ("distribution" in indicator) {
        const { distribution, below } = indicator;
        return { distributionCut: { distributionFilter: distribution, range: { min: 0, max: below } } };
    }
    return { goodTotalRatio: { totalServiceFilter: indicator.total, badServiceFilter: indicator.bad } };
}
