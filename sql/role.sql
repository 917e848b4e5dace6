-- Creates a role for the daemon that may do what the daemon needs and nothing else: it may log in and replicate, and it
-- may use the jobs table and the failures table, if they are in this database. Run it as a superuser, or from
-- PostgreSQL 16 on as a role with CREATEROLE and REPLICATION. It may run again: what is there already stays.
--
--   psql "$JOBS_DATABASE" -f sql/jobs.sql
--   psql "$JOBS_DATABASE" -v role=lantern -v password='…' -f sql/role.sql
--
-- Without -v password the role has none: set one with \password lantern in psql, or let pg_hba.conf name another method.
-- For a jobs table of another name, add -v schema=public -v table=jobs.
--
-- The role has no right on any target table. For each of these, its owner runs sql/prepare_publication.sql, which also
-- creates what the role may not. If the target is on another server, run this file there as well.
--
-- To keep the users' code away from REPLICATION too, create a second role with -v replication=no, give that one to
-- sql/prepare_publication.sql (-v role=lantern_rows), and name it in write_connection of the job.

\set ON_ERROR_STOP on
\if :{?role}
\else
  \set role lantern
\endif
\if :{?schema}
\else
  \set schema public
\endif
\if :{?table}
\else
  \set table jobs
\endif
\if :{?replication}
\else
  \set replication yes
\endif
\if :{?password}
\else
  \set password ''
\endif

BEGIN;

SELECT format('CREATE ROLE %I LOGIN %s', :'role', CASE WHEN :'replication'::bool THEN 'REPLICATION' ELSE '' END)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role')
\gexec

SELECT format('ALTER ROLE %I PASSWORD %L', :'role', :'password') WHERE :'password' <> ''
\gexec

SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), :'role')
WHERE NOT has_database_privilege(:'role', current_database(), 'CONNECT')
\gexec

-- The jobs table: all columns to read, and to write only those that the daemon writes. It cancels a job that another one
-- has replaced. Only the role that streams is the daemon's there.
SELECT format(grants.statement, n.nspname, c.relname, :'role', written.columns, f.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
  SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) AS columns FROM pg_attribute a
  WHERE a.attrelid = c.oid AND NOT a.attisdropped AND a.attname IN (
    'init_started_at', 'init_failed_at', 'init_finished_at', 'init_failure_reason', 'init_progress', 'waits_for',
    'last_error', 'last_error_at', 'stats', 'index_state', 'replaced_by', 'canceled_at', 'updated_at')) AS written
LEFT JOIN pg_class f ON f.relnamespace = n.oid AND f.relkind = 'r' AND f.relname = left(c.relname, 54) || '_failures'
CROSS JOIN LATERAL (VALUES
  ('GRANT USAGE ON SCHEMA %1$I TO %3$I', true),
  ('GRANT SELECT ON %1$I.%2$I TO %3$I', true),
  ('GRANT UPDATE (%4$s) ON %1$I.%2$I TO %3$I', true),
  ('GRANT SELECT, INSERT, UPDATE, DELETE ON %1$I.%5$I TO %3$I', f.oid IS NOT NULL)) AS grants (statement, applies)
WHERE n.nspname = :'schema' AND c.relname = :'table' AND c.relkind IN ('r', 'p', 'v', 'f')
  AND grants.applies AND :'replication'::bool
\gexec

COMMIT;
