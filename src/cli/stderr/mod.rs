//! Standard error: the log of the daemon, what commands say beside their results, and the progress bar. Writing to it
//! neither waits nor fails, whatever its reader does.
//!
//! ```text
//! tracing ─┐
//! notes ───┼─▶ bar set aside ─▶ queue ─▶ thread ─▶ file descriptor 2
//! panics ──┘                     ▲ │ full, or a line that cannot be written: counted, and reported later
//! states of the bar ─────────────┘
//! ```
//!
//! A pager that pauses fills the pipe and blocks the next write; a `tee` that ends breaks it; a file may be on a full
//! disk. None of these may stop embedding, or keep the daemon from stopping. So one thread writes, and no other waits
//! for it, except at the end of the process, for a moment.

pub mod bar;
mod queue;

use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

pub use self::queue::flush;
use crate::shown::shown;

/// Writes a line for people, as [`shown`] makes it: names and messages of others are in it.
pub fn line(text: &str) {
    data(&shown(text));
}

/// Writes a text as it is, and ends its last line.
pub fn data(text: &str) {
    write(format!("{text}\n").as_bytes());
}

/// Lets `tracing` write its lines here.
pub struct StandardError;

impl MakeWriter<'_> for StandardError {
    type Writer = Self;

    fn make_writer(&self) -> Self::Writer {
        StandardError
    }
}

impl Write for StandardError {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        write(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(line: &[u8]) {
    bar::aside(|| queue::push(line));
}
