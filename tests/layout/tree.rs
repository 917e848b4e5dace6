//! The files of one crate, their modules, and which file each import leads to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::imports::{ParsedFile, parse};

/// The source files below a crate's root folder, by their path in it, such as `pipeline/slot/names.rs`.
pub struct Tree {
    root: String,
    files: BTreeMap<String, ParsedFile>,
    /// The files by their module's path: `["pipeline", "slot", "names"]`.
    modules: BTreeMap<Vec<String>, String>,
}

/// An import, resolved to the file that defines what is imported.
pub struct Import {
    pub file: String,
    pub line: usize,
    /// As it is written, such as `super::names::MemberId`.
    pub path: String,
    pub target: String,
}

impl Tree {
    /// Reads all files below this folder of the checkout.
    pub fn read(root: &str) -> Tree {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
        let mut tree = Tree {
            root: root.to_owned(),
            files: BTreeMap::new(),
            modules: BTreeMap::new(),
        };
        tree.read_folder(&folder, &folder);
        assert!(!tree.files.is_empty(), "no source files in {root}");
        tree
    }

    fn read_folder(&mut self, root: &Path, folder: &Path) {
        for entry in fs::read_dir(folder).expect("the folder is readable") {
            let path = entry.expect("the entry is readable").path();
            if path.is_dir() {
                self.read_folder(root, &path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("it is below the root");
                let name = name.to_str().expect("paths are UTF-8").to_owned();
                let text = fs::read_to_string(&path).expect("the file is readable");
                // The tests of a file may import what they like.
                if !name.ends_with("/tests.rs") {
                    self.add(name, &text);
                }
            }
        }
    }

    fn add(&mut self, name: String, text: &str) {
        let module = module_of(&name);
        self.files.insert(name.clone(), parse(&module, text));
        self.modules.insert(module, name);
    }

    /// Adds a line at the end of a file of this copy of the tree.
    pub fn append(&mut self, name: &str, line: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(&self.root)
            .join(name);
        let text = fs::read_to_string(path).expect("the file is readable");
        self.add(name.to_owned(), &format!("{text}\n{line}\n"));
    }

    /// The path of each file below the root.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// As a person finds the file: `src/pipeline/slot/names.rs`.
    pub fn shown(&self, file: &str) -> String {
        format!("{}/{file}", self.root)
    }

    /// Every import of one file from another.
    pub fn imports(&self) -> Vec<Import> {
        let mut imports = Vec::new();
        for (file, parsed) in &self.files {
            for path in &parsed.paths {
                let target = self.definer(&path.absolute, 0);
                if let Some(target) = target.filter(|target| target != file) {
                    imports.push(Import {
                        file: file.clone(),
                        line: path.line,
                        path: path.written.clone(),
                        target,
                    });
                }
            }
        }
        imports
    }

    /// The file that defines what an absolute path names. Follows `pub use` to the definition, so that the face of a module,
    /// its `mod.rs`, does not count as one of its definers.
    fn definer(&self, path: &[String], depth: usize) -> Option<String> {
        let length = (0..=path.len()).rev();
        let (module, file) = length
            .map(|length| &path[..length])
            .find_map(|module| Some((module, self.modules.get(module)?)))?;
        if let Some(name) = path.get(module.len())
            && let Some(origin) = self.files[file].reexports.get(name)
            && depth < 8
        {
            let further = path[module.len() + 1..].iter().cloned();
            let origin: Vec<String> = origin.iter().cloned().chain(further).collect();
            return self.definer(&origin, depth + 1);
        }
        // A path that names only the crate's root names nothing of it.
        (!module.is_empty()).then(|| file.clone())
    }
}

fn module_of(file: &str) -> Vec<String> {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let mut module: Vec<String> = stem.split('/').map(str::to_owned).collect();
    let last = module.last().map(String::as_str);
    if matches!(last, Some("mod")) || matches!(stem, "lib" | "main") {
        module.pop();
    }
    module
}
