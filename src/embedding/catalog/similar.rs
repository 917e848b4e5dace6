//! Which name a user may have meant who wrote one that does not exist.

/// Edits by which a misspelt name may differ from the right one.
const MAX_EDITS: usize = 3;

/// The candidate that `name` was most likely meant to be, if one is near: apart from case and separators it is the
/// same, differs by a few letters, or has another organization or none.
pub(crate) fn most_similar<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let wanted = simplified(name);
    let near = candidates.into_iter().filter_map(|candidate| {
        let found = simplified(candidate);
        let edits = strsim::damerau_levenshtein(&wanted, &found);
        if edits <= MAX_EDITS.min(wanted.len() / 4) {
            return Some((edits, candidate));
        }
        // Only the organization differs.
        let [own, other] = [&wanted, &found].map(|name| last_segment(name));
        (own == other).then_some((MAX_EDITS + 1, candidate))
    });
    near.min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

fn simplified(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}

fn last_segment(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_finds_the_right_one_and_another_name_finds_none() {
        let names = [
            "sentence-transformers/all-MiniLM-L6-v2",
            "sentence-transformers/all-MiniLM-L12-v2",
            "BAAI/bge-small-en",
            "intfloat/e5-base-v2",
        ];
        let found = |name| most_similar(name, names);
        let mini = Some(names[0]);
        for misspelt in [
            "sentence-transformers/all-MiniLM-L6",
            "sentence-transformers/all-minilm-l6-v2",
            "sentence_transformers/all_MiniLM_L6_v2",
            "sentence-transformer/all-MiniLM-L6-v2",
            "sentence-transformers/all-MinLM-L6-v2",
            "huggingface/all-MiniLM-L6-v2",
            "ALL-MINILM-L6-V2",
        ] {
            assert_eq!(found(misspelt), mini, "{misspelt}");
        }
        assert_eq!(found("baai/bge-small-eng"), Some("BAAI/bge-small-en"));
        for other in ["acme/own-model", "openai/text-embedding-3-small", "e5", ""] {
            assert_eq!(found(other), None, "{other}");
        }
    }
}
