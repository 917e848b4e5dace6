#!/usr/bin/env bash
# Sets up a machine with an NVIDIA GPU from packages, and measures: the accuracy of the vectors on the device, the engine
# against a bare loop, and a backfill into a PostgreSQL on the same machine. Prints the table of docs/models.md.
#
#   scripts/gpu.sh [PROVIDER]        cuda, cuda:1, or another one that the library in ORT_DYLIB_PATH has
#
# TEXTS is the number of rows of the backfill (300,000). Needs what `make setup` needs, the driver, and an account that may
# become another one if it is root's, because PostgreSQL does not run as root.
set -euo pipefail
cd "$(dirname "$0")/.."

provider=${1:-cuda}
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
export LANTERN_EXECUTION_PROVIDER=$provider
cargo build --release --bins

echo "== accuracy on $provider"
$lantern embed --json warm >/dev/null # the self-test, and the error if something is missing
accuracy=$("$python" - $lantern <<'PYTHON'
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
)
echo "$accuracy"

echo "== the engine and a bare loop on $provider"
cargo bench --quiet --bench embedder -- "provider=$provider" | tee target/gpu-embedder.txt

echo "== a backfill of $texts rows"
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
uri=postgresql://postgres@127.0.0.1:54329/postgres
psql=("$postgres/psql" --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 "$uri")

# 4 to 90 words each, 35 on average: about 45 tokens.
"${psql[@]}" <<SQL
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
$lantern create-table --uri "$uri" >/dev/null
$lantern jobs add --uri "$uri" --table texts --column body >/dev/null
started=$(date +%s.%N)
$lantern start-daemon --uri "$uri" --until-caught-up --allow-host 127.0.0.1
elapsed=$("$python" -c "import time; print('%.1f' % (time.time() - $started))")
missing=$("${psql[@]}" --command "SELECT count(*) FROM texts WHERE body_embedding IS NULL")
if [ "$missing" != 0 ]; then
    echo "gpu: $missing rows have no vector" >&2
    exit 1
fi
rate=$("$python" -c "print(round($texts / $elapsed))")
provider_of_job=$("${psql[@]}" --command "SELECT stats ->> 'provider' FROM jobs")

device=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1 || true)
engine=$(awk '$1 == "engine:" { print $2 }' target/gpu-embedder.txt)
bare=$(awk '$1 == "bare:" { print $2 }' target/gpu-embedder.txt)
cat <<TABLE

| device | provider | accuracy | engine, texts/s | bare loop, texts/s | backfill, rows/s |
| --- | --- | --- | --- | --- | --- |
| ${device:-$(nproc) cores} | $provider_of_job | $accuracy | $engine | $bare | $rate ($texts rows, $elapsed s) |
TABLE
