//! A source text on its way through the pipeline: what a model may read of it, and what tells it from all others.
//!
//! PostgreSQL allows texts of up to 1 GB. No model reads more than the first pages of one. So a text that is longer than
//! [`MAX_HEAD`] is cut, as soon as it has arrived or before it is sent, and the digest of the whole text takes the place of
//! the rest: memory is bounded however long the texts are, and a write-back does not send them back.

use std::sync::Arc;

use sha2::{Digest, Sha256};

/// A longer text is cut after this many bytes, at a character.
///
/// Of a text of average words, that is more than any window of tokens.
pub const MAX_HEAD: usize = 1 << 20;

/// A text to embed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    head: Arc<str>,
    digest: Option<Box<[u8; 32]>>,
}

impl Text {
    /// This text, cut where it is long.
    pub fn new(text: &str) -> Self {
        let whole = text.len() <= MAX_HEAD;
        Text {
            head: head(text).into(),
            digest: (!whole).then(|| Box::new(Sha256::digest(text.as_bytes()).into())),
        }
    }

    /// The text that [`sql`] has selected; `None` for a NULL.
    pub fn from_columns(head: Option<&str>, digest: Option<&[u8]>) -> Option<Self> {
        let text = head?;
        let Some(digest) = digest.and_then(|digest| digest.try_into().ok()) else {
            return Some(Text::new(text));
        };
        Some(Text {
            head: self::head(text).into(),
            digest: Some(Box::new(digest)),
        })
    }

    /// What is left of the text. The embedding engine's queue shares it, so that memory holds it once.
    pub fn head(&self) -> &Arc<str> {
        &self.head
    }

    /// The text, if it is whole.
    pub fn whole(&self) -> Option<&str> {
        self.digest.is_none().then_some(&*self.head)
    }

    /// The SHA-256 of the whole text in UTF-8, if it was cut.
    pub fn digest(&self) -> Option<&[u8]> {
        self.digest.as_deref().map(<[u8; 32]>::as_slice)
    }

    /// Bytes that are different for different texts.
    pub fn identity(&self) -> &[u8] {
        self.digest().unwrap_or(self.head.as_bytes())
    }
}

fn head(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_HEAD)]
}

/// SQL for two columns: the text `source`, which may be cut, and the digest of the whole text if it is.
///
/// `left` counts characters, so some bytes more than are kept may be sent.
pub fn sql(source: &str) -> String {
    format!(
        "CASE WHEN octet_length({source}) > {MAX_HEAD} THEN left({source}, {MAX_HEAD}) ELSE {source} END, \
         CASE WHEN octet_length({source}) > {MAX_HEAD} THEN {} END",
        digest_sql(source)
    )
}

/// SQL for the digest of the text `source`.
pub fn digest_sql(source: &str) -> String {
    format!("sha256(convert_to({source}, 'UTF8'))")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_at_a_character_and_still_told_from_others() {
        let text = "ä".repeat(MAX_HEAD);
        let (one, other) = (
            Text::new(&format!("x{text}")),
            Text::new(&format!("x{text}y")),
        );
        assert_eq!(one.head().len(), MAX_HEAD - 1);
        assert_eq!(one.head(), other.head());
        assert_ne!(one, other);
        assert_ne!(one.identity(), other.identity());
        assert_eq!(one.whole(), None);
    }

    #[test]
    fn a_text_that_is_not_long_stays_as_it_is() {
        let text = "x".repeat(MAX_HEAD);
        assert_eq!(Text::new(&text).whole(), Some(text.as_str()));
        assert_eq!(Text::new(&text).identity(), text.as_bytes());
    }

    #[test]
    fn the_server_and_the_client_cut_alike() {
        let text = "é".repeat(MAX_HEAD);
        let here = Text::new(&text);
        let there = Text::from_columns(Some(&text), here.digest());
        assert_eq!(there.as_ref(), Some(&here));
        assert_eq!(Text::from_columns(None, None), None);
    }
}
