//! `status`, the column `stats` and the views of `sql/monitoring.sql`: how jobs are, in the same figures everywhere.

use serde_json::Value;
use testkit::Scene;
use testkit::paths;
use testkit::scene::{CAVES, DESERT, MOON, TIDES};
use testkit::wait::{TIMEOUT, wait_until};

use crate::http::daemon::address_of;
use crate::http::metrics::parse;
use crate::http::requests::get;
use crate::support::{program, scene_with};

const NOTES: &str = "CREATE TABLE notes (id int PRIMARY KEY, body text, embedding vector(384), \
                     CHECK (body <> 'refused' OR embedding IS NULL))";

/// Figures that everything shows, while nothing happens.
const FIGURES: [&str; 13] = [
    "id",
    "table",
    "source",
    "destination",
    "model",
    "provider",
    "state",
    "reason",
    "backfill_percent",
    "rows_today",
    "lag_seconds",
    "quarantined_rows",
    "totals",
];

/// A scene whose jobs table has the column for what the daemon records.
async fn recording() -> Scene {
    let scene = scene_with(NOTES).await;
    scene
        .sql("ALTER TABLE jobs ADD stats jsonb, ADD last_error text, ADD waits_for text")
        .await;
    // Adds the failures table.
    scene.database.psql(&paths::read("sql/jobs.sql")).await;
    scene
        .database
        .psql(&paths::read("sql/monitoring.sql"))
        .await;
    scene
}

/// Whether `status` succeeded, and what it printed.
async fn status(scene: &Scene, more: &[&str]) -> (bool, String) {
    let uri = scene.database.uri();
    let arguments = [&["status", "--uri", &uri], more].concat();
    let output = program().run(&arguments).await;
    let printed = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8(printed).expect("text"),
    )
}

async fn json(scene: &Scene, more: &[&str]) -> Value {
    let (_, printed) = status(scene, &[&["--json"], more].concat()).await;
    serde_json::from_str(&printed).expect(&printed)
}

async fn wait_for_record(scene: &Scene, condition: &str) {
    scene
        .wait_for(
            &format!("SELECT COALESCE(({condition}), false) FROM jobs"),
            "true",
        )
        .await;
}

#[tokio::test]
async fn a_running_job_and_the_same_one_after_its_daemon_has_ended() {
    let mut scene = recording().await;
    let id = scene.job("notes", "body").await;
    let (ran, before) = status(&scene, &[]).await;
    assert!(
        ran && before.contains("waiting") && before.contains("No daemon runs"),
        "{before}"
    );

    scene.write(&[TIDES, MOON, CAVES]).await;
    scene.start_daemon().await;
    wait_for_record(
        &scene,
        "stats ->> 'phase' = 'streaming' AND stats -> 'totals' ->> 'rows_written' = '3'",
    )
    .await;
    let (_, running) = status(&scene, &[]).await;
    for part in ["notes.body", "streaming", "100%", "A daemon runs: "] {
        assert!(running.contains(part), "{part} in {running}");
    }
    let found = json(&scene, &[]).await;
    let job = &found["jobs"][0];
    assert_eq!(job["state"], "streaming");
    assert_eq!(job["coverage"]["rows_with_vector"], 3);
    assert_eq!(job["coverage"]["is_exact"], true);
    assert_eq!(job["rows_today"], 3);
    assert_eq!(job["daemon"]["pid"], scene.daemon().id());
    assert_eq!(job["lag_seconds"], 0.0);
    let slot = scene.value("SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'lantern%' AND database = current_database()").await;
    assert_eq!(job["slot"]["name"], slot);

    scene.stop_daemon().await;
    scene.put(4, DESERT).await;
    let (_, stopped) = status(&scene, &[]).await;
    for part in [
        "stopped",
        "No daemon runs",
        "job 1: no daemon has run it for about ",
        "of WAL after that is unread",
        "lantern-cli verify --job 1",
    ] {
        assert!(stopped.contains(part), "{part} in {stopped}");
    }
    let (_, details) = status(&scene, &["1"]).await;
    assert!(details.contains("freshness"), "{details}");
    let found = json(&scene, &["--job", &id.to_string()]).await;
    let by_position = json(&scene, &[&id.to_string()]).await;
    assert_eq!(found["jobs"][0]["id"], by_position["jobs"][0]["id"]);
    let (ran, printed) = status(&scene, &["--job", "none"]).await;
    assert!(!ran, "{printed}");
    let job = &found["jobs"][0];
    assert_eq!(
        (&found["daemons"], &job["state"]),
        (&Value::from(0), &Value::from("stopped"))
    );
    assert!(
        job["daemon"].is_null() && job["lag_seconds"].is_null() && job["rows_per_second"].is_null(),
        "{job}"
    );
    assert!(job["lag_bytes"].as_u64().unwrap() > 0, "{job}");
    assert_eq!(job["coverage"]["rows_with_text"], 4);
    assert_eq!(job["coverage"]["rows_with_vector"], 3);

    // Rows of today are counted on by the next daemon.
    scene.start_daemon().await;
    wait_for_record(
        &scene,
        "stats -> 'today' ->> 'count' = '4' AND stats -> 'totals' ->> 'rows_written' = '1'",
    )
    .await;
}

