//! `make demo`: the whole daemon at work, on a private PostgreSQL, in about a minute.
//!
//! Reads from top to bottom as what the watcher sees. Everything that is started belongs to [`Cast`], which takes it
//! down again in order, whether the story ends, fails or is interrupted.

mod articles;
mod cast;
mod daemon;
mod database;
mod latency;
mod live;
mod paths;
mod search;
mod stage;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use crate::cast::Cast;
use crate::daemon::Daemon;
use crate::database::{Database, Job, Leftovers};
use crate::latency::ModelAlone;
use crate::paths::Paths;
use crate::stage::Stage;

/// How many of the articles arrive while the daemon is listening; the others are there before it starts.
const LIVE_ARTICLES: usize = 4;
const MODEL: &str = "sentence-transformers/all-MiniLM-L6-v2";
/// Generous for a slow machine: reading the model from a cold disk, embedding some 230 short texts on one core.
const BACKFILL_LIMIT: Duration = Duration::from_secs(180);
const CANCEL_LIMIT: Duration = Duration::from_secs(15);

/// What a shell reports for a program that Ctrl-C ended: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

// The story runs on the main thread, the connections on workers. `daemon` and `latency` rely on this.
#[tokio::main]
async fn main() -> ExitCode {
    let stage = Stage::new();
    let mut cast = Cast::default();
    let outcome = tokio::select! {
        biased;
        () = interruption() => None,
        outcome = story(&stage, &mut cast) => Some(outcome),
    };
    stage.end_progress();
    let code = match &outcome {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            stage.failure(&format!("{error:#}"));
            cast.show_log(&stage);
            ExitCode::FAILURE
        }
        None => {
            stage.title("Interrupted: stopping the daemon and PostgreSQL");
            ExitCode::from(INTERRUPTED)
        }
    };
    tokio::select! {
        biased;
        // Does not wait for anything: what is left is ended by its own watchdog.
        () = interruption() => ExitCode::from(INTERRUPTED),
        () = cast.leave() => code,
    }
}

async fn story(stage: &Stage, cast: &mut Cast) -> Result<()> {
    let paths = Paths::find()?;
    let mut articles = articles::load(&paths.articles)?;
    let later = articles.split_off(articles.len().saturating_sub(LIVE_ARTICLES));

    stage.title("A private PostgreSQL");
    let postgres = cast.postgres.insert(database::start_server(&paths).await?);
    let mut database = Database::create(postgres, "demo").await?;
    stage.fact("server", &database.version().await?);
    stage.fact("connection", &database.redacted_uri());

    stage.title("The tables, and articles to search in");
    database.create_jobs_table(&paths.readme).await?;
    stage.fact("jobs", "created with the SQL of README.md");
    let existing = database.load_articles(&articles).await?;
    stage.fact(
        "articles",
        &format!("{existing} short texts copied in, none of them with a vector yet"),
    );

    stage.title("The daemon");
    let daemon = cast.daemon.insert(Daemon::start(&paths, database.uri())?);
    stage.fact("command", "lantern-cli start-daemon --uri '…' --table jobs");
    stage.fact(
        "process",
        &format!("{}, log in {}", daemon.pid(), paths::shown(&paths.log)),
    );
    let job = database.insert_job(MODEL).await?;
    stage.fact(
        "job",
        &format!("{}: articles.body → body_embedding, {MODEL}", job.id()),
    );

    stage.title("The rows that were there before");
    embed_existing(stage, daemon, &database, &job).await?;

    stage.title("Live: from COMMIT to the new vector");
    live::single_changes(stage, daemon, &mut database, &later).await?;

    stage.title("How much of that is the model's own time?");
    let texts = articles
        .iter()
        .map(|article| format!("{}. {}", article.title, article.body));
    let model = ModelAlone::load(&paths, MODEL).await?;
    live::beyond_the_model(stage, daemon, &database, &model, texts).await?;
    drop(model);

    stage.title("Searching by meaning");
    for question in search::QUESTIONS {
        stage.question(question);
        stage.block(&search::ask(&paths, database.uri(), &job, question).await?);
    }

    stage.title("The job is cancelled");
    let before = database.leftovers().await?;
    database.cancel(&job).await?;
    let gone = async || Ok(database.leftovers().await? == Leftovers::default());
    let took = daemon
        .until(
            "publication and slot of the cancelled job are gone",
            CANCEL_LIMIT,
            gone,
        )
        .await?;
    stage.fact("pg_publication", &format!("{} → 0", before.publications));
    stage.fact(
        "pg_replication_slots",
        &format!(
            "{} → 0, {} after the COMMIT",
            before.slots,
            stage::short(took)
        ),
    );

    stage.title("The end");
    let (code, took) = daemon.stop().await?;
    stage.fact(
        "daemon",
        &format!("SIGTERM, exit status {code} after {}", stage::short(took)),
    );
    drop(database);
    cast.stop_postgres().await?;
    stage.fact("PostgreSQL", "stopped, its files are removed");
    Ok(())
}

/// Watches the daemon give every existing row its vector.
async fn embed_existing(
    stage: &Stage,
    daemon: &mut Daemon,
    database: &Database,
    job: &Job,
) -> Result<()> {
    let all_done = async || {
        let progress = database.progress(job).await?;
        stage.progress(progress.embedded, progress.rows);
        Ok(progress.finished && progress.embedded == progress.rows)
    };
    let took = daemon
        .until(
            "every existing row has its vector",
            BACKFILL_LIMIT,
            all_done,
        )
        .await?;
    stage.end_progress();
    let rows = database.progress(job).await?.rows;
    let rate = rows as f64 / took.as_secs_f64();
    stage.fact(
        "embedded",
        &format!(
            "{rows} rows in {}, loading the model included",
            stage::short(took)
        ),
    );
    stage.fact("rate", &format!("{rate:.0} rows/s"));
    Ok(())
}

/// Resolves when somebody wants this program to end: Ctrl-C, `kill`, or a terminal that was closed.
async fn interruption() {
    let mut signals = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ]
    .map(|kind| signal(kind).expect("the runtime has signal handling switched on"));
    let [interrupt, terminate, hangup] = &mut signals;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}
