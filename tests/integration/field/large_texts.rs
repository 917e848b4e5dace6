//! PostgreSQL allows texts of up to 1 GB; people store whole books, logs and files.

use testkit::procfs;
use testkit::scene::{MOON, NOTES, TIDES};
use testkit::wait::TIMEOUT;

use crate::support::{program, scene_with};

/// The length of the text.
const MEGABYTES: u64 = 100;
/// The text as it comes through the stream, and half as much again.
const ROOM: u64 = (MEGABYTES << 20) * 3 / 2;
/// A scan does not read what no model reads.
const ROOM_OF_A_SCAN: u64 = 40 << 20;

/// Row 1 has a text of `MEGABYTES` that begins like `text`, row 2 what any model reads of it.
fn put_large(text: &str) -> String {
    format!(
        "INSERT INTO notes (id, body) \
         SELECT id, left(repeat('{text} ', 1 + ({MEGABYTES} << 20) / {length}), size) \
         FROM (VALUES (1, {MEGABYTES} << 20), (2, 20000)) rows (id, size) \
         ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        length = text.len() + 1
    )
}

const SAME_VECTOR: &str =
    "SELECT a.embedding = b.embedding FROM notes a, notes b WHERE (a.id, b.id) = (1, 2)";

/// Hazard 43. The vector is that of the beginning, and memory stays bounded, in a scan and in the stream.
#[tokio::test]
async fn a_text_of_a_hundred_megabytes_gets_the_vector_of_its_beginning() {
    let mut scene = scene_with(NOTES).await;
    scene.job("notes", "body").await;
    scene.sql(&put_large(TIDES)).await;
    scene.put(3, TIDES).await;
    scene.start_daemon().await;
    let process = scene.daemon().id();
    scene.wait_for(SAME_VECTOR, "true").await;
    let of_a_scan = procfs::resident(process).peak;
    procfs::reset_peak(process);
    let before = procfs::resident(process).peak;
    assert!(
        of_a_scan < before + ROOM_OF_A_SCAN,
        "{of_a_scan} bytes, {before} afterwards"
    );

    scene
        .sql("UPDATE notes SET embedding = NULL WHERE id = 2")
        .await;
    scene.sql(&put_large(MOON)).await;
    scene.wait_for(SAME_VECTOR, "true").await;
    scene.put(3, MOON).await;
    let small = "SELECT n.embedding <-> t.vector < 0.001 FROM notes n JOIN truth t USING (body) WHERE n.id = 3";
    scene.wait_for(small, "true").await;
    let grown = procfs::resident(process).peak - before;
    assert!(grown < ROOM, "{grown} bytes more");
    assert_eq!(scene.failures().await, "");
    scene
        .daemon()
        .wait_for_line("longer than the", TIMEOUT)
        .await;
}

/// Hazard 43. A change behind the part that is read is a change: the fingerprint is that of the whole text.
#[tokio::test]
async fn a_change_at_the_end_of_a_long_text_is_noticed() {
    let mut scene = scene_with(&format!("{NOTES}; ALTER TABLE notes ADD fingerprint uuid")).await;
    scene
        .sql("ALTER TABLE jobs ADD fingerprint_column text")
        .await;
    let job = scene.job("notes", "body").await;
    scene
        .sql("UPDATE jobs SET fingerprint_column = 'fingerprint'")
        .await;
    let insert = format!("INSERT INTO notes (id, body) SELECT 1, repeat('{TIDES} ', 40000)");
    scene.sql(&insert).await;
    scene.start_daemon().await;
    scene
        .wait_for("SELECT fingerprint IS NOT NULL FROM notes", "true")
        .await;
    let before = scene.value("SELECT fingerprint FROM notes").await;
    scene
        .sql("UPDATE notes SET body = body || 'and so on'")
        .await;
    scene
        .wait_for(
            &format!("SELECT fingerprint <> '{before}' FROM notes"),
            "true",
        )
        .await;
    let job = job.to_string();
    for arguments in [
        &["verify", "--job", &job][..],
        &["verify", "--job", &job, "--full"],
    ] {
        let output = program()
            .run(&[arguments, &["--uri", &scene.database.uri()]].concat())
            .await;
        assert!(output.status.success(), "{output:?}");
    }
}
