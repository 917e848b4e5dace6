//! Prints what checks have found, a line a point, readable at 80 columns.

use std::io::stdout;

use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use super::logging::has_colors;
use super::output::{self, OutputError};
use crate::pipeline::setup::preflight::points::{Outcome, Point, Points};
use crate::shown::shown;

/// What every terminal can show, in columns.
const WIDTH: usize = 80;
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
    let colors = has_colors(&stdout());
    let mut printed = String::new();
    for point in points {
        printed.push_str(&render(point, titles, colors));
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

fn render(point: &Point, titles: usize, colors: bool) -> String {
    let (sign, color, text) = match &point.outcome {
        Outcome::Passed(text) => ('✓', "32", text.clone()),
        Outcome::Advice(text) => ('!', "33", text.clone()),
        Outcome::Failed(error) => ('✗', "31", error.to_string()),
        Outcome::Unknown(text) => ('·', "2", format!("not looked at: {text}")),
    };
    let sign = match colors {
        true => format!("\x1b[{color}m{sign}\x1b[0m"),
        false => sign.to_string(),
    };
    let indent = SIGN + titles + 2;
    let lines = wrap(&shown(&text), WIDTH.saturating_sub(indent).max(20));
    let title = format!(
        "{}{}",
        point.title,
        " ".repeat(titles - point.title.width())
    );
    let separator = format!("\n{}", " ".repeat(indent));
    format!("{sign} {title}  {}\n", lines.join(&separator))
}

/// The text in lines of at most this width, broken at blanks. A quoted name is not broken, so that SQL can be copied.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words(text) {
        let line = lines.last_mut().expect("there is one");
        if line.is_empty() {
            line.push_str(&word);
        } else if line.width() + 1 + word.width() <= width {
            line.push(' ');
            line.push_str(&word);
        } else {
            lines.push(word);
        }
    }
    lines
}

fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut is_open = false;
    for word in text.split(' ') {
        match words.last_mut() {
            Some(last) if is_open => {
                last.push(' ');
                last.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
        is_open ^= word.matches('"').count() % 2 == 1;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::error::JobError;

    #[test]
    fn a_text_is_broken_at_blanks_outside_of_quoted_names() {
        let text = r#"run: ALTER TABLE "the first"."my table" SET LOGGED;"#;
        assert_eq!(
            wrap(text, 20),
            [
                "run: ALTER TABLE",
                r#""the first"."my table""#,
                "SET LOGGED;"
            ]
        );
        assert_eq!(wrap("", 20), [""]);
        // A quote without its end keeps the rest together, and loses nothing.
        assert_eq!(wrap(r#"a "b c d"#, 3), ["a", r#""b c d"#]);
    }

    #[test]
    fn a_point_is_a_sign_a_title_and_its_text() {
        let point = Point {
            title: "key",
            outcome: Outcome::Failed(JobError::permanent("no key\nrun: x")),
        };
        assert_eq!(render(&point, 5, false), "✗ key    no key\\nrun: x\n");
        assert_eq!(
            render(&point, 5, true),
            "\u{1b}[31m✗\u{1b}[0m key    no key\\nrun: x\n"
        );
        let long = Point {
            title: "rows",
            outcome: Outcome::Unknown("word ".repeat(40)),
        };
        let printed = render(&long, 22, false);
        assert!(
            printed.lines().all(|line| line.width() <= WIDTH),
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
