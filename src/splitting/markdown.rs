//! What lines of a Markdown document are: headings and sections, items, rows of tables, code in fences.
//!
//! A line is judged by itself, apart from fences, so that one edit cannot change what the whole document is. Only an
//! opened fence reaches further, as it does for those who read the document.

use super::level::{Level, Mark};

/// A fence of code that is open: its character and its length.
#[derive(Clone, Copy)]
struct Fence {
    mark: u8,
    length: usize,
}

/// The levels of places that the characters around them do not tell.
pub(super) fn marks(text: &str) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut fence: Option<Fence> = None;
    let mut follows_fence = false;
    let mut follows_heading = false;
    let mut at = 0;
    // The line before, where it is one of a paragraph.
    let mut last: Option<usize> = None;
    for line in text.split_inclusive('\n') {
        let content = line.trim();
        let place = at + line.len() - line.trim_start().len();
        at += line.len();
        if content.is_empty() {
            last = None;
            continue;
        }
        let level = match fence {
            Some(open) => {
                if closes(open, content) {
                    fence = None;
                }
                // No place in code is worth more than a line, and its fences stay with it.
                let stays = fence.is_none() || std::mem::take(&mut follows_fence);
                Some(if stays { Level::Never } else { Level::Line })
            }
            None => {
                fence = opened(content);
                follows_fence = fence.is_some();
                heading(content)
                    .or_else(|| follows_heading.then_some(Level::Never))
                    .or_else(|| is_item(content).then_some(Level::Line))
            }
        };
        match last.filter(|_| fence.is_none() && is_underline(content)) {
            // The line before it is the heading.
            Some(title) => {
                marks.push(Mark::new(title, Level::Section));
                marks.push(Mark::new(place, Level::Never));
                follows_heading = true;
            }
            None => {
                marks.extend(level.map(|level| Mark::new(place, level)));
                follows_heading = fence.is_none() && heading(content).is_some();
            }
        }
        last = (level.is_none() && fence.is_none()).then_some(place);
    }
    marks
}

/// The level of a heading: `#` to `######` and a space.
fn heading(content: &str) -> Option<Level> {
    let degree = content.bytes().take_while(|byte| *byte == b'#').count();
    let is_heading = content[degree..].starts_with([' ', '\t']) || content.len() == degree;
    match degree {
        1 | 2 if is_heading => Some(Level::Section),
        3..=6 if is_heading => Some(Level::Subsection),
        _ => None,
    }
}

/// Whether the line underlines a heading.
fn is_underline(content: &str) -> bool {
    content.len() >= 2 && (content.bytes().all(|c| c == b'=') || content.bytes().all(|c| c == b'-'))
}

/// An item of a list, a row of a table, a quotation.
fn is_item(content: &str) -> bool {
    let number = content.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_numbered = number.len() < content.len() && number.starts_with([')', '.']);
    is_numbered
        || content.starts_with("- ")
        || content.starts_with("* ")
        || content.starts_with("+ ")
        || content.starts_with('|')
}

fn opened(content: &str) -> Option<Fence> {
    let mark = *content.as_bytes().first()?;
    let length = content.bytes().take_while(|byte| *byte == mark).count();
    let is_inline = mark == b'`' && content[length..].contains('`');
    (matches!(mark, b'`' | b'~') && length >= 3 && !is_inline).then_some(Fence { mark, length })
}

fn closes(fence: Fence, content: &str) -> bool {
    content.len() >= fence.length && content.bytes().all(|byte| byte == fence.mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_begin_sections_and_keep_what_follows_them() {
        let text = "# A\n\ntext\ntext\n\n### B\n- item\n1. item\n\nTitle\n=====\n\ntext\n\n#no\n";
        let found: Vec<(&str, Level)> = marks(text)
            .iter()
            .map(|mark| (text[mark.at as usize..].lines().next().unwrap(), mark.level))
            .collect();
        assert_eq!(
            found,
            [
                ("# A", Level::Section),
                ("text", Level::Never),
                ("### B", Level::Subsection),
                ("- item", Level::Never),
                ("1. item", Level::Line),
                ("Title", Level::Section),
                ("=====", Level::Never),
                ("text", Level::Never),
            ]
        );
    }

    #[test]
    fn code_in_a_fence_has_no_headings_and_ends_with_the_fence() {
        let text = "text\n\n```sh\n# no\n\nx\n````\n# yes\n\ntext `a` ```b``` c\n# yes";
        let found: Vec<(&str, Level)> = marks(text)
            .iter()
            .map(|mark| (text[mark.at as usize..].lines().next().unwrap(), mark.level))
            .collect();
        assert_eq!(
            found,
            [
                ("# no", Level::Never),
                ("x", Level::Line),
                ("````", Level::Never),
                ("# yes", Level::Section),
                ("text `a` ```b``` c", Level::Never),
                ("# yes", Level::Section),
            ]
        );
    }
}
