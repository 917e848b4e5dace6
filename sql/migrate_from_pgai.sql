-- Moves a vectorizer of pgai to a job of lantern-cli. Run it in the database of the vectorizer, as a superuser or as
-- the owner of its source table:
--
--   psql "$TARGET" -v vectorizer=1 -v db_connection='postgresql://lantern@localhost:5432/test' \
--        -f sql/migrate_from_pgai.sql
--
-- This prints what would be done and changes nothing. Add -v run=yes to do it, in one transaction. What cannot be moved
-- is refused with the reason. Of pgai only the table ai.vectorizer is read, in the shape of any version from 0.7 on;
-- its functions may be gone. docs/migrating-from-pgai.md goes through all steps; sql/drop_pgai.sql is the last one.
--
-- vectorizer      id of the vectorizer, or its name
-- db_connection   connection string of the job: this database, as the daemon's role
-- chunk_table     name of the new table of passages (default: <source table>_chunks)
-- chunk_schema    its schema (default: that of pgai's store table)
-- role            the daemon's role, if it should own that table (default: the role that runs this owns it)
-- jobs            the jobs table, if it is in this database (default: public.jobs); otherwise the job is only printed
-- runtime, model  the model in the words of a jobs row, where those of the vectorizer do not have it
-- params          members of runtime_params as a JSON object; they replace those of the vectorizer, null removes one
-- run             yes: do it

\set ON_ERROR_STOP on
\if :{?chunk_table}
\else
  \set chunk_table ''
\endif
\if :{?chunk_schema}
\else
  \set chunk_schema ''
\endif
\if :{?role}
\else
  \set role ''
\endif
\if :{?jobs}
\else
  \set jobs public.jobs
\endif
\if :{?runtime}
\else
  \set runtime ''
\endif
\if :{?model}
\else
  \set model ''
\endif
\if :{?params}
\else
  \set params '{}'
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
-- The settings under which the daemon reads fields of a template.
SET LOCAL DateStyle = ISO;
SET LOCAL TimeZone = 'UTC';
SET LOCAL IntervalStyle = postgres;
SET LOCAL extra_float_digits = 1;

-- A template of Python ($chunk, ${title}, $$) as a template of a job ({chunk}, {title}, braces doubled), with SQL for
-- what stands before and behind the passage in the text of the row t.
CREATE FUNCTION pg_temp.template_of(python text, OUT template text, OUT before text, OUT behind text, OUT fields text[],
                                    OUT passages int, OUT is_wrong bool) LANGUAGE plpgsql AS $$
DECLARE
  token text[];
  name text;
  piece text;
BEGIN
  template := '';
  fields := '{}';
  passages := 0;
  is_wrong := false;
  FOR token IN SELECT regexp_matches(python,
    '([^$]+)|\$(\$)|\$([_a-zA-Z][_a-zA-Z0-9]*)|\$\{([_a-zA-Z][_a-zA-Z0-9]*)\}|(\$)', 'g')
  LOOP
    name := COALESCE(token[3], token[4]);
    IF name = 'chunk' THEN
      passages := passages + 1;
    ELSIF name IS NOT NULL THEN
      fields := array_append(array_remove(fields, name), name);
      piece := format('CASE WHEN t.%1$I IS NULL THEN '''' ELSE format(''%%s'', t.%1$I) END', name);
    ELSE
      is_wrong := is_wrong OR token[5] IS NOT NULL;
      piece := quote_literal(COALESCE(token[1], '$'));
    END IF;
    template := template || COALESCE('{' || name || '}',
                                     replace(replace(COALESCE(token[1], '$'), '{', '{{'), '}', '}}'));
    IF passages = 0 THEN
      before := concat_ws(' || ', before, piece);
    ELSIF name IS DISTINCT FROM 'chunk' THEN
      behind := concat_ws(' || ', behind, piece);
    END IF;
  END LOOP;
  before := COALESCE(before, '''''');
  behind := COALESCE(behind, '''''');
END $$;

-- The model of a vectorizer in the words of a jobs row.
CREATE FUNCTION pg_temp.model_of(embedding jsonb, OUT runtime text, OUT model text, OUT params jsonb, OUT fault text)
LANGUAGE plpgsql AS $$
DECLARE
  provider text := embedding->>'implementation';
  more jsonb := COALESCE(embedding->'extra_options', '{}');
  url text := COALESCE(more->>'api_base', embedding->>'base_url');
  key text := embedding->>'api_key_name';
BEGIN
  model := embedding->>'model';
  IF provider = 'litellm' THEN
    provider := CASE WHEN model LIKE '%/%' THEN split_part(model, '/', 1) ELSE 'openai' END;
    model := substr(model, strpos(model, '/') + 1);
    key := COALESCE(key, upper(provider) || '_API_KEY');
    params := jsonb_build_object('dimensions', more->'dimensions', 'input_type', more->'input_type');
  ELSIF provider = 'voyageai' THEN
    provider := 'voyage';
    params := jsonb_build_object('input_type', NULLIF(embedding->>'input_type', 'document'));
  ELSIF provider = 'openai' AND model <> 'text-embedding-ada-002' THEN
    params := jsonb_build_object('dimensions', embedding->'dimensions');
  END IF;
  runtime := CASE WHEN provider IN ('mistral', 'azure') THEN 'openai' ELSE provider END;
  CASE provider
    WHEN 'openai', 'cohere', 'voyage' THEN
    WHEN 'ollama' THEN
      key := NULL;
    WHEN 'mistral' THEN
      url := COALESCE(url, 'https://api.mistral.ai/v1');
    WHEN 'azure' THEN
      params := params || '{"api_key_header": "api-key"}';
      -- The endpoint that needs no api-version.
      url := regexp_replace(url, '/+$', '') || '/openai/v1';
      IF url IS NULL THEN
        fault := format('the catalog does not have the address of its Azure resource; add -v runtime=openai '
          '-v model=%s -v params=''{"base_url": "https://NAME.openai.azure.com/openai/v1", "api_key_env": "%s", '
          '"api_key_header": "api-key"}''', model, key);
      END IF;
    ELSE
      fault := format('no runtime of a job has models of %s; name a server that has this model behind the API of '
        'OpenAI, such as a gateway: add -v runtime=openai -v model=%s -v params=''{"base_url": "https://…/v1"}''',
        COALESCE(provider, 'an unknown provider'), COALESCE(model, 'NAME'));
  END CASE;
  params := jsonb_strip_nulls(COALESCE(params, '{}') || jsonb_build_object('base_url', url, 'api_key_env', key));
END $$;

-- The text that a query returns.
CREATE FUNCTION pg_temp.answer(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  answer text;
BEGIN
  EXECUTE query INTO answer;
  RETURN answer;
END $$;

DO $$
BEGIN
  IF to_regclass('ai.vectorizer') IS NULL THEN
    RAISE EXCEPTION 'this database has no table ai.vectorizer; connect to the database of the vectorizer';
  END IF;
END $$;

-- The vectorizer, in one shape for all versions of pgai. In older ones its store table and view are columns of the
-- catalog, and the column with the texts is an option of chunking.
CREATE TEMP TABLE moved ON COMMIT DROP AS
SELECT v.id, c.embedding, c.chunking, c.indexing, c.loading, c.destination, c.text_column, c.is_column, s.*, k.*, f.*,
       m.runtime, m.model, m.params, m.fault, t.template, t.before, t.behind, t.fields, t.passages, t.is_wrong
FROM (SELECT w.id, to_jsonb(w) AS catalog, w.config FROM ai.vectorizer w) v
CROSS JOIN LATERAL (
  SELECT COALESCE(v.config->'embedding', '{}') AS embedding, COALESCE(v.config->'chunking', '{}') AS chunking,
         COALESCE(v.config->'indexing', '{}') AS indexing, COALESCE(v.config->'loading', '{}') AS loading,
         COALESCE(v.config->'destination', v.catalog || '{"implementation": "table"}') AS destination,
         COALESCE(v.config->'loading'->>'column_name', v.config->'chunking'->>'chunk_column') AS text_column,
         COALESCE(v.config->'destination'->>'implementation' = 'column', false) AS is_column) c
CROSS JOIN LATERAL (
  SELECT v.catalog->>'source_schema' AS source_schema, v.catalog->>'source_table' AS source_table,
         to_regclass(format('%I.%I', v.catalog->>'source_schema', v.catalog->>'source_table')) AS source,
         to_regclass(CASE
           WHEN c.is_column THEN format('%I.%I', v.catalog->>'source_schema', v.catalog->>'source_table')
           ELSE format('%I.%I', c.destination->>'target_schema', c.destination->>'target_table') END) AS store,
         CASE WHEN c.is_column THEN c.destination->>'embedding_column' ELSE 'embedding' END AS vectors,
         ARRAY(SELECT q.oid::regclass FROM pg_class q
               WHERE q.relnamespace = to_regnamespace(quote_ident(v.catalog->>'queue_schema')) AND q.relkind = 'r'
                 AND q.relname IN (v.catalog->>'queue_table', v.catalog->>'queue_failed_table')) AS queues,
         COALESCE(NULLIF(:'chunk_schema', ''), c.destination->>'target_schema', v.catalog->>'source_schema')
           AS chunk_schema,
         COALESCE(NULLIF(:'chunk_table', ''), v.catalog->>'source_table' || '_chunks') AS chunk_table) s
CROSS JOIN LATERAL (
  SELECT array_agg(p.value->>'attname' ORDER BY (p.value->>'pknum')::int) AS key,
         string_agg(format('c.%1$I = t.%1$I', p.value->>'attname'), ' AND ') AS joined,
         string_agg(format('c.%1$I = OLD.%1$I', p.value->>'attname'), ' AND ') AS of_old,
         string_agg(quote_ident(p.value->>'attname'), ', ' ORDER BY (p.value->>'pknum')::int) AS keys
  FROM jsonb_array_elements(v.catalog->'source_pk') p) k
CROSS JOIN LATERAL (
  SELECT format('%I.%I', s.chunk_schema, s.chunk_table) AS passages_table, 'lantern_bridge_' || v.id AS bridge) f
CROSS JOIN LATERAL pg_temp.template_of(CASE WHEN v.config->'formatting'->>'implementation' = 'python_template'
                                            THEN v.config->'formatting'->>'template' ELSE '$chunk' END) t
CROSS JOIN LATERAL (
  SELECT * FROM pg_temp.model_of(c.embedding) WHERE :'runtime' = ''
  UNION ALL SELECT :'runtime', c.embedding->>'model', '{}', NULL WHERE :'runtime' <> '') m
WHERE :'vectorizer' IN (v.id::text, v.catalog->>'name');

-- What cannot be moved, and why.
CREATE TEMP TABLE faults ON COMMIT DROP AS
SELECT format('there is no such vectorizer; ai.vectorizer has: %s',
              (SELECT string_agg(id::text, ', ' ORDER BY id) FROM ai.vectorizer)) AS fault
WHERE NOT EXISTS (SELECT FROM moved)
UNION ALL
SELECT format('its source table %I.%I does not exist; correct the names in ai.vectorizer', source_schema, source_table)
FROM moved WHERE source IS NULL
UNION ALL
SELECT 'its configuration names no column with texts; add a job by hand, it embeds all rows'
FROM moved WHERE text_column IS NULL
UNION ALL
SELECT format('it loads files, whose addresses are in the column %I; a job embeds texts: write the text of each file '
              'into a column, and give that column a job', text_column)
FROM moved WHERE loading->>'implementation' = 'uri'
UNION ALL
SELECT format('it parses documents in the column %I; a job embeds texts: write the text of each document into a '
              'column, and give that column a job', text_column)
FROM moved WHERE EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = source AND a.attname = text_column
                         AND a.atttypid = 'bytea'::regtype) AND loading->>'implementation' IS DISTINCT FROM 'uri'
UNION ALL
SELECT format('%s lacks the column %I; correct the configuration in ai.vectorizer', source, needed)
FROM moved CROSS JOIN unnest(fields || text_column || key) AS needed
WHERE source IS NOT NULL AND needed IS NOT NULL AND NOT EXISTS (
  SELECT FROM pg_attribute a WHERE a.attrelid = source AND a.attname = needed AND NOT a.attisdropped)
UNION ALL
SELECT format('its key (%s) is no longer primary key and replica identity of %s; add a job by hand, it embeds all '
              'rows', keys, source)
FROM moved WHERE source IS NOT NULL AND NOT EXISTS (
  SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
  WHERE i.indrelid = source AND i.indisprimary AND (i.indisreplident OR c.relreplident IN ('d', 'f'))
    AND cardinality(key) = i.indnkeyatts
    AND key <@ ARRAY(
      SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = source AND a.attnum = ANY (i.indkey)))
UNION ALL
SELECT 'its template lacks $chunk, or has a $ that is neither doubled nor before a name; correct it in ai.vectorizer'
FROM moved WHERE is_wrong OR passages = 0
UNION ALL
SELECT format('its template has the whole text ($%s) beside each passage, which a job cannot do; add a job by hand, it '
              'embeds all rows', text_column)
FROM moved WHERE text_column = ANY (fields)
UNION ALL
SELECT fault FROM moved WHERE fault IS NOT NULL
UNION ALL
SELECT format('its destination is unknown here: %s; add a job by hand, it embeds all rows', destination)
FROM moved WHERE NOT is_column AND destination->>'implementation' <> 'table'
UNION ALL
SELECT format('its table with the vectors, %s, does not exist or lacks the column %I; add a job by hand, it embeds all '
              'rows', COALESCE(store::text, destination->>'target_table'), needed)
FROM moved CROSS JOIN unnest(
  CASE WHEN is_column THEN ARRAY[vectors] ELSE key || ARRAY['chunk_seq', 'chunk', vectors] END) AS needed
WHERE source IS NOT NULL AND NOT EXISTS (
  SELECT FROM pg_attribute a WHERE a.attrelid = store AND a.attname = needed AND NOT a.attisdropped)
UNION ALL
SELECT format('the table %s exists already; drop it, or name another one with -v chunk_table', passages_table)
FROM moved WHERE NOT is_column AND to_regclass(passages_table) IS NOT NULL;

-- The job.
CREATE TEMP TABLE job ON COMMIT DROP AS
SELECT o.name, o.kind, o.value, row_number() OVER () AS place
FROM moved m
CROSS JOIN LATERAL (
  SELECT GREATEST(8, (m.chunking->>'chunk_size')::int / 4) AS tokens,
         (m.chunking->>'chunk_overlap')::int / 4 AS overlap,
         EXISTS (SELECT FROM jsonb_array_elements_text(m.chunking->'separators') s WHERE s ~ '^\n*#') AS is_markdown,
         (SELECT a.atttypmod FROM pg_attribute a WHERE a.attrelid = m.store AND a.attname = m.vectors) AS dimensions,
         m.indexing->>'implementation' IN ('hnsw', 'diskann') AS is_indexed) c
CROSS JOIN LATERAL (
  SELECT NULLIF(jsonb_strip_nulls(m.params
    || CASE WHEN m.is_column OR m.chunking->>'chunk_size' IS NULL THEN '{}' ELSE jsonb_build_object(
         -- A token is about four characters.
         'chunk_tokens', c.tokens, 'chunk_overlap', LEAST(c.overlap, c.tokens / 2),
         'chunk_mode', CASE WHEN c.is_markdown THEN 'markdown' END) END
    || jsonb_build_object('template', NULLIF(m.template, '{chunk}')) || :'params'::jsonb), '{}') AS params,
    NULLIF(jsonb_strip_nulls(jsonb_build_object(
      'distance', CASE m.indexing->>'opclass' WHEN 'vector_ip_ops' THEN 'inner_product'
                                              WHEN 'vector_l1_ops' THEN 'l1' END,
      'm', m.indexing->'m', 'ef_construction', m.indexing->'ef_construction',
      -- An index on the type vector has at most 2,000 dimensions.
      'type', CASE WHEN c.dimensions > 2000 THEN 'halfvec' END)), '{}') AS hnsw) p
CROSS JOIN LATERAL (VALUES
  ('db_connection', 'text', :'db_connection'),
  ('schema', 'text', m.source_schema),
  ('table', 'text', m.source_table),
  ('src_column', 'text', m.text_column),
  ('dst_column', 'text', m.vectors),
  ('chunk_table', 'text', CASE WHEN NOT m.is_column THEN m.passages_table END),
  ('embedding_model', 'text', COALESCE(NULLIF(:'model', ''), m.model)),
  ('runtime', 'text', m.runtime),
  ('runtime_params', 'jsonb', p.params::text),
  ('trust_existing', 'bool', 'true'),
  ('create_index', 'text', CASE WHEN c.is_indexed THEN 'hnsw' END),
  ('index_params', 'jsonb', CASE WHEN c.is_indexed THEN p.hnsw::text END))
  AS o (name, kind, value)
WHERE o.value IS NOT NULL;

INSERT INTO faults
SELECT format('%s lacks columns that its job needs; run: ALTER TABLE %1$s %s;', :'jobs',
              string_agg(format('ADD COLUMN %I %s', name, kind), ', '))
FROM job WHERE to_regclass(:'jobs') IS NOT NULL AND NOT EXISTS (
  SELECT FROM pg_attribute a WHERE a.attrelid = to_regclass(:'jobs') AND a.attname = job.name AND NOT a.attisdropped)
HAVING count(*) > 0;

SELECT set_config('lantern.vectorizer', :'vectorizer', true) AS vectorizer \gset
DO $$
BEGIN
  IF EXISTS (SELECT FROM faults) THEN
    RAISE EXCEPTION E'vectorizer % cannot be moved:\n- %', current_setting('lantern.vectorizer'),
      (SELECT string_agg(DISTINCT fault, E'\n- ') FROM faults);
  END IF;
END $$;

-- What is said beforehand.
SELECT format('-- vectorizer %s: %I of %s, embedded with %s by %s', id, text_column, source, embedding->>'model',
              embedding->>'implementation') FROM moved;
SELECT '-- ' || pg_temp.answer(format(
  'SELECT format(''%s has %%s chunks of %%s rows; %%s of these rows have one chunk'', COALESCE(sum(n), 0), count(*), '
  'count(*) FILTER (WHERE n = 1)) FROM (SELECT count(*) AS n FROM %s GROUP BY %s) c', store, store, keys))
FROM moved WHERE NOT is_column;
SELECT '-- ' || pg_temp.answer(format(
  'SELECT format(''%%s rows, %%s of them with a vector'', count(*), count(%I)) FROM %s', vectors, store))
FROM moved WHERE is_column;
SELECT format('-- %s changes wait in %s', pg_temp.answer(format('SELECT count(*) FROM %s', queue)), queue)
FROM moved CROSS JOIN unnest(queues) AS queue;
SELECT format('-- chunk_size %s, overlap %s, in characters: about four are a token', chunking->>'chunk_size',
              chunking->>'chunk_overlap')
FROM moved WHERE NOT is_column AND chunking->>'chunk_size' IS NOT NULL;
SELECT '-- it does not divide texts; the job cuts those that are longer than its chunk_tokens'
FROM moved WHERE NOT is_column AND chunking->>'chunk_size' IS NULL;
SELECT '-- its separators are not taken over: passages end at paragraphs, lines, sentences and words'
FROM moved WHERE chunking->>'implementation' = 'character_text_splitter' OR chunking->>'is_separator_regex' = 'true';
SELECT '-- its index diskann becomes hnsw' FROM moved WHERE indexing->>'implementation' = 'diskann';
SELECT format('-- options of the model that a job does not have: %s', options.rest)
FROM moved CROSS JOIN LATERAL (
  SELECT COALESCE(embedding->'options', embedding->'extra_options', '{}') - '{dimensions,input_type,api_base}'::text[]
         AS rest) options
WHERE options.rest <> '{}';
SELECT '-- its template has $chunk more than once: no chunk is adopted, all passages are embedded'
FROM moved WHERE passages > 1;

-- What is done, in this order.
CREATE TEMP TABLE steps (step serial, statement text) ON COMMIT DROP;

-- The table of passages. Key columns are declared as those of the source.
INSERT INTO steps (statement)
SELECT format('CREATE TABLE %s (%s, chunk_seq integer, chunk_start integer, chunk_end integer, chunk text, '
              'embedding %s, chunk_fingerprint uuid, document_fingerprint uuid, PRIMARY KEY (%s, chunk_seq))',
              passages_table, declared.columns, (SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
                                 WHERE a.attrelid = store AND a.attname = vectors), keys)
FROM moved CROSS JOIN LATERAL (
  SELECT string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
           || COALESCE(' COLLATE ' || quote_ident(n.nspname) || '.' || quote_ident(l.collname), ''), ', '
           ORDER BY array_position(key, a.attname::text)) AS columns
  FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
  LEFT JOIN pg_collation l ON l.oid = a.attcollation AND l.oid <> y.typcollation
  LEFT JOIN pg_namespace n ON n.oid = l.collnamespace
  WHERE a.attrelid = source AND a.attname = ANY (key)) declared
