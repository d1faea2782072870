/** pulumi up --policy-pack policy */

import { PolicyPack } from "@pulumi/policy";

import { rules } from "./rules";

new PolicyPack("infrachat", { policies: rules, enforcementLevel: "mandatory" });
