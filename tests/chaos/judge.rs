//! What must be true when everything is well again and nobody writes.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio_postgres::{Client, Error};

use super::model::Model;
use super::stage::Stage;

/// Streaming again after the server or the network is back.
const RECOVERY: Duration = Duration::from_secs(10);
/// Working off what a schedule has left to do: a few thousand short texts.
const PATIENCE: Duration = Duration::from_secs(40);
const EVERY: Duration = Duration::from_millis(20);

/// Asks everything in turn; violations go to the stage's record.
pub async fn judge(stage: &Stage) {
    let client = stage.client().await;
    stage.say("judging");
    let judged = verdict(stage, &client).await;
    if let Err(violation) = judged {
        stage.say(&violation);
        stage.record.violation(violation);
    }
}

async fn verdict(stage: &Stage, client: &Client) -> Result<(), String> {
    until(
        client,
        STREAMING,
        RECOVERY,
        "the job streams again after all is well",
    )
    .await?;
    // Some faults, and the search for users who wait for a daemon, find its sessions by this name.
    let sessions = "SELECT count(DISTINCT backend_type) = 2 FROM pg_stat_activity \
                    WHERE application_name LIKE 'lantern-cli%' AND datname = current_database()";
    until(
        client,
        sessions,
        RECOVERY,
        "the daemon's sessions show their name",
    )
    .await?;
    if stage.schedule.is_noticed_late() {
        eventually_right(client).await?;
    }
    caught_up(client).await?;
    right(client).await?;

    nothing_is_taken_for_news(stage, client).await?;

    stage.say("cancelling the job");
    stage.record.disturbed();
    let cancel = client
        .batch_execute("UPDATE jobs SET canceled_at = true")
        .await;
    cancel.map_err(|error| failed(&error))?;
    until(
        client,
        NOTHING_LEFT,
        RECOVERY,
        "nothing of the cancelled job is left",
    )
    .await
}

/// Kills the daemon at the moment when the last change of a user is confirmed. Whatever comes behind that in the stream is the
/// daemon's own, and most of its write-backs do: the next daemon, which remembers nothing, must not change any row.
async fn nothing_is_taken_for_news(stage: &Stage, client: &Client) -> Result<(), String> {
    stage.say("killing the daemon, to see whether it takes its own write-backs for news");
    let shape = &stage.schedule.shape;
    for row in LAST_ROWS {
        let insert = format!(
            "INSERT INTO notes ({}, body) VALUES ({}, 'w{}')",
            shape.key_columns(),
            shape.key(row),
            row % 100
        );
        let inserted = client.batch_execute(&insert).await;
        inserted.map_err(|error| failed(&error))?;
    }
    let now: String = value(client, "SELECT pg_current_wal_insert_lsn()::text").await?;
    let confirmed = format!(
        "SELECT bool_and(confirmed_flush_lsn >= '{now}') FROM pg_replication_slots WHERE database = current_database()"
    );
    // Without a pause: the write-backs themselves are confirmed a moment later.
    until_at_once(client, &confirmed).await?;
    stage.record.disturbed();
    stage.keeper.signal(Signal::SIGKILL);
    let before = versions(client).await?;
    let inactive =
        "SELECT NOT bool_or(active) FROM pg_replication_slots WHERE database = current_database()";
    until(
        client,
        inactive,
        RECOVERY,
        "the server notices that the daemon is dead",
    )
    .await?;
    let aside = client.batch_execute("INSERT INTO aside VALUES (1)").await;
    aside.map_err(|error| failed(&error))?;
    until(
        client,
        STREAMING,
        RECOVERY,
        "the job streams again after the last restart",
    )
    .await?;
    caught_up(client).await?;
    let after = versions(client).await?;
    if before == after {
        return Ok(());
    }
    Err(format!(
        "write-backs were taken for news: {}",
        difference(&before, &after)
    ))
}

/// Rows that none of the users touches.
const LAST_ROWS: std::ops::Range<u64> = 2_000_000..2_000_030;

const STREAMING: &str = "SELECT EXISTS (SELECT FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid \
    WHERE s.database = current_database() AND r.state IN ('streaming', 'catchup'))";
const NOTHING_LEFT: &str = "SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE database = current_database()) \
    AND NOT EXISTS (SELECT FROM pg_publication)";

/// Waits until the first run is done and all that has happened so far is confirmed.
async fn caught_up(client: &Client) -> Result<(), String> {
    let now: String = value(client, "SELECT pg_current_wal_insert_lsn()::text").await?;
    let caught_up = format!(
        "SELECT COALESCE(bool_and(j.init_finished_at >= j.init_started_at AND j.init_failed_at IS NULL), false) \
           AND (SELECT count(*) = 1 AND bool_and(confirmed_flush_lsn >= '{now}') FROM pg_replication_slots \
                WHERE database = current_database() AND active) FROM jobs j"
    );
    let result = until(client, &caught_up, PATIENCE, "everything is confirmed").await;
    let Err(mut violation) = result else {
        return Ok(());
    };
    let state: String = value(
        client,
        "SELECT COALESCE((SELECT string_agg(to_jsonb(j)::text, '; ') FROM (SELECT id, init_started_at, init_finished_at, \
           init_failed_at, init_failure_reason, canceled_at FROM jobs) j), 'no job') \
         || ' ' || COALESCE((SELECT string_agg(to_jsonb(s)::text, '; ') FROM (SELECT slot_name, active, wal_status, \
           restart_lsn, confirmed_flush_lsn FROM pg_replication_slots WHERE database = current_database()) s), 'no slot')",
    )
    .await?;
    let _ = write!(violation, " ({now}): {state}");
    Err(violation)
}

