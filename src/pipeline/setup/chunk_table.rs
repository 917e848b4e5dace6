//! Creates the table for passages, and says who else may read it.

use tokio_postgres::error::SqlState;

use crate::failpoint;
use crate::jobs::chunk_table::ChunkTableName;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::columns::usable_type;
use crate::pipeline::setup::ddl;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::chunk_table::{Declaration, declare_key};
use crate::pipeline::setup::preflight::inspect::FoundTable;
use crate::pipeline::setup::row_access::Sessions;
use crate::pipeline::table::passages::{COLUMNS, SEQ};
use crate::postgres::answer::columns;
use crate::postgres::quote::{identifier, literal};
use crate::postgres::{DatabaseError, Session};
use crate::replication::SlotName;

/// Creates the table for the passages of the rows of `found`, for vectors of this many dimensions.
///
/// # Errors
/// Permanent ones with a remedy; transient where another session has just created it; and the server's.
///
/// Cancellation safe: the table is created in one transaction, with all rights on it.
pub async fn create(
    sessions: Sessions<'_>,
    names: &TargetNames,
    table: &ChunkTableName,
    found: &FoundTable,
    (column_type, dimensions): (Option<&str>, usize),
) -> Result<(), JobError> {
    let session = sessions.stream;
    let vectors = usable_type(session, column_type, Some(dimensions)).await?;
    let source = found.relation.oid;
    let key = declare_key(session, source, &found.key).await?;
    let access = Access::read(session, source).await?;
    let writer = match sessions.are_two() {
        true => Some(sessions.rows.role().await?),
        false => None,
    };
    let shown = table.qualified();
    let create = create_statement(&shown, &key, &names.destination, &vectors);
    let mut script = format!(
        "{create}; COMMENT ON TABLE {shown} IS {}",
        literal(&format!(
            "passages of {} with their vectors, kept up to date by lantern-cli",
            names.qualified_column(&names.source)
        ))
    );
    if let Some(writer) = writer {
        let writer = identifier(&writer);
        script += &format!("; GRANT SELECT, INSERT, UPDATE, DELETE ON {shown} TO {writer}");
    }
    script += &access.grant_select(&shown);
    script += &access.give("TABLE", &shown);
    ddl::run_described(session, &script, &format!("creating the table {shown}"))
        .await
        .map_err(|error| explain(error, &create))?;
    failpoint::reach("chunk-table-created");
    tracing::info!("created the table {shown} for passages");
    Ok(())
}

/// Whether the table for passages with this OID may be younger than the confirmed position of the slot. As for a publication
/// (`is_older_than_slot` in `publication/catalog.rs`), a slot that is only seconds old may not be able to tell, and then it
/// may be. False without a slot.
///
/// # Errors
/// The server's.
pub async fn is_recent(
    session: &Session,
    oid: u32,
    slot: &SlotName,
) -> Result<bool, DatabaseError> {
    // ALTER TABLE writes a new version of the row of the table, and not that of a column which it leaves as it is.
    let is_recent: Option<bool> = session
        .query_opt(
            "SELECT age(a.xmin) BETWEEN 0 AND age(s.catalog_xmin) FROM pg_attribute a, pg_replication_slots s \
             WHERE a.attrelid = $1 AND a.attname = $2::text AND s.slot_name = $3::text",
            &[&oid, &SEQ, &slot.as_str()],
        )
        .await
        .and_then(|row| row.map_or(Ok(None), |row| row.try_get(0)))
        .map_err(DatabaseError::during("comparing the table for passages with the slot"))?;
    Ok(is_recent.unwrap_or(false))
}

fn explain(error: JobError, create: &str) -> JobError {
    let of_a_race = [
        SqlState::DUPLICATE_TABLE,
        SqlState::DUPLICATE_OBJECT,
        SqlState::UNIQUE_VIOLATION,
    ];
    if error.code().is_some_and(|code| of_a_race.contains(code)) {
        return JobError::Transient(error.to_string());
    }
    error.with_remedy(format!("create the table yourself: {create};"))
}

/// A page has room for another version of all its rows. An edit moves every passage behind it, and what stays in its page
/// needs no new entry in the index of the vectors (PostgreSQL manual, "Heap-Only Tuples").
const FILLFACTOR: u8 = 50;

