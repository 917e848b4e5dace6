//! Downloads a model: lists its repository, brings what it needs, and then shows it in its folder.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use tokio::sync::OnceCell;

use super::cache::CachedRepository;
use super::client::{Client, shown_endpoint};
use super::error::{DownloadError, DownloadFailure};
use super::event::DownloadEvent;
use super::needed::{self, Folders, MODULES};
use super::repository::{RemoteFile, Repository};
use super::settings::HubSettings;
use super::transfer::{Retries, Transfer, is_complete};
use crate::embedding::files::external_data::external_data;
use crate::embedding::files::folder::inside;
use crate::embedding::name::ModelName;

/// The revision of a name without one.
const DEFAULT_REVISION: &str = "main";
/// Left free on the disk.
const SPARE_BYTES: u64 = 16 << 20;

/// A model that was downloaded, or was there already.
#[derive(Debug, Clone)]
pub struct Downloaded {
    /// Its folder.
    pub folder: PathBuf,
    /// The repository that it is from.
    pub repository: String,
    /// The commit of that repository.
    pub commit: String,
    /// Its size in bytes.
    pub size: u64,
}

/// The hub. Its connections are opened when they are needed.
pub(crate) struct Hub {
    settings: HubSettings,
    client: OnceCell<Client>,
}

/// What to download.
pub(crate) struct Wanted<'a> {
    pub name: &'a ModelName,
    /// The repository, which may be another one than the name's.
    pub repository: &'a str,
    /// The commit, where it is known already.
    pub commit: Option<&'a str>,
    /// The cache folder.
    pub cache: &'a Path,
}

impl Hub {
    pub(crate) fn new(settings: HubSettings) -> Self {
        Self {
            settings,
            client: OnceCell::new(),
        }
    }

    /// Downloads a model, or what is missing of it.
    ///
    /// Cancellation safe: a later call continues.
    ///
    /// # Errors
    ///
    /// Names the model, the cause and the remedy. What has arrived is kept.
    pub(crate) async fn download(
        &self,
        wanted: Wanted<'_>,
        observe: &(dyn Fn(DownloadEvent) + Send + Sync),
    ) -> Result<Downloaded, DownloadError> {
        let downloaded = self.download_model(&wanted, observe).await;
        downloaded.map_err(|failure| DownloadError {
            name: wanted.name.clone(),
            endpoint: shown_endpoint(&self.settings),
            failure: self.named(failure, wanted.repository),
            hint: None,
        })
    }

    async fn download_model(
        &self,
        wanted: &Wanted<'_>,
        observe: &(dyn Fn(DownloadEvent) + Send + Sync),
    ) -> Result<Downloaded, DownloadFailure> {
        let client = self.client().await?;
        let pinned = wanted.name.revision().unwrap_or(DEFAULT_REVISION);
        let revision = wanted.commit.unwrap_or(pinned);
        let mut retries = Retries::default();
        let repository = loop {
            match Repository::list(client, wanted.repository, revision).await {
                Ok(repository) => break repository,
                Err(failure) => retries.pause(failure, observe).await?,
            }
        };
        let cached = CachedRepository::new(wanted.cache, wanted.repository);
        let transfer = Transfer {
            client,
            repository: &repository,
            cached: &cached,
            observe,
        };
        let files = transfer.bring_model(wanted.name).await?;
        for file in &files {
            cached.link(&repository.commit, &file.path, &file.content.etag)?;
        }
        cached.pin(pinned, &repository.commit)?;
        Ok(Downloaded {
            folder: cached.snapshot(&repository.commit),
            size: files.iter().map(|file| file.content.size).sum(),
            repository: repository.id,
            commit: repository.commit,
        })
    }

    /// The client. Reading the system's certificates blocks.
    async fn client(&self) -> Result<&Client, DownloadFailure> {
        let open = || async {
            let settings = self.settings.clone();
            let opened = tokio::task::spawn_blocking(move || Client::new(&settings)).await;
            opened.unwrap_or_else(|error| {
                Err(DownloadFailure::Unexpected {
                    what: error.to_string(),
                })
            })
        };
        self.client.get_or_try_init(open).await
    }

