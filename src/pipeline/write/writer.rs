//! Writing vectors back: one statement a batch, guarded row by row, never waiting for a lock while holding others.

use std::sync::Arc;

use tokio_postgres::Statement;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use crate::failpoint;
use crate::pipeline::error::JobError;
use crate::pipeline::table::row::{Key, Row, SourceText};
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::table::write_back_marker::WRITE_BACK_MARKER;
use crate::postgres::quote::{identifier, literal};
use crate::postgres::vector_array::VectorArray;
use crate::postgres::{ConnectionString, DatabaseError, Session};

/// A row with its vector; `None` clears the destination.
#[derive(Debug, Clone)]
pub struct EmbeddedRow {
    pub row: Row,
    pub vector: Option<Vec<f32>>,
}

/// What became of one row of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The destination holds the vector of this text (or nothing, for an empty source).
    Written,
    /// Somebody else holds the row or changed it this very moment: try again.
    Locked,
    /// The row is gone or holds another text by now, whose change is further on in the stream.
    Superseded,
    /// The change was streamed before its commit became visible: try again. (The server wakes walsenders before it takes a
    /// transaction out of the list of running ones, and long before where it waits for a synchronous standby.)
    NotYetVisible,
}

/// What a row's source is found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    Found(SourceText),
    /// The row's fingerprint says that its vector is that of its text: there is nothing to do.
    Fits,
    Gone,
    /// As [`Outcome::NotYetVisible`].
    NotYetVisible,
}

/// The session that writes to one target table.
pub struct Writer {
    session: Arc<Session>,
    target: Arc<TargetTable>,
    write: Statement,
    read: Statement,
}

impl Writer {
    /// Opens a session for write-backs and prepares its statements.
    pub async fn open(
        database: &ConnectionString,
        target: Arc<TargetTable>,
        dimensions: usize,
    ) -> Result<Writer, JobError> {
        let session = Arc::new(Session::open(database).await?);
        let preparing = || {
            DatabaseError::during(format!(
                "preparing the write-back to {}",
                target.qualified()
            ))
        };
        session.batch_execute(SETTINGS).await.map_err(preparing())?;
        if session.version() >= 180_000 {
            let setting = session.batch_execute(WITHOUT_PRUNING).await;
            setting.map_err(preparing())?;
        }
        let keys = target.key.len();
        // The type of the vectors, the last parameters, is inferred from their casts: pgvector's types have no fixed OID.
        let mut write_types = [
            vec![Type::TEXT_ARRAY; keys + 1],
            vec![Type::INT4_ARRAY, Type::INT8_ARRAY],
        ]
        .concat();
        write_types.extend(target.fingerprint.iter().map(|_| Type::UUID_ARRAY));
        let write = session
            .prepare_typed(&write_statement(&target, dimensions), &write_types)
            .await
            .map_err(preparing())?;
        let read = session
            .prepare_typed(
                &read_statement(&target),
                &[vec![Type::TEXT_ARRAY; keys], vec![Type::INT8_ARRAY]].concat(),
            )
            .await
            .map_err(preparing())?;
        Ok(Writer {
            session,
            target,
            write,
            read,
        })
    }

