//! Where the items of a program begin, by the grammar of its language.

use tree_sitter::{Node, Parser};
use tree_sitter_language::LanguageFn;

use super::level::{Level, Mark};
use super::mode::Language;

/// Longer texts are cut by their lines alone: a tree takes many times the memory of its text.
const MAX_BYTES: usize = 2 << 20;

/// How deep an item may be in another one: a method is in the body of a class, that is in an export or in a module.
const MAX_DEPTH: usize = 6;

/// What the kinds of nodes are called that can be read by themselves, in the grammars of all languages.
const ITEMS: [&str; 12] = [
    "function",
    "method",
    "class",
    "struct",
    "enum",
    "trait",
    "impl",
    "interface",
    "constructor",
    "mod_item",
    "module",
    "macro_definition",
];

/// What stands before an item and belongs to it.
const BEFORE_ITEMS: [&str; 4] = ["comment", "attribute", "decorator", "annotation"];

/// The levels of the places where items begin.
pub(super) fn marks(text: &str, language: Language) -> Vec<Mark> {
    if text.len() > MAX_BYTES {
        return Vec::new();
    }
    let mut parser = Parser::new();
    // Grammars of another version of the library are no reason to fail: lines are places, too.
    let is_set = parser.set_language(&grammar(language).into());
    let Some(tree) = is_set.ok().and_then(|()| parser.parse(text, None)) else {
        return Vec::new();
    };
    let mut marks = Vec::new();
    collect(tree.root_node(), text, 0, Level::Section, &mut marks);
    marks.sort_unstable_by_key(|mark| (mark.at, mark.level));
    marks.dedup_by_key(|mark| mark.at);
    marks
}

fn grammar(language: Language) -> LanguageFn {
    match language {
        Language::C => tree_sitter_c::LANGUAGE,
        Language::Go => tree_sitter_go::LANGUAGE,
        Language::Java => tree_sitter_java::LANGUAGE,
        Language::JavaScript => tree_sitter_javascript::LANGUAGE,
        Language::Python => tree_sitter_python::LANGUAGE,
        Language::Rust => tree_sitter_rust::LANGUAGE,
        // It reads TypeScript and JSX; only casts in angle brackets are others.
        Language::TypeScript => tree_sitter_typescript::LANGUAGE_TSX,
    }
}

/// Marks the items among the children of a node, and those in them. The outermost get `level`.
fn collect(node: Node, text: &str, depth: usize, level: Level, marks: &mut Vec<Mark>) {
    let mut cursor = node.walk();
    // Where the comments and attributes begin that stand right before the next child.
    let mut first: Option<Node> = None;
    let mut last: Option<Node> = None;
    for child in node.named_children(&mut cursor) {
        let is_apart =
            last.is_none_or(|last| child.start_position().row > last.end_position().row + 1);
        if is_apart {
            first = None;
        }
        last = Some(child);
        if BEFORE_ITEMS.iter().any(|kind| child.kind().contains(kind)) {
            mark_rest(first, child, text, marks);
            first = first.or(Some(child));
            continue;
        }
        let is_item = is_item(child, depth);
        if is_item && first_on_line(child, text) {
            mark_rest(first, child, text, marks);
            marks.push(Mark::new(first.unwrap_or(child).start_byte(), level));
        }
        first = None;
        if depth < MAX_DEPTH && spans_lines(child) {
            let level = if is_item { Level::Subsection } else { level };
            collect(child, text, depth + 1, level, marks);
        }
    }
}

/// Keeps a node with the comment before it.
fn mark_rest(first: Option<Node>, node: Node, text: &str, marks: &mut Vec<Mark>) {
    if first.is_some() && first_on_line(node, text) {
        marks.push(Mark::new(node.start_byte(), Level::Never));
    }
}

fn is_item(node: Node, depth: usize) -> bool {
    spans_lines(node) && (depth == 0 || ITEMS.iter().any(|kind| node.kind().contains(kind)))
}

fn spans_lines(node: Node) -> bool {
    node.end_position().row > node.start_position().row
}

fn first_on_line(node: Node, text: &str) -> bool {
    let before = &text.as_bytes()[..node.start_byte()];
    let indent = before.iter().rev().take_while(|byte| **byte != b'\n');
    indent.take(256).all(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(text: &str, language: Language) -> Vec<(&str, Level)> {
        marks(text, language)
            .iter()
            .map(|mark| (text[mark.at as usize..].lines().next().unwrap(), mark.level))
            .collect()
    }

    #[test]
    fn items_begin_with_their_comments_and_attributes() {
        let text = "use a;\n\n/// Says it.\n/// All.\n#[inline]\nfn one() {\n    x();\n}\nimpl A {\n    /// Two.\n    fn two() {\n        y();\n    }\n}\n";
        use Level::{Never, Section, Subsection};
        assert_eq!(
            marked(text, Language::Rust),
            [
                ("/// Says it.", Section),
                ("/// All.", Never),
                ("#[inline]", Never),
                ("fn one() {", Never),
                ("impl A {", Section),
                ("/// Two.", Subsection),
                ("fn two() {", Never),
            ]
        );
    }

    #[test]
    fn every_grammar_finds_the_items_of_its_language() {
        use Language::*;
        for (language, text, item) in [
            (
                C,
                "int x;\n\nint f(void)\n{\n    return 1;\n}\n",
                "int f(void)",
            ),
            (
                Go,
                "package a\n\nfunc f() int {\n\treturn 1\n}\n",
                "func f() int {",
            ),
            (
                Java,
                "import a;\n\nclass A {\n    int f() {\n        return 1;\n    }\n}\n",
                "class A {",
            ),
            (
                JavaScript,
                "f();\n\nexport function g() {\n  return 1;\n}\n",
                "export function g() {",
            ),
            (Python, "import a\n\n@b\ndef f():\n    return 1\n", "@b"),
            (Rust, "use a;\n\nfn f() {\n    1\n}\n", "fn f() {"),
            (
                TypeScript,
                "f();\n\ninterface G {\n  a: number;\n}\n",
                "interface G {",
            ),
        ] {
            let found = marked(text, language);
            assert!(
                found.contains(&(item, Level::Section)),
                "{language:?}: {found:?}"
            );
        }
    }

    #[test]
    fn what_is_no_program_has_no_items_and_does_no_harm() {
        for text in ["", "\n", "}{", "fn (((", "これは", "/*"] {
            marks(text, Language::Rust);
            marks(text, Language::Python);
        }
        let long = "fn f() {\n}\n".repeat(MAX_BYTES / 10);
        assert!(marks(&long, Language::Rust).is_empty());
    }
}
