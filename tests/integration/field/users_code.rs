//! Triggers, constraints, rules and event triggers of the users, which run inside our statements.

use testkit::Scene;
use testkit::jobs::{Job, insert_job};
use testkit::scene::{CAVES, DESERT, MOON, NOTES, TIDES};
use testkit::wait::{TIMEOUT, wait_until};

use crate::support::{notes_scene, scene_with};

/// An UPDATE trigger on `notes` with this PL/pgSQL body.
fn trigger(when: &str, body: &str) -> String {
    format!(
        "CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS $f$ {body} $f$; \
         CREATE TRIGGER fires {when} UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION fires()"
    )
}

/// The application has a schema of its own, which its sessions search by default.
async fn use_schema_app(scene: &Scene) {
    let database = scene.database.name();
    scene
        .sql(&format!(
            "CREATE SCHEMA IF NOT EXISTS app; ALTER DATABASE {database} SET search_path = app, public"
        ))
        .await;
}

/// supabase/realtime 213, pgcopydb 288, temporal_tables 3 and 26.
#[tokio::test]
async fn an_audit_trigger_finds_its_table_by_the_search_path_of_the_users() {
    let mut scene = notes_scene().await;
    use_schema_app(&scene).await;
    scene
        .sql(&format!(
            "CREATE TABLE app.audit_log (id int, \"at\" timestamptz DEFAULT now()); {}",
            trigger(
                "AFTER",
                "BEGIN INSERT INTO audit_log (id) VALUES (NEW.id); RETURN NULL; END"
            )
        ))
        .await;
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    scene.put(2, MOON).await;
    scene.caught_up().await;
    let audited = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM app.audit_log";
    scene.wait_for(audited, "1 2").await;
}

#[tokio::test]
async fn functions_of_constraints_and_domains_find_what_they_name() {
    let tables = "CREATE SCHEMA app; CREATE TABLE app.dictionary (word text); INSERT INTO app.dictionary VALUES ('moon'); \
        CREATE FUNCTION app.known(int) RETURNS boolean LANGUAGE plpgsql AS \
          'BEGIN RETURN EXISTS (SELECT FROM dictionary); END'; \
        CREATE DOMAIN app.number AS int CHECK (app.known(VALUE)); \
        CREATE TABLE notes (id app.number PRIMARY KEY, body text, views int DEFAULT 0 CHECK (app.known(views)), \
                            embedding vector(384))";
    let mut scene = scene_with(tables).await;
    use_schema_app(&scene).await;
    scene.job("notes", "body").await;
    let insert = "SET search_path = app, public; INSERT INTO notes (id, body) SELECT n, body FROM \
                  (SELECT row_number() OVER () AS n, body FROM truth) AS t";
    scene.session(insert).await;
    scene.start_daemon().await;
    scene
        .session("SET search_path = app, public; UPDATE notes SET body = NULL WHERE id = 1; UPDATE notes SET id = id + 10")
        .await;
    scene.caught_up().await;
}

#[tokio::test]
async fn an_event_trigger_finds_its_table_by_the_search_path_of_the_users() {
    for slots in ["job", "database"] {
        let mut scene = scene_with("CREATE TABLE notes (id int PRIMARY KEY, body text)").await;
        use_schema_app(&scene).await;
        scene
            .session(
                "CREATE TABLE app.ddl_log (tag text); \
                 CREATE FUNCTION app.note_ddl() RETURNS event_trigger LANGUAGE plpgsql AS \
                   'BEGIN INSERT INTO ddl_log VALUES (tg_tag); END'; \
                 CREATE EVENT TRIGGER note_ddl ON ddl_command_end EXECUTE FUNCTION app.note_ddl()",
            )
            .await;
        scene.job("notes", "body").await;
        scene.put(1, TIDES).await;
        scene.spawn_daemon_with(&["--slots", slots]);
        let finished = "SELECT count(*) FROM jobs WHERE init_finished_at IS NOT NULL";
        scene.wait_for(finished, "1").await;
        let logged = "SELECT count(*) > 0 FROM app.ddl_log WHERE tag = 'ALTER TABLE'";
        assert_eq!(scene.value(logged).await, "true");
        let publications = "SELECT count(*) > 0 FROM app.ddl_log WHERE tag LIKE '%PUBLICATION'";
        assert_eq!(scene.value(publications).await, "true");
        scene.sql("UPDATE jobs SET canceled_at = true").await;
        scene.wait_for_no_slot().await;
    }
}

