#!/usr/bin/env bash
# Runs the integration tests and CHAOS=n fault schedules (default 24) on 18 and on every version that setup_matrix.py has
# fetched.
#
# A test that a version does not support reports itself as skipped; the summary lists these reports.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
logs=target/matrix
mkdir -p "$logs"
# These builds come without pgvector. With CI set, the tests that need it would fail instead of being skipped.
unset CI
cargo test --no-run --test integration || exit 1
cargo test --no-run --features failpoints --test chaos || exit 1

failed=0
for bindir in .runtime/postgres-*/bin .runtime/postgres/bin; do
    LANTERN_TEST_PG_BINDIR=$PWD/$bindir
    export LANTERN_TEST_PG_BINDIR
    name=$("$bindir/postgres" --version)
    log=$logs/$(basename "$(dirname "$bindir")")

    cargo test --test integration -- --show-output >"$log.tests" 2>&1 || failed=1
    echo "$name: $(grep '^test result' "$log.tests" || echo "the tests did not end: see $log.tests")"
    grep -E '^test .* FAILED' "$log.tests"
    grep -h '^skipped: ' "$log.tests" | sort

    cargo test --features failpoints --test chaos -- --schedules "${CHAOS:-24}" >"$log.chaos" 2>&1 || failed=1
    grep -E 'schedules clean|streaming again|failed seeds' "$log.chaos"
done
exit $failed
