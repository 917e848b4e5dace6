//! Cuts a text that a server calls too long.

use super::verdict::allowed_share;

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
}