/// What a session of a user has by default, the users' code has inside a write-back, too.
#[tokio::test]
async fn triggers_see_the_settings_of_the_users() {
    let mut scene = notes_scene().await;
    use_schema_app(&scene).await;
    let settings = [
        ("timezone", "Asia/Tokyo"),
        ("datestyle", "SQL, DMY"),
        ("intervalstyle", "iso_8601"),
        ("extra_float_digits", "0"),
        ("bytea_output", "escape"),
        ("enable_bitmapscan", "off"),
    ];
    for (setting, value) in settings {
        scene.set_default(setting, value).await;
    }
    let mut names: Vec<&str> = settings.iter().map(|(name, _)| *name).collect();
    names.extend([
        "search_path",
        "enable_seqscan",
        "enable_hashjoin",
        "enable_mergejoin",
        "enable_partition_pruning",
        "jit",
        "plan_cache_mode",
        "standard_conforming_strings",
        "row_security",
    ]);
    let seen = |table: &str| {
        format!(
            "INSERT INTO public.{table} SELECT lower(name), setting FROM pg_settings WHERE lower(name) IN ('{}')",
            names.join("', '")
        )
    };
    scene
        .sql(&format!(
            "CREATE TABLE seen (name text, setting text); CREATE TABLE expected (LIKE seen); {}",
            trigger(
                "BEFORE",
                &format!("BEGIN {}; RETURN NEW; END", seen("seen"))
            )
        ))
        .await;
    scene.session(&seen("expected")).await;
    scene.start_daemon().await;
    scene.put(1, TIDES).await;
    scene.caught_up().await;
    let difference = "SELECT string_agg(DISTINCT e.name || ': ' || e.setting || ', not ' || s.setting, '; ') \
                      FROM expected e JOIN seen s USING (name) WHERE e.setting <> s.setting";
    let count = "SELECT count(DISTINCT name) FROM seen";
    assert_eq!(scene.value(count).await, names.len().to_string());
    assert_eq!(scene.value(difference).await, "");
}