#[tokio::test]
async fn a_row_that_cannot_be_written_is_shown_with_its_reason() {
    let mut scene = recording().await;
    let id = scene.job("notes", "body").await.to_string();
    scene.start_daemon().await;
    scene.write(&[TIDES, "refused"]).await;
    wait_for_record(&scene, "stats ->> 'quarantined_rows' = '1'").await;
    let (_, all) = status(&scene, &[]).await;
    assert!(
        all.contains("1 row could not be embedded or written"),
        "{all}"
    );
    let (_, one) = status(&scene, &[&id]).await;
    for part in [
        "{\"id\": \"2\"}",
        "violates check constraint",
        "failed rows",
        "retained by the slot",
    ] {
        assert!(one.contains(part), "{part} in {one}");
    }
    assert_eq!(json(&scene, &[]).await["jobs"][0]["quarantined_rows"], 1);
}

/// The first figure in which two lists of jobs differ.
fn difference(shown: &Value, jobs: &Value) -> Option<String> {
    let both = shown.as_array()?.iter().zip(jobs.as_array()?);
    both.flat_map(|(shown, job)| FIGURES.map(|figure| (figure, &shown[figure], &job[figure])))
        .find(|(_, shown, figure)| shown != figure)
        .map(|(name, shown, figure)| format!("{name}: {shown} instead of {figure}"))
}