/// Every row has the vector of its text, for every job.
async fn right(client: &Client) -> Result<(), String> {
    let jobs = client
        .query(
            "SELECT \"table\", dst_column, embedding_model FROM jobs ORDER BY id",
            &[],
        )
        .await
        .map_err(|error| failed(&error))?;
    for job in &jobs {
        right_for(client, job.get(0), job.get(1), job.get(2)).await?;
    }
    Ok(())
}

/// Every row of a table has the vector of its text, computed here from the text alone.
async fn right_for(
    client: &Client,
    table: &str,
    destination: &str,
    model: &str,
) -> Result<(), String> {
    let model = [Model::One, Model::Two]
        .into_iter()
        .find(|candidate| candidate.name() == model)
        .expect("a job has one of the two");
    let column = destination.replace('"', "\"\"");
    let rows = client
        .query(
            &format!(
                "SELECT (to_jsonb(n) - 'body' - 'embedding' - 'beside')::text || ctid::text || xmin::text, body, \"{column}\"::real[] \
                 FROM {table} n"
            ),
            &[],
        )
        .await
        .map_err(|error| failed(&error))?;
    let mut wrong = Vec::new();
    for row in &rows {
        let (text, vector): (Option<&str>, Option<Vec<f32>>) = (row.get(1), row.get(2));
        let expected = text
            .filter(|text| !text.is_empty())
            .map(|text| model.vector(text));
        if !same(expected.as_deref(), vector.as_deref()) {
            let text: String = text.unwrap_or("NULL").chars().take(60).collect();
            wrong.push(format!(
                "{} {text:?} has {vector:?}",
                row.get::<_, String>(0)
            ));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let shown = wrong.iter().take(4).cloned().collect::<Vec<_>>().join("; ");
    Err(format!(
        "{} of {} rows of {table} are wrong in {destination}: {shown}",
        wrong.len(),
        rows.len()
    ))
}

/// For schedules with a fault that the daemon may not have noticed yet.
async fn eventually_right(client: &Client) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match right(client).await {
            Ok(()) => return Ok(()),
            Err(violation) if Instant::now() > deadline => return Err(violation),
            Err(_) => tokio::time::sleep(EVERY).await,
        }
    }
}

fn same(expected: Option<&[f32]>, found: Option<&[f32]>) -> bool {
    match (expected, found) {
        (None, None) => true,
        (Some(expected), Some(found)) => {
            let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-4;
            expected.len() == found.len() && expected.iter().zip(found).all(near)
        }
        _ => false,
    }
}

/// Each row's place and the transaction that wrote it.
async fn versions(client: &Client) -> Result<Vec<String>, String> {
    let query =
        "SELECT tableoid::text || ' ' || ctid::text || ' ' || xmin::text FROM notes ORDER BY 1";
    let rows = client
        .query(query, &[])
        .await
        .map_err(|error| failed(&error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn difference(before: &[String], after: &[String]) -> String {
    let news: Vec<&String> = after
        .iter()
        .filter(|row| before.binary_search(row).is_err())
        .collect();
    format!(
        "{} new row versions, among them {:?}",
        news.len(),
        news.iter().take(4).collect::<Vec<_>>()
    )
}

/// Waits until a question is answered with true.
async fn until(
    client: &Client,
    question: &str,
    patience: Duration,
    what: &str,
) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    loop {
        let answer = client.query_one(question, &[]).await;
        match answer {
            Ok(row) if row.get::<_, Option<bool>>(0) == Some(true) => return Ok(()),
            Err(error) => return Err(failed(&error)),
            Ok(_) if Instant::now() > deadline => {
                return Err(format!(
                    "waited {} s in vain until {what}",
                    patience.as_secs()
                ));
            }
            Ok(_) => tokio::time::sleep(EVERY).await,
        }
    }
}

/// As [`until`] with its patience, without any pause.
async fn until_at_once(client: &Client, question: &str) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while client
        .query_one(question, &[])
        .await
        .map_err(|error| failed(&error))?
        .get::<_, Option<bool>>(0)
        != Some(true)
    {
        if Instant::now() > deadline {
            return Err("the last changes of all are not confirmed".to_owned());
        }
    }
    Ok(())
}

async fn value(client: &Client, query: &str) -> Result<String, String> {
    let row = client.query_one(query, &[]).await;
    row.map(|row| row.get(0)).map_err(|error| failed(&error))
}

fn failed(error: &Error) -> String {
    format!("a question of the judge's failed: {error:?}")
}
