//! The fingerprint of a row: which text and model its vector was computed from, in a column beside the vector.
//!
//! A vector does not show its text. With a fingerprint the row itself tells whether its vector is current: an update of
//! another column is recognized in the stream, and after a lost slot or a change of model exactly the rows that need it are
//! embedded again.

use md5::{Digest, Md5};
use uuid::Uuid;

use crate::postgres::quote::{identifier, literal};

/// The fingerprint column of a target table.
///
/// A fingerprint is the md5 of the model's identity, the name of the destination and the text, with a line feed after each
/// of the first two, as a uuid. The destination is part of it because two jobs on one table may name the same fingerprint
/// column by mistake, and because a job with a new destination must not trust the fingerprints of the old one. md5, because
/// every server has it as a function; the only person who could profit from a collision is the author of both texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// The name of the column, as the catalog has it, not quoted.
    pub name: String,
    prefix: String,
}

impl Fingerprint {
    /// The fingerprints in the column `name`, of vectors that the model with the identity `model`
    /// ([`Model::identity`](crate::embedding::Model::identity)) computes for the column `destination`.
    pub fn new(name: &str, model: &str, destination: &str) -> Self {
        Fingerprint {
            name: name.to_owned(),
            prefix: format!("{model}\n{destination}\n"),
        }
    }

    /// The fingerprint of a text.
    pub fn compute(&self, text: &str) -> Uuid {
        let digest = Md5::new()
            .chain_update(self.prefix.as_bytes())
            .chain_update(text.as_bytes())
            .finalize();
        Uuid::from_bytes(digest.into())
    }

    /// SQL for the column in the row `alias`.
    pub fn column(&self, alias: &str) -> String {
        format!("{alias}.{}", identifier(&self.name))
    }

    /// SQL for the fingerprint of the text `source`; NULL for NULL.
    pub fn expected(&self, source: &str) -> String {
        format!(
            "md5(convert_to({} || {source}, 'UTF8'))::uuid",
            literal(&self.prefix)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_md5_of_model_destination_and_text() {
        // printf 'm\nd\ntext' | md5sum
        let fingerprint = Fingerprint::new("f", "m", "d");
        assert_eq!(
            fingerprint.compute("text").simple().to_string(),
            "e82ad5c61d5fcf4b20360743a4ad4428"
        );
        assert_ne!(
            fingerprint.compute("text"),
            Fingerprint::new("f", "m", "e").compute("text")
        );
        assert_ne!(
            fingerprint.compute("text"),
            Fingerprint::new("f", "n", "d").compute("text")
        );
    }
}
