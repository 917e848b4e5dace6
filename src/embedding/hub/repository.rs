//! What a repository of the hub has at a revision.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::Deserialize;

use super::cache::is_commit;
use super::client::Client;
use super::error::DownloadFailure;

/// A list of more bytes is none of a model.
const MAX_LISTING_BYTES: usize = 32 << 20;

/// The files of a repository at a commit.
pub(super) struct Repository {
    pub id: String,
    pub commit: String,
    /// By path.
    files: BTreeMap<String, Option<Content>>,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub size: u64,
    /// SHA-256 of a large file; for others what git calls them, SHA-1 over a header and the content. The cache names
    /// files so.
    pub etag: String,
}

/// A file to be had.
#[derive(Debug, Clone)]
pub(super) struct RemoteFile {
    pub path: String,
    pub content: Content,
}

#[derive(Deserialize)]
struct Listing {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    sha256: String,
    size: u64,
}

impl Repository {
    /// Asks for the list.
    pub(super) async fn list(
        client: &Client,
        id: &str,
        revision: &str,
    ) -> Result<Self, DownloadFailure> {
        let path = ["api", "models"].into_iter().chain(id.split('/'));
        let mut url = client.url(path.chain(["revision", revision]));
        url.set_query(Some("blobs=true"));
        let mut response = client.get(url, 0).await.map_err(|failure| match failure {
            DownloadFailure::NoRevision { .. } => DownloadFailure::NoRevision {
                revision: revision.to_owned(),
            },
            other => other,
        })?;
        let mut body = Vec::new();
        while let Some(chunk) = next_chunk(client, &mut response).await? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_LISTING_BYTES {
                return Err(unexpected("its list of files has no end"));
            }
        }
        Self::parse(id, &body)
    }

    fn parse(id: &str, body: &[u8]) -> Result<Self, DownloadFailure> {
        let listing: Listing = serde_json::from_slice(body)
            .map_err(|error| unexpected(&format!("its list of files is malformed ({error})")))?;
        let commit = listing.sha.filter(|sha| is_commit(sha));
        let commit = commit.ok_or_else(|| unexpected("its list of files names no commit"))?;
        let safe = |file: &Sibling| is_safe(&file.rfilename);
        let files = listing
            .siblings
            .into_iter()
            .filter(safe)
            .map(|file| (file.rfilename.clone(), file.content()))
            .collect();
        Ok(Self {
            id: id.to_owned(),
            commit,
            files,
        })
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// The paths of all files.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The graphs among them.
    pub(super) fn graphs(&self) -> Vec<String> {
        let is_graph = |path: &&str| Path::new(path).extension() == Some("onnx".as_ref());
        let graphs = self.paths().filter(is_graph);
        graphs.map(str::to_owned).collect()
    }

    /// A file with its size and checksum, which the hub is asked for if it has not listed them.
    pub(super) async fn file(
        &self,
        client: &Client,
        path: &str,
    ) -> Result<RemoteFile, DownloadFailure> {
        let content = match self.files.get(path) {
            Some(Some(content)) => content.clone(),
            Some(None) => self.ask(client, path).await?,
            None => {
                return Err(DownloadFailure::NoFile {
                    file: path.to_owned(),
                    graphs: self.graphs(),
                });
            }
        };
        Ok(RemoteFile {
            path: path.to_owned(),
            content,
        })
    }

    /// The URL of a file.
    pub(super) fn url(&self, client: &Client, path: &str) -> reqwest::Url {
        let id = self.id.split('/');
        client.url(
            id.chain(["resolve", self.commit.as_str()])
                .chain(path.split('/')),
        )
    }

    async fn ask(&self, client: &Client, path: &str) -> Result<Content, DownloadFailure> {
        let headers = client.head(self.url(client, path)).await?;
        let header = |names: [&str; 2]| {
            let found = names.iter().find_map(|name| headers.get(*name))?;
            found.to_str().ok().map(str::to_owned)
        };
        let etag = header(["x-linked-etag", "etag"]).map(|etag| plain_etag(&etag));
        let size = header(["x-linked-size", "content-length"]).and_then(|size| size.parse().ok());
        match (etag, size) {
            (Some(etag), Some(size)) if is_etag(&etag) => Ok(Content { size, etag }),
            _ => Err(unexpected(&format!(
                "the answer about {path} has no size or no checksum"
            ))),
        }
    }
}

