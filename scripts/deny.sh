#!/usr/bin/env bash
# Checks the dependencies against deny.toml: licenses, bans and sources always, known vulnerabilities where the database
# of RustSec can be reached. What could not be checked is said in a line, and is no failure: it is no fault of the
# change.
set -euo pipefail
cd "$(dirname "$0")/.."

database=https://github.com/RustSec/advisory-db

deny=.runtime/deny/bin/cargo-deny
if ! scripts/setup.sh setup_deny.py; then
    deny=$(command -v cargo-deny) || {
        echo "deny: the dependencies were NOT checked: cargo-deny is neither fetched nor installed;" \
            "run: cargo install --locked cargo-deny" >&2
        exit 0
    }
fi

# Without a network only the crates of this machine's kind are there.
scope=()
if ! cargo fetch --locked --quiet 2>/dev/null; then
    scope=(--target "$(rustc --version --verbose | sed -n 's/^host: //p')")
    echo "deny: the crates of other platforms cannot be fetched: checking those of this one"
fi
"$deny" --offline --locked "${scope[@]}" check --hide-inclusion-graph licenses bans sources

if GIT_TERMINAL_PROMPT=0 timeout 20 git ls-remote --quiet --exit-code "$database" HEAD >/dev/null 2>&1; then
    "$deny" --locked "${scope[@]}" check --hide-inclusion-graph advisories
else
    echo "deny: known vulnerabilities were NOT checked: $database cannot be reached"
fi
