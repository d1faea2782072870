#!/usr/bin/env bash
# Google's Python clients against the emulators that PUBSUB_EMULATOR_HOST and FIRESTORE_EMULATOR_HOST name.
# `make test-python` starts ours for it, `make test-google-emulators` Google's.
#
# The clients are installed into target/python, again only when the requirements change.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=${CARGO_TARGET_DIR:-$here/../../../../target}/python
: "${PUBSUB_EMULATOR_HOST:?start emulators first, or use make test-python}" "${FIRESTORE_EMULATOR_HOST:?see above}"

if ! cmp --silent "$here/requirements.txt" "$venv/requirements.txt"; then
    python3 -m venv --clear "$venv" || {
        echo "Python 3.10 or newer with its venv module is needed: install python3 and python3-venv" >&2
        exit 1
    }
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/requirements.txt"
fi

status=0
for test in pubsub_test firestore_test; do
    echo "== $test.py against $PUBSUB_EMULATOR_HOST and $FIRESTORE_EMULATOR_HOST" >&2
    "$venv/bin/python" "$here/$test.py" "$@" || status=1
done
exit "$status"
