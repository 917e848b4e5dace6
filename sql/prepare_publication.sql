-- Prepares a table for a role that does not own it. Run it as the owner of the table, before the job starts. It creates
-- the destination column and a publication, and grants the daemon's role the privileges that it needs. It may run again,
-- and once for each job of a table: what is there already stays.
--
--   psql "$TARGET" -v schema=public -v table=articles -v key=id -v source=title \
--        -v destination=title_embedding -v type='vector(384)' -v role=lantern -f sql/prepare_publication.sql
--
-- For a job with a fingerprint column, add -v fingerprint=title_fingerprint; the column is created as well.
-- For a job with a chunk_table, give -v chunk_schema=search, the schema of that table, in place of destination and type:
-- the publication then has deletes and truncates, too, and the role may create the table in that schema.
-- For a job whose template names further columns, add them as one list: -v fields='author, year'.
-- Give a key of several columns as one list: -v key='tenant, id'. From PostgreSQL 18 on, a table with REPLICA IDENTITY
-- FULL and stored generated columns also needs: ALTER PUBLICATION … SET (publish_generated_columns = stored).
-- A superuser creates the role once:  CREATE ROLE lantern LOGIN REPLICATION PASSWORD '…';

\set ON_ERROR_STOP on
\if :{?fingerprint}
\else
  \set fingerprint ''
\endif
\if :{?chunk_schema}
\else
  \set chunk_schema ''
\endif
\if :{?fields}
\else
  \set fields ''
\endif

SELECT
  -- The name must begin with lantern_prepared_; the daemon uses the publication for every job that it fits. A name of more
  -- than 63 bytes would be cut, and then be the same for several tables.
  CASE WHEN octet_length(name) <= 63 THEN name ELSE 'lantern_prepared_' || md5(name) END AS publication,
  :'fingerprint' <> '' AS has_fingerprint,
  :'chunk_schema' <> '' AS has_chunks,
  CASE WHEN :'chunk_schema' = '' THEN 'insert, update' ELSE 'insert, update, delete, truncate' END AS changes,
  :'fields' <> '' AS has_fields,
  current_setting('server_version_num')::int >= 150000 AS has_column_lists
FROM (SELECT concat_ws('_', 'lantern_prepared', :'schema', :'table', :'source',
                                CASE WHEN :'chunk_schema' <> '' THEN 'chunks' END)) AS p (name) \gset

BEGIN;
SET LOCAL lock_timeout = '2s';

\if :has_chunks
\else
ALTER TABLE :"schema".:"table" ADD COLUMN IF NOT EXISTS :"destination" :type;
\endif
\if :has_fingerprint
ALTER TABLE :"schema".:"table" ADD COLUMN IF NOT EXISTS :"fingerprint" uuid;
\endif

-- Publishes only inserts and updates (of a job with a chunk_table all changes), and of these only the key, the source, the fields and the fingerprint column; whole
-- rows on PostgreSQL 14 and under REPLICA IDENTITY FULL. Generated fields are not published: the daemon reads them by key.
SELECT COALESCE(string_agg(quote_ident(attname), ', ' ORDER BY attnum), '') AS published_fields
FROM pg_attribute
WHERE attrelid = format('%I.%I', :'schema', :'table')::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
  AND attname IN (SELECT btrim(btrim(name), '"') FROM unnest(string_to_array(:'fields', ',')) AS name)
  AND attname NOT IN (SELECT btrim(btrim(name), '"')
                      FROM unnest(string_to_array(:'key', ',') || ARRAY[:'source', :'fingerprint']) AS name) \gset

SELECT
  relkind = 'p' AS is_partitioned,
  CASE WHEN relkind = 'p' THEN '' ELSE 'ONLY ' END || format('%I.%I', :'schema', :'table') AS published,
  CASE WHEN :'has_column_lists'::bool AND relreplident <> 'f'
    THEN '(' || concat_ws(', ', :'key', quote_ident(:'source'), NULLIF(:'published_fields', ''),
                              quote_ident(NULLIF(:'fingerprint', ''))) || ')'
    ELSE '' END AS columns
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :'schema' AND c.relname = :'table' \gset

SELECT format('CREATE PUBLICATION %I FOR TABLE %s %s WITH (publish = %L, publish_via_partition_root = %s)',
              :'publication', :'published', :'columns', :'changes', (:'is_partitioned'::bool)::text)
WHERE NOT EXISTS (SELECT FROM pg_publication WHERE pubname = :'publication')
\gexec

-- One from an earlier run lacks the fingerprint column or fields, if the job has got them since. What it has stays: another
-- job may need it.
\if :has_column_lists
SELECT format('ALTER PUBLICATION %I SET TABLE %s %s', :'publication', :'published', CASE
  WHEN :'columns' = '' OR r.prattrs IS NULL THEN :'columns'
  ELSE (SELECT format('(%s)', string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)) FROM pg_attribute a
        WHERE a.attrelid = r.prrelid AND NOT a.attisdropped AND (a.attnum = ANY (r.prattrs::int2[]) OR a.attname IN (
          SELECT btrim(btrim(name), '"')
          FROM unnest(string_to_array(:'published_fields', ',') || ARRAY[:'source', :'fingerprint']) AS name)))
  END)
FROM pg_publication p LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid
WHERE p.pubname = :'publication' AND CASE
  WHEN :'columns' = '' THEN r.prattrs IS NOT NULL OR r.oid IS NULL
  ELSE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs::int2[])
                   HAVING array_agg(a.attname::text) @> (
                     SELECT array_agg(btrim(btrim(name), '"'))
                     FROM unnest(string_to_array(:'key', ',') || string_to_array(:'published_fields', ',')
                                 || ARRAY[:'source', NULLIF(:'fingerprint', '')]) AS name
                     WHERE name IS NOT NULL))
  END
\gexec
\endif

GRANT USAGE ON SCHEMA :"schema" TO :"role";
-- ctid and tableoid: a write-back updates exactly the row versions that it has locked.
GRANT SELECT (:key, :"source", ctid, tableoid) ON :"schema".:"table" TO :"role";
\if :has_chunks
GRANT USAGE, CREATE ON SCHEMA :"chunk_schema" TO :"role";
\else
GRANT SELECT (:"destination"), UPDATE (:"destination") ON :"schema".:"table" TO :"role";
\endif
\if :has_fields
GRANT SELECT (:fields) ON :"schema".:"table" TO :"role";
\endif
\if :has_fingerprint
GRANT SELECT (:"fingerprint"), UPDATE (:"fingerprint") ON :"schema".:"table" TO :"role";
\endif

COMMIT;
