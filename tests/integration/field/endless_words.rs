//! Columns of base64, of one letter, of characters that no tokenizer knows: texts whose first word does not end.

use testkit::procfs;
use testkit::scene::{NOTES, TIDES};

use crate::support::scene_with;

/// Texts as SQL, of 20 MB each.
const TEXTS: [&str; 5] = [
    "repeat('a', 20000000)",
    "repeat('QmFzZTY0', 2500000)",
    "repeat(U&'\\200B', 6700000)",
    "repeat(U&'e\\0301\\0302', 4000000)",
    "repeat(U&'\\+01F469\\200D', 2800000)",
];
/// For the text itself, in messages, queue and statement. Its tokens took more than a gigabyte.
const ROOM: u64 = 150 << 20;

/// A column of such texts took an inference thread for 15 s and 1.3 GB for each of them.
#[tokio::test]
async fn a_text_of_one_endless_word_costs_little_more_than_it_is_long() {
    let mut scene = scene_with(NOTES).await;
    scene.job("notes", "body").await;
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    scene.caught_up().await;
    let process = scene.daemon().id();
    for (number, text) in TEXTS.iter().enumerate() {
        procfs::reset_peak(process);
        let (before, begin) = (procfs::resident(process).peak, procfs::cpu_time(process));
        let id = number + 2;
        scene
            .sql(&format!(
                "INSERT INTO notes (id, body) VALUES ({id}, {text})"
            ))
            .await;
        scene.wait_until_confirmed().await;
        let without = "SELECT count(*) FROM notes WHERE embedding IS NULL";
        assert_eq!(scene.value(without).await, "0", "{text}");
        let grown = procfs::resident(process).peak.saturating_sub(before);
        let spent = procfs::cpu_time(process).saturating_sub(begin);
        assert!(grown < ROOM, "{text}: {grown} bytes more");
        assert!(spent.as_secs() < 10, "{text}: {spent:?}");
        scene
            .sql(&format!("DELETE FROM notes WHERE id = {id}"))
            .await;
        scene.caught_up().await;
    }
}
