//! What is printed: each schedule that failed, and the figures of all.

use std::process::ExitCode;
use std::time::Duration;

use super::runner::Outcome;
use super::schedule::Loss;

/// Prints a schedule that failed, its violations, and how to replay it.
pub fn report(outcome: &Outcome) {
    if outcome.violations.is_empty() {
        return;
    }
    println!("\nFAILED {}", outcome.schedule);
    for violation in &outcome.violations {
        println!("  {violation}");
    }
    println!("  logs: {}", outcome.logs.display());
    println!(
        "  replay: make chaos SEED={} SCHEDULES=1\n",
        outcome.schedule.seed
    );
}

/// Prints the figures of all schedules. Succeeds where all of them ran and none failed.
pub fn summarize(outcomes: &[Outcome], wanted: u64, took: Duration) -> ExitCode {
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| !outcome.violations.is_empty())
        .map(|outcome| outcome.schedule.seed.to_string())
        .collect();
    statements(outcomes, wanted, failed.len(), took);
    recoveries(outcomes);
    take_overs(outcomes);
    documents(outcomes);
    if !failed.is_empty() {
        println!("failed seeds: {}", failed.join(", "));
    }
    if failed.is_empty() && outcomes.len() as u64 == wanted {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn statements(outcomes: &[Outcome], wanted: u64, failed: usize, took: Duration) {
    let mut lengths: Vec<Duration> = outcomes.iter().map(|outcome| outcome.took).collect();
    lengths.sort();
    let statements: u64 = outcomes.iter().map(|outcome| outcome.statements.done).sum();
    let longest = |which: fn(&Outcome) -> Duration| {
        let longest = outcomes.iter().map(which).max();
        longest.unwrap_or_default().as_millis()
    };
    println!(
        "{} of {wanted} schedules clean in {:.0} s (median {:.1} s); {statements} statements of users, longest {} ms, \
         longest wait for the daemon {} ms",
        outcomes.len() - failed,
        took.as_secs_f64(),
        percentile(&lengths, 50).as_secs_f64(),
        longest(|outcome| outcome.statements.longest),
        longest(|outcome| outcome.statements.longest_behind_daemon),
    );
}

fn recoveries(outcomes: &[Outcome]) {
    let mut recoveries: Vec<Duration> = outcomes
        .iter()
        .flat_map(|outcome| outcome.recoveries.clone())
        .collect();
    recoveries.sort();
    let at = |percent| percentile(&recoveries, percent).as_millis();
    println!(
        "streaming again after {} faults: median {} ms, 95 % within {} ms, longest {} ms",
        recoveries.len(),
        at(50),
        at(95),
        at(100)
    );
}

fn take_overs(outcomes: &[Outcome]) {
    for loss in [Loss::Killed, Loss::Hung, Loss::CutOff] {
        let take_overs = outcomes.iter().filter_map(|outcome| outcome.take_over);
        let times: Vec<u128> = take_overs
            .filter(|(how, _)| *how == loss)
            .map(|(_, within)| within.as_millis())
            .collect();
        if let Some(longest) = times.iter().max() {
            println!(
                "a daemon was lost ({loss:?}) {} times; others had taken over within {longest} ms",
                times.len()
            );
        }
    }
}

fn documents(outcomes: &[Outcome]) {
    let with_documents = outcomes
        .iter()
        .filter(|outcome| outcome.schedule.documents.is_some());
    let looks: Vec<u64> = with_documents.map(|outcome| outcome.looks).collect();
    if !looks.is_empty() {
        println!(
            "{} schedules with documents, which were looked at {} times",
            looks.len(),
            looks.iter().sum::<u64>()
        );
    }
}

/// Zero where there are no values.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get(last * percent / 100)
        .copied()
        .unwrap_or_default()
}
