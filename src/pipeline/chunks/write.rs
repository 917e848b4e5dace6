//! The statement that replaces the passages of documents, with its guard.
//!
//! ```text
//! asked      the documents: keys, transactions, fingerprints, which versions of passage rows they were compared with
//!    │
//! judged     the guard: whether the source row still has the text and fields that were cut, or is still gone, and the
//!    │       passages are still those that it was compared with
//! good       the documents that pass
//!    │
//! opened     emits the write-back marker, and gives the users' own code the users' settings
//!    │
//! deleted    passages behind the new end
//! moved      passages that keep their vector, at a new place in the text
//! written    passages with another vector: a new one, or that of the row which had the passage until now
//!    │
//! result     for each document a number, the Outcome
//! ```
//!
//! **One writer at a time.** The statement follows `pg_advisory_xact_lock` in the same transaction, so its snapshot shows
//! what every writer before it has committed. The daemon and the commands beside it thus write one after the other, and
//! what the guard sees is what the changes apply to. No row of the source is locked.
//!
//! **Readers** see the passages of the old text until the commit, then those of the new one.
//!
//! **Vectors that stay** are not written: an update that leaves all indexed columns as they are needs no new entry in an
//! index (PostgreSQL manual, "Heap-Only Tuples"), and the index of vectors is the expensive one.
//!
//! **A trigger that cancels** the change of a passage would leave a mixture of two documents. So the statement counts what
//! it has changed, and fails where that is less than it meant to.

use std::collections::HashMap;

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::plan::{Plan, VectorFrom};
use super::read::stored_version;
use crate::pipeline::table::key_sql::parameters;
use crate::pipeline::table::passages::{
    CHUNK, CHUNK_FINGERPRINT, DOCUMENT_FINGERPRINT, END, PassageTable, SEQ, START,
};
use crate::pipeline::table::row::Key;
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::table::visibility::is_visible;
use crate::pipeline::table::write_back_marker::{self, WRITE_BACK_MARKER};
use crate::postgres::quote::{identifier, literal};
use crate::postgres::user_settings::UserSettings;
use crate::postgres::vector_array::VectorArray;

/// What became of a document. The numbers are those of the statement's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum DocumentOutcome {
    /// Its passages are those of the plan.
    Written = 0,
    /// The passages are others than those that the plan was made from: another writer was faster.
    PassagesChanged = 1,
    /// The change was streamed before its commit became visible.
    NotYetVisible = 3,
    /// The row has another text, other fields, or is there again or no more.
    RowChanged = 5,
}

impl DocumentOutcome {
    /// The outcome that the statement reports by this number.
    pub fn from_number(number: i32) -> Self {
        match number {
            0 => DocumentOutcome::Written,
            1 => DocumentOutcome::PassagesChanged,
            3 => DocumentOutcome::NotYetVisible,
            _ => DocumentOutcome::RowChanged,
        }
    }
}

/// Begins the error with which the statement fails where a trigger has canceled a change.
pub const CANCELED: &str = "passages canceled by a trigger";

/// What a document has besides its key: the transaction that brought the change, its fingerprint (NULL for none), the
/// version of its stored passages, and the number of those that it gets.
const OF_DOCUMENT: [(&str, &str); 4] = [
    ("bigint", "xid"),
    ("uuid", "fingerprint"),
    ("uuid", "version"),
    ("int", "passages"),
];

/// What a passage that keeps its vector has: its document, counted from 1, its number and place, its text where that is
/// another one, and its fingerprint.
const OF_MOVED: [(&str, &str); 6] = [
    ("bigint", "n"),
    ("int", "seq"),
    ("int", "from_character"),
    ("int", "to_character"),
    ("text", "chunk"),
    ("uuid", "fingerprint"),
];

/// What a passage with another vector has besides: the number of the row that has the vector, NULL for a new one.
const ORIGIN: (&str, &str) = ("int", "origin");