#[tokio::test]
async fn the_view_the_command_the_page_and_the_metrics_show_the_same() {
    let mut scene = recording().await;
    scene.job("notes", "body").await;
    scene.sql("INSERT INTO jobs (db_connection, \"table\", src_column, dst_column, embedding_model) \
               SELECT db_connection, 'gone', 'body', 'embedding', embedding_model FROM jobs; \
               INSERT INTO jobs (db_connection, \"table\", src_column, dst_column, embedding_model, canceled_at) \
               SELECT db_connection, 'over', 'body', 'embedding', embedding_model, true FROM jobs LIMIT 1").await;
    scene.spawn_daemon_with(&["--listen", "127.0.0.1:0"]);
    scene.write(&[TIDES, MOON, "refused"]).await;
    scene.wait_for("SELECT bool_or(stats ->> 'quarantined_rows' = '1') AND bool_or(init_failed_at IS NOT NULL) FROM jobs", "true").await;
    scene.wait_for("SELECT bool_or(stats -> 'totals' ->> 'rows_written' = '2' AND (stats ->> 'rows_per_second')::float8 = 0 AND stats ->> 'slot' IS NOT NULL) FROM jobs", "true").await;
    let same = "id, \"table\", source, destination, model, provider, state, reason, as_of, backfill_percent, rows_per_second, \
                rows_today, lag_seconds, quarantined_rows, rows_written, texts, tokens, slot_name, wal_status";
    let view = scene
        .value(&format!(
            "SELECT jsonb_agg(to_jsonb(v) ORDER BY id) FROM (SELECT {same} FROM jobs_status) v"
        ))
        .await;
    let view: Value = serde_json::from_str(&view).unwrap();
    let jobs = json(&scene, &[]).await["jobs"].clone();
    assert_eq!(view.as_array().unwrap().len(), 3);
    for (row, job) in view
        .as_array()
        .unwrap()
        .iter()
        .zip(jobs.as_array().unwrap())
    {
        for (column, value) in row.as_object().unwrap() {
            let shown = match column.as_str() {
                "id" => Value::from(job["id"].as_str().unwrap().parse::<i64>().unwrap()),
                "rows_written" | "texts" | "tokens" => job["totals"][column].clone(),
                "slot_name" => job["slot"]["name"].clone(),
                "wal_status" => job["slot"][column].clone(),
                "as_of" => continue,
                _ => job[column].clone(),
            };
            let equal =
                value == &shown || value.as_f64().is_some() && value.as_f64() == shown.as_f64();
            assert!(
                equal,
                "{column}: {value} in the view, {shown} by the command"
            );
        }
    }
    let states: Vec<&str> = jobs
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["streaming", "failed", "canceled"]);
    let address = address_of(scene.daemon()).await;
    // The page reads what the table says of jobs that do not run every few seconds.
    wait_until("the page shows the same", TIMEOUT, async || {
        let page: Value = serde_json::from_str(&get(address, "/api/status", &[]).body).unwrap();
        match difference(&page["jobs"], &jobs) {
            Some(difference) => Err(difference),
            None => Ok(()),
        }
    })
    .await;
    let metrics = parse(&get(address, "/metrics", &[]).body);
    for job in jobs.as_array().unwrap() {
        // Prometheus is told only of what runs.
        if job["state"] != "streaming" {
            continue;
        }
        let sample = |name: &str| {
            let label = format!("{name}{{job_id={}", job["id"]);
            metrics
                .iter()
                .find(|(name, _)| name.starts_with(&label))
                .map(|(_, value)| *value)
        };
        assert_eq!(
            sample("lantern_job_quarantined_rows"),
            job["quarantined_rows"].as_f64()
        );
        assert_eq!(
            sample("lantern_job_lag_seconds"),
            job["lag_seconds"].as_f64()
        );
        assert_eq!(
            sample("lantern_job_rows_written_total"),
            job["totals"]["rows_written"].as_f64()
        );
        assert_eq!(
            sample("lantern_job_tokens_total"),
            job["totals"]["tokens"].as_f64()
        );
    }
    // The daemon that is killed records nothing; the locks of its session go with it.
    scene.kill_daemon();
    scene
        .wait_for(
            "SELECT state FROM jobs_status ORDER BY id LIMIT 1",
            "stopped",
        )
        .await;
    assert_eq!(json(&scene, &[]).await["jobs"][0]["state"], "stopped");
}

#[tokio::test]
async fn the_view_of_slots_shows_those_of_this_database() {
    let mut scene = recording().await;
    scene.job("notes", "body").await;
    scene.start_daemon().await;
    let shown = "SELECT tables || ' ' || active || ' ' || wal_status || ' ' || (lag_bytes >= 0) FROM lantern_slots";
    scene
        .wait_for(shown, "public.notes true reserved true")
        .await;
    let stranger = scene.session("CREATE ROLE onlooker_of_slots; GRANT SELECT ON lantern_slots, jobs_status TO onlooker_of_slots; SET ROLE onlooker_of_slots").await;
    let rows = stranger
        .query("SELECT FROM lantern_slots, jobs_status", &[])
        .await
        .unwrap();
    scene
        .sql("DROP OWNED BY onlooker_of_slots; DROP ROLE onlooker_of_slots")
        .await;
    assert_eq!(rows.len(), 1);
}

