#!/bin/bash
# The deployed dashboards on what runs here: Prometheus scrapes `make stack`, and a page draws what
# infra/pulumi/dashboards asks of it. Everything ends with Ctrl-C, and nothing is kept.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

first=8001 # as of `make stack`
page=9080
prometheus=9090
usage() {
    cat <<END
Usage: run.sh [--first-port PORT] [--page PORT] [--prometheus PORT]
  --first-port  the first port of make stack; metrics are a thousand above (default $first)
  --page        where to serve the page (default $page)
  --prometheus  where Prometheus listens (default $prometheus)
END
}
while [ $# -gt 0 ]; do
    case $1 in
    --first-port) first=$2 ;;
    --page) page=$2 ;;
    --prometheus) prometheus=$2 ;;
    -h | --help) usage && exit ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift 2
done

command -v node >/dev/null || { echo "the page needs Node 20 or newer: install it" >&2; exit 1; }
data=$(mktemp -d)
pids=()
stop() {
    [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
    wait
    rm -rf "$data"
}
trap stop EXIT
trap 'exit 0' INT TERM

# Gatekeeper, Switchboard and two shards of each region; a canary, if somebody runs one there:
# infrachat canary --metrics-listen 127.0.0.1:9031
metrics=$((first + 1000))
targets=()
for region in 0 10; do
    for step in 0 1 2 3; do targets+=("127.0.0.1:$((metrics + region + step))"); done
done
targets+=("127.0.0.1:$((metrics + 30))")
list=$(printf '"%s",' "${targets[@]}")
cat >"$data/prometheus.yml" <<END
global: {scrape_interval: 5s}
scrape_configs:
  - job_name: infrachat
    static_configs: [{targets: [${list%,}]}]
END

prometheus --config.file="$data/prometheus.yml" --storage.tsdb.path="$data/data" \
    --web.listen-address="127.0.0.1:$prometheus" --log.level=warn &
pids+=($!)
node "$here/serve.mjs" "$page" "http://127.0.0.1:$prometheus" &
pids+=($!)
# Whichever ends first, ends all.
wait -n
exit 1
