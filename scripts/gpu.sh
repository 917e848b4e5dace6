#!/usr/bin/env bash
# Sets up a machine with NVIDIA GPUs from packages, and measures: the accuracy of the vectors on the device, the engine
# against a bare loop, and a backfill into a PostgreSQL on the same machine. Prints the table of docs/models.md.
#
#   scripts/gpu.sh [PROVIDER]...     cuda, cuda:1, cuda:0+1, or another one that the library in ORT_DYLIB_PATH has
#
# Without an argument that is cuda, and then all GPUs of the machine together if it has several. TEXTS is the number of rows
# of the backfill (300,000), BENCH_TEXTS that of the bare loop, and FEATURES are features of the build. Needs what `make setup`
# needs, the driver, and an account that may become another one if it is root's, because PostgreSQL does not run as root.
#
# A rehearsal without a GPU, on two devices that are the processor:
#
#   ORT_DYLIB_PATH=.runtime/lib FEATURES=failpoints TEXTS=300 BENCH_TEXTS=300 scripts/gpu.sh cpu faulty:device+other
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

providers=("$@")
if [ $# = 0 ]; then
    providers=(cuda)
    gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | wc -l || true)
    if [ "$gpus" -gt 1 ]; then
        providers+=("cuda:$(seq --separator + 0 $((gpus - 1)))")
    fi
fi
features=(${FEATURES:+--features "$FEATURES"})
texts=${TEXTS:-300000}
python=${PYTHON:-python3}
lantern=target/release/lantern-cli

if [ -z "${ORT_DYLIB_PATH:-}" ]; then
    scripts/setup.sh setup_gpu.py
    export ORT_DYLIB_PATH=$PWD/.runtime/gpu/onnxruntime/capi
else
    scripts/setup.sh
fi
export LANTERN_DATA_PATH=$PWD/.runtime LANTERN_OFFLINE=1 LANTERN_CONFIG='' LANTERN_YIELD=off
cargo build --release --bins "${features[@]}"

accuracy() {
    $lantern embed --json warm >/dev/null # the self-test, and the error if something is missing
    "$python" - $lantern <<'PYTHON'
import json, math, subprocess, sys

cases = json.load(open("tests/data/all-MiniLM-L6-v2.json"))["texts"]
output = subprocess.run([sys.argv[1], "embed", "--json", "--", *(case["text"] for case in cases)],
                        check=True, stdout=subprocess.PIPE, text=True).stdout
vectors = [json.loads(line) for line in output.splitlines()]
assert len(vectors) == len(cases), (len(vectors), len(cases))
cosines, differences = [], []
for case, vector in zip(cases, vectors):
    exact = case["embedding"]
    norms = math.sqrt(sum(a * a for a in exact) * sum(b * b for b in vector))
    cosines.append(sum(a * b for a, b in zip(exact, vector)) / norms)
    differences.append(max(abs(a - b) for a, b in zip(exact, vector)))
if min(cosines) < 0.9999:
    sys.exit("the lowest cosine to the reference vectors is %.6f, and should be 0.9999 at least" % min(cosines))
print("lowest cosine %.7f, largest difference %.1e" % (min(cosines), max(differences)))
PYTHON
}

bare_loop() {
    cargo bench --quiet "${features[@]}" --bench embedder -- "provider=$1" ${BENCH_TEXTS:+"texts=$BENCH_TEXTS"} |
        tee target/gpu-embedder.txt
}

postgres=$PWD/.runtime/postgres/bin
folder=$(mktemp --directory)
as_owner=()
if [ "$(id -u)" = 0 ]; then
    chown postgres "$folder"
    as_owner=(setpriv --reuid postgres --regid postgres --clear-groups)
