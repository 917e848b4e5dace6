//! The progress bar on the last line of the terminal, and how other lines pass it.
//!
//! It is drawn through the queue of standard error. So it stands behind the lines that were written before, and a terminal
//! that is halted (Ctrl-S) stops no work.

use std::io::{self, IsTerminal};
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::queue;

/// How often a second the bar is drawn at most.
const REFRESH_RATE: u8 = 10;
/// How often the bar is drawn while nothing changes but the time.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// The columns of a terminal that does not tell them.
const DEFAULT_WIDTH: u16 = 80;

/// The bar that is shown.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn bar_shown() -> MutexGuard<'static, Option<ProgressBar>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether standard error is a terminal that can move its cursor.
pub fn is_possible() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|name| name.is_empty() || name == "dumb");
    io::stderr().is_terminal() && !is_dumb
}

/// The columns of the terminal.
pub fn width() -> u16 {
    let size = terminal_size::terminal_size_of(io::stderr());
    size.map_or(DEFAULT_WIDTH, |(width, _)| width.0.max(1))
}

/// Shows a bar; `None` where it is not possible, or another one is shown.
pub fn show(total: Option<u64>, style: ProgressStyle) -> Option<ShownBar> {
    let mut shown = bar_shown();
    if !is_possible() || shown.is_some() {
        return None;
    }
    let terminal = Box::new(LastLine::default());
    let target = ProgressDrawTarget::term_like_with_hz(terminal, REFRESH_RATE);
    let bar = ProgressBar::with_draw_target(total, target).with_style(style);
    *shown = Some(bar.clone());
    drop(shown);
    bar.enable_steady_tick(TICK_INTERVAL);
    Some(ShownBar(bar))
}

/// Writes lines while the bar is not there, and shows it below them.
pub fn aside<R>(write: impl FnOnce() -> R) -> R {
    let shown = bar_shown().clone();
    match shown {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Writes to standard output, which may be the same terminal: after the lines that are on their way to it, and while the
/// bar is not there.
pub fn aside_for_stdout<R>(write: impl FnOnce() -> R) -> R {
    match is_possible() {
        true => aside(|| {
            queue::flush();
            write()
        }),
        false => write(),
    }
}

/// A bar that is shown until it is dropped.
pub struct ShownBar(ProgressBar);

impl Deref for ShownBar {
    type Target = ProgressBar;

    fn deref(&self) -> &ProgressBar {
        &self.0
    }
}

impl Drop for ShownBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
        *bar_shown() = None;
    }
}

/// Collects what makes up one state of the bar, and adds it to the queue as a whole.
#[derive(Debug, Default)]
struct LastLine {
    frame: Mutex<String>,
}

impl LastLine {
    fn add(&self, text: &str) {
        self.frame().push_str(text);
    }

    /// Moves the cursor, with one of the sequences of ECMA-48.
    fn move_cursor(&self, count: usize, direction: char) {
        if count > 0 {
            self.add(&format!("\x1b[{count}{direction}"));
        }
    }

    fn frame(&self) -> MutexGuard<'_, String> {
        self.frame.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TermLike for LastLine {
    fn width(&self) -> u16 {
        width()
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.move_cursor(lines, 'A');
        Ok(())
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.move_cursor(lines, 'B');
        Ok(())
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.move_cursor(columns, 'C');
        Ok(())
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.move_cursor(columns, 'D');
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(text);
        self.add("\n");
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K");
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut frame = self.frame();
        if !frame.is_empty() {
            queue::push_frame(frame.as_bytes());
            frame.clear();
        }
        Ok(())
    }
}
