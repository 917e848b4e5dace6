//! Who is at the other end of a Unix socket. There is no certificate, but the kernel knows the account.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Uid, User};
/// Mode bits: others may write, and in a directory only the owner of a file may remove it.
const WORLD_WRITABLE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Checks `requirepeer`: the server's account must have this name.
///
/// # Errors
/// Why it has not.
pub fn require(name: &str, peer: u32) -> Result<(), String> {
    let wanted = User::from_name(name).ok().flatten();
    match wanted {
        None => Err("requirepeer names no account of this machine".to_owned()),
        Some(wanted) if wanted.uid.as_raw() == peer => Ok(()),
        Some(_) => Err(format!(
            "the server behind the socket runs as {}, and requirepeer names another account",
            account(peer)
        )),
    }
}

fn account(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| format!("user {uid}"), |user| user.name)
}

/// Whether nobody but root and the account of the server, `peer`, can have put a socket into `directory`.
pub fn is_protected(directory: &Path, peer: u32) -> bool {
    let real = directory.canonicalize();
    real.and_then(|real| examine(&real, peer)).unwrap_or(false)
}

fn examine(directory: &Path, peer: u32) -> io::Result<bool> {
    for (level, folder) in directory.ancestors().enumerate() {
        let metadata = fs::metadata(folder)?;
        let is_owned = [0, peer].contains(&metadata.uid());
        // Nobody can replace a folder of another in one that is sticky.
        let is_open = metadata.mode() & WORLD_WRITABLE != 0;
        let is_safe = !is_open || (level > 0 && metadata.mode() & STICKY != 0);
        if !is_owned || !is_safe {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn a_folder_is_protected_unless_others_may_write_there() {
        let folder = tempfile::tempdir().unwrap();
        let own = geteuid().as_raw();
        for (mode, expected) in [
            (0o700, true),
            (0o755, true),
            (0o2775, true),
            (0o777, false),
            (0o1777, false),
        ] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_protected(folder.path(), own), expected, "{mode:o}");
        }
        // Below one of them.
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        assert!(is_protected(&inner, own));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(!is_protected(&inner, own));
        assert!(!is_protected(Path::new("/tmp"), own));
        assert!(!is_protected(Path::new("/nonexistent"), own));
    }

    #[test]
    fn a_folder_of_another_account_is_not_protected() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(folder.path(), Some(1234), None).unwrap();
        assert!(is_protected(folder.path(), 1234));
        assert!(!is_protected(folder.path(), 4321));
    }

    #[test]
    fn requirepeer_is_the_account_of_the_server() {
        let own = account(geteuid().as_raw());
        assert_eq!(require(&own, geteuid().as_raw()), Ok(()));
        let said = require("root", 4_000_000).unwrap_err();
        assert!(said.contains("runs as user 4000000"), "{said}");
        assert!(require("no such account", 0).is_err());
    }
}
