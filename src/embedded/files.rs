//! Files in a directory that belongs to another account.
//!
//! If we are root, the server's directory belongs to the account that PostgreSQL runs as. A user who acts as that account
//! may put a link in the place of any file there, at any moment, and root would write through it. So nothing here
//! follows a link: new files are created under `O_EXCL`, and take the place of old ones by rename(2), which replaces a
//! link rather than its target. A file that is kept must be a plain one with one name: a hard link is another file of
//! ours.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

/// The most bytes that are read: the files are short, but for the log.
const MAX_LENGTH: u64 = 64 * 1024;

/// Creates a file that was not there.
pub(super) fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    // O_EXCL: a link in its place counts as a file that is there (open(2)).
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    // Whatever the umask is.
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(file)
}

/// Puts a new file with this content in the place of whatever is there.
pub(super) fn replace(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    let mut staging = path.as_os_str().to_owned();
    staging.push(".new");
    // That of a process that was killed.
    remove(Path::new(&staging))?;
    create_new(Path::new(&staging), mode)?.write_all(content.as_bytes())?;
    fs::rename(staging, path)
}

/// Removes a file, if there is one.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens a file of our own for reading and writing, and creates it if it is not there.
pub(super) fn open_own(path: &Path) -> io::Result<File> {
    let file = opened(
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600),
        path,
    )?;
    match file.metadata()?.uid() == geteuid().as_raw() {
        true => Ok(file),
        false => Err(io::Error::other("it belongs to another account; remove it")),
    }
}

/// The content of a file; of a long one the end.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut file = opened(OpenOptions::new().read(true), path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_LENGTH)))?;
    let mut content = Vec::new();
    file.take(MAX_LENGTH).read_to_end(&mut content)?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// A plain file with one name. Does not wait for the writer of a pipe.
fn opened(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = options.custom_flags(flags.bits()).open(path);
    let file = file.map_err(|error| match error.raw_os_error() {
        Some(nix::libc::ELOOP) => io::Error::other("it is a link; remove it"),
        _ => error,
    })?;
    let metadata = file.metadata()?;
    match metadata.is_file() && metadata.nlink() == 1 {
        true => Ok(file),
        false => Err(io::Error::other(
            "it is not a plain file, or has another name as well; remove it",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use tempfile::TempDir;

    use super::*;

    /// A folder with a file of another account, and ways to reach it from another name.
    fn planted() -> TempDir {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("victim"), "secret").unwrap();
        symlink("victim", folder.path().join("link")).unwrap();
        symlink("nowhere", folder.path().join("dangling")).unwrap();
        fs::hard_link(folder.path().join("victim"), folder.path().join("hard")).unwrap();
        mkfifo(&folder.path().join("pipe"), Mode::S_IRWXU).unwrap();
        folder
    }

    #[test]
    fn nothing_is_read_written_or_created_through_a_link() {
        for name in ["link", "dangling", "hard", "pipe"] {
            let folder = planted();
            let path = folder.path().join(name);
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains("remove it"), "{name}: {error}");
            let error = open_own(&path).unwrap_err().to_string();
            assert!(error.contains("remove it"), "{name}: {error}");
            create_new(&path, 0o600).unwrap_err();
            replace(&path, "ours", 0o644).unwrap();
            assert_eq!(read(&path).unwrap(), "ours");
            assert_eq!(
                fs::read_to_string(folder.path().join("victim")).unwrap(),
                "secret"
            );
            assert!(!folder.path().join("nowhere").exists());
        }
    }

    #[test]
    fn a_link_in_the_place_of_a_new_file_is_replaced() {
        for name in ["link", "dangling", "hard", "pipe"] {
            let folder = planted();
            fs::rename(folder.path().join(name), folder.path().join("port.new")).unwrap();
            replace(&folder.path().join("port"), "ours", 0o600).unwrap();
            assert_eq!(read(&folder.path().join("port")).unwrap(), "ours");
            assert_eq!(
                fs::read_to_string(folder.path().join("victim")).unwrap(),
                "secret"
            );
        }
    }

    #[test]
    fn of_a_long_file_the_end_is_read() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "x".repeat(1 << 20) + "the end").unwrap();
        let content = read(&path).unwrap();
        assert!(content.ends_with("xthe end") && content.len() <= 1 << 16);
    }
}
