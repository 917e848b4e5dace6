//! All that a role lacks to run a job, in one message.
//!
//! Each check of this module names one missing thing with its remedy. A role that owns nothing lacks several, and would
//! learn of them one failure after the other; and the script that gives it all of them helps only a reader who knows of
//! it.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::columns::add_column;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::publishing::{PREPARE, SlotPlan, own_remedy, shared_remedy};
use crate::pipeline::setup::preflight::server::MAY_REPLICATE;
use crate::pipeline::setup::preflight::service::{Service, replication_remedy};
use crate::pipeline::setup::row_access::Sessions;
use crate::pipeline::table::template::Template;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};
use crate::replication::SlotName;

/// What decides of the rights of a role. `$1` and `$2` name the table, `$3` the columns that are read, the source first, `$4`
/// those that are written, `$5` the publication.
const FACTS: &str = "SELECT current_user::text, {may_replicate}, pg_has_role(c.relowner, 'USAGE'), \
       has_database_privilege(current_database(), 'CREATE'), \
       EXISTS (SELECT FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid \
               WHERE r.prrelid = c.oid AND starts_with(p.pubname::text, 'lantern_prepared_')), \
       EXISTS (SELECT FROM pg_publication p WHERE p.pubname = $5), \
       has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'UPDATE'), \
       has_schema_privilege(n.oid, 'USAGE'), \
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped \
               AND (a.attname = ANY ($3::text[]) OR a.attnum = ANY (k.indkey::int2[])) \
               AND NOT has_column_privilege(c.oid, a.attnum, 'SELECT') ORDER BY a.attnum), \
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped \
               AND a.attname = ANY ($4::text[]) AND NOT has_column_privilege(c.oid, a.attnum, 'UPDATE') ORDER BY \
       a.attnum), ARRAY(SELECT name FROM unnest($4::text[]) WITH ORDINALITY AS w (name, place) \
             WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = name \
                               AND NOT a.attisdropped) ORDER BY place), \
       ARRAY(SELECT a.attname::text FROM unnest(k.indkey) WITH ORDINALITY AS i (attnum, place) \
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.attnum WHERE place <= k.indnkeyatts ORDER BY \
       place), EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = $3[1] AND NOT a.attisdropped), \
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname IN ('ctid', 'tableoid') \
               AND NOT has_column_privilege(c.oid, a.attnum, 'SELECT') ORDER BY a.attname) \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     LEFT JOIN pg_index k ON k.indrelid = c.oid \
       AND CASE c.relreplident WHEN 'i' THEN k.indisreplident ELSE k.indisprimary END \
     WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')";

/// What the role of a job may do, or the two of a job with `write_connection`.
pub struct Prerequisites {
    stream: Facts,
    /// `None` where it is the role of the stream.
    rows: Option<Facts>,
    service: Option<Service>,
    shares_slot: bool,
    /// The name of the target database.
    database: String,
}

/// What is lacking, where that is not said in one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacking {
    /// All is there.
    Nothing,
    /// The check that knows it best says what.
    OneThing,
}

impl Prerequisites {
    /// Reads them; `None` if there is no such table.
    ///
    /// # Errors
    /// The server's.
    pub async fn read(
        sessions: Sessions<'_>,
        names: &TargetNames,
        slot: SlotPlan<'_>,
    ) -> Result<Option<Prerequisites>, DatabaseError> {
        let publication = slot.slot().map(SlotName::as_str);
        let Some(stream) = read_facts(sessions.stream, names, publication).await? else {
            return Ok(None);
        };
        let rows = match sessions.are_two() {
            true => read_facts(sessions.rows, names, publication).await?,
            false => None,
        };
        Ok(Some(Prerequisites {
            stream,
            rows,
            service: Service::of(sessions.stream).await?,
            shares_slot: slot.is_shared(),
            database: sessions.stream.server().database().to_owned(),
        }))
    }

    /// Fails where two or more things are lacking, or one that no other check knows. Any other one is left to the check
    /// that knows it best. `kind` is the type of the destination.
    ///
    /// # Errors
    /// Permanent, with all remedies.
    pub fn check_all(&self, names: &TargetNames, kind: &str) -> Result<Lacking, JobError> {
        let rows = self.rows.as_ref().unwrap_or(&self.stream);
        let lacking = [self.lacking_for_stream(names), rows.lacking_for_rows(names)].concat();
        match lacking.len() {
            0 => return Ok(Lacking::Nothing),
            1 => return rows.check_alone(names).map(|()| Lacking::OneThing),
            _ => {}
        }
        let who = match &self.rows {
            Some(rows) => format!(
                "the roles {} (db_connection) and {} (write_connection) lack",
                self.stream.role, rows.role
            ),
            None => format!("the role {} lacks", self.stream.role),
        };
        Err(JobError::Permanent(format!(
            "{who} {} things for this job. {}; in detail: {}",
            lacking.len(),
            self.script(names, kind),
            joined(&lacking)
        )))
    }

