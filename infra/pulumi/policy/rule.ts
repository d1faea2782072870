import { type ReportViolation, type ResourceValidationArgs, type ResourceValidationPolicy } from "@pulumi/policy";

export function rule(
    name: string,
    description: string,
    validateResource: (args: ResourceValidationArgs, report: ReportViolation) => void,
): ResourceValidationPolicy {
    return { name, description, enforcementLevel: "mandatory", validateResource };
}
