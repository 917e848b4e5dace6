//! Which texts are sent, and what becomes of the vectors.

use testkit::StubEngine;
use testkit::stub_engine::{Act, Behavior};

use testkit::wait::{TIMEOUT, wait_until};

use super::{at, job, load, notes, wait_for_all_but, wrong};
use crate::support::program;

/// Waits until a job has tried a server under new params.
async fn wait_for_more_requests(stub: &StubEngine, before: u64) {
    wait_until("a first text is sent", TIMEOUT, async || {
        match stub.requests() > before {
            true => Ok(()),
            false => Err("no request".to_owned()),
        }
    })
    .await;
}

#[tokio::test]
async fn rows_and_their_changes_get_the_vectors_of_each_provider() {
    for (runtime, params) in [
        ("openai", ""),
        (
            "openai",
            ", \"encoding_format\": \"float\", \"headers\": {\"X-Team\": \"search\"}",
        ),
        ("cohere", ", \"api_key\": \"k\""),
        ("voyage", ", \"api_key\": \"k\""),
        ("ollama", ""),
    ] {
        let stub = StubEngine::start();
        let mut scene = notes().await;
        load(&scene, 1, 700).await;
        job(&scene, runtime, "stub", &(at(&[&stub]) + params)).await;
        scene.start_daemon().await;
        wait_for_all_but(&scene, &[]).await;
        // One request for the probe; what is sent together is not sent one by one.
        assert!(stub.requests() < 60, "{runtime}: {}", stub.requests());
        scene
            .sql(
                "UPDATE notes SET body = 'changed' || id WHERE id < 9; UPDATE notes SET body = NULL WHERE id = 9; \
                 UPDATE notes SET body = '' WHERE id = 10; INSERT INTO notes (id, body) VALUES (1000, 'Caf\u{e9} \u{2014} new')",
            )
            .await;
        wait_for_all_but(&scene, &[]).await;
        scene.wait_until_confirmed().await;
        assert_eq!(wrong(&scene, &[]).await, [0; 0], "{runtime}");
        let provider = scene.value("SELECT stats->>'provider' FROM jobs").await;
        assert_eq!(provider, runtime);
    }
}

#[tokio::test]
async fn tokens_and_their_price_are_counted() {
    let stub = StubEngine::start();
    let mut scene = notes().await;
    load(&scene, 1, 100).await;
    let params = at(&[&stub]) + ", \"price_per_million\": 1000000";
    job(&scene, "openai", "stub", &params).await;
    scene.start_daemon().await;
    // A text has three words, which is how a stub counts tokens.
    for figure in ["tokens", "estimated_cost"] {
        let query = format!("SELECT (stats->'totals'->>'{figure}')::float8::int FROM jobs");
        scene.wait_for(&query, "300").await;
    }
    let shown = program()
        .run(&["status", "--uri", &scene.database.uri(), "1"])
        .await;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("estimated cost") && shown.contains("openai"),
        "{shown}"
    );
}

#[tokio::test]
async fn requests_are_counted_with_those_that_failed() {
    let stub = StubEngine::start();
    let mut scene = notes().await;
    load(&scene, 1, 100).await;
    job(&scene, "openai", "stub", &at(&[&stub])).await;
    scene.start_daemon().await;
    wait_for_all_but(&scene, &[]).await;
    stub.script([Act::throttle(Some(1)), Act::error(503, "come back later")]);
    scene
        .sql("INSERT INTO notes (id, body) VALUES (200, 'a new text')")
        .await;
    wait_for_all_but(&scene, &[]).await;
    assert_eq!(stub.script_len(), 0, "both refusals were sent");
    // One was that of the probe when the job was prepared.
    let expected = stub.requests() - 1;
    let query = "SELECT stats->'totals'->>'requests' FROM jobs";
    scene.wait_for(query, &expected.to_string()).await;
}

#[tokio::test]
async fn a_search_sends_its_query_as_a_query() {
    let stub = StubEngine::start();
    let mut scene = notes().await;
    load(&scene, 1, 20).await;
    let params = at(&[&stub]) + ", \"api_key\": \"k\"";
    job(&scene, "cohere", "stub", &params).await;
    scene.start_daemon().await;
    wait_for_all_but(&scene, &[]).await;
    let uri = scene.database.uri();
    let arguments = [
        "search",
        "--uri",
        &uri,
        "--job",
        "1",
        "--json",
        "text number 7",
    ];
    let found = program().run(&arguments).await;
    let printed = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(found.status.success(), "{found:?}");
    let rows: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(rows[0]["body"], "text number 7", "{printed}");
    let seen = stub.seen();
    let of_query = seen.last().expect("a request");
    assert_eq!(of_query.body["input_type"], "search_query");
    assert_eq!(seen[0].body["input_type"], "search_document");
}

