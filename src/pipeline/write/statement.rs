//! The two statements of a write-back session, with their parameters.
//!
//! **Write.** One statement for a batch of any size, which is its own transaction:
//!
//! ```text
//! incoming   the batch: keys, texts, which vector, transaction ids, fingerprints
//!    │
//! held       the rows whose text still is the one that was embedded (the guard), locked; rows that another
//!    │       session holds are left out
//! judged     what becomes of the others
//!    │
//! opened     emits the write-back marker, and gives the users' own code the users' settings
//!    │
//! written    the UPDATE of exactly the held rows, with its triggers
//!    │
//! result     for each incoming row a number, the Outcome: written, or why not
//! ```
//!
//! It is one statement for three reasons. Everything is on the server before the transaction begins, however slow the
//! link is: the server reads a message completely before it executes it (PostgreSQL manual, "Extended Query"; it
//! begins the transaction in `exec_bind_message`), so locks are held for the execution alone. No round trip or second
//! message stands between the locks and the commit. And all parts of a `WITH` see the same snapshot (manual,
//! "Data-Modifying Statements in WITH"), so what was not written can be judged by what this very statement saw.
//!
//! **Order.** PostgreSQL evaluates a part of a `WITH` only as far as its reader asks for rows. `opened` counts the rows
//! of `judged`, which reads all of `held`; `written` reads `opened` before its first row. So each part is complete
//! before the next one begins: no key or text of ours is compared under the users' settings, and none of the users'
//! code runs under ours.
//!
//! **The guard** compares key and text, a long text by its digest. The key alone would put a vector beside a text that
//! it was not computed from, where the row has changed meanwhile. Such a change is in the stream, so the row is left to
//! it.
//!
//! **Locks.** `SKIP LOCKED` never waits for a row while it holds others, so a write-back by itself cannot be part of a
//! deadlock, and a row that a user keeps locked delays itself alone. Rows are locked and updated in key order: triggers
//! that fire for them may wait, and then all write-backs wait in the same order. `FOR NO KEY UPDATE` does not conflict
//! with the locks of foreign keys that refer to the row (manual, "Explicit Locking").
//!
//! **Read.** Sources by key, for rows whose text the stream did not carry.

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use crate::pipeline::table::key_sql::parameters;
use crate::pipeline::table::row::Row;
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::table::text::{self, Text};
use crate::pipeline::table::visibility::is_visible;
use crate::pipeline::table::write_back_marker::{self, WRITE_BACK_MARKER};
use crate::pipeline::write::outcome::{EmbeddedRow, Outcome};
use crate::postgres::quote::{identifier, literal};
use crate::postgres::user_settings::UserSettings;
use crate::postgres::vector_array::VectorArray;

/// How many arrays the vectors of a batch are dealt among, for pgvector's types.
///
/// To find an element, the server walks through an array of varying elements from its front (`array_seek` in
/// `arrayfuncs.c`). With one array for 512 rows that took a tenth of a write-back.
const VECTOR_ARRAYS: usize = 16;

/// The statement that writes a batch. Its parameters are [`WriteParameters`]; each result row is the place of a row in
/// the batch, counted from 1, and the number of its [`Outcome`].
pub fn write_statement(
    target: &TargetTable,
    dimensions: usize,
    user_settings: &UserSettings,
) -> String {
    format!(
        "WITH incoming AS MATERIALIZED ({incoming}), held AS MATERIALIZED ({held}), judged AS MATERIALIZED ({judged}), \
              opened AS MATERIALIZED ({opened}), written AS ({written}) \
         SELECT j.n, CASE WHEN j.outcome IS NOT NULL THEN j.outcome WHEN j.n IN (SELECT w.n FROM written w) THEN {done} \
                          ELSE {unwritten} END FROM judged j",
        incoming = incoming(target),
        held = held(target),
        judged = judged(target),
        opened = opened(target, user_settings),
        written = written(target, dimensions),
        done = Outcome::Written as i32,
        unwritten = unwritten(target, dimensions),
    )
}

