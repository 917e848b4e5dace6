//! Names of replication slots, checked by the rules of the server before it is asked.

use std::fmt;
use std::str::FromStr;

/// The longest name in bytes: the server's `NAMEDATALEN` less the terminator.
const MAX_LENGTH: usize = 63;

/// A valid name of a replication slot: 1 to 63 characters from `a`–`z`, `0`–`9` and `_`.
///
/// The rule is that of the server's `ReplicationSlotValidateName` (`slot.c`). Such a name needs no quoting.
///
/// ```
/// use lantern::replication::SlotName;
///
/// assert_eq!(SlotName::try_from("job_42")?.as_str(), "job_42");
/// assert!(SlotName::try_from("Job 42").is_err());
/// # Ok::<(), lantern::replication::InvalidSlotName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName(String);

impl SlotName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text cannot name a replication slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSlotName {
    /// The name is empty.
    #[error("a replication slot needs a name")]
    Empty,
    /// The name has more than 63 bytes.
    #[error("`{name}` is too long for a replication slot: {} bytes, where {MAX_LENGTH} are allowed", name.len())]
    TooLong {
        /// The refused name.
        name: String,
    },
    /// The name has a character that is not allowed.
    #[error(
        "`{name}` cannot name a replication slot because of {character:?}: use lower-case letters a-z, digits and underscores"
    )]
    Character {
        /// The refused name.
        name: String,
        /// Its first character that is not allowed.
        character: char,
    },
}

impl TryFrom<String> for SlotName {
    type Error = InvalidSlotName;

    fn try_from(name: String) -> Result<SlotName, InvalidSlotName> {
        if name.is_empty() {
            return Err(InvalidSlotName::Empty);
        }
        if let Some(character) = name.chars().find(|&character| !is_allowed(character)) {
            return Err(InvalidSlotName::Character { name, character });
        }
        if name.len() > MAX_LENGTH {
            return Err(InvalidSlotName::TooLong { name });
        }
        Ok(SlotName(name))
    }
}

fn is_allowed(character: char) -> bool {
    matches!(character, 'a'..='z' | '0'..='9' | '_')
}

impl TryFrom<&str> for SlotName {
    type Error = InvalidSlotName;

    fn try_from(name: &str) -> Result<SlotName, InvalidSlotName> {
        SlotName::try_from(name.to_owned())
    }
}

impl FromStr for SlotName {
    type Err = InvalidSlotName;

    fn from_str(name: &str) -> Result<SlotName, InvalidSlotName> {
        SlotName::try_from(name)
    }
}

impl AsRef<str> for SlotName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_valid_by_the_rule_of_the_server() {
        for name in ["a", "lantern_job_42", "_", "0", &"x".repeat(63)] {
            assert_eq!(SlotName::try_from(name).unwrap().as_str(), name);
        }
        assert_eq!(SlotName::try_from(""), Err(InvalidSlotName::Empty));
        assert!(matches!(
            SlotName::try_from("x".repeat(64)),
            Err(InvalidSlotName::TooLong { .. })
        ));
        for (name, character) in [
            ("Job", 'J'),
            ("a-b", '-'),
            ("a b", ' '),
            ("ä", 'ä'),
            ("a\"", '"'),
        ] {
            let refused = InvalidSlotName::Character {
                name: name.to_owned(),
                character,
            };
            assert_eq!(SlotName::try_from(name), Err(refused));
        }
    }

    #[test]
    fn the_error_says_which_characters_are_allowed() {
        let sentence = "Job 1".parse::<SlotName>().unwrap_err().to_string();
        assert!(
            sentence.contains("Job 1") && sentence.contains("lower-case"),
            "{sentence}"
        );
    }
}