/// The statement. Its parameters are [`PassageParameters`]; each result row is the place of a document in the batch, counted
/// from 1, and the number of its [`DocumentOutcome`].
pub fn statement(
    target: &TargetTable,
    passages: &PassageTable,
    dimensions: usize,
    user_settings: &UserSettings,
) -> String {
    let keys: Vec<String> = (0..target.key.len()).map(|n| format!("d.k{n}")).collect();
    let names = target.key.iter().map(|column| identifier(&column.name));
    let names: Vec<String> = names.collect();
    let table = passages.qualified();
    let of_key = target.key_join("p", "d");
    let vector = identifier(&target.destination.name);
    let is_open = "(SELECT count(*) FROM opened) = 1";
    format!(
        "WITH asked AS MATERIALIZED (SELECT u.n, {casts}, u.xid, u.fingerprint, u.version, u.passages FROM {batch}), \
         judged AS MATERIALIZED ({judged}), \
         good AS MATERIALIZED (SELECT i.* FROM asked i JOIN judged j ON j.n = i.n WHERE j.outcome IS NULL), \
         opened AS MATERIALIZED ( \
           SELECT {settings}, pg_logical_emit_message(true, {prefix}, ${marker}) \
           FROM (SELECT count(*) FROM judged) complete WHERE EXISTS (SELECT FROM good)), \
         doomed AS MATERIALIZED ( \
           SELECT p.ctid AS place, p.tableoid AS part FROM good d JOIN {table} p ON {of_key} AND p.{SEQ} >= d.passages), \
         moving AS MATERIALIZED ({moving}), writing AS MATERIALIZED ({writing}), \
         deleted AS ( \
           DELETE FROM {table} p USING doomed x WHERE p.ctid = x.place AND p.tableoid = x.part AND {is_open} RETURNING 1), \
         moved AS ( \
           UPDATE {table} p SET {START} = d.from_character, {END} = d.to_character, {CHUNK} = COALESCE(d.chunk, p.{CHUNK}), \
                  {CHUNK_FINGERPRINT} = d.fingerprint, {DOCUMENT_FINGERPRINT} = d.of_document \
           FROM moving d WHERE {of_key} AND p.{SEQ} = d.seq AND {is_open} RETURNING 1), \
         written AS ( \
           INSERT INTO {table} ({names}, {SEQ}, {START}, {END}, {CHUNK}, {vector}, {CHUNK_FINGERPRINT}, {DOCUMENT_FINGERPRINT}) \
           SELECT {keys}, d.seq, d.from_character, d.to_character, d.chunk, d.vector, d.fingerprint, d.of_document \
           FROM writing d WHERE {is_open} \
           ON CONFLICT ({names}, {SEQ}) DO UPDATE SET {START} = EXCLUDED.{START}, {END} = EXCLUDED.{END}, \
             {CHUNK} = EXCLUDED.{CHUNK}, {vector} = EXCLUDED.{vector}, {CHUNK_FINGERPRINT} = EXCLUDED.{CHUNK_FINGERPRINT}, \
             {DOCUMENT_FINGERPRINT} = EXCLUDED.{DOCUMENT_FINGERPRINT} RETURNING 1), \
         counted AS MATERIALIZED ( \
           SELECT (SELECT count(*) FROM deleted) + (SELECT count(*) FROM moved) + (SELECT count(*) FROM written) \
                - (SELECT count(*) FROM doomed) - (SELECT count(*) FROM moving) - (SELECT count(*) FROM writing) AS missing) \
         SELECT j.n, COALESCE(j.outcome, {done}) + (SELECT CASE WHEN c.missing < 0 \
                THEN ({canceled} || c.missing::text)::int ELSE 0 END FROM counted c) \
         FROM judged j",
        casts = target.key_casts("u"),
        batch = target.unnest_keys(&OF_DOCUMENT),
        judged = judged(target, passages),
        settings = user_settings.set_config(),
        prefix = literal(WRITE_BACK_MARKER),
        marker = parameter_after_passages(target),
        moving = moving(target),
        writing = writing(target, passages, dimensions),
        names = names.join(", "),
        keys = keys.join(", "),
        done = DocumentOutcome::Written as i32,
        canceled = literal(&format!("{CANCELED} ")),
    )
}

/// The guard: NULL for a document that passes, else the number of its outcome. A row that is gone or has no text has no
/// fingerprint. Where row level security hides rows, nothing can be said of those that are not seen.
fn judged(target: &TargetTable, passages: &PassageTable) -> String {
    format!(
        "SELECT i.n, CASE \
           WHEN NOT ({visible}) OR row_security_active({oid}::oid) THEN {not_yet_visible} \
           WHEN i.fingerprint IS DISTINCT FROM (SELECT {expected} FROM {source} t WHERE {join}) THEN {row_changed} \
           WHEN {stored} IS DISTINCT FROM i.version THEN {passages_changed} END AS outcome \
         FROM asked i",
        visible = is_visible("i.xid"),
        oid = target.oid,
        not_yet_visible = DocumentOutcome::NotYetVisible as i32,
        source = target.from_clause(),
        join = target.key_join("t", "i"),
        expected = passages.documents.expected(&target.source, "t"),
        row_changed = DocumentOutcome::RowChanged as i32,
        stored = stored_version(target, passages),
        passages_changed = DocumentOutcome::PassagesChanged as i32,
    )
}

/// The number of the first parameter about passages that keep their vector.
fn first_moved(target: &TargetTable) -> usize {
    target.key.len() + OF_DOCUMENT.len() + 1
}

