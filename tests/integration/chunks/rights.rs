//! Documents that belong to another role than the daemon's, which may do no more than it needs.

use testkit::client::execute;
use testkit::jobs::{Job, insert_job, wait_for_failure};
use testkit::{Scene, paths};
use tokio_postgres::Client;

use super::documents::wrong;
use super::refusals::remedy;
use super::scene::chunk_scene;
use crate::rights::{Role, role};
use crate::support::assert_check_says;

/// A template whose field is beside the text.
const PARAMS: (&str, &str) = (
    "runtime_params",
    r#"'{"chunk_tokens": 64, "template": "{title}: {chunk}"}'"#,
);
const EMBEDDED: &str = "COALESCE(d.title, '') || ': ' || c.chunk";

/// The owner of documents and of the schema of passages, with a session, and the daemon's role.
struct Owned {
    scene: Scene,
    owner: Role,
    /// A session of the owner's.
    theirs: Client,
    daemon: Role,
}

async fn owned() -> Owned {
    let scene = chunk_scene("REVOKE ALL ON SCHEMA public FROM PUBLIC").await;
    let owner = role(&scene, "owner", "").await;
    let daemon = role(&scene, "daemon", "REPLICATION").await;
    scene
        .sql(&format!(
            "CREATE SCHEMA app AUTHORIZATION {0}; CREATE SCHEMA search AUTHORIZATION {0}; GRANT USAGE ON SCHEMA public TO {0}, {1}; \
             GRANT CREATE ON DATABASE {2} TO {0}",
            owner.name,
            daemon.name,
            scene.database.name()
        ))
        .await;
    let theirs = owner
        .session("CREATE TABLE app.docs (id int PRIMARY KEY, title text, body text, secret text)")
        .await;
    // What tests read is found without a schema.
    scene
        .sql("SET search_path = app, search, public; INSERT INTO app.docs VALUES (1, 'One', 'Before the job.', 'a secret')")
        .await;
    Owned {
        scene,
        owner,
        theirs,
        daemon,
    }
}

impl Owned {
    /// As the owner: what `sql/prepare_publication.sql` does for the daemon's role.
    async fn prepare(&self) {
        let variables = [
            ("schema", "app"),
            ("table", "docs"),
            ("key", "id"),
            ("source", "body"),
            ("fields", "title"),
            ("chunk_schema", "search"),
            ("role", self.daemon.name.as_str()),
        ];
        let set = variables.map(|(name, value)| format!("\\set {name} '{value}'\n"));
        let script = format!("SET ROLE {};\n{}", self.owner.name, set.concat());
        let script = script + &paths::read("sql/prepare_publication.sql");
        self.scene.database.psql(&script).await;
    }

    /// Inserts a job that connects with this connection string.
    async fn job_at(&self, uri: &str) -> i32 {
        let options = [("chunk_table", "'search.docs_chunks'"), PARAMS];
        let job = Job {
            db_connection: uri.to_owned(),
            schema: Some("app"),
            options: &options,
            ..Job::on(&self.scene.database, "docs", "body", "embedding")
        };
        insert_job(&self.scene.client, job).await
    }

    async fn job(&self) -> i32 {
        self.job_at(&self.daemon.uri).await
    }

    async fn run(&self, statements: &str) {
        execute(&self.theirs, statements).await;
    }

    async fn caught_up(&self) {
        self.scene.wait_until_confirmed().await;
        assert_eq!(wrong(&self.scene, EMBEDDED).await, "");
    }

    /// The owner works with documents, and passages follow.
    async fn is_followed(&self) {
        self.run("INSERT INTO app.docs (id, title, body) VALUES (2, 'Two', 'Tides follow the moon.'), (3, NULL, 'Rivers carry sand.')")
            .await;
        self.caught_up().await;
        self.run("UPDATE app.docs SET title = 'Changed' WHERE id = 2; UPDATE app.docs SET body = 'Other text.' WHERE id = 1; DELETE FROM app.docs WHERE id = 3")
            .await;
        self.caught_up().await;
        let ids = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM search.docs_chunks";
        assert_eq!(self.scene.value(ids).await, "1 2");
        self.run("BEGIN; TRUNCATE app.docs; INSERT INTO app.docs VALUES (1, 'Again', 'And again.', 'a secret'); COMMIT")
            .await;
        self.caught_up().await;
        assert_eq!(self.scene.value(ids).await, "1");
        assert_eq!(self.scene.failures().await, "");
    }
}