    /// Checks that the role may read and write the rows, where no stream is needed.
    ///
    /// # Errors
    /// Permanent, with all remedies.
    pub fn check_rows(&self, names: &TargetNames) -> Result<(), JobError> {
        let rows = self.rows.as_ref().unwrap_or(&self.stream);
        // A misspelt column has an error of its own.
        if !rows.has_source {
            return Ok(());
        }
        let mut lacking = rows.lacking_for_rows(names);
        lacking.extend(rows.lacking_for_places(names));
        match lacking.is_empty() {
            true => Ok(()),
            false => Err(JobError::Permanent(format!(
                "the role {} may not embed {}; run as the owner, for {}",
                rows.role,
                names.qualified(),
                joined(&lacking)
            ))),
        }
    }

    /// Checks that the changes of the table are published for the role, or that it can see to that.
    ///
    /// # Errors
    /// Permanent, with the remedy.
    pub fn check_publishing(&self, names: &TargetNames, kind: &str) -> Result<(), JobError> {
        match self.may_publish() {
            true => Ok(()),
            false => Err(self.no_publication(names, kind)),
        }
    }

    /// Whether only a publication that the table's owner has prepared can serve the job.
    pub fn relies_on_prepared(&self) -> bool {
        let may_create = self.stream.owns_table && self.stream.may_create;
        !self.shares_slot && !self.stream.has_publication && !may_create
    }

    /// The error where nothing is published for the role, with the remedy.
    pub fn no_publication(&self, names: &TargetNames, kind: &str) -> JobError {
        let (role, table) = (&self.stream.role, names.qualified());
        let remedy = match (self.shares_slot, self.stream.key.is_empty()) {
            (true, _) => shared_remedy(role),
            (false, false) => own_remedy(role, &table, &self.command(names, kind)),
            (false, true) => own_remedy(role, &table, PREPARE),
        };
        JobError::permanent(format!("the role {role} may not publish {table}; {remedy}"))
    }

    /// Whether the role of the stream has the rights of the table's owner.
    pub fn owns_table(&self) -> bool {
        self.stream.owns_table
    }

    /// Whether the table has the source column.
    pub fn has_source(&self) -> bool {
        self.stream.has_source
    }

    /// Checks that the role may add the columns that are missing, each with its type.
    ///
    /// # Errors
    /// Permanent, with the statement that the owner can run.
    pub fn check_additions(
        &self,
        names: &TargetNames,
        missing: &[(&str, String)],
    ) -> Result<(), JobError> {
        if missing.is_empty() {
            return Ok(());
        }
        let statements: Vec<String> = missing
            .iter()
            .map(|(column, kind)| format!("{};", add_column(names, column, kind)))
            .collect();
        let quoted: Vec<String> = missing.iter().map(|(name, _)| identifier(name)).collect();
        if self.stream.owns_table {
            return self.check_new_writable(names, &quoted.join(", "), &statements.join(" "));
        }
        Err(JobError::permanent(format!(
            "the table {} has no column {}, and the role {} may not add it, since it does not own the table; create \
             the column yourself: {}",
            names.qualified(),
            quoted.join(", "),
            self.stream.role,
            statements.join(" ")
        )))
    }

    /// A second role that writes has no right on columns that the first one adds, unless it has those on the whole
    /// table.
    fn check_new_writable(
        &self,
        names: &TargetNames,
        columns: &str,
        statements: &str,
    ) -> Result<(), JobError> {
        let (table, rows) = (names.qualified(), self.rows.as_ref());
        match rows.filter(|rows| !rows.may_write_all) {
            None => Ok(()),
            Some(Facts { role, .. }) => Err(JobError::permanent(format!(
                "the role {role} (write_connection) would not be allowed to read and write {columns} of {table}, \
                 which the job has to create; run as its owner: {statements} \
                 GRANT SELECT ({columns}), UPDATE ({columns}) ON {table} TO {};",
                identifier(role)
            ))),
        }
    }

