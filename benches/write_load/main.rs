//! What it costs to have the embeddings of a table kept, how fresh they are, and how that changes as the writes grow, next to
//! the other ways of doing it.
//!
//! Every comparison is made within one run, in turns, each way on a server of its own that is otherwise the same. Run:
//! `make bench`, or `make bench-full` for more clients, rounds and sizes. By hand: `-- --smoke` only shows that everything works;
//! names of questions (`-- freshness jobs`) leave out the others; `--into FOLDER` takes `results.json`, from which `plots.py` draws.

mod answers;
mod bars;
mod capture;
mod engine;
mod pgbench;
mod place;
mod questions;
mod report;
mod scale;
#[path = "../support/mod.rs"]
mod support;
mod texts;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use answers::{About, Answers};
use capture::{Inference, Way, follower};
use questions::{backlog, burst, freshness, jobs, tables, user_side, write_back};
use scale::Scale;
use texts::Texts;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |argument: &str| arguments.iter().any(|given| given == argument);
    let inference = if has("off") {
        Inference::Off
    } else {
        Inference::On
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if has("follow-notify") {
        runtime.block_on(follower::follow(Way::Notify, inference));
    } else if has("follow-queue") {
        runtime.block_on(follower::follow(Way::Queue, inference));
    } else {
        runtime.block_on(measure(&arguments));
    }
}

/// In the order in which they are asked.
const QUESTIONS: [&str; 7] = [
    "user_side",
    "freshness",
    "bursts",
    "backlog",
    "write_back",
    "jobs",
    "tables",
];

async fn measure(arguments: &[String]) {
    let scale = Scale::of(arguments);
    let into = arguments.iter().skip_while(|given| *given != "--into");
    let into = into.skip(1).map(PathBuf::from).next();
    let texts = Texts::load();
    let command = match scale {
        Scale::Smoke => "a smoke test; its figures mean nothing",
        Scale::Usual => "make bench",
        Scale::Full => "make bench-full",
    };
    let begin = Instant::now();
    let about = About::look(command.to_owned(), &texts).await;
    println!("{}\n{}\n{}", about.machine, about.versions, about.texts);
    let named: Vec<&str> = QUESTIONS
        .into_iter()
        .filter(|question| arguments.iter().any(|given| given == question))
        .collect();
    let asked = |question: &str| {
        let asked = named.is_empty() || named.contains(&question);
        if asked {
            eprintln!("{:>5.0} s  {question}", begin.elapsed().as_secs_f64());
        }
        asked
    };
    let mut answers = Answers {
        about,
        user_side: None,
        freshness: None,
        bursts: None,
        backlog: None,
        write_back: None,
        jobs: None,
        tables: None,
        bars: Vec::new(),
    };
    if asked("user_side") {
        answers.user_side = Some(user_side::measure(&scale.user_side(), &texts).await);
    }
    if asked("freshness") {
        answers.freshness = Some(freshness::measure(&scale.freshness(), &texts).await);
    }
    if asked("bursts") {
        answers.bursts = Some(burst::measure(&scale.bursts(), &texts).await);
    }
    if asked("backlog") {
        answers.backlog = Some(backlog::measure(&scale.backlog(), &texts).await);
    }
    if asked("write_back") {
        answers.write_back = Some(write_back::measure(&scale.write_back(), &texts).await);
    }
    if asked("jobs") {
        answers.jobs = Some(jobs::measure(&scale.jobs(), &texts).await);
    }
    if asked("tables") {
        answers.tables = Some(tables::measure(&scale.tables()).await);
    }
    answers.about.minutes = begin.elapsed().as_secs_f64() / 60.0;
    answers.bars = bars::bars(&answers);
    report::print(&answers);
    if let Some(folder) = into {
        fs::create_dir_all(&folder).expect("the folder is made");
        let json = serde_json::to_string_pretty(&answers).expect("it can be written as JSON");
        fs::write(folder.join("results.json"), json).expect("the results are written");
    }
    println!("\n{:.1} minutes", answers.about.minutes);
}