    /// Writes a batch in one transaction; one outcome a row, in order.
    ///
    /// # Errors
    /// The server's; then nothing of the batch is written.
    ///
    /// Cancellation: the transaction may or may not commit; the guard makes repeating it harmless.
    pub async fn write(
        &self,
        batch: &[&EmbeddedRow],
    ) -> Result<Vec<Outcome>, tokio_postgres::Error> {
        let keys = self.key_columns(batch.iter().map(|row| &row.row.key));
        let texts: Vec<Option<&str>> = batch.iter().map(|row| guard(&row.row.source)).collect();
        let vectors: Vec<&[f32]> = batch
            .iter()
            .filter_map(|row| row.vector.as_deref())
            .collect();
        let mut numbers = 1..;
        let places: Vec<Option<i32>> = batch
            .iter()
            .map(|row| row.vector.as_ref().and_then(|_| numbers.next()))
            .collect();
        let xids: Vec<i64> = batch.iter().map(|row| xid(&row.row)).collect();
        let mut parameters: Vec<&(dyn ToSql + Sync)> = keys
            .iter()
            .map(|column| column as &(dyn ToSql + Sync))
            .collect();
        let (flat, parts);
        let values: Vec<&(dyn ToSql + Sync)> = if self.target.destination.vector_schema.is_some() {
            parts = VectorArray::dealt(&vectors, PARTS);
            parts.iter().map(|part| part as _).collect()
        } else {
            flat = vectors.concat();
            vec![&flat]
        };
        parameters.extend([&texts as &(dyn ToSql + Sync), &places, &xids]);
        let marks: Vec<Option<Uuid>>;
        if let Some(fingerprint) = &self.target.fingerprint {
            marks = texts
                .iter()
                .map(|text| text.map(|text| fingerprint.compute(text)))
                .collect();
            parameters.push(&marks);
        }
        parameters.extend(values);

        // Polled together, so that all three requests leave in one packet. The marker must be the transaction's first
        // record, before any row.
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pg_logical_emit_message(true, {}, '')",
            literal(WRITE_BACK_MARKER)
        );
        let (begun, written, committed) = tokio::join!(
            self.session.batch_execute(&begin),
            self.session.query(&self.write, &parameters),
            async {
                failpoint::reach_awaiting("write-back-before-commit").await;
                self.session.batch_execute("COMMIT").await
            },
        );
        begun?;
        let rows = written?;
        committed?;
        failpoint::reach("write-back-after-commit");
        let mut outcomes = vec![Outcome::Superseded; batch.len()];
        for row in &rows {
            let position = row.get::<_, i64>(0) as usize - 1;
            outcomes[position] = match row.get::<_, i32>(1) {
                0 => Outcome::Written,
                1 => Outcome::Locked,
                2 => Outcome::Superseded,
                _ => Outcome::NotYetVisible,
            };
        }
        Ok(outcomes)
    }

    /// Reads the source of rows whose text the stream did not carry; one answer a row, in order.
    ///
    /// # Errors
    /// The server's.
    pub async fn read_sources(&self, rows: &[Row]) -> Result<Vec<Reading>, JobError> {
        let columns = self.key_columns(rows.iter().map(|row| &row.key));
        let xids: Vec<i64> = rows.iter().map(xid).collect();
        let mut parameters: Vec<&(dyn ToSql + Sync)> = columns
            .iter()
            .map(|column| column as &(dyn ToSql + Sync))
            .collect();
        parameters.push(&xids);
        let answers =
            self.session
                .query(&self.read, &parameters)
                .await
                .map_err(DatabaseError::during(format!(
                    "reading texts of {}",
                    self.target.qualified()
                )))?;
        let mut readings = vec![Reading::Gone; rows.len()];
        for answer in &answers {
            let (exists, visible, fits) = (answer.get(1), answer.get(2), answer.get(3));
            readings[answer.get::<_, i64>(0) as usize - 1] = match (exists, visible) {
                // What is there now may be the row as it was before the change.
                (_, false) => Reading::NotYetVisible,
                (true, true) if fits => Reading::Fits,
                (true, true) => {
                    Reading::Found(SourceText::from_column(answer.get::<_, Option<&str>>(4)))
                }
                (false, true) => Reading::Gone,
            };
        }
        Ok(readings)
    }

    /// The session, for small questions between batches.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    fn key_columns<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Vec<Vec<&'a str>> {
        let mut columns = vec![Vec::new(); self.target.key.len()];
        for key in keys {
            for (position, column) in columns.iter_mut().enumerate() {
                column.push(key.part(position));
            }
        }
        columns
    }
}

/// The transaction that a change came with; 0 for rows that a scan has seen.
fn xid(row: &Row) -> i64 {
    row.xid.map_or(0, i64::from)
}

/// The text that the row must still hold; NULL stands for an empty source.
fn guard(source: &SourceText) -> Option<&str> {
    match source {
        SourceText::Text(text) => Some(text),
        SourceText::Empty | SourceText::Unread => None,
    }
}

/// A batch is a list of keys, so index lookups are right whatever the statistics say.
///
/// Whoever freezes between UPDATE and COMMIT, we or the network, must not keep users waiting for the rows: the server ends the
/// session. Both statements leave together, so that nothing else takes this long.
const SETTINGS: &str = "SET enable_seqscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET jit = off;
SET idle_in_transaction_session_timeout = '300ms';
SET plan_cache_mode = force_generic_plan;";

/// From PostgreSQL 18 on (seen in 18.6), a statement that meets a row which was changed meanwhile (EvalPlanQual) leaves its other
/// scans of a partitioned table pruning by freed memory: the server process crashes, and all others with it. Without pruning
/// each partition's index is asked.
const WITHOUT_PRUNING: &str = "SET enable_partition_pruning = off";

/// Into so many arrays pgvector's vectors are dealt. The server walks through an array from its front to whichever element of
/// varying size is wanted (`array_seek` in `arrayfuncs.c`): with one array for 512 rows that took a tenth of a write-back.
const PARTS: usize = 16;

