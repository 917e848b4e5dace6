//! How the demo speaks: titles with the time since the start in the margin, aligned facts below them, one progress bar.
//! Colors and redrawing only on a terminal; <https://no-color.org> is respected.

use std::cell::Cell;
use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

/// Width of the margin that holds the elapsed time.
const MARGIN: usize = 10;
/// Width of the names in front of facts.
const NAMES: usize = 22;
const BAR: usize = 40;

pub struct Console {
    started: Instant,
    terminal: bool,
    colors: bool,
    bar_on_screen: Cell<bool>,
}

impl Console {
    pub fn new() -> Console {
        let terminal = stdout().is_terminal();
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Console {
            started: Instant::now(),
            terminal,
            colors: terminal && !unwanted,
            bar_on_screen: Cell::new(false),
        }
    }

    pub fn title(&self, text: &str) {
        let elapsed = format!("{:>6.1} s", self.started.elapsed().as_secs_f64());
        self.say(&format!("\n{}  {}", self.dim(&elapsed), self.bold(text)));
    }

    pub fn fact(&self, name: &str, value: &str) {
        self.say(&format!(
            "{:MARGIN$}{} {value}",
            "",
            self.dim(&format!("{name:<NAMES$}"))
        ));
    }

    /// A fact that is a duration: figures stand below each other.
    pub fn measured(&self, name: &str, took: Duration, note: &str) {
        let figure = self.bold(&format!("{:>8.1} ms", milliseconds(took)));
        self.say(&format!(
            "{:MARGIN$}{name:<40}{figure}  {}",
            "",
            self.dim(note)
        ));
    }

    /// A line of a table with two columns of figures.
    pub fn row(&self, name: &str, figures: [impl AsRef<str>; 2], note: &str) {
        let [left, right] = &figures;
        let figures = format!("{:>11} {:>10}", left.as_ref(), right.as_ref());
        self.say(&format!(
            "{:MARGIN$}{name:<40}{figures}  {}",
            "",
            self.dim(note)
        ));
    }

    pub fn note(&self, text: &str) {
        self.say(&format!("{:MARGIN$}{}", "", self.dim(text)));
    }

    pub fn question(&self, text: &str) {
        self.say(&format!(
            "\n{:MARGIN$}{}",
            "",
            self.accent(&format!("“{text}”"))
        ));
    }

    /// Text of several lines, moved in under the title.
    pub fn block(&self, text: &str) {
        for line in text.trim_end().lines() {
            self.say(&format!("{:MARGIN$}{line}", ""));
        }
    }

    pub fn failure(&self, text: &str) {
        self.say(&format!("\n{:>MARGIN$}{}", "failed  ", self.alarm(text)));
    }

    /// Draws the bar over its last state. Where the output is no terminal, the facts that follow have to do.
    pub fn progress(&self, done: i64, all: i64) {
        if !self.terminal {
            return;
        }
        let filled = (BAR as i64 * done / all.max(1)) as usize;
        let bar = format!(
            "{}{}",
            self.accent(&"━".repeat(filled)),
            self.dim(&"━".repeat(BAR - filled))
        );
        print!("\r{:MARGIN$}{bar}  {done}/{all} rows", "");
        let _ = stdout().flush();
        self.bar_on_screen.set(true);
    }

    /// Leaves the bar as it is and goes on below it.
    pub fn end_progress(&self) {
        if self.bar_on_screen.replace(false) {
            self.say("");
        }
    }

    // A reader that hung up (`make demo | head`) must not end the demo halfway through its clean-up.
    fn say(&self, line: &str) {
        let _ = writeln!(stdout(), "{}", line.trim_end());
    }

    fn bold(&self, text: &str) -> String {
        self.styled("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.styled("2", text)
    }

    fn accent(&self, text: &str) -> String {
        self.styled("36", text)
    }

    fn alarm(&self, text: &str) -> String {
        self.styled("31", text)
    }

    /// `code` is a parameter of "Select Graphic Rendition", ECMA-48 section 8.3.117.
    fn styled(&self, code: &str, text: &str) -> String {
        if self.colors && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }
}

pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A duration with the unit that suits it: `8.4 ms`, `3.2 s`.
pub fn short(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{:.1} ms", milliseconds(duration))
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}
