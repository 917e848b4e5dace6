//! The layout of the code, as `ARCHITECTURE.md` draws it: which module may import which, and no circle of files.
//!
//! A module in this sense is a folder, or a file that stands alone. The test reads the imports of every file under `src/` and `benches/`,
//! finds the file that defines each imported name, and compares. It says in one line what is wrong.

mod circles;
mod imports;
mod modules;
mod remedies;
mod tree;

use circles::find_circles;
use modules::{MODULES, find_violations};
use remedies::{DOCUMENT, Text, entries, texts};
use tree::Tree;

#[test]
fn imports_run_only_downward() {
    let violations = find_violations(&Tree::read("src"));
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn the_table_of_modules_lists_each_module_below_those_that_import_it() {
    for (position, (module, imported)) in MODULES.iter().enumerate() {
        for below in *imported {
            let place = MODULES.iter().position(|(name, _)| name == below);
            assert!(
                place.is_some_and(|place| place < position),
                "{module} imports {below}, which the table does not list before it"
            );
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    for crate_root in ["src", "benches/write_load"] {
        let circles = find_circles(&Tree::read(crate_root));
        assert!(circles.is_empty(), "\n{}\n", circles.join("\n"));
    }
}

/// The check itself: an import that runs upward, planted into a copy of the tree, is reported with its file, its line and
/// what to do.
#[test]
fn a_planted_upward_import_is_reported_in_one_line() {
    let mut tree = Tree::read("src");
    tree.append(
        "pipeline/slot/names.rs",
        "use crate::pipeline::supervisor::fleet::Fleet;",
    );
    let violations = find_violations(&tree);
    let [line] = violations.as_slice() else {
        panic!("{violations:#?}")
    };
    assert!(
        line.starts_with("src/pipeline/slot/names.rs:") && !line.contains('\n'),
        "{line}"
    );
    assert!(
        line.contains("pipeline/slot may not import pipeline/supervisor"),
        "{line}"
    );
}

#[test]
fn a_planted_circle_is_reported_with_its_files() {
    let mut tree = Tree::read("src");
    tree.append("pipeline/table/row.rs", "use super::target::KeyColumn;");
    let circles = find_circles(&tree);
    assert!(
        circles
            .iter()
            .any(|circle| circle.contains("src/pipeline/table/row.rs")),
        "{circles:#?}"
    );
}

#[test]
fn every_file_belongs_to_a_module() {
    let tree = Tree::read("src");
    for file in tree.files() {
        assert!(
            modules::module_of(file).is_some(),
            "src/{file} is in no module: add it to the table in tests/layout/modules.rs and to ARCHITECTURE.md"
        );
    }
}

/// All texts of the code.
fn all_texts() -> Vec<Text> {
    let tree = Tree::read("src");
    let read = |file: &str| {
        let shown = tree.shown(file);
        let code = std::fs::read_to_string(&shown).expect("the file is readable");
        texts(&shown, &code)
    };
    tree.files().flat_map(read).collect()
}

#[test]
fn each_error_text_that_names_a_remedy_is_in_the_document() {
    let entries = entries();
    let missing: Vec<String> = all_texts()
        .iter()
        .filter(|text| text.names_remedy())
        .filter(|text| !entries.iter().any(|entry| entry.is_for(&text.text)))
        .map(|text| format!("{}: {}", text.file, text.text))
        .collect();
    assert!(
        missing.is_empty(),
        "\nnot in {DOCUMENT}; add an entry (CONTRIBUTING.md, \"Error texts\"):\n{}\n",
        missing.join("\n")
    );
}

#[test]
fn each_entry_of_the_document_is_a_text_of_the_code() {
    let texts = all_texts();
    let scripts = std::fs::read_dir("sql").expect("the folder is readable");
    let scripts = scripts.map(|script| script.expect("the entry is readable").path());
    let scripts: Vec<String> = scripts
        .map(|path| {
            std::fs::read_to_string(path)
                .expect("the file is readable")
                .replace('%', "…")
        })
        .collect();
    let is_known = |entry: &remedies::Entry| {
        entry.is_of_others
            || texts.iter().any(|text| entry.is_for(&text.text))
            || scripts.iter().any(|script| entry.is_for(script))
    };
    let dead: Vec<String> = entries()
        .into_iter()
        .filter(|entry| !is_known(entry))
        .map(|entry| entry.written)
        .collect();
    assert!(
        dead.is_empty(),
        "\nno text of the code has these entries of {DOCUMENT}; correct or remove them:\n{}\n",
        dead.join("\n")
    );
}

#[test]
fn a_text_without_an_entry_would_be_found() {
    let code = r#"
        #[derive(Error)]
        #[error("the port {0} is taken; choose another one")]
        struct Taken(u16);
        fn help() -> String { format!("no rows: {}, or {{run}} it: use --all", 1) }
        #[cfg(test)]
        mod tests { const T: &str = "only a test; remove it please now"; }
    "#;
    let texts = texts("src/a.rs", code);
    let found: Vec<&str> = texts.iter().map(|text| text.text.as_str()).collect();
    let expected = [
        "the port … is taken; choose another one",
        "no rows: …, or {run} it: use --all",
    ];
    assert_eq!(found, expected);
    assert!(texts.iter().all(Text::names_remedy));
}