/// The types of the write statement's parameters but for the vectors. Those are left to the server, which infers them
/// from the casts: the types of an extension have no fixed OID.
pub fn write_types(target: &TargetTable) -> Vec<Type> {
    let mut types = vec![Type::TEXT_ARRAY; target.key.len()];
    types.extend([
        Type::TEXT_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT4_ARRAY,
        Type::INT8_ARRAY,
    ]);
    types.extend(target.fingerprint.iter().map(|_| Type::UUID_ARRAY));
    types.push(Type::BYTEA);
    types
}

/// What a batch has besides keys: the text, or the digest of one that was cut, which of the vectors the row gets (counted from 1, NULL for none), the
/// transaction that brought the change, and the fingerprint where the table has one.
fn columns(target: &TargetTable) -> Vec<(&'static str, &'static str)> {
    let mut columns = vec![
        ("text", "text"),
        ("bytea", "digest"),
        ("int", "nth"),
        ("bigint", "xid"),
    ];
    columns.extend(target.fingerprint.iter().map(|_| ("uuid", "fingerprint")));
    columns
}

/// The batch, its keys in their own types. The text compares byte by byte, as [`source`](TargetTable::source) does.
fn incoming(target: &TargetTable) -> String {
    let fingerprint = target.fingerprint.iter().map(|_| ", u.fingerprint");
    format!(
        "SELECT u.n, {keys}, u.text COLLATE \"C\" AS text, u.digest, u.nth, u.xid{fingerprint} FROM {batch}",
        keys = target.key_casts("u"),
        fingerprint = fingerprint.collect::<String>(),
        batch = target.unnest_keys(&columns(target)),
    )
}

/// The rows that pass the guard, locked.
///
/// Under READ COMMITTED a row that another transaction has changed since the snapshot is checked again in its newest
/// version before it is locked (EvalPlanQual, `src/backend/executor/README`), so `ctid` is that of the version that
/// passed.
fn held(target: &TargetTable) -> String {
    let fingerprint = target.fingerprint.iter().map(|fingerprint| {
        let expected = fingerprint.expected(&target.source.sql("t"));
        format!(
            ", CASE WHEN i.digest IS NULL THEN i.fingerprint ELSE {expected} END AS fingerprint"
        )
    });
    format!(
        "SELECT t.ctid AS place, t.tableoid AS part, i.n, i.nth{fingerprint} \
         FROM incoming i JOIN {table} t ON {join} \
         WHERE {same_text} AND NOT ({cleared}) \
         ORDER BY {order} FOR NO KEY UPDATE OF t SKIP LOCKED",
        fingerprint = fingerprint.collect::<String>(),
        table = target.from_clause(),
        join = target.key_join("t", "i"),
        same_text = same_text(target),
        cleared = cleared(target),
        order = target.key_order("t"),
    )
}

/// Whether the row `t` has the text of the row `i` of the batch. One that was cut is compared by its digest.
fn same_text(target: &TargetTable) -> String {
    let source = target.source.sql("t");
    format!(
        "CASE WHEN i.digest IS NULL THEN {source} IS NOT DISTINCT FROM i.text ELSE {} = i.digest END",
        text::digest_sql(&source)
    )
}

/// What is left before the update: the marker, which must precede the first change, and the settings for the users'
/// code. Nothing where no row is held: then there is no transaction to mark.
fn opened(target: &TargetTable, user_settings: &UserSettings) -> String {
    format!(
        "SELECT {settings}, pg_logical_emit_message(true, {prefix}, ${marker}) \
         FROM (SELECT count(*) FROM judged) complete WHERE EXISTS (SELECT FROM held)",
        settings = user_settings.set_config(),
        prefix = literal(WRITE_BACK_MARKER),
        marker = marker_parameter(target),
    )
}

/// The number of the parameter with the marker's content: the last one before the vectors.
fn marker_parameter(target: &TargetTable) -> usize {
    target.key.len() + columns(target).len() + 1
}

