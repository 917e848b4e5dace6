//! One line of the table of known models.

use crate::embedding::pooling::PoolingMode;

/// A published model, as its publishers describe it.
pub(crate) struct KnownModel {
    /// The canonical name.
    pub name: &'static str,
    /// Other names that jobs may use.
    pub aliases: &'static [&'static str],
    /// Where its export is, if its own repository has none under the usual name.
    pub source: Option<Source>,
    /// The length of its vectors.
    pub dimensions: usize,
    /// The longest input in tokens, special tokens included.
    pub max_tokens: usize,
    /// `None` if its publishers do not say.
    pub pooling: Option<PoolingMode>,
    /// What its publishers put before a query; empty for nothing, `None` if they do not say.
    pub query_prompt: Option<&'static str>,
    /// What they put before a document, likewise.
    pub document_prompt: Option<&'static str>,
    /// The tasks of its texts, if its graph takes the number of one.
    pub tasks: Option<RoleTasks>,
    /// The license in its model card.
    pub license: Option<&'static str>,
    /// Why it cannot be used, and what to do.
    pub unsupported: Option<&'static str>,
}

/// The names of the tasks that the texts of each role have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoleTasks {
    /// That of a query.
    pub query: &'static str,
    /// That of a document.
    pub document: &'static str,
}

/// A repository that has the export of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    /// Its name.
    pub repository: &'static str,
    /// The graph in it.
    pub graph: &'static str,
}

/// An entry without prompts and license.
pub(super) const fn model(
    name: &'static str,
    dimensions: usize,
    max_tokens: usize,
    pooling: Option<PoolingMode>,
) -> KnownModel {
    KnownModel {
        name,
        aliases: &[],
        source: None,
        dimensions,
        max_tokens,
        pooling,
        query_prompt: None,
        document_prompt: None,
        tasks: None,
        license: None,
        unsupported: None,
    }
}

impl KnownModel {
    pub(super) const fn aliases(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    pub(super) const fn from(self, repository: &'static str, graph: &'static str) -> Self {
        let source = Some(Source { repository, graph });
        Self { source, ..self }
    }

    pub(super) const fn prompts(self, query: &'static str, document: &'static str) -> Self {
        Self {
            query_prompt: Some(query),
            document_prompt: Some(document),
            ..self
        }
    }

    pub(super) const fn tasks(self, query: &'static str, document: &'static str) -> Self {
        let tasks = Some(RoleTasks { query, document });
        Self { tasks, ..self }
    }

    pub(super) const fn license(self, license: &'static str) -> Self {
        Self {
            license: Some(license),
            ..self
        }
    }

    pub(super) const fn unsupported(self, reason: &'static str) -> Self {
        Self {
            unsupported: Some(reason),
            ..self
        }
    }
}
