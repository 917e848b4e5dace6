//! Who reads the column sees the vectors of one model at every moment.

use testkit::tiny_model::TinyModel;
use testkit::wait::{TIMEOUT, wait_for};
use tokio_postgres::Client;

use super::{Change, is_of, notes, words};
use crate::api::serve::vectors;
use crate::http::daemon::address_of;

/// Texts that the rows have at some time.
const TEXTS: usize = 60;

/// Which model all vectors of the column are of, at one moment. `None` where there is none yet.
async fn model_of_column(reader: &Client) -> Option<TinyModel> {
    let rows = reader
        .query(
            "SELECT embedding::real[] FROM notes WHERE embedding IS NOT NULL",
            &[],
        )
        .await
        .expect("the column can be read");
    let mut models: Vec<TinyModel> = rows
        .iter()
        .map(|row| {
            let vector: Vec<f32> = row.get(0);
            let of =
                |model: &TinyModel| (0..=TEXTS).any(|text| is_of(*model, &words(text), &vector));
            TinyModel::ALL
                .into_iter()
                .find(of)
                .expect("a vector of a text and a model")
        })
        .collect();
    models.dedup();
    assert!(models.len() < 2, "vectors of two models: {models:?}");
    models.pop()
}

async fn readers_see_one_model(slots: &str) {
    let mut change = Change::new(&notes(30), &[("fingerprint_column", "'print'")]).await;
    change.scene.spawn_daemon_with(&["--slots", slots]);
    change.wait_for_vectors("embedding", TinyModel::One).await;
    let (reader, writer) = (
        change.scene.session("").await,
        change.scene.session("").await,
    );
    let id = change.replace(&[("fingerprint_column", "'print'")]).await;
    let is_over = async || {
        let replaced = "SELECT count(*) FROM jobs WHERE replaced_by IS NOT NULL";
        change.scene.value(replaced).await == "1"
    };
    let mut seen = Vec::new();
    let mut round = 0;
    let mut rounds_after = 0;
    while rounds_after < 10 {
        round += 1;
        let text = words(round % TEXTS);
        let row = i32::try_from(round % 30 + 1).expect("a small number");
        writer
            .execute("UPDATE notes SET body = $1 WHERE id = $2", &[&text, &row])
            .await
            .expect("the row is written");
        seen.extend(model_of_column(&reader).await);
        rounds_after += usize::from(is_over().await);
    }
    seen.dedup();
    assert_eq!(seen, [TinyModel::One, TinyModel::Two]);
    change.wait_for_vectors("embedding", TinyModel::Two).await;
    // Fingerprints came along: a look at all of them finds nothing to do.
    let uri = change.scene.database.uri();
    let job = id.to_string();
    let verified = change
        .program
        .stdout_of(&["verify", "--uri", &uri, "--job", &job, "--json"])
        .await;
    assert!(
        verified.contains("\"stale\": 0") && verified.contains("\"compared\": null"),
        "{verified}"
    );
}

#[tokio::test]
async fn vectors_of_two_models_are_never_side_by_side_with_a_slot_for_each_job() {
    readers_see_one_model("job").await;
}

#[tokio::test]
async fn vectors_of_two_models_are_never_side_by_side_with_a_shared_slot() {
    readers_see_one_model("database").await;
}

/// Searches take the model of the column that they read, whichever of the two jobs they name.
#[tokio::test]
async fn a_search_takes_the_model_of_the_column_before_and_after() {
    let mut change = Change::new(&notes(20), &[]).await;
    change
        .scene
        .sql("INSERT INTO notes VALUES (99, 'w5 w6 w7')")
        .await;
    change.scene.start_daemon().await;
    change
        .scene
        .sql("CREATE VIEW seen AS SELECT embedding FROM notes")
        .await;
    let id = change.replace(&[]).await.to_string();
    change
        .wait_for_vectors(&format!("embedding_job_{id}"), TinyModel::Two)
        .await;
    let uri = change.scene.database.uri();
    let search = async |job: &str| {
        let arguments = [
            "search", "--uri", &uri, "--job", job, "--limit", "1", "--json", "w5 w6 w7",
        ];
        let output = change.program.run(&arguments).await;
        let (out, errors) = super::texts(&output);
        assert!(
            out.contains("\"99\"") && out.contains("\"similarity\": 1"),
            "{out}{errors}"
        );
        errors
    };
    assert!(!search("1").await.contains("replaced"));
    search(&id).await;
    change.scene.sql("DROP VIEW seen").await;
    change.wait_for_swap(2).await;
    let note = search("1").await;
    assert!(
        note.contains("note: job 1 was replaced by job 2 (chaos/two), which is taken here"),
        "{note}"
    );
    search(&id).await;
}

/// Programs that ask the daemon for vectors get those of the model that belongs to the column.
#[tokio::test]
async fn a_program_that_names_the_old_job_gets_vectors_of_the_new_model_after_the_swap() {
    let mut change = Change::new(&notes(5), &[]).await;
    let daemon = change.scene.spawn_daemon_with(&["--listen", "127.0.0.1:0"]);
    let address = address_of(daemon).await;
    change.wait_for_vectors("embedding", TinyModel::One).await;
    let body = |model: &str| serde_json::json!({"input": "w5 w6", "model": model});
    let model_of = |job: &str| {
        let vector = vectors(address, &body(job)).remove(0);
        let of = |model: &TinyModel| is_of(*model, "w5 w6", &vector);
        TinyModel::ALL.into_iter().find(of)
    };
    assert_eq!(model_of("job:1"), Some(TinyModel::One));
    change.replace(&[]).await;
    change.wait_for_swap(2).await;
    let ask = async || model_of("job:1");
    wait_for("job:1", TIMEOUT, Some(TinyModel::Two), ask).await;
    // Also when the old job has ended, and under no name at all, since there is only one job.
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    change.scene.wait_for(slots, "1").await;
    assert_eq!(model_of("job:1"), Some(TinyModel::Two));
    assert_eq!(model_of("job:2"), Some(TinyModel::Two));
    let unnamed = vectors(address, &serde_json::json!({"input": "w5 w6"})).remove(0);
    assert!(is_of(TinyModel::Two, "w5 w6", &unnamed));
}
