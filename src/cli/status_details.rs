//! All that is known of one job.

use std::time::{SystemTime, UNIX_EPOCH};

use super::status_figures::{
    UNKNOWN, bytes, count, coverage, duration, freshness, paint, plural, rate, scan,
};
use super::style::Style;
use super::{status_table, table, wrapped};
use crate::pipeline::commands::status::Observed;
use crate::shown::shown;
use crate::status::JobStatus;
use crate::status::record::{Coverage, DeviceRecord, ServerRecord, Totals};

/// Failures that are shown.
const MAX_FAILURES: usize = 5;

/// The details of each job that was observed, usually one.
pub fn render(observed: &Observed, style: Style) -> String {
    let mut text = String::new();
    for job in &observed.jobs {
        text.push_str(&of_job(observed, job, style));
        text.push('\n');
    }
    for problem in &observed.problems {
        text.push_str(&wrapped::paragraph(problem, style.width));
    }
    text + &wrapped::paragraph(&status_table::daemons(observed), style.width)
}

fn of_job(observed: &Observed, job: &JobStatus, style: Style) -> String {
    let mut lines = vec![
        ("job", job.id.clone()),
        ("state", job.state.name().to_owned()),
    ];
    if let Some(reason) = &job.reason {
        lines.push(("reason", reason.clone()));
    }
    lines.extend(freshness(job, SystemTime::now()).map(|known| ("freshness", known)));
    lines.extend(what_it_does(job));
    lines.extend(servers(job));
    lines.extend(devices(job, SystemTime::now()));
    lines.extend(backfill(observed, job));
    lines.extend(figures(job));
    if let Some(totals) = &job.totals {
        lines.extend(since_start(job, totals));
    }
    let label_width = lines
        .iter()
        .map(|(label, _)| label.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for (label, value) in lines {
        let line = wrapped::paragraph(&format!("{label:label_width$}  {value}"), style.width);
        match label {
            "state" => text.push_str(&(paint(line.trim_end(), job.state, style.colors) + "\n")),
            _ => text.push_str(&line),
        }
    }
    text + &failures(observed, job, style)
}

/// Each server of the model, and what became of the requests to it.
fn servers(job: &JobStatus) -> Vec<(&'static str, String)> {
    let line = |server: &ServerRecord| {
        let name = shown(&server.server);
        let requests = plural(server.requests, "request", "requests");
        let failures = match server.failures {
            0 => String::new(),
            failures => format!(", {} of them failed", count(Some(failures))),
        };
        let trouble = match &server.trouble {
            Some(why) => format!("; left out for now: {}", shown(why)),
            None => String::new(),
        };
        ("server", format!("{name}: {requests}{failures}{trouble}"))
    };
    job.servers.iter().map(line).collect()
}

/// Each device of the model, and since when it computes nothing.
fn devices(job: &JobStatus, now: SystemTime) -> Vec<(&'static str, String)> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let works = job.devices.iter().any(|device| device.lost_since.is_none());
    let line = |device: &DeviceRecord| {
        let name = shown(&device.device);
        let batches = plural(device.batches, "batch", "batches");
        let trouble = match device.lost_since {
            Some(since) => format!(
                "; lost for {}, {}: {}",
                duration(Some((now.as_secs_f64() - since).max(0.0))),
                match works {
                    true => "so its texts are for the others",
                    false => "so rows wait",
                },
                shown(device.error.as_deref().unwrap_or(UNKNOWN))
            ),
            None => String::new(),
        };
        ("device", format!("{name}: {batches}{trouble}"))
    };
    job.devices.iter().map(line).collect()
}

fn what_it_does(job: &JobStatus) -> Vec<(&'static str, String)> {
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "?".to_owned());
    vec![
        ("table", job.table.clone()),
        ("source", name(&job.source)),
        ("destination", name(&job.place_of_vectors())),
        ("model", name(&job.model)),
        (
            "computed by",
            job.provider.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
        ),
        (
            "daemon",
            match &job.daemon {
                Some(daemon) => format!(
                    "{} pid {}, version {}",
                    daemon.host, daemon.pid, daemon.version
                ),
                None => "none runs it".to_owned(),
            },
        ),
    ]
}

