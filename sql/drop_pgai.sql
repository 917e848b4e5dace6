-- Removes a vectorizer of pgai after its job has finished: its triggers on the source table and their function, its
-- queue, its view, its row in ai.vectorizer, and the bridge of sql/migrate_from_pgai.sql. Run it in the database of the
-- vectorizer, as a superuser or as the owner of these objects:
--
--   psql "$TARGET" -v vectorizer=1 -f sql/drop_pgai.sql
--
-- This prints the statements and runs none. Add -v run=yes to run them, in one transaction. The source table, pgai's
-- table with the chunks and vectors, and everything of yours stay. It calls no function of pgai, and works where the
-- extension or the table ai.vectorizer is gone.
--
-- vectorizer   id of the vectorizer
-- jobs         the jobs table, if it is in this database (default: public.jobs)
-- finished     yes: its job has finished; needed where the jobs table is elsewhere, or the vectorizer has no job
-- view         keep: the view stays
-- run          yes: run the statements

\set ON_ERROR_STOP on
\if :{?jobs}
\else
  \set jobs public.jobs
\endif
\if :{?finished}
\else
  \set finished no
\endif
\if :{?view}
\else
  \set view drop
\endif
\if :{?run}
\else
  \set run no
\endif
\pset format unaligned
\pset tuples_only on

BEGIN;
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL lock_timeout = '2s';

-- The row of the catalog; without it, the names that pgai gives by itself.
CREATE FUNCTION pg_temp.catalog_row(wanted text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  found jsonb;
BEGIN
  IF to_regclass('ai.vectorizer') IS NOT NULL THEN
    EXECUTE 'SELECT to_jsonb(v) FROM ai.vectorizer v WHERE v.id::text = $1' INTO found USING wanted;
  END IF;
  RETURN found;
END $$;

CREATE FUNCTION pg_temp.has_finished(jobs regclass, catalog jsonb) RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
  has_finished bool;
BEGIN
  IF jobs IS NOT NULL THEN
    EXECUTE format('SELECT bool_or(true) FROM %s j WHERE COALESCE(j.schema, ''public'') = $1 AND j."table" = $2 '
      'AND j.src_column = $3 AND j.init_finished_at IS NOT NULL AND j.init_failed_at IS NULL', jobs)
    INTO has_finished USING catalog->>'source_schema', catalog->>'source_table', COALESCE(
      catalog->'config'->'loading'->>'column_name', catalog->'config'->'chunking'->>'chunk_column');
  END IF;
  RETURN COALESCE(has_finished, false);
END $$;

CREATE TEMP TABLE left_over ON COMMIT DROP AS
SELECT :'vectorizer'::int AS id, c.catalog, d.destination,
       COALESCE(c.catalog->>'queue_schema', 'ai') AS queue_schema,
       COALESCE(c.catalog->>'trigger_name', '_vectorizer_src_trg_' || :'vectorizer') AS function,
       ARRAY[COALESCE(c.catalog->>'queue_table', '_vectorizer_q_' || :'vectorizer'),
             COALESCE(c.catalog->>'queue_failed_table', '_vectorizer_q_failed_' || :'vectorizer')] AS queues,
       'lantern_bridge_' || :'vectorizer' AS bridge,
       :'finished'::bool OR pg_temp.has_finished(to_regclass(:'jobs'), c.catalog) AS has_finished
FROM (SELECT pg_temp.catalog_row(:'vectorizer') AS catalog) c
CROSS JOIN LATERAL (SELECT COALESCE(c.catalog->'config'->'destination', c.catalog, '{}') AS destination) d;

CREATE TEMP TABLE steps (step serial, statement text) ON COMMIT DROP;

-- The row goes first: an event trigger of older versions drops vectorizers whose tables are dropped.
INSERT INTO steps (statement)
SELECT format('DELETE FROM ai.vectorizer WHERE id = %s', id) FROM left_over WHERE catalog IS NOT NULL;

INSERT INTO steps (statement)
SELECT format('SELECT %I.delete_job(%s)', n.nspname, catalog->'config'->'scheduling'->>'job_id')
FROM left_over JOIN pg_extension x ON x.extname = 'timescaledb' JOIN pg_namespace n ON n.oid = x.extnamespace
WHERE catalog->'config'->'scheduling'->>'job_id' IS NOT NULL;

-- Triggers by their function, then the functions: those of pgai, and the bridge.
CREATE TEMP TABLE functions ON COMMIT DROP AS
SELECT p.oid, format('%I.%I()', n.nspname, p.proname) AS name
FROM left_over JOIN pg_proc p ON p.pronargs = 0 AND p.prorettype = 'trigger'::regtype
JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = queue_schema AND p.proname = function OR p.proname = bridge;

INSERT INTO steps (statement)
SELECT format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass)
FROM functions f JOIN pg_trigger t ON t.tgfoid = f.oid
WHERE NOT t.tgisinternal AND t.tgparentid = 0
ORDER BY t.tgname;

INSERT INTO steps (statement)
SELECT format('DROP FUNCTION %s', name) FROM functions ORDER BY name;

INSERT INTO steps (statement)
SELECT format('DROP TABLE %s', c.oid::regclass)
FROM left_over JOIN pg_namespace n ON n.nspname = queue_schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind = 'r' AND c.relname = ANY (queues)
ORDER BY c.relname;

-- The view, unless objects of yours use it.
CREATE TEMP TABLE views ON COMMIT DROP AS
SELECT c.oid::regclass AS name, (
  SELECT string_agg(DISTINCT pg_describe_object(u.classid, u.objid, 0), ', ')
  FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
  CROSS JOIN LATERAL (SELECT 'pg_class'::regclass::oid AS classid, r.ev_class AS objid) u
  WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND r.ev_class <> c.oid) AS users
FROM left_over JOIN pg_namespace n ON n.nspname = destination->>'view_schema'
JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind = 'v' AND c.relname = destination->>'view_name'
WHERE :'view' <> 'keep';

INSERT INTO steps (statement)
SELECT format('DROP VIEW %s', name) FROM views WHERE users IS NULL;

DO $$
BEGIN
  IF EXISTS (SELECT FROM left_over WHERE NOT has_finished) AND EXISTS (SELECT FROM steps) THEN
    RAISE EXCEPTION 'no job of the table of this vectorizer has finished its initial backfill; wait for it, or add '
      '-v finished=yes where the jobs table is in another database';
  END IF;
END $$;

SELECT format('-- %s stays, because it is used by: %s', name, users) FROM views WHERE users IS NOT NULL;
SELECT format('-- %s stays, with the chunks and vectors of pgai; when you need it no more: DROP TABLE %1$s;',
              c.oid::regclass)
FROM left_over JOIN pg_namespace n ON n.nspname = destination->>'target_schema'
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = destination->>'target_table';
SELECT '-- nothing is left of this vectorizer' WHERE NOT EXISTS (SELECT FROM steps);
SELECT statement || ';' FROM steps ORDER BY step;

\if :run
SELECT statement FROM steps ORDER BY step
\gexec
COMMIT;
\echo '-- done'
\else
ROLLBACK;
\echo '-- nothing is changed: add -v run=yes'
\endif
