#!/usr/bin/env bash
# Configures a stack with the images that run in it: running-images.sh STACK
set -euo pipefail
cd "$(dirname "$0")"

pulumi stack select "$1"
images=$(pulumi stack output images --json)
for image in gatekeeper switchboard shard canary; do
    digest=$(jq -er --arg image "$image" '.[$image]' <<<"$images")
    pulumi config set "image${image^}" "$digest"
done
