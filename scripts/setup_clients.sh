#!/bin/sh
# Fetches the client libraries with which the tests run the programs of docs/search.md and docs/applications.md, about
# 230 MB in all, pinned by version, and by hash where there is one file for all machines:
#
#     .runtime/clients/python       psycopg, with pip
#     .runtime/clients/frameworks   openai, pgvector, langchain-openai and llama-index-embeddings-openai, with pip
#     .runtime/clients/node         pg, pgvector and openai, with npm
#
# What cannot be fetched is said in a line that begins with `clients:`, and fails nothing here: its test is skipped, which
# it reports, or fails where CI is set. Go and pgx are Debian's packages golang-go and golang-github-jackc-pgx-v4-dev.
#
# PYTHON names the Python to use.
set -u

cd "$(dirname "$0")/.." || exit
clients=.runtime/clients
mkdir -p "$clients"

# fetched NAME LIST COMMAND…: runs the command in a new folder unless NAME was fetched by this very LIST.
fetched() {
    name=$1 list=$2
    shift 2
    cmp -s "$list" "$clients/$name/$(basename "$list")" && return
    rm -rf "${clients:?}/$name"
    mkdir -p "$clients/$name"
    if "$@" >"$clients/$name.log" 2>&1; then
        cp "$list" "$clients/$name/"
    else
        rm -rf "${clients:?}/$name"
        echo "clients: $name cannot be fetched: $(head -n 1 "$clients/$name.log")" >&2
    fi
}

fetch_node() {
    cp scripts/clients/package.json scripts/clients/package-lock.json "$clients/node/"
    (cd "$clients/node" && npm ci --ignore-scripts --no-audit --no-fund) || return
    rm "$clients/node/package-lock.json"
}

fetched python scripts/clients/requirements.txt "${PYTHON:-python3}" -m pip install --quiet --no-deps --require-hashes \
    --target "$clients/python" --requirement scripts/clients/requirements.txt
fetched frameworks scripts/clients/frameworks.txt "${PYTHON:-python3}" -m pip install --quiet --no-deps --no-compile \
    --only-binary :all: --target "$clients/frameworks" --requirement scripts/clients/frameworks.txt
fetched node scripts/clients/package-lock.json fetch_node
exit 0
