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
use std::path::{Path, PathBuf};
use std::time::Instant;

use answers::{About, Answers};
use capture::{Inference, Way, follower};
use questions::{backlog, beside_inference, burst, freshness, jobs, tables, user_side, write_back};
use scale::Scale;
use texts::Texts;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let inference = if has(&arguments, "off") {
        Inference::Off
    } else {
        Inference::On
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if has(&arguments, "follow-notify") {
        runtime.block_on(follower::follow(Way::Notify, inference));
    } else if has(&arguments, "follow-queue") {
        runtime.block_on(follower::follow(Way::Queue, inference));
    } else {
        runtime.block_on(measure(&arguments));
    }
}

/// In the order in which they are asked.
const QUESTIONS: [&str; 9] = [
    "user_side",
    "beside_inference",
    "freshness",
    "bursts",
    "drain",
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
    let named = QUESTIONS.map(|question| has(arguments, question));
    let all = !named.contains(&true);
    let mut answers = Answers::none(about);
    for (question, named) in QUESTIONS.into_iter().zip(named) {
        if !named && !all {
            continue;
        }
        eprintln!("{:>5.0} s  {question}", begin.elapsed().as_secs_f64());
        ask(question, scale, &texts, &mut answers).await;
        answers.about.minutes = begin.elapsed().as_secs_f64() / 60.0;
        answers.bars = bars::bars(&answers);
        // After each: whoever ends an hour's run early keeps what there is.
        if let Some(folder) = &into {
            write(&answers, folder);
        }
    }
    report::print(&answers);
    println!("\n{:.1} minutes", answers.about.minutes);
}

async fn ask(question: &str, scale: Scale, texts: &Texts, answers: &mut Answers) {
    match question {
        "user_side" => {
            answers.user_side = Some(user_side::measure(&scale.user_side(), texts).await);
        }
        "beside_inference" => {
            let plan = scale.beside_inference();
            answers.beside_inference = Some(beside_inference::measure(&plan, texts).await);
        }
        "freshness" => {
            answers.freshness = Some(freshness::measure(&scale.freshness(), texts).await);
        }
        "bursts" => answers.bursts = Some(burst::measure(&scale.bursts(), texts).await),
        "drain" => answers.drain = Some(burst::drain(scale.drain(), texts).await),
        "backlog" => answers.backlog = Some(backlog::measure(&scale.backlog(), texts).await),
        "write_back" => {
            answers.write_back = Some(write_back::measure(&scale.write_back(), texts).await);
        }
        "jobs" => answers.jobs = Some(jobs::measure(&scale.jobs(), texts).await),
        "tables" => answers.tables = Some(tables::measure(&scale.tables()).await),
        _ => unreachable!("all questions are above"),
    }
}

fn write(answers: &Answers, folder: &Path) {
    fs::create_dir_all(folder).expect("the folder is made");
    let json = serde_json::to_string_pretty(answers).expect("it can be written as JSON");
    fs::write(folder.join("results.json"), json).expect("the results are written");
}

fn has(arguments: &[String], argument: &str) -> bool {
    arguments.iter().any(|given| given == argument)
}
