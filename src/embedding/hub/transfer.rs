//! Brings one file: continues where an earlier attempt stopped, tries again after a cut, and checks what has arrived.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::CONTENT_RANGE;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::cache::CachedRepository;
use super::client::Client;
use super::error::DownloadFailure;
use super::event::DownloadEvent;
use super::repository::{Content, RemoteFile, Repository, next_chunk};

/// Attempts in a row that bring nothing.
const MAX_ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause that the hub may ask for. A longer one is a failure, after which others may be tried.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// A download in progress: one repository, from one hub into one cache.
pub(super) struct Transfer<'a> {
    pub client: &'a Client,
    pub repository: &'a Repository,
    pub cached: &'a CachedRepository,
    pub observe: &'a (dyn Fn(DownloadEvent) + Send + Sync),
}

impl Transfer<'_> {
    /// Brings a file, unless it is there. Others that want it wait, and find it.
    ///
    /// Cancellation safe: what has arrived is kept, and continued by the next call.
    pub(super) async fn bring(&self, file: &RemoteFile) -> Result<(), DownloadFailure> {
        let blob = self.cached.blob(&file.content.etag);
        if is_complete(&blob, &file.content) {
            return Ok(());
        }
        let _lock = self.cached.lock(&file.content.etag).await?;
        if is_complete(&blob, &file.content) {
            (self.observe)(DownloadEvent::Received(file.content.size));
            return Ok(());
        }
        let incomplete = self.cached.incomplete_blob(&file.content.etag);
        if let Err(failure) = self.bring_checked(file, &incomplete).await {
            // A damaged beginning may be from an earlier attempt, or from a cut: once more from the start.
            if !matches!(failure, DownloadFailure::WrongChecksum { .. }) {
                return Err(failure);
            }
            tracing::debug!(file = %file.path, "downloading a damaged file again");
            self.bring_checked(file, &incomplete).await?;
        }
        fs::rename(&incomplete, &blob).map_err(|error| DownloadFailure::write(&blob, error))
    }

    async fn bring_checked(
        &self,
        file: &RemoteFile,
        incomplete: &Path,
    ) -> Result<(), DownloadFailure> {
        self.bring_all(file, incomplete).await?;
        let (path, expected) = (incomplete.to_owned(), file.content.clone());
        let checked = tokio::task::spawn_blocking(move || checksum(&path, &expected)).await;
        let found = match checked {
            Ok(found) => found.map_err(|error| DownloadFailure::write(incomplete, error))?,
            Err(error) => {
                let error = std::io::Error::other(error);
                return Err(DownloadFailure::write(incomplete, error));
            }
        };
        if found.eq_ignore_ascii_case(&file.content.etag) {
            return Ok(());
        }
        let _ = fs::remove_file(incomplete);
        Err(DownloadFailure::WrongChecksum {
            file: file.path.clone(),
            expected: file.content.etag.clone(),
            found,
        })
    }

    /// Appends to the file until it has its length. The count of attempts begins again with each that brings something.
    async fn bring_all(&self, file: &RemoteFile, incomplete: &Path) -> Result<(), DownloadFailure> {
        let mut retries = Retries::default();
        let mut before = length(incomplete);
        (self.observe)(DownloadEvent::Received(before.min(file.content.size)));
        loop {
            let failure = match self.continue_file(file, incomplete).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            let now = length(incomplete);
            if now > before {
                retries = Retries::default();
            }
            before = now;
            retries.pause(failure, self.observe).await?;
        }
    }

    /// One request for what is missing of a file.
    async fn continue_file(
        &self,
        file: &RemoteFile,
        incomplete: &Path,
    ) -> Result<(), DownloadFailure> {
        let total = file.content.size;
        let mut have = length(incomplete);
        if have > total {
            have = 0;
        }
        let failed = |error| DownloadFailure::write(incomplete, error);
        let mut options = File::options();
        options.create(true).append(true);
        let mut output = options.open(incomplete).await.map_err(failed)?;
        output.set_len(have).await.map_err(failed)?;
        if have == total {
            return Ok(());
        }
        let url = self.repository.url(self.client, &file.path);
        let mut response = self.client.get(url, have).await?;
        if have > 0 && !continues_at(&response, have) {
            (self.observe)(DownloadEvent::Restarted(have));
            have = 0;
            output.set_len(0).await.map_err(failed)?;
        }
        while have < total {
            let chunk = match next_chunk(self.client, &mut response).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Err(cut(file, "it ended too early")),
                Err(DownloadFailure::Unreachable { reason }) => return Err(cut(file, &reason)),
                Err(other) => return Err(other),
            };
            let fitting = chunk.len().min((total - have) as usize);
            output.write_all(&chunk[..fitting]).await.map_err(failed)?;
            have += fitting as u64;
            (self.observe)(DownloadEvent::Received(fitting as u64));
        }
        output.flush().await.map_err(failed)?;
        output.sync_all().await.map_err(failed)
    }
}

