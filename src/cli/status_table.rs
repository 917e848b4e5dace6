//! All jobs, a line each, as wide as the terminal.

use std::time::SystemTime;

use super::status_figures::{
    bytes, count, coverage, duration, freshness, paint, plural, rate, scan,
};
use super::style::Style;
use super::{table, wrapped};
use crate::pipeline::commands::status::Observed;
use crate::status::job_status::{JobState, JobStatus};
use crate::status::record::DaemonName;

/// A column: its heading, its widest cell, and what it shows.
struct Column {
    heading: &'static str,
    max_width: usize,
    cell: fn(&JobStatus) -> String,
}

const fn column(heading: &'static str, max_width: usize, cell: fn(&JobStatus) -> String) -> Column {
    Column {
        heading,
        max_width,
        cell,
    }
}

/// In the order in which they are shown.
const COLUMNS: [Column; 13] = [
    column("id", 36, |job| job.id.clone()),
    column("job", 40, |job| {
        let source = job.source.as_deref().unwrap_or("?");
        let table = job.table.strip_prefix("public.").unwrap_or(&job.table);
        format!("{table}.{source}")
    }),
    column("state", 11, |job| job.state.name().to_owned()),
    column("vectors", 8, |job| coverage(job.coverage.as_ref())),
    column("rows/s", 8, |job| rate(job.rows_per_second)),
    column("lag", 12, |job| duration(job.lag_seconds)),
    column("WAL", 9, |job| {
        bytes(job.slot.as_ref().map(|slot| slot.retained_bytes))
    }),
    column("failed", 8, |job| count(job.quarantined_rows)),
    column("today", 12, |job| count(job.rows_today)),
    column("behind", 9, |job| bytes(job.lag_bytes)),
    column("model", 40, |job| {
        job.model.clone().unwrap_or_else(|| "?".to_owned())
    }),
    column("wal_status", 10, |job| {
        job.slot
            .as_ref()
            .map_or("-", |slot| slot.wal_status.name())
            .to_owned()
    }),
    column("daemon", 30, |job| {
        job.daemon.as_ref().map_or_else(|| "-".to_owned(), place)
    }),
];

/// The columns that are always there. The others come as far as there is room.
const ESSENTIAL: usize = 8;
/// Where a job is cut to make room for the essential columns.
const MIN_JOB_WIDTH: usize = 12;

/// The table, what is to say of single jobs below it, and who runs them.
pub fn render(observed: &Observed, style: Style) -> String {
    let mut text = String::new();
    if observed.jobs.is_empty() {
        text.push_str(
            "The jobs table has no rows. INSERT one, or run: lantern-cli jobs add --help\n",
        );
    } else {
        text.push_str(&jobs(&observed.jobs, style));
    }
    let notes = notes(observed);
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        text.push_str(&wrapped::paragraph(&note, style.width));
    }
    text.push('\n');
    text.push_str(&wrapped::paragraph(&daemons(observed), style.width));
    text
}

/// One line about the daemons.
pub fn daemons(observed: &Observed) -> String {
    let named = &observed.named_daemons;
    let names: Vec<String> = named.iter().map(place).collect();
    match observed.daemons {
        0 => "No daemon runs: what is shown was recorded before it stopped. Start one with lantern-cli \
              start-daemon."
            .to_owned(),
        1 if named.len() == 1 => format!("A daemon runs: {}.", names.join(", ")),
        1 => "A daemon runs.".to_owned(),
        count if names.is_empty() => format!("{count} daemons run."),
        count => format!("{count} daemons run: {}.", names.join(", ")),
    }
}

fn place(daemon: &DaemonName) -> String {
    format!("{} pid {}", daemon.host, daemon.pid)
}

