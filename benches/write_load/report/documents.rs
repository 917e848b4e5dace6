//! Tables of documents in chunks.

use super::table;
use crate::questions::documents::throughput::Run;
use crate::questions::documents::{Documents, edits, write_back};
use crate::questions::user_side;

/// Prints them.
pub fn print(documents: &Documents) {
    table(
        "documents in chunks, documents a second",
        &[
            "",
            "documents",
            "passages",
            "MB",
            "lantern-cli",
            "bare",
            "share",
            "waiting %",
        ],
        documents.throughput.iter().map(throughput).collect(),
    );
    table(
        "passages that an edit of a paragraph embeds",
        &["", "where", "documents", "passages", "embedded", "most"],
        documents.edits.iter().map(edit).collect(),
    );
    table(
        "write-backs of 1,000 passages of one document, seconds",
        &["write-back", "inside the server", "ratio"],
        documents.write_back.iter().map(write_back).collect(),
    );
    table(
        "INSERT, UPDATE, DELETE beside a job with passages: microseconds of processor time a row",
        &[
            "", "round", "tx/s", "p50 ms", "p99 ms", "backend", "serving", "outside", "behind s",
        ],
        documents.users.iter().map(user).collect(),
    );
}

fn throughput(run: &Run) -> Vec<String> {
    vec![
        run.load.name().to_owned(),
        run.documents.to_string(),
        run.passages.to_string(),
        format!("{:.2}", run.bytes as f64 / 1e6),
        format!("{:.2}", run.rate),
        format!("{:.2}", run.bare),
        format!("{:.3}", run.rate / run.bare),
        format!("{:.1}", 100.0 * run.waiting),
    ]
}

fn edit(edit: &edits::Edit) -> Vec<String> {
    vec![
        edit.change.name().to_owned(),
        edit.place.name().to_owned(),
        edit.documents.to_string(),
        format!("{:.0}", edit.passages),
        format!("{:.1}", edit.embedded),
        edit.most.to_string(),
    ]
}

fn write_back(round: &write_back::Round) -> Vec<String> {
    vec![
        format!("{:.4}", round.write_back),
        format!("{:.4}", round.inside),
        format!("{:.3}", round.inside / round.write_back),
    ]
}

fn user(run: &user_side::Run) -> Vec<String> {
    let figures = [
        run.speed.p50,
        run.speed.p99,
        run.backend,
        run.serving,
        run.outside,
        run.behind,
    ];
    let first = [
        run.way.name().to_owned(),
        run.round.to_string(),
        format!("{:.0}", run.speed.tps),
    ];
    first
        .into_iter()
        .chain(figures.map(|figure| format!("{figure:.2}")))
        .collect()
}
