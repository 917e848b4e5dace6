//! `lantern-cli pull`: downloads a model.

use std::sync::{Mutex, PoisonError};

use clap::Args;

use super::engine_arguments::EngineArguments;
use super::progress::{Progress, Unit};
use super::{output, stderr};
use crate::embedding::{DownloadEvent, ModelName};

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
    let observer = Mutex::new(Observer::new(model));
    let observe = |event| {
        let mut observer = observer.lock().unwrap_or_else(PoisonError::into_inner);
        observer.show(event);
    };
    let downloaded = engine.download(model, &observe).await;
    let observer = observer
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let downloaded = match (downloaded, observer.progress) {
        (Ok(downloaded), Some(progress)) => {
            progress.finish();
            downloaded
        }
        (downloaded, _) => downloaded?,
    };
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

/// Shows what the download does.
struct Observer {
    model: String,
    received: u64,
    progress: Option<Progress>,
}

impl Observer {
    fn new(model: &ModelName) -> Self {
        Self {
            model: model.to_string(),
            received: 0,
            progress: None,
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
                let model = &self.model;
                let pause = pause.as_millis();
                stderr::line(&format!("{model}: {reason}; next attempt in {pause} ms"));
            }
        }
        if let Some(progress) = &mut self.progress {
            progress.set(self.received);
        }
    }

    /// Begins, or begins again after an interruption, with what is still missing.
    fn begin(&mut self, bytes: u64) {
        self.received = 0;
        self.progress = None;
        if bytes > 0 {
            let model = &self.model;
            stderr::line(&format!("{model}: downloading {}", megabytes(bytes)));
            self.progress = Some(Progress::with_total(model, Unit::Bytes, bytes));
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