/// The update of the held rows, found by their physical place. A `ctid` says nothing without its partition.
fn written(target: &TargetTable, dimensions: usize) -> String {
    let fingerprint = target.fingerprint.iter();
    let fingerprint =
        fingerprint.map(|column| format!(", {} = h.fingerprint", identifier(&column.name)));
    format!(
        "UPDATE {table} t SET {destination} = ({vector})::{kind}{fingerprint} \
         FROM held h WHERE t.ctid = h.place AND t.tableoid = h.part AND (SELECT count(*) FROM opened) = 1 \
         RETURNING h.n",
        table = target.from_clause(),
        destination = identifier(&target.destination.name),
        vector = nth_vector(target, dimensions),
        kind = target.destination.type_name,
        fingerprint = fingerprint.collect::<String>(),
    )
}

/// The vector of a held row, out of the parameters; NULL where it gets none.
fn nth_vector(target: &TargetTable, dimensions: usize) -> String {
    let first = marker_parameter(target) + 1;
    let Some(schema) = &target.destination.vector_schema else {
        return format!(
            "(${first}::real[])[(h.nth - 1) * {dimensions} + 1 : h.nth * {dimensions}]"
        );
    };
    let schema = identifier(schema);
    let array = |number| {
        let parameter = first + number;
        format!("WHEN {number} THEN ${parameter}::{schema}.vector[] ")
    };
    let arrays: String = (0..VECTOR_ARRAYS).map(array).collect();
    format!("(CASE (h.nth - 1) % {VECTOR_ARRAYS} {arrays}END)[(h.nth - 1) / {VECTOR_ARRAYS} + 1]")
}

/// True for a row that gets no vector and has none: an update would only make a new version of it.
fn cleared(target: &TargetTable) -> String {
    let destination = identifier(&target.destination.name);
    let fingerprint = target.fingerprint.iter();
    let fingerprint =
        fingerprint.map(|fingerprint| format!(" AND {} IS NULL", fingerprint.column("t")));
    format!(
        "i.nth IS NULL AND t.{destination} IS NULL{}",
        fingerprint.collect::<String>()
    )
}

/// What becomes of the incoming rows that are not held; NULL for those that are.
///
/// A row that passes the guard in the snapshot and was not held is locked by another session, or has just changed.
/// Where no row passes, it is superseded, but only if the change that it came with can be seen: before that, the row
/// that is there is the one before the change. Where row level security hides rows, nothing can be said of those that are
/// not seen.
fn judged(target: &TargetTable) -> String {
    format!(
        "SELECT i.n, CASE WHEN i.n IN (SELECT h.n FROM held h) THEN NULL ELSE COALESCE( \
           (SELECT CASE WHEN {cleared} THEN {written} ELSE {locked} END \
            FROM {table} t WHERE {join} AND {same_text}), \
           CASE WHEN NOT ({visible}) OR row_security_active({oid}::oid) THEN {not_yet_visible} \
                WHEN EXISTS (SELECT FROM {table} t WHERE {join}) THEN {changed} ELSE {superseded} END) END AS outcome \
         FROM incoming i",
        written = Outcome::Written as i32,
        locked = Outcome::Locked as i32,
        changed = Outcome::Changed as i32,
        superseded = Outcome::Superseded as i32,
        oid = target.oid,
        not_yet_visible = Outcome::NotYetVisible as i32,
        cleared = cleared(target),
        table = target.from_clause(),
        join = target.key_join("t", "i"),
        same_text = same_text(target),
        visible = is_visible("i.xid"),
    )
}