    /// Fills in what only the whole request tells.
    fn named(&self, failure: DownloadFailure, repository: &str) -> DownloadFailure {
        match failure {
            DownloadFailure::NoRepository { .. } => DownloadFailure::NoRepository {
                repository: repository.to_owned(),
            },
            DownloadFailure::Gated { .. } => DownloadFailure::Gated {
                page: format!("{}/{repository}", shown_endpoint(&self.settings)),
            },
            other => other,
        }
    }
}

impl Transfer<'_> {
    /// Brings the files of a model; returns them with the graph last, so that what is shown in this order is a model only
    /// when it is complete.
    async fn bring_model(&self, name: &ModelName) -> Result<Vec<RemoteFile>, DownloadFailure> {
        let modules = match self.repository.has(MODULES) {
            true => Some(self.content(MODULES).await?),
            false => None,
        };
        let folders = Folders::parse(modules.as_deref());
        let named = match folders.transformer_config(self.repository) {
            Some(config) => needed::graph_named_by(&self.content(&config).await?),
            None => None,
        };
        let graph = folders.graph(self.repository, name, named.as_deref())?;
        let mut paths = folders.small_files(self.repository);
        paths.extend(needed::files_beside(self.repository, &graph));
        let mut files = Vec::with_capacity(paths.len() + 1);
        for path in paths.iter().chain([&graph]) {
            files.push(self.repository.file(self.client, path).await?);
        }
        self.bring_all_of(&files).await?;
        let weights = self.other_weights(&files).await?;
        self.bring_all_of(&weights).await?;
        files.splice(..0, weights);
        Ok(files)
    }

    /// Brings these files, if there is room for them.
    async fn bring_all_of(&self, files: &[RemoteFile]) -> Result<(), DownloadFailure> {
        let folder = self.cached.create()?;
        let missing =
            |file: &&RemoteFile| !is_complete(&self.cached.blob(&file.content.etag), &file.content);
        let missing: Vec<&RemoteFile> = files.iter().filter(missing).collect();
        let total = missing.iter().map(|file| file.content.size).sum();
        (self.observe)(DownloadEvent::Missing(total));
        let have: u64 = missing
            .iter()
            .map(|file| self.cached.incomplete_blob(&file.content.etag))
            .filter_map(|path| fs::metadata(path).ok())
            .map(|metadata| metadata.len())
            .sum();
        check_room(&folder, total.saturating_sub(have))?;
        for file in missing {
            self.bring(file).await?;
        }
        Ok(())
    }

    /// The files with weights that a graph names and that have not come with it, by any name.
    async fn other_weights(
        &self,
        files: &[RemoteFile],
    ) -> Result<Vec<RemoteFile>, DownloadFailure> {
        let Some(graph) = files.last() else {
            return Ok(Vec::new());
        };
        let blob = self.cached.blob(&graph.content.etag);
        let named = tokio::task::spawn_blocking(move || external_data(&blob)).await;
        // A graph that is damaged is refused by the loader, and explained there.
        let named = named.ok().and_then(Result::ok).unwrap_or_default();
        let folder = Path::new(&graph.path).parent().unwrap_or(Path::new(""));
        let mut weights = Vec::new();
        for location in named.keys() {
            let Some(path) = inside(folder, location) else {
                continue;
            };
            let path = path.to_string_lossy();
            if files.iter().all(|file| file.path != path) {
                weights.push(self.repository.file(self.client, &path).await?);
            }
        }
        Ok(weights)
    }

    /// The content of a small file.
    async fn content(&self, path: &str) -> Result<Vec<u8>, DownloadFailure> {
        self.cached.create()?;
        let file = self.repository.file(self.client, path).await?;
        self.bring(&file).await?;
        let blob = self.cached.blob(&file.content.etag);
        fs::read(&blob).map_err(|error| DownloadFailure::write(blob, error))
    }
}

/// Whether a disk has room for so many bytes.
fn check_room(folder: &Path, needed: u64) -> Result<(), DownloadFailure> {
    let Ok(disk) = statvfs(folder) else {
        return Ok(());
    };
    let free = disk.blocks_available() * disk.fragment_size();
    if needed == 0 || needed.saturating_add(SPARE_BYTES) <= free {
        return Ok(());
    }
    Err(DownloadFailure::NoSpace {
        folder: folder.to_owned(),
        needed: needed.div_ceil(1_000_000),
        free: free / 1_000_000,
    })
}
