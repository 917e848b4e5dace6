//! A key or the value of a header, which no output shows.

use std::fmt;

/// A secret. Its debug output does not show it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret, to be sent.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// The text without the secret: servers quote the key that they refuse.
    pub(super) fn redact(&self, text: &str) -> String {
        // A shorter one would tear words apart that have nothing to do with it.
        const SHORTEST: usize = 6;
        match self.0.len() {
            ..SHORTEST => text.to_owned(),
            _ => text.replace(&self.0, "…"),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
