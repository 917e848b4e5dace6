//! The SELECT of a search over passages: the nearest passage of each document, with its neighbours.
//!
//! ```text
//! by index   passages in the order of the index, those of current documents ─▶ so many ─▶ the nearest of each document ─┐
//! exact      the nearest passage of each document ─▶ in order ─▶ those of current documents ─▶ so many ─────────────────┤
//!                                                                     its neighbours and the columns of its row ◀───────┘
//! ```
//!
//! A document is current where the fingerprint on its first passage is that of the row, as in the view of documents. To
//! tell, the server reads the whole text of the row. So the exact search asks for the documents that it returns alone.
//!
//! A document is told by where its first passage is stored: keys may have types that SQL can compare but not sort. What
//! holds in [`statement`](super::statement) for names and conditions holds here: the condition is within a subquery
//! that sees no names of ours.

use crate::pipeline::commands::search::columns::ShownColumns;
use crate::pipeline::commands::search::condition::Condition;
use crate::pipeline::commands::search::statement::{Figures, Order};
use crate::pipeline::index::catalog::VectorIndex;
use crate::pipeline::table::distance::Distance;
use crate::pipeline::table::passages::{
    CHUNK, DOCUMENT_FINGERPRINT, END, PassageTable, SEQ, START,
};
use crate::pipeline::table::target::TargetTable;
use crate::postgres::quote::identifier;

/// The nearest passages of a job, one of each document.
pub(super) struct NearestPassages<'a> {
    /// The table with the texts.
    pub target: &'a TargetTable,
    /// The table of their passages.
    pub passages: &'a PassageTable,
    /// What is shown of each row.
    pub columns: &'a ShownColumns,
    /// Which rows count; `None`: all.
    pub condition: Option<&'a Condition>,
    /// The most documents.
    pub limit: u32,
}

/// How many columns a statement returns before those of the row: the distance, the cosine similarity, the number of
/// candidates, then place, start, end and text of the passage, of the one before and of the one after.
pub(super) const FIRST_SHOWN: usize = 3 + 3 * 4;

