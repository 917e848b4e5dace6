//! What it costs to keep the embeddings of a table up to date, how fresh they are, and how that changes with the load,
//! next to other ways of doing it.
//!
//! Every comparison is made within one run, in turns, each way on an equal server of its own. Run: `make bench`, or
//! `make bench-full` for more clients, rounds and sizes. By hand: `-- --smoke` only shows that everything works; names
//! of questions (`-- freshness jobs`) select these; `--into FOLDER` writes `results.json`, from which `plots.py` draws.
//!
//! ```text
//!  main ──▶ scale ──▶ questions ──▶ capture ──▶ notes_server ──▶ support
//!    │                    │
//!    └──▶ report ──▶ bars ──▶ results ──▶ bar
//! ```

mod bar;
mod bars;
mod capture;
mod notes_server;
mod pgbench;
mod questions;
mod report;
mod results;
mod scale;
#[path = "../support/mod.rs"]
mod support;
mod texts;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use capture::{Inference, Way, follower};
use questions::{
    backlog, beside_inference, burst, documents, freshness, jobs, near_saturation, repeats, tables,
    user_side, write_back,
};
use results::{About, Results};
use scale::Scale;
use texts::Texts;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let yields = std::env::var("LANTERN_YIELD").is_ok_and(|yields| yields == "on");
    let inference = match (has(&arguments, "off"), yields) {
        (true, _) => Inference::Off,
        (false, true) => Inference::Yielding,
        (false, false) => Inference::Unyielding,
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
const QUESTIONS: [&str; 12] = [
    "user_side",
    "beside_inference",
    "freshness",
    "near_saturation",
    "repeats",
    "bursts",
    "drain",
    "backlog",
    "write_back",
    "documents",
    "jobs",
    "tables",
];

async fn measure(arguments: &[String]) {
    let scale = Scale::from_arguments(arguments);
    let into = arguments.iter().skip_while(|given| *given != "--into");
    let into = into.skip(1).map(PathBuf::from).next();
    let texts = Texts::load();
    let command = match scale {
        Scale::Smoke => "a smoke test; its figures mean nothing",
        Scale::Usual => "make bench",
        Scale::Full => "make bench-full",
    };
    let begin = Instant::now();
    let about = About::collect(command.to_owned(), &texts).await;
    println!("{}\n{}\n{}", about.machine, about.versions, about.texts);
    let named = QUESTIONS.map(|question| has(arguments, question));
    let all = !named.contains(&true);
    let mut results = Results::new(about);
    for (question, named) in QUESTIONS.into_iter().zip(named) {
        if !named && !all {
            continue;
        }
        eprintln!("{:>5.0} s  {question}", begin.elapsed().as_secs_f64());
        ask(question, scale, &texts, &mut results).await;
        results.about.minutes = begin.elapsed().as_secs_f64() / 60.0;
        results.bars = bars::bars(&results);
        // After each question, so that a run that is ended early leaves what it has measured.
        if let Some(folder) = &into {
            write(&results, folder);
        }
    }
    report::print(&results);
    println!("\n{:.1} minutes", results.about.minutes);
}

async fn ask(question: &str, scale: Scale, texts: &Texts, results: &mut Results) {
    match question {
        "user_side" => {
            results.user_side = Some(user_side::measure(&scale.user_side(), texts).await);
        }
        "beside_inference" => {
            let plan = scale.beside_inference();
            results.beside_inference = Some(beside_inference::measure(&plan, texts).await);
        }
        "freshness" => {
            results.freshness = Some(freshness::measure(&scale.freshness(), texts).await);
        }
        "near_saturation" => {
            let plan = scale.near_saturation();
            results.near_saturation = Some(near_saturation::measure(&plan, texts).await);
        }
        "repeats" => results.repeats = Some(repeats::measure(&scale.repeats(), texts).await),
        "bursts" => results.bursts = Some(burst::measure(&scale.bursts(), texts).await),
        "drain" => results.drain = Some(burst::drain(scale.drain(), texts).await),
        "backlog" => results.backlog = Some(backlog::measure(&scale.backlog(), texts).await),
        "write_back" => {
            results.write_back = Some(write_back::measure(&scale.write_back(), texts).await);
        }
        "documents" => {
            results.documents = Some(documents::measure(&scale.documents(), texts).await);
        }
        "jobs" => results.jobs = Some(jobs::measure(&scale.jobs(), texts).await),
        "tables" => results.tables = Some(tables::measure(&scale.tables()).await),
        _ => unreachable!("all questions are above"),
    }
}

fn write(results: &Results, folder: &Path) {
    fs::create_dir_all(folder).expect("the folder is made");
    let json = serde_json::to_string_pretty(results).expect("it can be written as JSON");
    fs::write(folder.join("results.json"), json).expect("the results are written");
}

fn has(arguments: &[String], argument: &str) -> bool {
    arguments.iter().any(|given| given == argument)
}
