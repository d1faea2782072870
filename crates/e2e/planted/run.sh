#!/usr/bin/env bash
# Plants each bug of this folder into a scratch copy of the last commit, and sees whether the simulation
# notices it, by the check that its patch names. Fails if one goes unnoticed, or can't be planted any more.
#
# usage: run.sh [SEEDS] [PATCH...]
set -euo pipefail
cd "$(dirname "$0")/../../.."
seeds=${1:-1-8}
shift || true
patches=("$@")
[ "${#patches[@]}" -gt 0 ] || patches=(crates/e2e/planted/*.patch)

# What the bugs don't touch is built already. The copy is always in the same place, so that what is built of it
# is built once.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
copy=$CARGO_TARGET_DIR/planted
said=$(mktemp)
forget() {
    git worktree remove --force "$copy" 2>/dev/null || true
}
trap 'forget; rm -f "$said"' EXIT
mkdir -p "$CARGO_TARGET_DIR"
forget
git worktree add --quiet --detach "$copy" HEAD

simulate() {
    (cd "$copy" && cargo test --quiet --package infrachat-e2e --test simulation "$@") >"$said" 2>&1
}

failed=0
row() {
    printf '%-18s %-14s %s\n' "$1" "$2" "$3"
}
row bug outcome "noticed by"
if INFRACHAT_SEEDS=$seeds simulate whatever_goes_wrong; then
    row none "all seeds pass" "-"
else
    row none FAILS "see below"
    tail -n 30 "$said"
    exit 1
fi
for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    check=$(sed -n 's/^Noticed: //p' "$patch")
    if ! git -C "$copy" apply "$PWD/$patch"; then
        row "$name" "does not apply" "-"
        failed=1
        continue
    fi
    if ! simulate --no-run; then
        row "$name" "does not build" "-"
        tail -n 30 "$said"
        failed=1
    elif INFRACHAT_SEEDS=$seeds simulate whatever_goes_wrong; then
        row "$name" UNNOTICED "seeds $seeds"
        failed=1
    elif found=$(grep -m 1 -oE ".*$check.*" "$said"); then
        count=$(grep -c '^seed .* failed' "$said" || true)
        row "$name" "$count seeds fail" "${found:0:100}"
    else
        row "$name" "another check" "not by: $check"
        grep -m 5 -E 'panicked|^seed' -A 3 "$said" || true
        failed=1
    fi
    git -C "$copy" checkout --quiet -- .
done
exit "$failed"
