//! What the command prints of its plan and of its work.

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::cli::output::OutputError;
use crate::cli::status_figures::duration;
use crate::cli::{output, stderr};
use crate::jobs::failures::Failure;
use crate::pipeline::backfill::scope::BackfillScope;
use crate::pipeline::commands::embed_table::Outcome;
use crate::pipeline::commands::embed_table::planned::{Counts, PlannedTable};
use crate::plural::form;
use crate::postgres::quote::identifier;

/// What is said where vectors may be stale, and nothing tells.
pub const UNMARKED: &str = "without a fingerprint column, stale vectors cannot be told from others: embedding rows that \
                            lack a vector (--all: every row)";
/// The most failed rows that are listed at the end.
const MAX_SHOWN: usize = 5;
/// How often a line says how far the build of the index is.
const INDEX_INTERVAL: Duration = Duration::from_secs(5);

/// How to go on after a part of the work.
pub fn how_to_go_on(scope: BackfillScope) -> &'static str {
    match scope {
        BackfillScope::All => {
            "run the same command again: with --all it begins again, without it embeds the rows that lack a vector"
        }
        BackfillScope::Missing | BackfillScope::Mismatched { .. } => {
            "run the same command again: it goes on with the rows that are left"
        }
    }
}

/// Prints what the command would do.
pub fn plan(planned: &PlannedTable<'_>, counts: &Counts) -> Result<(), OutputError> {
    for (column, kind) in planned.missing() {
        let column = identifier(column);
        output::line(format_args!("would create the column {column} {kind}"))?;
    }
    output::line(format_args!(
        "would embed {} of {} {}",
        counts.to_do,
        counts.rows,
        form(counts.rows, "row", "rows")
    ))?;
    if planned.index().is_some() {
        output::line("would build the index of the vectors, unless there is one")?;
    }
    Ok(())
}

/// Prints how much was done.
pub fn done(outcome: &Outcome, elapsed: Duration) -> Result<(), OutputError> {
    output::line(format_args!(
        "{} {} done in {}",
        outcome.done,
        form(outcome.done, "row", "rows"),
        duration(Some(elapsed.as_secs_f64()))
    ))
}

/// Fails where rows could not be embedded or written: the exit status must show that not all is well.
pub fn none_failed(failed: &[Failure]) -> anyhow::Result<()> {
    match describe(failed) {
        None => Ok(()),
        Some(description) => bail!(
            "{description}; correct them, and run the same command again: it tries them once more"
        ),
    }
}

/// Says which rows have failed until now.
pub fn failed(failed: &[Failure]) {
    if let Some(description) = describe(failed) {
        stderr::line(&format!("warning: {description}"));
    }
}

fn describe(failed: &[Failure]) -> Option<String> {
    let shown: Vec<String> = failed
        .iter()
        .take(MAX_SHOWN)
        .map(|failure| format!("{}: {}", failure.key, failure.error))
        .collect();
    let more = match failed.len() - shown.len() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    (!failed.is_empty()).then(|| {
        format!(
            "{} {} could not be embedded or written: {}{more}",
            failed.len(),
            form(failed.len(), "row", "rows"),
            shown.join(", ")
        )
    })
}

/// Prints how far the build of the index is: what it does when that changes, and now and then how far that is.
#[derive(Default)]
pub struct IndexProgress {
    told: Option<Instant>,
}

impl IndexProgress {
    /// Takes note of a new state.
    pub fn tell(&mut self, state: &str) {
        let is_due = self
            .told
            .is_none_or(|told| told.elapsed() >= INDEX_INTERVAL);
        if is_due {
            self.told = Some(Instant::now());
            stderr::line(state);
        }
    }
}
