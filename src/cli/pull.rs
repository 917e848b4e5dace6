//! `lantern-cli pull`: downloads a model.

use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::engine_arguments::EngineArguments;
use super::{output, stderr};
use crate::embedding::{DownloadEvent, ModelName};

/// How often a line tells of the progress where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Download an embedding model from the Hugging Face hub, or bring it up to date
///
/// A daemon downloads a model at the first use by a job. This command does it ahead, and it is how a model that is pinned
/// to a commit moves to the newest one: jobs that start afterwards use that. A download that was interrupted is continued.
///
/// HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_CACHE are heeded as by the hub's own tools. If the last two are unset, the
/// model is put into the data folder.
#[derive(Args)]
pub struct Pull {
    /// The model: organization/name, with @revision for a branch, tag or commit, and :file for one of several graphs
    #[arg(value_name = "NAME[@REVISION][:FILE]")]
    model: ModelName,

    #[command(flatten)]
    engine: EngineArguments,
}

/// Downloads the model and prints where it is.
///
/// # Errors
/// If the model cannot be downloaded; what has arrived is kept.
pub async fn run(arguments: &Pull) -> anyhow::Result<()> {
    let engine = arguments.engine.engine()?;
    let model = &arguments.model;
    let progress = Mutex::new(Progress::new(model));
    let observe = |event| {
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.show(event);
    };
    let downloaded = engine.download(model, &observe).await;
    let progress = progress.into_inner();
    progress.unwrap_or_else(PoisonError::into_inner).end();
    let downloaded = downloaded?;
    output::lines(&[
        format!("model     {model}"),
        format!("from      {}", downloaded.repository),
        format!("commit    {}", downloaded.commit),
        format!("size      {}", megabytes(downloaded.size)),
        format!("folder    {}", downloaded.folder.display()),
    ])?;
    let used = engine.catalog().locate(model)?;
    if used != downloaded.folder {
        stderr::line(&format!(
            "warning: {} comes first, and is what jobs use; remove it to use the download",
            used.display()
        ));
    }
    Ok(())
}

/// A bar on a terminal, and a line now and then elsewhere.
struct Progress {
    model: String,
    bar: Option<ProgressBar>,
    received: u64,
    missing: u64,
    shown: Instant,
}

impl Progress {
    fn new(model: &ModelName) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(
                "{bar:30} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left",
            );
            // It appears when it is known how much there is to do.
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
            match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self {
            model: model.to_string(),
            bar,
            received: 0,
            missing: 0,
            shown: Instant::now(),
        }
    }

    fn show(&mut self, event: DownloadEvent) {
        match event {
            DownloadEvent::Missing(bytes) => self.begin(bytes),
            DownloadEvent::Received(bytes) => self.received += bytes,
            DownloadEvent::Restarted(bytes) => {
                self.received = self.received.saturating_sub(bytes);
            }
            DownloadEvent::Waiting { reason, pause } => {
                self.say(&format!(
                    "{reason}; next attempt in {} ms",
                    pause.as_millis()
                ));
            }
        }
        match &self.bar {
            Some(bar) => bar.set_position(self.received.min(self.missing)),
            None if self.shown.elapsed() >= LINE_INTERVAL => {
                let (received, missing) = (megabytes(self.received), megabytes(self.missing));
                self.say(&format!("{received} of {missing}"));
                self.shown = Instant::now();
            }
            None => {}
        }
    }

    fn begin(&mut self, bytes: u64) {
        (self.received, self.missing) = (0, bytes);
        match &self.bar {
            Some(bar) if bytes > 0 => {
                bar.set_length(bytes);
                bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            Some(_) => {}
            None if bytes > 0 => self.say(&format!("downloading {}", megabytes(bytes))),
            None => {}
        }
    }

    fn say(&self, text: &str) {
        let print = || stderr::line(&format!("{}: {text}", self.model));
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
