//! `lantern-cli wait`.

use std::process::Command;

use serde_json::{Value, json};
use testkit::client::{connect, execute, value, wait_for_value};
use testkit::jobs::{Job, create_documented_table, insert_job};
use testkit::restartable::Stop;
use testkit::scene::{CAVES, MOON, NOTES, TIDES};
use testkit::wait::TIMEOUT;
use testkit::{Process, RestartableServer, Scene, paths, server};

use crate::support::{notes_scene, program, scene_with};

/// Runs `wait` on job 1; returns its status and what it printed to either stream.
async fn wait(scene: &Scene, more: &[&str]) -> (Option<i32>, String, String) {
    let uri = scene.database.uri();
    wait_at(&uri, "1", more).await
}

async fn wait_at(uri: &str, job: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let arguments = [&["wait", "--uri", uri, "--job", job], more].concat();
    let output = program().run(&arguments).await;
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Starts `wait` on job 1 and does not wait.
fn spawn_wait(scene: &Scene) -> Process {
    let mut command = wait_command(&scene.database.uri());
    command.args(["--timeout", "90s"]);
    Process::spawn(command)
}

fn wait_command(uri: &str) -> Command {
    let mut command = program().command("wait");
    command.args(["--uri", uri, "--job", "1"]);
    command
}

fn parsed(printed: &str) -> Value {
    serde_json::from_str(printed).expect(printed)
}

/// 120 rows that no daemon has seen.
const EARLIER_ROWS: &str =
    "INSERT INTO notes SELECT row_number() OVER (), body FROM truth, generate_series(1, 20)";

#[tokio::test]
async fn rows_that_existed_before_the_job_are_waited_for() {
    let mut scene = notes_scene().await;
    scene.sql(EARLIER_ROWS).await;
    let mut waiting = spawn_wait(&scene);
    let warning = "no daemon works on \"public\".\"jobs\"";
    waiting.wait_for_line(warning, TIMEOUT).await;
    scene.spawn_daemon();
    let (status, _) = waiting.wait(TIMEOUT).await;
    assert_eq!(status.code(), Some(0), "{}", waiting.log());
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    assert!(
        waiting.log().contains("job 1: everything up to "),
        "{}",
        waiting.log()
    );
}

#[tokio::test]
async fn a_scan_that_runs_again_is_waited_for() {
    let mut scene = notes_scene().await;
    scene.sql(EARLIER_ROWS).await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    // What changes now is in no stream.
    scene.drop_slots().await;
    scene
        .sql("UPDATE notes SET body = (SELECT max(body) FROM truth)")
        .await;
    let (status, _, said) = wait(&scene, &["--timeout", "0s"]).await;
    assert_eq!(status, Some(4), "{said}");
    assert!(
        said.contains("error: job 1 has no replication slot at the moment"),
        "{said}"
    );
    scene.spawn_daemon();
    let (status, _, said) = wait(&scene, &["--timeout", "90s"]).await;
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
}

#[tokio::test]
async fn quarantined_rows_are_named() {
    let mut scene = notes_scene().await;
    scene.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
           $$ BEGIN IF NEW.id > 1 THEN RAISE EXCEPTION 'not this row'; END IF; RETURN NEW; END $$; \
         ALTER TABLE notes ADD COLUMN embedding_of text; \
         CREATE TRIGGER refuse BEFORE UPDATE OF embedding ON notes FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .await;
    scene.start_daemon().await;
    scene.put(1, TIDES).await;
    assert_eq!(wait(&scene, &[]).await.0, Some(0));
    scene.put(2, MOON).await;
    let (status, printed, said) = wait(&scene, &["--timeout", "90s"]).await;
    assert_eq!((status, said.as_str()), (Some(3), ""), "{printed}");
    let lines: Vec<&str> = printed.lines().collect();
    assert!(
        lines[0].ends_with(r#"is embedded, but for 1 row in "public"."jobs_failures":"#)
            && lines[1].starts_with(r#"  {"id":"2"}: "#)
            && lines[1].contains("not this row")
            && lines[2].contains("lantern-cli retry-failed --job 1"),
        "{printed}"
    );
    let (status, printed, _) = wait(&scene, &["--json"]).await;
    let object = parsed(&printed);
    assert_eq!((status, &object["state"]), (Some(3), &json!("quarantined")));
    assert_eq!(object["quarantined"][0]["key"], json!({"id": "2"}));

    scene.sql("DROP TRIGGER refuse ON notes").await;
    let uri = scene.database.uri();
    program()
        .stdout_of(&["retry-failed", "--uri", &uri, "--job", "1"])
        .await;
    let (status, printed, _) = wait(&scene, &["--json"]).await;
    let object = parsed(&printed);
    assert_eq!((status, &object["state"]), (Some(0), &json!("embedded")));
    assert_eq!(object["quarantined"], json!([]));
    let slot = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()";
    assert_eq!(object["slot"], json!(scene.value(slot).await));
}

#[tokio::test]
async fn a_job_that_will_not_go_on_ends_the_wait() {
    let mut scene = scene_with("CREATE TABLE notes (id int, body text)").await;
    scene.job("notes", "body").await;
    let mut waiting = spawn_wait(&scene);
    waiting.wait_for_line("no daemon works on", TIMEOUT).await;
    scene.spawn_daemon();
    let (status, _) = waiting.wait(TIMEOUT).await;
    assert_eq!(status.code(), Some(1));
    let log = waiting.log();
    assert!(
        log.contains("error: job 1 has failed")
            && log.contains("SET init_failed_at = NULL WHERE id = 1;"),
        "{log}"
    );
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    let (status, printed, said) = wait(&scene, &["--json"]).await;
    let object = parsed(&printed);
    assert_eq!(
        (status, &object["state"]),
        (Some(1), &json!("canceled")),
        "{said}"
    );
    assert!(
        object["reason"]
            .as_str()
            .expect("a reason")
            .starts_with("job 1 is canceled")
    );

    scene.stop_daemon().await;
    scene
        .sql("UPDATE jobs SET canceled_at = NULL, init_failed_at = NULL")
        .await;
    let mut waiting = spawn_wait(&scene);
    waiting.wait_for_line("no daemon works on", TIMEOUT).await;
    scene.sql("DELETE FROM jobs").await;
    let (status, _) = waiting.wait(TIMEOUT).await;
    assert_eq!(status.code(), Some(1));
    assert!(
        waiting.log().contains("job 1 is no longer in"),
        "{}",
        waiting.log()
    );
    let (status, _, said) = wait(&scene, &[]).await;
    assert!(
        status == Some(1) && said.contains("there is no job 1"),
        "{said}"
    );
}

#[tokio::test]
async fn a_stopped_daemon_is_told_at_once_and_the_wait_ends_in_time() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    scene.put(1, TIDES).await;
    let (status, printed, said) = wait(&scene, &["--timeout", "200ms"]).await;
    assert_eq!((status, printed.as_str()), (Some(4), ""));
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines.len() == 2
            && lines[0].starts_with("warning: no daemon works on")
            && lines[1].starts_with("error: job 1 has not embedded everything up to")
            && lines[1]
                .ends_with("and no daemon reads it: start one, or see its log (after 200ms)"),
        "{said}"
    );
    let (status, printed, _) = wait(&scene, &["--timeout", "0s", "--json"]).await;
    assert_eq!(
        (status, &parsed(&printed)["state"]),
        (Some(4), &json!("timeout"))
    );
    let (status, _, said) = wait(&scene, &["--timeout", "soon"]).await;
    assert_eq!(status, Some(2), "{said}");
}

#[tokio::test]
async fn a_role_that_sees_no_connection_string_names_the_target() {
    let mut scene = notes_scene().await;
    let role = format!("watcher_of_{}", scene.database.name());
    scene.sql(&format!("CREATE ROLE {role}")).await;
    let script = format!("\\set role {role}\n{}", paths::read("sql/searchers.sql"));
    scene.database.psql(&script).await;
    scene.start_daemon().await;
    scene.put(1, TIDES).await;
    let uri = format!("{}?options=-c%20role%3D{role}", scene.database.uri());
    let view = ["--table", "jobs_for_searchers", "--timeout", "90s"];
    let (status, _, said) = wait_at(&uri, "1", &view).await;
    assert!(
        status == Some(1) && said.contains("with --target"),
        "{said}"
    );
    let (status, printed, said) =
        wait_at(&uri, "1", &[&view[..], &["--target", &uri]].concat()).await;
    assert_eq!((status, said.as_str()), (Some(0), ""), "{printed}");
    assert!(
        printed.contains(
            r#"or in the failures table, which "public"."jobs_for_searchers" does not show"#
        ),
        "{printed}"
    );
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    scene.stop_daemon().await;
    scene
        .sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}

#[tokio::test]
async fn jobs_of_shared_slots_and_with_odd_ids_are_waited_for() {
    let mut scene = scene_with(&format!("{NOTES}; {}", NOTES.replace("notes", "pages"))).await;
    scene.job("notes", "body").await;
    scene.job("pages", "body").await;
    let odd = "a 'b' ü";
    scene
        .sql("ALTER TABLE jobs ALTER id DROP DEFAULT, ALTER id TYPE text; UPDATE jobs SET id = 'a ''b'' ü' WHERE id = '2'")
        .await;
    scene.spawn_daemon_with(&["--slots", "database"]);
    let uri = scene.database.uri();
    let mut slot = String::new();
    for (job, table, text) in [("1", "notes", TIDES), (odd, "pages", CAVES)] {
        scene.put_into(table, 1, text).await;
        let (status, printed, said) = wait_at(&uri, job, &["--json", "--timeout", "90s"]).await;
        assert_eq!(status, Some(0), "{printed}{said}");
        assert_eq!(scene.wrong_vectors(table, "body").await, "");
        slot = parsed(&printed)["slot"]
            .as_str()
            .expect("a slot")
            .to_owned();
    }
    // The function takes the name for an id that it cannot find.
    super::create_function(&scene).await;
    scene.put_into("pages", 1, MOON).await;
    let call = format!(
        "SELECT lantern_wait_for_embeddings('a ''b'' ü', pg_current_wal_insert_lsn(), '90 s', '{slot}')"
    );
    assert_eq!(scene.value(&call).await, "true");
    assert_eq!(scene.wrong_vectors("pages", "body").await, "");
}

#[tokio::test]
async fn a_wait_outlives_a_restart_of_the_server() {
    let mut server = RestartableServer::start(server::installation(), &[]);
    let uri = server.uri("postgres");
    let client = connect(&uri).await;
    create_documented_table(&client).await;
    let table =
        "CREATE TABLE notes (id int PRIMARY KEY, body text); INSERT INTO notes VALUES (1, 'tides')";
    execute(&client, table).await;
    insert_job(&client, Job::at(uri.clone(), "notes", "body", "embedding")).await;
    let mut command = wait_command(&uri);
    command.args(["--timeout", "90s"]);
    let mut waiting = Process::spawn(command);
    waiting.wait_for_line("no daemon works on", TIMEOUT).await;
    server.stop(Stop::Immediate);
    server.start_again();
    let _daemon = program().start_daemon(&["--uri", &uri]);
    let (status, _) = waiting.wait(TIMEOUT).await;
    assert_eq!(status.code(), Some(0), "{}", waiting.log());
    let client = connect(&uri).await;
    let done = "SELECT embedding IS NOT NULL FROM notes";
    assert!(value::<bool>(&client, done).await);

    // One that does not come back is the end, in time.
    execute(&client, "UPDATE jobs SET init_finished_at = NULL").await;
    let mut command = wait_command(&uri);
    command.args(["--timeout", "3s"]);
    let mut waiting = Process::spawn(command);
    let looking = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lantern-cli' \
                   AND state = 'idle' AND query LIKE '%pg_replication_slots%'";
    wait_for_value(&client, looking, 1_i64).await;
    server.stop(Stop::Immediate);
    let (status, _) = waiting.wait(TIMEOUT).await;
    assert_eq!(status.code(), Some(4), "{}", waiting.log());
    assert!(
        waiting.log().contains("error: job 1 cannot be asked for: "),
        "{}",
        waiting.log()
    );
}
