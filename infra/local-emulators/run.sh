#!/usr/bin/env bash
# Starts the Pub/Sub and Firestore emulators and a Redis that keeps nothing, and stops them together.
set -euo pipefail
cd "$(dirname "$0")/../.."

redis_port=${REDIS_PORT:-6379}
command -v redis-server >/dev/null || {
    echo "redis-server is missing: run 'make services', or install the system's package redis-server" >&2
    exit 1
}
cargo build --quiet --package infrachat-emulators

redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no --daemonize no --loglevel warning &
redis=$!
trap 'kill "$redis" 2>/dev/null || true; wait' EXIT

cat <<TEXT
Pub/Sub, Firestore and Redis are starting; Ctrl-C stops them. In other terminals:
  export PUBSUB_EMULATOR_HOST=localhost:8085 FIRESTORE_EMULATOR_HOST=localhost:8080 REDIS_URL=redis://localhost:$redis_port
TEXT
./target/debug/infrachat-emulators "$@"
