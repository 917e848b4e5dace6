//! What the hub and its storage answer.

use serde_json::{Value, json};

use super::http::Answer;
use super::{Access, Commit, Fault, Repository, Request, Shared, State, etag, is_large};

/// Notes a request and answers it, with the fault that waits for it.
pub(super) fn answer(shared: &Shared, mut request: Request, at_storage: bool) -> Answer {
    request.at_storage = at_storage;
    let mut state = shared.lock();
    state.requests.push(request.clone());
    let waiting = state
        .faults
        .iter()
        .position(|(path, _)| request.path.contains(path.as_str()));
    let fault = waiting.map(|place| state.faults.remove(place).1);
    if let Some(Fault::Status(status, name, value)) = fault {
        return Answer::new(status).header(name, value);
    }
    let answer = match at_storage {
        true => stored(&state, &request),
        false => of_hub(&state, &request, shared.storage_port),
    };
    Answer { fault, ..answer }
}

fn of_hub(state: &State, request: &Request, storage_port: u16) -> Answer {
    let (path, _) = request.path.split_once('?').unwrap_or((&request.path, ""));
    if let Some(rest) = path.strip_prefix("/api/models/")
        && let Some((id, revision)) = rest.split_once("/revision/")
    {
        return match find(state, request, id, &revision.replace("%2F", "/")) {
            Ok(commit) => listing(state, commit),
            Err(refusal) => refusal,
        };
    }
    if let Some((id, rest)) = path.trim_start_matches('/').split_once("/resolve/")
        && let Some((revision, file)) = rest.split_once('/')
    {
        return match find(state, request, id, revision) {
            Ok(commit) => file_of(commit, file, storage_port),
            Err(refusal) => refusal,
        };
    }
    Answer::new(404)
}

/// The commit of a repository, if the request may see it.
fn find<'a>(
    state: &'a State,
    request: &Request,
    id: &str,
    revision: &str,
) -> Result<&'a Commit, Answer> {
    let refused = |status, code: &str| Err(Answer::new(status).header("X-Error-Code", code));
    let has = |token: &str| request.authorization == Some(format!("Bearer {token}"));
    let Some(repository) = state.repositories.get(id) else {
        return refused(401, "RepoNotFound");
    };
    match repository.access {
        Access::Private(token) if !has(token) => refused(401, "RepoNotFound"),
        Access::Gated(token) if !has(token) => refused(403, "GatedRepo"),
        _ => match commit_of(repository, revision) {
            Some(commit) => Ok(commit),
            None => refused(404, "RevisionNotFound"),
        },
    }
}

fn commit_of<'a>(repository: &'a Repository, revision: &str) -> Option<&'a Commit> {
    match revision {
        "main" => repository.commits.first(),
        "old" => repository.commits.last(),
        hash => repository.commits.iter().find(|commit| commit.hash == hash),
    }
}

fn listing(state: &State, commit: &Commit) -> Answer {
    let siblings: Vec<Value> = commit
        .files
        .iter()
        .map(|(path, content)| sibling(path, content, state.lists_blobs))
        .collect();
    let listing = json!({ "sha": commit.hash, "siblings": siblings });
    Answer {
        body: listing.to_string().into_bytes(),
        ..Answer::new(200)
    }
}

fn sibling(path: &str, content: &[u8], lists_blobs: bool) -> Value {
    let etag = etag(path, content);
    match (lists_blobs, is_large(path)) {
        (false, _) => json!({ "rfilename": path }),
        (true, false) => json!({ "rfilename": path, "size": content.len(), "blobId": etag }),
        (true, true) => json!({
            "rfilename": path, "size": content.len(), "blobId": "0".repeat(40),
            "lfs": { "sha256": etag, "size": content.len(), "pointerSize": 134 }
        }),
    }
}

fn file_of(commit: &Commit, path: &str, storage_port: u16) -> Answer {
    let Some(content) = commit.files.get(path) else {
        return Answer::new(404).header("X-Error-Code", "EntryNotFound");
    };
    let etag = etag(path, content);
    let described = |status| Answer::new(status).header("X-Repo-Commit", commit.hash.clone());
    if is_large(path) {
        let place = format!("http://127.0.0.1:{storage_port}/{etag}?signature=do-not-show");
        return described(302)
            .header("Location", place)
            .header("X-Linked-Size", content.len().to_string())
            .header("X-Linked-Etag", format!("\"{etag}\""));
    }
    Answer {
        body: content.clone(),
        ..described(200).header("ETag", format!("\"{etag}\""))
    }
}

fn stored(state: &State, request: &Request) -> Answer {
    let wanted = request.path.trim_start_matches('/');
    let (wanted, _) = wanted.split_once('?').unwrap_or((wanted, ""));
    let commits = state
        .repositories
        .values()
        .flat_map(|repository| &repository.commits);
    let mut files = commits.flat_map(|commit| &commit.files);
    match files.find(|(path, content)| is_large(path) && etag(path, content) == wanted) {
        Some((_, content)) => Answer {
            body: content.clone(),
            ..Answer::new(200)
        },
        None => Answer::new(404),
    }
}
