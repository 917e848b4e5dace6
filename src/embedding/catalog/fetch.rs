//! Sees to it that a model is on this machine: looks for it, and downloads it if it is missing.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::known;
use super::model_catalog::{ModelCatalog, cached_name};
use crate::embedding::error::EmbeddingError;
use crate::embedding::files::model_files::ModelFiles;
use crate::embedding::hub::{DownloadEvent, DownloadFailure, Downloaded, Hub, HubSettings, Wanted};
use crate::embedding::name::ModelName;
use crate::embedding::schedule::scheduler::lock;

/// How often the log tells how far a download is.
const REPORT_INTERVAL: Duration = Duration::from_secs(15);

/// Models of this machine, and the hub for the others.
pub(crate) struct Fetcher {
    catalog: ModelCatalog,
    hub: Option<Hub>,
    /// The folder for downloads.
    downloads: PathBuf,
}

/// What the hub has to provide of a model.
enum Missing {
    /// All of it.
    Model,
    /// Files of a commit, which another tool did not need.
    FilesOf(String),
}

impl Fetcher {
    /// Without settings nothing is downloaded.
    pub(crate) fn new(catalog: ModelCatalog, settings: Option<HubSettings>) -> Self {
        let chosen = settings
            .as_ref()
            .and_then(|settings| settings.download_folder());
        Self {
            downloads: chosen.unwrap_or(catalog.folder()).to_owned(),
            hub: settings.map(Hub::new),
            catalog,
        }
    }

    pub(crate) fn catalog(&self) -> &ModelCatalog {
        &self.catalog
    }

    /// Downloads what is missing of a model, and says so in the log. What is on this machine is used as it is.
    ///
    /// Cancellation safe.
    ///
    /// # Errors
    ///
    /// Those of the hub. Without one there are none: then the loader says what is missing.
    pub(crate) async fn fetch_missing(&self, name: &ModelName) -> Result<(), EmbeddingError> {
        let Some(missing) = self.missing(name).await else {
            return Ok(());
        };
        if self.hub.is_none() {
            return self.refuse_unsupported(name);
        }
        let commit = match &missing {
            Missing::Model => None,
            Missing::FilesOf(commit) => Some(commit.as_str()),
        };
        tracing::info!(model = %name, folder = %self.downloads.display(), "downloading the model");
        let progress = Mutex::new(Progress::default());
        let observe = |event| lock(&progress).report(name, event);
        let downloaded = self.download_at(name, commit, &observe).await?;
        tracing::info!(
            model = %name,
            repository = %downloaded.repository,
            commit = %downloaded.commit,
            bytes = downloaded.size,
            "model downloaded"
        );
        Ok(())
    }

    /// Downloads the newest state of a model's revision.
    ///
    /// Cancellation safe.
    ///
    /// # Errors
    ///
    /// Those of the hub, or that there is none.
    pub(crate) async fn download(
        &self,
        name: &ModelName,
        observe: &(dyn Fn(DownloadEvent) + Send + Sync),
    ) -> Result<Downloaded, EmbeddingError> {
        self.download_at(name, None, observe).await
    }

    async fn download_at(
        &self,
        name: &ModelName,
        commit: Option<&str>,
        observe: &(dyn Fn(DownloadEvent) + Send + Sync),
    ) -> Result<Downloaded, EmbeddingError> {
        self.refuse_unsupported(name)?;
        let Some(hub) = &self.hub else {
            return Err(EmbeddingError::Offline { name: name.clone() });
        };
        let wanted = Wanted {
            name,
            repository: name.download_repository(),
            commit,
            cache: &self.downloads,
        };
        let downloaded = hub.download(wanted, observe).await;
        downloaded.map_err(|mut error| {
            if matches!(error.failure, DownloadFailure::NoRepository { .. }) {
                let meant = self.catalog.meant_by(name);
                error.hint = meant.map(|meant| format!("did you mean {meant}?"));
            }
            EmbeddingError::Download(Box::new(error))
        })
    }

    fn refuse_unsupported(&self, name: &ModelName) -> Result<(), EmbeddingError> {
        let known = known::find(name.repository());
        match known.and_then(|model| model.unsupported) {
            Some(reason) => Err(EmbeddingError::Unsupported {
                name: name.clone(),
                reason,
            }),
            None => Ok(()),
        }
    }

    /// What of a model the hub has to provide. Looking for it blocks.
    async fn missing(&self, name: &ModelName) -> Option<Missing> {
        if name.path().is_some() {
            return None;
        }
        let (catalog, name) = (self.catalog.clone(), name.clone());
        let look = move || match catalog.locate(&name) {
            Err(EmbeddingError::ModelNotFound { .. }) => Some(Missing::Model),
            Err(_) => None,
            Ok(folder) => {
                let commit = catalog.cached_commit(&folder)?;
                let is_complete = ModelFiles::read(&folder, &name).is_ok();
                let is_of_source =
                    cached_name(folder.ancestors().nth(2)?)? == name.download_repository();
                (!is_complete).then(|| match is_of_source {
                    true => Missing::FilesOf(commit.to_owned()),
                    false => Missing::Model,
                })
            }
        };
        tokio::task::spawn_blocking(look).await.ok()?
    }
}

/// How far a download is, for the log.
#[derive(Default)]
struct Progress {
    received: u64,
    missing: u64,
    reported: Option<Instant>,
}

impl Progress {
    fn report(&mut self, model: &ModelName, event: DownloadEvent) {
        match event {
            DownloadEvent::Missing(bytes) => (self.received, self.missing) = (0, bytes),
            DownloadEvent::Received(bytes) => self.received += bytes,
            DownloadEvent::Restarted(bytes) => {
                self.received = self.received.saturating_sub(bytes);
            }
            DownloadEvent::Waiting { reason, pause } => {
                tracing::warn!(%model, "the download pauses for {} ms: {reason}", pause.as_millis());
            }
        }
        let reported = *self.reported.get_or_insert_with(Instant::now);
        if reported.elapsed() >= REPORT_INTERVAL {
            self.reported = Some(Instant::now());
            let (received, missing) = (self.received >> 20, self.missing >> 20);
            tracing::info!(%model, "downloading the model: {received} of {missing} MiB");
        }
    }
}