/// What became of a held row that the update left as it was.
///
/// If its version is not in the statement's snapshot, the update could not see it: another session has changed the row
/// since, and it was locked in its newest version. It is written the next time.
///
/// Otherwise no other session can have changed it, so a BEFORE UPDATE trigger has returned NULL (manual, "Overview of
/// Trigger Behavior"). If the row holds that very vector, it is as it should be; PostgreSQL's own
/// `suppress_redundant_updates_trigger` leaves out such updates.
fn unwritten(target: &TargetTable, dimensions: usize) -> String {
    let destination = &target.destination;
    let equals = match &destination.vector_schema {
        Some(schema) => format!("OPERATOR({}.=)", identifier(schema)),
        None => "=".into(),
    };
    format!(
        "COALESCE((SELECT CASE WHEN t.{column} {equals} ({vector})::{kind} THEN {written} ELSE {canceled} END \
          FROM held h JOIN {table} t ON t.ctid = h.place AND t.tableoid = h.part WHERE h.n = j.n), {locked})",
        column = identifier(&destination.name),
        vector = nth_vector(target, dimensions),
        kind = destination.type_name,
        table = target.from_clause(),
        written = Outcome::Written as i32,
        canceled = Outcome::Canceled as i32,
        locked = Outcome::Locked as i32,
    )
}

/// The parameters of the write statement, column by column.
pub struct WriteParameters<'a> {
    keys: Vec<Vec<&'a str>>,
    texts: Vec<Option<&'a str>>,
    digests: Vec<Option<&'a [u8]>>,
    nths: Vec<Option<i32>>,
    xids: Vec<i64>,
    fingerprints: Option<Vec<Option<Uuid>>>,
    marker: Vec<u8>,
    vectors: Vectors<'a>,
}

/// The vectors of a batch, in the one form that the destination's type allows.
enum Vectors<'a> {
    /// For pgvector's types: dealt among [`VECTOR_ARRAYS`] arrays like cards.
    Dealt(Vec<VectorArray<'a>>),
    /// For arrays: all in one, of which each row takes its slice.
    Flat(Vec<f32>),
}

