//! What the numbers in a message allow: how much of a text, how many texts.

/// What is taken off beside what the numbers say: tokens are not equally long.
const MARGIN: f64 = 0.95;

/// Cuts the end of a text: to what the numbers in the server's words allow, or to the half. Says whether it is shorter.
pub(super) fn shorten(text: &mut String, words: &str) -> bool {
    let share = allowed_share(words).map_or(0.5, |share| share * MARGIN);
    let wanted = (text.len() as f64 * share) as usize;
    let cut = text.floor_char_boundary(wanted.min(text.len().saturating_sub(1)));
    // Nothing is no text.
    if cut == 0 {
        return false;
    }
    text.truncate(cut);
    true
}

/// How much of a text may stay, by the two numbers in the message: what is allowed, and what was given.
fn allowed_share(words: &str) -> Option<f64> {
    let numbers = words.split(|c: char| !c.is_ascii_digit() && c != ',');
    let numbers: Vec<f64> = numbers
        .filter_map(|number| number.replace(',', "").parse().ok())
        // Not the digits in the name of a model.
        .filter(|number| *number >= 16.0)
        .collect();
    let allowed = numbers.first()?;
    let given = numbers[1..].iter().find(|given| *given > allowed)?;
    Some(allowed / given)
}

/// The most texts of a request, where the message has it: "batch size 64 > maximum allowed batch size 32"
/// (text-embeddings-inference), "at most 96 texts", "must be 2048 dimensions or less".
pub(super) fn allowed_inputs(words: &str, given: usize) -> Option<usize> {
    let lower = words.to_lowercase();
    let is_about_it =
        lower.contains("batch size") || lower.contains("texts") || lower.contains("batch of");
    let numbers = lower.split(|c: char| !c.is_ascii_digit());
    let numbers = numbers.filter_map(|number| number.parse().ok());
    let allowed = numbers.filter(|number| (1..given).contains(number)).max();
    allowed.filter(|_| is_about_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shortened(text: &str, words: &str) -> Option<String> {
        let mut text = text.to_owned();
        shorten(&mut text, words).then_some(text)
    }

    #[test]
    fn a_text_is_cut_by_the_numbers_or_in_half() {
        let long = "a".repeat(1000);
        assert_eq!(shortened(&long, "too long").unwrap().len(), 500);
        let words = "must have less than 512 tokens. Given: 1024";
        assert_eq!(shortened(&long, words).unwrap().len(), 475);
    }

    #[test]
    fn no_character_is_torn_apart_and_cutting_ends() {
        assert_eq!(shortened("äöü", "too long").unwrap(), "ä");
        assert_eq!(shortened("ä", "too long"), None);
        assert_eq!(shortened("a", "too long"), None);
        assert_eq!(shortened("", "too long"), None);
    }

    #[test]
    fn numbers_in_a_message_say_how_much_of_a_text_may_stay() {
        let share = |words| allowed_share(words).map(|share| (share * 100.0).round());
        assert_eq!(
            share("maximum context length is 8192 tokens, however you requested 16384 tokens"),
            Some(50.0)
        );
        assert_eq!(
            share("must have less than 512 tokens. Given: 1024"),
            Some(50.0)
        );
        assert_eq!(
            share("must have less than 32,000 characters. Given: 64,000"),
            Some(50.0)
        );
        assert_eq!(
            share("text-embedding-3 allows 8192 tokens, 9000 given"),
            Some(91.0)
        );
        assert_eq!(share("the input length exceeds the context length"), None);
        assert_eq!(share("given 9000, allowed 8192"), None);
    }

    #[test]
    fn numbers_in_a_message_say_how_many_texts_are_allowed() {
        let words = "batch size 64 > maximum allowed batch size 32";
        assert_eq!(allowed_inputs(words, 64), Some(32));
        assert_eq!(
            allowed_inputs("invalid request: at most 96 texts, got 200", 200),
            Some(96)
        );
        assert_eq!(allowed_inputs("input[3] is not valid", 64), None);
        assert_eq!(allowed_inputs("", 64), None);
    }
}
