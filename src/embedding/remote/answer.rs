//! Reads an answer with vectors. What is not exactly what was asked for is an error, and never a vector.

use super::error::RemoteFailure;
use super::provider::{Embedding, Parsed, Provider};
use super::words;

/// What a server answered, in the order of the texts.
pub(super) struct Answer {
    /// A vector, or what is wrong with it. At least one is a vector.
    pub vectors: Vec<Result<Vec<f32>, &'static str>>,
    dimensions: usize,
    /// Tokens that the server counted.
    pub tokens: Option<u64>,
}

impl Answer {
    /// The length of the vectors.
    pub(super) fn dimensions(&self) -> usize {
        self.dimensions
    }
}

/// Reads the vectors of this many texts, of this length if it is known.
pub(super) fn read(
    provider: Provider,
    body: &[u8],
    texts: usize,
    dimensions: Option<usize>,
) -> Result<Answer, RemoteFailure> {
    let garbled = |reason: String| RemoteFailure::Garbled { reason };
    let parsed = parse(provider, body).map_err(garbled)?;
    let tokens = parsed.tokens;
    let vectors = in_order(parsed, texts).map_err(garbled)?;
    if vectors.iter().any(Vec::is_empty) {
        return Err(garbled("it has an empty vector".into()));
    }
    let expected = dimensions
        .or_else(|| vectors.first().map(Vec::len))
        .unwrap_or_default();
    if let Some(other) = vectors.iter().find(|vector| vector.len() != expected) {
        return Err(RemoteFailure::Dimensions {
            expected,
            found: other.len(),
            remedy: "all servers of base_url must have the same model, and it must know the dimensions of runtime_params",
        });
    }
    let vectors: Vec<_> = vectors.into_iter().map(checked).collect();
    // A server that is broken gives no text a vector.
    if let Some(Err(flaw)) = vectors.first()
        && vectors.iter().all(Result::is_err)
    {
        return Err(RemoteFailure::Vector { flaw });
    }
    Ok(Answer {
        vectors,
        dimensions: expected,
        tokens,
    })
}

fn parse(provider: Provider, body: &[u8]) -> Result<Parsed, String> {
    let error = match provider.parse(body) {
        Ok(parsed) => return Ok(parsed),
        Err(error) => error,
    };
    // JSON has no word for them, and servers in Python write one.
    if let Some(body) = without_words_for_numbers(body)
        && let Ok(parsed) = provider.parse(&body)
    {
        return Ok(parsed);
    }
    if error.is_data() || body.trim_ascii_start().starts_with(b"<") {
        let said = words::read(body, None).text;
        return Err(format!(
            "it is not the answer of {}, but {said}",
            provider.facts().name
        ));
    }
    Err(format!("it is damaged ({error})"))
}

/// The body with `null` in place of `NaN` and `Infinity`; `None` if it has none of them.
fn without_words_for_numbers(body: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(body).ok()?;
    let replaced = text
        .replace("-Infinity", "null")
        .replace("Infinity", "null")
        .replace("NaN", "null");
    (replaced.len() != text.len() || replaced != text).then(|| replaced.into_bytes())
}

/// The vectors in the order of the texts.
fn in_order(parsed: Parsed, texts: usize) -> Result<Vec<Vec<f32>>, String> {
    let count = parsed.vectors.len();
    if count != texts {
        return Err(format!("it has {count} vectors for {texts} texts"));
    }
    let mut places: Vec<Option<Vec<f32>>> = vec![None; texts];
    let has_places = parsed.vectors.iter().any(|(place, _)| place.is_some());
    for (order, (place, Embedding(vector))) in parsed.vectors.into_iter().enumerate() {
        let place = match place {
            Some(place) => place,
            None if has_places => return Err("a vector does not say of which text it is".into()),
            None => order,
        };
        match places.get_mut(place) {
            Some(free @ None) => *free = Some(vector),
            Some(Some(_)) => return Err(format!("it has two vectors for text {place}")),
            None => return Err(format!("it has a vector for text {place} of {texts}")),
        }
    }
    // As many vectors as places, and none twice: every place has one.
    Ok(places.into_iter().flatten().collect())
}

