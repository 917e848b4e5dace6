//! The configuration file: TOML, with one key for each option.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{io, str};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Key, Keys, Kind};
use crate::postgres::connection_string::rewritten;
use crate::postgres::plain_file;
use crate::similar::most_similar;

/// The byte order mark that some editors put before UTF-8.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A file that was read.
#[derive(Debug)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// What it sets, by the names of the keys.
    pub settings: BTreeMap<String, Setting>,
    /// Whether every user of the machine can read a password in it.
    pub exposes_password: bool,
}

/// What a file says of one option.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// As the option takes them; of a switch `true` or `false`.
    pub values: Vec<String>,
    /// The number of the line.
    pub line: usize,
}

/// A file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("the configuration file {} cannot be read: {}", path.display(), reason(source))]
    Unreadable {
        /// Where it was looked for.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What it says is wrong, in one line for each mistake.
    #[error("{0}")]
    Wrong(Mistakes),
}

/// What is wrong with a file.
#[derive(Debug)]
pub struct Mistakes {
    path: PathBuf,
    mistakes: Vec<Mistake>,
}

#[derive(Debug)]
pub(super) struct Mistake {
    line: usize,
    text: String,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, mistake) in self.mistakes.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            let path = self.path.display();
            write!(f, "{path}:{}: {}", mistake.line, mistake.text)?;
        }
        Ok(())
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => format!(
            "the user {} may not read it; give it to that user, or to a group of theirs",
            nix::unistd::geteuid()
        ),
        _ => error.to_string(),
    }
}

/// Reads a file.
///
/// # Errors
/// It cannot be read, is not TOML, or has a key or a value that no option takes. No error shows a value.
pub fn read(path: &Path, keys: &Keys) -> Result<File, FileError> {
    let found = plain_file::read(path).map_err(|source| FileError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let settings = parse(&found.content, keys).map_err(|mut mistakes| {
        mistakes.sort_by_key(|mistake| mistake.line);
        let path = path.to_owned();
        FileError::Wrong(Mistakes { path, mistakes })
    })?;
    let is_open = found.metadata.permissions().mode() & 0o004 != 0;
    let exposes_password = is_open
        && settings
            .iter()
            .any(|(name, set)| has_password(&keys[name], set));
    Ok(File {
        path: path.to_owned(),
        settings,
        exposes_password,
    })
}

fn has_password(key: &Key, setting: &Setting) -> bool {
    let mut values = setting.values.iter();
    key.is_secret && values.any(|value| rewritten::has_password(value))
}

pub(super) fn parse(
    content: &[u8],
    keys: &Keys,
) -> Result<BTreeMap<String, Setting>, Vec<Mistake>> {
    let text = as_text(content).map_err(|mistake| vec![mistake])?;
    let line = |span: Range<usize>| line_at(&text.as_bytes()[..span.start.min(text.len())]);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // Their `Display` shows the line, which may have a password in it.
        let mistakes = errors.iter().map(|error| Mistake {
            line: line(error.span().unwrap_or(0..0)),
            text: format!("this is not TOML: {}", error.message()),
        });
        let mut mistakes: Vec<Mistake> = mistakes.collect();
        // Behind the first of a line, they are its consequences.
        mistakes.dedup_by_key(|mistake| mistake.line);
        return Err(mistakes);
    }
    let mut settings = BTreeMap::new();
    let mut mistakes = Vec::new();
    for (name, value) in table.get_ref() {
        let (line, name) = (line(name.span()), name.get_ref().to_string());
        match setting(&name, value, keys) {
            Ok(values) => drop(settings.insert(name, Setting { values, line })),
            Err(text) => mistakes.push(Mistake { line, text }),
        }
    }
    match mistakes.is_empty() {
        true => Ok(settings),
        false => Err(mistakes),
    }
}

/// The text of a file.
fn as_text(content: &[u8]) -> Result<&str, Mistake> {
    let mistake = |before: usize, text: &str| Mistake {
        line: line_at(&content[..before]),
        text: text.to_owned(),
    };
    if let Some(place) = memchr::memchr(0, content) {
        return Err(mistake(
            place,
            "there is a NUL byte, so the file is not text",
        ));
    }
    let text = str::from_utf8(content);
    let text =
        text.map_err(|error| mistake(error.valid_up_to(), "the file is not text in UTF-8"))?;
    Ok(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text))
}

/// The number of the line that begins after these bytes, or goes on there.
fn line_at(before: &[u8]) -> usize {
    1 + memchr::memchr_iter(b'\n', before).count()
}

fn setting(name: &str, value: &Spanned<DeValue<'_>>, keys: &Keys) -> Result<Vec<String>, String> {
    let Some(key) = keys.get(name) else {
        if matches!(value.get_ref(), DeValue::Table(_)) {
            return Err(format!(
                "there is no table [{name}]: all keys are at the top of the file"
            ));
        }
        let names = keys.keys().map(String::as_str);
        let meant = match most_similar(&name.replace('-', "_"), names) {
            Some(meant) => format!("; did you mean {meant}?"),
            None => "; docs/configuration.md lists all keys".to_owned(),
        };
        return Err(format!("the key {name:?} is not known{meant}"));
    };
    let wrong = || {
        format!(
            "{name} must be {}, and is {}",
            expected(key),
            found(value.get_ref())
        )
    };
    values(key, value.get_ref()).ok_or_else(wrong)
}

/// The values, as the option takes them; `None` where they are of another type.
fn values(key: &Key, value: &DeValue<'_>) -> Option<Vec<String>> {
    match (key.kind, value) {
        (Kind::Switch, DeValue::Boolean(is_on)) => Some(vec![is_on.to_string()]),
        (Kind::Number, DeValue::Integer(number)) => Some(vec![decimal(number)?]),
        (Kind::List, DeValue::Array(items)) => {
            items.iter().map(|item| text(item.get_ref())).collect()
        }
        (Kind::Number | Kind::Text | Kind::List, value) => Some(vec![text(value)?]),
        (Kind::Switch, _) => None,
    }
}

/// A whole number, which TOML also takes in other bases.
fn decimal(number: &toml::de::DeInteger<'_>) -> Option<String> {
    let number = i128::from_str_radix(number.as_str(), number.radix());
    Some(number.ok()?.to_string())
}

fn text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        _ => None,
    }
}

fn expected(key: &Key) -> String {
    let example = |text: &str| match &key.example {
        Some(example) if !example.is_empty() => format!("{text}, such as {example:?}"),
        _ => text.to_owned(),
    };
    match key.kind {
        Kind::Switch => "true or false".to_owned(),
        Kind::Number => match &key.example {
            Some(example) => format!("a whole number, such as {example}"),
            None => "a whole number".to_owned(),
        },
        Kind::Text => example("a text in quotes"),
        Kind::List => example("a text in quotes, or several between [ and ]"),
    }
}

fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests;
