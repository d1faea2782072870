#!/usr/bin/env bash
# Runs the Python client's test against the Pub/Sub emulator: the one PUBSUB_EMULATOR_HOST names, or
# else one that is built and started here, on free ports.
#
# The client is installed once, into a virtual environment in $VENV.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
venv=${VENV:-$target/python/pubsub}

if ! "$venv/bin/python" -c 'import google.cloud.pubsub_v1, jwt' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement "$here/pubsub_requirements.txt"
fi

if [[ -z ${PUBSUB_EMULATOR_HOST:-} ]]; then
    cargo build --quiet --manifest-path "$root/Cargo.toml" --package infrachat-emulators
    log=$(mktemp)
    "$target/debug/infrachat-emulators" --pubsub 127.0.0.1:0 --control 127.0.0.1:0 2>"$log" &
    emulator=$!
    trap 'kill "$emulator" 2>/dev/null; wait "$emulator" 2>/dev/null; rm -f "$log"' EXIT
    # The log names the port once it listens.
    for _ in $(seq 100); do
        PUBSUB_EMULATOR_HOST=$(sed -n 's/.*PUBSUB_EMULATOR_HOST=//p' "$log")
        [[ -n $PUBSUB_EMULATOR_HOST ]] && break
        kill -0 "$emulator" || { cat "$log" >&2; exit 1; }
        sleep 0.1
    done
    export PUBSUB_EMULATOR_HOST PUSH_TOKENS=1
fi

"$venv/bin/python" "$here/pubsub_test.py" "$@"
