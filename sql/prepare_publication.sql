-- Prepares a table for a role that does not own it. Run it as the owner of the table, before the job starts. It creates
-- the destination column and a publication, and grants the daemon's role the privileges that it needs.
--
--   psql "$TARGET" -v schema=public -v table=articles -v key=id -v source=title \
--        -v destination=title_embedding -v type='vector(384)' -v role=lantern -f sql/prepare_publication.sql
--
-- Give a key of several columns as one list: -v key='tenant, id'. For a partitioned table, add
-- publish_via_partition_root = true to the options of the publication.
-- For a job with fingerprint_column, also create that column (uuid), list it in the publication beside the source, and
-- grant SELECT and UPDATE on it to the role. Under REPLICA IDENTITY FULL the publication must list no columns.
-- A superuser creates the role once:  CREATE ROLE lantern LOGIN REPLICATION PASSWORD '…';

\set ON_ERROR_STOP on
\set publication lantern_prepared_ :schema _ :table
SELECT current_setting('server_version_num')::int >= 150000 AS has_column_lists \gset

BEGIN;
SET LOCAL lock_timeout = '2s';

ALTER TABLE :"schema".:"table" ADD COLUMN IF NOT EXISTS :"destination" :type;

-- Publishes only inserts and updates, and of these only the key and the source column (PostgreSQL 14: whole rows). The
-- name must begin with lantern_prepared_; the daemon uses the publication for every job that it fits.
\if :has_column_lists
CREATE PUBLICATION :"publication" FOR TABLE ONLY :"schema".:"table" (:key, :"source")
  WITH (publish = 'insert, update');
\else
CREATE PUBLICATION :"publication" FOR TABLE ONLY :"schema".:"table"
  WITH (publish = 'insert, update');
\endif

GRANT USAGE ON SCHEMA :"schema" TO :"role";
-- ctid and tableoid: a write-back updates exactly the row versions that it has locked.
GRANT SELECT (:key, :"source", :"destination", ctid, tableoid) ON :"schema".:"table" TO :"role";
GRANT UPDATE (:"destination") ON :"schema".:"table" TO :"role";

COMMIT;
