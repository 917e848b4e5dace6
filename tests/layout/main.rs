//! The layout of the code, as `ARCHITECTURE.md` draws it: which module may import which, and no circle of files.
//!
//! A module in this sense is a folder, or a file that stands alone. The test reads the imports of every file under `src/` and `benches/`,
//! finds the file that defines each imported name, and compares. It says in one line what is wrong.

mod circles;
mod imports;
mod modules;
mod tree;

use circles::find_circles;
use modules::{MODULES, find_violations};
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
