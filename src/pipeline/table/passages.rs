//! The table of passages of a job that cuts its documents, and which document the passages of a row are of.
//!
//! ```text
//! key … │ chunk_seq │ chunk_start │ chunk_end │ chunk │ embedding │ chunk_fingerprint │ document_fingerprint
//!                     characters of the source text                 of the passage      of the whole row, on
//!                     from 0, half open                                                 chunk_seq 0 alone
//! ```

use md5::{Digest, Md5};
use uuid::Uuid;

use super::fingerprint::Fingerprint;
use super::template::Template;
use crate::postgres::quote::identifier;

/// The columns of a table of passages besides the key and the vectors, with their types.
pub const COLUMNS: [(&str, &str); 6] = [
    (SEQ, "integer"),
    (START, "integer"),
    (END, "integer"),
    (CHUNK, "text"),
    (CHUNK_FINGERPRINT, "uuid"),
    (DOCUMENT_FINGERPRINT, "uuid"),
];
/// The place of a passage in its document, from 0.
pub const SEQ: &str = "chunk_seq";
/// Where the passage begins in the source text, in characters from 0.
pub const START: &str = "chunk_start";
/// Where it ends: the character after its last one.
pub const END: &str = "chunk_end";
/// The passage.
pub const CHUNK: &str = "chunk";
/// Which text and model the vector is of, wherever the passage stands.
pub const CHUNK_FINGERPRINT: &str = "chunk_fingerprint";
/// Which text, fields and options the passages of the document are of. On the first passage alone.
pub const DOCUMENT_FINGERPRINT: &str = "document_fingerprint";

/// A table of passages. The column of the vectors is the destination of its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassageTable {
    /// The OID in `pg_class`; 0 for a table that the job has yet to create.
    pub oid: u32,
    /// As the catalog has it, not quoted.
    pub schema: String,
    /// As the catalog has it, not quoted.
    pub name: String,
    /// The fingerprints of passages.
    pub passages: Fingerprint,
    /// Those of documents.
    pub documents: DocumentFingerprint,
    /// How documents are cut.
    pub cutting: Cutting,
    /// A larger document is quarantined.
    pub max_document_bytes: usize,
    /// What is looked at before the passages of a row count as right.
    pub check: PassageCheck,
}

/// What is looked at before the passages of a row count as right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PassageCheck {
    /// The fingerprint of the document.
    #[default]
    Document,
    /// Each passage, too: its number, its fingerprint, and that it has a vector.
    EachPassage,
}

/// How documents are cut into passages, with all defaults resolved for the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cutting {
    /// `text`, `markdown`, `code:rust`.
    pub mode: String,
    /// The most tokens of a passage, with its overlap.
    pub max_tokens: usize,
    /// How many of them may be the end of the passage before.
    pub overlap: usize,
}

impl Cutting {
    /// One text for each way to cut documents. A part of fingerprints on servers, so it never changes.
    ///
    /// It has no version of the splitter: passages that another version has cut are as right as others until their text
    /// changes. With a version, readers of the view would have no document after an update until all are cut again.
    pub fn canonical(&self) -> String {
        format!("{}/{}/{}", self.mode, self.max_tokens, self.overlap)
    }
}

impl PassageTable {
    /// Schema and name, quoted.
    pub fn qualified(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }
}

/// Which document a set of passages is of: the md5 of the model's identity, the destination, the options of splitting and
/// the template, each with a line feed behind it, then the fields of the template, then the text.
///
/// A field is its length in characters, a colon, its text and a comma; `-,` for NULL. So no two rows run together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentFingerprint {
    pub(super) prefix: String,
}

impl DocumentFingerprint {
    /// For passages that the model with this identity embeds for the column `destination`. `splitting` is one text for
    /// each way to cut documents.
    pub fn new(
        model: &str,
        destination: &str,
        splitting: &str,
        template: Option<&Template>,
    ) -> Self {
        let template = template.map(Template::canonical).unwrap_or_default();
        DocumentFingerprint {
            prefix: format!("{model}\n{destination}\n{splitting}\n{template}\n"),
        }
    }

    /// The fingerprint of a row with these values of the template's columns and this text.
    pub fn compute(&self, values: &[Option<String>], text: &str) -> Uuid {
        let mut digest = Md5::new().chain_update(self.prefix.as_bytes());
        for value in values {
            match value {
                Some(value) => {
                    digest.update(format!("{}:{value},", value.chars().count()).as_bytes());
                }
                None => digest.update(b"-,"),
            }
        }
        Uuid::from_bytes(digest.chain_update(text.as_bytes()).finalize().into())
    }
}

#[cfg(test)]
impl PassageTable {
    /// `public.docs_chunks`, for unit tests.
    pub fn example() -> Self {
        PassageTable {
            oid: 12,
            schema: "public".into(),
            name: "docs_chunks".into(),
            passages: Fingerprint::new(CHUNK_FINGERPRINT, "m", "embedding"),
            documents: DocumentFingerprint::new("m", "embedding", "s", None),
            cutting: Cutting::default(),
            max_document_bytes: 16 << 20,
            check: PassageCheck::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_told_by_text_fields_and_options() {
        let fingerprint = DocumentFingerprint::new("m", "d", "s", None);
        // printf 'm\nd\ns\n\ntext' | md5sum
        assert_eq!(
            fingerprint.compute(&[], "text").simple().to_string(),
            "a44a8cb160a5f179733f4b6510a37d64"
        );
        let value = |text: &str| Some(text.to_owned());
        let all = [
            fingerprint.compute(&[], "text"),
            fingerprint.compute(&[None], "text"),
            fingerprint.compute(&[value("")], "text"),
            fingerprint.compute(&[value("a"), value("b")], "text"),
            fingerprint.compute(&[value("a,1:b")], "text"),
            DocumentFingerprint::new("m", "d", "t", None).compute(&[], "text"),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
