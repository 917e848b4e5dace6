#!/usr/bin/env bash
# Fuzzes each target for the given number of seconds: fuzz.sh [SECONDS [TARGET…]]. Findings go to fuzz/artifacts, inputs that
# reach new code to fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(decoder framing connection_string sql_session replication_session)

cargo fuzz --version >/dev/null 2>&1 || {
  echo "fuzzing needs a nightly toolchain and: cargo install cargo-fuzz" >&2
  exit 1
}
for target in "${targets[@]}"; do
  mkdir -p "fuzz/corpus/$target"
  cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=64 -print_final_stats=1
done