#[tokio::test]
async fn a_role_with_least_rights_follows_documents_of_another_role() {
    let mut owned = owned().await;
    owned.prepare().await;
    owned.job().await;
    owned.scene.start_daemon().await;
    owned.caught_up().await;
    owned.is_followed().await;
    let daemon = &owned.daemon.name;
    let rights = format!(
        "SELECT concat_ws(' ', has_column_privilege('{daemon}', 'app.docs', 'secret', 'SELECT'), \
           has_any_column_privilege('{daemon}', 'app.docs', 'UPDATE'), has_table_privilege('{daemon}', 'app.docs', 'DELETE'), \
           has_schema_privilege('{daemon}', 'app', 'CREATE'), has_database_privilege('{daemon}', current_database(), 'CREATE'))"
    );
    assert_eq!(owned.scene.value(&rights).await, "f f f f f");
    let belongs = "SELECT string_agg(pg_get_userbyid(relowner), ' ') FROM pg_class \
                   WHERE oid IN ('search.docs_chunks'::regclass, 'search.docs_chunks_documents'::regclass)";
    assert_eq!(
        owned.scene.value(belongs).await,
        format!("{daemon} {daemon}")
    );
    // The owner of the texts reads passages and view, as it reads the texts.
    let row = owned
        .theirs
        .query_one(
            "SELECT title, secret FROM search.docs_chunks_documents",
            &[],
        )
        .await;
    let row = row.expect("the owner reads the view");
    assert_eq!((row.get(0), row.get(1)), ("Again", "a secret"));
    owned.run("SELECT FROM search.docs_chunks").await;
    // The view gives the daemon's role no more than it has.
    let theirs = owned.daemon.session("").await;
    let refused = theirs
        .query("SELECT secret FROM search.docs_chunks_documents", &[])
        .await;
    let refused = format!("{:?}", refused.expect_err("it may not read the texts"));
    assert!(
        refused.contains("permission denied for table docs"),
        "{refused}"
    );
}

/// The table for passages is the owner's, too. Each right is missed before the start, and under the running job.
#[tokio::test]
async fn each_right_on_documents_and_passages_that_is_missing_is_named_with_its_grant() {
    let mut owned = owned().await;
    owned.prepare().await;
    let table = "CREATE TABLE search.docs_chunks (id int, chunk_seq int, chunk_start int, chunk_end int, chunk text, \
        embedding vector(384), chunk_fingerprint uuid, document_fingerprint uuid, PRIMARY KEY (id, chunk_seq))";
    owned.run(&owned.scene.database.adapted(table)).await;
    let daemon = owned.daemon.name.clone();
    owned
        .run(&format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON search.docs_chunks TO {daemon}"
        ))
        .await;
    let mut job = owned.job().await;
    owned.scene.start_daemon().await;
    let name = format!("\"{daemon}\"");
    let of_passages = |right: &str| {
        (
            format!("REVOKE {right} ON search.docs_chunks FROM {daemon}"),
            format!("GRANT {right} ON \"search\".\"docs_chunks\" TO {name};"),
        )
    };
    let cases = [
        of_passages("SELECT"),
        of_passages("INSERT"),
        of_passages("UPDATE"),
        of_passages("DELETE"),
        (
            format!("REVOKE USAGE ON SCHEMA search FROM {daemon}"),
            format!("ON SCHEMA \"search\" TO {name};"),
        ),
        (
            format!("REVOKE SELECT (body) ON app.docs FROM {daemon}"),
            format!("\"body\") ON \"app\".\"docs\" TO {name};"),
        ),
        (
            format!("REVOKE SELECT (title) ON app.docs FROM {daemon}"),
            format!("\"title\") ON \"app\".\"docs\" TO {name};"),
        ),
    ];
    for (taken, grant) in cases {
        owned.run(&taken).await;
        // What the job does next needs the right.
        owned.run("UPDATE app.docs SET body = body || ' More.'; INSERT INTO app.docs (id, body) SELECT max(id) + 1, 'New.' FROM app.docs; DELETE FROM app.docs WHERE id = (SELECT max(id) - 1 FROM app.docs) AND id > 1")
            .await;
        // A statement that is prepared needs no right on the schema.
        if !taken.contains("SCHEMA") {
            let reason = wait_for_failure(&owned.scene.client, job).await;
            assert!(reason.contains(&grant), "{taken}, under the job: {reason}");
        }
        // As a job that was never started.
        owned.scene.sql("DELETE FROM jobs").await;
        owned.scene.wait_for_no_slot().await;
        job = owned.job().await;
        let reason = wait_for_failure(&owned.scene.client, job).await;
        assert!(reason.contains(&grant), "{taken}, at the start: {reason}");
        assert_check_says(&owned.scene.database.uri(), job, &reason, &[]).await;
        owned.run(remedy(&reason)).await;
        owned
            .scene
            .sql("UPDATE jobs SET init_failed_at = NULL")
            .await;
        owned.scene.wait_for_backfill().await;
        owned.caught_up().await;
    }
    owned.run("DELETE FROM app.docs WHERE id > 1").await;
    owned.is_followed().await;
}

/// A superuser's daemon writes passages as the owner of their table: what a trigger there may do is what the owner may.
#[tokio::test]
async fn the_code_of_a_table_for_passages_has_the_rights_of_its_owner() {
    let mut owned = owned().await;
    owned.job_at(&owned.scene.database.uri()).await;
    owned.scene.start_daemon().await;
    owned
        .run(
            "CREATE TABLE search.writers (who text); \
             CREATE FUNCTION search.note() RETURNS trigger LANGUAGE plpgsql AS \
               'BEGIN INSERT INTO search.writers VALUES (current_user); RETURN COALESCE(NEW, OLD); END'; \
             CREATE TRIGGER note BEFORE INSERT OR UPDATE OR DELETE ON search.docs_chunks FOR EACH ROW EXECUTE FUNCTION search.note()",
        )
        .await;
    owned.is_followed().await;
    let writers = "SELECT string_agg(DISTINCT who, ' ') FROM search.writers";
    assert_eq!(owned.scene.value(writers).await, owned.owner.name);
}
