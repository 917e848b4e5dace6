//! The text for Prometheus.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use lantern::status::job_status::JobState;
use lantern::status::record::{DaemonName, DeviceRecord};
use testkit::paths::runtime;
use testkit::skip;

use super::fixtures::{ODD_TABLE, Shown, backfilling, daemon, idle, snapshot, streaming};
use super::requests::get;

/// A sample: its name and labels as they are written, and its value.
pub type Samples = BTreeMap<String, f64>;

/// The samples of a text of format 0.0.4.
///
/// # Panics
///
/// Where a line is neither a comment nor a sample, or a sample comes twice.
pub fn parse(text: &str) -> Samples {
    let mut samples = Samples::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
        let twice = samples.insert(name.to_owned(), value);
        assert_eq!(twice, None, "{line}");
    }
    samples
}

/// The names of the metrics of a text: those with a type.
pub fn names(text: &str) -> Vec<&str> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split(' ').next()).collect()
}

/// Metrics of a job in every state.
pub fn metrics_of_all_states() -> String {
    let shown = Shown::start();
    let jobs = vec![
        streaming("1", "public.articles"),
        backfilling("2", "public.books"),
        idle("3", "public.mail", JobState::Failed, "no such model"),
        streaming("4", ODD_TABLE),
    ];
    shown.board.publish(snapshot(jobs, vec![]));
    let answer = get(shown.address(), "/metrics", &[]);
    assert_eq!(answer.status, 200);
    answer.body
}

#[test]
fn each_job_has_its_figures() {
    let text = metrics_of_all_states();
    let samples = parse(&text);
    for (name, value) in [
        ("lantern_build_info{version=\"0.1.0\"}", 1.0),
        ("lantern_uptime_seconds", 273_845.25),
        ("process_resident_memory_bytes", f64::from(412 << 20)),
        ("lantern_running_jobs", 3.0),
        ("lantern_jobs_database_up", 1.0),
        ("lantern_inference_share_ratio", 0.4),
        ("lantern_texts_total", 120_000.0),
        (
            "lantern_job_state{job_id=\"1\",table=\"public.articles\",state=\"streaming\"}",
            1.0,
        ),
        (
            "lantern_job_state{job_id=\"1\",table=\"public.articles\",state=\"failed\"}",
            0.0,
        ),
        (
            "lantern_job_state{job_id=\"3\",table=\"public.mail\",state=\"failed\"}",
            1.0,
        ),
        (
            "lantern_job_lag_seconds{job_id=\"1\",table=\"public.articles\"}",
            0.35,
        ),
        (
            "lantern_job_lag_bytes{job_id=\"1\",table=\"public.articles\"}",
            f64::from(3 << 20),
        ),
        (
            "lantern_job_retained_wal_bytes{job_id=\"1\",table=\"public.articles\"}",
            f64::from(18 << 20),
        ),
        (
            "lantern_job_rows_written_total{job_id=\"1\",table=\"public.articles\"}",
            182_344.0,
        ),
        (
            "lantern_job_inference_seconds_total{job_id=\"1\",table=\"public.articles\"}",
            4321.5,
        ),
        (
            "lantern_job_backfill_ratio{job_id=\"2\",table=\"public.books\"}",
            0.42,
        ),
        (
            "lantern_job_scan_finished_rows{job_id=\"2\",table=\"public.books\"}",
            420_000.0,
        ),
        (
            "lantern_job_wal_status{job_id=\"1\",table=\"public.articles\",wal_status=\"reserved\"}",
            1.0,
        ),
        (
            "lantern_job_info{job_id=\"1\",table=\"public.articles\",source=\"title\",\
             destination=\"title_embedding\",model=\"sentence-transformers/all-MiniLM-L6-v2\",provider=\"cpu\"}",
            1.0,
        ),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name} in\n{text}");
    }
    // A job that no daemon runs has old figures, which would look like those of now.
    assert!(
        !text.contains("lantern_job_lag_seconds{job_id=\"3\""),
        "{text}"
    );
    assert!(
        !text.contains("lantern_job_retained_wal_bytes{job_id=\"3\""),
        "{text}"
    );
    assert!(
        text.contains("lantern_job_quarantined_rows{job_id=\"3\""),
        "{text}"
    );
}

