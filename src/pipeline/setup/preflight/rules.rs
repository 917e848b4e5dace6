//! Rules of the target table that rewrite an UPDATE.
//!
//! A write-back is an UPDATE inside a WITH. PostgreSQL refuses it where a rule would add statements to it or replace it
//! (manual, "WITH Queries"; `rewriteHandler.c`), and its message does not name the rule. Rules for other statements do
//! no harm.

use crate::pipeline::error::JobError;
use crate::postgres::answer::columns;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// Checks that no rule ON UPDATE of the table with this OID applies to the statements of this session, or of one that
/// skips triggers. `table` is its name, quoted.
///
/// # Errors
/// Permanent, with the rule's name and the remedy; and the server's.
pub async fn check_rules(
    session: &Session,
    table: (u32, &str),
    skip_triggers: bool,
) -> Result<(), JobError> {
    check(session, table, &["2"], skip_triggers).await
}

/// [`check_rules`] for a table for passages, whose rows are inserted and deleted, too.
///
/// # Errors
/// As [`check_rules`].
pub async fn check_rules_of_passages(
    session: &Session,
    table: (u32, &str),
    skip_triggers: bool,
) -> Result<(), JobError> {
    check(session, table, &["2", "3", "4"], skip_triggers).await
}

/// `events` are values of `pg_rewrite.ev_type`: 2 is UPDATE, 3 INSERT, 4 DELETE.
async fn check(
    session: &Session,
    (oid, table): (u32, &str),
    events: &[&str],
    skip_triggers: bool,
) -> Result<(), JobError> {
    // A rule is enabled for the origin, for replicas, always or never, as triggers are.
    let found: Option<(String, String)> = session
        .query_opt(
            "SELECT rulename::text, CASE ev_type WHEN '2' THEN 'UPDATE' WHEN '3' THEN 'INSERT' ELSE 'DELETE' END \
             FROM pg_rewrite WHERE ev_class = $1 AND ev_type::text = ANY ($3::text[]) AND ev_enabled IN \
             ('A', CASE WHEN $2 OR current_setting('session_replication_role') = 'replica' THEN 'R' ELSE 'O' END) \
             ORDER BY rulename LIMIT 1",
            &[&oid, &skip_triggers, &events],
        )
        .await
        .and_then(|row| row.as_ref().map(columns).transpose())
        .map_err(DatabaseError::during("looking for rules of the target table"))?;
    let Some((rule, event)) = found else {
        return Ok(());
    };
    let rule = identifier(&rule);
    Err(JobError::permanent(format!(
        "the rule {rule} of {table} rewrites {event}, which PostgreSQL does not do for a write-back; run: ALTER TABLE \
         {table} DISABLE RULE {rule}; or set skip_triggers = true in the jobs table; a trigger can do what the rule does"
    )))
}
