//! The keys of passages whose row is gone: after a TRUNCATE, and for changes that were missed.

use tokio_postgres::types::ToSql;

use crate::pipeline::table::passages::PassageTable;
use crate::pipeline::table::row::Key;
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::table::visibility::is_visible;
use crate::postgres::{DatabaseError, Session};

/// The keys that a page looks at.
const PAGE_KEYS: i64 = 2048;

/// A page of the keys in a table of passages, in key order.
#[derive(Debug, Default)]
pub struct OrphanPage {
    /// The keys without a row.
    pub orphans: Vec<Key>,
    /// The last key of the page, behind which the next one begins; `None` at the end of the table.
    pub last: Option<Key>,
    /// Whether the transaction of the change was visible. If not, the page says nothing.
    pub is_visible: bool,
}

/// Reads the page behind the key `after`. `xid` is the transaction after which rows count as gone; 0 for none.
///
/// # Errors
/// The server's.
///
/// Cancellation safe: it only reads.
pub async fn page(
    session: &Session,
    target: &TargetTable,
    passages: &PassageTable,
    after: Option<&Key>,
    xid: i64,
) -> Result<OrphanPage, DatabaseError> {
    let parts: Vec<&str> = after.into_iter().flat_map(Key::parts).collect();
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&xid];
    parameters.extend(parts.iter().map(|part| part as &(dyn ToSql + Sync)));
    let failed = || {
        DatabaseError::during(format!(
            "looking for passages without a row in {}",
            passages.qualified()
        ))
    };
    let statement = session
        .repeated(&statement(target, passages, after.is_some()))
        .await;
    let statement = statement.map_err(failed())?;
    let rows = session.query(&statement, &parameters).await;
    let rows = rows.map_err(failed())?;
    let mut found = OrphanPage {
        is_visible: true,
        ..OrphanPage::default()
    };
    for row in &rows {
        let key = target.read_key(row).map_err(failed())?;
        let width = target.key.len();
        let (has_row, is_visible): (bool, bool) =
            (|| Ok((row.try_get(width)?, row.try_get(width + 1)?)))().map_err(failed())?;
        found.is_visible &= is_visible;
        if !has_row {
            found.orphans.push(key.clone());
        }
        found.last = Some(key);
    }
    Ok(found)
}

/// The keys come from the index of the primary key, each once.
fn statement(target: &TargetTable, passages: &PassageTable, is_continued: bool) -> String {
    let names = target
        .key
        .iter()
        .map(|column| crate::postgres::quote::identifier(&column.name));
    let names: Vec<String> = names.map(|name| format!("p.{name}")).collect();
    format!(
        "SELECT {texts}, (SELECT true FROM {source} t WHERE {of_row}) IS NOT NULL AS has_row, ({visible}) AND NOT row_security_active({oid}::oid) \
         FROM (SELECT DISTINCT ON ({order}) {columns} FROM {table} p WHERE {after} ORDER BY {ordered} LIMIT {PAGE_KEYS}) p",
        texts = target.key_texts("p"),
        source = target.from_clause(),
        of_row = passages.is_of(&target.key, "p", "t"),
        visible = is_visible("$1::bigint"),
        oid = target.oid,
        order = names.join(", "),
        columns = names.join(", "),
        table = passages.qualified(),
        after = match is_continued {
            true => target.after_key("p", 2),
            false => "true".into(),
        },
        ordered = target.key_order("p"),
    )
}
