//! Edits of documents: what they embed, and what readers see meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use testkit::Scene;
use testkit::random::Random;

use super::documents::{Passage, caught_up, paragraph, passages, text, wrong};
use super::scene::{DOCS, chunk_job, chunk_scene};
use crate::support::program;

const SHORT: (&str, &str) = ("runtime_params", r#"'{"chunk_tokens": 40}'"#);

/// Passages whose vector is none that the document had before, bit by bit; those that it had are unchanged.
fn embedded(before: &[Passage], after: &[Passage]) -> usize {
    let known: HashMap<_, _> = before
        .iter()
        .map(|passage| (passage.fingerprint, &passage.vector))
        .collect();
    let is_new = |passage: &&Passage| match known.get(&passage.fingerprint) {
        Some(vector) => {
            assert_eq!(
                *vector, &passage.vector,
                "passage {} has another vector",
                passage.seq
            );
            false
        }
        None => true,
    };
    after.iter().filter(is_new).count()
}

/// A scene with one document of so many paragraphs.
async fn document_of(paragraphs: u64) -> (Scene, Vec<Passage>) {
    let mut scene = chunk_scene(DOCS).await;
    scene.put_into("docs", 1, &text(1, paragraphs, "end")).await;
    chunk_job(&scene, "docs_chunks", &[SHORT]).await;
    scene.start_daemon().await;
    let before = passages(&scene, "docs_chunks").await;
    (scene, before)
}

/// Replaces `part` of the document by `by`, and returns how many passages were embedded.
async fn edit(scene: &Scene, part: &str, by: &str) -> usize {
    let before = passages(scene, "docs_chunks").await;
    let edit = "UPDATE docs SET body = replace(body, $1, $2) WHERE id = 1";
    scene.execute(edit, &[&part, &by]).await;
    scene.wait_until_confirmed().await;
    embedded(&before, &passages(scene, "docs_chunks").await)
}

#[tokio::test]
async fn an_edit_of_one_paragraph_embeds_the_passages_that_it_touches() {
    let (scene, before) = document_of(200).await;
    assert!(before.len() >= 200, "{} passages", before.len());
    for number in [1000, 1007, 1100, 1198, 1199] {
        let (old, new) = (paragraph(number, "end"), paragraph(number, "changed"));
        let count = edit(&scene, &old, &new).await;
        assert!(
            (1..=4).contains(&count),
            "{count} passages for paragraph {number}"
        );
    }
    assert_eq!(wrong(&scene, "c.chunk").await, "");
    // Rows that stay as they are are not written: of the same length, nothing behind the edit moves.
    let versions =
        "SELECT string_agg(chunk_seq || ' ' || xmin, ',' ORDER BY chunk_seq) FROM docs_chunks";
    let before = scene.value(versions).await;
    let old = paragraph(1150, "end");
    assert!(edit(&scene, &old, &old.replace("end.", "END.")).await <= 4);
    let after = scene.value(versions).await;
    let written = before
        .split(',')
        .zip(after.split(','))
        .filter(|(a, b)| a != b);
    let written = written.count();
    assert!(written <= 5, "{written} rows were written");
}

#[tokio::test]
async fn an_insert_at_the_beginning_renumbers_without_embedding() {
    let (scene, before) = document_of(60).await;
    let added = paragraph(9, "new");
    scene
        .execute("UPDATE docs SET body = $1 || E'\\n\\n' || body", &[&added])
        .await;
    scene.wait_until_confirmed().await;
    let after = passages(&scene, "docs_chunks").await;
    assert!(after.len() > before.len());
    let count = embedded(&before, &after);
    assert!((1..=3).contains(&count), "{count} passages");
    assert_eq!(wrong(&scene, "c.chunk").await, "");
    // And back again.
    scene
        .execute(
            "UPDATE docs SET body = substr(body, length($1) + 3)",
            &[&added],
        )
        .await;
    caught_up(&scene).await;
    assert_eq!(embedded(&before, &passages(&scene, "docs_chunks").await), 0);
}

/// Each version of a document has a mark in each line. A reader never sees two of them in one document, nor a part of one.
#[tokio::test]
async fn readers_see_one_version_of_a_document_or_another() {
    let mut scene = chunk_scene(DOCS).await;
    chunk_job(&scene, "docs_chunks", &[SHORT]).await;
    for id in 1..=3 {
        scene.put_into("docs", id, &text(id as u64, 12, "v0")).await;
    }
    scene.start_daemon().await;
    let reader = scene.session("").await;
    let mixed = "SELECT string_agg(id || ': ' || versions, '; ') FROM ( \
        SELECT id, string_agg(DISTINCT v[1], ',') AS versions FROM docs_chunks, regexp_matches(chunk, 'v\\d+', 'g') v GROUP BY id \
        HAVING count(DISTINCT v[1]) > 1) m";
    let gaps = "SELECT string_agg(id || ': ' || numbers, '; ') FROM ( \
        SELECT id, string_agg(chunk_seq::text, ',' ORDER BY chunk_seq) AS numbers FROM docs_chunks_documents GROUP BY id \
        HAVING count(*) <> max(chunk_seq) + 1) g";
    let incomplete = "SELECT string_agg(DISTINCT d.id::text, ',') FROM docs_chunks_documents d \
        WHERE substr(d.body, d.chunk_start + 1, d.chunk_end - d.chunk_start) <> d.chunk";
    let done = Arc::new(AtomicBool::new(false));
    let is_done = done.clone();
    let looking = tokio::spawn(async move {
        let mut looks = 0;
        let mut seen = String::new();
        while !is_done.load(Ordering::Relaxed) && seen.is_empty() {
            for query in [mixed, gaps, incomplete] {
                let row = reader.query_one(query, &[]).await;
                let row = row.expect("a look");
                seen += row.get::<_, Option<&str>>(0).unwrap_or_default();
            }
            looks += 1;
        }
        (looks, seen)
    });
    let mut random = Random::new(5);
    for version in 1..=40 {
        let id = random.below(3) as i32 + 1;
        let paragraphs = random.within(4..20);
        let body = text(random.below(50), paragraphs, &format!("v{version}"));
        scene.put_into("docs", id, &body).await;
        if version % 4 == 0 {
            scene.wait_until_confirmed().await;
        }
    }
    caught_up(&scene).await;
    done.store(true, Ordering::Relaxed);
    let (looks, seen) = looking.await.expect("the reader");
    assert_eq!(seen, "", "after {looks} looks");
    assert!(looks > 3, "{looks} looks");
}

/// The daemon is killed again and again while documents change.
#[tokio::test]
async fn nothing_is_lost_where_a_daemon_is_killed_while_documents_change() {
    let mut scene = chunk_scene(DOCS).await;
    chunk_job(&scene, "docs_chunks", &[SHORT]).await;
    scene.put_into("docs", 1, &text(1, 80, "v0")).await;
    scene.start_daemon().await;
    let mut random = Random::new(11);
    for round in 1..=6 {
        for _ in 0..4 {
            let id = random.below(6) as i32 + 1;
            match random.below(6) {
                0 => scene.sql(&format!("DELETE FROM docs WHERE id = {id}")).await,
                1 => scene.sql(&format!("UPDATE docs SET id = id + 100 WHERE id = {id} AND NOT EXISTS (SELECT FROM docs WHERE id = {})", id + 100)).await,
                2 if round == 3 => scene.sql("TRUNCATE docs").await,
                _ => {
                    let paragraphs = random.within(1..60);
                    let body = text(random.below(9), paragraphs, &format!("v{round}"));
                    scene.put_into("docs", id, &body).await;
                }
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(random.below(400))).await;
        scene.kill_daemon();
        scene.spawn_daemon();
    }
    scene.wait_for_backfill().await;
    caught_up(&scene).await;
    assert_eq!(scene.failures().await, "");
}

#[tokio::test]
async fn resync_beside_the_daemon_leaves_every_document_whole() {
    let mut scene = chunk_scene(DOCS).await;
    let job = chunk_job(&scene, "docs_chunks", &[SHORT]).await;
    for id in 1..=8 {
        scene.put_into("docs", id, &text(id as u64, 10, "v0")).await;
    }
    scene.start_daemon().await;
    let (uri, job) = (scene.database.uri(), job.to_string());
    let mut random = Random::new(3);
    for round in 1..=3 {
        // What the daemon does not know of, and what it follows.
        scene
            .sql("UPDATE docs_chunks SET document_fingerprint = NULL WHERE chunk_seq = 0; DELETE FROM docs_chunks WHERE id = 2")
            .await;
        let resync = tokio::spawn({
            let (uri, job) = (uri.clone(), job.clone());
            async move {
                program()
                    .run(&["resync", "--uri", &uri, "--table", "jobs", "--job", &job])
                    .await
            }
        });
        for _ in 0..12 {
            let id = random.below(8) as i32 + 1;
            let body = text(
                random.below(30),
                random.clone().within(3..14),
                &format!("v{round}"),
            );
            scene.put_into("docs", id, &body).await;
        }
        let output = resync.await.expect("the command");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        caught_up(&scene).await;
    }
    assert_eq!(scene.failures().await, "");
}
