//! The most WAL that a slot may retain, as a person writes it: `16GB`, `off`.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::byte_size::{self, Size};

/// One WAL segment of the default size. The server keeps and removes WAL in whole segments, so less would have no
/// meaning.
const MIN_BYTES: u64 = 16 << 20;

/// The most WAL that a slot may retain (`--max-retained-wal`).
///
/// ```
/// use lantern::pipeline::slot::retention_limit::RetentionLimit;
///
/// let limit: RetentionLimit = "16GB".parse().unwrap();
/// assert!(limit.is_exceeded_by((16 << 30) + 1));
/// assert!(!limit.is_exceeded_by(16 << 30));
/// assert_eq!(limit.to_string(), "16 GB");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionLimit {
    /// There is none.
    Off,
    /// In bytes.
    Bytes(NonZeroU64),
}

impl RetentionLimit {
    /// Whether this is more than the limit allows.
    pub fn is_exceeded_by(self, bytes: u64) -> bool {
        match self {
            RetentionLimit::Off => false,
            RetentionLimit::Bytes(limit) => bytes > limit.get(),
        }
    }

    /// Whether this is more than a part of the limit: 2 for a half, 4 for a quarter.
    pub fn is_exceeded_by_share(self, bytes: u64, share: u64) -> bool {
        self.is_exceeded_by(bytes.saturating_mul(share))
    }
}

/// The text is not a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimit {
    /// It is not a whole number with a unit, or too large.
    #[error(
        "`{0}` is not a size: write a whole number and a unit (kB, MB, GB, TB), such as 16GB, or off"
    )]
    Form(String),
    /// It is less than one WAL segment.
    #[error("`{0}` is less than one WAL segment; write 16MB or more, or off")]
    TooSmall(String),
}

impl FromStr for RetentionLimit {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        if text == "off" {
            return Ok(RetentionLimit::Off);
        }
        let form = || InvalidLimit::Form(text.to_owned());
        let bytes = byte_size::parse(text).ok_or_else(form)?;
        NonZeroU64::new(bytes)
            .filter(|bytes| bytes.get() >= MIN_BYTES)
            .map(RetentionLimit::Bytes)
            .ok_or_else(|| InvalidLimit::TooSmall(text.to_owned()))
    }
}

impl fmt::Display for RetentionLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RetentionLimit::Off => f.write_str("off"),
            RetentionLimit::Bytes(bytes) => write!(f, "{}", Size(bytes.get())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_mean_what_they_mean_in_postgresql_conf() {
        let bytes = |text: &str| match text.parse() {
            Ok(RetentionLimit::Bytes(bytes)) => bytes.get(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(bytes("16GB"), 17_179_869_184);
        assert_eq!(bytes("500MB"), 524_288_000);
        assert_eq!(bytes("500 MB"), 524_288_000);
        assert_eq!(bytes("16384kB"), 16 << 20);
        assert_eq!(bytes("16777216B"), 16 << 20);
        assert_eq!(bytes("2TB"), 2 << 40);
        assert_eq!("off".parse(), Ok(RetentionLimit::Off));
    }

    #[test]
    fn a_text_that_is_no_size_is_refused() {
        for text in [
            "",
            "GB",
            "16",
            "16gb",
            "16GiB",
            "1.5GB",
            "-1GB",
            "99999999TB",
            "all",
        ] {
            let refused = Err(InvalidLimit::Form(text.to_owned()));
            assert_eq!(text.parse::<RetentionLimit>(), refused);
        }
        for text in ["0MB", "15MB"] {
            let refused = Err(InvalidLimit::TooSmall(text.to_owned()));
            assert_eq!(text.parse::<RetentionLimit>(), refused);
        }
    }

    #[test]
    fn sizes_are_printed_as_they_are_written() {
        let printed = |text: &str| text.parse::<RetentionLimit>().unwrap().to_string();
        assert_eq!(printed("16GB"), "16 GB");
        assert_eq!(printed("1536MB"), "1.5 GB");
        assert_eq!(Size(0).to_string(), "0 B");
        assert_eq!(Size(921_600).to_string(), "900 kB");
    }

    #[test]
    fn a_share_of_the_limit_is_a_part_of_it() {
        let limit: RetentionLimit = "16MB".parse().unwrap();
        assert!(!limit.is_exceeded_by(16 << 20));
        assert!(limit.is_exceeded_by((16 << 20) + 1));
        assert!(limit.is_exceeded_by_share((8 << 20) + 1, 2));
        assert!(!limit.is_exceeded_by_share(8 << 20, 2));
        assert!(!RetentionLimit::Off.is_exceeded_by(u64::MAX));
    }
}