/// PostgreSQL's manual recommends this trigger. Here the row already holds the vector that is written again.
#[tokio::test]
async fn an_update_that_is_suppressed_as_redundant_is_finished() {
    let mut scene = notes_scene().await;
    scene
        .sql(
            "CREATE TRIGGER z_min_update BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        )
        .await;
    scene.write(&[TIDES, MOON, CAVES]).await;
    scene.start_daemon().await;
    scene.kill_daemon();
    // The daemon remembers no text now, so it embeds these again and writes the same vectors.
    scene.sql("UPDATE notes SET views = views + 1").await;
    scene.start_daemon().await;
    scene.caught_up().await;
    let none = "SELECT to_regclass('jobs_failures') IS NULL";
    assert_eq!(scene.value(none).await, "true");
}

/// efcore 30638.
#[tokio::test]
async fn a_row_whose_update_a_trigger_cancels_is_quarantined() {
    let mut scene = notes_scene().await;
    scene
        .sql(&trigger(
            "BEFORE",
            "BEGIN IF OLD.views = 7 THEN RETURN NULL; END IF; RETURN NEW; END",
        ))
        .await;
    scene.write(&[TIDES, MOON, CAVES]).await;
    scene
        .sql("ALTER TABLE notes DISABLE TRIGGER fires; UPDATE notes SET views = 7 WHERE id = 2; ALTER TABLE notes ENABLE TRIGGER fires")
        .await;
    scene.start_daemon().await;
    scene.put(4, DESERT).await;
    scene.wait_until_confirmed().await;
    scene.wait_for_failed_rows("key->>'id'", "2").await;
    let error = scene.value("SELECT error FROM jobs_failures").await;
    assert!(error.contains("skip_triggers"), "{error}");
    scene.sql("DELETE FROM notes WHERE id = 2").await;
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
}

/// PostgREST 2176, and its documentation of errors: functions raise any SQLSTATE on purpose.
#[tokio::test]
async fn an_error_that_a_trigger_raises_quarantines_its_row_whatever_the_sqlstate() {
    // Permanent ones, outages, conflicts, and codes without a definition.
    let codes = [
        "PT409", "42501", "45000", "55000", "0A000", "U0001", "42P01", "28P01", "3D000", "XX000",
        "08001", "08006", "57014", "57P03", "53100", "53300", "58030", "57P04", "40001", "40P01",
        "55P03", "25006", "25P03", "P0001", "23505", "22012", "72000",
    ];
    let mut scene = notes_scene().await;
    scene
        .sql(&format!(
            "CREATE TABLE codes (id int PRIMARY KEY, code text); {}",
            trigger(
                "BEFORE",
                "DECLARE c text := (SELECT code FROM public.codes WHERE id = NEW.id); \
                 BEGIN IF c IS NOT NULL THEN RAISE EXCEPTION 'row % is locked', NEW.id USING ERRCODE = c; END IF; RETURN NEW; END"
            )
        ))
        .await;
    for (id, code) in (1..).zip(codes) {
        scene
            .execute("INSERT INTO codes VALUES ($1::int, $2)", &[&id, &code])
            .await;
    }
    for id in 1..=40 {
        scene.put(id, TIDES).await;
    }
    scene.start_daemon().await;
    let quarantined: Vec<String> = (1..=codes.len()).map(|id| id.to_string()).collect();
    scene
        .wait_for_failed_rows("key->>'id'", &quarantined.join(", "))
        .await;
    scene.wait_until_confirmed().await;
    let missing =
        "SELECT count(*) FROM notes WHERE embedding IS NULL AND id NOT IN (SELECT id FROM codes)";
    assert_eq!(scene.value(missing).await, "0");
    let silent = "SELECT count(*) FROM jobs_failures WHERE error NOT LIKE '%PL/pgSQL function fires()%skip_triggers%'";
    assert_eq!(scene.value(silent).await, "0");
    assert_eq!(scene.failures().await, "");
}

/// While nothing else can be written, an outage of the server behind a trigger is not the fault of a row.
#[tokio::test]
async fn an_outage_behind_a_trigger_is_waited_for() {
    let mut scene = notes_scene().await;
    scene
        .sql(&format!(
            "CREATE TABLE outage (id int); INSERT INTO outage VALUES (1); {}",
            trigger(
                "BEFORE",
                "BEGIN IF EXISTS (SELECT FROM public.outage) THEN RAISE EXCEPTION 'could not connect to server' \
                 USING ERRCODE = '08001'; END IF; RETURN NEW; END"
            )
        ))
        .await;
    scene.write(&[TIDES, MOON]).await;
    scene.spawn_daemon();
    let line = scene
        .daemon()
        .wait_for_line("could not connect to server", TIMEOUT)
        .await;
    assert!(line.contains("WARN") && line.contains("fires()"), "{line}");
    scene.sql("DELETE FROM outage").await;
    scene.wait_for_vectors("notes", "body").await;
    let none = "SELECT to_regclass('jobs_failures') IS NULL";
    assert_eq!(scene.value(none).await, "true");
}

/// The trigger runs with the rights of the daemon's role, which may not write to the audit table.
#[tokio::test]
async fn a_trigger_that_lacks_rights_quarantines_rows_and_names_the_table() {
    let mut scene = notes_scene().await;
    let role = format!("owner_{}", scene.database.name());
    scene
        .sql(&format!(
            "CREATE TABLE audit_log (id int); {}; CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'secret'; \
             ALTER TABLE notes OWNER TO {role}; GRANT CREATE ON DATABASE {} TO {role}; DELETE FROM jobs",
            trigger(
                "AFTER",
                "BEGIN INSERT INTO audit_log VALUES (NEW.id); RETURN NULL; END"
            ),
            scene.database.name()
        ))
        .await;
    let uri = scene.database.uri();
    let (_, place) = uri.split_once('@').expect("a URI with a password");
    let uri = format!("postgresql://{role}:secret@{place}");
    insert_job(&scene.client, Job::at(uri, "notes", "body", "embedding")).await;
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    scene.wait_for_failed_rows("key->>'id'", "1").await;
    let error = scene.value("SELECT error FROM jobs_failures").await;
    assert!(
        error.contains("permission denied for table audit_log") && error.contains("fires()"),
        "{error}"
    );
    assert_eq!(scene.failures().await, "");
    scene.sql("DROP TABLE notes; DELETE FROM jobs").await;
    scene.wait_for_cleanup().await;
    scene
        .sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}

/// A table of its own with a job of its own, written by the trigger of another job's table.
#[tokio::test]
async fn rows_that_a_trigger_writes_to_another_table_get_vectors() {
    for slots in ["job", "database"] {
        let mut scene = notes_scene().await;
        scene
            .sql(&format!(
                "CREATE TABLE history (id serial PRIMARY KEY, body text, embedding vector(384)); {}",
                trigger(
                    "AFTER",
                    "BEGIN INSERT INTO history (body) VALUES (NEW.body); \
                     UPDATE history SET body = NEW.body WHERE id = 1; RETURN NULL; END"
                )
            ))
            .await;
        scene.job("history", "body").await;
        scene.write(&[TIDES, MOON]).await;
        scene.spawn_daemon_with(&["--slots", slots]);
        scene.wait_for_vectors("notes", "body").await;
        scene.put(1, CAVES).await;
        scene.put(3, DESERT).await;
        scene
            .wait_for("SELECT count(*) >= 5 FROM history", "true")
            .await;
        settled(&scene).await;
        assert_eq!(scene.wrong_vectors("history", "body").await, "");
        assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    }
}

#[tokio::test]
async fn a_row_that_a_trigger_inserts_into_the_jobs_own_table_gets_a_vector() {
    let mut scene = notes_scene().await;
    scene
        .sql(&trigger(
            "AFTER",
            "BEGIN IF NEW.id < 100 THEN INSERT INTO public.notes (id, body) VALUES (NEW.id + 100, NEW.body) \
             ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body; END IF; RETURN NULL; END",
        ))
        .await;
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    scene.put(2, MOON).await;
    scene.put(1, CAVES).await;
    scene
        .wait_for(
            "SELECT count(*) FROM notes WHERE embedding IS NOT NULL",
            "4",
        )
        .await;
    scene.wait_for_vectors("notes", "body").await;
}

/// Waits for the write-backs of the changes so far, and for those that their triggers cause.
async fn settled(scene: &Scene) {
    for _ in 0..3 {
        scene.wait_until_confirmed().await;
    }
}

/// Existing texts and new ones, with a fingerprint column and without one, in a plain column and in a generated one.
#[tokio::test]
async fn a_text_that_a_trigger_cleans_up_gets_the_vector_of_the_clean_text() {
    for (source, fingerprint) in [("body", false), ("body", true), ("derived", false)] {
        let mut scene = scene_with(
            "CREATE TABLE notes (id int PRIMARY KEY, body text, derived text GENERATED ALWAYS AS (body) STORED, embedding vector(384))",
        )
        .await;
        scene
            .sql("ALTER TABLE jobs ADD COLUMN fingerprint_column TEXT")
            .await;
        let options: &[(&str, &str)] = match fingerprint {
            true => &[("fingerprint_column", "'fingerprint'")],
            false => &[],
        };
        let job = Job {
            options,
            ..Job::on(&scene.database, "notes", source, "embedding")
        };
        insert_job(&scene.client, job).await;
        scene.put(1, &format!("  {TIDES} ")).await;
        scene
            .sql(&trigger(
                "BEFORE",
                "BEGIN NEW.body := trim(NEW.body); RETURN NEW; END",
            ))
            .await;
        scene.start_daemon().await;
        scene.wait_for_vectors("notes", source).await;
        // The trigger is for updates alone, so the inserted text is cleaned up by the write-back.
        scene.put(2, &format!("{MOON}   ")).await;
        scene.wait_for_vectors("notes", source).await;
        // The vector is that of the clean text, too, so wait for the write-back that follows the cleaning.
        settled(&scene).await;
        scene.put(2, DESERT).await;
        scene.wait_for_vectors("notes", source).await;
        settled(&scene).await;
        let versions = scene.row_versions().await;
        settled(&scene).await;
        assert_eq!(scene.row_versions().await, versions);
    }
}

/// Another job of the same table must notice, too.
#[tokio::test]
async fn a_text_that_is_cleaned_up_by_the_write_back_of_another_job_gets_its_vector() {
    let mut scene = scene_with(
        "CREATE TABLE notes (id int PRIMARY KEY, title text, body text, embedding vector(384), title_embedding vector(384))",
    )
    .await;
    scene.job("notes", "body").await;
    scene.start_daemon().await;
    scene.put(1, &format!("{TIDES}  ")).await;
    scene.wait_until_confirmed().await;
    scene
        .sql(&trigger(
            "BEFORE",
            "BEGIN NEW.body := trim(NEW.body); RETURN NEW; END",
        ))
        .await;
    scene
        .sql("ALTER TABLE notes DISABLE TRIGGER fires; UPDATE notes SET title = body; ALTER TABLE notes ENABLE TRIGGER fires")
        .await;
    let job = Job::on(&scene.database, "notes", "title", "title_embedding");
    insert_job(&scene.client, job).await;
    scene.wait_for_backfill().await;
    scene.wait_for_vectors("notes", "body").await;
}

/// A trigger that never ends must not keep the daemon and the table busy for ever.
#[tokio::test]
async fn a_trigger_that_changes_the_text_each_time_is_named_in_the_failures() {
    let mut scene = notes_scene().await;
    scene
        .sql(&trigger(
            "BEFORE",
            "BEGIN IF NEW.id = 2 THEN NEW.body := NEW.body || '!'; END IF; RETURN NEW; END",
        ))
        .await;
    scene.write(&[TIDES, MOON]).await;
    scene.start_daemon().await;
    scene.wait_for_failed_rows("key->>'id'", "2").await;
    let error = scene.value("SELECT error FROM jobs_failures").await;
    assert!(error.contains("skip_triggers"), "{error}");
    scene.put(1, CAVES).await;
    scene.wait_until_confirmed().await;
    let length = scene
        .value("SELECT length(body) FROM notes WHERE id = 2")
        .await;
    scene.wait_until_confirmed().await;
    scene.wait_until_confirmed().await;
    let later = scene
        .value("SELECT length(body) FROM notes WHERE id = 2")
        .await;
    assert_eq!(length, later);
    scene.sql("DELETE FROM notes WHERE id = 2").await;
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
}

/// An application may use the prefix of our messages. Its transaction is its own.
#[tokio::test]
async fn a_message_of_an_application_hides_no_change() {
    let mut scene = notes_scene().await;
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    for content in ["", "lantern", "x"] {
        scene
            .sql(&format!(
                "BEGIN; SELECT pg_logical_emit_message(true, 'lantern', '{content}'); \
                 UPDATE notes SET body = (SELECT body FROM truth WHERE body <> notes.body LIMIT 1); \
                 INSERT INTO notes (id, body) SELECT max(id) + 1, '{MOON}' FROM notes; COMMIT"
            ))
            .await;
        scene.caught_up().await;
    }
}

/// PostgREST 1283, graphql-engine 6298.
#[tokio::test]
async fn a_rule_that_rewrites_updates_is_named() {
    let rules = [
        "CREATE RULE log_it AS ON UPDATE TO notes DO ALSO INSERT INTO seen VALUES (1)",
        "CREATE RULE log_it AS ON UPDATE TO notes WHERE NEW.views > 1 DO INSTEAD NOTHING",
        "CREATE RULE log_it AS ON UPDATE TO notes DO INSTEAD INSERT INTO seen VALUES (1)",
    ];
    for rule in rules {
        let mut scene = notes_scene().await;
        scene.sql("CREATE TABLE seen (n int)").await;
        scene.put(1, TIDES).await;
        scene.sql(rule).await;
        scene.spawn_daemon();
        let reason = scene.wait_for_failure().await;
        let remedy = r#"ALTER TABLE "public"."notes" DISABLE RULE "log_it";"#;
        assert!(reason.contains(remedy), "{reason}");
        scene
            .sql(&format!(
                "{remedy} UPDATE jobs SET init_failed_at = NULL; CREATE RULE harmless AS ON DELETE TO notes DO ALSO NOTHING"
            ))
            .await;
        scene.wait_for_backfill().await;
        scene.caught_up().await;
    }
}

/// vellum-assistant PR 8936, sim PR 7472.
#[tokio::test]
async fn a_destination_that_is_not_null_is_mentioned_with_the_remedy() {
    let mut scene = scene_with(NOTES).await;
    scene.job("notes", "body").await;
    let default = match scene.database.adapted("vector(384)").as_str() {
        "real[]" => "array_fill(0::real, ARRAY[384])".to_owned(),
        vector => format!("array_fill(0::real, ARRAY[384])::{vector}"),
    };
    scene
        .sql(&format!(
            "ALTER TABLE notes ALTER embedding SET DEFAULT {default}, ALTER embedding SET NOT NULL"
        ))
        .await;
    scene.write(&[TIDES, ""]).await;
    scene.start_daemon().await;
    let remedy = r#"ALTER TABLE "public"."notes" ALTER COLUMN "embedding" DROP NOT NULL;"#;
    scene.daemon().wait_for_line(remedy, TIMEOUT).await;
    scene.wait_for_failed_rows("key->>'id'", "2").await;
    let error = scene.value("SELECT error FROM jobs_failures").await;
    assert!(error.contains(remedy), "{error}");
    scene.sql("DELETE FROM notes WHERE id = 2").await;
    wait_until("the row is right", TIMEOUT, async || {
        let wrong = scene.wrong_vectors("notes", "body").await;
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    })
    .await;
}

/// A join in a trigger is planned as it is for its users.
#[tokio::test]
async fn a_trigger_with_a_join_is_as_fast_as_for_its_users() {
    let mut scene: Scene = notes_scene().await;
    scene
        .sql(&format!(
            "CREATE TABLE a AS SELECT n FROM generate_series(1, 6000) n; CREATE TABLE b AS SELECT n FROM a; ANALYZE a, b; \
             CREATE TABLE plans (node text); {}",
            trigger(
                "AFTER",
                "DECLARE line text; BEGIN FOR line IN EXECUTE 'EXPLAIN SELECT count(*) FROM public.a JOIN public.b USING (n)' \
                 LOOP INSERT INTO public.plans VALUES (line); END LOOP; RETURN NULL; END"
            )
        ))
        .await;
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    scene.caught_up().await;
    let nested = "SELECT count(*) FROM plans WHERE node LIKE '%Nested Loop%'";
    assert_eq!(scene.value(nested).await, "0");
    assert_ne!(scene.value("SELECT count(*) FROM plans").await, "0");
}
