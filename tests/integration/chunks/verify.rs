//! `verify`, `resync` and `retry-failed` for jobs with a chunk table: each way to break passages by hand is found and mended.

use serde_json::Value;
use testkit::Scene;

use super::documents::{caught_up, text, wrong};
use super::scene::{DOCS, chunk_job, chunk_scene};
use crate::support::program;

/// Short passages, so that each document has several.
const SHORT: (&str, &str) = ("runtime_params", r#"'{"chunk_tokens": 40}'"#);

/// Documents 1 to `count` with their passages, the row 100 without a text, and no daemon.
async fn in_step(count: u64) -> Scene {
    let mut scene = chunk_scene(DOCS).await;
    chunk_job(&scene, "docs_chunks", &[SHORT]).await;
    write(&scene, 1..=count, "end").await;
    scene
        .sql("INSERT INTO docs VALUES (100, 'none', NULL)")
        .await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    scene
}

/// Writes documents of four paragraphs, which end with `tag`.
async fn write(scene: &Scene, ids: impl Iterator<Item = u64>, tag: &str) {
    for id in ids {
        let body = text(id, 4, tag);
        let id = i32::try_from(id).expect("a small number");
        scene.put_into("docs", id, &body).await;
    }
}

/// Runs a command on the job; returns whether it succeeded and what it printed.
async fn run(scene: &Scene, command: &str, more: &[&str]) -> (bool, String) {
    let (uri, job) = (
        scene.database.uri(),
        scene.value("SELECT id FROM jobs").await,
    );
    let arguments = [&[command, "--uri", &uri, "--job", &job], more].concat();
    let output = program().run(&arguments).await;
    let printed = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8(printed).expect("text"),
    )
}

/// The counts of `verify` that are not 0, but for those of what is right, and whether it succeeded.
async fn faults(scene: &Scene, more: &[&str]) -> (bool, String) {
    let (is_sound, found) = verified(scene, more).await;
    let names = [
        "missing",
        "stale",
        "incomplete",
        "orphaned",
        "wrong_vectors",
        "quarantined",
    ];
    let counts = names.iter().filter(|name| found[**name] != 0);
    let counts: Vec<String> = counts
        .map(|name| format!("{name} {}", found[*name]))
        .collect();
    (is_sound, counts.join(", "))
}

async fn verified(scene: &Scene, more: &[&str]) -> (bool, Value) {
    let (is_sound, printed) = run(scene, "verify", &[&["--json"], more].concat()).await;
    (is_sound, serde_json::from_str(&printed).expect(&printed))
}

fn sound() -> (bool, String) {
    (true, String::new())
}

async fn passages(scene: &Scene) -> u64 {
    let count = scene.value("SELECT count(*) FROM docs_chunks").await;
    count.parse().expect("a number")
}