/// No catalog says which publication a slot is read with: the walsender does.
#[tokio::test]
async fn the_view_of_slots_shows_tables_of_prepared_publications() {
    let mut scene = recording().await;
    scene
        .sql("CREATE TABLE \"It's\" (id int PRIMARY KEY, body text)")
        .await;
    let kind = scene.database.adapted("vector(384)");
    for table in ["notes", "It''s"] {
        let variables = format!(
            "\\set schema public\n\\set table '{table}'\n\\set key id\n\\set source body\n\\set destination embedding\n\
             \\set type '{kind}'\n\\set role postgres\n"
        );
        let script = variables + &paths::read("sql/prepare_publication.sql");
        scene.database.psql(&script).await;
        scene.job(&table.replace("''", "'"), "body").await;
    }
    scene.start_daemon().await;
    let shown = "SELECT string_agg(tables, ' ' ORDER BY tables) FROM lantern_slots";
    scene.wait_for(shown, "public.\"It's\" public.notes").await;
    scene.stop_daemon().await;
    scene
        .wait_for(&format!("SELECT ({shown}) IS NULL"), "true")
        .await;
    scene
        .sql("UPDATE jobs SET canceled_at = true WHERE \"table\" <> 'notes'; DROP TABLE \"It's\"")
        .await;
    scene
        .sql("DROP PUBLICATION \"lantern_prepared_public_It's_body\"")
        .await;
    scene
        .wait_for("SELECT tables FROM lantern_slots LIMIT 1", "public.notes")
        .await;
}

/// Without the column, and for a role that may only read.
#[tokio::test]
async fn a_jobs_table_without_the_column_shows_what_sql_tells() {
    let mut scene = scene_with(NOTES).await;
    scene.job("notes", "body").await;
    scene.write(&[TIDES]).await;
    scene.start_daemon().await;
    let found = json(&scene, &[]).await;
    let job = &found["jobs"][0];
    assert_eq!(
        (&job["state"], &job["rows_per_second"]),
        (&Value::from("streaming"), &Value::Null)
    );
    assert_eq!(found["daemons"], 1);
    assert!(job["slot"]["retained_bytes"].is_u64(), "{job}");
}

#[tokio::test]
async fn what_cannot_be_shown_is_said() {
    let scene = recording().await;
    let (ran, none) = status(&scene, &[]).await;
    assert!(ran && none.contains("no rows"), "{none}");
    let id = scene.job("notes", "body").await;
    let (ran, missing) = status(&scene, &["99"]).await;
    assert!(
        !ran && missing.contains(&format!(
            "there is no job 99 in \"public\".\"jobs\"; it has {id}"
        )),
        "{missing}"
    );
    let (ran, usage) = status(&scene, &["--watch", "soon"]).await;
    assert!(
        !ran && usage.contains("write a number of seconds"),
        "{usage}"
    );
    scene
        .sql("UPDATE jobs SET db_connection = 'postgresql://u:secret@127.0.0.1:1/none'")
        .await;
    let (ran, away) = status(&scene, &[]).await;
    assert!(
        ran && away.contains("127.0.0.1") && !away.contains("secret"),
        "{away}"
    );
    let (_, json) = status(&scene, &["--json"]).await;
    assert!(!json.contains("secret"), "{json}");
}

/// Other people's texts do not act on the terminal.
#[tokio::test]
async fn names_and_reasons_are_shown_harmless() {
    let scene = recording().await;
    scene.sql("INSERT INTO jobs (db_connection, \"table\", src_column, dst_column, embedding_model, init_failed_at, init_failure_reason) \
               VALUES ('host=/nowhere', E'no\\ntes\\e[2J', 'body', 'embedding', 'm', now(), E'red \\e[31m\\nline')").await;
    for more in [&[][..], &["1"]] {
        let (_, shown) = status(&scene, more).await;
        assert!(
            !shown.contains('\u{1b}') && !shown.contains("\nline"),
            "{shown:?}"
        );
    }
    let (_, json) = status(&scene, &["--json"]).await;
    assert!(!json.contains('\u{1b}'), "{json:?}");
}

