//! How the documents of a job are cut, and what is embedded of each passage.

use std::sync::Arc;

use super::found::{Document, FoundDocument};
use super::plan::{Plan, PlannedDocument, Trust, WantedPassage};
use crate::pipeline::table::passages::PassageTable;
use crate::pipeline::table::template::Template;
use crate::splitting::{Splitting, TokenCount, split};

/// Cuts the documents of a job. Clones share the tokenizer.
#[derive(Clone)]
pub struct Cutter {
    splitting: Splitting,
    tokens: Arc<dyn TokenCount + Send + Sync>,
    table: Arc<PassageTable>,
    template: Option<Arc<Template>>,
    trust: Trust,
}

impl Cutter {
    /// For a job that writes its passages into `table`.
    pub fn new(
        splitting: Splitting,
        tokens: Arc<dyn TokenCount + Send + Sync>,
        table: &PassageTable,
        template: Option<&Template>,
        trust: Trust,
    ) -> Self {
        Cutter {
            splitting,
            tokens,
            table: Arc::new(table.clone()),
            template: template.cloned().map(Arc::new),
            trust,
        }
    }

    /// Cuts a document and compares its passages with the stored ones. It takes long for a long text, so it is work for a
    /// blocking thread.
    pub fn plan(&self, found: FoundDocument) -> Plan {
        let FoundDocument {
            document,
            stored,
            version,
        } = found;
        let wanted = split(&document.text, &self.splitting, &*self.tokens);
        let wanted = wanted.into_iter().map(|passage| WantedPassage {
            span: (position(passage.chars.start), position(passage.chars.end)),
            fingerprint: {
                let chunk = &document.text[passage.bytes.clone()];
                self.table
                    .passages
                    .compute(&self.embedded_text(&document, chunk))
            },
            bytes: passage.bytes,
        });
        let wanted = wanted.collect();
        let (values, text) = (&document.values, &document.text);
        let planned = PlannedDocument {
            fingerprint: self.table.documents.compute(values, text),
            document,
        };
        Plan::new(planned, wanted, &stored, version, self.trust)
    }

    /// What is embedded of a passage of a document.
    pub fn embedded_text(&self, document: &Document, chunk: &str) -> String {
        match &self.template {
            Some(template) => template.apply(chunk, &document.values),
            None => chunk.to_owned(),
        }
    }
}

/// A position in a text, which PostgreSQL limits to less than 2³⁰ bytes.
fn position(characters: usize) -> i32 {
    i32::try_from(characters).unwrap_or(i32::MAX)
}
