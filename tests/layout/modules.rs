//! Which module may import which. The table is the picture in `ARCHITECTURE.md`, in code.

use crate::tree::Tree;

/// Each module with the modules that it may import, from the ground up. A module may always import itself.
///
/// A file of the library's root (`lib.rs`, `main.rs`) names the modules and is not checked.
pub const MODULES: &[(&str, &[&str])] = &[
    // The ground: each could be a crate of its own.
    ("failpoint", &[]),
    ("backoff", &[]),
    ("byte_size", &[]),
    ("plural", &[]),
    ("reminder", &[]),
    ("shown", &[]),
    ("similar", &[]),
    ("ticks", &[]),
    ("splitting", &["similar"]),
    ("replication", &[]),
    ("postgres", &[]),
    ("embedding", &["backoff", "failpoint"]),
    ("embedded", &[]),
    // The jobs table.
    ("jobs", &["postgres", "shown"]),
    // The state of jobs, for those who watch.
    ("status", &["embedding", "jobs", "shown"]),
    // One job's way, in the order of the data.
    ("pipeline/error", &["embedding", "postgres", "replication"]),
    ("pipeline/table", &["postgres", "replication"]),
    (
        "pipeline/slot",
        &[
            "ticks",
            "backoff",
            "byte_size",
            "postgres",
            "replication",
            "jobs",
            "status",
            "pipeline/error",
        ],
    ),
    (
        "pipeline/setup",
        &[
            "similar",
            "splitting",
            "failpoint",
            "backoff",
            "postgres",
            "replication",
            "embedding",
            "jobs",
            "status",
            "pipeline/error",
            "pipeline/table",
            "pipeline/slot",
        ],
    ),
    (
        "pipeline/index",
        &[
            "backoff",
            "reminder",
            "postgres",
            "jobs",
            "pipeline/error",
            "pipeline/table",
            "pipeline/slot",
            "pipeline/setup",
        ],
    ),
    (
        "pipeline/changeover",
        &[
            "backoff",
            "failpoint",
            "plural",
            "reminder",
            "postgres",
            "replication",
            "jobs",
            "pipeline/error",
            "pipeline/table",
            "pipeline/slot",
            "pipeline/setup",
            "pipeline/index",
        ],
    ),
    (
        "pipeline/chunks",
        &["splitting", "postgres", "pipeline/table"],
    ),
    (
        "pipeline/backfill",
        &[
            "failpoint",
            "postgres",
            "replication",
            "jobs",
            "pipeline/error",
            "pipeline/table",
            "pipeline/chunks",
        ],
    ),
    (
        "pipeline/write",
        &[
            "failpoint",
            "backoff",
            "byte_size",
            "plural",
            "splitting",
            "postgres",
            "replication",
            "embedding",
            "jobs",
            "status",
            "pipeline/error",
            "pipeline/table",
            "pipeline/slot",
            "pipeline/setup",
            "pipeline/chunks",
        ],
    ),
    (
        "pipeline/capture",
        &[
            "ticks",
            "failpoint",
            "plural",
            "postgres",
            "replication",
            "jobs",
            "status",
            "pipeline/error",
            "pipeline/table",
            "pipeline/slot",
            "pipeline/setup",
        ],
    ),
    (
        "pipeline/job",
        &[
            "ticks",
            "backoff",
            "reminder",
            "plural",
            "postgres",
            "embedding",
            "jobs",
            "status",
            "pipeline/error",
            "pipeline/table",
            "pipeline/slot",
            "pipeline/setup",
            "pipeline/index",
            "pipeline/changeover",
            "pipeline/backfill",
            "pipeline/write",
            "pipeline/capture",
        ],
    ),
    (
        "pipeline/commands",
        &[
            "similar",
            "backoff",
            "plural",
            "postgres",
            "replication",
            "embedding",
            "jobs",
            "status",
            "pipeline/error",
            "pipeline/table",
            "pipeline/slot",
            "pipeline/setup",
            "pipeline/index",
            "pipeline/changeover",
            "pipeline/chunks",
            "pipeline/backfill",
            "pipeline/write",
        ],
    ),
    (
        "pipeline/supervisor",
        &[
            "failpoint",
            "backoff",
            "reminder",
            "plural",
            "postgres",
            "replication",
            "embedding",
            "jobs",
            "status",
            "pipeline/error",
            "pipeline/slot",
            "pipeline/setup",
            "pipeline/index",
            "pipeline/changeover",
            "pipeline/backfill",
            "pipeline/capture",
            "pipeline/job",
        ],
    ),
    ("http", &["plural", "shown", "embedding", "status"]),
    // What a person calls.
    (
        "cli",
        &[
            "backoff",
            "byte_size",
            "failpoint",
            "plural",
            "shown",
            "similar",
            "postgres",
            "embedding",
            "embedded",
            "jobs",
            "status",
            "http",
            "pipeline/error",
            "pipeline/table",
            "pipeline/slot",
            "pipeline/setup",
            "pipeline/index",
            "pipeline/changeover",
            "pipeline/backfill",
            "pipeline/commands",
            "pipeline/supervisor",
        ],
    ),
];

/// Files that only list their children.
const FACES: [&str; 3] = ["lib.rs", "main.rs", "pipeline/mod.rs"];

/// The module of a file, given by its path below `src/`; `Some("")` for a file that only lists modules.
pub fn module_of(file: &str) -> Option<&'static str> {
    if FACES.contains(&file) {
        return Some("");
    }
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let modules = MODULES.iter().map(|(module, _)| *module);
    modules
        .filter(|module| stem == *module || stem.starts_with(&format!("{module}/")))
        .max_by_key(|module| module.len())
}

/// Every import that the table does not allow, each as one line for a person.
pub fn find_violations(tree: &Tree) -> Vec<String> {
    let mut violations = Vec::new();
    for import in tree.imports() {
        let (Some(from), Some(to)) = (module_of(&import.file), module_of(&import.target)) else {
            continue;
        };
        if from.is_empty() || to.is_empty() || from == to || allowed(from).contains(&to) {
            continue;
        }
        violations.push(format!(
            "src/{}:{}: {from} may not import {to} (`{}`): move what it needs below both, or change the table in \
             tests/layout/modules.rs and the picture in ARCHITECTURE.md",
            import.file, import.line, import.path
        ));
    }
    violations
}

fn allowed(module: &str) -> &'static [&'static str] {
    let found = MODULES.iter().find(|(name, _)| *name == module);
    found.map_or(&[], |(_, imported)| imported)
}
