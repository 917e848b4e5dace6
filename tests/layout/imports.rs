//! The imports of one file: `use` items, and paths that begin with `crate`, `self` or `super`.

use std::collections::BTreeMap;

use proc_macro2::Span;
use syn::visit::{self, Visit};
use syn::{Attribute, ItemMod, ItemUse, UseTree, Visibility};

/// What a file imports and what it exports of others.
pub struct ParsedFile {
    pub paths: Vec<ImportedPath>,
    /// The names that `pub use` gives away, with what they stand for.
    pub reexports: BTreeMap<String, Vec<String>>,
}

/// A path to something in this crate.
pub struct ImportedPath {
    /// From the crate's root, without `crate`.
    pub absolute: Vec<String>,
    pub written: String,
    pub line: usize,
}

/// Reads a file whose module has this path. Test modules are left out.
///
/// # Panics
/// Where the text is not Rust.
pub fn parse(module: &[String], text: &str) -> ParsedFile {
    let file = syn::parse_file(text)
        .unwrap_or_else(|error| panic!("{} cannot be parsed: {error}", module.join("::")));
    let mut reader = Reader {
        module: module.to_vec(),
        children: child_modules(&file),
        parsed: ParsedFile {
            paths: Vec::new(),
            reexports: BTreeMap::new(),
        },
    };
    reader.visit_file(&file);
    reader.parsed
}

struct Reader {
    /// The module at hand, inline ones included.
    module: Vec<String>,
    children: Vec<String>,
    parsed: ParsedFile,
}

impl Reader {
    fn note(&mut self, path: &[String], span: Span, is_reexport: bool) {
        let Some(absolute) = self.absolute(path) else {
            return;
        };
        if is_reexport && let Some(name) = path.last() {
            self.parsed.reexports.insert(name.clone(), absolute.clone());
        }
        self.parsed.paths.push(ImportedPath {
            absolute,
            written: path.join("::"),
            line: span.start().line,
        });
    }

    /// `None` for what other crates define.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([&self.module, rest].concat()),
            "super" => {
                let above = path.iter().take_while(|part| *part == "super").count();
                let base = self.module.get(..self.module.len().checked_sub(above)?)?;
                Some([base, &path[above..]].concat())
            }
            name if self.children.iter().any(|child| child == name) => {
                Some([&self.module, path].concat())
            }
            _ => None,
        }
    }

    fn note_tree(&mut self, tree: &UseTree, before: &[String], is_reexport: bool) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => {
                self.note_tree(&path.tree, &with(path.ident.to_string()), is_reexport);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.note_tree(tree, before, is_reexport);
                }
            }
            UseTree::Name(name) if name.ident == "self" => {
                self.note(before, name.ident.span(), is_reexport);
            }
            UseTree::Name(name) => {
                self.note(
                    &with(name.ident.to_string()),
                    name.ident.span(),
                    is_reexport,
                );
            }
            UseTree::Rename(rename) => {
                self.note(&with(rename.ident.to_string()), rename.ident.span(), false);
            }
            UseTree::Glob(glob) => self.note(before, glob.star_token.spans[0], false),
        }
    }
}

impl<'a> Visit<'a> for Reader {
    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        if item.attrs.iter().any(is_test_only) {
            return;
        }
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        let is_reexport = !matches!(item.vis, Visibility::Inherited);
        self.note_tree(&item.tree, &[], is_reexport);
    }

    /// `pub(super)` imports nothing.
    fn visit_visibility(&mut self, _: &'a Visibility) {}

    fn visit_path(&mut self, path: &'a syn::Path) {
        let parts: Vec<String> = path
            .segments
            .iter()
            .map(|part| part.ident.to_string())
            .collect();
        if matches!(parts[0].as_str(), "crate" | "super") {
            self.note(&parts, path.segments[0].ident.span(), false);
        }
        visit::visit_path(self, path);
    }
}

fn child_modules(file: &syn::File) -> Vec<String> {
    let modules = file.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) => Some(module.ident.to_string()),
        _ => None,
    });
    modules.collect()
}

/// `#[cfg(test)]`
fn is_test_only(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute
            .parse_args::<syn::Ident>()
            .is_ok_and(|condition| condition == "test")
}
