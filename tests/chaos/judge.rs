//! What must be true when everything is well again and nobody writes.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio_postgres::{Client, Error, Row};

use super::faults;
use super::model::Model;
use super::schedule::{Loss, Schedule};
use super::shape::{REFUSED, Shape};
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
    let streaming = streaming(&stage.schedule);
    until(
        client,
        &streaming,
        RECOVERY,
        "the jobs stream again after all is well",
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
    let lost = match stage.schedule.loss {
        Some(loss) => Some(taken_over(stage, client, loss).await?),
        None => None,
    };
    if stage.schedule.is_noticed_late() {
        eventually_right(stage, client).await?;
    }
    caught_up(stage, client).await?;
    right(stage, client).await?;
    if let Some(daemon) = lost {
        faults::find(stage, daemon);
    }

    only_refused_rows_are_aside(stage, client).await?;
    if stage.schedule.shape.refuses {
        client
            .batch_execute(Shape::RELENT)
            .await
            .map_err(|error| failed(&error))?;
        for job in jobs(client).await? {
            succeeds(stage, "retry-failed", &job.id).await?;
        }
        let nothing = "SELECT NOT EXISTS (SELECT FROM jobs_failures)";
        if has_failures(client).await? {
            until(client, nothing, RECOVERY, "no row is aside any more").await?;
        }
        right(stage, client).await?;
    }
    if stage.schedule.shape.fingerprint {
        for job in jobs(client).await? {
            succeeds(stage, "verify", &job.id).await?;
        }
    }

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

/// Loses the daemon that streams, and waits until all its slots are read by others and a row that was written meanwhile has its
/// vectors; returns the number of the one that is lost.
async fn taken_over(stage: &Stage, client: &Client, loss: Loss) -> Result<usize, String> {
    let daemon = faults::lose(stage, loss)
        .await
        .map_err(|error| failed(&error))?;
    let began = Instant::now();
    insert(stage, client, MEANWHILE).await?;
    // By way of JSON: the daemon may not have made a new destination yet.
    let has_vectors: Vec<String> = jobs(client)
        .await?
        .into_iter()
        .filter(|job| job.table == "notes")
        .map(|job| format!("to_jsonb(n) ->> '{}' IS NOT NULL", job.destination))
        .collect();
    let taken_over = format!(
        "{} AND NOT EXISTS (SELECT FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid \
           WHERE s.database = current_database() \
             AND COALESCE(substring(r.application_name FROM '^lantern-cli-(\\d+)$')::int, 1) = {}) \
         AND (SELECT {} FROM notes n WHERE {})",
        streaming(&stage.schedule),
        daemon + 1,
        has_vectors.join(" AND "),
        stage.schedule.shape.is(MEANWHILE)
    );
    until(
        client,
        &taken_over,
        RECOVERY,
        "others have taken over from the daemon that is lost",
    )
    .await?;
    stage.record.taken_over(loss, began.elapsed());
    Ok(daemon)
}

async fn insert(stage: &Stage, client: &Client, row: u64) -> Result<(), String> {
    let shape = &stage.schedule.shape;
    let insert = format!(
        "INSERT INTO notes ({}, body) VALUES ({}, 'w{}')",
        shape.key_columns(),
        shape.key(row),
        row % 100
    );
    let inserted = client.batch_execute(&insert).await;
    inserted.map_err(|error| failed(&error))
}

/// What is in the failures table is there because the table refused it.
async fn only_refused_rows_are_aside(stage: &Stage, client: &Client) -> Result<(), String> {
    if !has_failures(client).await? {
        return Ok(());
    }
    if !stage.schedule.shape.refuses {
        return Err("there is a failures table, and nothing was refused".to_owned());
    }
    let others = "SELECT COALESCE(string_agg(to_jsonb(f)::text, '; '), '') FROM jobs_failures f WHERE error NOT LIKE '%not this one%'";
    let others = value(client, others).await?;
    if others.is_empty() {
        return Ok(());
    }
    Err(format!(
        "rows were put aside that nothing refused: {others}"
    ))
}

async fn has_failures(client: &Client) -> Result<bool, String> {
    let has = value(
        client,
        "SELECT (to_regclass('jobs_failures') IS NOT NULL)::text",
    )
    .await?;
    Ok(has == "true")
}

/// Runs a command for a job as an operator would, beside the daemons.
async fn succeeds(stage: &Stage, command: &str, job: &str) -> Result<(), String> {
    let output = stage.home.run(&[command, "--job", job]).await;
    stage.say(&format!("{command}: {output:?}"));
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command} of job {job}: {output:?}"))
}