/// The age of the oldest change, while its row is locked by a transaction of the users.
#[tokio::test]
async fn the_lag_is_the_age_of_the_oldest_change_without_a_vector() {
    let mut scene = recording().await;
    scene.job("notes", "body").await;
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    wait_for_record(&scene, "stats ->> 'lag_seconds' = '0.0'").await;
    scene.put(1, MOON).await;
    let user = scene
        .session("BEGIN; SELECT FROM notes WHERE id = 1 FOR UPDATE")
        .await;
    // Whether or not the vector was faster than the lock, this one is not.
    user.batch_execute("UPDATE notes SET body = 'x' WHERE id = 1; COMMIT; BEGIN; SELECT FROM notes WHERE id = 1 FOR UPDATE")
        .await
        .unwrap();
    wait_for_record(&scene, "(stats ->> 'lag_seconds')::float8 > 2").await;
    let shown = json(&scene, &[]).await["jobs"][0]["lag_seconds"].clone();
    assert!(shown.as_f64().is_some_and(|lag| lag > 2.0), "{shown}");
    user.batch_execute("COMMIT").await.unwrap();
    wait_for_record(&scene, "stats ->> 'lag_seconds' = '0.0'").await;
}

/// Through the view for searchers the table of the locks is another one.
#[tokio::test]
async fn a_searcher_sees_that_the_daemon_runs() {
    let mut scene = recording().await;
    scene.job("notes", "body").await;
    let script = format!("\\set role postgres\n{}", paths::read("sql/searchers.sql"));
    scene.database.psql(&script).await;
    scene.write(&[TIDES]).await;
    scene.start_daemon().await;
    wait_for_record(&scene, "stats ->> 'phase' = 'streaming'").await;
    let target = scene.database.uri();
    let through_view = ["--table", "jobs_for_searchers", "--target", &target];
    let found = json(&scene, &through_view).await;
    assert_eq!(found["daemons"], 1);
    assert_eq!(found["jobs"][0]["state"], "streaming");
    scene.stop_daemon().await;
    let found = json(&scene, &through_view).await;
    assert_eq!(found["daemons"], 0);
    assert_eq!(found["jobs"][0]["state"], "stopped");
}

/// What a daemon has done that ran for a moment is recorded, and a canceled job shows no slot.
#[tokio::test]
async fn the_last_rows_are_recorded_and_a_slot_that_is_gone_is_not_shown() {
    let mut scene = recording().await;
    scene.job("notes", "body").await;
    scene.write(&[TIDES, MOON, CAVES]).await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    let stopped = &json(&scene, &[]).await["jobs"][0];
    assert_eq!(stopped["totals"]["rows_written"], 3);
    assert_eq!(stopped["rows_today"], 3);
    scene.start_daemon().await;
    wait_for_record(&scene, "stats -> 'slot' ->> 'name' IS NOT NULL").await;
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.wait_for_cleanup().await;
    let canceled = &json(&scene, &[]).await["jobs"][0];
    assert!(
        canceled["slot"].is_null() && canceled["lag_bytes"].is_null(),
        "{canceled}"
    );
    scene
        .wait_for("SELECT slot_name IS NULL FROM jobs_status", "true")
        .await;
}

/// Of a large table some pages are read, and they are read now.
#[tokio::test]
async fn the_coverage_of_a_large_table_is_estimated_from_its_pages() {
    let scene = recording().await;
    scene.job("notes", "body").await;
    // 20 MB, of which every second row has a vector, and the server has no statistics yet.
    scene
        .sql("ALTER TABLE notes SET (autovacuum_enabled = off); INSERT INTO notes (id, body, embedding) \
              SELECT i, repeat('text ', 400), CASE WHEN i % 2 = 0 THEN array_fill(0.5, ARRAY[384])::vector END \
              FROM generate_series(1, 6000) i")
        .await;
    let job = &json(&scene, &[]).await["jobs"][0]["coverage"];
    let share = job["rows_with_vector"].as_f64().unwrap() / job["rows_with_text"].as_f64().unwrap();
    assert!(
        job["is_exact"] == false && (0.4..0.6).contains(&share),
        "{job}"
    );
    let exact = &json(&scene, &["--exact"]).await["jobs"][0]["coverage"];
    assert_eq!(exact["rows_with_vector"], 3000);
}
