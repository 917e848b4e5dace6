//! A terminal: a pseudo-terminal, and the screen that a person would see.

use std::fs::File;
use std::io::Read;
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nix::pty::{Winsize, openpty};

const COLUMNS: u16 = 200;
const LINES: u16 = 40;

/// A terminal for the standard streams of a process.
pub struct Terminal {
    /// Closed before the reader is waited for, which else would not end.
    program_end: OwnedFd,
    written: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

/// What a terminal shows.
#[derive(Debug)]
pub struct Screen {
    /// All that was written to it.
    pub raw: String,
    /// What a person sees at last.
    pub text: String,
}

impl Terminal {
    /// Opens a wide one.
    ///
    /// # Panics
    ///
    /// Where the system has none left.
    pub fn open() -> Terminal {
        let size = Winsize {
            ws_row: LINES,
            ws_col: COLUMNS,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let ends = openpty(&size, None).expect("a pseudo-terminal");
        let written = Arc::new(Mutex::new(Vec::new()));
        let reader = {
            let (end, written) = (File::from(ends.master), written.clone());
            thread::spawn(move || read(end, &written))
        };
        Terminal {
            program_end: ends.slave,
            written,
            reader,
        }
    }

    /// An end for a standard stream of a process.
    ///
    /// # Panics
    ///
    /// Where too many files are open.
    pub fn stdio(&self) -> Stdio {
        self.program_end.try_clone().expect("a descriptor").into()
    }

    /// What it shows now.
    pub fn screen(&self) -> Screen {
        Screen::after(&self.written)
    }

    /// What it shows after all processes have closed it.
    ///
    /// # Panics
    ///
    /// Where the reader has panicked.
    pub fn close(self) -> Screen {
        drop(self.program_end);
        self.reader.join().expect("the reader ends");
        Screen::after(&self.written)
    }
}

impl Screen {
    fn after(written: &Mutex<Vec<u8>>) -> Screen {
        let raw = written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let lines = NonZeroU16::new(LINES).expect("not 0");
        let columns = NonZeroU16::new(COLUMNS).expect("not 0");
        let mut screen = vt100::Parser::new(lines, columns, 0);
        screen.process(&raw);
        Screen {
            raw: String::from_utf8_lossy(&raw).into_owned(),
            text: screen.screen().contents(),
        }
    }
}

/// Reads until nothing has the other end open: that is an error (EIO) on Linux, and the end elsewhere.
fn read(mut end: File, written: &Mutex<Vec<u8>>) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = end.read(&mut bytes) {
        let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
        written.extend(&bytes[..count]);
    }
}
