//! `make demo`: the whole daemon at work, on a private PostgreSQL, in about a minute.
//!
//! It reads from top to bottom as what it prints. Everything that it starts belongs to [`Processes`], which stops it in
//! order, whether the demo ends, fails or is interrupted.

mod articles;
mod console;
mod daemon;
mod database;
mod latency;
mod live;
mod paths;
mod processes;
mod search;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use testkit::engine::MODEL;
use tokio::signal::unix::{SignalKind, signal};

use crate::console::Console;
use crate::daemon::Daemon;
use crate::database::{Database, Job, Leftovers};
use crate::latency::ModelAlone;
use crate::paths::Paths;
use crate::processes::Processes;

/// How many of the articles arrive while the daemon runs; the others exist before it starts.
const LIVE_ARTICLES: usize = 4;
/// Generous for a slow machine: reading the model from a cold disk, embedding some 230 short texts on one core.
const BACKFILL_TIMEOUT: Duration = Duration::from_secs(180);
const CANCEL_TIMEOUT: Duration = Duration::from_secs(15);

/// What a shell reports for a program that Ctrl-C ended: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

// The demo runs on the main thread, the connections on workers. `daemon` and `latency` rely on this.
#[tokio::main]
async fn main() -> ExitCode {
    let console = Console::new();
    let mut processes = Processes::default();
    let outcome = tokio::select! {
        biased;
        () = interruption() => None,
        outcome = run(&console, &mut processes) => Some(outcome),
    };
    console.end_progress();
    let code = match &outcome {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            console.failure(&format!("{error:#}"));
            processes.show_log(&console);
            ExitCode::FAILURE
        }
        None => {
            console.title("Interrupted: stopping the daemon and PostgreSQL");
            ExitCode::from(INTERRUPTED)
        }
    };
    tokio::select! {
        biased;
        // A second signal: does not wait. What is left ends with this process.
        () = interruption() => ExitCode::from(INTERRUPTED),
        () = processes.stop() => code,
    }
}

async fn run(console: &Console, processes: &mut Processes) -> Result<()> {
    let paths = Paths::find()?;
    let mut articles = articles::load(&paths.articles)?;
    let later = articles.split_off(articles.len().saturating_sub(LIVE_ARTICLES));

    console.title("A private PostgreSQL");
    let postgres = processes
        .postgres
        .insert(database::start_server(&paths).await?);
    let mut database = Database::create(postgres, "demo").await?;
    console.fact("server", &database.version().await?);
    console.fact("connection", &database.redacted_uri());

    console.title("The tables, and articles to search in");
    database.create_jobs_table().await?;
    console.fact("jobs", "created with the SQL of README.md");
    let existing = database.load_articles(&articles).await?;
    console.fact(
        "articles",
        &format!("{existing} short texts copied in, none of them with a vector yet"),
    );

    console.title("The daemon");
    let daemon = processes
        .daemon
        .insert(Daemon::start(&paths, database.uri())?);
    console.fact("command", "lantern-cli start-daemon --uri '…' --table jobs");
    console.fact(
        "process",
        &format!("{}, log in {}", daemon.id(), paths::shown(&paths.log)),
    );
    let job = database.insert_job().await?;
    console.fact(
        "job",
        &format!("{}: articles.body → body_embedding, {MODEL}", job.id()),
    );

    console.title("The existing rows");
    embed_existing(console, daemon, &database, &job).await?;

    console.title("Live: from COMMIT to the new vector");
    live::single_changes(console, daemon, &mut database, &later).await?;

    console.title("How much of that is the model's own time?");
    let texts = articles
        .iter()
        .map(|article| format!("{}. {}", article.title, article.body));
    let model = ModelAlone::load(&paths).await?;
    live::beyond_the_model(console, daemon, &database, &model, texts).await?;
    drop(model);

    console.title("Searching by meaning");
    for question in search::QUESTIONS {
        console.question(question);
        console.block(&search::ask(&paths, database.uri(), &job, question).await?);
    }

    console.title("The job is canceled");
    let before = database.leftovers().await?;
    database.cancel(&job).await?;
    let gone = async || Ok(database.leftovers().await? == Leftovers::default());
    let took = daemon
        .until(
            "publication and slot of the canceled job are gone",
            CANCEL_TIMEOUT,
            gone,
        )
        .await?;
    console.fact("pg_publication", &format!("{} → 0", before.publications));
    console.fact(
        "pg_replication_slots",
        &format!(
            "{} → 0, {} after the COMMIT",
            before.slots,
            console::short(took)
        ),
    );

    console.title("The end");
    let took = daemon.stop().await?;
    console.fact(
        "daemon",
        &format!("SIGTERM, exit status 0 after {}", console::short(took)),
    );
    drop(database);
    processes.stop_postgres().await?;
    console.fact("PostgreSQL", "stopped, its files are removed");
    Ok(())
}

/// Watches the daemon give every existing row its vector.
async fn embed_existing(
    console: &Console,
    daemon: &mut Daemon,
    database: &Database,
    job: &Job,
) -> Result<()> {
    let all_done = async || {
        let progress = database.progress(job).await?;
        console.progress(progress.embedded, progress.rows);
        Ok(progress.finished && progress.embedded == progress.rows)
    };
    let took = daemon
        .until(
            "every existing row has its vector",
            BACKFILL_TIMEOUT,
            all_done,
        )
        .await?;
    console.end_progress();
    let rows = database.progress(job).await?.rows;
    let rate = rows as f64 / took.as_secs_f64();
    console.fact(
        "embedded",
        &format!(
            "{rows} rows in {}, loading the model included",
            console::short(took)
        ),
    );
    console.fact("rate", &format!("{rate:.0} rows/s"));
    Ok(())
}

/// Resolves when this program is asked to end: Ctrl-C, `kill`, or a terminal that was closed.
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
