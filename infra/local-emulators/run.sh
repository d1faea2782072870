#!/usr/bin/env bash
# Starts Pub/Sub, Firestore and Redis, says how to reach them once all three answer, and stops them together.
#
#   run.sh [OPTION...]             our emulators; options are those of infrachat-emulators
#   GOOGLE=1 run.sh                Google's emulators: in Docker, or by gcloud where no Docker answers
#   run.sh --run COMMAND [ARG...]  for as long as COMMAND runs, on free ports, with the environment set
#
# PUBSUB_PORT, FIRESTORE_PORT, CONTROL_PORT and REDIS_PORT choose the ports.
set -euo pipefail
# Each program gets a process group of its own, so that its children are stopped with it.
set -m
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
google=${GOOGLE:-}
command=()
if [[ ${1:-} == --run ]]; then
    command=("${@:2}")
    set --
fi

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# Whether anything listens on a port of this machine.
taken() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null || (exec 3<>"/dev/tcp/::1/$1") 2>/dev/null
}

# The first line that a port answers to a request.
answer() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1" && printf '%b' "$2" >&3 && read -r -t 2 line <&3 && printf '%s' "$line") 2>/dev/null
}

http_answers() { [[ $(answer "$1" 'GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n') == *" 200"* ]]; }
# A Redis that wants a password is a Redis too.
redis_answers() { [[ $(answer "$1" 'PING\r\n') == @(+PONG|-NOAUTH)* ]]; }

free_port() {
    local port
    while port=$((20000 + RANDOM % 10000)) && taken "$port"; do :; done
    echo "$port"
}

# Ends the script if the port that a variable names is taken.
need_free() {
    local variable=$1 service=$2 port=${!1} next
    taken "$port" || return 0
    next=$((port + 1))
    while taken "$next"; do next=$((next + 1)); done
    if [[ $variable == REDIS_PORT ]] && redis_answers "$port"; then
        fail "A Redis listens on port $port already. Stop it ('redis-cli -p $port shutdown'; if the system started it," \
            "'sudo systemctl stop redis-server'), or let ours take another port:" \
            "  make emulators ${google:+GOOGLE=1 }REDIS_PORT=$next"
    fi
    fail "Port $port, where $service would listen, is taken; 'lsof -i :$port' says by whom." \
        "Stop that, or take another port:" \
        "  make emulators ${google:+GOOGLE=1 }$variable=$next"
}