/// Counts attempts that brought nothing, and rests between them.
#[derive(Default)]
pub(super) struct Retries {
    failed: u32,
}

impl Retries {
    /// Waits before the next attempt.
    ///
    /// # Errors
    ///
    /// The failure itself, if no other attempt is worth it now.
    pub(super) async fn pause(
        &mut self,
        failure: DownloadFailure,
        observe: &(dyn Fn(DownloadEvent) + Send + Sync),
    ) -> Result<(), DownloadFailure> {
        self.failed += 1;
        if !failure.is_transient() || self.failed >= MAX_ATTEMPTS {
            return Err(failure);
        }
        let pause = match failure {
            DownloadFailure::TooManyRequests {
                retry_after: Some(pause),
            } if pause > MAX_PAUSE => return Err(failure),
            DownloadFailure::TooManyRequests {
                retry_after: Some(pause),
            } => pause,
            _ => FIRST_PAUSE * 2_u32.pow(self.failed),
        };
        observe(DownloadEvent::Waiting {
            reason: failure.to_string(),
            pause,
        });
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

fn cut(file: &RemoteFile, reason: &str) -> DownloadFailure {
    DownloadFailure::Cut {
        file: file.path.clone(),
        reason: reason.to_owned(),
    }
}

/// Whether an answer begins with this byte of the file; `bytes 200-999/1000`.
fn continues_at(response: &reqwest::Response, from: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE);
    let begins = range.and_then(|range| {
        range
            .to_str()
            .ok()?
            .strip_prefix("bytes ")?
            .split('-')
            .next()?
            .parse()
            .ok()
    });
    response.status() == StatusCode::PARTIAL_CONTENT && begins == Some(from)
}

/// Whether a file is there as a whole. It was checked when it got this name.
pub(super) fn is_complete(blob: &Path, content: &Content) -> bool {
    fs::metadata(blob).is_ok_and(|metadata| metadata.len() == content.size)
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// The checksum of a file in the form of the published one. Blocks.
fn checksum(path: &Path, expected: &Content) -> std::io::Result<String> {
    match expected.etag.len() {
        64 => digest(path, Sha256::new()),
        // What git hashes for a file ("Git Internals - Git Objects").
        _ => digest(
            path,
            Sha1::new_with_prefix(format!("blob {}\0", length(path))),
        ),
    }
}

fn digest(path: &Path, mut hash: impl Digest) -> std::io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hash.update(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value| char::from_digit(u32::from(value), 16).unwrap_or_default();
    let digits = |byte: &u8| [digit(byte >> 4), digit(byte & 15)];
    bytes.iter().flat_map(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_that_the_hub_publishes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "what is up, doc?").unwrap();
        let checksum = |length: usize| {
            let content = Content {
                size: 16,
                etag: "0".repeat(length),
            };
            checksum(file.path(), &content).unwrap()
        };
        // The example of the chapter "Git Objects" in the book Pro Git.
        assert_eq!(checksum(40), "bd9dbf5aae1a3862dd1526723246b20206e5fc37");
        // `printf 'what is up, doc?' | sha256sum`
        assert_eq!(
            checksum(64),
            "af4e812d13b4eae6da91024f15f7679dae49d40aee3fb4c7216b56d04193f46c"
        );
    }
}
