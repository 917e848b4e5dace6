#!/bin/bash
# Run once by the image of PostgreSQL, as its superuser: pgvector, the jobs table and the daemon's role.
set -euo pipefail

psql --quiet --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname="${POSTGRES_DB:-postgres}" <<'SQL'
CREATE EXTENSION IF NOT EXISTS vector;
\i /sql/jobs.sql
\set role lantern
\set password `cat /run/secrets/lantern-password`
\i /sql/role.sql
SQL