/// Kills the daemons at the moment when the last change of a user is confirmed. Whatever comes behind that in the stream is the
/// daemon's own, and most of its write-backs do: the next daemon, which remembers nothing, must not change any row.
async fn nothing_is_taken_for_news(stage: &Stage, client: &Client) -> Result<(), String> {
    stage.say("killing the daemons, to see whether they take their own write-backs for news");
    for row in LAST_ROWS {
        insert(stage, client, row).await?;
    }
    let now: String = value(client, "SELECT pg_current_wal_insert_lsn()::text").await?;
    let confirmed = format!(
        "SELECT bool_and(confirmed_flush_lsn >= '{now}') FROM pg_replication_slots WHERE database = current_database()"
    );
    // Without a pause: the write-backs themselves are confirmed a moment later.
    until_at_once(client, &confirmed).await?;
    stage.record.disturbed();
    for keeper in &stage.keepers {
        keeper.signal(Signal::SIGKILL);
    }
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
        &streaming(&stage.schedule),
        RECOVERY,
        "the jobs stream again after the last restart",
    )
    .await?;
    caught_up(stage, client).await?;
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
const MEANWHILE: u64 = 1_999_999;
const LAST_ROWS: std::ops::Range<u64> = 2_000_000..2_000_030;

/// Whether all slots are read from.
fn streaming(schedule: &Schedule) -> String {
    format!(
        "SELECT (SELECT count(*) = {} FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid \
         WHERE s.database = current_database() AND r.state IN ('streaming', 'catchup'))",
        schedule.slots()
    )
}

const NOTHING_LEFT: &str = "SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE database = current_database()) \
    AND NOT EXISTS (SELECT FROM pg_publication)";

/// Waits until the first run is done and all that has happened so far is confirmed.
async fn caught_up(stage: &Stage, client: &Client) -> Result<(), String> {
    let now: String = value(client, "SELECT pg_current_wal_insert_lsn()::text").await?;
    let caught_up = format!(
        "SELECT COALESCE(bool_and(j.init_finished_at >= j.init_started_at AND j.init_failed_at IS NULL), false) \
           AND (SELECT count(*) = {} AND bool_and(confirmed_flush_lsn >= '{now}') FROM pg_replication_slots \
                WHERE database = current_database() AND active) FROM jobs j",
        stage.schedule.slots()
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

struct Job {
    id: String,
    table: String,
    destination: String,
    model: Model,
}

async fn jobs(client: &Client) -> Result<Vec<Job>, String> {
    let query = "SELECT id::text, \"table\", dst_column, embedding_model FROM jobs ORDER BY id";
    let rows = client.query(query, &[]).await;
    let job = |row: &Row| Job {
        id: row.get(0),
        table: row.get(1),
        destination: row.get(2),
        model: [Model::One, Model::Two]
            .into_iter()
            .find(|model| model.name() == row.get::<_, &str>(3))
            .expect("a job has one of the two"),
    };
    Ok(rows
        .map_err(|error| failed(&error))?
        .iter()
        .map(job)
        .collect())
}

/// Every row has the vector of its text, for every job.
async fn right(stage: &Stage, client: &Client) -> Result<(), String> {
    for job in jobs(client).await? {
        right_for(stage, client, &job).await?;
    }
    Ok(())
}

/// Every row of a job's table has the vector of its text, computed here from the text alone, or is refused and noted as such.
async fn right_for(stage: &Stage, client: &Client, job: &Job) -> Result<(), String> {
    let column = job.destination.replace('"', "\"\"");
    let is_aside = match job.table == "notes" && has_failures(client).await? {
        true => format!(
            "n.body LIKE '{REFUSED} %' AND EXISTS (SELECT FROM jobs_failures f WHERE f.job_id = '{}' AND f.key = {})",
            job.id,
            stage.schedule.shape.key_as_json()
        ),
        false => "false".to_owned(),
    };
    let table = &job.table;
    let query = format!(
        "SELECT (to_jsonb(n) - 'body' - 'embedding' - 'beside')::text || ctid::text || xmin::text, body, \"{column}\"::real[], \
         COALESCE({is_aside}, false) FROM {table} n"
    );
    let rows = client.query(&query, &[]).await;
    let rows = rows.map_err(|error| failed(&error))?;
    let mut wrong = Vec::new();
    for row in &rows {
        let (text, vector): (Option<&str>, Option<Vec<f32>>) = (row.get(1), row.get(2));
        let expected = text
            .filter(|text| !text.is_empty())
            .map(|text| job.model.vector(text));
        let is_aside: bool = row.get(3);
        if !is_aside && !same(expected.as_deref(), vector.as_deref()) {
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
        "{} of {} rows of {table} are wrong in {}: {shown}",
        wrong.len(),
        rows.len(),
        job.destination
    ))
}

/// For schedules with a fault that the daemon may not have noticed yet.
async fn eventually_right(stage: &Stage, client: &Client) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match right(stage, client).await {
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
