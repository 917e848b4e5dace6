//! A repository in the layout of the hub's cache, which `huggingface_hub` documents ("Understand caching").
//!
//! ```text
//!  models--org--name/blobs/<checksum>                        a file
//!  models--org--name/blobs/<checksum>.incomplete             the beginning of one
//!  models--org--name/snapshots/<commit>/onnx/model.onnx      a link to it
//!  models--org--name/refs/<revision>                         the commit of a branch or tag
//!  .locks/models--org--name/<checksum>.lock                  who writes a file
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::DownloadFailure;

const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// One repository in a cache folder.
#[derive(Debug, Clone)]
pub(super) struct CachedRepository {
    folder: PathBuf,
    locks: PathBuf,
}

/// Held while a file is written, by one process and one task of it. Dropping it releases the lock.
pub(super) struct WriteLock(
    #[expect(dead_code, reason = "the lock is that of the open file")] File,
);

impl CachedRepository {
    pub(super) fn new(cache: &Path, id: &str) -> Self {
        let name = format!("models--{}", id.replace('/', "--"));
        Self {
            folder: cache.join(&name),
            locks: cache.join(".locks").join(name),
        }
    }

    /// Where a file of this checksum is.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Where it is until it is complete.
    pub(super) fn incomplete_blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The folder of a model at a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Creates the folder of blobs; returns it.
    pub(super) fn create(&self) -> Result<PathBuf, DownloadFailure> {
        let blobs = self.folder.join("blobs");
        create(&blobs)?;
        Ok(blobs)
    }

    /// Waits until no other writes this file. The lock is the one that `huggingface_hub` takes.
    ///
    /// Cancellation safe.
    pub(super) async fn lock(&self, etag: &str) -> Result<WriteLock, DownloadFailure> {
        create(&self.locks)?;
        let path = self.locks.join(format!("{etag}.lock"));
        let failed = |error| DownloadFailure::write(&path, error);
        let mut options = File::options();
        options.create(true).truncate(false).write(true);
        let file = options.open(&path).map_err(failed)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(WriteLock(file)),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_INTERVAL).await,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    /// Shows a blob in the folder of a commit.
    pub(super) fn link(&self, commit: &str, path: &str, etag: &str) -> Result<(), DownloadFailure> {
        let link = self.snapshot(commit).join(path);
        let up = "../".repeat(path.split('/').count() + 1);
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        if fs::read_link(&link).is_ok_and(|found| found == target) {
            return Ok(());
        }
        if let Some(parent) = link.parent() {
            create(parent)?;
        }
        replace(&link, |beside| std::os::unix::fs::symlink(&target, beside))
    }

    /// Notes which commit a revision is. A commit gets a note too: without any, a cache counts as a copy of one revision,
    /// which a name without a revision stands for.
    pub(super) fn pin(&self, revision: &str, commit: &str) -> Result<(), DownloadFailure> {
        let note = self.folder.join("refs").join(revision);
        if let Some(parent) = note.parent() {
            create(parent)?;
        }
        replace(&note, |beside| fs::write(beside, commit))
    }
}

/// Whether a text is the hash of a commit.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn create(folder: &Path) -> Result<(), DownloadFailure> {
    fs::create_dir_all(folder).map_err(|error| DownloadFailure::write(folder, error))
}

/// Puts a file into place as a whole: made beside it, then renamed.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), DownloadFailure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{:016x}", fastrand::u64(..)));
    let made = make(&beside).and_then(|()| fs::rename(&beside, path));
    made.map_err(|error| {
        let _ = fs::remove_file(&beside);
        DownloadFailure::write(path, error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf";

    #[tokio::test]
    async fn a_blob_is_seen_through_its_links_and_its_revision() {
        let cache = tempfile::tempdir().unwrap();
        let repository = CachedRepository::new(cache.path(), "acme/own");
        let blobs = repository.create().unwrap();
        assert_eq!(blobs, cache.path().join("models--acme--own/blobs"));
        fs::write(repository.blob("aa"), "graph").unwrap();
        for _ in 0..2 {
            repository.link(COMMIT, "onnx/model.onnx", "aa").unwrap();
            repository.pin("refs/pr/1", COMMIT).unwrap();
        }
        let snapshot = repository.snapshot(COMMIT);
        assert_eq!(
            fs::read(snapshot.join("onnx/model.onnx")).unwrap(),
            b"graph"
        );
        let link = fs::read_link(snapshot.join("onnx/model.onnx")).unwrap();
        assert_eq!(link, Path::new("../../../blobs/aa"));
        let note = cache.path().join("models--acme--own/refs/refs/pr/1");
        assert_eq!(fs::read_to_string(note).unwrap(), COMMIT);
    }

    #[tokio::test]
    async fn a_file_has_one_writer_at_a_time() {
        let cache = tempfile::tempdir().unwrap();
        let repository = CachedRepository::new(cache.path(), "acme/own");
        let first = repository.lock("aa").await.unwrap();
        let second = tokio::spawn({
            let repository = repository.clone();
            async move { repository.lock("aa").await.map(drop) }
        });
        repository.lock("bb").await.unwrap();
        tokio::time::sleep(LOCK_INTERVAL * 2).await;
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap().unwrap();
    }
}