#[tokio::test]
async fn another_model_or_length_embeds_the_table_again_and_another_server_does_not() {
    let (one, two) = (StubEngine::start(), StubEngine::start());
    let mut scene = notes().await;
    load(&scene, 1, 50).await;
    job(&scene, "openai", "stub", &at(&[&one])).await;
    scene.start_daemon().await;
    wait_for_all_but(&scene, &[]).await;
    let versions = scene.row_versions().await;
    scene
        .sql(&format!(
            "UPDATE jobs SET runtime_params = '{{{}}}'",
            at(&[&two])
        ))
        .await;
    wait_for_more_requests(&two, 0).await;
    scene.put(51, "a text for the second server").await;
    wait_for_all_but(&scene, &[]).await;
    assert_eq!(two.embedded(), 2, "a probe and one text");
    assert!(scene.row_versions().await.starts_with(&versions));
    scene
        .sql(&format!(
            "UPDATE jobs SET runtime_params = '{{{}, \"dimensions\": 4}}'",
            at(&[&two])
        ))
        .await;
    let short = "SELECT count(*) FROM notes WHERE cardinality(embedding) = 4";
    scene.wait_for(short, "51").await;
}

#[tokio::test]
async fn a_text_that_is_too_long_is_cut_and_counted_or_refused() {
    let stub = StubEngine::start();
    stub.set(Behavior {
        max_text_tokens: 50,
        ..Behavior::default()
    });
    let mut scene = notes().await;
    load(&scene, 1, 30).await;
    scene
        .sql("UPDATE notes SET body = repeat('word ', 500) WHERE id = 13")
        .await;
    job(&scene, "openai", "stub", &at(&[&stub])).await;
    scene.start_daemon().await;
    wait_for_all_but(&scene, &[13]).await;
    let has_one = "SELECT embedding IS NOT NULL FROM notes WHERE id = 13";
    scene.wait_for(has_one, "true").await;
    let cut = "SELECT stats->'totals'->>'texts_truncated' FROM jobs";
    scene.wait_for(cut, "1").await;
    let before = stub.requests();
    scene
        .sql(&format!(
            "UPDATE jobs SET runtime_params = '{{{}, \"truncate\": \"fail\"}}'",
            at(&[&stub])
        ))
        .await;
    wait_for_more_requests(&stub, before).await;
    scene
        .sql("UPDATE notes SET body = repeat('more ', 400) WHERE id = 14")
        .await;
    scene.wait_for_failed_rows("key->>'id'", "14").await;
}

#[tokio::test]
async fn an_answer_that_is_none_becomes_no_vector() {
    let stub = StubEngine::start();
    let mut scene = notes().await;
    job(&scene, "openai", "stub", &at(&[&stub])).await;
    scene.start_daemon().await;
    for (act, id) in [
        Act::TooFew,
        Act::TooMany,
        Act::SameIndex,
        Act::ShiftedIndex,
        Act::Reversed,
        Act::HalfJson,
        Act::CutAfter(40),
        Act::Close,
        Act::Numbers("NaN"),
        Act::Numbers("0"),
        Act::Numbers("1e999"),
        Act::Status(200, Vec::new(), "<html>a portal</html>".into()),
        Act::error(500, "out of memory"),
        Act::throttle(Some(20)),
    ]
    .into_iter()
    .zip((0..).step_by(10))
    {
        let what = format!("{act:?}");
        stub.script([act]);
        load(&scene, id, id + 4).await;
        wait_for_all_but(&scene, &[]).await;
        assert_eq!(stub.script_len(), 0, "{what}");
    }
    assert_eq!(scene.failures().await, "");
    // Another length is another model.
    stub.change(|behavior| behavior.dimensions = 7);
    load(&scene, 1000, 1004).await;
    let reason = scene.wait_for_failure().await;
    assert!(reason.contains("7 dimensions instead of 8"), "{reason}");
}

#[tokio::test]
async fn a_named_tokenizer_cuts_texts_before_they_are_sent() {
    let stub = StubEngine::start();
    let mut scene = notes().await;
    scene
        .sql("INSERT INTO notes (id, body) VALUES (1, repeat('river ', 400)), (2, 'a short text')")
        .await;
    let params = at(&[&stub]) + ", \"tokenizer\": \"sentence-transformers/all-MiniLM-L6-v2\"";
    job(&scene, "openai", "stub", &params).await;
    scene.start_daemon().await;
    wait_for_all_but(&scene, &[1]).await;
    let cut = "SELECT stats->'totals'->>'texts_truncated' FROM jobs";
    scene.wait_for(cut, "1").await;
    let sent: Vec<String> = stub
        .seen()
        .into_iter()
        .flat_map(|seen| seen.texts)
        .collect();
    let long = sent
        .iter()
        .find(|text| text.starts_with("river"))
        .expect("it was sent");
    // The window of the model without its two special tokens.
    assert_eq!(long.split_whitespace().count(), 254);
}
