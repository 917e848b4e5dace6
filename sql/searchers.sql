-- Creates a view of the jobs table without connection strings, for roles that search or verify and are not to see
-- passwords. Run it in the jobs database as the owner of the jobs table. It may run again, as after a column was added.
--
--   psql "$JOBS_DATABASE" -v role=searcher -f sql/searchers.sql
--   lantern-cli search --uri "$JOBS_DATABASE" --table jobs_for_searchers --target "$TARGET" --job 1 'how do tides work?'
--
-- --target says where the target table is, with a login of the searcher's own. That needs SELECT on the key, the source
-- and the destination column (on the fingerprint column too, for verify), and no other right:
--
--   GRANT SELECT (id, title, title_embedding) ON articles TO searcher;
--
-- For a jobs table of another name, add -v schema=public -v table=jobs.

\set ON_ERROR_STOP on
\if :{?schema}
\else
  \set schema public
\endif
\if :{?table}
\else
  \set table jobs
\endif

BEGIN;

SELECT left(:'table', 49) || '_for_searchers' AS view \gset

DROP VIEW IF EXISTS :"schema".:"view";

-- Every column but the connection strings, which are NULL.
SELECT format('CREATE VIEW %I.%I AS SELECT %s FROM %I.%I', :'schema', :'view', string_agg(
  CASE WHEN a.attname IN ('db_connection', 'write_connection') THEN format('NULL::text AS %I', a.attname)
       ELSE quote_ident(a.attname) END, ', ' ORDER BY a.attnum), :'schema', :'table')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :'schema' AND c.relname = :'table' AND a.attnum > 0 AND NOT a.attisdropped
\gexec

GRANT USAGE ON SCHEMA :"schema" TO :"role";
GRANT SELECT ON :"schema".:"view" TO :"role";

COMMIT;
