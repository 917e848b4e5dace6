//! Standard output: the one place through which commands print their results.
//!
//! What people read ([`line`], [`lines`]) is printed as [`shown`] makes it: names of a table and messages of a server
//! are in it, and none of them may act on the terminal. What programs read ([`data`]) is printed as it is.
//!
//! A reader that has seen enough (`search … | head`) closes the pipe. The command then ends as other programs do, by
//! SIGPIPE, without a word. Rust ignores that signal, and must: with its default action a write to a socket whose other
//! end is gone would end the process as well. So it is raised here, where standard output is the pipe that broke.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use nix::libc;
use nix::sys::signal::{SigHandler, Signal, raise, signal};

use super::stderr;
use super::stderr::bar::aside_for_stdout;
use crate::shown::shown;

/// A result could not be printed, for instance because the disk is full.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct OutputError(#[from] io::Error);

/// Prints a line for people.
///
/// # Errors
/// If it cannot be written. A closed pipe ends the process instead.
pub fn line(text: impl Display) -> Result<(), OutputError> {
    lines(&[text.to_string()])
}

/// Prints lines for people.
///
/// # Errors
/// As [`line`].
pub fn lines(lines: &[String]) -> Result<(), OutputError> {
    data(&as_lines(lines))
}

/// Prints a text as it is, which ends its last line itself.
///
/// # Errors
/// As [`line`].
pub fn data(text: &str) -> Result<(), OutputError> {
    match write(text) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => end_by_sigpipe(),
        written => Ok(written?),
    }
}

/// Prints lines for people if that is possible, and goes on if it is not.
pub fn print_if_possible(lines: &[String]) {
    let _ = write(&as_lines(lines));
}

fn as_lines(lines: &[String]) -> String {
    lines.iter().map(|line| shown(line) + "\n").collect()
}

fn write(text: &str) -> io::Result<()> {
    aside_for_stdout(|| {
        let mut output = io::stdout().lock();
        output.write_all(text.as_bytes())?;
        output.flush()
    })
}

/// Ends the process as the kernel ends one that writes to a closed pipe: no destructors, and a status from which a
/// shell makes 141.
fn end_by_sigpipe() -> ! {
    stderr::flush();
    // SAFETY: the default action runs no code of this program.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    let _ = raise(Signal::SIGPIPE);
    // Only a parent that had the signal blocked gets here.
    // SAFETY: `_exit` ends the process and runs no code of it.
    unsafe { libc::_exit(128 + libc::SIGPIPE) }
}