    /// How the table's owner gives the role what it lacks. The script publishes the key, so there has to be one.
    fn script(&self, names: &TargetNames, kind: &str) -> String {
        let table = names.qualified();
        if self.stream.key.is_empty() {
            return format!(
                "{table} has no key: let its owner add a primary key first, then look again: lantern-cli check prints \
                 the call of the script that gives the role all but REPLICATION"
            );
        }
        format!(
            "Let the owner of {table} run this, which gives it all but REPLICATION: {}",
            self.command(names, kind)
        )
    }

    /// The call of the script, for a shell.
    fn command(&self, names: &TargetNames, kind: &str) -> String {
        let key: Vec<String> = self
            .stream
            .key
            .iter()
            .map(|name| identifier(name))
            .collect();
        let rows = self.rows.as_ref().unwrap_or(&self.stream);
        let mut variables = vec![
            ("schema", names.schema.clone()),
            ("table", names.table.clone()),
            ("key", key.join(", ")),
            ("source", names.source.clone()),
        ];
        match &names.passages {
            Some(chunk_table) => variables.push(("chunk_schema", chunk_table.schema.clone())),
            None => variables.extend([
                ("destination", names.destination.clone()),
                ("type", kind.to_owned()),
            ]),
        }
        variables.push(("role", rows.role.clone()));
        let fields = names.text.template.iter().flat_map(Template::columns);
        let fields: Vec<String> = fields.map(|name| identifier(name)).collect();
        if !fields.is_empty() {
            variables.push(("fields", fields.join(", ")));
        }
        let fingerprint = names.fingerprint.clone();
        variables.extend(fingerprint.map(|name| ("fingerprint", name)));
        let arguments = variables
            .iter()
            .map(|(name, value)| format!("-v {name}={}", shell_word(value)));
        format!(
            "lantern-cli sql prepare_publication | psql -d {} {} -f -",
            shell_word(&self.database),
            arguments.collect::<Vec<_>>().join(" ")
        )
    }

    fn may_publish(&self) -> bool {
        let Facts {
            owns_table,
            may_create,
            is_prepared,
            has_publication,
            ..
        } = self.stream;
        match self.shares_slot {
            true => owns_table && (may_create || has_publication),
            false => is_prepared || has_publication || owns_table && may_create,
        }
    }

    /// What the role of the stream lacks, each with its remedy.
    fn lacking_for_stream(&self, names: &TargetNames) -> Vec<String> {
        let Facts {
            role,
            may_replicate,
            owns_table,
            missing,
            ..
        } = &self.stream;
        let all = [
            (!may_replicate).then(|| {
                let remedy = match self.service {
                    None => format!(
                        "a superuser runs ALTER ROLE {} REPLICATION; (Amazon RDS: GRANT rds_replication)",
                        identifier(role)
                    ),
                    service => replication_remedy(service, role),
                };
                format!("REPLICATION: {remedy}")
            }),
            (!owns_table && !missing.is_empty()).then(|| {
                format!(
                    "the columns to write, which do not exist: {}",
                    list(missing)
                )
            }),
            (!self.may_publish()).then(|| match self.shares_slot {
                true => format!("a publication: {}", shared_remedy(role)),
                false => format!(
                    "a publication of {}: one that the script prepares, or the ownership of the table and CREATE on \
                     the database",
                    names.qualified()
                ),
            }),
        ];
        all.into_iter().flatten().collect()
    }
}

