//! Names of replication slots.

use std::fmt;
use std::str::FromStr;

/// The longest name that the server takes: `NAMEDATALEN` less the terminator, in bytes.
const MAX_LENGTH: usize = 63;

/// A name that a replication slot can have: 1 to 63 of `a`–`z`, `0`–`9` and `_`.
///
/// The rule is that of the server's `ReplicationSlotValidateName` (`slot.c`). Such a name needs no
/// quoting.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName(String);

impl SlotName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text cannot name a replication slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSlotName {
    #[error("a replication slot needs a name")]
    Empty,
    #[error("`{name}` is too long for a replication slot: {} bytes, where {MAX_LENGTH} are allowed", name.len())]
    TooLong { name: String },
    #[error(
        "`{name}` cannot name a replication slot because of {character:?}: use lower-case letters a-z, digits and underscores"
    )]
    Character { name: String, character: char },
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
    fn the_servers_rule_holds() {
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
    fn the_error_says_what_to_do() {
        let sentence = "Job 1".parse::<SlotName>().unwrap_err().to_string();
        assert!(
            sentence.contains("Job 1") && sentence.contains("lower-case"),
            "{sentence}"
        );
    }
}
