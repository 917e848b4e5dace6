//! Users who lock random rows, in an order that cannot deadlock among themselves, and write-backs in between. It takes
//! some seconds; `LANTERN_LOCKING_SECONDS=3600` makes it an hour.

use std::time::{Duration, Instant};

use testkit::client::execute;
use testkit::random::Random;
use testkit::scene::VOCABULARY;
use tokio_postgres::Client;

use crate::support::notes_scene;

const USERS: u64 = 6;
const ROWS: u64 = 60;
/// The longest time for which a user holds its rows.
const HOLD_MS: u64 = 60;
/// Six users in turn, each with its hold, on a busy machine.
const MAX_WAIT: Duration = Duration::from_secs(5);

fn duration() -> Duration {
    let seconds = std::env::var("LANTERN_LOCKING_SECONDS").ok();
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

/// Locks some rows in ascending order, one after the other or all at once, keeps them for a moment, and changes some.
/// Returns the number of transactions and the longest that one statement took.
async fn user(client: Client, seed: u64, until: Instant) -> (u64, Duration) {
    let mut random = Random::new(seed);
    let (mut done, mut longest) = (0, Duration::ZERO);
    while Instant::now() < until {
        let mut rows: Vec<u64> = (0..=random.below(5))
            .map(|_| 1 + random.below(ROWS))
            .collect();
        rows.sort_unstable();
        rows.dedup();
        let strength = *random.pick(&["UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"]);
        let list: Vec<String> = rows.iter().map(u64::to_string).collect();
        let list = list.join(", ");
        let mut statements = vec!["BEGIN".to_owned()];
        match random.below(3) {
            // Only as a whole statement: upgrading a shared lock could deadlock with another user.
            0 => statements.push(format!(
                "SELECT FROM notes WHERE id IN ({list}) ORDER BY id FOR {strength}"
            )),
            1 => statements.extend(rows.iter().map(|id| {
                format!(
                    "UPDATE notes SET body = '{}' WHERE id = {id}",
                    random.pick(&VOCABULARY[..4])
                )
            })),
            _ => statements.extend(
                rows.iter()
                    .map(|id| format!("UPDATE notes SET views = views + 1 WHERE id = {id}")),
            ),
        }
        for statement in statements {
            let begin = Instant::now();
            let run = client.batch_execute(&statement).await;
            run.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
            longest = longest.max(begin.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(random.below(HOLD_MS))).await;
        let end = if random.below(10) == 0 {
            "ROLLBACK"
        } else {
            "COMMIT"
        };
        execute(&client, end).await;
        done += 1;
    }
    (done, longest)
}

/// Hazard 30.
#[tokio::test]
async fn under_random_locking_no_user_deadlocks_or_waits_for_the_daemon() {
    let mut scene = notes_scene().await;
    let rows =
        format!("INSERT INTO notes (id, body) SELECT n, '' FROM generate_series(1, {ROWS}) AS n");
    scene.sql(&rows).await;
    scene.start_daemon().await;
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let until = Instant::now() + duration();
    let mut users = Vec::new();
    for number in 0..USERS {
        let client = scene.database.client().await;
        users.push(tokio::spawn(user(
            client,
            (seed + 1) * (2 * number + 1),
            until,
        )));
    }
    let (mut done, mut longest) = (0, Duration::ZERO);
    for user in users {
        let (transactions, wait) = user.await.expect("no user's statement failed");
        done += transactions;
        longest = longest.max(wait);
    }
    println!(
        "{done} transactions in {:?}; the longest statement took {longest:?}",
        duration()
    );
    assert!(longest < MAX_WAIT, "{longest:?}");
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(scene.value(deadlocks).await, "0");
    scene.caught_up().await;
    assert_eq!(
        scene.value("SELECT init_failure_reason FROM jobs").await,
        ""
    );
}
