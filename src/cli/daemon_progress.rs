//! The bar of a daemon in the foreground: how far the backfills of its jobs are, and then their indexes.
//!
//! The log says the same in lines, which is all that there is where standard error is no terminal.

use std::convert::Infallible;
use std::time::Duration;

use super::progress::{Progress, ROWS, Unit, unit_of};
use super::stderr::bar;
use crate::pipeline::index::progress::is_under_way;
use crate::plural::form;
use crate::status::{JobStatus, StatusBoard};

/// How often the board is looked at. It changes once a second.
const INTERVAL: Duration = Duration::from_millis(500);

/// Does the work of the daemon, and shows the bar meanwhile whenever a job has a backfill or builds its index.
pub async fn beside<T>(board: StatusBoard, work: impl Future<Output = T>) -> T {
    if !bar::is_possible() {
        return work.await;
    }
    tokio::select! {
        biased;
        done = work => done,
        never = follow(board) => match never {},
    }
}

async fn follow(board: StatusBoard) -> Infallible {
    let mut shown: Option<(Kind, Progress)> = None;
    loop {
        let snapshot = board.snapshot();
        let work = snapshot.and_then(|snapshot| work(&snapshot.jobs));
        shown = work.map(|work| {
            let mut progress = match shown.take() {
                Some((kind, progress)) if kind == work.kind => progress,
                other => {
                    // One bar at a time.
                    drop(other);
                    Progress::new(&work.doing, work.kind.unit())
                }
            };
            progress.set_doing(&work.doing);
            if let Kind::Backfill(_) = work.kind {
                progress.set_total(work.total);
                progress.set(work.done);
            }
            (work.kind, progress)
        });
        tokio::time::sleep(INTERVAL).await;
    }
}

/// What the jobs do that takes long.
#[derive(Debug, PartialEq, Eq)]
struct Work {
    kind: Kind,
    doing: String,
    done: u64,
    total: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Backfill(Unit),
    Index,
}

impl Kind {
    fn unit(self) -> Unit {
        match self {
            Kind::Backfill(unit) => unit,
            // Nothing is counted.
            Kind::Index => ROWS,
        }
    }
}

/// The backfills of all jobs as one; without any, the indexes.
fn work(jobs: &[JobStatus]) -> Option<Work> {
    let scans = jobs.iter().filter_map(|job| Some((job, job.scan?)));
    let (scanned, scans): (Vec<_>, Vec<_>) = scans.unzip();
    if !scanned.is_empty() {
        return Some(Work {
            kind: Kind::Backfill(unit_of(scanned.iter().copied())),
            doing: format!("backfill of {}", name(&scanned)),
            done: scans.iter().map(|scan| scan.rows_done).sum(),
            total: scans.iter().map(|scan| scan.rows_total).sum(),
        });
    }
    let state = |job: &JobStatus| job.index_state.clone().filter(|state| is_under_way(state));
    let builds = jobs.iter().filter_map(|job| Some((job, state(job)?)));
    let (indexed, states): (Vec<_>, Vec<_>) = builds.unzip();
    let doing = match indexed[..] {
        [] => return None,
        [job] => format!("{}: {}", name(&[job]), states[0]),
        [first, ..] => format!(
            "{}: {}, and {} more",
            name(&[first]),
            states[0],
            states.len() - 1
        ),
    };
    Some(Work {
        kind: Kind::Index,
        doing,
        done: 0,
        total: 0,
    })
}

/// `job 1 (public.notes)`, or `3 jobs`.
fn name(jobs: &[&JobStatus]) -> String {
    match jobs {
        [job] => format!("job {} ({})", job.id, job.table),
        jobs => format!("{} {}", jobs.len(), form(jobs.len() as u64, "job", "jobs")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::progress::DOCUMENTS;

    #[test]
    fn documents_are_counted_as_such_where_no_other_job_has_rows() {
        let rows = job("1", Some((10, 100)), None);
        let mut documents = job("2", Some((5, 50)), None);
        documents.chunk_table = Some("search.chunks".into());
        let unit = |jobs: &[JobStatus]| work(jobs).unwrap().kind.unit();
        assert_eq!(unit(&[documents.clone()]), DOCUMENTS);
        assert_eq!(unit(&[rows, documents]), ROWS);
    }

    fn job(id: &str, scan: Option<(u64, u64)>, index: Option<&str>) -> JobStatus {
        let scan = scan.map(|(done, total)| {
            json!({"rows_done": done, "rows_total": total, "rows_per_second": 1.0, "seconds_left": null})
        });
        serde_json::from_value(json!({
            "id": id, "table": "public.notes", "state": "streaming", "backfill_percent": 0, "scan": scan,
            "index_state": index,
        }))
        .unwrap()
    }

    #[test]
    fn backfills_are_shown_as_one_and_indexes_after_them() {
        let building = Some("building public.i: loading tuples, 42 %");
        assert_eq!(work(&[job("1", None, Some("built"))]), None);
        let shown = work(&[job("1", Some((10, 100)), None), job("2", None, building)]).unwrap();
        assert_eq!(shown.doing, "backfill of job 1 (public.notes)");
        let both = [
            job("1", Some((10, 100)), None),
            job("2", Some((5, 50)), building),
        ];
        let shown = work(&both).unwrap();
        assert_eq!(
            (shown.doing.as_str(), shown.done, shown.total),
            ("backfill of 2 jobs", 15, 150)
        );
        let shown = work(&[job("1", None, Some("built")), job("2", None, building)]).unwrap();
        assert_eq!(
            shown.doing,
            "job 2 (public.notes): building public.i: loading tuples, 42 %"
        );
    }
}
