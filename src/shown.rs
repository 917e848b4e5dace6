//! Texts of others, as people read them: on one line, of a bounded length, and without a character that does something
//! other than to show itself.
//!
//! Keys, names, connection strings and messages of servers come from people whom the reader of a log need not trust. A
//! line feed in one of them would begin a line that the daemon never wrote; an escape sequence would act on the
//! terminal; a bidirectional control would show the rest of the line in another order (Unicode Standard Annex #9); and
//! characters without a width make two different names look the same.
//!
//! It is applied in one place for each reader: the log (`cli/log_format.rs`), the jobs table and the failures table
//! (`jobs/reporter.rs`), and the terminal (`cli/output.rs` and `cli/stderr.rs`). What programs read, such as JSON,
//! stays as it is.

use std::fmt::Write;

/// The most characters of a text.
pub const MAX_CHARACTERS: usize = 2000;
/// Of a text that is cut: the characters at its beginning, and at its end, where our own messages have the remedy.
const HEAD: usize = 1500;
const TAIL: usize = 400;

/// The text with its misleading characters as escapes (`\n`, `\u{1b}`), cut to [`MAX_CHARACTERS`].
///
/// A text that was shown before stays the same.
///
/// ```
/// use lantern::shown::shown;
///
/// assert_eq!(shown("one\ntwo \u{1b}[31m"), r"one\ntwo \u{1b}[31m");
/// assert_eq!(shown("größer als 👩‍🔬"), "größer als 👩‍🔬");
/// ```
pub fn shown(text: &str) -> String {
    match head(text, MAX_CHARACTERS) {
        (whole, end) if end == text.len() => whole,
        _ => cut(text, |text| head(text, HEAD), |text| tail(text, TAIL)),
    }
}

/// The text, cut to [`MAX_CHARACTERS`], with its characters as they are: for a format that escapes them itself.
pub fn shortened(text: &str) -> String {
    let place = |number| text.char_indices().nth(number).map(|(place, _)| place);
    if place(MAX_CHARACTERS).is_none() {
        return text.to_owned();
    }
    let head = |text: &str| {
        let end = place(HEAD).unwrap_or(text.len());
        (text[..end].to_owned(), end)
    };
    let tail = |text: &str| {
        let begin = text.char_indices().nth_back(TAIL - 1);
        let begin = begin.map_or(0, |(place, _)| place);
        (text[begin..].to_owned(), begin)
    };
    cut(text, head, tail)
}

/// Whether a character does something other than to show itself: it acts on a terminal, reorders the line, or cannot be
/// seen. `before` and `after` are its neighbors: joiners and variation selectors belong into words of some scripts and
/// into emoji, but between ASCII characters they only make two texts look the same.
pub fn is_misleading(c: char, before: Option<char>, after: Option<char>) -> bool {
    let is_base = |neighbor: Option<char>| {
        neighbor.is_some_and(|c| {
            !c.is_ascii() && !always_misleads(c) && !is_joiner(c) && !is_variation_selector(c)
        })
    };
    match c {
        // In an emoji a variation selector may come before.
        _ if is_joiner(c) => {
            let follows = is_base(before) || before.is_some_and(is_variation_selector);
            !follows || !is_base(after)
        }
        _ if is_variation_selector(c) => !is_base(before),
        _ => always_misleads(c),
    }
}

fn always_misleads(c: char) -> bool {
    let is_separator_or_direction = matches!(
        c,
        // Line and paragraph separators.
        '\u{2028}' | '\u{2029}'
            // Bidirectional marks, embeddings, overrides and isolates.
            | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    // C0, DEL and C1 are the control characters.
    c.is_control() || is_separator_or_direction || is_invisible(c)
}

/// ZERO WIDTH NON-JOINER and ZERO WIDTH JOINER.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

fn is_variation_selector(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// Characters that have no width and no mark on their neighbors (`Default_Ignorable_Code_Point` of the Unicode
/// Character Database, but for joiners and variation selectors), and those that are blank without being a space.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{115f}' | '\u{1160}'
            | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'
            | '\u{2060}'..='\u{2065}'
            | '\u{206a}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e00ff}'
            | '\u{e01f0}'..='\u{e0fff}'
    )
}

/// As much of the beginning as fits into `limit` characters, escaped, and where it ends.
fn head(text: &str, limit: usize) -> (String, usize) {
    let mut shown = String::with_capacity(text.len().min(limit));
    let mut length = 0;
    for (place, c) in text.char_indices() {
        let before = shown.len();
        push(&mut shown, c, text[place + c.len_utf8()..].chars().next());
        length += shown[before..].chars().count();
        if length > limit {
            shown.truncate(before);
            // A joiner would join nothing.
            let kept = shown.trim_end_matches(is_joiner).len();
            shown.truncate(kept);
            return (shown, place - (before - kept));
        }
    }
    (shown, text.len())
}

