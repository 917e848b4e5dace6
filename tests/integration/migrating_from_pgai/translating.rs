//! What the job row is, for configurations of several versions and providers; and what is refused.

use serde_json::{Value, json};
use testkit::client::value;

use super::SHORT;
use super::pgai::{Pgai, Version};

const PLAIN: &str = "$chunk";

/// The job that the script adds with these arguments, as JSON without NULLs. It is removed again with all else.
async fn job(pgai: &Pgai, arguments: &str) -> Value {
    let moved = pgai.migrate(&format!("{arguments} -v run=yes")).await;
    moved.unwrap_or_else(|error| panic!("{error}"));
    let mut job: Value = value(
        &pgai.client,
        "SELECT jsonb_strip_nulls(to_jsonb(j)) - '{id,created_at,init_progress,db_connection}'::text[] FROM jobs j",
    )
    .await;
    let cleanup = "DELETE FROM jobs; DROP TABLE IF EXISTS website.blog_chunks, website.moved; \
                   DROP FUNCTION IF EXISTS website.lantern_bridge_1() CASCADE";
    pgai.sql(cleanup).await;
    if let Some(url) = job["runtime_params"].get_mut("base_url")
        && *url == json!(pgai.stub.url())
    {
        *url = json!("STUB");
    }
    job
}

async fn refusal(pgai: &Pgai, arguments: &str) -> String {
    let moved = pgai.migrate(arguments).await;
    moved.expect_err("it cannot be moved")
}

#[tokio::test]
async fn the_default_vectorizer_of_each_version_becomes_the_same_job() {
    for version in [Version::Extension, Version::Library] {
        let Some(pgai) = Pgai::new(version, PLAIN).await else {
            return;
        };
        assert_eq!(
            job(&pgai, "").await,
            json!({
                "schema": "website", "table": "blog", "src_column": "contents", "dst_column": "embedding",
                "chunk_table": "website.blog_chunks", "embedding_model": "nomic-embed-text", "runtime": "ollama",
                "runtime_params": {"base_url": "STUB", "chunk_tokens": 200, "chunk_overlap": 100},
                "trust_existing": true
            }),
            "{version:?}"
        );
    }
}

#[tokio::test]
async fn models_become_runtimes_and_their_options_runtime_params() {
    let Some(pgai) = Pgai::new(Version::Library, PLAIN).await else {
        return;
    };
    pgai.set("chunking", json!({"implementation": "none"}))
        .await;
    let mut config = pgai.config().await;
    config["chunking"] = json!({"implementation": "none", "config_type": "chunking"});
    for (embedding, runtime, model, params) in [
        (
            json!({"implementation": "openai", "model": "text-embedding-3-small", "dimensions": 768,
                   "api_key_name": "OPENAI_API_KEY"}),
            "openai",
            "text-embedding-3-small",
            json!({"dimensions": 768, "api_key_env": "OPENAI_API_KEY"}),
        ),
        (
            json!({"implementation": "openai", "model": "text-embedding-ada-002", "dimensions": 1536,
                   "api_key_name": "KEY", "base_url": "https://proxy.example.com/v1"}),
            "openai",
            "text-embedding-ada-002",
            json!({"base_url": "https://proxy.example.com/v1", "api_key_env": "KEY"}),
        ),
        (
            json!({"implementation": "voyageai", "model": "voyage-3-lite", "dimensions": 512,
                   "input_type": "document", "api_key_name": "VOYAGE_API_KEY"}),
            "voyage",
            "voyage-3-lite",
            json!({"api_key_env": "VOYAGE_API_KEY"}),
        ),
        (
            json!({"implementation": "litellm", "model": "cohere/embed-english-v3.0", "dimensions": 1024,
                   "extra_options": {"input_type": "classification"}}),
            "cohere",
            "embed-english-v3.0",
            json!({"api_key_env": "COHERE_API_KEY", "input_type": "classification"}),
        ),
        (
            json!({"implementation": "litellm", "model": "mistral/mistral-embed", "dimensions": 1024,
                   "api_key_name": "MISTRAL"}),
            "openai",
            "mistral-embed",
            json!({"base_url": "https://api.mistral.ai/v1", "api_key_env": "MISTRAL"}),
        ),
        (
            json!({"implementation": "litellm", "model": "azure/small", "dimensions": 1536,
                   "extra_options": {"api_base": "https://x.openai.azure.com/", "api_version": "2024-02-01"}}),
            "openai",
            "small",
            json!({"base_url": "https://x.openai.azure.com/openai/v1", "api_key_env": "AZURE_API_KEY",
                   "api_key_header": "api-key"}),
        ),
    ] {
        config["embedding"] = embedding;
        pgai.configure(&config).await;
        let job = job(&pgai, "").await;
        assert_eq!(job["runtime"], runtime, "{job}");
        assert_eq!(job["embedding_model"], model, "{job}");
        assert_eq!(job["runtime_params"], params, "{job}");
    }
    // What the script has no word for, the person says.
    config["embedding"] = json!({"implementation": "litellm", "model": "bedrock/amazon.titan-embed-text-v2:0",
                                 "dimensions": 1024});
    pgai.configure(&config).await;
    let refused = refusal(&pgai, "").await;
    assert!(refused.contains("models of bedrock"), "{refused}");
    let gateway = r#"-v runtime=openai -v model=titan -v params='{"base_url": "https://gateway.example.com/v1"}'"#;
    let job = job(&pgai, gateway).await;
    assert_eq!(job["embedding_model"], "titan");
    let params = json!({"base_url": "https://gateway.example.com/v1"});
    assert_eq!(job["runtime_params"], params);
}