#[test]
fn a_device_that_is_lost_is_down() {
    let shown = Shown::start();
    let device = |device: &str, lost_since: Option<f64>| DeviceRecord {
        device: device.into(),
        batches: 7,
        lost_since,
        error: lost_since.map(|_| "CUDA failure 46: the device is busy".into()),
    };
    let mut job = streaming("1", "public.articles");
    job.devices = vec![
        device("cuda:0", None),
        device("cuda:1", Some(1_795_734_000.5)),
    ];
    shown
        .board
        .publish(snapshot(vec![job, streaming("2", "public.books")], vec![]));
    let text = get(shown.address(), "/metrics", &[]).body;
    let of = |device: &str| {
        let labels = format!("job_id=\"1\",table=\"public.articles\",device=\"{device}\"");
        format!("lantern_job_device_up{{{labels}}}")
    };
    let samples = parse(&text);
    assert_eq!(samples.get(&of("cuda:0")), Some(&1.0), "{text}");
    assert_eq!(samples.get(&of("cuda:1")), Some(&0.0), "{text}");
    assert!(
        !text.contains("lantern_job_device_up{job_id=\"2\"") && !text.contains("busy"),
        "{text}"
    );
}

#[test]
fn an_odd_name_is_one_label() {
    let text = metrics_of_all_states();
    let escaped = ODD_TABLE
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    let name = format!("lantern_job_lag_seconds{{job_id=\"4\",table=\"{escaped}\"}}");
    assert_eq!(parse(&text).get(&name), Some(&0.35), "{text}");
}

/// Several daemons share a jobs table. A sum over all of them counts each job once.
#[test]
fn a_job_of_another_daemon_is_left_to_that_one() {
    let shown = Shown::start();
    let mut elsewhere = streaming("2", "public.books");
    elsewhere.daemon = Some(DaemonName { pid: 7, ..daemon() });
    let jobs = vec![streaming("1", "public.articles"), elsewhere];
    shown.board.publish(snapshot(jobs, vec![]));
    let text = get(shown.address(), "/metrics", &[]).body;
    assert!(
        text.contains("job_id=\"1\"") && !text.contains("job_id=\"2\""),
        "{text}"
    );
}

#[test]
fn what_the_jobs_database_says_is_told() {
    let shown = Shown::start();
    let mut away = snapshot(vec![], vec![]);
    away.daemon.jobs_database_error = Some("connection refused".into());
    shown.board.publish(away);
    let text = get(shown.address(), "/metrics", &[]).body;
    assert_eq!(parse(&text).get("lantern_jobs_database_up"), Some(&0.0));
    assert!(!text.contains("refused"), "{text}");
}

/// promtool reads the text and knows Prometheus's conventions for names.
#[test]
fn promtool_finds_nothing_to_say() {
    let Some(mut promtool) = promtool() else {
        return;
    };
    let text = metrics_of_all_states();
    promtool.args(["check", "metrics"]);
    let mut promtool = promtool
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut input = promtool.stdin.take().expect("its input is a pipe");
    input.write_all(text.as_bytes()).expect("promtool reads");
    drop(input);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

/// promtool: that of `.ci/run`, or an installed one; `PROMTOOL` names another. `None`, which is reported as a skip,
/// where there is none.
pub fn promtool() -> Option<Command> {
    let named = std::env::var_os("PROMTOOL").map(PathBuf::from);
    let fetched = Some(runtime().join("promtool")).filter(|program| program.exists());
    let program = named.or(fetched).unwrap_or_else(|| "promtool".into());
    if Command::new(&program).arg("--version").output().is_err() {
        skip::missing("no promtool", "apt-get install prometheus");
        return None;
    }
    Some(Command::new(program))
}
