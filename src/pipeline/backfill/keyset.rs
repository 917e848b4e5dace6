//! Pages of a table in key order.
//!
//! Each page is one short statement that begins after the last key of the page before ("keyset pagination"). A cursor
//! or one long query would hold a snapshot for as long as the scan takes, and keep vacuum from removing dead rows of
//! the whole database meanwhile (PostgreSQL manual, "Routine Vacuuming"). `OFFSET` would read all earlier rows again
//! for each page.
//!
//! Rows that change or move while a scan runs are none of its concern: the stream brings them.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::pipeline::table::row::Key;
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::table::text::{self, MAX_HEAD};
use crate::postgres::{DatabaseError, Session};

/// The most rows in a page. Each page costs a round trip.
const MAX_PAGE_ROWS: i64 = 2048;
/// A page ends before the row with which its texts would exceed this many bytes. It has at least one row if there is
/// one.
const MAX_PAGE_BYTES: i64 = 8 << 20;

/// The pages of one table, one after the other.
pub struct KeysetPages<'a> {
    session: &'a Session,
    target: &'a TargetTable,
    condition: String,
    further: Option<String>,
    /// The last key of the page before.
    after: Option<Key>,
}

impl<'a> KeysetPages<'a> {
    /// Pages of the rows that meet `condition`, which is SQL over the row `t`. Their columns are the key as text, then
    /// the two of the source ([`text::sql`]), which are not there where the job has passages: documents are read with
    /// theirs, one by one.
    pub fn new(session: &'a Session, target: &'a TargetTable, condition: String) -> Self {
        KeysetPages {
            session,
            target,
            condition,
            further: None,
            after: None,
        }
    }

    /// With one more column behind the others: SQL over the row `t`.
    pub fn with_column(mut self, sql: String) -> Self {
        self.further = Some(sql);
        self
    }

    /// The next page; empty when there are no further rows.
    ///
    /// # Errors
    /// The server's.
    ///
    /// Cancellation safe: a dropped future leaves the place where it was.
    pub async fn next(&mut self) -> Result<Vec<Row>, DatabaseError> {
        let parts: Vec<&str> = self.after.iter().flat_map(Key::parts).collect();
        let parameters: Vec<&(dyn ToSql + Sync)> = parts.iter().map(|part| part as _).collect();
        let failed = || DatabaseError::during(format!("scanning {}", self.target.qualified()));
        let statement = self.session.repeated(&self.statement()).await;
        let statement = statement.map_err(failed())?;
        let page = self.session.query(&statement, &parameters).await;
        let page = page.map_err(failed())?;
        if let Some(last) = page.last() {
            self.after = Some(self.target.read_key(last).map_err(failed())?);
        }
        Ok(page)
    }

    /// The keys of the next rows, whether they meet the condition or not; none when there are no further rows. For a page that
    /// cannot be read because of one of its rows: each of these rows is then read by itself. `within` is SQL over the row `t`
    /// that bounds the scan.
    ///
    /// # Errors
    /// The server's.
    ///
    /// Cancellation safe, as [`next`](Self::next).
    pub async fn next_keys(&mut self, within: Option<&str>) -> Result<Vec<Key>, DatabaseError> {
        let target = self.target;
        let statement = format!(
            "SELECT {keys} FROM {table} t WHERE {after}{within} ORDER BY {order} LIMIT {MAX_PAGE_ROWS}",
            keys = target.key_texts("t"),
            table = target.from_clause(),
            after = self.after_condition(),
            within = within.unwrap_or("true"),
            order = target.key_order("t"),
        );
        let parts: Vec<&str> = self.after.iter().flat_map(Key::parts).collect();
        let parameters: Vec<&(dyn ToSql + Sync)> = parts.iter().map(|part| part as _).collect();
        let page = self.session.query(&statement, &parameters).await;
        let keys = page.and_then(|page| page.iter().map(|row| target.read_key(row)).collect());
        let keys: Vec<Key> = keys.map_err(DatabaseError::during(format!(
            "reading keys of {}",
            target.qualified()
        )))?;
        if let Some(last) = keys.last() {
            self.after = Some(last.clone());
        }
        Ok(keys)
    }

    /// The condition for the rows behind the last key, with AND behind it.
    fn after_condition(&self) -> String {
        match self.after {
            Some(_) => format!("{} AND ", self.target.after_key("t", 1)),
            None => String::new(),
        }
    }

    /// The innermost query finds the rows by the key's index. Around it, the running total of the texts before each row
    /// cuts the page where it is long enough, inside the server: nothing is sent that would not be used.
    fn statement(&self) -> String {
        let target = self.target;
        if target.passages.is_some() {
            return self.statement_of_keys();
        }
        let after = self.after_condition();
        let further = self.further.as_deref();
        let mut columns: Vec<String> = (0..target.key.len()).map(|n| format!("p.k{n}")).collect();
        columns.push(text::sql("p.source"));
        columns.extend(further.map(|_| "p.further".into()));
        format!(
            "SELECT {columns} FROM ( \
               SELECT q.*, sum({size}) OVER (ORDER BY q.place ROWS UNBOUNDED PRECEDING) \
                           - {size} AS before \
               FROM (SELECT row_number() OVER () AS place, r.* FROM ( \
                       SELECT {keys}, {source} AS source{further} FROM {table} t \
                       WHERE {after}{condition} ORDER BY {order} LIMIT {MAX_PAGE_ROWS}) r) q \
             ) p WHERE p.before < {MAX_PAGE_BYTES} ORDER BY p.place",
            columns = columns.join(", "),
            size = format_args!("LEAST(COALESCE(octet_length(q.source), 0), {MAX_HEAD})"),
            keys = target.key_texts("t"),
            source = target.source.sql("t"),
            further = further.map_or(String::new(), |sql| format!(", {sql} AS further")),
            table = target.from_clause(),
            condition = self.condition,
            order = target.key_order("t"),
        )
    }

    fn statement_of_keys(&self) -> String {
        let target = self.target;
        format!(
            "SELECT {keys} FROM {table} t WHERE {after}{condition} ORDER BY {order} LIMIT {MAX_PAGE_ROWS}",
            keys = target.key_texts("t"),
            table = target.from_clause(),
            after = self.after_condition(),
            condition = self.condition,
            order = target.key_order("t"),
        )
    }
}
