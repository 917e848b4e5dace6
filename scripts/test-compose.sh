#!/usr/bin/env bash
# Builds the image, starts compose.yaml, and searches, as docs/getting-started.md says. Needs Docker with compose, and a way to
# the hub of models.
set -euo pipefail
cd "$(dirname "$0")/.."

export POSTGRES_PASSWORD=a-test LANTERN_PASSWORD=another-test
trap 'docker compose logs --tail 50; docker compose down --volumes' EXIT
docker compose up --detach --wait
# The document's own commands, from the psql on.
sed -n '/^docker compose exec --no-TTY postgres/,/^```/{/^```/d;p}' docs/getting-started.md >"${TMPDIR:-/tmp}/commands"
bash -euo pipefail "${TMPDIR:-/tmp}/commands" | tee "${TMPDIR:-/tmp}/found"
grep --quiet moon "${TMPDIR:-/tmp}/found"
docker compose exec --no-TTY lantern lantern-cli healthcheck --ready
