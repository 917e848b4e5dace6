//! Texts with remedies, broken into lines so that a person can still copy the remedies: SQL and shell commands.

use unicode_width::UnicodeWidthStr;

/// What a shell command of a remedy begins with.
const COMMAND: &str = "lantern-cli sql ";

/// The text in lines of at most this width, broken at blanks. A name in double quotes is not broken, so that SQL can be
/// copied. A shell command is not broken either: where the text is, it has a line of its own, as long as it is.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    if text.width() <= width {
        return vec![text.to_owned()];
    }
    let Some((before, command, behind)) = split_at_command(text) else {
        return wrap_prose(text, width);
    };
    let mut lines = match before {
        "" => Vec::new(),
        before => wrap_prose(before, width),
    };
    lines.push(command.to_owned());
    if !behind.is_empty() {
        lines.extend(wrap(behind, width));
    }
    lines
}

fn wrap_prose(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words(text, '"') {
        let line = lines.last_mut().expect("there is one");
        if line.is_empty() {
            line.push_str(word);
        } else if line.width() + 1 + word.width() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// What stands before the first shell command, the command, and what stands behind it. A command ends with the file
/// behind `-f`, `-` for its input.
fn split_at_command(text: &str) -> Option<(&str, &str, &str)> {
    let (begin, _) = text
        .match_indices(COMMAND)
        .find(|(at, _)| *at == 0 || text[..*at].ends_with(' '))?;
    let (before, rest) = text.split_at(begin);
    let mut end = 0;
    let mut is_file = false;
    for word in words(rest, '\'') {
        end += word.len();
        if is_file {
            return Some((before.trim_end(), &rest[..end], rest[end..].trim_start()));
        }
        is_file = word == "-f";
        end += 1;
    }
    None
}

/// The text at its blanks, but for those between two of this quote. Between single quotes a shell takes a backslash as
/// it is; outside of them it takes the next character as it is (POSIX, "Quoting").
fn words(text: &str, quote: char) -> Vec<&str> {
    let (mut is_open, mut is_escaped) = (false, false);
    let is_end = |c: char| {
        if !is_escaped {
            is_open ^= c == quote;
        }
        is_escaped = quote == '\'' && c == '\\' && !is_open && !is_escaped;
        c == ' ' && !is_open
    };
    text.split(is_end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_broken_at_blanks_outside_of_quoted_names() {
        let text = r#"run: ALTER TABLE "the first"."my table" SET LOGGED;"#;
        assert_eq!(
            wrap(text, 20),
            [
                "run: ALTER TABLE",
                r#""the first"."my table""#,
                "SET LOGGED;"
            ]
        );
        assert_eq!(wrap(text, usize::MAX), [text]);
        assert_eq!(wrap("", 20), [""]);
        // A quote without its end keeps the rest together, and loses nothing.
        assert_eq!(wrap(r#"a "b c d"#, 3), ["a", r#""b c d"#]);
    }

    #[test]
    fn a_shell_command_has_a_line_of_its_own() {
        let command = r#"lantern-cli sql prepare | psql -v table='my -f table' -v key='"a", "it'\''s"' -f -;"#;
        let text = format!("let the owner run: {command} in detail: GRANT SELECT");
        assert_eq!(
            wrap(&text, 20),
            ["let the owner run:", command, "in detail: GRANT", "SELECT"]
        );
        assert_eq!(wrap(command, 20), [command]);
        assert_eq!(wrap(&text, usize::MAX), [text]);
        // One without its end is a text.
        assert_eq!(wrap("lantern-cli sql x", 13), ["lantern-cli", "sql x"]);
    }
}
