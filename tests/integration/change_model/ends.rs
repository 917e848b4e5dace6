//! How a change ends, or does not yet: canceled, deleted, held up by rows, locks, or a wrong definition.

use testkit::jobs::wait_for_failure;
use testkit::tiny_model::TinyModel;

use super::{Change, VECTOR_COLUMNS, notes, words};

const JOBS_WITH_SLOTS: &str = "SELECT string_agg(split_part(slot_name, '_', 3), ' ') FROM pg_replication_slots \
    WHERE database = current_database()";

/// A change that a view holds up.
async fn held_up(options: &[(&str, &str)]) -> Change {
    let mut change = Change::new(&notes(10), options).await;
    change.scene.start_daemon().await;
    change
        .scene
        .sql("CREATE VIEW seen AS SELECT embedding FROM notes")
        .await;
    let id = change.replace(options).await;
    assert_eq!(id, 2);
    change
        .wait_for_vectors("embedding_job_2", TinyModel::Two)
        .await;
    let waits = "SELECT waits_for LIKE 'a change by a person%' FROM jobs WHERE id = 2";
    change.scene.wait_for(waits, "true").await;
    change
}

async fn nothing_is_left(change: &Change, columns: &str) {
    change.scene.wait_for(VECTOR_COLUMNS, columns).await;
    change.scene.wait_for(JOBS_WITH_SLOTS, "1").await;
    let publications = "SELECT count(*) FROM pg_publication";
    change.scene.wait_for(publications, "1").await;
    change.scene.put(1, &words(40)).await;
    change.wait_for_vectors("embedding", TinyModel::One).await;
}

#[tokio::test]
async fn a_change_that_is_given_up_leaves_nothing_behind() {
    let fingerprints = [("fingerprint_column", "'print'")];
    let change = held_up(&fingerprints).await;
    let said = change.succeeds(&["--job", "1"]).await;
    assert!(
        said.contains(
            "job 2 is to replace job 1: has a vector for every row; waits for a change by a person"
        ),
        "{said}"
    );
    let uri = change.scene.database.uri();
    let status = change.program.stdout_of(&["status", "--uri", &uri]).await;
    assert!(
        status.contains("job 2: is to replace job 1; waits for a change by a person"),
        "{status}"
    );
    change.succeeds(&["--job", "1", "--cancel"]).await;
    nothing_is_left(&change, "embedding print").await;
    let said = change.fails(&["--job", "1"]).await;
    assert!(
        said.contains("no change of the model of job 1 is under way"),
        "{said}"
    );
    // By SQL.
    change.replace(&fingerprints).await;
    change
        .wait_for_vectors("embedding_job_3", TinyModel::Two)
        .await;
    change.scene.sql("DELETE FROM jobs WHERE id = 3").await;
    nothing_is_left(&change, "embedding print").await;
}

#[tokio::test]
async fn a_change_whose_model_is_changed_once_more_starts_over_in_an_empty_column() {
    let mut change = held_up(&[]).await;
    change
        .scene
        .sql("UPDATE jobs SET embedding_model = 'chaos/one' WHERE id = 2")
        .await;
    change
        .wait_for_vectors("embedding_job_2", TinyModel::One)
        .await;
    change.scene.kill_daemon();
    change
        .scene
        .sql("UPDATE jobs SET canceled_at = true WHERE id = 2")
        .await;
    change.scene.spawn_daemon();
    nothing_is_left(&change, "embedding").await;
}

#[tokio::test]
async fn rows_that_could_not_be_embedded_hold_the_swap_up_until_they_are_or_need_not_be() {
    let mut change = Change::new(&notes(10), &[]).await;
    change
        .scene
        .sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               IF NEW.id = 3 AND to_jsonb(NEW) ->> 'embedding_job_2' IS NOT NULL THEN RAISE 'not this one'; END IF; \
               RETURN NEW; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
    change.scene.start_daemon().await;
    change.replace(&[]).await;
    let waits = "SELECT waits_for LIKE '1 row that could not be embedded with the new model: %retry-failed --job 2; or %' \
                 FROM jobs WHERE id = 2";
    change.scene.wait_for(waits, "true").await;
    let said = change.succeeds(&["--job", "1", "--despite-failures"]).await;
    assert!(said.contains("job 2 has replaced job 1"), "{said}");
    assert_eq!(change.wrong("embedding", TinyModel::Two).await, [words(3)]);
}

