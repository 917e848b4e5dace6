//! Log sequence numbers: positions in the write-ahead log (PostgreSQL manual, "`pg_lsn` Type").

use std::fmt;
use std::str::FromStr;

/// A position in the write-ahead log: the offset in bytes since the cluster was initialized.
///
/// Text is that of PostgreSQL's `pg_lsn` type, two hexadecimal halves:
///
/// ```
/// use lantern::replication::Lsn;
///
/// let position: Lsn = "16/B374D848".parse()?;
/// assert_eq!(position, Lsn(0x16_B374_D848));
/// assert_eq!(position.to_string(), "16/B374D848");
/// assert_eq!(Lsn(0x16_B374_D850).bytes_since(position), 8);
/// # Ok::<(), lantern::replication::ParseLsnError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// `0/0`: no position. START_REPLICATION takes it for the slot's confirmed position.
    pub const ZERO: Lsn = Lsn(0);

    /// The number of bytes of WAL from `earlier` to here; 0 if `earlier` is not earlier.
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & u64::from(u32::MAX))
    }
}

/// The text was not a log sequence number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a log sequence number: it should look like 16/B374D848")]
pub struct ParseLsnError(String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Lsn, ParseLsnError> {
        let halves = text
            .split_once('/')
            .and_then(|(high, low)| Some((half(high)?, half(low)?)));
        let (high, low) = halves.ok_or_else(|| ParseLsnError(text.to_owned()))?;
        Ok(Lsn(u64::from(high) << 32 | u64::from(low)))
    }
}

/// One to eight hexadecimal digits. `from_str_radix` alone would also take a sign.
fn half(digits: &str) -> Option<u32> {
    let plain = digits.len() <= 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    plain
        .then(|| u32::from_str_radix(digits, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_that_of_the_pg_lsn_type() {
        for (text, number) in [
            ("0/0", 0),
            ("16/B374D848", 0x16_B374_D848),
            ("0/1", 1),
            ("FFFFFFFF/FFFFFFFF", u64::MAX),
            ("1/0", 1 << 32),
        ] {
            assert_eq!(Lsn(number).to_string(), text);
            assert_eq!(text.parse(), Ok(Lsn(number)));
        }
        assert_eq!("16/b374d848".parse(), Ok(Lsn(0x16_B374_D848)));
        assert_eq!("00000016/0000000A".parse(), Ok(Lsn(0x16_0000_000A)));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "/",
            "1",
            "1/",
            "/1",
            "1/2/3",
            "g/0",
            "+1/0",
            "1/-1",
            "123456789/0",
            " 1/0",
            "1/é",
        ] {
            assert_eq!(
                text.parse::<Lsn>(),
                Err(ParseLsnError(text.to_owned())),
                "{text}"
            );
        }
    }

    #[test]
    fn positions_are_ordered_as_in_the_log() {
        assert!("0/FFFFFFFF".parse::<Lsn>().unwrap() < "1/0".parse().unwrap());
        assert_eq!(Lsn::default(), Lsn::ZERO);
        assert_eq!(Lsn(7).bytes_since(Lsn(3)), 4);
        assert_eq!(Lsn(3).bytes_since(Lsn(7)), 0);
    }
}
