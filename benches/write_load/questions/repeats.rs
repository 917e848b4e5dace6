//! What is not computed twice? Rows that change again and again, rows with one and the same text, and a mix of updates of
//! which some bring back a text that was there before.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::capture::{Capture, Inference, Way};
use crate::texts::Texts;

/// How often everything is measured.
pub struct Plan {
    pub rounds: u32,
    /// Rows of the mix, and of the rows that it is compared with.
    pub rows: usize,
}

/// One round.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// Seconds from the last of 600 updates of ten rows to the last vector.
    pub hot_rows: f64,
    /// Seconds from the commit of 1,000 equal texts to the last vector.
    pub equal_texts: f64,
    /// Rows a second of INSERTs with a new text each.
    pub distinct: f64,
    /// Updates a second of which 30 in 100 bring a text that was there before.
    pub mix: f64,
}

const HOT_ROWS: usize = 10;
const HOT_UPDATES: usize = 600;
/// Within two seconds, as a busy application would.
const HOT_PACE: Duration = Duration::from_millis(2000 / HOT_UPDATES as u64);
/// Beyond the model's window of 256 tokens.
const LONG_TEXT: usize = 1500;
const EQUAL_TEXTS: usize = 1000;
/// Updates in one transaction of the mix.
const MIX_TRANSACTION: usize = 10;
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_secs(300);

pub async fn measure(plan: &Plan, texts: &Texts) -> Vec<Round> {
    let capture = Capture::start(Way::Daemon, Inference::Unyielding, texts).await;
    let mut rounds = Vec::new();
    let mut fresh = Fresh { texts, next: 0 };
    for _ in 0..plan.rounds {
        let distinct = distinct(&capture, &mut fresh, plan.rows).await;
        let mix = mix(&capture, &mut fresh, plan.rows).await;
        rounds.push(Round {
            hot_rows: hot_rows(&capture, &mut fresh).await,
            equal_texts: equal_texts(&capture, &mut fresh).await,
            distinct,
            mix,
        });
    }
    rounds
}

/// Texts that were not embedded before.
struct Fresh<'a> {
    texts: &'a Texts,
    next: usize,
}

impl Fresh<'_> {
    fn text(&mut self) -> String {
        self.next += 1;
        self.texts.text(self.next)
    }

    fn take(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.text()).collect()
    }
}

/// Inserts rows with these texts, numbered from 1, and returns the seconds until the last has its vector.
async fn insert(capture: &Capture, texts: &[String]) -> f64 {
    let server = &capture.server;
    server.sql("TRUNCATE notes").await;
    server.wait_until_sent().await;
    let begin = Instant::now();
    let insert = "INSERT INTO notes (id, body) SELECT n, body FROM unnest($1::text[]) WITH ORDINALITY AS u(body, n)";
    let inserted = server.session.execute(insert, &[&texts]).await;
    inserted.expect("inserted");
    capture.wait_for_vectors(POLL_INTERVAL, TIMEOUT).await;
    begin.elapsed().as_secs_f64()
}

async fn hot_rows(capture: &Capture, fresh: &mut Fresh<'_>) -> f64 {
    let server = &capture.server;
    insert(capture, &fresh.take(HOT_ROWS)).await;
    let begin = Instant::now();
    for number in 0..HOT_UPDATES {
        tokio::time::sleep_until((begin + HOT_PACE * number as u32).into()).await;
        let (id, text) = ((number % HOT_ROWS + 1) as i64, long(fresh));
        // A row without a vector is one whose newest text has none yet.
        let update = "UPDATE notes SET body = $2, embedding = NULL WHERE id = $1";
        let updated = server.session.execute(update, &[&id, &text]).await;
        updated.expect("updated");
    }
    let last = Instant::now();
    capture.wait_for_vectors(POLL_INTERVAL, TIMEOUT).await;
    last.elapsed().as_secs_f64()
}

fn long(fresh: &mut Fresh<'_>) -> String {
    let mut text = String::new();
    while text.len() < LONG_TEXT {
        text.push_str(&fresh.text());
        text.push_str(". ");
    }
    text
}

async fn equal_texts(capture: &Capture, fresh: &mut Fresh<'_>) -> f64 {
    insert(capture, &vec![fresh.text(); EQUAL_TEXTS]).await
}

async fn distinct(capture: &Capture, fresh: &mut Fresh<'_>, rows: usize) -> f64 {
    rows as f64 / insert(capture, &fresh.take(rows)).await
}

/// Updates of rows at random, in small transactions, as fast as they come.
async fn mix(capture: &Capture, fresh: &mut Fresh<'_>, updates: usize) -> f64 {
    let server = &capture.server;
    let rows = updates / 3;
    insert(capture, &fresh.take(rows)).await;
    let mut random = fastrand::Rng::with_seed(7);
    let mut used = fresh.take(rows);
    let begin = Instant::now();
    for _ in 0..updates / MIX_TRANSACTION {
        let ids: BTreeSet<i64> = (0..MIX_TRANSACTION)
            .map(|_| random.i64(1..=rows as i64))
            .collect();
        let ids: Vec<i64> = ids.into_iter().collect();
        let bodies: Vec<String> = ids
            .iter()
            .map(|_| match random.u32(0..100) {
                0..30 => used[random.usize(0..used.len())].clone(),
                _ => fresh.text(),
            })
            .collect();
        let update = "UPDATE notes SET body = u.body, embedding = NULL FROM unnest($1::bigint[], $2::text[]) AS u(id, body) \
                      WHERE notes.id = u.id AND notes.body <> u.body";
        let updated = server.session.execute(update, &[&ids, &bodies]).await;
        updated.expect("updated");
        used.extend(bodies);
    }
    capture.wait_for_vectors(POLL_INTERVAL, TIMEOUT).await;
    updates as f64 / begin.elapsed().as_secs_f64()
}
