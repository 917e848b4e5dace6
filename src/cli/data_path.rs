//! The data folder: models, the ONNX Runtime library and the private PostgreSQL. Where it is, and who may write to it.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::bail;
use nix::unistd::{Gid, Group, Uid, User, geteuid};

/// The user's data folder (`~/.local/share/lantern-cli` on Linux); for root `/var/lib/lantern-cli`, because PostgreSQL
/// does not run as root and no other user may enter root's home directory.
///
/// # Errors
/// If the user has no home folder. The working directory would not do: it may be anybody's, and libraries of the data
/// folder are run.
pub fn default() -> anyhow::Result<PathBuf> {
    if geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/lantern-cli"));
    }
    match directories::ProjectDirs::from("", "", "lantern-cli") {
        Some(folders) => Ok(folders.data_dir().to_path_buf()),
        None => bail!(
            "there is no folder for models and libraries: HOME is not set, and the user {} has no home folder; name \
             one with --data-path or LANTERN_DATA_PATH, for example /var/lib/lantern-cli",
            geteuid()
        ),
    }
}

/// Warns where others may write to the data folder, its libraries or its models, or to a cache of models: they are code,
/// which runs as us.
pub fn warn_of_other_writers(data_path: &Path, cache: Option<&Path>) {
    let (lib, models) = (data_path.join("lib"), data_path.join("models"));
    let libraries = fs::read_dir(&lib).into_iter().flatten().flatten();
    let libraries = libraries.map(|entry| entry.path());
    let writable: Vec<String> = [data_path.to_owned(), lib.clone(), models]
        .into_iter()
        .chain(libraries)
        .chain(cache.map(Path::to_owned))
        .filter_map(|path| {
            let who = other_writer(&fs::metadata(&path).ok()?)?;
            Some(format!("{who} may write to {}", path.display()))
        })
        .collect();
    if !writable.is_empty() {
        tracing::warn!(
            "libraries and models are code, and others may change what runs here: {}; let them belong to root or to \
             the user who runs lantern-cli, and run chmod go-w on them",
            writable.join(", ")
        );
    }
}

/// Who may write to a file beside its user and root. A sticky folder takes new files of anybody, so it is no exception.
fn other_writer(metadata: &Metadata) -> Option<String> {
    let owner = Uid::from_raw(metadata.uid());
    let group = Gid::from_raw(metadata.gid());
    if owner != geteuid() && !owner.is_root() {
        let account = User::from_uid(owner).ok().flatten();
        return Some(account.map_or_else(|| format!("user {owner}"), |account| account.name));
    }
    if metadata.mode() & 0o002 != 0 {
        return Some("everybody".to_owned());
    }
    if metadata.mode() & 0o020 != 0 && !is_private(group, owner) {
        let group = Group::from_gid(group)
            .ok()
            .flatten()
            .map(|group| group.name);
        let group = group.unwrap_or_else(|| metadata.gid().to_string());
        return Some(format!("the group {group}"));
    }
    None
}

/// Whether a group is the one of this user alone, as many systems make it for each user (with umask 002).
fn is_private(group: Gid, owner: Uid) -> bool {
    let Some(user) = User::from_uid(owner).ok().flatten() else {
        return false;
    };
    let is_only = |group: Group| group.mem.iter().all(|member| *member == user.name);
    user.gid == group && Group::from_gid(group).ok().flatten().is_some_and(is_only)
}
