//! Files that import each other in a circle: the strongly connected components of the graph of imports.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::Tree;

/// Each circle as one line for a person.
pub fn find_circles(tree: &Tree) -> Vec<String> {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for import in tree.imports() {
        graph.entry(import.file).or_default().insert(import.target);
    }
    let reachable: BTreeMap<&String, BTreeSet<&String>> = graph
        .keys()
        .map(|file| (file, reachable(&graph, file)))
        .collect();
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for file in graph.keys() {
        let others = reachable[file].iter().copied();
        // Two files are in one circle if each reaches the other.
        let circle: Vec<&String> = others
            .filter(|other| {
                reachable
                    .get(*other)
                    .is_some_and(|back| back.contains(file))
            })
            .collect();
        if circle.len() > 1 && seen.insert(circle.clone()) {
            let files: Vec<String> = circle.iter().map(|file| tree.shown(file)).collect();
            circles.push(format!(
                "these {} files import each other in a circle: {}; move what they share into a file of its own",
                files.len(),
                files.join(", ")
            ));
        }
    }
    circles
}

fn reachable<'a>(
    graph: &'a BTreeMap<String, BTreeSet<String>>,
    from: &str,
) -> BTreeSet<&'a String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&String> = graph.get(from).into_iter().flatten().collect();
    while let Some(file) = open.pop() {
        if found.insert(file) {
            open.extend(graph.get(file).into_iter().flatten());
        }
    }
    found
}