impl NearestPassages<'_> {
    /// The statement that takes the nearest passages from an index, up to this many candidates.
    pub fn by_index(&self, index: &VectorIndex, candidates: u64) -> String {
        let Figures {
            column,
            distance,
            sorted_by,
            ..
        } = Figures::new(&self.target.destination, "p", &Order::ByIndex(index));
        let (table, key, limit) = (self.passages.qualified(), &self.target.key, self.limit);
        self.with_neighbors(&format!(
            "SELECT * FROM ( \
               SELECT DISTINCT ON (n.document) n.*, pg_catalog.count(*) OVER () AS candidates FROM ( \
                 SELECT f.ctid AS document, {keys}, p.{SEQ} AS seq, {distance} AS distance \
                 FROM {table} AS p JOIN {documents} ON {of_document} JOIN {table} AS f ON {first_of_document} AND {is_first} \
                 WHERE {column} IS NOT NULL AND {is_current} ORDER BY {sorted_by} LIMIT {candidates}) AS n \
               ORDER BY n.document, n.distance, n.seq) AS u \
             ORDER BY u.distance LIMIT {limit}",
            keys = self.keys(),
            documents = self.documents(),
            of_document = self.passages.is_of(key, "p", "d"),
            first_of_document = self.passages.is_of(key, "f", "d"),
            is_first = is_at("f", "0"),
            is_current = self.is_current("f"),
        ))
    }

    /// The statement that compares every passage.
    pub fn exact(&self, distance: Distance) -> String {
        let Figures {
            column,
            distance,
            further_from,
            ..
        } = Figures::new(&self.target.destination, "p", &Order::Exact(distance));
        let (table, limit) = (self.passages.qualified(), self.limit);
        // With its own ORDER BY the inner query stays one, so the texts of rows are read in its order, until there are
        // enough.
        self.with_neighbors(&format!(
            "SELECT b.*, 0::bigint AS candidates FROM ( \
               SELECT * FROM ( \
                 SELECT DISTINCT ON (f.ctid) f.ctid AS document, f.{DOCUMENT_FINGERPRINT}, {keys}, p.{SEQ} AS seq, \
                   {distance} AS distance \
                 FROM {table} AS p JOIN {table} AS f ON {first_of_document} AND {is_first}{further_from} \
                 WHERE {column} IS NOT NULL ORDER BY f.ctid, distance, p.{SEQ}) AS u \
               ORDER BY u.distance) AS b \
             JOIN {documents} ON {of_document} WHERE {is_current} ORDER BY b.distance LIMIT {limit}",
            keys = self.keys(),
            first_of_document = self.passages.is_of(&self.target.key, "f", "p"),
            is_first = is_at("f", "0"),
            documents = self.documents(),
            of_document = self.target.key_join("d", "b"),
            is_current = self.is_current("b"),
        ))
    }

    /// Adds what is shown to `best`, a query for keys, places and distances.
    fn with_neighbors(&self, best: &str) -> String {
        let destination = &self.target.destination;
        let similarity = match destination.vector_schema {
            Some(_) => Figures::new(destination, "p", &Order::Exact(Distance::Cosine)).similarity,
            None => "(1::float8 OPERATOR(pg_catalog.-) b.distance)".into(),
        };
        let mut shown = vec![
            "b.distance".to_owned(),
            similarity,
            "b.candidates".to_owned(),
        ];
        for alias in ["p", "before", "after"] {
            shown.extend([SEQ, START, END, CHUNK].map(|column| format!("{alias}.{column}")));
        }
        let cells = self.columns.names();
        shown.extend(cells.map(|name| format!("pg_catalog.format('%s', t.{})", identifier(name))));
        let table = self.passages.qualified();
        let at = |alias: &str, place: &str| {
            format!(
                "{table} AS {alias} ON {} AND {}",
                self.target.key_join(alias, "b"),
                is_at(alias, place)
            )
        };
        format!(
            "SELECT {shown} FROM ({best}) AS b JOIN {itself} JOIN {source} AS t ON {of_row} \
             LEFT JOIN {before} LEFT JOIN {after} ORDER BY b.distance",
            shown = shown.join(", "),
            itself = at("p", "b.seq"),
            source = self.target.from_clause(),
            of_row = self.target.key_join("t", "b"),
            before = at("before", "(b.seq OPERATOR(pg_catalog.-) 1)"),
            after = at("after", "(b.seq OPERATOR(pg_catalog.+) 1)"),
        )
    }

    /// The rows with the texts, as `d`: what tells whether they are current, of those for which the condition is true.
    fn documents(&self) -> String {
        let table = self.target.from_clause();
        let Some(condition) = self.condition else {
            return format!("{table} AS d");
        };
        let mut needed = self.target.required_columns();
        // Not published where it is generated.
        let source = &self.target.source.name;
        if !needed.contains(source) {
            needed.push(source.clone());
        }
        let needed: Vec<String> = needed.iter().map(|name| identifier(name)).collect();
        format!(
            "(SELECT {} FROM {table} AS {} WHERE {}) AS d",
            needed.join(", "),
            identifier(&self.target.name),
            condition.sql()
        )
    }

    /// The key of a passage, by the names that [`TargetTable::key_join`] knows.
    fn keys(&self) -> String {
        let names = (0..).zip(&self.target.key);
        let keys =
            names.map(|(place, column)| format!("p.{} AS k{place}", identifier(&column.name)));
        keys.collect::<Vec<_>>().join(", ")
    }

    /// The condition that the document `d`, whose first passage has its fingerprint in `first`, is current.
    ///
    /// As a CASE it has a plain estimate: an equality would seem to leave one row, and the planner would rather compute
    /// all of them than follow the index.
    fn is_current(&self, first: &str) -> String {
        format!(
            "CASE WHEN {first}.{DOCUMENT_FINGERPRINT} OPERATOR(pg_catalog.=) {} THEN true ELSE false END",
            self.passages.documents.expected(&self.target.source, "d")
        )
    }
}

/// The condition that the passage `alias` has a place in its document.
fn is_at(alias: &str, place: &str) -> String {
    format!("{alias}.{SEQ} OPERATOR(pg_catalog.=) {place}")
}
