//! What standard output can show: its width, and whether it has colors.

use std::io::stdout;

use super::logging;

/// What is printed without a terminal may be as wide as it gets.
const UNLIMITED: usize = usize::MAX;

/// What the terminal can show.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Its columns.
    pub width: usize,
    /// Whether it has colors.
    pub colors: bool,
}

impl Style {
    /// That of standard output.
    pub fn of_stdout() -> Style {
        let width = terminal_size::terminal_size_of(stdout()).map(|(width, _)| width.0.into());
        Style {
            width: width.unwrap_or(UNLIMITED),
            colors: logging::has_colors(&stdout()),
        }
    }
}