#[tokio::test]
async fn template_modes_and_index_are_translated_and_can_be_overridden() {
    let template = "title: ${title} {published} $$5 $chunk";
    let Some(pgai) = Pgai::new(Version::Library, template).await else {
        return;
    };
    pgai.set(
        "chunking",
        json!({"separators": ["\n## ", "\n\n"], "chunk_size": 1000, "chunk_overlap": 100}),
    )
    .await;
    pgai.set(
        "indexing",
        json!({"implementation": "hnsw", "opclass": "vector_ip_ops", "m": 20, "min_rows": 10}),
    )
    .await;
    let moved = job(&pgai, "").await;
    assert_eq!(
        moved["runtime_params"],
        json!({"base_url": "STUB", "chunk_tokens": 250, "chunk_overlap": 25, "chunk_mode": "markdown",
               "template": "title: {title} {{published}} $5 {chunk}"})
    );
    assert_eq!(moved["create_index"], "hnsw");
    assert_eq!(
        moved["index_params"],
        json!({"distance": "inner_product", "m": 20})
    );
    let arguments = r#"-v chunk_table=moved -v params='{"chunk_tokens": 64, "chunk_mode": null, "tokenizer": "x/y"}'"#;
    let moved = job(&pgai, arguments).await;
    assert_eq!(moved["chunk_table"], "website.moved");
    assert_eq!(
        moved["runtime_params"],
        json!({"base_url": "STUB", "chunk_tokens": 64, "chunk_overlap": 25, "tokenizer": "x/y",
               "template": "title: {title} {{published}} $5 {chunk}"})
    );
}

#[tokio::test]
async fn what_cannot_be_moved_is_refused_with_the_reason() {
    let Some(pgai) = Pgai::new(Version::Library, PLAIN).await else {
        return;
    };
    let usual = pgai.config().await;
    for (part, members, words) in [
        (
            "loading",
            json!({"implementation": "uri"}),
            "it loads files, whose addresses are in the column contents",
        ),
        (
            "loading",
            json!({"column_name": "body"}),
            "website.blog lacks the column body",
        ),
        (
            "loading",
            json!({"column_name": null}),
            "names no column with texts",
        ),
        (
            "formatting",
            json!({"template": "no passage"}),
            "its template lacks $chunk",
        ),
        (
            "formatting",
            json!({"template": "$ $chunk"}),
            "a $ that is neither doubled nor before a name",
        ),
        (
            "formatting",
            json!({"template": "$author: $chunk"}),
            "website.blog lacks the column author",
        ),
        (
            "formatting",
            json!({"template": "$contents $chunk"}),
            "has the whole text ($contents) beside each passage",
        ),
        (
            "destination",
            json!({"implementation": "bucket"}),
            "its destination is unknown here",
        ),
        (
            "destination",
            json!({"target_table": "gone"}),
            "its table with the vectors, gone, does not exist",
        ),
        (
            "embedding",
            json!({"implementation": "litellm", "model": "azure/x", "base_url": null}),
            "address of its Azure resource",
        ),
    ] {
        pgai.set(part, members).await;
        let refused = refusal(&pgai, "-v run=yes").await;
        assert!(
            refused.contains("vectorizer 1 cannot be moved"),
            "{refused}"
        );
        assert!(refused.contains(words), "{words}: {refused}");
        pgai.configure(&usual).await;
    }
}