/// The number of the first parameter about passages with another vector.
fn first_written(target: &TargetTable) -> usize {
    first_moved(target) + OF_MOVED.len()
}

/// The number of the parameter with the marker's content. The vectors come behind it.
fn parameter_after_passages(target: &TargetTable) -> usize {
    first_written(target) + OF_MOVED.len() + 1
}

/// `unnest($7::bigint[], …)` for these columns, from this parameter on.
fn arrays<'a>(
    first: usize,
    columns: impl IntoIterator<Item = &'a (&'a str, &'a str)>,
) -> (Vec<String>, Vec<&'a str>) {
    let numbered = (first..).zip(columns);
    numbered
        .map(|(number, (kind, name))| (format!("${number}::{kind}[]"), *name))
        .unzip()
}

/// What a passage says of its document, on the first one alone.
const OF_FIRST: &str = "CASE WHEN w.seq = 0 THEN d.fingerprint END AS of_document";

/// The passages that keep their vector, of the documents that pass.
fn moving(target: &TargetTable) -> String {
    let (arrays, names) = arrays(first_moved(target), &OF_MOVED);
    format!(
        "SELECT {keys}, w.seq, w.from_character, w.to_character, w.chunk, w.fingerprint, {OF_FIRST} \
         FROM unnest({arrays}) AS w({names}) JOIN good d ON d.n = w.n",
        keys = keys_of_documents(target),
        arrays = arrays.join(", "),
        names = names.join(", "),
    )
}

/// The passages with another vector, of the documents that pass. Those with a new one come first, so the new vectors are
/// in the order of their rows.
fn writing(target: &TargetTable, passages: &PassageTable, dimensions: usize) -> String {
    let (mut arrays, mut names) = arrays(
        first_written(target),
        OF_MOVED.iter().chain(std::iter::once(&ORIGIN)),
    );
    let vectors = parameter_after_passages(target) + 1;
    let computed = match &target.destination.vector_schema {
        Some(schema) => {
            arrays.push(format!("${vectors}::{}.vector[]", identifier(schema)));
            names.push("vector");
            "w.vector".to_owned()
        }
        None => format!(
            "(${vectors}::real[])[(w.place - 1) * {dimensions} + 1 : w.place * {dimensions}]"
        ),
    };
    format!(
        "SELECT {keys}, w.seq, w.from_character, w.to_character, w.chunk, w.fingerprint, {OF_FIRST}, \
                CASE WHEN w.origin IS NULL THEN ({computed})::{kind} \
                     ELSE (SELECT p.{vector} FROM {table} p WHERE {of_key} AND p.{SEQ} = w.origin) END AS vector \
         FROM unnest({arrays}) WITH ORDINALITY AS w({names}, place) JOIN good d ON d.n = w.n",
        keys = keys_of_documents(target),
        kind = target.destination.type_name,
        vector = identifier(&target.destination.name),
        table = passages.qualified(),
        of_key = target.key_join("p", "d"),
        arrays = arrays.join(", "),
        names = names.join(", "),
    )
}

fn keys_of_documents(target: &TargetTable) -> String {
    let keys: Vec<String> = (0..target.key.len()).map(|n| format!("d.k{n}")).collect();
    keys.join(", ")
}

/// The types of the statement's parameters but for the vectors, which the server infers from their cast.
pub fn types(target: &TargetTable) -> Vec<Type> {
    let of_passages = [
        Type::INT8_ARRAY,
        Type::INT4_ARRAY,
        Type::INT4_ARRAY,
        Type::INT4_ARRAY,
        Type::TEXT_ARRAY,
        Type::UUID_ARRAY,
    ];
    let mut types = vec![Type::TEXT_ARRAY; target.key.len()];
    types.extend([
        Type::INT8_ARRAY,
        Type::UUID_ARRAY,
        Type::UUID_ARRAY,
        Type::INT4_ARRAY,
    ]);
    types.extend(of_passages.clone());
    types.extend(of_passages);
    types.extend([Type::INT4_ARRAY, Type::BYTEA]);
    types
}

/// A document of a batch, with what its passages need.
#[derive(Debug)]
pub struct DocumentWrite {
    /// The key of the row.
    pub key: Key,
    /// The transaction that brought the change; 0 for a row that a scan has seen.
    pub xid: i64,
    /// What has to be done.
    pub plan: Plan,
    /// The vectors of the passages that had to be embedded, by their fingerprints.
    pub vectors: HashMap<Uuid, Vec<f32>>,
}

