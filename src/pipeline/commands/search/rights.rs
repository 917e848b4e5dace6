//! What the role that searches lacks, and what grants it.

use crate::pipeline::commands::search::columns::ShownColumns;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::answer::columns;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// A search that the server has refused for missing rights.
pub(super) struct Lacking<'a> {
    /// The table.
    pub target: &'a TargetTable,
    /// The columns to show, where the search came as far as that.
    pub columns: Option<&'a ShownColumns>,
    /// Whether there is a condition, whose columns only the server knows.
    pub has_condition: bool,
}

/// A table that the search reads.
struct ReadTable<'a> {
    oid: u32,
    /// Not quoted.
    schema: &'a str,
    /// Schema and name, quoted.
    shown: String,
    /// The columns that it reads, not quoted; `None` for the whole table.
    needed: Option<Vec<&'a str>>,
}

impl Lacking<'_> {
    /// Who asked, the statements that grant what is missing, and the way around. Ends the failed transaction.
    ///
    /// # Errors
    /// The server's.
    pub async fn remedy(&self, session: &Session) -> Result<String, DatabaseError> {
        let rollback = session.batch_execute("ROLLBACK").await;
        rollback.map_err(DatabaseError::during("ending the search"))?;
        let role = identifier(&session.role().await?);
        let mut grants = Vec::new();
        for table in self.tables() {
            for grant in table.lacking(session, &role).await? {
                if !grants.contains(&grant) {
                    grants.push(grant);
                }
            }
        }
        let grants = match (grants.is_empty(), self.has_condition) {
            (true, false) => "grant it the right".to_owned(),
            (true, true) => {
                "grant it SELECT on the columns of --where, and what else --where uses".to_owned()
            }
            (false, false) => format!("run {}", grants.join(" ")),
            (false, true) => format!(
                "run {} and grant SELECT on the columns of --where likewise",
                grants.join(" ")
            ),
        };
        Ok(format!(
            "the role {role} of {} asked: {grants}, or name another login with --target",
            session.server()
        ))
    }

    /// The tables that are read.
    fn tables(&self) -> Vec<ReadTable<'_>> {
        let target = self.target;
        let mut needed: Vec<&str> = Vec::new();
        if let Some(columns) = self.columns {
            needed.extend(columns.names().map(String::as_str));
        }
        let source = |needed| ReadTable {
            oid: target.oid,
            schema: &target.schema,
            shown: target.qualified(),
            needed: Some(needed),
        };
        let Some(passages) = &target.passages else {
            needed.push(&target.destination.name);
            return vec![source(needed)];
        };
        // What shows whether the passages are those of the row.
        let template = target.source.template.iter();
        needed.extend(target.key.iter().map(|column| column.name.as_str()));
        needed.push(&target.source.name);
        needed.extend(template.flat_map(|template| template.columns().iter().map(String::as_str)));
        let of_passages = ReadTable {
            oid: passages.oid,
            schema: &passages.schema,
            shown: passages.qualified(),
            needed: None,
        };
        vec![source(needed), of_passages]
    }
}

impl ReadTable<'_> {
    /// The statements that grant `role`, which is quoted and that of the session, what it lacks.
    async fn lacking(&self, session: &Session, role: &str) -> Result<Vec<String>, DatabaseError> {
        let question = "SELECT has_schema_privilege(c.relnamespace, 'USAGE'), has_table_privilege(c.oid, 'SELECT'), \
             ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = ANY ($2) \
                   AND NOT has_column_privilege(c.oid, a.attnum, 'SELECT') ORDER BY a.attnum) \
             FROM pg_class c WHERE c.oid = $1";
        let needed = self.needed.as_deref().unwrap_or_default();
        let row = session.query_one(question, &[&self.oid, &needed]).await;
        let (sees_schema, sees_all, unreadable): (bool, bool, Vec<String>) = row
            .and_then(|row| columns(&row))
            .map_err(DatabaseError::during("reading the rights of the role"))?;
        let mut grants = Vec::new();
        if !sees_schema {
            let schema = identifier(self.schema);
            grants.push(format!("GRANT USAGE ON SCHEMA {schema} TO {role};"));
        }
        let table = &self.shown;
        if !unreadable.is_empty() {
            let names: Vec<String> = unreadable.iter().map(|it| identifier(it)).collect();
            let names = names.join(", ");
            grants.push(format!("GRANT SELECT ({names}) ON {table} TO {role};"));
        } else if self.needed.is_none() && !sees_all {
            grants.push(format!("GRANT SELECT ON {table} TO {role};"));
        }
        Ok(grants)
    }
}
