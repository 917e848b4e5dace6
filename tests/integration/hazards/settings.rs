//! Defaults of databases and roles must not change what the daemon does.

use testkit::client::execute;
use testkit::scene::{CAVES, DESERT, LONG, MOON, TIDES};

use crate::support::{notes_scene, scene_with};

/// Notes some settings of the daemon's sessions that update `notes`.
const SPY: &str = "
    CREATE TABLE seen (setting text, value text);
    CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF current_setting('application_name') LIKE 'lantern-cli%' THEN
          INSERT INTO public.seen SELECT name, setting FROM pg_settings
            WHERE name IN ('synchronous_commit', 'transaction_isolation', 'search_path');
        END IF;
        RETURN NEW;
      END $$;
    CREATE TRIGGER spy BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION spy();";

/// Hazard 28.
#[tokio::test]
async fn a_default_of_asynchronous_commit_does_not_apply_to_write_backs() {
    let mut scene = notes_scene().await;
    scene.sql(SPY).await;
    scene.set_default("synchronous_commit", "off").await;
    scene
        .set_default("default_transaction_isolation", "serializable")
        .await;
    scene.start_daemon().await;
    scene.put(1, TIDES).await;
    scene.caught_up().await;
    let seen = "SELECT string_agg(DISTINCT setting || '=' || value, ', ') FROM seen";
    assert_eq!(
        scene.value(seen).await,
        "search_path=\"$user\", public, synchronous_commit=local, transaction_isolation=read committed"
    );
}

/// Hazard 29. The text of each key must be the same in the stream and in SQL, whatever the defaults make of it.
#[tokio::test]
async fn defaults_that_change_how_values_look_change_nothing() {
    let tables = "CREATE TABLE notes (\"at\" timestamptz, day date, weight float8, span interval, raw bytea, n int, body text, \
                  embedding vector(384), PRIMARY KEY (\"at\", day, weight, span, raw))";
    let mut scene = scene_with(tables).await;
    scene.job("notes", "body").await;
    let defaults = [
        ("datestyle", "SQL, DMY"),
        ("timezone", "Asia/Kathmandu"),
        ("intervalstyle", "iso_8601"),
        ("extra_float_digits", "-15"),
        ("bytea_output", "escape"),
        ("search_path", "elsewhere"),
        ("default_transaction_read_only", "on"),
        ("default_transaction_isolation", "serializable"),
        ("client_encoding", "LATIN1"),
        ("standard_conforming_strings", "off"),
    ];
    for (setting, value) in defaults {
        scene.set_default(setting, value).await;
    }
    let insert = "INSERT INTO notes SELECT '2024-03-04 05:06:07.000089+02'::timestamptz + n * interval '1 day', \
                  '2024-02-01'::date + n, 0.1::float8 + 0.2 + n * 1e-16, n * interval '1 mon 2 days 03:04:05.6', \
                  decode('00ff5c27' || to_hex(16 + n), 'hex'), n, $1 FROM generate_series($2::int, $2 + 2) AS n";
    scene.execute(insert, &[&TIDES, &1]).await;
    scene.start_daemon().await;
    scene.wait_for_vectors("notes", "body").await;
    scene.execute(insert, &[&MOON, &11]).await;
    scene.caught_up().await;
    let update = "UPDATE notes SET body = $1, weight = weight * 3 WHERE n > 2";
    scene.execute(update, &[&DESERT]).await;
    scene.caught_up().await;
    scene.kill_daemon();
    scene
        .execute("UPDATE notes SET body = $1 WHERE n = 1", &[&CAVES])
        .await;
    scene.start_daemon().await;
    scene.caught_up().await;
}

/// Hazard 29. A source that is no text is embedded as the server prints it, in the stream and in SQL alike.
#[tokio::test]
async fn a_source_of_another_type_has_one_text() {
    let tables = "CREATE TABLE notes (id int PRIMARY KEY, body char(900), embedding vector(384))";
    let mut scene = scene_with(tables).await;
    scene.job("notes", "body").await;
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    scene.wait_for_vectors("notes", "body").await;
    scene.put(2, MOON).await;
    scene.put(1, CAVES).await;
    scene.put(3, "  ").await;
    let right = "SELECT count(*) FROM notes JOIN truth ON truth.body = rtrim(notes.body::text) WHERE embedding <-> vector < 0.001";
    scene.wait_for(right, "2").await;
    assert_eq!(
        scene
            .value("SELECT embedding IS NULL FROM notes WHERE id = 3")
            .await,
        "true"
    );
}

/// Hazard 29. Timeouts for applications end no session of the daemon, although its sessions idle and wait.
#[tokio::test]
async fn timeouts_for_applications_do_not_apply_to_the_daemon() {
    let mut scene = notes_scene().await;
    let mut unhurried =
        "SET idle_in_transaction_session_timeout = 0; BEGIN; CREATE TABLE unrelated (n int)"
            .to_owned();
    let mut settings = vec![
        "statement_timeout",
        "idle_session_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
    ];
    if scene.database.version() >= 17 {
        settings.push("transaction_timeout");
        unhurried = format!("SET transaction_timeout = 0; {unhurried}");
    }
    for setting in settings {
        scene.set_default(setting, "400ms").await;
    }
    scene.write(&[TIDES, &LONG]).await;
    // The slot waits for this transaction, longer than any of the timeouts.
    let writer = scene.session(&unhurried).await;
    scene.spawn_daemon();
    let creating = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    scene.wait_for(creating, "1").await;
    let maker = scene
        .value("SELECT active_pid FROM pg_replication_slots WHERE database = current_database()")
        .await;
    let waiting = format!(
        "SELECT max(now() - query_start) > interval '1 second' FROM pg_stat_activity WHERE pid = {maker}"
    );
    scene.wait_for(&waiting, "true").await;
    execute(&writer, "COMMIT").await;
    scene.wait_for_backfill().await;
    // The sessions are idle between two polls.
    let sessions = "SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity \
                    WHERE datname = current_database() AND application_name LIKE 'lantern-cli%'";
    scene.wait_for_vectors("notes", "body").await;
    scene
        .wait_for(
            "SELECT count(*) FROM jobs WHERE init_finished_at IS NOT NULL",
            "1",
        )
        .await;
    let before = scene.value(sessions).await;
    // Longer than the timeouts for idle sessions: the wait is what is tested.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(scene.value(sessions).await, before);
    scene.put(3, CAVES).await;
    scene.caught_up().await;
}