/// Parameters: one text array a key column, texts, which of the vectors each row gets (NULL: none), xids, fingerprints where
/// the table has them, and the vectors: for pgvector's types [`PARTS`] times a `vector[]`, among which they are dealt like
/// cards, else all of them in one `real[]`, of which each row takes its slice.
///
/// `held` takes the rows whose text still matches, in key order, leaving out those that somebody else holds; `written`
/// updates exactly these. What was not written is looked at again in the same snapshot to tell why.
fn write_statement(target: &TargetTable, dimensions: usize) -> String {
    let table = target.from_clause();
    let destination = identifier(&target.destination.name);
    let keys = target.key.len();
    let mut arrays: Vec<String> = (1..=keys)
        .map(|number| format!("${number}::text[]"))
        .collect();
    let mut names: Vec<String> = (0..keys).map(|number| format!("k{number}")).collect();
    arrays.extend([
        format!("${}::text[]", keys + 1),
        format!("${}::int[]", keys + 2),
        format!("${}::bigint[]", keys + 3),
    ]);
    names.extend(["text", "at", "xid"].map(String::from));
    let source = target.source.sql("t");
    let join = target.key_join("t", "i");
    let mut cleared = format!("i.at IS NULL AND t.{destination} IS NULL");
    let (mut mark, mut held_mark, mut set_mark) = ("", "", String::new());
    if let Some(fingerprint) = &target.fingerprint {
        arrays.push(format!("${}::uuid[]", keys + 4));
        names.push("mark".into());
        (mark, held_mark) = (", u.mark", ", i.mark");
        set_mark = format!(", {} = h.mark", identifier(&fingerprint.name));
        cleared.push_str(&format!(" AND {} IS NULL", fingerprint.column("t")));
    }
    let values = arrays.len() + 1;
    let vector = match &target.destination.vector_schema {
        Some(schema) => {
            let parts: String = (0..PARTS)
                .map(|part| {
                    format!(
                        "WHEN {part} THEN ${}::{}.vector[] ",
                        values + part,
                        identifier(schema)
                    )
                })
                .collect();
            format!("(CASE (h.at - 1) % {PARTS} {parts}END)[(h.at - 1) / {PARTS} + 1]")
        }
        None => format!("(${values}::real[])[(h.at - 1) * {dimensions} + 1 : h.at * {dimensions}]"),
    };
    format!(
        "WITH incoming AS MATERIALIZED ( \
           SELECT u.n, {casts}, u.text COLLATE \"C\" AS text, u.at, u.xid{mark} \
           FROM unnest({arrays}) WITH ORDINALITY AS u({names}, n) \
         ), held AS MATERIALIZED ( \
           SELECT t.ctid AS place, t.tableoid AS part, i.n, i.at{held_mark} \
           FROM incoming i JOIN {table} t ON {join} \
           WHERE {source} IS NOT DISTINCT FROM i.text AND NOT ({cleared}) \
           ORDER BY {order} FOR NO KEY UPDATE OF t SKIP LOCKED \
         ), written AS ( \
           UPDATE {table} t SET {destination} = ({vector})::{kind}{set_mark} \
           FROM held h WHERE t.ctid = h.place AND t.tableoid = h.part RETURNING h.n \
         ) \
         SELECT i.n, CASE WHEN i.n IN (SELECT w.n FROM written w) THEN 0 ELSE COALESCE( \
             (SELECT CASE WHEN {cleared} THEN 0 ELSE 1 END \
              FROM {table} t WHERE {join} AND {source} IS NOT DISTINCT FROM i.text), \
             CASE WHEN i.xid = 0 OR pg_visible_in_snapshot({full_xid}, pg_current_snapshot()) THEN 2 ELSE 3 END) END \
         FROM incoming i",
        casts = target.key_casts("u"),
        arrays = arrays.join(", "),
        names = names.join(", "),
        order = target.key_columns("t"),
        kind = target.destination.type_name,
        full_xid = FULL_XID,
    )
}

/// The stream carries 32 bits of a transaction id; the upper ones are those that bring it nearest to the snapshot's newest.
const FULL_XID: &str = "((SELECT newest - ((newest - i.xid + 2147483648) & 4294967295) + 2147483648 \
     FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS newest) s)::text::xid8)";

fn read_statement(target: &TargetTable) -> String {
    let keys = target.key.len();
    let arrays: Vec<String> = (1..=keys)
        .map(|number| format!("${number}::text[]"))
        .collect();
    let names: Vec<String> = (0..keys).map(|number| format!("k{number}")).collect();
    format!(
        "SELECT i.n, t.ctid IS NOT NULL, i.xid = 0 OR pg_visible_in_snapshot({FULL_XID}, pg_current_snapshot()), {fits}, \
                CASE WHEN NOT {fits} THEN {source} END \
         FROM (SELECT u.n, {casts}, u.xid FROM unnest({arrays}, ${xid}::bigint[]) WITH ORDINALITY AS u({names}, xid, n)) i \
         LEFT JOIN {table} t ON {join}",
        source = target.source.sql("t"),
        fits = target.is_current("t"),
        casts = target.key_casts("u"),
        arrays = arrays.join(", "),
        names = names.join(", "),
        table = target.from_clause(),
        join = target.key_join("t", "i"),
        xid = keys + 1,
    )
}