#[tokio::test]
async fn each_way_to_break_passages_is_counted_and_resync_mends_all_of_them() {
    let scene = in_step(13).await;
    let (is_sound, found) = verified(&scene, &["--full"]).await;
    let stored = passages(&scene).await;
    assert!(is_sound && stored > 36, "{stored} passages: {found}");
    assert_eq!(
        (
            &found["rows"],
            &found["texts"],
            &found["passages"],
            &found["compared"]
        ),
        (&14.into(), &13.into(), &stored.into(), &stored.into()),
        "{found}"
    );

    scene
        .sql(
            "DELETE FROM docs_chunks WHERE id = 1; \
             DELETE FROM docs_chunks WHERE id = 2 AND chunk_seq = 1; \
             DELETE FROM docs_chunks WHERE id = 3 AND chunk_seq = 0; \
             UPDATE docs_chunks SET embedding = NULL WHERE id = 4 AND chunk_seq = 1; \
             UPDATE docs_chunks SET document_fingerprint = gen_random_uuid() WHERE id = 5 AND chunk_seq = 0; \
             UPDATE docs_chunks SET chunk_fingerprint = NULL WHERE id = 6 AND chunk_seq = 1; \
             UPDATE docs_chunks SET chunk = 'Something else.' WHERE id = 7 AND chunk_seq = 1; \
             INSERT INTO docs_chunks SELECT id, 99, chunk_start, chunk_end, chunk, embedding, chunk_fingerprint \
               FROM docs_chunks WHERE id = 8 AND chunk_seq = 0; \
             UPDATE docs SET body = 'A text that no daemon has seen.' WHERE id = 9; \
             UPDATE docs SET body = '' WHERE id = 10; \
             DELETE FROM docs WHERE id = 11; \
             DELETE FROM docs_chunks WHERE id = 13 AND chunk_seq = (SELECT max(chunk_seq) FROM docs_chunks WHERE id = 13); \
             INSERT INTO docs_chunks SELECT 77, 0, 0, 5, 'never', embedding FROM docs_chunks WHERE id = 12 AND chunk_seq = 0",
        )
        .await;
    let orphaned = scene
        .value("SELECT count(*) FROM docs_chunks WHERE id IN (10, 11, 77)")
        .await;
    let expected = format!("missing 1, stale 9, incomplete 6, orphaned {orphaned}");
    assert_eq!(faults(&scene, &[]).await, (false, expected));
    let (_, printed) = run(&scene, "verify", &[]).await;
    for part in [
        "1  documents without passages",
        "9  stale documents, by fingerprint",
        "6  of these, with a passage that is missing",
        &format!("{orphaned}  orphaned passages"),
        "lantern-cli resync --job 1 repairs this: it embeds what is missing and stale, and deletes orphaned passages.",
    ] {
        assert!(printed.contains(part), "{part} in {printed}");
    }

    let untouched = "SELECT string_agg(xmin::text, ' ' ORDER BY id, chunk_seq) FROM docs_chunks \
                     WHERE id = 12 OR id IN (4, 6, 7) AND chunk_seq > 1";
    let versions = scene.value(untouched).await;
    let (mended, printed) = run(&scene, "resync", &[]).await;
    // Two of them are gone.
    assert!(mended && printed.contains("13 documents done"), "{printed}");
    assert_eq!(wrong(&scene, "c.chunk").await, "");
    assert_eq!(scene.value(untouched).await, versions);
    let (is_sound, found) = verified(&scene, &["--full"]).await;
    assert!(is_sound, "{found}");
    assert_eq!(found["passages"], passages(&scene).await, "{found}");
}

#[tokio::test]
async fn a_vector_of_another_text_is_found_by_embedding_and_mended_with_all() {
    let mut scene = chunk_scene(DOCS).await;
    let template = r#"'{"chunk_tokens": 40, "template": "{title}\n{chunk}"}'"#;
    chunk_job(&scene, "docs_chunks", &[("runtime_params", template)]).await;
    write(&scene, 1..=4, "end").await;
    scene
        .sql("UPDATE docs SET title = CASE id WHEN 4 THEN NULL ELSE 'Title ' || id END")
        .await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    let embedded = "COALESCE(d.title, '') || E'\\n' || c.chunk";
    assert_eq!(wrong(&scene, embedded).await, "");
    assert_eq!(faults(&scene, &["--full"]).await, sound());

    scene
        .sql(
            "UPDATE docs_chunks c SET embedding = o.embedding FROM docs_chunks o \
             WHERE c.id = 1 AND o.id = 2 AND c.chunk_seq = 1 AND o.chunk_seq = 1; \
             UPDATE docs_chunks SET chunk_start = chunk_start + 1, chunk_end = chunk_end + 1 WHERE id = 3 AND chunk_seq = 1",
        )
        .await;
    // Fingerprints say that all is well.
    assert_eq!(faults(&scene, &[]).await, sound());
    let found = (false, "wrong_vectors 2".to_owned());
    assert_eq!(faults(&scene, &["--full"]).await, found);
    assert_eq!(faults(&scene, &["--sample", "100000"]).await, found);
    let (_, printed) = run(&scene, "verify", &["--full"]).await;
    assert!(
        printed.contains("2  passages with a wrong vector or place, of ")
            && printed.contains("lantern-cli resync --all --job 1 repairs this"),
        "{printed}"
    );

    let (done, printed) = run(&scene, "resync", &[]).await;
    assert!(done && printed.contains("0 documents done"), "{printed}");
    assert_eq!(faults(&scene, &["--full"]).await, found);
    let (done, printed) = run(&scene, "resync", &["--all"]).await;
    assert!(done && printed.contains("4 documents done"), "{printed}");
    assert_eq!(faults(&scene, &["--full"]).await, sound());
    assert_eq!(wrong(&scene, embedded).await, "");
}

