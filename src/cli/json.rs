//! JSON that a terminal can print.
//!
//! The format demands that only the characters below U+0020 are escaped (RFC 8259, section 7). Some others act on a
//! terminal or mislead its reader as well, so they are written as escapes too. What a program reads stays the same.

use std::fmt::Write;

use serde::Serialize;

use super::output::{self, OutputError};
use crate::shown::is_misleading;

/// Prints a value, over several lines.
///
/// # Errors
/// If it cannot be written.
pub fn print(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    Ok::<_, OutputError>(output::data(&format!("{}\n", safe(&text)))?).map_err(Into::into)
}

/// The same JSON with misleading characters as escapes. Only strings have any, but for line feeds between members.
pub fn safe(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    let mut rest = json.chars();
    while let Some(c) = rest.next() {
        let after = rest.clone().next();
        if c == '\n' || !is_misleading(c, safe.chars().next_back(), after) {
            safe.push(c);
            continue;
        }
        // Beyond the Basic Multilingual Plane an escape is a pair of surrogates.
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(safe, "\\u{unit:04x}");
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misleading_characters_are_escaped_and_nothing_else_changes() {
        let value =
            serde_json::json!({"k\u{202e}": "a\u{9b}31m \u{e0041}\u{7f}\n", "ü": "👩\u{200d}🔬"});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let safe = safe(&text);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&safe).unwrap(),
            value
        );
        assert!(safe.contains(r"a\u009b31m \udb40\udc41\u007f\n"), "{safe}");
        assert!(
            safe.contains(r"k\u202e") && safe.contains("👩\u{200d}🔬"),
            "{safe}"
        );
        assert_eq!(safe.lines().count(), text.lines().count());
    }
}