WHERE NOT is_column;

-- A bridge until the job has looked at each row. A vector is also of the fields of the template, which passages do not
-- have: so the passages of a row are removed where its fields change. The lock: no change is between copy and trigger.
INSERT INTO steps (statement)
SELECT step.statement
FROM moved CROSS JOIN LATERAL (
  SELECT string_agg(format('OLD.%1$I::text IS DISTINCT FROM NEW.%1$I::text', c), ' OR ') AS changed
  FROM unnest(key || fields) AS c) what
CROSS JOIN LATERAL (VALUES
  (format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', source)),
  (format($f$CREATE FUNCTION %I.%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $bridge$
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    DELETE FROM %s c WHERE c.chunk_fingerprint IS NULL;
    RETURN NULL;
  ELSIF TG_OP = 'UPDATE' THEN
    IF NOT (%s) THEN
      RETURN NULL;
    END IF;
  END IF;
  DELETE FROM %3$s c WHERE %5$s AND c.chunk_fingerprint IS NULL;
  RETURN NULL;
EXCEPTION WHEN undefined_table THEN
  RETURN NULL;
END $bridge$$f$, chunk_schema, bridge, passages_table, what.changed, of_old)),
  (format('REVOKE ALL ON FUNCTION %I.%I() FROM PUBLIC', chunk_schema, bridge)),
  (format('CREATE TRIGGER zz_%s AFTER UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION %I.%1$I()',
          bridge, source, chunk_schema)),
  (format('CREATE TRIGGER zz_%s_truncate AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION %I.%1$I()',
          bridge, source, chunk_schema))) AS step (statement)
WHERE NOT is_column AND fields <> '{}' AND passages = 1;

-- The chunks. pgai stores the text that it has embedded, with what its template puts around the chunk; so a chunk is
-- taken over exactly where the template with the row's fields of today makes that text again.
INSERT INTO steps (statement)
SELECT format($f$INSERT INTO %s (%s, chunk_seq, chunk_start, chunk_end, chunk, embedding)
SELECT %s, c.chunk_seq, place.start, place.start + length(passage.chunk), passage.chunk, c.embedding
FROM %s c JOIN %s t ON %s
CROSS JOIN LATERAL (SELECT (%s) COLLATE "C" AS before, (%s) COLLATE "C" AS behind) around
CROSS JOIN LATERAL (
  SELECT substr(c.chunk, length(around.before) + 1,
                length(c.chunk) - length(around.before) - length(around.behind)) AS chunk
  WHERE length(c.chunk) > length(around.before) + length(around.behind)) passage
CROSS JOIN LATERAL (
  SELECT NULLIF(strpos(left(t.%I::text, 1000000) COLLATE "C", passage.chunk), 0) - 1 AS start) place
WHERE c.chunk COLLATE "C" = around.before || passage.chunk || around.behind$f$, passages_table, keys,
  (SELECT string_agg(format('t.%I', k), ', ') FROM unnest(key) AS k), store, source, joined, before, behind,
  text_column)
FROM moved WHERE NOT is_column AND passages = 1;

-- Who reads the store table reads the new one.
INSERT INTO steps (statement)
SELECT format('GRANT SELECT ON %s TO %s', passages_table, string_agg(DISTINCT
         CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END, ', '))
FROM moved JOIN pg_class c ON c.oid = store CROSS JOIN LATERAL aclexplode(c.relacl) x
WHERE NOT is_column AND x.privilege_type = 'SELECT' AND x.grantee <> c.relowner
GROUP BY passages_table;

INSERT INTO steps (statement)
SELECT step.statement
FROM moved CROSS JOIN LATERAL (VALUES
  (format('GRANT USAGE, CREATE ON SCHEMA %I TO %I', chunk_schema, :'role')),
  (format('ALTER TABLE %s OWNER TO %I', passages_table, :'role'))) AS step (statement)
WHERE NOT is_column AND :'role' <> '';

-- The bridge of a vectorizer that writes a column: a text that changes before the job runs loses its vector, and the
-- job embeds what has none. So do the rows whose changes pgai has not come to.
INSERT INTO steps (statement)
SELECT step.statement
FROM moved CROSS JOIN LATERAL (
  SELECT string_agg(format('OLD.%1$I::text IS DISTINCT FROM NEW.%1$I::text', c), ' OR ') AS changed
  FROM unnest(fields || text_column) AS c) what
CROSS JOIN LATERAL (
  SELECT format($f$CREATE FUNCTION %I.%I() RETURNS trigger LANGUAGE plpgsql AS $bridge$
BEGIN
  IF %s THEN
    NEW.%I := NULL;
  END IF;
  RETURN NEW;
END $bridge$$f$, source_schema, bridge, what.changed, vectors)
  UNION ALL
  SELECT format('CREATE TRIGGER zz_%s BEFORE UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION %I.%1$I()',
                bridge, source, source_schema)
  UNION ALL
  SELECT format('UPDATE %s t SET %I = NULL FROM %s c WHERE %s AND t.%2$I IS NOT NULL', source, vectors, queue, joined)
  FROM unnest(queues) AS queue) AS step (statement)
WHERE is_column;

INSERT INTO steps (statement)
SELECT format('INSERT INTO %s (%s) VALUES (%s)', :'jobs', string_agg(quote_ident(name), ', ' ORDER BY place),
              string_agg(quote_literal(value), ', ' ORDER BY place))
FROM job;

SELECT to_regclass(:'jobs') IS NULL AS jobs_are_elsewhere \gset

-- A password is not shown.
SELECT replace(statement, quote_literal(:'db_connection'), quote_literal(regexp_replace(regexp_replace(
         :'db_connection', '(//[^:/@]*:)[^@]*@', '\1…@'), '(password\s*=\s*)(''[^'']*''|\S+)', '\1…', 'i'))) || ';'
FROM steps ORDER BY step;
\if :jobs_are_elsewhere
DELETE FROM steps WHERE step = (SELECT max(step) FROM steps);
\echo '-- the jobs table is not in this database: run the last statement there, with the password'
\endif

\if :run
SELECT statement FROM steps ORDER BY step
\gexec
COMMIT;
\echo '-- done'
\else
ROLLBACK;
\echo '-- nothing is changed: add -v run=yes'
\endif