impl Sibling {
    fn content(&self) -> Option<Content> {
        let content = match &self.lfs {
            Some(large) => Content {
                size: large.size,
                etag: large.sha256.clone(),
            },
            None => Content {
                size: self.size?,
                etag: self.blob_id.clone()?,
            },
        };
        is_etag(&content.etag).then_some(content)
    }
}

/// The next part of a body.
pub(super) async fn next_chunk(
    client: &Client,
    response: &mut reqwest::Response,
) -> Result<Option<impl std::ops::Deref<Target = [u8]> + use<>>, DownloadFailure> {
    let stall_timeout = client.stall_timeout();
    match tokio::time::timeout(stall_timeout, response.chunk()).await {
        Ok(chunk) => chunk.map_err(DownloadFailure::request),
        Err(_) => Err(DownloadFailure::Unreachable {
            reason: format!("nothing for {} s", stall_timeout.as_secs()),
        }),
    }
}

/// Whether a path stays in the folder that it is joined to.
fn is_safe(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    !path.is_empty()
        && !path.contains(['\\', '\0'])
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

fn plain_etag(etag: &str) -> String {
    let strong = etag.strip_prefix("W/").unwrap_or(etag);
    strong.trim_matches('"').to_owned()
}

/// Whether a checksum is a SHA-1 or a SHA-256. It becomes the name of a file.
fn is_etag(etag: &str) -> bool {
    matches!(etag.len(), 40 | 64) && etag.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn unexpected(what: &str) -> DownloadFailure {
    DownloadFailure::Unexpected {
        what: what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf";

    #[test]
    fn files_are_read_with_size_and_checksum_and_none_leaves_the_folder() {
        let sha256 = "6fd5d72fe4589f189f8ebc006442dbb529bb7ce38f8082112682524616046452";
        let body = format!(
            r#"{{"sha":"{COMMIT}","siblings":[
                {{"rfilename":"config.json","size":612,"blobId":"72b987fd805cfa2b58c4c8c952b274a11bfd5a00"}},
                {{"rfilename":"onnx/model.onnx","size":1,"blobId":"00","lfs":{{"sha256":"{sha256}","size":90405214}}}},
                {{"rfilename":"tokenizer.json"}},
                {{"rfilename":"vocab.txt","size":1,"blobId":"../../etc"}},
                {{"rfilename":"../other.json"}}, {{"rfilename":"/etc/passwd"}}, {{"rfilename":"a\\b"}}]}}"#
        );
        let repository = Repository::parse("acme/own", body.as_bytes()).unwrap();
        assert_eq!(repository.commit, COMMIT);
        let paths: Vec<&str> = repository.paths().collect();
        assert_eq!(
            paths,
            [
                "config.json",
                "onnx/model.onnx",
                "tokenizer.json",
                "vocab.txt"
            ]
        );
        let graph = repository.files["onnx/model.onnx"].as_ref().unwrap();
        assert_eq!((graph.size, graph.etag.as_str()), (90405214, sha256));
        assert_eq!(repository.files["tokenizer.json"], None);
        assert_eq!(repository.files["vocab.txt"], None);
        assert_eq!(repository.graphs(), ["onnx/model.onnx"]);
    }

    #[test]
    fn a_list_without_a_commit_is_none() {
        for body in ["{}", r#"{"sha":"../../x"}"#, "<html>", r#"{"sha":null}"#] {
            assert!(
                Repository::parse("acme/own", body.as_bytes()).is_err(),
                "{body}"
            );
        }
    }
}
