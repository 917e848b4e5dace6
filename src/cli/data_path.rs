//! The default data folder: models, the ONNX Runtime library and the private PostgreSQL.

use std::path::PathBuf;

/// The user's data folder (`~/.local/share/lantern-cli` on Linux); for root `/var/lib/lantern-cli`, because PostgreSQL
/// does not run as root and no other user may enter root's home directory.
pub fn default() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/lantern-cli");
    }
    // A user without a home directory gets a folder in the working directory.
    directories::ProjectDirs::from("", "", "lantern-cli").map_or_else(
        || PathBuf::from(".lantern-cli"),
        |folders| folders.data_dir().to_path_buf(),
    )
}
