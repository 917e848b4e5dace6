//! SQL over publications: `pg_publication` and `pg_publication_rel` (PostgreSQL manual, "System Catalogs").

use tokio_postgres::Client;

use crate::pipeline::table::source_version::{DefinedColumns, redefined_since};
use crate::pipeline::table::target::TargetTable;
use crate::postgres::quote::{identifier, literal};
use crate::postgres::{DatabaseError, Session};
use crate::replication::SlotName;

/// The OID of no table, for questions about a publication alone (`InvalidOid`).
pub const NO_TABLE: u32 = 0;

/// The first version with column lists and row filters, as `server_version_num`.
pub const COLUMN_LISTS_SINCE: u32 = 150_000;

/// The first version that can publish generated columns, as `server_version_num`. From then on it also refuses UPDATE of a
/// table whose replica identity has generated columns that are not published.
pub const GENERATED_COLUMNS_SINCE: u32 = 180_000;

/// A publication as the catalog describes it, and what it publishes of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Whether inserts are published.
    pub inserts: bool,
    /// Whether updates are.
    pub updates: bool,
    /// Whether deletes are.
    pub deletes: bool,
    /// Whether truncates are.
    pub truncates: bool,
    /// `publish_via_partition_root`: changes of partitions come as changes of the partitioned table.
    pub via_root: bool,
    /// Whether the table is published.
    pub has_table: bool,
    /// The table's column list; `None` if every column is published.
    pub columns: Option<Vec<String>>,
    /// Whether a row filter hides rows of the table.
    pub filtered: bool,
    /// `publish_generated_columns = stored`. Also true where the server does not ask for it.
    pub publishes_stored: bool,
    /// The generated columns of the table that it cannot publish without a column list, on servers that refuse UPDATE under
    /// REPLICA IDENTITY FULL for that.
    pub unpublished: Vec<String>,
    /// Whether it belongs to another role than ours.
    pub is_foreign: bool,
    /// Identifies this version of the publication and of the table in it: the `xmin` of their catalog rows, `750/751`.
    ///
    /// `xmin` is the transaction that wrote a row version (PostgreSQL manual, "System Columns"). Every ALTER
    /// PUBLICATION writes another, and so does one that is dropped and created again, however equal it looks. A comment
    /// does not: it is kept in `pg_description`. So a comment can hold the version that it speaks of.
    pub version: String,
    /// `COMMENT ON PUBLICATION`.
    pub comment: Option<String>,
}

impl Publication {
    /// Whether no session has changed it since [`version_comment_statement`] was run.
    pub fn is_unaltered(&self) -> bool {
        let noted = self.comment.as_deref().and_then(noted_version);
        noted.is_some_and(|noted| self.is_version(noted))
    }

    /// Whether this is still the version `noted`, as far as it matters.
    ///
    /// ALTER PUBLICATION … OWNER and REASSIGN OWNED write another version of the publication's own row, and change nothing
    /// of what it publishes. They leave the row of the table in it as it was, and the publication to another role.
    pub fn is_version(&self, noted: &str) -> bool {
        let table = |version: &str| version.split_once('/').map(|(_, table)| table.to_owned());
        self.version == noted || self.is_foreign && table(&self.version) == table(noted)
    }
}

/// Kept on servers: every version of this program must write and read the same text.
const VERSION_COMMENT: &str = "lantern-cli misses no change for as long as this is version ";

fn noted_version(comment: &str) -> Option<&str> {
    comment.strip_prefix(VERSION_COMMENT)
}

/// The statement that notes, as a comment, which version of the publication its slot began with.
pub fn version_comment_statement(name: &str, publication: &Publication) -> String {
    format!(
        "COMMENT ON PUBLICATION {} IS {}",
        identifier(name),
        literal(&format!("{VERSION_COMMENT}{}", publication.version))
    )
}

