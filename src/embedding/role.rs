//! What texts are embedded for.

/// What a text is used for. Some models expect different prompts before queries and documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TextRole {
    /// A question to search with.
    Query,
    /// A text to be found.
    Document,
}

impl TextRole {
    /// `query` or `document`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Document => "document",
        }
    }
}
