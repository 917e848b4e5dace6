//! Which name a person may have meant who wrote one that does not exist, such as that of a column.

/// The candidate that `name` was most likely meant to be: another one in a few letters, or only in their case.
pub fn most_similar<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    let edits = |candidate: &str| strsim::damerau_levenshtein(&wanted, &candidate.to_lowercase());
    let near = candidates
        .into_iter()
        .map(|candidate| (edits(candidate), candidate));
    let (edits, nearest) = near.min_by_key(|(edits, _)| *edits)?;
    (edits <= name.chars().count() / 3).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_finds_the_right_one_and_another_name_finds_none() {
        let names = ["id", "Title", "body", "published_at"];
        for (written, meant) in [
            ("titel", Some("Title")),
            ("TITLE", Some("Title")),
            ("bdoy", Some("body")),
            ("publishedat", Some("published_at")),
            ("price", None),
            ("", None),
        ] {
            assert_eq!(most_similar(written, names), meant, "{written}");
        }
        assert_eq!(most_similar("x", []), None);
    }
}