fi
stop() {
    "${as_owner[@]}" "$postgres/pg_ctl" --silent --pgdata "$folder/data" --mode fast stop || true
    rm -rf "$folder"
}
trap stop EXIT
"${as_owner[@]}" "$postgres/initdb" --pgdata "$folder/data" --username postgres --auth trust --no-sync >/dev/null
"${as_owner[@]}" "$postgres/pg_ctl" --silent --pgdata "$folder/data" --log "$folder/log" --wait \
    --options "-k $folder -c listen_addresses=127.0.0.1 -c port=54329 -c wal_level=logical -c shared_buffers=2GB -c max_wal_size=16GB" start
server=postgresql://postgres@127.0.0.1:54329
sql() {
    "$postgres/psql" --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 "$server/$1"
}

# 4 to 90 words each, 35 on average: about 45 tokens.
sql postgres <<<'CREATE DATABASE texts'
sql texts <<SQL
CREATE EXTENSION vector;
SELECT setseed(0.5);
CREATE TABLE texts AS SELECT id, (
    SELECT string_agg((ARRAY['the', 'of', 'river', 'slot', 'mountain', 'government', 'harbour', 'memory', 'violin',
        'database', 'electron', 'painted', 'species', 'northern', 'railway', 'parliament', 'algorithm', 'winter'])
        [1 + floor(random() * 18)::int], ' ')
    FROM generate_series(1, 4 + (random() ^ 2 * 86)::int) WHERE id = id) || ' ' || id AS body
  FROM generate_series(1, $texts) AS id;
ALTER TABLE texts ADD PRIMARY KEY (id);
ANALYZE texts;
SQL

# Embeds the texts in a copy of the database. Prints rows a second, and the seconds.
backfill() {
    copy=$(sql postgres <<<"SELECT 'copy' || count(*) FROM pg_database")
    sql postgres <<<"CREATE DATABASE $copy TEMPLATE texts"
    $lantern create-table --uri "$server/$copy" >/dev/null
    $lantern jobs add --uri "$server/$copy" --table texts --column body >/dev/null
    started=$(date +%s.%N)
    $lantern start-daemon --uri "$server/$copy" --until-caught-up --allow-host 127.0.0.1 >&2
    elapsed=$("$python" -c "import time; print('%.1f' % (time.time() - $started))")
    missing=$(sql "$copy" <<<'SELECT count(*) FROM texts WHERE body_embedding IS NULL')
    if [ "$missing" != 0 ]; then
        echo "gpu: $missing rows have no vector" >&2
        exit 1
    fi
    ran_on=$(sql "$copy" <<<"SELECT stats ->> 'provider' FROM jobs")
    # Of an order of preference it is one.
    if [[ ",$1," != *",$ran_on,"* ]]; then
        echo "gpu: the job ran on $ran_on, which is not $1" >&2
        exit 1
    fi
    sql "$copy" <<<"SELECT format('%s: %s batches', d ->> 'device', d ->> 'batches')
        FROM jobs, jsonb_array_elements(stats -> 'devices') d" >&2
    "$python" -c "print(round($texts / $elapsed), '($texts rows, $elapsed s)')"
}

device=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1 || true)
rows=()
for provider in "${providers[@]}"; do
    export LANTERN_EXECUTION_PROVIDER=$provider
    echo "== accuracy on $provider"
    accuracy=$(accuracy)
    echo "$accuracy"
    echo "== the engine and a bare loop on $provider"
    bare_loop "$provider"
    engine=$(awk '$1 == "engine:" { print $2 }' target/gpu-embedder.txt)
    bare=$(awk '$1 == "bare:" { print $2 }' target/gpu-embedder.txt)
    echo "== a backfill of $texts rows on $provider"
    rate=$(backfill "$provider")
    rows+=("| ${device:-$(nproc) cores} | $provider | $accuracy | $engine | $bare | $rate |")
done

cat <<TABLE

| device | provider | accuracy | engine, texts/s | bare loop, texts/s | backfill, rows/s |
| --- | --- | --- | --- | --- | --- |
TABLE
printf '%s\n' "${rows[@]}"
