//! The providers: what each is asked, what it answers, and its limits.

mod cohere;
mod dialect;
mod embedding;
mod ollama;
mod openai;
mod voyage;

use serde_json::Value;

pub(super) use dialect::{Call, Facts, Parsed};
pub(super) use embedding::Embedding;

/// Whose API a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Provider {
    OpenAi,
    Cohere,
    Voyage,
    Ollama,
}

impl Provider {
    pub(super) const ALL: [Self; 4] = [Self::OpenAi, Self::Cohere, Self::Voyage, Self::Ollama];

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|provider| provider.facts().name == name)
    }

    pub(super) const fn facts(self) -> &'static Facts {
        match self {
            Self::OpenAi => &openai::FACTS,
            Self::Cohere => &cohere::FACTS,
            Self::Voyage => &voyage::FACTS,
            Self::Ollama => &ollama::FACTS,
        }
    }

    /// The body of a request.
    pub(super) fn request(self, call: &Call<'_>) -> Value {
        match self {
            Self::OpenAi => openai::request(call),
            Self::Cohere => cohere::request(call),
            Self::Voyage => voyage::request(call),
            Self::Ollama => ollama::request(call),
        }
    }

    /// Reads the body of an answer.
    pub(super) fn parse(self, body: &[u8]) -> serde_json::Result<Parsed> {
        match self {
            Self::OpenAi | Self::Voyage => openai::parse(body),
            Self::Cohere => cohere::parse(body),
            Self::Ollama => ollama::parse(body),
        }
    }
}
