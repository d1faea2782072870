#!/bin/sh
# Runs firestore_test.py with Google's Python client. With FIRESTORE_EMULATOR_HOST set it tests the
# emulator there, Google's included; otherwise it builds this one and starts it for the run.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
venv=$target/emulators-python-firestore

if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check 'google-cloud-firestore>=2.34,<3'

if [ -z "${FIRESTORE_EMULATOR_HOST:-}" ]; then
    (cd "$root" && cargo build --quiet -p infrachat-emulators)
    port=$("$venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    export FIRESTORE_EMULATOR_HOST="127.0.0.1:$port"
    "$target/debug/infrachat-emulators" --firestore "$FIRESTORE_EMULATOR_HOST" &
    emulator=$!
    trap 'kill "$emulator" 2>/dev/null || true' EXIT
fi

# Waits until the port answers.
"$venv/bin/python" - <<'PY'
import os, socket, sys, time

host, port = os.environ["FIRESTORE_EMULATOR_HOST"].rsplit(":", 1)
for _ in range(100):
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        sys.exit()
    except OSError:
        time.sleep(0.1)
sys.exit(f"nothing listens on {host}:{port}")
PY

"$venv/bin/python" "$here/firestore_test.py" "$@"
