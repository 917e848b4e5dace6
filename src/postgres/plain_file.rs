//! Reads small files whose names come from outside: from a jobs row, or from the environment.
//!
//! What a name leads to may never end (`/dev/zero`; files of `/proc` have a size of 0 and gigabytes of content) or never
//! begin (a FIFO without a writer). So the file is opened first, without waiting, and everything is asked of the open
//! file: no other one can take its place in between.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::{O_NOCTTY, O_NOFOLLOW, O_NONBLOCK};

/// In bytes. The bundle of all roots of an operating system has a quarter of this.
pub const MAX_SIZE: u64 = 1 << 20;

/// A file's content, and what the kernel says about that file.
pub struct PlainFile {
    /// At most [`MAX_SIZE`].
    pub content: Vec<u8>,
    /// Of the file that was read.
    pub metadata: Metadata,
}

/// Reads a plain file of at most [`MAX_SIZE`] bytes.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] if it is another kind of file or too large, else the operating system's.
pub fn read(path: &Path) -> io::Result<PlainFile> {
    read_all(open(path, 0)?)
}

/// As [`read`], for a file below `directory`, wherever symbolic links lead. A relative path is relative to it.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] if the file is not below it, else as [`read`].
pub fn read_below(directory: &Path, path: &Path) -> io::Result<PlainFile> {
    let directory = directory.canonicalize()?;
    let path = directory.join(path).canonicalize()?;
    if !path.starts_with(&directory) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // There are no links left in the path. One that has been put there since is not followed.
    read_all(open(&path, O_NOFOLLOW)?)
}

fn open(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK | O_NOCTTY | flags)
        .open(path)
}

fn read_all(file: File) -> io::Result<PlainFile> {
    let refused = || {
        let why = "it is not a file of at most 1 MiB";
        io::Error::new(io::ErrorKind::InvalidInput, why)
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(refused());
    }
    let mut content = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut content)?;
    match content.len() as u64 > MAX_SIZE {
        true => Err(refused()),
        false => Ok(PlainFile { content, metadata }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;

    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::write(path.join("plain"), "text").unwrap();
        fs::write(path.join("full"), vec![0; 1 << 20]).unwrap();
        fs::write(path.join("large"), vec![0; (1 << 20) + 1]).unwrap();
        nix::unistd::mkfifo(&path.join("fifo"), Mode::S_IRWXU).unwrap();
        folder
    }

    #[test]
    fn a_plain_file_up_to_the_limit_is_read_and_nothing_else() {
        let folder = folder();
        let path = |name| folder.path().join(name);
        assert_eq!(read(&path("plain")).unwrap().content, b"text");
        assert_eq!(read(&path("full")).unwrap().content.len(), 1 << 20);
        let others = [path("large"), path("fifo"), path("."), path("missing")];
        let kernels = [
            "/dev/zero",
            "/dev/tty",
            "/proc/self/pagemap",
            "/proc/self/mem",
        ];
        for other in others
            .iter()
            .map(|path| &**path)
            .chain(kernels.map(Path::new))
        {
            assert!(read(other).is_err(), "{}", other.display());
        }
    }

    #[test]
    fn a_file_below_a_directory_is_read_and_no_link_leads_out_of_it() {
        let (inside, outside) = (folder(), folder());
        let link = |target: &Path, name: &str| symlink(target, inside.path().join(name)).unwrap();
        link(&outside.path().join("plain"), "link_to_file");
        link(outside.path(), "link_to_folder");
        link(Path::new("plain"), "link_inside");
        let read = |path: &Path| read_below(inside.path(), path).map(|file| file.content);
        let absolute = inside.path().join("plain");
        for path in [
            "plain",
            "./plain",
            "link_inside",
            absolute.to_str().unwrap(),
        ] {
            assert_eq!(read(Path::new(path)).unwrap(), b"text", "{path}");
        }
        let above = format!("../{}/plain", outside.path().file_name().unwrap().display());
        let absolute = outside.path().join("plain");
        for path in [
            "link_to_file",
            "link_to_folder/plain",
            &above,
            "/etc/passwd",
            "fifo",
            ".",
            "",
            "missing",
        ] {
            assert!(read(Path::new(path)).is_err(), "{path}");
        }
        assert!(read(&absolute).is_err());
        // A folder whose name merely begins the same.
        let sibling = inside.path().with_extension("d");
        fs::create_dir(&sibling).unwrap();
        fs::write(sibling.join("plain"), "text").unwrap();
        assert!(read(&sibling.join("plain")).is_err());
        fs::remove_dir_all(sibling).unwrap();
    }
}