impl<'a> WriteParameters<'a> {
    /// The parameters for this batch, whose rows have one cascade depth.
    pub fn new(target: &TargetTable, batch: &[&'a EmbeddedRow]) -> Self {
        let texts = batch.iter().map(|row| row.row.source.text());
        let digests = texts.clone().map(|text| text.and_then(Text::digest));
        let texts: Vec<Option<&str>> = texts.map(|text| text.and_then(Text::whole)).collect();
        let vectors = batch.iter().filter_map(|row| row.vector.as_deref());
        let vectors: Vec<&[f32]> = vectors.collect();
        let mut numbers = 1..;
        let mut nth = |row: &&EmbeddedRow| row.vector.as_ref().and_then(|_| numbers.next());
        let fingerprints = target.fingerprint.as_ref().map(|fingerprint| {
            let fingerprints = texts
                .iter()
                .map(|text| text.map(|text| fingerprint.compute(text)));
            fingerprints.collect()
        });
        let depth = batch.first().map_or(0, |row| row.row.cascade_depth);
        let rows = batch.iter().map(|row| (&row.row.key, &row.row.source));
        WriteParameters {
            marker: write_back_marker::encode(target, depth, rows),
            keys: target.key_arrays(batch.iter().map(|row| &row.row.key)),
            nths: batch.iter().map(&mut nth).collect(),
            xids: batch.iter().map(|row| xid(&row.row)).collect(),
            fingerprints,
            digests: digests.collect(),
            texts,
            vectors: match target.destination.vector_schema {
                Some(_) => Vectors::Dealt(VectorArray::dealt(&vectors, VECTOR_ARRAYS)),
                None => Vectors::Flat(vectors.concat()),
            },
        }
    }

    /// In the statement's order.
    pub fn as_sql(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut all = parameters(&self.keys);
        all.extend([
            &self.texts as &(dyn ToSql + Sync),
            &self.digests,
            &self.nths,
            &self.xids,
        ]);
        if let Some(fingerprints) = &self.fingerprints {
            all.push(fingerprints);
        }
        all.push(&self.marker);
        match &self.vectors {
            Vectors::Dealt(arrays) => all.extend(parameters(arrays)),
            Vectors::Flat(numbers) => all.push(numbers),
        }
        all
    }
}

/// The statement that reads sources by key. Its parameters are the key arrays and [`xids`]; the columns of its result
/// are the place in the batch, whether the row exists, whether its change is visible, whether its vector is current,
/// and where it is not, the two of the text ([`text::sql`]).
pub fn read_statement(target: &TargetTable) -> String {
    format!(
        "SELECT i.n, t.ctid IS NOT NULL, ({visible}) AND NOT row_security_active({oid}::oid), {current}, \
                {text} \
         FROM (SELECT u.n, {keys}, u.xid FROM {batch}) i LEFT JOIN {table} t ON {join} \
         CROSS JOIN LATERAL (SELECT CASE WHEN NOT {current} THEN {source} END AS text OFFSET 0) s",
        visible = is_visible("i.xid"),
        oid = target.oid,
        current = target.is_current("t"),
        source = target.source.sql("t"),
        text = text::sql("s.text"),
        keys = target.key_casts("u"),
        batch = target.unnest_keys(&[("bigint", "xid")]),
        table = target.from_clause(),
        join = target.key_join("t", "i"),
    )
}

/// The types of the read statement's parameters.
pub fn read_types(target: &TargetTable) -> Vec<Type> {
    let mut types = vec![Type::TEXT_ARRAY; target.key.len()];
    types.push(Type::INT8_ARRAY);
    types
}

/// The transactions that the rows came with, one array.
pub fn xids(rows: &[&Row]) -> Vec<i64> {
    rows.iter().map(|row| xid(row)).collect()
}

/// The transaction that a change came with; 0 for rows that a scan has seen.
pub fn xid(row: &Row) -> i64 {
    row.xid.map_or(0, i64::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::table::fingerprint::Fingerprint;
    use crate::pipeline::table::row::{Key, SourceText};
    use crate::pipeline::table::target::KeyColumn;

    /// A table with two key columns.
    fn table(vector_schema: Option<&str>, fingerprint: bool) -> TargetTable {
        let mut table = TargetTable {
            key: vec![
                KeyColumn::example("a", "bigint"),
                KeyColumn::example("b", "bigint"),
            ],
            fingerprint: fingerprint.then(|| Fingerprint::new("f", "m", "d")),
            ..TargetTable::example()
        };
        table.destination.vector_schema = vector_schema.map(String::from);
        table
    }

    fn row(text: &str, vector: Option<Vec<f32>>) -> EmbeddedRow {
        let key = Key::new(["1".into(), text.into()]);
        EmbeddedRow {
            row: Row::backfill(key, SourceText::from_column(Some(text))),
            vector,
        }
    }

    #[test]
    fn the_write_statement_has_a_value_for_each_parameter() {
        for (vector_schema, vectors) in [(Some("public"), VECTOR_ARRAYS), (None, 1)] {
            for fingerprint in [false, true] {
                let table = table(vector_schema, fingerprint);
                let rows = [row("text", Some(vec![0.0]))];
                let batch: Vec<&EmbeddedRow> = rows.iter().collect();
                let values = WriteParameters::new(&table, &batch).as_sql().len();
                assert_eq!(values, write_types(&table).len() + vectors);
                let statement = write_statement(&table, 1, &UserSettings::example());
                assert!(statement.contains(&format!("${values}::")), "{statement}");
                assert!(
                    !statement.contains(&format!("${}", values + 1)),
                    "{statement}"
                );
            }
        }
    }

    #[test]
    fn rows_without_a_vector_leave_no_gap_among_the_vectors() {
        let rows = [
            row("one", Some(vec![1.0])),
            row("", None),
            row("two", Some(vec![2.0])),
        ];
        let batch: Vec<&EmbeddedRow> = rows.iter().collect();
        let parameters = WriteParameters::new(&table(None, false), &batch);
        assert_eq!(parameters.nths, [Some(1), None, Some(2)]);
        assert_eq!(parameters.texts, [Some("one"), None, Some("two")]);
        assert!(matches!(parameters.vectors, Vectors::Flat(numbers) if numbers == [1.0, 2.0]));
    }
}
