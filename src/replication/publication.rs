//! Publications: what the server sends of a table.

use tokio_postgres::Client;

use crate::postgres::Session;
use crate::postgres::quote::{identifier, literal};

use super::slot::SlotName;

/// A publication as the catalogue describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    pub inserts: bool,
    pub updates: bool,
    pub deletes: bool,
    pub truncates: bool,
    pub via_root: bool,
    /// Whether the table asked about is a member.
    pub has_table: bool,
    /// The column list of the table's membership; `None` where every column is published.
    pub columns: Option<Vec<String>>,
    /// True where a row filter hides rows.
    pub filtered: bool,
    /// Names this very version of the publication and of the table's membership: one that was dropped and made anew, or
    /// altered, has another, whatever it looks like.
    pub version: String,
    pub comment: Option<String>,
}

impl Publication {
    /// Whether it is as it was when [`seal_statement`] was run.
    pub fn is_sealed(&self) -> bool {
        self.comment.as_ref() == Some(&seal(&self.version))
    }
}

/// What the publication's comment says.
fn seal(version: &str) -> String {
    format!("lantern-cli misses no change for as long as this is version {version}")
}

/// Looks a publication up, and the membership of the table with this oid.
///
/// # Errors
/// The server's.
pub async fn find(
    session: &Session,
    name: &str,
    table: u32,
) -> Result<Option<Publication>, tokio_postgres::Error> {
    // Column lists and row filters came with 15.
    let membership = if session.version() >= 150_000 {
        "r.prqual IS NOT NULL, (SELECT array_agg(a.attname::text) FROM pg_attribute a \
           WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs::int2[]))"
    } else {
        "false, NULL::text[]"
    };
    let question = session
        .repeated(&format!(
                "SELECT p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot, \
                        p.puballtables OR r.oid IS NOT NULL, {membership}, \
                        format('%s/%s', p.xmin, r.xmin), obj_description(p.oid, 'pg_publication') \
                 FROM pg_publication p LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = $2 \
                 WHERE p.pubname = $1"
            ))
        .await?;
    let row = session.query_opt(&question, &[&name, &table]).await?;
    Ok(row.map(|row| Publication {
        inserts: row.get(0),
        updates: row.get(1),
        deletes: row.get(2),
        truncates: row.get(3),
        via_root: row.get(4),
        has_table: row.get(5),
        filtered: row.get::<_, Option<bool>>(6).unwrap_or(false),
        columns: row.get(7),
        version: row.get(8),
        comment: row.get(9),
    }))
}

/// Whether there is a publication of that name.
///
/// # Errors
/// The server's.
pub async fn exists(client: &Client, name: &str) -> Result<bool, tokio_postgres::Error> {
    let found = client
        .query_opt("SELECT FROM pg_publication WHERE pubname = $1", &[&name])
        .await?;
    Ok(found.is_some())
}

/// The names of publications that begin with `prefix` and contain the table with this oid.
///
/// # Errors
/// The server's.
pub async fn names_with_prefix(
    client: &Client,
    prefix: &str,
    table: u32,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = client
        .query(
            "SELECT p.pubname::text FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid \
             WHERE starts_with(p.pubname::text, $1) AND r.prrelid = $2 ORDER BY p.pubname",
            &[&prefix, &table],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The statement that creates a publication of inserts and updates of one table (`qualified`: schema and name, quoted),
/// of the given columns only where a list is given. A partitioned table is published as itself, a plain one without tables
/// that inherit from it.
pub fn create_statement(
    name: &str,
    qualified: &str,
    partitioned: bool,
    columns: Option<&[String]>,
) -> String {
    let list = column_list(columns);
    let (only, root) = if partitioned {
        ("", ", publish_via_partition_root = true")
    } else {
        ("ONLY ", "")
    };
    format!(
        "CREATE PUBLICATION {} FOR TABLE {only}{qualified}{list} WITH (publish = 'insert, update'{root})",
        identifier(name)
    )
}

/// The column list of a table in a publication, with a blank before it; nothing for all columns.
pub fn column_list(columns: Option<&[String]>) -> String {
    let Some(columns) = columns else {
        return String::new();
    };
    let quoted: Vec<String> = columns.iter().map(|column| identifier(column)).collect();
    format!(" ({})", quoted.join(", "))
}

/// The statement that marks a publication as unchanged since now, by a comment on it.
pub fn seal_statement(name: &str, publication: &Publication) -> String {
    format!(
        "COMMENT ON PUBLICATION {} IS {}",
        identifier(name),
        literal(&seal(&publication.version))
    )
}

/// Whether the publication, with this table in it, is certainly older than what the slot has yet to send: its rows in the
/// catalogues were written before the oldest transaction that the slot may still need (`catalog_xmin`).
///
/// A slot that is only seconds old may not be able to tell, and then the answer is no. Transaction ids are compared in the
/// circle that they go round in; one that is neither newer than the slot's nor yet to come is old.
///
/// # Errors
/// The server's.
pub async fn is_older_than_slot(
    client: &Client,
    name: &str,
    table: u32,
    slot: &SlotName,
) -> Result<bool, tokio_postgres::Error> {
    let newer = "age(%.xmin) BETWEEN 0 AND age(s.catalog_xmin)";
    let row = client
        .query_opt(
            &format!(
                "SELECT NOT ({} OR {}) FROM pg_replication_slots s, pg_publication p \
                 JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = $2 \
                 WHERE p.pubname = $1 AND s.slot_name = $3",
                newer.replace('%', "p"),
                newer.replace('%', "r")
            ),
            &[&name, &table, &slot.as_str()],
        )
        .await?;
    Ok(row.is_some_and(|row| row.get(0)))
}

pub fn drop_statement(name: &str) -> String {
    format!("DROP PUBLICATION IF EXISTS {}", identifier(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_wherever_they_come_from() {
        let columns = ["i\"d".to_string(), "My Text".to_string()];
        assert_eq!(
            create_statement("p", "\"public\".\"a b\"", true, Some(&columns)),
            "CREATE PUBLICATION \"p\" FOR TABLE \"public\".\"a b\" (\"i\"\"d\", \"My Text\") \
             WITH (publish = 'insert, update', publish_via_partition_root = true)"
        );
    }
}
