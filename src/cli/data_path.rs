//! Where data lies when nobody says.

use std::path::PathBuf;

/// The user's data folder (`~/.local/share/lantern-cli` on Linux); for root `/var/lib/lantern-cli`, since nobody else may
/// look into root's home and PostgreSQL does not run as root.
pub fn default() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/lantern-cli");
    }
    directories::ProjectDirs::from("", "", "lantern-cli").map_or_else(
        || PathBuf::from(".lantern-cli"),
        |folders| folders.data_dir().to_path_buf(),
    )
}