#[tokio::test]
async fn a_transaction_that_uses_the_table_delays_the_swap_and_nothing_else() {
    let mut change = Change::new(&notes(10), &[]).await;
    change.scene.start_daemon().await;
    // The new column is there already: to add it takes the lock, too.
    change
        .scene
        .sql("ALTER TABLE notes ADD embedding_job_2 real[]")
        .await;
    let user = change
        .scene
        .session("BEGIN; SELECT embedding FROM notes LIMIT 1")
        .await;
    change.replace(&[]).await;
    let waits = "SELECT waits_for LIKE 'a lock on \"public\".\"notes\", which a transaction holds%' FROM jobs WHERE id = 2";
    change.scene.wait_for(waits, "true").await;
    change.scene.put(1, &words(33)).await;
    change.wait_for_vectors("embedding", TinyModel::One).await;
    change
        .wait_for_vectors("embedding_job_2", TinyModel::Two)
        .await;
    testkit::client::execute(&user, "COMMIT").await;
    change.wait_for_swap(2).await;
    change.wait_for_vectors("embedding", TinyModel::Two).await;
}

#[tokio::test]
async fn a_job_that_cannot_replace_the_other_fails_with_what_to_correct() {
    let mut change = Change::new(&notes(3), &[]).await;
    change.scene.start_daemon().await;
    for (options, expected) in [
        (&[("replaces", "17")][..], "the jobs table has no such job"),
        (
            &[("replaces", "currval('jobs_id_seq')")][..],
            "names the job itself",
        ),
        (
            &[("replaces", "1"), ("fingerprint_column", "'p'")][..],
            "both must name the same db_connection",
        ),
        (&[("replaces", "1"), ("runtime", "'magic'")][..], "magic"),
    ] {
        let id = change.add_job(TinyModel::Two, options).await;
        let reason = wait_for_failure(&change.scene.client, id).await;
        assert!(reason.contains(expected), "{reason}");
        let delete = format!("DELETE FROM jobs WHERE id = {id}");
        change.scene.sql(&delete).await;
    }
    // A second change of the same column.
    change
        .scene
        .sql("CREATE VIEW seen AS SELECT embedding FROM notes")
        .await;
    let first = change.replace(&[]).await;
    change
        .wait_for_vectors(&format!("embedding_job_{first}"), TinyModel::Two)
        .await;
    let second = change.replace(&[]).await;
    let reason = wait_for_failure(&change.scene.client, second).await;
    assert!(reason.contains(&format!("job {first} writes")), "{reason}");
    let refused = change.fails(&["--job", "1", "--to", "chaos/two"]).await;
    assert!(
        refused.contains(&format!("job {first} is about to replace job 1 already")),
        "{refused}"
    );
}

#[tokio::test]
async fn the_command_refuses_what_is_no_change_and_writes_nothing() {
    let change = Change::new(&notes(3), &[]).await;
    for (arguments, expected) in [
        (
            &["--job", "1", "--to", "chaos/one"][..],
            "has the model chaos/one already",
        ),
        (&["--job", "1", "--to", "chaos/three"][..], "chaos/three"),
        (
            &["--job", "9", "--to", "chaos/two"][..],
            "there is no job 9",
        ),
        (
            &["--job", "1", "--create-index", "hnsw"][..],
            "name that with --to",
        ),
        (
            &["--job", "1", "--cancel"][..],
            "no change of the model of job 1",
        ),
        (
            &["--job", "1", "--to", "chaos/two", "--cancel"][..],
            "cannot be used with",
        ),
    ] {
        let said = change.fails(arguments).await;
        assert!(said.contains(expected), "{said}");
    }
    change.scene.sql("UPDATE jobs SET canceled_at = true").await;
    let said = change.fails(&["--job", "1", "--to", "chaos/two"]).await;
    assert!(
        said.contains("job 1 is canceled; to run it again: UPDATE"),
        "{said}"
    );
    change
        .scene
        .sql("UPDATE jobs SET canceled_at = false; ALTER TABLE jobs ALTER id DROP DEFAULT")
        .await;
    let said = change.fails(&["--job", "1", "--to", "chaos/two"]).await;
    assert!(
        said.contains("refuses the row: null value in column \"id\"")
            && !said.contains("postgresql://"),
        "{said}"
    );
    change.scene.sql("ALTER TABLE jobs DROP replaces").await;
    let said = change.fails(&["--job", "1", "--to", "chaos/two"]).await;
    assert!(said.contains("ADD COLUMN replaces text;"), "{said}");
    assert_eq!(change.scene.value("SELECT count(*) FROM jobs").await, "1");
}

#[tokio::test]
async fn a_job_that_was_replaced_is_not_replaced_by_another_one_too() {
    let mut change = Change::new(&notes(3), &[]).await;
    change.scene.start_daemon().await;
    change.replace(&[]).await;
    change.wait_for_swap(2).await;
    let late = change.replace(&[]).await;
    let reason = wait_for_failure(&change.scene.client, late).await;
    assert!(
        reason.contains("job 1 was replaced by job 2: name that one in replaces"),
        "{reason}"
    );
    let said = change.succeeds(&["--job", "1"]).await;
    assert!(said.contains("job 2 has replaced job 1"), "{said}");
}