/// The parameters of the statement, column by column.
pub struct PassageParameters<'a> {
    keys: Vec<Vec<&'a str>>,
    xids: Vec<i64>,
    fingerprints: Vec<Option<Uuid>>,
    versions: Vec<Option<Uuid>>,
    passages: Vec<i32>,
    moved: Passages<'a>,
    written: Passages<'a>,
    origins: Vec<Option<i32>>,
    marker: Vec<u8>,
    vectors: Vectors<'a>,
}

/// New vectors, in the form that the destination's type allows.
enum Vectors<'a> {
    /// For pgvector's types.
    Each(VectorArray<'a>),
    /// For arrays: all in one, of which each row takes its slice.
    Flat(Vec<f32>),
}

#[derive(Default)]
struct Passages<'a> {
    documents: Vec<i64>,
    seqs: Vec<i32>,
    starts: Vec<i32>,
    ends: Vec<i32>,
    chunks: Vec<Option<&'a str>>,
    fingerprints: Vec<Uuid>,
}

impl<'a> PassageParameters<'a> {
    /// The parameters for documents whose changes have this cascade depth.
    pub fn new(target: &TargetTable, depth: u8, batch: &'a [DocumentWrite]) -> Self {
        let (mut moved, mut embedded, mut copied) =
            <(Passages<'_>, Passages<'_>, Passages<'_>)>::default();
        let (mut vectors, mut rows): (Vec<&[f32]>, Vec<Option<i32>>) = Default::default();
        for (n, write) in (1..).zip(batch) {
            for change in &write.plan.changes {
                let chunk = Some(write.plan.chunk(&change.passage));
                match change.vector {
                    VectorFrom::Itself { same_text } => {
                        moved.push(n, change, chunk.filter(|_| !same_text));
                    }
                    VectorFrom::Row(origin) => {
                        copied.push(n, change, chunk);
                        rows.push(Some(origin));
                    }
                    VectorFrom::Engine => {
                        let vector = write.vectors.get(&change.passage.fingerprint);
                        embedded.push(n, change, chunk);
                        vectors.push(vector.map_or(&[], |vector| vector));
                    }
                }
            }
        }
        let mut origins = vec![None; vectors.len()];
        origins.extend(rows);
        embedded.append(copied);
        let plans = || batch.iter().map(|write| &write.plan);
        PassageParameters {
            keys: target.key_arrays(batch.iter().map(|write| &write.key)),
            xids: batch.iter().map(|write| write.xid).collect(),
            fingerprints: plans()
                .map(|plan| plan.document.as_ref().map(|planned| planned.fingerprint))
                .collect(),
            versions: plans().map(|plan| plan.version.0).collect(),
            passages: plans()
                .map(|plan| i32::try_from(plan.passages).unwrap_or(i32::MAX))
                .collect(),
            moved,
            written: embedded,
            origins,
            // No row of the source is written, so the list is empty: every change in the transaction is one like any other.
            marker: write_back_marker::encode(target, depth, []),
            vectors: match target.destination.vector_schema {
                Some(_) => Vectors::Each(VectorArray::new(vectors)),
                None => Vectors::Flat(vectors.concat()),
            },
        }
    }

    /// In the statement's order.
    pub fn as_sql(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut all = parameters(&self.keys);
        all.extend([
            &self.xids as &(dyn ToSql + Sync),
            &self.fingerprints,
            &self.versions,
            &self.passages,
        ]);
        all.extend(self.moved.as_sql());
        all.extend(self.written.as_sql());
        all.extend([&self.origins as &(dyn ToSql + Sync), &self.marker]);
        match &self.vectors {
            Vectors::Each(array) => all.push(array),
            Vectors::Flat(numbers) => all.push(numbers),
        }
        all
    }
}

impl<'a> Passages<'a> {
    fn push(&mut self, document: i64, change: &super::plan::Change, chunk: Option<&'a str>) {
        self.documents.push(document);
        self.seqs.push(change.seq);
        self.starts.push(change.passage.span.0);
        self.ends.push(change.passage.span.1);
        self.chunks.push(chunk);
        self.fingerprints.push(change.passage.fingerprint);
    }

    fn append(&mut self, other: Passages<'a>) {
        self.documents.extend(other.documents);
        self.seqs.extend(other.seqs);
        self.starts.extend(other.starts);
        self.ends.extend(other.ends);
        self.chunks.extend(other.chunks);
        self.fingerprints.extend(other.fingerprints);
    }

    fn as_sql(&self) -> [&(dyn ToSql + Sync); 6] {
        [
            &self.documents,
            &self.seqs,
            &self.starts,
            &self.ends,
            &self.chunks,
            &self.fingerprints,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_number() {
        use DocumentOutcome::*;
        for outcome in [Written, PassagesChanged, NotYetVisible, RowChanged] {
            assert_eq!(DocumentOutcome::from_number(outcome as i32), outcome);
        }
    }
}