fn backfill(observed: &Observed, job: &JobStatus) -> Vec<(&'static str, String)> {
    let times = observed.remarks.get(&job.id).map(|remarks| &remarks.times);
    let [started, finished, failed] = times.cloned().unwrap_or_default();
    let mut lines = vec![(
        "backfill",
        match scan(job) {
            Some(scan) => scan,
            None => format!("{} %", job.backfill_percent),
        },
    )];
    let times = [
        ("started", started),
        ("finished", finished),
        ("failed at", failed),
    ];
    lines.extend(
        times
            .into_iter()
            .filter_map(|(label, at)| Some((label, at?))),
    );
    lines
}

fn figures(job: &JobStatus) -> Vec<(&'static str, String)> {
    let slot = job.slot.as_ref();
    let vectors = match &job.coverage {
        Some(known) => vectors(job, known),
        None => UNKNOWN.to_owned(),
    };
    let wal = match slot {
        Some(slot) => format!(
            "{} retained by the slot {}, {}",
            bytes(Some(slot.retained_bytes)),
            slot.name,
            slot.wal_status.name()
        ),
        None => UNKNOWN.to_owned(),
    };
    vec![
        ("vectors", vectors),
        ("rows a second", rate(job.rows_per_second)),
        ("rows today", count(job.rows_today)),
        ("lag", duration(job.lag_seconds)),
        ("behind", bytes(job.lag_bytes)),
        (
            "confirmed",
            slot.map_or_else(|| UNKNOWN.to_owned(), |slot| slot.confirmed_lsn.clone()),
        ),
        ("WAL", wal),
        (
            "index",
            job.index_state
                .clone()
                .unwrap_or_else(|| UNKNOWN.to_owned()),
        ),
        ("failed rows", count(job.quarantined_rows)),
    ]
}

/// How many rows have a vector, or how many documents have passages.
fn vectors(job: &JobStatus, known: &Coverage) -> String {
    let (_, many) = job.unit();
    let passages = match known.passages {
        Some(passages) => format!(", in {}", plural(passages, "passage", "passages")),
        None => String::new(),
    };
    format!(
        "{}: {} of {} {many} with a text{passages}{}",
        coverage(Some(known)),
        count(Some(known.rows_with_vector)),
        count(Some(known.rows_with_text)),
        match known.is_exact {
            true => "",
            false => ", estimated from some pages of the table (--exact counts them)",
        }
    )
}

/// What the daemon has counted since it started the job.
fn since_start(job: &JobStatus, totals: &Totals) -> Vec<(&'static str, String)> {
    let (one, many) = job.unit();
    let passages = match job.chunk_table {
        Some(_) => format!(
            " with {}",
            plural(totals.passages_written, "passage", "passages")
        ),
        None => String::new(),
    };
    let mut lines = vec![
        (
            "since start",
            format!(
                "{} written{passages}, {} superseded, {} quarantined",
                plural(totals.rows_written, one, many),
                count(Some(totals.rows_superseded)),
                count(Some(totals.rows_quarantined))
            ),
        ),
        (
            "texts",
            format!(
                "{} embedded, {} of them known; {} in {}, {} of inference",
                count(Some(totals.texts)),
                count(Some(totals.cache_hits)),
                plural(totals.tokens, "token", "tokens"),
                plural(totals.batches, "batch", "batches"),
                duration(Some(totals.inference_seconds))
            ),
        ),
        (
            "cut texts",
            format!(
                "{} longer than the model reads",
                count(Some(totals.texts_truncated))
            ),
        ),
        (
            "write-backs",
            format!(
                "{} in {}",
                count(Some(totals.write_backs)),
                duration(Some(totals.write_back_seconds))
            ),
        ),
    ];
    if totals.requests > 0 {
        lines.push(("requests", count(Some(totals.requests))));
    }
    if totals.estimated_cost > 0.0 {
        let cost = format!("{:.4} (tokens by price_per_million)", totals.estimated_cost);
        lines.push(("estimated cost", cost));
    }
    lines
}

fn failures(observed: &Observed, job: &JobStatus, style: Style) -> String {
    let of_job = observed
        .failures
        .iter()
        .filter(|failure| failure.job.as_str() == job.id);
    let mut text = String::new();
    for failure in of_job.take(MAX_FAILURES) {
        let key = table::fit(&failure.key, 60);
        let line = format!(
            "{} {key}, tried {}: {}",
            failure.failed_at,
            plural(failure.attempts.unsigned_abs().into(), "time", "times"),
            shown(&failure.error)
        );
        text.push_str(&wrapped::paragraph(&line, style.width));
    }
    match text.is_empty() {
        true => text,
        false => format!("\nrows that failed last\n{text}"),
    }
}