/// Reads a publication, and what it publishes of the table with this OID; `None` if there is no publication of that
/// name.
///
/// # Errors
/// The server's.
pub async fn find_publication(
    session: &Session,
    name: &str,
    table: u32,
) -> Result<Option<Publication>, DatabaseError> {
    let failed = || DatabaseError::during(format!("looking for the publication {name}"));
    let membership = if session.version() >= COLUMN_LISTS_SINCE {
        "r.prqual IS NOT NULL, (SELECT array_agg(a.attname::text) FROM pg_attribute a \
           WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs::int2[]))"
    } else {
        "false, NULL::text[]"
    };
    let generated = if session.version() >= GENERATED_COLUMNS_SINCE {
        "p.pubgencols = 's', ARRAY(SELECT a.attname::text FROM pg_attribute a \
           WHERE a.attrelid = $2 AND NOT a.attisdropped \
             AND (a.attgenerated = 'v' OR a.attgenerated = 's' AND p.pubgencols <> 's') ORDER BY a.attnum)"
    } else {
        "true, '{}'::text[]"
    };
    // Asked once a second by each job.
    let question = session
        .repeated(&format!(
            "SELECT p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot, \
                    p.puballtables OR r.oid IS NOT NULL, {membership}, \
                    format('%s/%s', p.xmin, r.xmin), obj_description(p.oid, 'pg_publication'), \
                    {generated}, pg_get_userbyid(p.pubowner) <> current_user \
             FROM pg_publication p LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = $2 \
             WHERE p.pubname = $1"
        ))
        .await
        .map_err(failed())?;
    session
        .query_opt(&question, &[&name, &table])
        .await
        .and_then(|row| row.as_ref().map(publication).transpose())
        .map_err(failed())
}

fn publication(row: &tokio_postgres::Row) -> Result<Publication, tokio_postgres::Error> {
    Ok(Publication {
        inserts: row.try_get(0)?,
        updates: row.try_get(1)?,
        deletes: row.try_get(2)?,
        truncates: row.try_get(3)?,
        via_root: row.try_get(4)?,
        has_table: row.try_get(5)?,
        filtered: row.try_get::<_, Option<bool>>(6)?.unwrap_or(false),
        columns: row.try_get(7)?,
        version: row.try_get(8)?,
        comment: row.try_get(9)?,
        publishes_stored: row.try_get(10)?,
        unpublished: row.try_get(11)?,
        is_foreign: row.try_get(12)?,
    })
}

/// Whether there is a publication of that name.
///
/// # Errors
/// The server's.
pub async fn publication_exists(client: &Client, name: &str) -> Result<bool, DatabaseError> {
    let found = client
        .query_opt("SELECT FROM pg_publication WHERE pubname = $1", &[&name])
        .await
        .map_err(DatabaseError::during(format!(
            "looking for the publication {name}"
        )))?;
    Ok(found.is_some())
}

/// The names of publications that begin with `prefix` and contain the table with this OID.
///
/// # Errors
/// The server's.
pub async fn publications_with_prefix(
    client: &Client,
    prefix: &str,
    table: u32,
) -> Result<Vec<String>, DatabaseError> {
    client
        .query(
            "SELECT p.pubname::text FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid \
             WHERE starts_with(p.pubname::text, $1) AND r.prrelid = $2 ORDER BY p.pubname",
            &[&prefix, &table],
        )
        .await
        .and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
        .map_err(DatabaseError::during("looking for prepared publications"))
}

/// Whether the publication, with the table in it, is certainly older than every change that the slot has yet to send.
///
/// Its catalog rows must have been written before the slot's `catalog_xmin`, the oldest transaction whose catalog
/// changes the slot may still need (PostgreSQL manual, "pg_replication_slots"). A slot that is only seconds old may not
/// be able to tell, and then the answer is no. Transaction ids wrap around, so ages are compared. An age outside of the
/// range is that of a row from before the slot, or of one so old that its id seems to lie ahead.
///
/// # Errors
/// The server's.
pub async fn is_older_than_slot(
    client: &Client,
    name: &str,
    table: u32,
    slot: &SlotName,
) -> Result<bool, DatabaseError> {
    let is_older: Option<bool> = client
        .query_opt(
            "SELECT NOT (age(p.xmin) BETWEEN 0 AND age(s.catalog_xmin) OR age(r.xmin) BETWEEN 0 AND age(s.catalog_xmin)) \
             FROM pg_replication_slots s, pg_publication p \
             JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = $2 \
             WHERE p.pubname = $1 AND s.slot_name = $3",
            &[&name, &table, &slot.as_str()],
        )
        .await
        .and_then(|row| row.map(|row| row.try_get(0)).transpose())
        .map_err(DatabaseError::during(format!(
            "comparing the publication {name} with the slot {slot}"
        )))?;
    Ok(is_older.unwrap_or(false))
}

