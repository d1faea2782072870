#!/usr/bin/env bash
# The deployed dashboards on what runs here: Prometheus scrapes `make stack`, and what infra/pulumi/dashboards
# asks of it is drawn by Grafana where Docker is, else by a page. Everything ends with Ctrl-C, and nothing is kept.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

first=8001 # as of `make stack`
page=9080
prometheus=9090
docker=
usage() {
    cat <<END
Usage: run.sh [--first-port PORT] [--page PORT] [--prometheus PORT] [--docker | --no-docker]
  --first-port  the first port of make stack; metrics are a thousand above (default $first)
  --page        where to look: the page, or Grafana (default $page)
  --prometheus  where Prometheus listens (default $prometheus)
  --docker      Prometheus and Grafana by compose; without it, if Docker's daemon answers and has compose
  --no-docker   Prometheus of the system's packages, and the page
END
}
while [ $# -gt 0 ]; do
    case $1 in
    --first-port) first=${2:?a port} && shift ;;
    --page) page=${2:?a port} && shift ;;
    --prometheus) prometheus=${2:?a port} && shift ;;
    --docker) docker=yes ;;
    --no-docker) docker=no ;;
    -h | --help) usage && exit ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null ||
    fail "this needs Node 20 or newer: install it (https://nodejs.org)"
if [ -z "$docker" ]; then
    docker=no
    if docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; then docker=yes; fi
fi

# Installs Prometheus if it is missing, without starting the package's own service.
need_prometheus() {
    command -v prometheus >/dev/null && return
    command -v apt-get >/dev/null || fail \
        "prometheus is missing: install it with this system's package manager (or 'brew install prometheus'), then try again"
    echo "installing prometheus"
    local sudo
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    $sudo apt-get update -qq
    $sudo env RUNLEVEL=1 apt-get install -y -qq --no-install-recommends prometheus >/dev/null
}
[ "$docker" = yes ] || need_prometheus

taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
taken "$prometheus" && fail \
    "Port $prometheus, where Prometheus would listen, is taken. If the system started its own, 'sudo systemctl stop prometheus';" \
    "or take another port: make dashboards ARGS=\"--prometheus $((prometheus + 1))\""
taken "$page" && fail "Port $page is taken: make dashboards ARGS=\"--page $((page + 1))\""

data=$(mktemp -d)
pids=()
stop() {
    [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
    wait
    rm -rf "$data"
}
trap stop EXIT
trap 'exit 0' INT TERM

# What `make stack` starts, and `make canary`. __part is for the page alone: no series gets it.
metrics=$((first + 1000))
targets() {
    local region ports=0 step parts=(gatekeeper switchboard shard-0 shard-1)
    for region in us-west1 asia-northeast1; do
        for step in 0 1 2 3; do
            echo "      - {targets: ['127.0.0.1:$((metrics + ports + step))'], labels: {__part: $region ${parts[step]}}}"
        done
        ports=$((ports + 10))
    done
    echo "      - {targets: ['127.0.0.1:$((metrics + 30))'], labels: {__part: canary}}"
}
cat >"$data/prometheus.yml" <<END
global: {scrape_interval: 5s}
scrape_configs:
  - job_name: infrachat
    # As in the cloud, a series has the labels that the programs give it.
    static_configs:
$(targets)
END

if [ "$docker" = yes ]; then
    mkdir "$data/dashboards"
    node "$here/grafana.mjs" "$data/dashboards"
    # Their users in the containers are others.
    chmod -R a+rX "$data"
    export DATA=$data PROMETHEUS_PORT=$prometheus GRAFANA_PORT=$page
    echo "Dashboards: http://localhost:$page  (Prometheus: http://localhost:$prometheus, Ctrl-C ends both)"
    docker compose --file "$here/compose.yaml" --project-name "infrachat-dashboards-$page" up --force-recreate --renew-anon-volumes &
else
    prometheus --config.file="$data/prometheus.yml" --storage.tsdb.path="$data/data" \
        --web.listen-address="127.0.0.1:$prometheus" --log.level=warn &
    pids+=($!)
    node "$here/serve.mjs" "$page" "http://127.0.0.1:$prometheus" &
fi
pids+=($!)
# Whichever ends first, ends all.
wait -n
exit 1
