//! Which text and model a row's vector is of, kept beside the vector in a column of its own.
//!
//! With it a row tells by itself whether its vector is right: updates of other columns are recognised in the stream, and after
//! a lost slot or a change of model exactly the rows are embedded that need it.

use md5::{Digest, Md5};
use uuid::Uuid;

use crate::postgres::quote::{identifier, literal};

/// The fingerprint column of a target table.
///
/// A fingerprint is the md5 of the model's identity, the name of the destination and the text, each but the last followed by a
/// line feed, as a uuid. The destination belongs to it: two jobs on one table may have been given the same column by mistake,
/// and a job with a new destination must not take the fingerprints of the old one for its own. md5, because every server can
/// compute it; nobody gains by a collision but the author of both texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    pub name: String,
    prefix: String,
}

impl Fingerprint {
    /// `name` is the column's, `model` what [`Model::identity`](crate::embedding::Model::identity) says.
    pub fn new(name: &str, model: &str, destination: &str) -> Self {
        Fingerprint {
            name: name.to_owned(),
            prefix: format!("{model}\n{destination}\n"),
        }
    }

    /// The fingerprint of a text.
    pub fn of(&self, text: &str) -> Uuid {
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
    fn it_is_the_md5_of_model_destination_and_text() {
        // printf 'm\nd\ntext' | md5sum
        let fingerprint = Fingerprint::new("f", "m", "d");
        assert_eq!(
            fingerprint.of("text").simple().to_string(),
            "e82ad5c61d5fcf4b20360743a4ad4428"
        );
        assert_ne!(
            fingerprint.of("text"),
            Fingerprint::new("f", "m", "e").of("text")
        );
        assert_ne!(
            fingerprint.of("text"),
            Fingerprint::new("f", "n", "d").of("text")
        );
    }
}