/// Whether texts or the key of the table were redefined since it was published by this publication, so that rows
/// which are not in the stream may have other texts or keys. `listed` are the columns that it lists.
///
/// # Errors
/// The server's.
pub async fn is_redefined_since_published(
    session: &Session,
    name: &str,
    target: &TargetTable,
    listed: &[String],
) -> Result<bool, DatabaseError> {
    let row_of = |column: &str| {
        format!(
            "(SELECT {column} FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid \
              WHERE p.pubname = {} AND r.prrelid = {})",
            literal(name),
            target.oid
        )
    };
    let reference = (&*row_of("age(r.xmin)"), &*row_of("r.oid"));
    is_redefined(session, target, listed, reference).await
}

/// Whether texts or the key of the table may have been redefined since the position that the slot has confirmed. As
/// for [`is_older_than_slot`], a slot that is only seconds old may not be able to tell.
///
/// # Errors
/// The server's.
pub async fn is_redefined_since_slot(
    session: &Session,
    slot: &SlotName,
    target: &TargetTable,
    listed: &[String],
) -> Result<bool, DatabaseError> {
    let slot = literal(slot.as_str());
    let age = format!(
        "(SELECT age(s.catalog_xmin) + 1 FROM pg_replication_slots s WHERE s.slot_name = {slot})"
    );
    let newest = "4294967295::oid";
    is_redefined(session, target, listed, (&age, newest)).await
}

async fn is_redefined(
    session: &Session,
    target: &TargetTable,
    listed: &[String],
    reference: (&str, &str),
) -> Result<bool, DatabaseError> {
    let key: Vec<&str> = target
        .key
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    let columns = DefinedColumns {
        table: target.oid,
        sources: &target.source.columns(),
        key: &key,
        listed,
    };
    let question = redefined_since(columns, reference);
    let row = session.query_one(&format!("SELECT {question}"), &[]).await;
    let answer = row.and_then(|row| row.try_get(0));
    answer.map_err(DatabaseError::during(format!(
        "looking for changes of the definition of {}",
        target.qualified()
    )))
}

/// Another published table that is a partition of this one, or that this one is a partition of. With
/// `publish_via_partition_root` the changes of both come as those of the upper one.
///
/// # Errors
/// The server's.
pub async fn related_table(
    session: &Session,
    name: &SlotName,
    target: &TargetTable,
) -> Result<Option<String>, DatabaseError> {
    session
        .query_opt(
            "SELECT r.prrelid::regclass::text FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid \
             WHERE p.pubname = $1 AND r.prrelid <> $2 \
               AND (r.prrelid IN (SELECT relid::oid FROM pg_partition_ancestors($2::oid::regclass) AS a(relid)) \
                 OR $2 IN (SELECT relid::oid FROM pg_partition_ancestors(r.prrelid::regclass) AS a(relid))) LIMIT 1",
            &[&name.as_str(), &target.oid],
        )
        .await
        .and_then(|row| row.map(|row| row.try_get(0)).transpose())
        .map_err(DatabaseError::during("looking for partitions"))
}

/// The name of a published table with this OID, quoted.
///
/// # Errors
/// The server's.
pub async fn published_table(
    session: &Session,
    name: &SlotName,
    oid: u32,
) -> Result<Option<String>, DatabaseError> {
    session
        .query_opt(
            "SELECT r.prrelid::regclass::text FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid \
             WHERE p.pubname = $1 AND r.prrelid = $2",
            &[&name.as_str(), &oid],
        )
        .await
        .and_then(|row| row.map(|row| row.try_get(0)).transpose())
        .map_err(DatabaseError::during("looking for a published table"))
}

