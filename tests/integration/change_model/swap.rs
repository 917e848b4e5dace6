//! The whole way, by SQL and by the command.

use testkit::tiny_model::TinyModel;

use super::{Change, VECTOR_COLUMNS, notes, words};

#[tokio::test]
async fn a_job_with_replaces_fills_a_column_of_its_own_and_takes_the_name_of_the_first() {
    let mut change = Change::new(&notes(20), &[]).await;
    change.scene.start_daemon().await;
    change.wait_for_vectors("embedding", TinyModel::One).await;
    // A view on the column holds the swap up, so that there is time to look.
    change
        .scene
        .sql("CREATE VIEW seen AS SELECT id, embedding FROM notes")
        .await;
    let id = change.replace(&[]).await;
    let staging = format!("embedding_job_{id}");
    change
        .scene
        .wait_for(VECTOR_COLUMNS, &format!("embedding {staging}"))
        .await;
    change.wait_for_vectors(&staging, TinyModel::Two).await;
    // Both are kept up to date.
    change.scene.put(1, &words(50)).await;
    change.scene.put(21, &words(51)).await;
    change.wait_for_vectors(&staging, TinyModel::Two).await;
    change.wait_for_vectors("embedding", TinyModel::One).await;
    change.scene.sql("DROP VIEW seen").await;
    change.wait_for_swap(id).await;
    let before = format!("embedding_before_job_{id}");
    let columns = change.scene.value(VECTOR_COLUMNS).await;
    assert_eq!(columns, format!("embedding {before}"));
    assert_eq!(change.wrong("embedding", TinyModel::Two).await, [""; 0]);
    assert_eq!(change.wrong(&before, TinyModel::One).await, [""; 0]);
    change.scene.put(2, &words(52)).await;
    change.scene.put(3, "").await;
    change.wait_for_vectors("embedding", TinyModel::Two).await;
    // Nothing writes the old one, and nothing is left of its job.
    let slots = "SELECT string_agg(split_part(slot_name, '_', 3), ' ') FROM pg_replication_slots \
                 WHERE database = current_database()";
    change.scene.wait_for(slots, &id.to_string()).await;
    assert_eq!(change.wrong(&before, TinyModel::One).await.len(), 2);
    assert_eq!(change.scene.failures().await, "");
}

#[tokio::test]
async fn the_command_adds_the_job_and_follows_it_and_the_old_column_goes_when_told() {
    let mut change = Change::new(&notes(20), &[]).await;
    change.scene.start_daemon().await;
    let said = change
        .succeeds(&["--job", "1", "--to", TinyModel::Two.name()])
        .await;
    for part in [
        "chaos/two makes vectors of 8 dimensions\n",
        "job 2 is added",
        "job 2 has replaced job 1; the old vectors stay until: lantern-cli change-model --job 2 --drop-old\n",
    ] {
        assert!(said.contains(part), "{said}");
    }
    change.wait_for_vectors("embedding", TinyModel::Two).await;
    let uri = change.scene.database.uri();
    let status = change.program.stdout_of(&["status", "--uri", &uri]).await;
    assert!(
        status.contains("job 1: replaced by job 2") && !status.contains("is to replace"),
        "{status}"
    );
    for job in ["1", "2"] {
        let said = change.succeeds(&["--job", job]).await;
        assert!(said.contains("job 2 has replaced job 1"), "{said}");
    }
    let again = change
        .fails(&["--job", "1", "--to", TinyModel::One.name()])
        .await;
    assert!(
        again.contains("job 1 was replaced by job 2: name that one"),
        "{again}"
    );
    let late = change.fails(&["--job", "2", "--cancel"]).await;
    assert!(
        late.contains("lantern-cli change-model --job 2 --to chaos/one"),
        "{late}"
    );
    let dropped = change.succeeds(&["--job", "1", "--drop-old"]).await;
    assert_eq!(dropped, "dropped \"embedding_before_job_2\"\n");
    assert_eq!(change.scene.value(VECTOR_COLUMNS).await, "embedding");
    // The job goes on, also after a restart, and does not begin once more.
    change.scene.stop_daemon().await;
    change.scene.spawn_daemon();
    change.scene.put(5, &words(60)).await;
    change.wait_for_vectors("embedding", TinyModel::Two).await;
    assert_eq!(change.scene.value(VECTOR_COLUMNS).await, "embedding");
    // And back to the first model.
    change
        .succeeds(&["--job", "2", "--to", TinyModel::One.name()])
        .await;
    change.wait_for_vectors("embedding", TinyModel::One).await;
}

/// A command goes by the names of the columns at its start.
#[tokio::test]
async fn a_resync_of_the_new_column_delays_the_swap_and_is_not_broken_off() {
    let batch = [("batch_size", "1")];
    let mut change = Change::new(&notes(200), &[]).await;
    change.scene.start_daemon().await;
    change
        .scene
        .sql("CREATE VIEW seen AS SELECT embedding FROM notes")
        .await;
    change.replace(&batch).await;
    change
        .wait_for_vectors("embedding_job_2", TinyModel::Two)
        .await;
    // The command is slow while there is the table.
    change
        .scene
        .sql(
            "CREATE TABLE slow (); CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               IF current_setting('application_name') !~ 'job' AND to_regclass('public.slow') IS NOT NULL \
               THEN PERFORM pg_sleep(0.05); END IF; RETURN NEW; END $$;
             CREATE TRIGGER slow BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .await;
    let uri = change.scene.database.uri();
    let arguments = ["resync", "--uri", &uri, "--job", "2", "--all"];
    let resync = change.program.run(&arguments);
    let waits = "SELECT waits_for LIKE 'the end of a command%' FROM jobs WHERE id = 2";
    let sleeps = "SELECT count(*) > 0 FROM pg_stat_activity \
                  WHERE datname = current_database() AND wait_event = 'PgSleep'";
    let held_up = async {
        change.scene.wait_for(sleeps, "true").await;
        change.scene.sql("DROP VIEW seen").await;
        change.scene.wait_for(waits, "true").await;
        change.scene.sql("DROP TABLE slow").await;
    };
    let (output, ()) = tokio::join!(resync, held_up);
    let (out, errors) = super::texts(&output);
    assert!(output.status.success(), "{out}{errors}");
    change.wait_for_swap(2).await;
    change.wait_for_vectors("embedding", TinyModel::Two).await;
}
