//! Sizes with a unit, as people write them in `postgresql.conf`.

use std::fmt;

/// Units as there (PostgreSQL manual, "Parameter Names and Values"): powers of 1024, and case matters.
const UNITS: [(&str, u64); 5] = [
    ("TB", 1 << 40),
    ("GB", 1 << 30),
    ("MB", 1 << 20),
    ("kB", 1 << 10),
    ("B", 1),
];

/// The number of bytes of a size such as `64MB`; `None` for what is none, or has no unit, or is too large.
///
/// ```
/// use lantern::byte_size::parse;
///
/// assert_eq!(parse("64MB"), Some(64 << 20));
/// assert_eq!(parse("2 GB"), Some(2 << 30));
/// assert_eq!(parse("64"), None);
/// ```
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let number: u64 = digits.trim_end().parse().ok()?;
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// A number of bytes, for a person: `900 kB`, `1.5 GB`, in the units of [`parse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor)
            .unwrap_or(("B", 1));
        if self.0.is_multiple_of(factor) {
            write!(f, "{} {unit}", self.0 / factor)
        } else {
            write!(f, "{:.1} {unit}", self.0 as f64 / factor as f64)
        }
    }
}