/// The title is a part of what is embedded, so a title that no daemon has seen makes the document stale.
#[tokio::test]
async fn a_field_of_the_template_that_changed_unseen_makes_its_document_stale() {
    let mut scene = chunk_scene(DOCS).await;
    let template = r#"'{"chunk_tokens": 40, "template": "{title}: {chunk}"}'"#;
    chunk_job(&scene, "docs_chunks", &[("runtime_params", template)]).await;
    write(&scene, 1..=2, "end").await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    scene
        .sql("UPDATE docs SET title = 'New' WHERE id = 2")
        .await;
    assert_eq!(faults(&scene, &["--full"]).await, (false, "stale 1".into()));
    run(&scene, "resync", &[]).await;
    assert_eq!(faults(&scene, &["--full"]).await, sound());
    let embedded = "COALESCE(d.title, '') || ': ' || c.chunk";
    assert_eq!(wrong(&scene, embedded).await, "");
}

#[tokio::test]
async fn resync_works_beside_a_daemon_and_users_who_write() {
    let mut scene = in_step(12).await;
    scene.start_daemon().await;
    scene
        .sql(
            "DELETE FROM docs_chunks WHERE id = 1; UPDATE docs_chunks SET embedding = NULL WHERE id = 2; \
             INSERT INTO docs_chunks SELECT 77, 0, 0, 5, 'never', embedding FROM docs_chunks WHERE id = 3 AND chunk_seq = 0",
        )
        .await;
    for more in [&[][..], &["--all"]] {
        let users = async {
            for round in 0..6 {
                write(&scene, 5..=8, &format!("end {round}")).await;
                let (from, to) = (9 + round % 2, 10 - round % 2);
                let swap = format!(
                    "UPDATE docs SET id = 200 WHERE id = {from}; UPDATE docs SET body = 'Short.' WHERE id = {to}; \
                     DELETE FROM docs WHERE id = 200"
                );
                scene.sql(&swap).await;
                write(&scene, [from].into_iter(), "again").await;
            }
        };
        let ((done, printed), ()) = tokio::join!(run(&scene, "resync", more), users);
        assert!(done, "{printed}");
        caught_up(&scene).await;
        assert_eq!(faults(&scene, &["--full"]).await, sound());
    }
}

#[tokio::test]
async fn a_quarantined_document_is_counted_and_tried_again() {
    let mut scene = chunk_scene(DOCS).await;
    let limit = |bytes: u32| format!("'{{\"chunk_tokens\": 40, \"max_document_bytes\": {bytes}}}'");
    let small = limit(1000);
    chunk_job(&scene, "docs_chunks", &[("runtime_params", &small)]).await;
    scene.start_daemon().await;
    let body = text(1, 20, "end");
    scene.put_into("docs", 1, &body).await;
    scene.put_into("docs", 2, "Short.").await;
    scene.wait_for_failed_rows("key->>'id'", "1").await;
    scene.stop_daemon().await;
    let expected = (false, "missing 1, quarantined 1".to_owned());
    assert_eq!(faults(&scene, &[]).await, expected);
    let (_, printed) = run(&scene, "verify", &[]).await;
    assert!(
        printed.contains("1  quarantined documents, see"),
        "{printed}"
    );
    let (all, printed) = run(&scene, "retry-failed", &[]).await;
    assert!(
        !all && printed.contains("1 document tried") && printed.contains("max_document_bytes"),
        "{printed}"
    );
    scene
        .sql(&format!(
            "UPDATE jobs SET runtime_params = {}",
            limit(100_000)
        ))
        .await;
    let (all, printed) = run(&scene, "retry-failed", &[]).await;
    assert!(all && printed.contains("1 document tried"), "{printed}");
    scene.wait_for_failed_rows("key->>'id'", "").await;
    assert_eq!(faults(&scene, &["--full"]).await, sound());
}

