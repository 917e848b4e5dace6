//! A database with a vectorizer of pgai, made by hand: pgai itself cannot be installed here.
//!
//! Modeled on what its public documents and SQL say of these versions:
//!
//! - **0.7**, an extension: store table and view are columns of `ai.vectorizer`, the column with the texts is an option
//!   of `chunking`, and an event trigger drops vectorizers whose tables are dropped.
//! - **0.11**, a library: `loading`, `parsing` and `destination` are members of `config`; vectorizers have names, a
//!   queue of failed rows and a second trigger for TRUNCATE.
//!
//! Both store the text that was embedded: the chunk within the template.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};
use testkit::client::{execute, value};
use testkit::stub_engine::{Behavior, vector_of};
use testkit::{StubEngine, TestDatabase, paths, server};
use tokio::process::Command;
use tokio_postgres::Client;

use crate::support::program;

/// The length of the vectors.
pub const DIMENSIONS: usize = 8;

/// The text by which a model elsewhere is tried before a job starts.
const PROBE: &str = "The lantern is lit at dusk.";

/// The example of pgai's documents: the table, and what its vectorizer keeps in the schema `website`.
const BLOG: &str = "CREATE SCHEMA website; \
     CREATE TABLE website.blog (id int PRIMARY KEY, title text NOT NULL, published date, \
       contents text NOT NULL, views int)";

/// The store table with its view.
const STORE: &str = "CREATE TABLE website.blog_embedding_store ( \
       embedding_uuid uuid NOT NULL PRIMARY KEY DEFAULT gen_random_uuid(), id int NOT NULL, chunk_seq int NOT NULL, \
       chunk text NOT NULL, embedding vector(8) NOT NULL, UNIQUE (id, chunk_seq)); \
     ALTER TABLE website.blog_embedding_store ALTER embedding SET STORAGE MAIN; \
     CREATE VIEW website.blog_embedding AS \
       SELECT t.embedding_uuid, t.chunk_seq, t.chunk, t.embedding, t.id, s.title, s.published, s.contents, s.views \
       FROM website.blog_embedding_store t LEFT JOIN website.blog s ON t.id = s.id";

/// The catalog of 0.11, and the objects of the vectorizer 1.
const LIBRARY: &str = "CREATE SCHEMA ai; \
     CREATE TABLE ai.vectorizer (id int PRIMARY KEY, source_schema name NOT NULL, source_table name NOT NULL, \
       source_pk jsonb NOT NULL, trigger_name name NOT NULL, queue_schema name, queue_table name, \
       queue_failed_table name, config jsonb NOT NULL, disabled bool NOT NULL DEFAULT false, name text UNIQUE); \
     CREATE TABLE ai.vectorizer_errors (id int NOT NULL REFERENCES ai.vectorizer ON DELETE CASCADE, message text); \
     CREATE TABLE ai._vectorizer_q_1 (id int NOT NULL, queued_at timestamptz NOT NULL DEFAULT now(), \
       attempts int NOT NULL DEFAULT 0, retry_after timestamptz); \
     CREATE INDEX ON ai._vectorizer_q_1 (id); \
     CREATE TABLE ai._vectorizer_q_failed_1 (id int NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), \
       failure_step text NOT NULL DEFAULT ''); \
     CREATE TRIGGER _vectorizer_src_trg_1 AFTER INSERT OR UPDATE OR DELETE ON website.blog \
       FOR EACH ROW EXECUTE FUNCTION ai._vectorizer_src_trg_1(); \
     CREATE TRIGGER _vectorizer_src_trg_1_truncate AFTER TRUNCATE ON website.blog \
       FOR EACH STATEMENT EXECUTE FUNCTION ai._vectorizer_src_trg_1(); \
     INSERT INTO ai.vectorizer (id, source_schema, source_table, source_pk, trigger_name, queue_schema, queue_table, \
       queue_failed_table, config, name) VALUES (1, 'website', 'blog', \
       '[{\"attnum\": 1, \"pknum\": 1, \"attname\": \"id\", \"typname\": \"integer\"}]', \
       '_vectorizer_src_trg_1', 'ai', '_vectorizer_q_1', '_vectorizer_q_failed_1', '{}', \
       'website_blog_embedding_store')";

