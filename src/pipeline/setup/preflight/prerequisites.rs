//! All that a role lacks to run a job, in one message.
//!
//! Each check of this module names one missing thing with its remedy. A role that owns nothing lacks several, and would
//! learn of them one failure after the other; and the script that gives it all of them helps only a reader who knows of
//! it.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::row_access::Sessions;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

const FACTS: &str = "SELECT current_user::text, \
       (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user) \
         OR EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication' AND pg_has_role(oid, 'member')), \
       pg_has_role(c.relowner, 'USAGE'), \
       has_database_privilege(current_database(), 'CREATE'), \
       EXISTS (SELECT FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid \
               WHERE r.prrelid = c.oid AND starts_with(p.pubname::text, 'lantern_prepared_')), \
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
       place), EXISTS (SELECT FROM pg_extension WHERE extname = 'vector') \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     LEFT JOIN pg_index k ON k.indrelid = c.oid \
       AND CASE c.relreplident WHEN 'i' THEN k.indisreplident ELSE k.indisprimary END \
     WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')";

/// Fails where the role, or the two of a job with `write_connection`, lacks two or more things for this job. One alone, or a table that does not exist, is left to
/// the check that knows it best.
///
/// # Errors
/// Permanent, with all remedies; and the server's.
pub async fn check_prerequisites(
    sessions: Sessions<'_>,
    names: &TargetNames,
    dimensions: usize,
) -> Result<(), JobError> {
    let Some(stream) = read_facts(sessions.stream, names).await? else {
        return Ok(());
    };
    let of_rows = match sessions.are_two() {
        true => read_facts(sessions.rows, names).await?,
        false => None,
    };
    let rows = of_rows.as_ref().unwrap_or(&stream);
    let lacking = [
        stream.lacking_for_stream(names),
        rows.lacking_for_rows(names),
    ]
    .concat();
    if lacking.len() < 2 {
        return Ok(());
    }
    let who = match sessions.are_two() {
        true => format!(
            "the roles {} (db_connection) and {} (write_connection) lack",
            stream.role, rows.role
        ),
        false => format!("the role {} lacks", stream.role),
    };
    Err(JobError::Permanent(format!(
        "{who} {} things for this job. Let the owner of {} run sql/prepare_publication.sql, which gives \
         it all but REPLICATION: psql {} -f sql/prepare_publication.sql. In detail: {}",
        lacking.len(),
        names.qualified(),
        rows.variables(names, dimensions),
        lacking.join("; ")
    )))
}

/// `None` if there is no such table.
async fn read_facts(
    session: &Session,
    names: &TargetNames,
) -> Result<Option<Facts>, DatabaseError> {
    let written: Vec<&str> = [
        Some(names.destination.as_str()),
        names.fingerprint.as_deref(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut read = vec![names.source.as_str()];
    read.extend(&written);
    session
        .query_opt(FACTS, &[&names.schema, &names.table, &read, &written])
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
        may_use_schema: row.try_get(5)?,
        unreadable: row.try_get(6)?,
        unwritable: row.try_get(7)?,
        missing: row.try_get(8)?,
        key: row.try_get(9)?,
        has_pgvector: row.try_get(10)?,
    })
}

struct Facts {
    role: String,
    may_replicate: bool,
    owns_table: bool,
    may_create: bool,
    is_prepared: bool,
    may_use_schema: bool,
    unreadable: Vec<String>,
    unwritable: Vec<String>,
    missing: Vec<String>,
    key: Vec<String>,
    has_pgvector: bool,
}

impl Facts {
    /// What the role of the stream lacks, each with its remedy.
    fn lacking_for_stream(&self, names: &TargetNames) -> Vec<String> {
        let role = identifier(&self.role);
        let may_publish = self.owns_table && self.may_create;
        let all = [
            (!self.may_replicate).then(|| {
                format!(
                    "REPLICATION: a superuser runs ALTER ROLE {role} REPLICATION; (Amazon RDS: GRANT rds_replication)"
                )
            }),
            (!self.owns_table && !self.missing.is_empty()).then(|| {
                format!(
                    "the columns to write, which do not exist: {}",
                    list(&self.missing)
                )
            }),
            (!may_publish && !self.is_prepared).then(|| {
                format!(
                    "a publication of {}: one that the script prepares, or the ownership of the table and CREATE on the \
                     database",
                    names.qualified()
                )
            }),
        ];
        all.into_iter().flatten().collect()
    }

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

    /// The variables for the script, as arguments of psql.
    fn variables(&self, names: &TargetNames, dimensions: usize) -> String {
        let key: Vec<String> = self.key.iter().map(|name| identifier(name)).collect();
        let kind = match self.has_pgvector {
            true => format!("vector({dimensions})"),
            false => "real[]".into(),
        };
        let mut variables = vec![
            ("schema", names.schema.clone()),
            ("table", names.table.clone()),
            ("key", key.join(", ")),
            ("source", names.source.clone()),
            ("destination", names.destination.clone()),
            ("type", kind),
            ("role", self.role.clone()),
        ];
        let fingerprint = names.fingerprint.clone();
        variables.extend(fingerprint.map(|name| ("fingerprint", name)));
        let arguments = variables
            .iter()
            .map(|(name, value)| format!("-v {name}={}", shell_word(value)));
        arguments.collect::<Vec<_>>().join(" ")
    }
}

/// Names of columns, quoted.
fn list(columns: &[String]) -> String {
    let quoted: Vec<String> = columns.iter().map(|name| identifier(name)).collect();
    quoted.join(", ")
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
    fn a_value_with_quotes_or_blanks_is_one_word_for_the_shell() {
        assert_eq!(shell_word("title_embedding"), "title_embedding");
        assert_eq!(shell_word("vector(3)"), "'vector(3)'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
