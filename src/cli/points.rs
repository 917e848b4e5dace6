//! Prints what checks have found, a line a point, broken to the width of a terminal.

use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use super::output::{self, OutputError};
use super::remedy_lines;
use super::style::Style;
use crate::pipeline::setup::preflight::points::{Outcome, Point, Points};
use crate::shown::shown;

/// A sign and a blank.
const SIGN: usize = 2;

/// Prints all points that `wanted` says.
///
/// # Errors
/// If they cannot be written.
pub fn print(points: &Points, wanted: impl Fn(&Outcome) -> bool) -> Result<(), OutputError> {
    let points: Vec<&Point> = points
        .iter()
        .filter(|point| wanted(&point.outcome))
        .collect();
    let titles = points
        .iter()
        .map(|point| point.title.width())
        .max()
        .unwrap_or(0);
    let style = Style::of_stdout();
    let mut printed = String::new();
    for point in points {
        printed.push_str(&render(point, titles, style));
    }
    output::data(&printed)
}

/// The points as a program reads them.
pub fn to_json(points: &Points) -> Value {
    let points = points.iter().map(|point| {
        let (outcome, text) = match &point.outcome {
            Outcome::Passed(text) => ("passed", text.clone()),
            Outcome::Advice(text) => ("advice", text.clone()),
            Outcome::Failed(error) => ("failed", error.to_string()),
            Outcome::Unknown(text) => ("unknown", text.clone()),
        };
        json!({ "point": point.title, "outcome": outcome, "text": text })
    });
    points.collect()
}

fn render(point: &Point, titles: usize, style: Style) -> String {
    let (sign, color, text) = match &point.outcome {
        Outcome::Passed(text) => ('✓', "32", text.clone()),
        Outcome::Advice(text) => ('!', "33", text.clone()),
        Outcome::Failed(error) => ('✗', "31", error.to_string()),
        Outcome::Unknown(text) => ('·', "2", format!("not looked at: {text}")),
    };
    let sign = match style.colors {
        true => format!("\x1b[{color}m{sign}\x1b[0m"),
        false => sign.to_string(),
    };
    let indent = SIGN + titles + 2;
    let lines = remedy_lines::wrap(&shown(&text), style.width.saturating_sub(indent).max(20));
    let title = format!(
        "{}{}",
        point.title,
        " ".repeat(titles - point.title.width())
    );
    let separator = format!("\n{}", " ".repeat(indent));
    format!("{sign} {title}  {}\n", lines.join(&separator))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::error::JobError;

    const TERMINAL: Style = Style {
        width: 80,
        colors: false,
    };

    #[test]
    fn a_point_is_a_sign_a_title_and_its_text() {
        let point = Point {
            title: "key",
            outcome: Outcome::Failed(JobError::permanent("no key\nrun: x")),
        };
        assert_eq!(render(&point, 5, TERMINAL), "✗ key    no key\\nrun: x\n");
        let colored = Style {
            colors: true,
            ..TERMINAL
        };
        assert_eq!(
            render(&point, 5, colored),
            "\u{1b}[31m✗\u{1b}[0m key    no key\\nrun: x\n"
        );
        let long = Point {
            title: "rows",
            outcome: Outcome::Unknown("word ".repeat(40)),
        };
        let printed = render(&long, 22, TERMINAL);
        assert!(
            printed.lines().all(|line| line.width() <= TERMINAL.width),
            "{printed}"
        );
        assert!(
            printed
                .lines()
                .nth(1)
                .is_some_and(|line| line.starts_with(&" ".repeat(26)))
        );
    }
}