/// The catalog of 0.7, and the objects of the vectorizer 1.
const EXTENSION: &str = "CREATE SCHEMA ai; \
     CREATE TABLE ai.vectorizer (id int PRIMARY KEY, source_schema name NOT NULL, source_table name NOT NULL, \
       source_pk jsonb NOT NULL, target_schema name NOT NULL, target_table name NOT NULL, view_schema name NOT NULL, \
       view_name name NOT NULL, trigger_name name NOT NULL, queue_schema name, queue_table name, \
       config jsonb NOT NULL, disabled bool NOT NULL DEFAULT false, UNIQUE (target_schema, target_table)); \
     CREATE TABLE ai.vectorizer_errors (id int NOT NULL REFERENCES ai.vectorizer ON DELETE CASCADE, message text); \
     CREATE TABLE ai._vectorizer_q_1 (id int NOT NULL, queued_at timestamptz NOT NULL DEFAULT now()); \
     CREATE INDEX ON ai._vectorizer_q_1 (id); \
     CREATE TRIGGER _vectorizer_src_trg_1 AFTER INSERT OR UPDATE OR DELETE ON website.blog \
       FOR EACH ROW EXECUTE FUNCTION ai._vectorizer_src_trg_1(); \
     INSERT INTO ai.vectorizer VALUES (1, 'website', 'blog', \
       '[{\"attnum\": 1, \"pknum\": 1, \"attname\": \"id\", \"typname\": \"integer\"}]', 'website', \
       'blog_embedding_store', 'website', 'blog_embedding', '_vectorizer_src_trg_1', 'ai', '_vectorizer_q_1', '{}'); \
     CREATE FUNCTION ai._vectorizer_handle_drops() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN \
       IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d \
                  JOIN ai.vectorizer v ON d.object_name = v.queue_table) \
       THEN RAISE 'ai.drop_vectorizer is gone'; END IF; END $$; \
     CREATE EVENT TRIGGER _vectorizer_handle_drops ON sql_drop EXECUTE FUNCTION ai._vectorizer_handle_drops()";

/// The function of the triggers.
const TRIGGER_FUNCTION: &str = "CREATE FUNCTION ai._vectorizer_src_trg_1() RETURNS trigger LANGUAGE plpgsql \
     SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN \
       IF TG_OP = 'TRUNCATE' THEN TRUNCATE website.blog_embedding_store; TRUNCATE ai._vectorizer_q_1; \
       ELSIF TG_OP = 'DELETE' THEN DELETE FROM website.blog_embedding_store WHERE id = OLD.id; \
       ELSE INSERT INTO ai._vectorizer_q_1 (id) VALUES (NEW.id); END IF; RETURN NULL; END $$";

/// A version of pgai.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 0.7, an extension.
    Extension,
    /// 0.11, a library.
    Library,
}

/// A database with the vectorizer 1 of pgai, and the server of its model.
pub struct Pgai {
    pub database: TestDatabase,
    pub client: Client,
    pub stub: StubEngine,
    template: String,
}

/// The configuration of a vectorizer of 0.11 for texts of this template, with a model at this address.
fn config(template: &str, base_url: &str) -> Value {
    json!({
        "version": "0.11.2",
        "loading": {"implementation": "column", "config_type": "loading", "column_name": "contents", "retries": 6},
        "parsing": {"implementation": "auto", "config_type": "parsing"},
        "embedding": {
            "implementation": "ollama", "config_type": "embedding", "model": "nomic-embed-text",
            "dimensions": DIMENSIONS, "base_url": base_url
        },
        "chunking": {
            "implementation": "recursive_character_text_splitter", "config_type": "chunking", "chunk_size": 800,
            "chunk_overlap": 400, "separators": ["\n\n", "\n", ".", "?", "!", " ", ""], "is_separator_regex": false
        },
        "indexing": {"implementation": "none", "config_type": "indexing"},
        "formatting": {"implementation": "python_template", "config_type": "formatting", "template": template},
        "scheduling": {"implementation": "none", "config_type": "scheduling"},
        "processing": {"implementation": "default", "config_type": "processing"},
        "destination": {
            "implementation": "table", "config_type": "destination", "target_schema": "website",
            "target_table": "blog_embedding_store", "view_schema": "website", "view_name": "blog_embedding"
        }
    })
}

impl Pgai {
    /// A database of this version with a vectorizer of this template, and a jobs table. `None` where the server has no
    /// pgvector, which is reported.
    pub async fn new(version: Version, template: &str) -> Option<Pgai> {
        let database = TestDatabase::with_vector(server::shared()).await;
        if database.skips_vector() {
            return None;
        }
        let client = database.client().await;
        let stub = StubEngine::start();
        stub.set(Behavior {
            dimensions: DIMENSIONS,
            ..Behavior::default()
        });
        let catalog = match version {
            Version::Extension => EXTENSION,
            Version::Library => LIBRARY,
        };
        execute(&client, &format!("{BLOG}; {STORE}")).await;
        let (schema, rest) = catalog.split_once("; ").expect("a schema, then tables");
        execute(&client, &format!("{schema}; {TRIGGER_FUNCTION}; {rest}")).await;
        database.psql(&paths::read("sql/jobs.sql")).await;
        let mut config = config(template, &stub.url());
        if version == Version::Extension {
            let members = config.as_object_mut().expect("an object");
            for member in ["loading", "parsing", "destination"] {
                members.remove(member);
            }
            config["chunking"]["chunk_column"] = json!("contents");
        }
        let pgai = Pgai {
            database,
            client,
            stub,
            template: template.into(),
        };
        pgai.configure(&config).await;
        Some(pgai)
    }

    /// The configuration of the vectorizer.
    pub async fn config(&self) -> Value {
        value(&self.client, "SELECT config FROM ai.vectorizer").await
    }

    /// Gives the vectorizer this configuration.
    pub async fn configure(&self, config: &Value) {
        let update = "UPDATE ai.vectorizer SET config = $1";
        let updated = self.client.execute(update, &[config]).await;
        updated.expect("the vectorizer is updated");
    }