/// The pages of passages, and everything that compares keys.
#[tokio::test]
async fn keys_of_several_columns_are_compared_as_their_index_does() {
    let mut scene = chunk_scene(
        "CREATE TABLE docs (\"the region\" varchar(9) COLLATE \"C\", id int, body char(2000), PRIMARY KEY (id, \"the region\"))",
    )
    .await;
    chunk_job(&scene, "docs_chunks", &[SHORT]).await;
    for number in 0..4 {
        let body = text(number, 3, "end");
        let insert = "INSERT INTO docs VALUES ($1, 1 + $2 % 2, $3)";
        let (region, number) = (["B", "a", "ä", "b"][number as usize], number as i32);
        scene.execute(insert, &[&region, &number, &body]).await;
    }
    scene.start_daemon().await;
    scene.stop_daemon().await;
    assert_eq!(faults(&scene, &["--full"]).await, sound());
    let found = verified(&scene, &["--full"]).await.1;
    assert_eq!(found["compared"], passages(&scene).await, "{found}");
    scene
        .sql(
            "DELETE FROM docs WHERE \"the region\" = 'ä'; \
             DELETE FROM docs_chunks WHERE \"the region\" = 'B' AND chunk_seq = 1; \
             UPDATE docs_chunks SET embedding = (SELECT embedding FROM docs_chunks LIMIT 1) \
               WHERE \"the region\" = 'b' AND chunk_seq = 1",
        )
        .await;
    let (_, found) = faults(&scene, &["--full"]).await;
    assert!(
        found.starts_with("stale 1, incomplete 1, orphaned ")
            && found.ends_with(", wrong_vectors 1"),
        "{found}"
    );
    run(&scene, "resync", &["--all"]).await;
    assert_eq!(faults(&scene, &["--full"]).await, sound());
}

/// As a daemon leaves them that cuts in another way than the one after it.
#[tokio::test]
async fn passages_of_another_way_to_cut_are_right_until_their_text_changes() {
    let mut scene = chunk_scene(DOCS).await;
    chunk_job(&scene, "docs_chunks", &[]).await;
    let (first, second) = (text(1, 1, "end"), text(2, 1, "end"));
    for (id, body) in [
        (1, &format!("{first}\n\n{second}")),
        (2, &first),
        (3, &second),
    ] {
        scene.put_into("docs", id, body).await;
    }
    scene.start_daemon().await;
    assert_eq!(passages(&scene).await, 3);
    scene
        .sql(
            "UPDATE docs_chunks c SET chunk_end = f.chunk_end, chunk = f.chunk, embedding = f.embedding, \
               chunk_fingerprint = f.chunk_fingerprint FROM docs_chunks f WHERE c.id = 1 AND f.id = 2; \
             INSERT INTO docs_chunks (id, chunk_seq, chunk_start, chunk_end, chunk, embedding, chunk_fingerprint) \
               SELECT 1, 1, d.length - chunk_end, d.length, chunk, embedding, chunk_fingerprint \
               FROM docs_chunks, (SELECT length(body) FROM docs WHERE id = 1) d WHERE id = 3",
        )
        .await;
    assert_eq!(faults(&scene, &["--full"]).await, sound());
    assert!(run(&scene, "resync", &[]).await.0);
    scene.sql("UPDATE docs SET title = 'new'").await;
    caught_up(&scene).await;
    let shown =
        "SELECT string_agg(chunk, '|' ORDER BY chunk_seq) FROM docs_chunks_documents WHERE id = 1";
    assert_eq!(scene.value(shown).await, format!("{first}|{second}"));
    scene
        .sql("UPDATE docs SET body = body || ' More.' WHERE id = 1")
        .await;
    caught_up(&scene).await;
    let whole = format!("{first}\n\n{second} More.");
    assert_eq!(scene.value(shown).await, whole);
}
