-- The jobs table of lantern-cli, with all columns that the daemon knows. This file changes nothing if the table exists.
-- To add a column to an existing table, use ALTER TABLE jobs ADD COLUMN, with the type below.
--
--   psql "$JOBS_DATABASE" -f sql/jobs.sql               (or lantern-cli create-table --uri "$JOBS_DATABASE")
--   lantern-cli start-daemon --uri "$JOBS_DATABASE" --table jobs
--
-- Each row is a job: it keeps the embeddings of one column up to date. The daemon notices new, changed, canceled and
-- deleted rows within a second. Insert the columns of the first group; the daemon writes those of the last one:
--
--   INSERT INTO jobs (db_connection, schema, "table", src_column, dst_column, embedding_model)
--   VALUES ('postgres://lantern@localhost:5432/test', 'public', 'articles', 'title', 'title_embedding',
--           'sentence-transformers/all-MiniLM-L6-v2');

CREATE TABLE IF NOT EXISTS jobs (
  id SERIAL PRIMARY KEY,

  -- What to embed
  db_connection TEXT NOT NULL,      -- target database, postgresql://[username]:[password]@[host]:[port]/[dbname]
  write_connection TEXT,            -- the same database as another role, for all that reads and writes rows: that role
                                    -- needs no REPLICATION (default: db_connection)
  schema TEXT,                      -- target schema (default public)
  "table" TEXT,                     -- target table, with a primary key or a replica identity index
  src_column TEXT,                  -- source column; a text of NULL or '' clears the embedding
  dst_column TEXT,                  -- destination column for the embeddings, created if it does not exist
  embedding_model TEXT,             -- model name, one of lantern-cli show-models or of the Hugging Face hub, downloaded
                                    -- at its first use: organization/name[@revision][:file.onnx]

  -- How to embed it (optional)
  pk TEXT,                          -- names of the key columns, separated by commas, such as 'tenant, id'; the job
                                    -- fails if the key of the target table is another one (default: any key)
  label TEXT,                       -- a daemon started with --label runs only jobs with that label
  column_type TEXT,                 -- type of a destination column that the daemon creates (default: vector(n) if the
                                    -- target database has pgvector, otherwise REAL[])
  batch_size INT,                   -- maximum number of rows in one write-back (default 512, at most 4096)
  fingerprint_column TEXT,          -- uuid column of the target table, created if it does not exist; it identifies the
                                    -- text and model of a row's vector, so that no finished row is embedded again
  chunk_table TEXT,                 -- table for passages of the texts with a vector each, created if it does not exist:
                                    -- docs_chunks or search.docs_chunks; dst_column is then a column of that table
                                    -- (default embedding); see docs/chunks.md
  trust_existing BOOL,              -- true: the first backfill of the job accepts existing vectors (default false)
  backfill BOOL,                    -- false: no scan, embed only rows that change from now on (default true)
  skip_triggers BOOL,               -- true: write-backs fire no triggers of the target table (default false); needs the
                                    -- privilege to set session_replication_role
  create_index TEXT,                -- hnsw: after the initial backfill the daemon builds this index of pgvector on the
                                    -- destination, without blocking writers (default: none)
  index_params JSONB,               -- what that index is like: {"distance": "cosine", "m": 16, "ef_construction": 64,
                                    -- "type": "halfvec", "maintenance_work_mem": "2GB"}; see docs/search.md
  runtime TEXT DEFAULT 'ort',       -- where the model is: ort (in the daemon), openai, cohere, voyage, ollama
  runtime_params JSONB,             -- how the model is used: pooling, prompts, tasks, lengths; see docs/models.md. With
                                    -- {"template": "{title}\n{body}"} several columns make one vector

  -- Another model for the column of another job; see docs/changing-models.md (optional)
  replaces INT,                     -- the id of that job: this one fills a column beside it, and takes its place
  accept_failures BOOL,             -- true: rows that could not be embedded do not hold that up (default false)

  -- Canceling the job
  canceled_at BOOL,                 -- true: the job ends, and its slot and publication are removed

  -- Written by the daemon (restart it after adding one of these to an existing table)
  init_started_at TIMESTAMP,        -- when the initial backfill started
  init_failed_at TIMESTAMP,         -- when the job failed, at any time; set it to NULL to retry the job
  init_finished_at TIMESTAMP,       -- when the initial backfill finished
  init_failure_reason TEXT,         -- why the job failed, and what to do
  init_progress INT2 DEFAULT 0,     -- percent of the initial backfill, 0 to 100
  waits_for TEXT,                   -- open transactions that delay the creation of the slot, or hold a lock
  last_error TEXT,                  -- why the job is interrupted now, such as a server that is away; NULL: it runs
  last_error_at TIMESTAMP,          -- since when that is so
  stats JSONB,                      -- rates, lag and counts, every two seconds while they change; read them through
                                    -- sql/monitoring.sql or lantern-cli status
  index_state TEXT,                 -- the index of create_index: how far its build is, that it is there, or why not
  replaced_by INT,                  -- the job that has taken over the column of this one, which is canceled then

  created_at TIMESTAMP NOT NULL DEFAULT now(),
  updated_at TIMESTAMP              -- when the daemon last wrote to the row
);

-- Rows that could not be embedded or written. The daemon writes this table; its name is that of the jobs table with
-- _failures behind it, so rename both together.
CREATE TABLE IF NOT EXISTS jobs_failures (
  job_id TEXT NOT NULL,
  key JSONB NOT NULL,               -- the key columns by name
  error TEXT NOT NULL,
  attempts INT NOT NULL,
  failed_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  PRIMARY KEY (job_id, key)
);

-- A daemon should log in as another role than the owner of these tables: the owner of a table with a job may do what the
-- daemon's role may. sql/role.sql creates one, with these rights:
--
--   GRANT SELECT, UPDATE ON jobs TO lantern;   -- of UPDATE, only the columns that the daemon writes
--   GRANT SELECT, INSERT, UPDATE, DELETE ON jobs_failures TO lantern;