/// The statement that creates the table `shown`, whose name is quoted, without a semicolon.
fn create_statement(shown: &str, key: &[Declaration], destination: &str, vectors: &str) -> String {
    let of_key = key
        .iter()
        .map(|column| format!("{} {}", identifier(&column.name), column.sql()));
    let mut all: Vec<String> = of_key.collect();
    let vectors = (destination, vectors);
    let [seq, start, end, chunk, of_chunk, of_document] = COLUMNS;
    for (name, kind) in [seq, start, end, chunk, vectors, of_chunk, of_document] {
        all.push(format!("{} {kind}", identifier(name)));
    }
    let mut primary: Vec<String> = key.iter().map(|column| identifier(&column.name)).collect();
    primary.push(identifier(SEQ));
    format!(
        "CREATE TABLE {shown} ({}, PRIMARY KEY ({})) WITH (fillfactor = {FILLFACTOR})",
        all.join(", "),
        primary.join(", ")
    )
}

/// Who may read what is created beside a table, and whose it is.
pub(super) struct Access {
    /// Who may SELECT the whole table, as SQL. None where row level security decides of its rows.
    readers: Vec<String>,
    /// The owner of the table, quoted, where the role of the session is a superuser and another one.
    owner: Option<String>,
}

impl Access {
    /// As the table with this OID has it.
    ///
    /// # Errors
    /// The server's.
    pub async fn read(session: &Session, source: u32) -> Result<Access, DatabaseError> {
        let (readers, owner): (Vec<String>, Option<String>) = session
            .query_one(
                "SELECT ARRAY(SELECT DISTINCT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END \
                              FROM aclexplode(COALESCE(c.relacl, acldefault('r', c.relowner))) x \
                              WHERE x.privilege_type = 'SELECT' AND x.grantee <> r.oid AND NOT c.relrowsecurity ORDER BY 1), \
                        CASE WHEN r.rolsuper AND r.oid <> c.relowner THEN quote_ident(pg_get_userbyid(c.relowner)) END \
                 FROM pg_class c, pg_roles r WHERE c.oid = $1 AND r.rolname = current_user",
                &[&source],
            )
            .await
            .and_then(|row| columns(&row))
            .map_err(DatabaseError::during("reading who may read the target table"))?;
        Ok(Access { readers, owner })
    }

    /// What lets them read the table or view `shown`, whose name is quoted; with a semicolon before it.
    pub fn grant_select(&self, shown: &str) -> String {
        self.grant("SELECT", "TABLE", shown)
    }

    /// What lets them call the function `shown`, likewise.
    pub fn grant_execute(&self, shown: &str) -> String {
        self.grant("EXECUTE", "FUNCTION", shown)
    }

    fn grant(&self, right: &str, kind: &str, shown: &str) -> String {
        match self.readers.is_empty() {
            true => String::new(),
            false => format!(
                "; GRANT {right} ON {kind} {shown} TO {}",
                self.readers.join(", ")
            ),
        }
    }

    /// What makes the owner of the table that of an object, where a superuser has created it: the code that statements on
    /// the object run is then that of the owner's rights. With a semicolon before it.
    pub fn give(&self, kind: &str, shown: &str) -> String {
        let owner = self.owner.as_ref();
        owner.map_or_else(String::new, |owner| {
            format!("; ALTER {kind} {shown} OWNER TO {owner}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_key_as_it_is_declared_and_the_columns_of_passages() {
        let column = |name: &str, kind: &str, collation: Option<&str>| Declaration {
            name: name.into(),
            kind: kind.into(),
            collation: collation.map(str::to_owned),
        };
        let key = [
            column("a b", "app.tenant", None),
            column("id", "text", Some("pg_catalog.\"C\"")),
        ];
        assert_eq!(
            create_statement("\"s\".\"t\"", &key, "v", "ext.vector(3)"),
            "CREATE TABLE \"s\".\"t\" (\"a b\" app.tenant, \"id\" text COLLATE pg_catalog.\"C\", \"chunk_seq\" integer, \
             \"chunk_start\" integer, \"chunk_end\" integer, \"chunk\" text, \"v\" ext.vector(3), \"chunk_fingerprint\" uuid, \
             \"document_fingerprint\" uuid, PRIMARY KEY (\"a b\", \"id\", \"chunk_seq\")) WITH (fillfactor = 50)"
        );
    }
}