if [[ ${#command[@]} -gt 0 ]]; then
    PUBSUB_PORT=${PUBSUB_PORT:-$(free_port)} FIRESTORE_PORT=${FIRESTORE_PORT:-$(free_port)}
    CONTROL_PORT=${CONTROL_PORT:-$(free_port)} REDIS_PORT=${REDIS_PORT:-$(free_port)}
fi
export PUBSUB_PORT=${PUBSUB_PORT:-8085} FIRESTORE_PORT=${FIRESTORE_PORT:-8080}
export CONTROL_PORT=${CONTROL_PORT:-8086} REDIS_PORT=${REDIS_PORT:-6379}
need_free PUBSUB_PORT Pub/Sub
need_free FIRESTORE_PORT Firestore
[[ -n $google ]] || need_free CONTROL_PORT "the control of faults"
need_free REDIS_PORT Redis

names=() groups=()
compose=()
logs=$(mktemp -d)

# Starts a program in the background; its output goes to a file.
start() {
    "${@:2}" </dev/null >"$logs/$1.log" 2>&1 &
    names+=("$1") groups+=("$!")
    disown # or the shell tells of its end
}

stop() {
    local group
    trap '' INT TERM
    [[ ${#compose[@]} -eq 0 ]] || "${compose[@]}" down --volumes >/dev/null 2>&1 || true
    for group in ${groups[@]+"${groups[@]}"}; do kill -TERM -- "-$group" 2>/dev/null || true; done
    for group in ${groups[@]+"${groups[@]}"}; do
        for _ in {1..50}; do
            kill -0 -- "-$group" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL -- "-$group" 2>/dev/null || true
    done
    rm -rf "$logs"
}
trap stop EXIT
trap 'exit 0' INT
trap 'exit 143' TERM

# Ends the script if a program has ended.
need_alive() {
    local at
    for at in "${!names[@]}"; do
        kill -0 "${groups[at]}" 2>/dev/null || fail "${names[at]} has ended:" "$(tail -n 20 "$logs/${names[at]}.log")"
    done
}

start_redis() {
    command -v redis-server >/dev/null || fail "redis-server is missing: run 'make services', or install the system's package"
    start redis redis-server --port "$REDIS_PORT" --bind 127.0.0.1 --save '' --appendonly no --daemonize no
}

start_ours() {
    cargo build --quiet --manifest-path "$root/Cargo.toml" --package infrachat-emulators
    start_redis
    start emulators "${CARGO_TARGET_DIR:-$root/target}/debug/infrachat-emulators" --pubsub "127.0.0.1:$PUBSUB_PORT" \
        --firestore "127.0.0.1:$FIRESTORE_PORT" --control "127.0.0.1:$CONTROL_PORT" --issuer https://accounts.google.com "$@"
}

start_google() {
    if docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; then
        compose=(docker compose --file "$here/google/compose.yaml" --project-name "infrachat-google-$PUBSUB_PORT")
        "${compose[@]}" pull --quiet || fail "Docker answers, but can't fetch the images: see above"
        start compose "${compose[@]}" up
        return
    fi
    command -v gcloud >/dev/null || fail \
        "Google's emulators need one of these, and neither is here:" \
        "- Docker with its compose plugin, the daemon running (https://docs.docker.com/get-docker/);" \
        "- gcloud (https://cloud.google.com/sdk/docs/install), its components beta, pubsub-emulator and" \
        "  cloud-firestore-emulator, and Java 21 or newer." \
        "Our own emulators need neither: make emulators"
    local sdk
    sdk=$(gcloud info --format='value(installation.sdk_root)' 2>/dev/null)
    [[ -d $sdk/platform/pubsub-emulator && -d $sdk/platform/cloud-firestore-emulator ]] || fail \
        "gcloud is here, its emulators are not:" \
        "  gcloud components install beta pubsub-emulator cloud-firestore-emulator" \
        "or, where gcloud is the system's package, the packages google-cloud-cli-pubsub-emulator and" \
        "google-cloud-cli-firestore-emulator."
    command -v java >/dev/null || fail "Google's emulators need Java 21 or newer: install it, or Docker"
    start_redis
    mkdir "$logs/pubsub-data"
    start pubsub gcloud --quiet beta emulators pubsub start --project=infrachat-local \
        --host-port="127.0.0.1:$PUBSUB_PORT" --data-dir="$logs/pubsub-data"
    start firestore gcloud --quiet emulators firestore start --host-port="127.0.0.1:$FIRESTORE_PORT"
}

if [[ -n $google ]]; then start_google; else start_ours "$@"; fi

for _ in {1..1200}; do
    need_alive
    if http_answers "$PUBSUB_PORT" && http_answers "$FIRESTORE_PORT" && redis_answers "$REDIS_PORT"; then
        ready=1
        break
    fi
    sleep 0.05
done
[[ -n ${ready:-} ]] || fail "not ready after a minute:" "$(tail -n 20 "$logs"/*.log)"

export PUBSUB_EMULATOR_HOST=localhost:$PUBSUB_PORT FIRESTORE_EMULATOR_HOST=localhost:$FIRESTORE_PORT
export REDIS_URL=redis://localhost:$REDIS_PORT
if [[ ${#command[@]} -gt 0 ]]; then
    "${command[@]}"
    exit
fi

whose=${google:+"Google's "}
cat <<TEXT
${whose}Pub/Sub, Firestore and Redis are ready. In other terminals:
  export PUBSUB_EMULATOR_HOST=$PUBSUB_EMULATOR_HOST FIRESTORE_EMULATOR_HOST=$FIRESTORE_EMULATOR_HOST REDIS_URL=$REDIS_URL
Ctrl-C stops them. What they say, from here on:
TEXT
tail -q -n 0 -f "$logs"/*.log &
groups+=("$!")
disown
while need_alive; do
    sleep 1 &
    wait "$!" 2>/dev/null || true
done