fn checked(vector: Vec<f32>) -> Result<Vec<f32>, &'static str> {
    if vector.iter().any(|number| !number.is_finite()) {
        return Err("is not finite");
    }
    if vector.iter().all(|number| *number == 0.0) {
        return Err("has length 0, and so is near to no other");
    }
    Ok(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn openai(body: &str, texts: usize) -> Result<Answer, String> {
        read(Provider::OpenAi, body.as_bytes(), texts, Some(2)).map_err(|error| error.to_string())
    }

    #[test]
    fn vectors_come_in_the_order_of_the_texts() {
        let body = r#"{"data": [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": "AACAPwAAAMA="}],
                       "usage": {"prompt_tokens": 7, "total_tokens": 7}}"#;
        let answer = openai(body, 2).unwrap();
        assert_eq!(answer.vectors, [Ok(vec![1.0, -2.0]), Ok(vec![3.0, 4.0])]);
        assert_eq!(answer.tokens, Some(7));
    }

    #[test]
    fn every_provider_is_read() {
        for (provider, body) in [
            (Provider::OpenAi, r#"{"data": [{"embedding": [1, 2]}]}"#),
            (
                Provider::Voyage,
                r#"{"object": "list", "data": [{"index": 0, "embedding": [1, 2]}], "usage": {"total_tokens": 5}}"#,
            ),
            (
                Provider::Cohere,
                r#"{"embeddings": {"float": [[1, 2]]}, "meta": {"billed_units": {"input_tokens": 5}}}"#,
            ),
            (
                Provider::Cohere,
                r#"{"embeddings": {"base64": ["AACAPwAAAEA="]}}"#,
            ),
            (
                Provider::Ollama,
                r#"{"embeddings": [[1, 2]], "prompt_eval_count": 5}"#,
            ),
        ] {
            let answer = read(provider, body.as_bytes(), 1, None).unwrap();
            assert_eq!(answer.vectors, [Ok(vec![1.0, 2.0])], "{body}");
        }
    }

    #[test]
    fn a_wrong_answer_is_an_error_and_never_a_vector() {
        for (body, reason) in [
            (r#"{"data": []}"#, "0 vectors for 2 texts"),
            (
                r#"{"data": [{"index": 0, "embedding": [1, 2]}, {"index": 0, "embedding": [1, 2]}]}"#,
                "two vectors for text 0",
            ),
            (
                r#"{"data": [{"index": 0, "embedding": [1, 2]}, {"index": 2, "embedding": [1, 2]}]}"#,
                "a vector for text 2 of 2",
            ),
            (
                r#"{"data": [{"index": 0, "embedding": [1, 2]}, {"embedding": [1, 2]}]}"#,
                "does not say of which text",
            ),
            (
                r#"{"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1, 2]}]}"#,
                "1 dimensions instead of 2",
            ),
            (
                r#"{"data": [{"index": 0, "embedding": []}, {"index": 1, "embedding": []}]}"#,
                "an empty vector",
            ),
            (
                r#"{"error": {"message": "no such model"}}"#,
                "but no such model",
            ),
            (r#"{"data": [{"index": 0, "embedding": [1, 2]}"#, "damaged"),
            ("<html><title>Sign in</title>", "a web page, \"Sign in\""),
            ("", "damaged"),
        ] {
            let error = openai(body, 2).err().unwrap();
            assert!(error.contains(reason), "{body}: {error}");
        }
    }

    #[test]
    fn what_is_no_vector_concerns_its_text_alone() {
        let body = r#"{"data": [{"index": 0, "embedding": [NaN, 2]}, {"index": 1, "embedding": [0, 0]},
                       {"index": 2, "embedding": [null, 1]}, {"index": 3, "embedding": [1, 2]},
                       {"index": 4, "embedding": [-Infinity, 2]}]}"#;
        let answer = openai(body, 5).unwrap();
        let flawed: Vec<_> = answer.vectors.iter().map(Result::is_err).collect();
        assert_eq!(flawed, [true, true, true, false, true]);
        let body = r#"{"data": [{"index": 0, "embedding": [NaN, 2]}]}"#;
        assert!(openai(body, 1).err().unwrap().contains("is not finite"));
    }
}
