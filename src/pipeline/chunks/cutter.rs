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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::embedding::TextTokenizer;
    use crate::splitting::Mode;

    #[test]
    fn no_passage_has_more_tokens_than_the_model_reads_of_it() {
        let files = ["bert", "gpt2"].map(|name| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny");
            TextTokenizer::load(&folder.join(name).join("tokenizer.json"), 1 << 20, false).unwrap()
        });
        let part = prop::sample::select(vec![
            "word",
            "A sentence ends.",
            "it's (x, y)",
            " ",
            "\n",
            "\n\n",
            "\r\n",
            "\t",
            "# Heading\n",
            "```\n",
            "- item",
            "fn f() {\n",
            "}\n",
            "変更を送る。",
            "é",
            "e\u{301}",
            "👩‍👩‍👧",
            "\u{85}",
            "\u{3000}",
            "\u{200b}",
            "\u{0}",
            "[MASK]",
            "internationalization",
        ]);
        let mode = prop::sample::select(vec![
            Mode::Text,
            Mode::Markdown,
            "code:rust".parse().unwrap(),
        ]);
        let parts = prop::collection::vec(part, 0..120);
        proptest!(|(parts in parts, max_tokens in 8_usize..60, overlap in 0_usize..20, mode in mode, is_spaced: bool)| {
            let text = parts.join(if is_spaced { " " } else { "" });
            let splitting = Splitting { mode, max_tokens, overlap };
            for tokenizer in &files {
                let passages = split(&text, &splitting, &|text: &str| tokenizer.count(text).unwrap());
                let special = tokenizer.ids("").unwrap().len();
                for passage in passages {
                    let passage = &text[passage.bytes];
                    let tokens = tokenizer.ids(passage).unwrap().len() - special;
                    let is_exempt = passage.chars().count() == 1 || passage.trim().is_empty();
                    prop_assert!(is_exempt || tokens <= max_tokens, "{tokens} tokens: {passage:?}");
                }
            }
        });
    }
}
