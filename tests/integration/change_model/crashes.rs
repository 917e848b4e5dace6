//! Daemons that are killed in the middle of a change, and several of them.

use testkit::tiny_model::TinyModel;
use testkit::wait::{TIMEOUT, wait_for};

use super::{Change, VECTOR_COLUMNS, notes, words};

/// What the transaction of the swap does, as far as a crash behind it leaves it.
const SWAP: &str = "BEGIN; ALTER TABLE notes RENAME embedding TO embedding_before_job_2; \
    ALTER TABLE notes RENAME embedding_job_2 TO embedding; COMMIT";

#[tokio::test]
async fn a_daemon_that_dies_while_the_column_is_filled_goes_on_with_it() {
    let mut change = Change::new(&notes(300), &[("batch_size", "4")]).await;
    change.scene.start_daemon().await;
    change.replace(&[("batch_size", "4")]).await;
    let filled = async || match change.scene.value(VECTOR_COLUMNS).await.contains("job_2") {
        true => {
            let count = "SELECT count(embedding_job_2) > 0 FROM notes";
            change.scene.value(count).await
        }
        false => String::new(),
    };
    wait_for("some rows are filled", TIMEOUT, "true".to_owned(), filled).await;
    change.scene.kill_daemon();
    change.scene.put(7, &words(31)).await;
    change.scene.put(301, &words(32)).await;
    change.scene.spawn_daemon();
    change.wait_for_swap(2).await;
    change.wait_for_vectors("embedding", TinyModel::Two).await;
}

/// A crash between the commit of the swap and the record of it in the jobs table.
#[tokio::test]
async fn a_swap_that_is_not_recorded_is_recorded_at_the_next_start() {
    let mut change = Change::new(&notes(20), &[]).await;
    change.scene.start_daemon().await;
    change
        .scene
        .sql("CREATE VIEW seen AS SELECT embedding FROM notes")
        .await;
    change.replace(&[]).await;
    change
        .wait_for_vectors("embedding_job_2", TinyModel::Two)
        .await;
    change.scene.wait_until_confirmed().await;
    change.scene.kill_daemon();
    change.scene.put(1, &words(41)).await;
    change.scene.sql(SWAP).await;
    // Either job may be the first to see it.
    change.scene.spawn_daemon();
    change.wait_for_swap(2).await;
    change.wait_for_vectors("embedding", TinyModel::Two).await;
    let old = change.wrong("embedding_before_job_2", TinyModel::One).await;
    assert_eq!(old, [words(41)]);
    assert_eq!(change.scene.failures().await, "");
}

/// The old job alone, as where the daemon of the new one is away.
#[tokio::test]
async fn a_job_whose_column_was_taken_over_ends_also_without_the_other_job() {
    let mut change = Change::new(&notes(20), &[("label", "'a'")]).await;
    change.scene.spawn_daemon_with(&["--label", "a"]);
    change.wait_for_vectors("embedding", TinyModel::One).await;
    change.replace(&[("label", "'b'")]).await;
    change.scene.kill_daemon();
    change
        .scene
        .sql("ALTER TABLE notes ADD embedding_job_2 real[]")
        .await;
    change.scene.sql(SWAP).await;
    change.scene.put(1, &words(41)).await;
    change.scene.spawn_daemon_with(&["--label", "a"]);
    change.wait_for_swap(2).await;
    assert_eq!(
        change
            .scene
            .value("SELECT count(embedding) FROM notes")
            .await,
        "0"
    );
}

#[tokio::test]
async fn two_daemons_with_a_job_each_change_the_model() {
    let mut change = Change::new(&notes(40), &[("label", "'a'")]).await;
    change.scene.spawn_daemon_with(&["--label", "a"]);
    change.scene.spawn_daemon_with(&["--label", "b"]);
    change.wait_for_vectors("embedding", TinyModel::One).await;
    change.replace(&[("label", "'b'")]).await;
    change.wait_for_swap(2).await;
    for id in 1..10 {
        change.scene.put(id, &words(50)).await;
    }
    change.wait_for_vectors("embedding", TinyModel::Two).await;
    // The one that has failed is replaced all the same, and so is one that no daemon runs.
    change.scene.kill_daemon();
    change
        .add_job(TinyModel::One, &[("replaces", "2"), ("label", "'b'")])
        .await;
    let replaced = "SELECT max(replaced_by) FROM jobs WHERE id = 2 AND canceled_at";
    change.scene.wait_for(replaced, "3").await;
    change.wait_for_vectors("embedding", TinyModel::One).await;
}

/// The catalog knows before the jobs table does.
#[tokio::test]
async fn a_change_that_has_happened_is_not_given_up_though_no_daemon_has_recorded_it() {
    let change = Change::new(&notes(3), &[]).await;
    change.replace(&[]).await;
    change
        .scene
        .sql("ALTER TABLE notes ADD embedding real[], ADD embedding_job_2 real[]")
        .await;
    change.scene.sql(SWAP).await;
    let said = change.fails(&["--job", "1", "--cancel"]).await;
    assert!(said.contains("job 2 has replaced job 1 already"), "{said}");
}
