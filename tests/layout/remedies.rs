//! Error texts that name a remedy, and the entries of docs/troubleshooting.md.
//!
//! A **text** is a string literal of `src/`, outside of tests: of an expression, of a macro such as `format!` or
//! `bail!`, or of `#[error("…")]`. It names a **remedy** if one of [`VERBS`] stands at its beginning, or behind one
//! of [`MARKS`]:
//! `…; set HF_TOKEN`, `…: leave it out`, `…, or use another model`. A text of several paragraphs is help, one that begins
//! with `#` a comment in a file, and both are no errors.
//!
//! An **entry** is a message in the first column of a table of the document. Where one row is for several messages,
//! `<br>` is between them. What the code fills in is `…` on both sides, and an entry may leave out the beginning and
//! the end of a text. An entry that ends with a note in parentheses such as `(PostgreSQL's)` is of another program.

use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItemFn, Item, Lit, LitStr, Macro};

/// Where the entries are.
pub const DOCUMENT: &str = "docs/troubleshooting.md";

/// What stands before the remedy.
const MARKS: [&str; 4] = ["; ", ": ", ", or ", ". "];

/// What a person can do.
const VERBS: [&str; 40] = [
    "accept", "add", "allow", "cancel", "change", "check", "choose", "close", "connect", "copy",
    "correct", "create", "divide", "download", "drop", "end", "export", "fetch", "give", "install",
    "leave", "let", "look", "make", "name", "put", "raise", "remove", "rename", "replace", "run",
    "send", "set", "shorten", "start", "stop", "unset", "use", "wait", "write",
];

/// The endings of entries that are texts of other programs.
const OF_OTHERS: [&str; 2] = ["(PostgreSQL's", "(clap's"];

/// A text with fewer words is a part of one.
const MIN_WORDS: usize = 5;

/// A text of the code.
pub struct Text {
    /// As `src/cli/embed.rs`.
    pub file: String,
    /// With `…` for what is filled in.
    pub text: String,
}

impl Text {
    /// Whether it names a remedy.
    pub fn names_remedy(&self) -> bool {
        let text = &self.text;
        let is_long = text.split_whitespace().count() >= MIN_WORDS;
        let is_help = text.contains("\n\n") || text.starts_with("# ");
        let marked = MARKS.iter().flat_map(|mark| text.split(mark).skip(1));
        let mut places = std::iter::once(text.as_str()).chain(marked);
        is_long && !is_help && places.any(begins_with_verb)
    }
}

/// SQL is in capitals, and no verb.
fn begins_with_verb(place: &str) -> bool {
    let place = place.strip_prefix("then ").unwrap_or(place);
    let end = place.find([' ', ':']).unwrap_or(0);
    let word = &place[..end];
    let is_verb = |verb: &&str| {
        let (first, rest) = verb.split_at(1);
        word == *verb || word == format!("{}{rest}", first.to_ascii_uppercase())
    };
    VERBS.iter().any(is_verb)
}

/// An entry of the document.
pub struct Entry {
    /// As it is written.
    pub written: String,
    /// The fixed parts.
    parts: Vec<String>,
    /// It is a text of another program.
    pub is_of_others: bool,
}

impl Entry {
    fn new(written: &str) -> Entry {
        let is_of_others = OF_OTHERS.iter().any(|ending| written.contains(ending));
        let plain = without_code(written);
        let parts = plain.split('…').map(str::trim);
        Entry {
            written: written.trim().to_owned(),
            parts: parts
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect(),
            is_of_others,
        }
    }

    /// Whether it is for this text.
    pub fn is_for(&self, text: &str) -> bool {
        let mut rest = text;
        for part in &self.parts {
            let Some(at) = rest.find(part.as_str()) else {
                return false;
            };
            rest = &rest[at + part.len()..];
        }
        !self.parts.is_empty()
    }
}

/// The document has no backticks where the code has none, and the other way round.
fn without_code(text: &str) -> String {
    text.replace('`', "").replace("\\|", "|")
}

/// The entries of the document.
pub fn entries() -> Vec<Entry> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    let document = fs::read_to_string(document).expect("the document is readable");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    cells
        .filter(|cell| *cell != "message" && !cell.starts_with("---"))
        .flat_map(|cell| cell.split("<br>"))
        .map(Entry::new)
        .collect()
}

/// The texts of a file.
///
/// # Panics
/// Where it is not Rust.
pub fn texts(file: &str, code: &str) -> Vec<Text> {
    let parsed = syn::parse_file(code).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut reader = Reader::default();
    reader.visit_file(&parsed);
    let text = |literal: String| Text {
        file: file.to_owned(),
        text: without_code(&without_placeholders(&literal)),
    };
    reader.literals.into_iter().map(text).collect()
}

/// `…` for `{name}`, `{}` and `{name:?}`; `{{` is a brace.
fn without_placeholders(format: &str) -> String {
    let mut text = String::new();
    let mut characters = format.chars().peekable();
    while let Some(character) = characters.next() {
        let is_double = characters.peek() == Some(&character);
        match character {
            '{' | '}' if is_double => {
                characters.next();
                text.push(character);
            }
            '{' => {
                characters.by_ref().find(|end| *end == '}');
                text.push('…');
            }
            _ => text.push(character),
        }
    }
    text
}

/// Collects string literals, but for those of tests and of attributes other than `error`.
#[derive(Default)]
struct Reader {
    literals: Vec<String>,
}

impl Reader {
    fn read_tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.read_tokens(group.stream()),
                TokenTree::Literal(literal) => {
                    if let Lit::Str(text) = Lit::new(literal) {
                        self.literals.push(text.value());
                    }
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_lit_str(&mut self, literal: &'ast LitStr) {
        self.literals.push(literal.value());
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        self.read_tokens(called.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if attribute.path().is_ident("error")
            && let Ok(list) = attribute.meta.require_list()
        {
            self.read_tokens(list.tokens.clone());
        }
    }

    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_test = |list: &syn::MetaList| list.tokens.to_string() == "test";
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg") && attribute.meta.require_list().is_ok_and(is_test)
    })
}