/// The statement that creates a publication of one table, of the given columns only or of all.
///
/// Deletes and truncates need no vector, so they are published only where passages of a row are to go with it. Without `publish_via_partition_root` the changes of a partitioned table come
/// as those of its partitions, each under its own OID and with its own columns (PostgreSQL manual, "CREATE
/// PUBLICATION"). A plain table is published without tables that inherit from it. Under REPLICA IDENTITY FULL, UPDATE
/// fails unless stored generated columns are published, also those that are added later.
pub fn create_statement(
    name: &str,
    target: &TargetTable,
    columns: Option<&[String]>,
    version: u32,
) -> String {
    let mut options = String::new();
    if target.partitioned {
        options += ", publish_via_partition_root = true";
    }
    if target.identity_full && version >= GENERATED_COLUMNS_SINCE {
        options += PUBLISH_STORED;
    }
    format!(
        "CREATE PUBLICATION {} FOR TABLE {}{} WITH (publish = '{}'{options})",
        identifier(name),
        target.from_clause(),
        column_list(columns),
        published_changes(target)
    )
}

/// The changes that a job on this table needs, as the option `publish` names them.
pub fn published_changes(target: &TargetTable) -> &'static str {
    match target.passages {
        Some(_) => "insert, update, delete, truncate",
        None => "insert, update",
    }
}

/// The option that publishes stored generated columns, with a comma before it.
pub const PUBLISH_STORED: &str = ", publish_generated_columns = stored";

/// The column list of a table in a publication, with a blank before it; nothing for all columns.
pub fn column_list(columns: Option<&[String]>) -> String {
    let Some(columns) = columns else {
        return String::new();
    };
    let quoted: Vec<String> = columns.iter().map(|column| identifier(column)).collect();
    format!(" ({})", quoted.join(", "))
}

/// The statement that drops a publication if it exists.
pub fn drop_statement(name: &str) -> String {
    format!("DROP PUBLICATION IF EXISTS {}", identifier(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(partitioned: bool) -> TargetTable {
        TargetTable {
            name: "a b".into(),
            partitioned,
            ..TargetTable::example()
        }
    }

    #[test]
    fn names_are_quoted_wherever_they_come_from() {
        let columns = ["i\"d".to_string(), "My Text".to_string()];
        assert_eq!(
            create_statement("p", &target(true), Some(&columns), 180_000),
            "CREATE PUBLICATION \"p\" FOR TABLE \"public\".\"a b\" (\"i\"\"d\", \"My Text\") \
             WITH (publish = 'insert, update', publish_via_partition_root = true)"
        );
    }

    #[test]
    fn a_plain_table_is_published_without_those_that_inherit_from_it() {
        assert_eq!(
            create_statement("p", &target(false), None, 180_000),
            "CREATE PUBLICATION \"p\" FOR TABLE ONLY \"public\".\"a b\" WITH (publish = 'insert, update')"
        );
    }

    #[test]
    fn generated_columns_are_published_where_updates_would_fail_without() {
        let full = TargetTable {
            identity_full: true,
            ..target(false)
        };
        for (version, publishes) in [(170_000, false), (180_000, true)] {
            let statement = create_statement("p", &full, None, version);
            let found = statement.ends_with("publish_generated_columns = stored)");
            assert_eq!(found, publishes, "{statement}");
        }
    }

    #[test]
    fn another_owner_is_no_other_version() {
        let publication = |version: &str, is_foreign| Publication {
            inserts: true,
            updates: true,
            deletes: false,
            truncates: false,
            via_root: false,
            has_table: true,
            columns: None,
            filtered: false,
            publishes_stored: true,
            unpublished: Vec::new(),
            is_foreign,
            version: version.into(),
            comment: Some(format!("{VERSION_COMMENT}750/750")),
        };
        assert!(publication("750/750", false).is_unaltered());
        assert!(!publication("760/750", false).is_unaltered());
        assert!(publication("760/750", true).is_unaltered());
        assert!(!publication("760/760", true).is_unaltered());
    }
}