    /// Sets members of a part of the configuration.
    pub async fn set(&self, part: &str, members: Value) {
        let mut config = self.config().await;
        let changed = members.as_object().expect("an object").clone();
        let part = config[part].as_object_mut().expect("an object");
        part.extend(changed);
        self.configure(&config).await;
    }

    /// Writes a row whose text pgai has divided into these chunks, and embedded.
    pub async fn row(&self, id: i32, title: &str, contents: &str, chunks: &[&str]) {
        let insert = "INSERT INTO website.blog (id, title, contents) VALUES ($1, $2, $3)";
        let inserted = self.client.execute(insert, &[&id, &title, &contents]).await;
        inserted.expect("the row is inserted");
        for (seq, chunk) in (0..).zip(chunks) {
            let embedded = self.embedded(title, chunk);
            let insert = "INSERT INTO website.blog_embedding_store (id, chunk_seq, chunk, embedding) \
                          VALUES ($1, $2, $3, $4::real[]::vector)";
            let vector = vector_of(&embedded, DIMENSIONS);
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                [&id, &seq, &embedded, &vector];
            let inserted = self.client.execute(insert, &values).await;
            inserted.expect("the chunk is inserted");
        }
        execute(&self.client, "DELETE FROM ai._vectorizer_q_1").await;
    }

    /// The text that is embedded of a passage.
    pub fn embedded(&self, title: &str, passage: &str) -> String {
        let text = self.template.replace("$title", title);
        text.replace("$chunk", passage)
    }

    /// The passages of the table `website.blog_chunks` whose vector is not that of title and passage.
    pub async fn wrong_passages(&self) -> String {
        let query = "SELECT p.id, p.chunk_seq, p.chunk, b.title, p.embedding::real[] FROM website.blog_chunks p \
                     JOIN website.blog b ON b.id = p.id ORDER BY 1, 2";
        let rows = self.client.query(query, &[]).await.expect("the passages");
        let mut wrong = Vec::new();
        for row in rows {
            let (id, seq, chunk): (i32, i32, String) = (row.get(0), row.get(1), row.get(2));
            let (title, vector): (String, Vec<f32>) = (row.get(3), row.get(4));
            let expected = vector_of(&self.embedded(&title, &chunk), DIMENSIONS);
            let differs = expected
                .iter()
                .zip(&vector)
                .any(|(a, b)| (a - b).abs() > 1e-4);
            if differs || vector.len() != DIMENSIONS {
                wrong.push(format!("{id}/{seq}"));
            }
        }
        wrong.join(" ")
    }

    /// The number of texts of the job that have been sent to the model, without those by which a model is tried.
    pub fn embedded_texts(&self) -> usize {
        let seen = self.stub.seen();
        let texts = seen.iter().flat_map(|request| &request.texts);
        texts.filter(|text| *text != PROBE).count()
    }

    /// Runs a shell command as a person does: `lantern-cli` and psql are in its PATH, `$TARGET` and `$JOBS_DATABASE`
    /// are the database.
    pub async fn shell(&self, command: &str) -> Output {
        let cli = program();
        let prepared = cli.command("embed");
        let mut shell = Command::new("bash");
        shell.args(["-e", "-o", "pipefail", "-c", command]);
        for (name, value) in prepared.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let own = Path::new(prepared.get_program()).parent();
        let psql = server::client_program(server::shared(), "psql");
        let mut folders: Vec<PathBuf> = vec![own.expect("a folder").into()];
        folders.push(psql.parent().expect("a folder").into());
        let path = std::env::var_os("PATH").unwrap_or_default();
        folders.extend(std::env::split_paths(&path));
        shell
            .env("PATH", std::env::join_paths(folders).expect("a path"))
            .env("PGOPTIONS", "-c client_min_messages=warning")
            .env("TARGET", self.database.uri())
            .env("JOBS_DATABASE", self.database.uri())
            .kill_on_drop(true);
        shell.output().await.expect("bash starts")
    }

    /// Runs a script of `sql/` for the vectorizer 1 with further arguments of psql; returns what it prints, or its
    /// error.
    pub async fn script(&self, script: &str, arguments: &str) -> Result<String, String> {
        let command = format!(
            "lantern-cli sql {script} | psql -X -q \"$TARGET\" -v vectorizer=1 {arguments} -f -"
        );
        let output = self.shell(&command).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }

    /// Runs `migrate_from_pgai` with further arguments.
    pub async fn migrate(&self, arguments: &str) -> Result<String, String> {
        let connection = format!("-v db_connection='{}'", self.database.uri());
        let arguments = format!("{connection} {arguments}");
        self.script("migrate_from_pgai", &arguments).await
    }

    /// The one value of a query as text; "" for NULL.
    pub async fn text(&self, query: &str) -> String {
        let query = format!("SELECT COALESCE((q)::text, '') FROM ({query}) AS s(q)");
        value(&self.client, &query).await
    }

    /// Runs statements.
    pub async fn sql(&self, statements: &str) {
        execute(&self.client, statements).await;
    }
}
