-- Views for those whose dashboard is SQL. Run it as the owner of the jobs table in the jobs database, and in each target
-- database as any role that may create a view there. It may run again, as after a column was added.
--
--   psql "$JOBS_DATABASE" -f sql/monitoring.sql
--   psql "$TARGET" -f sql/monitoring.sql
--
-- In the jobs database it creates jobs_status, a row for each job with what lantern-cli status shows, and without
-- connection strings. Of a job with a chunk table a row is a document: rows_with_vector has the documents with passages.
-- Rates, lag and counts are those that the daemon has written into the column stats of the jobs table, at most two seconds
-- old while it runs; without that column they are NULL. In each database it creates lantern_slots, a row for each slot of
-- a job there, as it is now. Its column tables has the tables of the publication that the slot is
-- read with. No catalog says which that is, if it is a prepared one: while a daemon reads the slot, its walsender shows it
-- (to the daemon's role and those with pg_read_all_stats); otherwise tables is NULL where there are several of them.
--
--   SELECT id, state, reason, lag_seconds, pg_size_pretty(retained_bytes) FROM jobs_status;
--   SELECT slot_name, active, wal_status, pg_size_pretty(retained_bytes) FROM lantern_slots;
--
-- For a jobs table of another name, add -v schema=public -v table=jobs; the view is called <table>_status. With
-- -v role=monitor that role may read the views.

\set ON_ERROR_STOP on
\if :{?schema}
\else
  \set schema public
\endif
\if :{?table}
\else
  \set table jobs
\endif
\if :{?role}
\else
  \set role ''
\endif

BEGIN;
SET LOCAL client_min_messages = warning;

SELECT left(:'table', 56) || '_status' AS view, left(:'table', 54) || '_failures' AS failures \gset

SELECT to_regclass(format('%I.%I', :'schema', :'table')) IS NOT NULL AS has_jobs,
       to_regclass(format('%I.%I', :'schema', :'failures')) IS NOT NULL AS has_failures \gset

\if :has_jobs

DROP VIEW IF EXISTS :"schema".:"view";

-- The failures table is counted where there is one.
SELECT CASE WHEN :'has_failures'::bool
  THEN format('(SELECT count(*) FROM %I.%I f WHERE f.job_id = j.id::text)', :'schema', :'failures')
  ELSE '(j.stats ->> ''quarantined_rows'')::bigint' END AS quarantined \gset

CREATE VIEW :"schema".:"view" AS
SELECT
  j.id,
  COALESCE(NULLIF(j.row ->> 'schema', ''), 'public') || '.' || (j.row ->> 'table') AS "table",
  j.row ->> 'src_column' AS source,
  COALESCE(NULLIF(j.row ->> 'dst_column', ''), CASE WHEN j.row ->> 'chunk_table' <> '' THEN 'embedding' END) AS destination,
  NULLIF(j.row ->> 'chunk_table', '') AS chunk_table,
  j.row ->> 'embedding_model' AS model,
  j.stats ->> 'provider' AS provider,
  s.state,
  CASE s.state
    WHEN 'failed' THEN j.row ->> 'init_failure_reason'
    WHEN 'canceled' THEN 'replaced by job ' || (j.row ->> 'replaced_by')
    ELSE NULLIF(concat_ws('; ', CASE WHEN j.is_to_replace THEN 'is to replace job ' || (j.row ->> 'replaces') END,
      COALESCE(j.row ->> 'last_error', 'waits for ' || (j.row ->> 'waits_for'))), '')
  END AS reason,
  CASE WHEN j.runs THEN j.stats -> 'daemon' ->> 'host' END AS daemon_host,
  CASE WHEN j.runs THEN (j.stats -> 'daemon' ->> 'pid')::bigint END AS daemon_pid,
  to_timestamp((j.stats ->> 'written_at')::float8) AS as_of,
  CASE WHEN j.finished AND NOT j.again THEN 100
    WHEN NOT j.runs OR jsonb_typeof(j.stats -> 'scan') IS DISTINCT FROM 'object' THEN 0
    ELSE COALESCE(
      LEAST((j.stats -> 'scan' ->> 'rows_done')::bigint, (j.stats -> 'scan' ->> 'rows_total')::bigint) * 100
      / NULLIF((j.stats -> 'scan' ->> 'rows_total')::bigint, 0), 100) END AS backfill_percent,
  CASE WHEN j.runs THEN (j.stats -> 'scan' ->> 'rows_done')::bigint END AS scan_rows_done,
  CASE WHEN j.runs THEN (j.stats -> 'scan' ->> 'rows_total')::bigint END AS scan_rows_total,
  CASE WHEN j.runs THEN (j.stats -> 'scan' ->> 'rows_per_second')::float8 END AS scan_rows_per_second,
  (j.stats -> 'coverage' ->> 'rows_with_text')::bigint AS rows_with_text,
  (j.stats -> 'coverage' ->> 'rows_with_vector')::bigint AS rows_with_vector,
  (j.stats -> 'coverage' ->> 'passages')::bigint AS passages,
  CASE WHEN j.runs THEN (j.stats ->> 'rows_per_second')::float8 END AS rows_per_second,
  CASE WHEN (j.stats -> 'today' ->> 'day')::bigint = floor(EXTRACT(EPOCH FROM now()) / 86400)
    THEN (j.stats -> 'today' ->> 'count')::bigint
    WHEN j.stats IS NOT NULL THEN 0 END AS rows_today,
  (j.slot ->> 'lag_bytes')::bigint AS lag_bytes,
  CASE WHEN j.runs THEN (j.stats ->> 'lag_seconds')::float8 END AS lag_seconds,
  j.slot ->> 'name' AS slot_name,
  j.slot ->> 'wal_status' AS wal_status,
  (j.slot ->> 'retained_bytes')::bigint AS retained_bytes,
  (j.slot ->> 'confirmed_lsn')::pg_lsn AS confirmed_lsn,
  j.row ->> 'index_state' AS index_state,
  :quarantined AS quarantined_rows,
  (j.stats -> 'totals' ->> 'rows_written')::bigint AS rows_written,
  (j.stats -> 'totals' ->> 'passages_written')::bigint AS passages_written,
  (j.stats -> 'totals' ->> 'rows_superseded')::bigint AS rows_superseded,
  (j.stats -> 'totals' ->> 'texts')::bigint AS texts,
  (j.stats -> 'totals' ->> 'cache_hits')::bigint AS cache_hits,
  (j.stats -> 'totals' ->> 'texts_truncated')::bigint AS texts_truncated,
  (j.stats -> 'totals' ->> 'tokens')::bigint AS tokens,
  (j.stats -> 'totals' ->> 'inference_seconds')::float8 AS inference_seconds,
  (j.stats -> 'totals' ->> 'write_back_seconds')::float8 AS write_back_seconds,
  (j.stats -> 'totals' ->> 'estimated_cost')::float8 AS estimated_cost,
  (j.stats -> 'totals' ->> 'requests')::bigint AS requests,
  CASE WHEN j.runs THEN (
    SELECT string_agg(format('%s: %s', d ->> 'device', d ->> 'error'), '; ')
    FROM jsonb_array_elements(CASE jsonb_typeof(j.stats -> 'devices') WHEN 'array' THEN j.stats -> 'devices' END) d
    WHERE d ->> 'lost_since' IS NOT NULL) END AS lost_devices
FROM (
  SELECT
    t.id, t.row, t.stats, t.canceled, t.failed,
    -- The slot of a job that has failed or was canceled is gone.
    CASE WHEN NOT t.canceled AND NOT t.failed THEN t.stats -> 'slot' END AS slot,
    t.row ->> 'init_started_at' IS NOT NULL AS started,
    t.row ->> 'init_finished_at' IS NOT NULL AS finished,
    COALESCE((t.row ->> 'init_started_at') > (t.row ->> 'init_finished_at'), false) AS again,
    t.row ->> 'replaces' IS NOT NULL AND EXISTS (
      SELECT FROM :"schema".:"table" p
      WHERE p.id::text = t.row ->> 'replaces' AND to_jsonb(p) ->> 'replaced_by' IS DISTINCT FROM t.id::text)
      AS is_to_replace,
    -- The daemon holds an advisory lock for as long as it runs the job.
    EXISTS (
      SELECT FROM pg_locks l
      WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.classid::bigint << 32 | l.objid::bigint = (t.stats ->> 'lock_key')::bigint) AS runs
  FROM (
    -- Whatever columns the table has.
    SELECT j.id, to_jsonb(j) - 'db_connection' - 'write_connection' AS row,
           NULLIF(to_jsonb(j) -> 'stats', 'null') AS stats,
           COALESCE(to_jsonb(j) ->> 'canceled_at', 'false') <> 'false' AS canceled,
           to_jsonb(j) ->> 'init_failed_at' IS NOT NULL AS failed
    FROM :"schema".:"table" j) t) j
CROSS JOIN LATERAL (
  SELECT CASE
    WHEN j.canceled THEN 'canceled'
    WHEN j.failed THEN 'failed'
    WHEN NOT j.runs AND NOT j.started THEN 'waiting'
    WHEN NOT j.runs THEN 'stopped'
    WHEN j.row ->> 'last_error' IS NOT NULL THEN 'interrupted'
    WHEN j.stats ->> 'phase' = 'backfilling' AND j.finished AND NOT j.again THEN 'streaming'
    ELSE j.stats ->> 'phase' END AS state) s;

SELECT format('GRANT USAGE ON SCHEMA %I TO %I', :'schema', :'role') WHERE :'role' <> ''
UNION ALL SELECT format('GRANT SELECT ON %I.%I TO %I', :'schema', :'view', :'role') WHERE :'role' <> ''
\gexec

\endif

DROP VIEW IF EXISTS :"schema".lantern_slots;

-- pg_current_wal_lsn() is an error on a standby.
CREATE VIEW :"schema".lantern_slots AS
SELECT
  s.slot_name,
  (SELECT string_agg(format('%I.%I', p.schemaname, p.tablename), ', ' ORDER BY p.schemaname, p.tablename)
   FROM pg_publication_tables p WHERE p.pubname = COALESCE(
     (SELECT o.pubname FROM pg_publication o WHERE o.pubname = s.slot_name),
     (SELECT r.pubname FROM pg_publication r JOIN pg_stat_activity a ON a.pid = s.active_pid
      WHERE r.pubname LIKE 'lantern\_prepared\_%'
        AND strpos(a.query, replace('"' || replace(r.pubname, '"', '""') || '"', '''', '''''')) > 0 LIMIT 1),
     (SELECT min(r.pubname::text)::name FROM pg_publication r
      WHERE r.pubname LIKE 'lantern\_prepared\_%' HAVING count(*) = 1))) AS tables,
  s.active,
  s.active_pid,
  s.wal_status,
  pg_wal_lsn_diff(w.now, s.restart_lsn)::bigint AS retained_bytes,
  GREATEST(pg_wal_lsn_diff(w.now, s.confirmed_flush_lsn)::bigint, 0) AS lag_bytes,
  s.confirmed_flush_lsn,
  s.safe_wal_size
FROM pg_replication_slots s
CROSS JOIN (
  SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS now) w
WHERE s.slot_name LIKE 'lantern\_%' AND s.database = current_database();

SELECT format('GRANT USAGE ON SCHEMA %I TO %I', :'schema', :'role') WHERE :'role' <> ''
UNION ALL SELECT format('GRANT SELECT ON %I.lantern_slots TO %I', :'schema', :'role') WHERE :'role' <> ''
\gexec

COMMIT;
