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

impl Lacking<'_> {
    /// Who asked, the statements that grant what is missing, and the way around. Ends the failed transaction.
    ///
    /// # Errors
    /// The server's.
    pub async fn remedy(&self, session: &Session) -> Result<String, DatabaseError> {
        let rollback = session.batch_execute("ROLLBACK").await;
        rollback.map_err(DatabaseError::during("ending the search"))?;
        let role = identifier(&session.role().await?);
        let (sees_schema, unreadable) = self.look(session).await?;
        let mut grants = Vec::new();
        if !sees_schema {
            let schema = identifier(&self.target.schema);
            grants.push(format!("GRANT USAGE ON SCHEMA {schema} TO {role};"));
        }
        if !unreadable.is_empty() {
            let names: Vec<String> = unreadable.iter().map(|it| identifier(it)).collect();
            let (names, table) = (names.join(", "), self.target.qualified());
            grants.push(format!("GRANT SELECT ({names}) ON {table} TO {role};"));
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

    /// Whether the role may use the schema, and the columns that it may not read.
    async fn look(&self, session: &Session) -> Result<(bool, Vec<String>), DatabaseError> {
        let mut needed: Vec<&str> = vec![&self.target.destination.name];
        if let Some(columns) = self.columns {
            needed.extend(columns.names().map(String::as_str));
        }
        let question = "SELECT has_schema_privilege(c.relnamespace, 'USAGE'), \
             ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = ANY ($2) \
                   AND NOT has_column_privilege(c.oid, a.attnum, 'SELECT') ORDER BY a.attnum) \
             FROM pg_class c WHERE c.oid = $1";
        let row = session
            .query_one(question, &[&self.target.oid, &needed])
            .await;
        row.and_then(|row| columns(&row))
            .map_err(DatabaseError::during("reading the rights of the role"))
    }
}