/// As much of the end as fits into about `limit` characters, escaped, and where it begins.
fn tail(text: &str, limit: usize) -> (String, usize) {
    let mut begin = text.len();
    let mut length = 0;
    for (place, c) in text.char_indices().rev() {
        length += if always_misleads(c) {
            c.escape_default().count()
        } else {
            1
        };
        if length > limit {
            break;
        }
        begin = place;
    }
    let mut shown = String::new();
    let mut rest = text[begin..].chars();
    while let Some(c) = rest.next() {
        push(&mut shown, c, rest.clone().next());
    }
    (shown, begin)
}

/// Appends a character, as it is or escaped.
fn push(shown: &mut String, c: char, after: Option<char>) {
    match is_misleading(c, shown.chars().next_back(), after) {
        true => {
            let _ = write!(shown, "{}", c.escape_default());
        }
        false => shown.push(c),
    }
}

/// Beginning and end of a text, and how much is missing between them.
fn cut(
    text: &str,
    head: impl Fn(&str) -> (String, usize),
    tail: impl Fn(&str) -> (String, usize),
) -> String {
    let ((head, end), (tail, begin)) = (head(text), tail(text));
    let missing = text[end..begin].chars().count();
    format!("{head} … ({missing} characters are left out here) … {tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_act_or_hide_are_escaped() {
        for (text, expected) in [
            ("a\nb\r\n\tc", r"a\nb\r\n\tc"),
            ("\x1b]0;title\x07\x1b[2J", r"\u{1b}]0;title\u{7}\u{1b}[2J"),
            ("\0\x7f\u{85}\u{9b}31m", r"\u{0}\u{7f}\u{85}\u{9b}31m"),
            (
                "a\u{202e}b\u{2069}c\u{200e}\u{61c}",
                r"a\u{202e}b\u{2069}c\u{200e}\u{61c}",
            ),
            ("a\u{2028}b\u{2029}", r"a\u{2028}b\u{2029}"),
            ("adm\u{200b}in adm\u{ad}in", r"adm\u{200b}in adm\u{ad}in"),
            ("adm\u{200d}in \u{feff}", r"adm\u{200d}in \u{feff}"),
            ("a\u{fe0f} \u{e0041}", r"a\u{fe0f} \u{e0041}"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn what_shows_itself_stays_as_it_is() {
        for text in [
            "",
            r"C:\new\table \u{1b}",
            "größer, 論理, cafe\u{301}",
            // A family, a rainbow flag, and Persian with a non-joiner.
            "👩\u{200d}👩\u{200d}👧 🏳\u{fe0f}\u{200d}🌈 می\u{200c}خواهم",
            "\u{a0}no-break\u{a0}space",
        ] {
            assert_eq!(shown(text), text);
            assert_eq!(shortened(text), text);
        }
    }

    #[test]
    fn a_long_text_keeps_its_beginning_and_its_end() {
        let text = format!("cannot read {}; run GRANT", "ü".repeat(1 << 20));
        for short in [shown(&text), shortened(&text)] {
            assert!(short.chars().count() <= MAX_CHARACTERS, "{short}");
            assert!(short.starts_with("cannot read üü"), "{short}");
            assert!(short.ends_with("üü; run GRANT"), "{short}");
            assert!(short.contains("characters are left out here"), "{short}");
        }
        let longest = "x".repeat(MAX_CHARACTERS);
        assert_eq!(shown(&longest), longest);
        assert_eq!(shortened(&longest), longest);
        assert_ne!(shown(&format!("{longest}x")), format!("{longest}x"));
    }

    proptest::proptest! {
        #[test]
        fn a_shown_text_is_harmless_short_and_stays_the_same(
            text in proptest::prop_oneof!["(?s).{0,80}", "(?s).{1900,2600}", "[\n\u{200d}👩a\u{fe0f}]{0,40}"],
        ) {
            let once = shown(&text);
            let neighbors = |place: usize, c: char| {
                (once[..place].chars().next_back(), once[place + c.len_utf8()..].chars().next())
            };
            for (place, c) in once.char_indices() {
                let (before, after) = neighbors(place, c);
                proptest::prop_assert!(!is_misleading(c, before, after), "{c:?} in {once:?}");
            }
            proptest::prop_assert!(once.chars().count() <= MAX_CHARACTERS);
            proptest::prop_assert_eq!(shown(&once), once);
        }
    }
}