fn jobs(jobs: &[JobStatus], style: Style) -> String {
    let mut shown = ESSENTIAL;
    let mut job_width = COLUMNS[1].max_width;
    // Room for the job is what the others leave.
    while width(jobs, shown, job_width) > style.width && job_width > MIN_JOB_WIDTH {
        job_width -= 1;
    }
    while shown < COLUMNS.len() && width(jobs, shown + 1, job_width) <= style.width {
        shown += 1;
    }
    let lines = lines(jobs, shown, job_width);
    let mut text = String::new();
    for (place, line) in lines.lines().enumerate() {
        // Two lines of headings come first.
        match place.checked_sub(2).and_then(|place| jobs.get(place)) {
            Some(job) => text.push_str(&paint(line, job.state, style.colors)),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

fn width(jobs: &[JobStatus], shown: usize, job_width: usize) -> usize {
    let lines = lines(jobs, shown, job_width);
    lines.lines().map(table::width).max().unwrap_or(0)
}

fn lines(jobs: &[JobStatus], shown: usize, job_width: usize) -> String {
    let columns = &COLUMNS[..shown];
    let headings: Vec<&str> = columns.iter().map(|column| column.heading).collect();
    let rows: Vec<Vec<String>> = jobs
        .iter()
        .map(|job| {
            let cells = columns.iter().enumerate().map(|(place, column)| {
                let max_width = if place == 1 {
                    job_width
                } else {
                    column.max_width
                };
                table::fit(&(column.cell)(job), max_width)
            });
            cells.collect()
        })
        .collect();
    table::render(&headings, &rows, usize::MAX)
}

/// What a person should know of single jobs.
fn notes(observed: &Observed) -> Vec<String> {
    let jobs = observed.jobs.iter();
    let notes = jobs.flat_map(|job| {
        let notes = notes_on(job).into_iter();
        notes.map(|note| format!("job {}: {note}", job.id))
    });
    let mut notes: Vec<String> = notes.collect();
    for problem in &observed.problems {
        // A reason may be just this.
        if !notes.iter().any(|note| note.contains(problem.as_str())) {
            notes.push(problem.clone());
        }
    }
    notes
}

fn notes_on(job: &JobStatus) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(scan) = scan(job) {
        notes.push(format!("embeds existing {}, {scan}", job.unit().1));
    }
    if let Some(reason) = &job.reason {
        notes.push(reason.clone());
    }
    notes.extend(freshness(job, SystemTime::now()));
    if job.state == JobState::Failed {
        notes.push(format!(
            "remove the cause, then run: lantern-cli jobs retry {}",
            job.id
        ));
    } else if let Some(rows) = job.quarantined_rows.filter(|rows| *rows > 0) {
        notes.push(format!(
            "{} could not be embedded or written; see lantern-cli status {}, remove the cause, then run: lantern-cli \
             retry-failed --job {}",
            plural(rows, job.unit().0, job.unit().1),
            job.id,
            job.id
        ));
    }
    if let Some(index) = job
        .index_state
        .as_deref()
        .filter(|index| !index.starts_with("ready"))
    {
        notes.push(format!("index: {index}"));
    }
    let cut = job.totals.map_or(0, |totals| totals.texts_truncated);
    if cut > 0 {
        notes.push(format!(
            "{} longer than the model reads, and what is beyond does not count",
            plural(cut, "text is", "texts are")
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::jobs::JobRow;
    use crate::status::job_status::JobFacts;

    fn observed() -> Observed {
        let mut failed = JobRow::example("2");
        failed.definition.table = Some("a_table_with_quite_a_long_name_論理複製".into());
        failed.failed = true;
        failed.failure_reason = Some("word ".repeat(40));
        let rows = [JobRow::example("1"), failed];
        Observed {
            jobs: rows
                .iter()
                .map(|row| JobStatus::assemble(row, JobFacts::default()))
                .collect(),
            remarks: BTreeMap::new(),
            daemons: 0,
            named_daemons: Vec::new(),
            failures: Vec::new(),
            nameless: 0,
            problems: vec!["a database has not answered".into()],
        }
    }

    #[test]
    fn it_fits_into_eighty_columns() {
        let style = Style {
            width: 80,
            colors: false,
        };
        let text = render(&observed(), style);
        for line in text.lines() {
            assert!(table::width(line) <= 80, "{line}");
        }
        assert!(text.contains("failed"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn a_wide_terminal_shows_every_column_and_colors_show_states() {
        let style = Style {
            width: usize::MAX,
            colors: true,
        };
        let text = render(&observed(), style);
        assert!(text.lines().next().unwrap().ends_with("daemon"), "{text}");
        assert!(text.contains("\u{1b}[31m2 "), "{text}");
    }
}
