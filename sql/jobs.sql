-- The jobs table of lantern-cli, with every column that the daemon knows. Running this again changes nothing.
--
--   psql "$JOBS_DATABASE" -f sql/jobs.sql
--   lantern-cli start-daemon --uri "$JOBS_DATABASE" --table jobs
--
-- A row is a job: keep the embeddings of one column up to date. The daemon notices new, changed, cancelled and deleted
-- rows within a second. Insert the columns of the first group; the daemon itself writes those named init_*:
--
--   INSERT INTO jobs (db_connection, schema, "table", src_column, dst_column, embedding_model)
--   VALUES ('postgres://postgres@localhost:5432/test', 'public', 'articles', 'title', 'title_embedding',
--           'microsoft/all-MiniLM-L12-v2');

CREATE TABLE IF NOT EXISTS jobs (
  id SERIAL PRIMARY KEY,

  -- What to embed
  db_connection TEXT NOT NULL,      -- target database, postgresql://[username]:[password]@[host]:[port]/[dbname]
  schema TEXT,                      -- target schema (default public)
  "table" TEXT,                     -- target table; it needs a primary key or another replica identity index
  src_column TEXT,                  -- source column; NULL and '' in it clear the embedding
  dst_column TEXT,                  -- destination column for the embeddings, created where it is missing
  embedding_model TEXT,             -- model name, one of lantern-cli show-models

  -- How to embed it; may be left out
  pk TEXT,                          -- key column of the target table (default: its primary key or replica identity)
  label TEXT,                       -- leaves the job to daemons that were started with --label of this name
  column_type TEXT,                 -- type of a destination column that the daemon creates (default vector(n) where the
                                    -- target database has pgvector, else REAL[])
  batch_size INT,                   -- rows that are embedded and written at once (default: what suits the model)
  fingerprint_column TEXT,          -- uuid column of the target table, created where it is missing, that says which text and
                                    -- model a row's vector is of; with it nothing is embedded twice
  trust_existing BOOL,              -- true: vectors that are there already count as right (default false)
  backfill BOOL,                    -- false: only rows that change from now on are embedded (default true)
  skip_triggers BOOL,               -- true: write-backs fire no triggers of the target table (default false); needs the right
                                    -- to set session_replication_role
  runtime TEXT DEFAULT 'ort',       -- what runs the model: ort is ONNX Runtime inside the daemon
  runtime_params JSONB,             -- settings of that runtime; ort has none

  -- Closing the job
  canceled_at BOOL,                 -- true: all listeners of the job are closed; can change while the daemon runs

  -- Written by the daemon
  init_started_at TIMESTAMP,        -- first time the job was started
  init_failed_at TIMESTAMP,         -- when the first run failed; set it back to NULL to have the job tried again
  init_finished_at TIMESTAMP,       -- when the first run finished
  init_failure_reason TEXT,         -- why it failed
  init_progress INT2 DEFAULT 0,     -- how much of the first run is done, 0 to 100
  waits_for TEXT,                   -- open transactions that hold up the start

  created_at TIMESTAMP NOT NULL DEFAULT now(),
  updated_at TIMESTAMP
);
