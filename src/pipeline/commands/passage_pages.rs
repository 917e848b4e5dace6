//! Passages with the texts that their vectors should be of, in pages of bounded size.
//!
//! A passage is compared only where its fingerprint says that its vector is that of its text: any other one is found by SQL.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::verify::Pair;
use crate::pipeline::error::JobError;
use crate::pipeline::table::key_sql::parameters;
use crate::pipeline::table::passage_check::embedded_text;
use crate::pipeline::table::passages::{CHUNK, END, PassageTable, SEQ, START};
use crate::pipeline::table::row::Key;
use crate::pipeline::table::target::{KeyColumn, TargetTable};
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// The most passages in a page: enough for full batches, and for a progress that moves.
const PAGE_PASSAGES: usize = 512;
/// A page ends before the passage with which its texts would exceed this many bytes, but has at least one.
const PAGE_BYTES: usize = 8 << 20;
/// In a longer document the place of each passage takes too long to look up.
const MAX_LOOKED_UP: usize = 1 << 20;

/// A passage and the text that is embedded of it.
pub(super) struct SampledPassage {
    /// The key has the number of the passage behind that of its row.
    pub pair: Pair,
    /// The text is where the passage says, as far as that was looked at.
    pub is_in_place: bool,
}

/// About a share of all passages, in order of their keys.
pub(super) struct PassagePages<'a> {
    session: &'a Session,
    sample: Sample<'a>,
    share: f64,
    after: Option<Key>,
}

impl<'a> PassagePages<'a> {
    pub fn new(
        session: &'a Session,
        target: &'a TargetTable,
        passages: &'a PassageTable,
        share: f64,
    ) -> Self {
        PassagePages {
            session,
            sample: Sample::new(target, passages),
            share,
            after: None,
        }
    }

    /// The next page; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<SampledPassage>>, JobError> {
        let parts: Vec<&str> = self.after.iter().flat_map(Key::parts).collect();
        let parts: Vec<&(dyn ToSql + Sync)> = parts.iter().map(|part| part as _).collect();
        let statement = self.sample.page(self.share, self.after.is_some());
        let rows = self.session.query(&statement, &parts).await;
        let rows = rows.map_err(self.sample.reading())?;
        let Some(last) = rows.last() else {
            return Ok(None);
        };
        let last = self.sample.keyed.read_key(last);
        self.after = Some(last.map_err(self.sample.reading())?);
        Ok(Some(self.sample.read(&rows)?))
    }
}

/// The passages with these keys, as far as they are still there.
pub(super) async fn passages_by_key(
    session: &Session,
    target: &TargetTable,
    passages: &PassageTable,
    keys: &[Key],
) -> Result<Vec<SampledPassage>, JobError> {
    let sample = Sample::new(target, passages);
    let arrays = sample.keyed.key_arrays(keys);
    let rows = session.query(&sample.by_key(), &parameters(&arrays)).await;
    sample.read(&rows.map_err(sample.reading())?)
}

struct Sample<'a> {
    target: &'a TargetTable,
    passages: &'a PassageTable,
    /// The chunk table as a table whose key ends with the number of the passage.
    keyed: TargetTable,
}

impl<'a> Sample<'a> {
    fn new(target: &'a TargetTable, passages: &'a PassageTable) -> Self {
        let mut key = target.key.clone();
        key.push(KeyColumn::of_the_system(SEQ, "integer"));
        let keyed = TargetTable {
            oid: passages.oid,
            schema: passages.schema.clone(),
            name: passages.name.clone(),
            partitioned: false,
            key,
            passages: None,
            ..target.clone()
        };
        Sample {
            target,
            passages,
            keyed,
        }
    }

