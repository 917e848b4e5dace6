-- What the owner of a table runs beforehand, so that lantern-cli needs neither ownership nor superuser there:
-- the destination column, a publication, and the rights of the daemon's role.
--
--   psql "$TARGET" -v schema=public -v table=articles -v key=id -v source=title \
--        -v destination=title_embedding -v type='vector(384)' -v role=lantern -f sql/prepare_publication.sql
--
-- A key of several columns is given as one list: -v key='tenant, id'. A partitioned table needs publish_via_partition_root =
-- true as well.
-- The role itself is created once, by a superuser:  CREATE ROLE lantern LOGIN REPLICATION PASSWORD '…';

\set ON_ERROR_STOP on
\set publication lantern_prepared_ :schema _ :table
SELECT current_setting('server_version_num')::int >= 150000 AS has_column_lists \gset

BEGIN;
SET LOCAL lock_timeout = '2s';

ALTER TABLE :"schema".:"table" ADD COLUMN IF NOT EXISTS :"destination" :type;

-- Inserts and updates of the key and the source, nothing else, leave the server; PostgreSQL 14 knows whole rows only. Any
-- name that begins with lantern_prepared_ will do; the daemon uses it for every job that it fits.
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
