//! What a request wants embedded: a text, several, or their token ids.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, SeqAccess, Visitor};

use super::limits::MAX_TEXTS;

/// The field `input` of OpenAI's requests. It has no more texts than a request may have.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

/// The field `inputs` of text-embeddings-inference.
#[derive(Debug)]
pub(super) struct Texts {
    pub texts: Vec<String>,
}

/// An element of an array.
enum Element {
    Text(String),
    Token(u32),
    Tokens(Vec<u32>),
}

const EXPECTED: &str =
    "a string, an array of strings, an array of token ids, or an array of arrays of token ids";

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InputVisitor;

        impl<'de> Visitor<'de> for InputVisitor {
            type Value = Input;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Input, E> {
                Ok(Input::Text(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Input, E> {
                Ok(Input::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Input, A::Error> {
                match array.next_element()? {
                    None => Err(A::Error::custom("the array is empty")),
                    Some(Element::Text(first)) => Ok(Input::Texts(rest(array, first)?)),
                    Some(Element::Tokens(first)) => Ok(Input::TokenLists(rest(array, first)?)),
                    Some(Element::Token(first)) => {
                        let mut tokens = vec![first];
                        while let Some(token) = array.next_element()? {
                            tokens.push(token);
                        }
                        Ok(Input::Tokens(tokens))
                    }
                }
            }
        }

        deserializer.deserialize_any(InputVisitor)
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Input::deserialize(deserializer)? {
            Input::Text(text) => Ok(Texts { texts: vec![text] }),
            Input::Texts(texts) => Ok(Texts { texts }),
            Input::Tokens(_) | Input::TokenLists(_) => Err(D::Error::custom(
                "token ids cannot be embedded by this path; send texts",
            )),
        }
    }
}

/// The other elements of an array, which are of the same type as its first.
fn rest<'de, A, T>(mut array: A, first: T) -> Result<Vec<T>, A::Error>
where
    A: SeqAccess<'de>,
    T: Deserialize<'de>,
{
    let mut all = vec![first];
    while all.len() < MAX_TEXTS {
        match array.next_element()? {
            Some(element) => all.push(element),
            None => return Ok(all),
        }
    }
    match array.next_element::<IgnoredAny>()? {
        None => Ok(all),
        Some(_) => Err(A::Error::custom(format!(
            "there are more than {MAX_TEXTS} texts; send fewer at a time"
        ))),
    }
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;

        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a token id, or an array of token ids")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Element, E> {
                Ok(Element::Text(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Element, E> {
                Ok(Element::Text(text))
            }

            fn visit_u64<E: Error>(self, id: u64) -> Result<Element, E> {
                let id = u32::try_from(id);
                let id = id.map_err(|_| E::custom("a token id has at most 32 bits"))?;
                Ok(Element::Token(id))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Element, A::Error> {
                let mut tokens = Vec::new();
                while let Some(token) = array.next_element()? {
                    tokens.push(token);
                }
                Ok(Element::Tokens(tokens))
            }
        }

        deserializer.deserialize_any(ElementVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Input, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn each_form_is_read() {
        assert_eq!(read(r#""a""#), Ok(Input::Text("a".into())));
        assert_eq!(
            read(r#"["a", ""]"#),
            Ok(Input::Texts(vec!["a".into(), String::new()]))
        );
        assert_eq!(read("[1, 2]"), Ok(Input::Tokens(vec![1, 2])));
        assert_eq!(
            read("[[1], [2, 3]]"),
            Ok(Input::TokenLists(vec![vec![1], vec![2, 3]]))
        );
    }

    #[test]
    fn whatever_else_comes_is_refused_at_once() {
        let deep = "[".repeat(100_000);
        let many = format!("[{}]", vec!["\"a\""; MAX_TEXTS + 1].join(","));
        for (json, words) in [
            ("{}", "expected a string, an array of strings"),
            ("null", "expected a string, an array of strings"),
            ("1", "expected a string, an array of strings"),
            ("[]", "the array is empty"),
            (r#"["a", 1]"#, "expected a string"),
            (r#"[1, "a"]"#, "expected u32"),
            ("[[1], 2]", "expected a sequence"),
            ("[[[1]]]", "expected u32"),
            ("[-1]", "expected a string, a token id"),
            ("[1.5]", "expected a string, a token id"),
            ("[4294967296]", "at most 32 bits"),
            ("[1, 4294967296]", "expected u32"),
            ("[1e999]", "out of range"),
            ("[NaN]", "expected"),
            (deep.as_str(), "expected u32"),
            (many.as_str(), "more than 2048 texts"),
        ] {
            let said = read(json).unwrap_err();
            assert!(said.contains(words), "{json:.40}: {said}");
        }
    }
}
