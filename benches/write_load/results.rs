//! Everything that was measured, as it is written to `results.json`: `plots.py` reads these names.

use std::fs;
use std::process::Command;

use serde::Serialize;
use testkit::engine::MODEL;
use testkit::paths::runtime;

use crate::bar::Bar;
use crate::questions::burst::Burst;
use crate::questions::documents::Documents;
use crate::questions::freshness::Freshness;
use crate::questions::tables::Table;
use crate::questions::user_side::UserSide;
use crate::questions::{backlog, beside_inference, jobs, near_saturation, repeats, write_back};
use crate::support::server::Server;
use crate::texts::Texts;
use testkit::statistics::median;

/// `None` where a question was not asked.
#[derive(Serialize)]
pub struct Results {
    pub about: About,
    pub user_side: Option<UserSide>,
    pub beside_inference: Option<Vec<beside_inference::Run>>,
    pub freshness: Option<Freshness>,
    pub near_saturation: Option<Vec<near_saturation::Run>>,
    pub repeats: Option<Vec<repeats::Round>>,
    pub bursts: Option<Vec<Burst>>,
    pub drain: Option<Vec<Burst>>,
    pub backlog: Option<Vec<backlog::Round>>,
    pub write_back: Option<Vec<write_back::Round>>,
    pub documents: Option<Documents>,
    pub jobs: Option<Vec<jobs::Run>>,
    pub tables: Option<Vec<Table>>,
    pub bars: Vec<Bar>,
}

impl Results {
    /// Before the first question.
    pub fn new(about: About) -> Results {
        Results {
            about,
            user_side: None,
            beside_inference: None,
            freshness: None,
            near_saturation: None,
            repeats: None,
            bursts: None,
            drain: None,
            backlog: None,
            write_back: None,
            documents: None,
            jobs: None,
            tables: None,
            bars: Vec::new(),
        }
    }
}

/// When, where and with what.
#[derive(Serialize)]
pub struct About {
    pub date: String,
    pub command: String,
    pub minutes: f64,
    pub machine: String,
    pub versions: String,
    pub texts: String,
}

impl About {
    pub async fn collect(command: String, texts: &Texts) -> About {
        let server = Server::start(&[]).await;
        let today = "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD')";
        let postgres: String = server.value("SHOW server_version").await;
        let lengths = texts.texts.iter().map(|text| text.len() as f64);
        About {
            date: server.value(today).await,
            command,
            minutes: 0.0,
            machine: machine(),
            versions: format!(
                "lantern-cli {}{}, PostgreSQL {postgres}, {}, {}",
                env!("CARGO_PKG_VERSION"),
                commit(),
                onnxruntime(),
                MODEL
            ),
            texts: format!(
                "{} {}, median {:.0} bytes",
                texts.texts.len(),
                texts.source,
                median(lengths)
            ),
        }
    }
}

fn machine() -> String {
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("processor unknown", |(_, model)| model);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let memory: f64 = memory.and_then(|memory| memory.parse().ok()).unwrap_or(0.0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{cores} cores of {model}, {:.0} GB",
        memory / f64::from(1 << 20)
    )
}

/// The version that `make setup` has written down.
fn onnxruntime() -> String {
    let stamp = fs::read_to_string(runtime().join("lib/.stamp")).unwrap_or_default();
    let mut words = stamp.split_whitespace();
    let version = words.next().zip(words.next());
    version.map_or("onnxruntime".into(), |(name, version)| {
        format!("{name} {version}")
    })
}

fn commit() -> String {
    let output = Command::new("git")
        .args([
            "-C",
            env!("CARGO_MANIFEST_DIR"),
            "describe",
            "--always",
            "--dirty",
        ])
        .output();
    let commit = output.ok().filter(|output| output.status.success());
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    commit.map_or(String::new(), |commit| format!(" ({commit})"))
}
