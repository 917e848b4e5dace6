//! docs/migrating.md: its statements, on tables and triggers as other systems make them. Vectors are adopted, and what
//! changes afterwards is embedded.

use testkit::scene::{CAVES, DESERT, MOON, TIDES};
use testkit::{Scene, paths};

use crate::support::scene_with;

/// The connection string of the document's examples.
const DOCUMENT_URI: &str = "postgresql://lantern@localhost:5432/test";

/// The tables of the examples. The names of columns are those of the document.
const ARTICLES: &str =
    "CREATE TABLE articles (id int PRIMARY KEY, title text, title_embedding vector(384))";

/// The SQL of a part of the document, block by block, for this database.
fn blocks(scene: &Scene, heading: &str) -> Vec<String> {
    let document = paths::read("docs/migrating.md");
    let level = heading.split(' ').next().expect("a heading");
    let (_, part) = document
        .split_once(&format!("\n{heading}\n"))
        .expect("the heading");
    let (part, _) = part
        .split_once(&format!("\n{level} "))
        .unwrap_or((part, ""));
    let blocks = part.split("```sql\n").skip(1);
    blocks
        .map(|block| {
            let (sql, _) = block.split_once("```").expect("the block ends");
            sql.replace(DOCUMENT_URI, &scene.database.uri())
        })
        .collect()
}

/// Four articles, of which three have their vectors.
async fn articles(more: &str) -> Scene {
    let scene = scene_with(&format!("{ARTICLES}; {more}")).await;
    scene
        .sql("ALTER TABLE jobs ADD fingerprint_column text, ADD trust_existing bool")
        .await;
    for (text, id) in [TIDES, MOON, CAVES, DESERT].iter().zip(1..) {
        let insert = "INSERT INTO articles (id, title, title_embedding) SELECT $1, $2, vector FROM truth WHERE body = $2";
        scene.execute(insert, &[&id, text]).await;
    }
    scene
        .sql("UPDATE articles SET title_embedding = NULL WHERE id = 4")
        .await;
    scene
}

async fn versions(scene: &Scene) -> String {
    let query =
        "SELECT string_agg(id || ':' || xmin::text, ' ' ORDER BY id) FROM articles WHERE id < 3";
    scene.value(query).await
}

/// Ids of articles whose vector is not that of their title.
const WRONG: &str = "SELECT string_agg(a.id::text, ' ') FROM articles a LEFT JOIN truth t ON t.body = a.title \
                     WHERE COALESCE(a.title_embedding <-> t.vector, 1) > 0.001";

async fn set_title(scene: &Scene, id: i32, title: &str) {
    let update = "UPDATE articles SET title = $2 WHERE id = $1";
    scene.execute(update, &[&id, &title]).await;
}

/// Starts the daemon, and asserts that it has adopted the vectors of the articles 1 and 2, made those that were
/// missing, and follows changes.
async fn adopts_and_follows(scene: &mut Scene, before: &str, remove_bridge: &str) {
    scene.start_daemon().await;
    scene.wait_for(WRONG, "").await;
    assert_eq!(versions(scene).await, before, "vectors are adopted");
    scene.sql(remove_bridge).await;
    set_title(scene, 1, DESERT).await;
    scene.wait_for(WRONG, "").await;
    let insert = "INSERT INTO articles (id, title) VALUES (9, $1)";
    scene.execute(insert, &[&MOON]).await;
    scene.wait_for(WRONG, "").await;
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'articles'::regclass";
    assert_eq!(scene.value(triggers).await, "0");
}

#[tokio::test]
async fn the_jobs_of_a_daemon_with_triggers_move_with_their_vectors() {
    let mut scene = articles(
        "CREATE FUNCTION notify_insert_lantern_daemon_1() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_notify(''c'', NEW.ctid::text || '':1''); RETURN NULL; END'; \
         CREATE TRIGGER trigger_lantern_jobs_insert_1 AFTER INSERT ON articles \
         FOR EACH ROW EXECUTE FUNCTION notify_insert_lantern_daemon_1(); \
         CREATE TRIGGER trigger_lantern_jobs_update_1 AFTER UPDATE OF title ON articles \
         FOR EACH ROW EXECUTE FUNCTION notify_insert_lantern_daemon_1(); \
         CREATE TABLE embedding_generation_jobs (id serial PRIMARY KEY, database_id text NOT NULL, db_connection text NOT NULL, \
           schema text NOT NULL, \"table\" text NOT NULL, runtime text NOT NULL, runtime_params jsonb, \
           src_column text NOT NULL, dst_column text NOT NULL, embedding_model text NOT NULL, \
           created_at timestamp NOT NULL DEFAULT now(), updated_at timestamp NOT NULL DEFAULT now(), canceled_at timestamp, \
           init_started_at timestamp, init_finished_at timestamp, init_failed_at timestamp, init_failure_reason text, \
           init_progress int2 DEFAULT 0)",
    )
    .await;
    let uri = scene.database.uri();
    let insert = "INSERT INTO embedding_generation_jobs (database_id, db_connection, schema, \"table\", runtime, runtime_params, \
                  src_column, dst_column, embedding_model, init_started_at, init_finished_at) VALUES ('x', $1, 'public', \
                  'articles', 'ort', '{\"data_path\": \"/m\"}', 'title', 'title_embedding', \
                  'sentence-transformers/all-MiniLM-L6-v2', now(), now())";
    scene.execute(insert, &[&uri]).await;
    let before = versions(&scene).await;
    let blocks = blocks(&scene, "## From a daemon with triggers");
    let [bridge, drop, _list, copy, _own, remove] = &blocks[..] else {
        panic!("{blocks:#?}");
    };
    scene.sql(bridge).await;
    // The old daemon is stopped, and a text changes before the new one runs.
    set_title(&scene, 3, TIDES).await;
    scene.sql(drop).await;
    scene.sql(copy).await;
    adopts_and_follows(&mut scene, &before, remove).await;
    let fingerprints = "SELECT count(title_fingerprint) FROM articles";
    // Those of the texts that the job has embedded itself.
    assert_eq!(scene.value(fingerprints).await, "4");
}

#[tokio::test]
async fn triggers_of_ones_own_are_found_and_their_vectors_adopted() {
    let mut scene = articles(
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NOTIFY changed; RETURN NULL; END'; \
         CREATE TRIGGER tells AFTER INSERT OR UPDATE ON articles FOR EACH ROW EXECUTE FUNCTION tell()",
    )
    .await;
    let before = versions(&scene).await;
    let blocks = blocks(&scene, "## From a daemon with triggers");
    let [bridge, drop, list, _copy, own, remove] = &blocks[..] else {
        panic!("{blocks:#?}");
    };
    scene.sql(bridge).await;
    scene.sql(drop).await;
    let list = list.trim_end().trim_end_matches(';');
    let names = format!("SELECT string_agg(tgname, ' ' ORDER BY tgname) FROM ({list}) l");
    assert_eq!(scene.value(&names).await, "lantern_bridge tells");
    scene.sql("DROP TRIGGER tells ON articles").await;
    scene.sql(own).await;
    adopts_and_follows(&mut scene, &before, remove).await;
}