    /// The next passages behind a key. The innermost query finds them by the index of the key, before anything is joined.
    fn page(&self, share: f64, is_continued: bool) -> String {
        let keys: Vec<String> = (0..self.keyed.key.len())
            .map(|n| format!("p.k{n}"))
            .collect();
        let size = "COALESCE(octet_length(q.text), 0)";
        format!(
            "SELECT {keys}, p.text, p.vector, p.in_place FROM ( \
               SELECT q.*, sum({size}) OVER (ORDER BY q.place ROWS UNBOUNDED PRECEDING) - {size} AS before FROM ( \
                 SELECT row_number() OVER () AS place, {texts}, r.* FROM ( \
                   SELECT * FROM {table} WHERE {after} AND {vector} AND random() < {share}::float8 \
                   ORDER BY {order} LIMIT {PAGE_PASSAGES}) i \
                 LEFT JOIN LATERAL ({of_row}) r ON true) q \
             ) p WHERE p.before < {PAGE_BYTES} ORDER BY p.place",
            keys = keys.join(", "),
            texts = self.keyed.key_texts("i"),
            table = format_args!("{} t", self.passages.qualified()),
            after = match is_continued {
                true => self.keyed.after_key("t", 1),
                false => "true".into(),
            },
            vector = self.has_vector("t"),
            order = self.keyed.key_order("t"),
            of_row = self.of_row(),
        )
    }

    fn by_key(&self) -> String {
        format!(
            "SELECT {texts}, r.text, r.vector, r.in_place FROM (SELECT {casts} FROM {batch}) k \
             JOIN {table} i ON {join} JOIN LATERAL ({of_row}) r ON true WHERE {vector}",
            texts = self.keyed.key_texts("i"),
            casts = self.keyed.key_casts("u"),
            batch = self.keyed.unnest_keys(&[]),
            table = self.passages.qualified(),
            join = self.keyed.key_join("i", "k"),
            of_row = self.of_row(),
            vector = self.has_vector("i"),
        )
    }

    fn has_vector(&self, alias: &str) -> String {
        format!(
            "{alias}.{} IS NOT NULL",
            identifier(&self.target.destination.name)
        )
    }

    /// The row `s` of the passage `i`: the text that its vector should be of, where its fingerprint says that it is, the
    /// vector, and whether the passage is where it says. A document that changes has other passages soon.
    fn of_row(&self) -> String {
        let (target, source) = (self.target, &self.target.source);
        let text = source.plain_sql("s");
        format!(
            "SELECT CASE WHEN {claims} THEN {embedded} END AS text, i.{vector}::real[] AS vector, \
                    CASE WHEN i.{START} >= 0 AND i.{END} > i.{START} AND octet_length({text}) <= {MAX_LOOKED_UP} \
                           AND substr({text}, i.{START} + 1, i.{END} - i.{START}) <> i.{CHUNK} COLLATE \"C\" \
                         THEN NOT {current} ELSE true END AS in_place \
             FROM {rows} s WHERE {text} IS NOT NULL AND {of_row}",
            claims = self.passages.claims_vector(source, "i", "s"),
            embedded = embedded_text(source, "s", &format!("i.{CHUNK}")),
            vector = identifier(&target.destination.name),
            current = self.passages.is_current(&target.key, source, "s"),
            rows = target.from_clause(),
            of_row = self.passages.is_of(&target.key, "i", "s"),
        )
    }

    fn read(&self, rows: &[Row]) -> Result<Vec<SampledPassage>, JobError> {
        let read = |row: &Row| {
            let keys = self.keyed.key.len();
            let Some(text) = row.try_get::<_, Option<String>>(keys)? else {
                return Ok(None);
            };
            let pair = Pair {
                key: self.keyed.read_key(row)?,
                text,
                vector: row.try_get(keys + 1)?,
            };
            Ok(Some(SampledPassage {
                pair,
                is_in_place: row.try_get(keys + 2)?,
            }))
        };
        let passages = rows.iter().map(read).filter_map(Result::transpose);
        Ok(passages.collect::<Result<_, _>>().map_err(self.reading())?)
    }

    fn reading(&self) -> impl FnOnce(tokio_postgres::Error) -> DatabaseError {
        DatabaseError::during(format!("reading passages of {}", self.passages.qualified()))
    }
}