/// `None` if there is no such table.
async fn read_facts(
    session: &Session,
    names: &TargetNames,
    publication: Option<&str>,
) -> Result<Option<Facts>, DatabaseError> {
    // Of a job with a table for passages nothing is written here. That table has points of its own.
    let destination = Some(names.destination.as_str()).filter(|_| names.passages.is_none());
    let written: Vec<&str> = [destination, names.fingerprint.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    let fields = names.text.template.iter().flat_map(Template::columns);
    let mut read = vec![names.source.as_str()];
    read.extend(fields.map(String::as_str));
    read.extend(&written);
    let statement = FACTS.replace("{may_replicate}", MAY_REPLICATE);
    session
        .query_opt(
            &statement,
            &[&names.schema, &names.table, &read, &written, &publication],
        )
        .await
        .and_then(|row| row.as_ref().map(facts).transpose())
        .map_err(DatabaseError::during("checking the privileges of the role"))
}

fn facts(row: &tokio_postgres::Row) -> Result<Facts, tokio_postgres::Error> {
    Ok(Facts {
        role: row.try_get(0)?,
        may_replicate: row.try_get(1)?,
        owns_table: row.try_get(2)?,
        may_create: row.try_get(3)?,
        is_prepared: row.try_get(4)?,
        has_publication: row.try_get(5)?,
        may_write_all: row.try_get(6)?,
        may_use_schema: row.try_get(7)?,
        unreadable: row.try_get(8)?,
        unwritable: row.try_get(9)?,
        missing: row.try_get(10)?,
        key: row.try_get(11)?,
        has_source: row.try_get(12)?,
        unreadable_places: row.try_get(13)?,
    })
}

struct Facts {
    role: String,
    may_replicate: bool,
    owns_table: bool,
    may_create: bool,
    is_prepared: bool,
    /// The publication of the slot plan exists.
    has_publication: bool,
    /// It may read and write columns that do not exist yet.
    may_write_all: bool,
    may_use_schema: bool,
    unreadable: Vec<String>,
    unwritable: Vec<String>,
    missing: Vec<String>,
    key: Vec<String>,
    has_source: bool,
    /// System columns by which a write-back finds the rows that it has locked.
    unreadable_places: Vec<String>,
}

impl Facts {
    /// What the role that reads and writes rows lacks, each with its remedy.
    fn lacking_for_rows(&self, names: &TargetNames) -> Vec<String> {
        let (role, table) = (identifier(&self.role), names.qualified());
        let grant = |privilege: &str, columns: &[String]| {
            let columns = list(columns);
            format!("{privilege}: GRANT {privilege} ({columns}) ON {table} TO {role};")
        };
        let all = [
            (!self.may_use_schema).then(|| {
                format!(
                    "the schema: GRANT USAGE ON SCHEMA {} TO {role};",
                    identifier(&names.schema)
                )
            }),
            (!self.unreadable.is_empty()).then(|| grant("SELECT", &self.unreadable)),
            (!self.unwritable.is_empty()).then(|| grant("UPDATE", &self.unwritable)),
        ];
        all.into_iter().flatten().collect()
    }

    /// What the role lacks to find rows again that it has locked, with the remedy.
    fn lacking_for_places(&self, names: &TargetNames) -> Option<String> {
        let columns = list(&self.unreadable_places);
        let (role, table) = (identifier(&self.role), names.qualified());
        (!self.unreadable_places.is_empty()).then(|| {
            format!("SELECT of system columns: GRANT SELECT ({columns}) ON {table} TO {role};")
        })
    }

    /// Fails where what is lacking is the schema, or columns of the key.
    fn check_alone(&self, names: &TargetNames) -> Result<(), JobError> {
        let role = &self.role;
        if !self.may_use_schema {
            let schema = identifier(&names.schema);
            return Err(JobError::permanent(format!(
                "the role {role} may not use the schema {schema}; run as its owner: \
                 GRANT USAGE ON SCHEMA {schema} TO {};",
                identifier(role)
            )));
        }
        let key: Vec<String> = self
            .unreadable
            .iter()
            .filter(|column| self.key.contains(column) && **column != names.source)
            .cloned()
            .collect();
        if key.is_empty() || self.unreadable.contains(&names.source) {
            return Ok(());
        }
        let (key, table) = (list(&key), names.qualified());
        Err(JobError::permanent(format!(
            "the role {role} may not read {key} of {table}, its key; run as its owner: \
             GRANT SELECT ({key}) ON {table} TO {};",
            identifier(role)
        )))
    }
}

/// Names of columns, quoted.
fn list(columns: &[String]) -> String {
    let quoted: Vec<String> = columns.iter().map(|name| identifier(name)).collect();
    quoted.join(", ")
}

/// The remedies one behind the other. A statement has its semicolon.
fn joined(remedies: &[String]) -> String {
    let mut joined = String::new();
    for remedy in remedies {
        if !joined.is_empty() {
            joined.push_str(if joined.ends_with(';') { " " } else { "; " });
        }
        joined.push_str(remedy);
    }
    joined
}

/// The text as one word of a shell's command line.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_has_one_semicolon() {
        let remedies = ["a: GRANT x;", "b: own it", "c: GRANT y;"].map(String::from);
        assert_eq!(joined(&remedies), "a: GRANT x; b: own it; c: GRANT y;");
    }

    #[test]
    fn a_value_with_quotes_or_blanks_is_one_word_for_the_shell() {
        assert_eq!(shell_word("title_embedding"), "title_embedding");
        assert_eq!(shell_word("vector(3)"), "'vector(3)'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