#[tokio::test]
async fn a_vectorizer_is_not_moved_where_something_is_in_the_way() {
    let Some(pgai) = Pgai::new(Version::Library, PLAIN).await else {
        return;
    };
    pgai.sql("CREATE TABLE website.blog_chunks ()").await;
    let refused = refusal(&pgai, "").await;
    assert!(
        refused.contains("the table website.blog_chunks exists already"),
        "{refused}"
    );
    pgai.sql("DROP TABLE website.blog_chunks; ALTER TABLE jobs DROP chunk_table")
        .await;
    let refused = refusal(&pgai, "").await;
    assert!(
        refused.contains("ALTER TABLE public.jobs ADD COLUMN chunk_table text;"),
        "{refused}"
    );
    pgai.sql(
        "DROP VIEW website.blog_embedding; \
         ALTER TABLE website.blog ALTER contents TYPE bytea USING contents::bytea",
    )
    .await;
    let refused = refusal(&pgai, "").await;
    assert!(
        refused.contains("it parses documents in the column contents"),
        "{refused}"
    );
    pgai.sql("UPDATE ai.vectorizer SET id = 2, name = 'other'")
        .await;
    let refused = refusal(&pgai, "").await;
    assert!(
        refused.contains("there is no such vectorizer; ai.vectorizer has: 2"),
        "{refused}"
    );
    pgai.sql("DROP SCHEMA ai CASCADE").await;
    let refused = refusal(&pgai, "").await;
    assert!(
        refused.contains("this database has no table ai.vectorizer"),
        "{refused}"
    );
}

#[tokio::test]
async fn without_run_nothing_changes_and_no_password_is_shown() {
    let Some(pgai) = Pgai::new(Version::Library, "$title $chunk").await else {
        return;
    };
    pgai.row(1, "Sea", SHORT, &[SHORT]).await;
    let printed = pgai
        .script(
            "migrate_from_pgai",
            "-v db_connection='postgresql://l:s3cret@localhost/x'",
        )
        .await;
    let printed = printed.unwrap_or_else(|error| panic!("{error}"));
    for words in [
        "-- vectorizer 1: contents of website.blog, embedded with nomic-embed-text by ollama",
        "-- website.blog_embedding_store has 1 chunks of 1 rows; 1 of these rows have one chunk",
        "CREATE TABLE website.blog_chunks (id integer, chunk_seq integer,",
        "postgresql://l:…@localhost/x",
        "-- nothing is changed",
    ] {
        assert!(printed.contains(words), "{words}: {printed}");
    }
    assert!(!printed.contains("s3cret"), "{printed}");
    let there = "SELECT concat_ws(' ', to_regclass('website.blog_chunks'), (SELECT count(*) FROM jobs), \
                 (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'zz%'))";
    assert_eq!(pgai.text(there).await, "0 0");
    // The jobs table is elsewhere: the job is shown, and the rest is done.
    pgai.sql("DROP TABLE jobs").await;
    let printed = pgai.migrate("-v run=yes").await;
    let printed = printed.unwrap_or_else(|error| panic!("{error}"));
    assert!(
        printed.contains("INSERT INTO public.jobs (db_connection"),
        "{printed}"
    );
    assert!(
        printed.contains("the jobs table is not in this database"),
        "{printed}"
    );
    assert_eq!(
        pgai.text("SELECT chunk FROM website.blog_chunks").await,
        SHORT
    );
}

#[tokio::test]
async fn the_role_of_the_daemon_gets_the_table_and_readers_of_the_old_one_read_it() {
    let Some(pgai) = Pgai::new(Version::Library, PLAIN).await else {
        return;
    };
    let role = format!("pgai_{}", pgai.database.name());
    pgai.sql(&format!(
        "CREATE ROLE {role}; GRANT SELECT ON website.blog_embedding_store TO PUBLIC"
    ))
    .await;
    let moved = pgai.migrate(&format!("-v role={role} -v run=yes")).await;
    let owner =
        "SELECT relowner::regrole FROM pg_class WHERE oid = 'website.blog_chunks'::regclass";
    let readers = "SELECT string_agg(a.grantee::text, ' ') FROM pg_class c, aclexplode(c.relacl) a \
                   WHERE c.oid = 'website.blog_chunks'::regclass AND a.grantee <> c.relowner";
    let found = (pgai.text(owner).await, pgai.text(readers).await);
    pgai.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
    moved.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found, (role, "0".to_owned()));
}
