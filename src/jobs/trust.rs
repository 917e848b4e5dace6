//! Whose code runs when the daemon uses the jobs table and the failures table.
//!
//! Triggers of a table, and functions in the query of a view, run with the rights of the role that uses it: of the daemon's
//! role. The owner of the jobs table is trusted with that. Others are not, and need not be its owner to get there: a role
//! with the privilege TRIGGER can add a trigger, and a role that may create tables in the schema can create the failures
//! table before the daemon does (every role may, in `public` before PostgreSQL 15).
//!
//! A role may do what ours may anyway if it is a superuser, or a member of ours.

use super::table_error::JobsTableError;
use crate::postgres::answer::{all, columns};
use crate::postgres::{DatabaseError, Session};

/// An object of a third party.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outsider {
    /// The object, with where it is used.
    pub what: String,
    /// Its owner.
    pub owner: String,
    /// What to do about it.
    pub remedy: String,
}

/// `tgtype` of triggers that fire for UPDATE, and for INSERT, UPDATE and DELETE (`pg_trigger.h`).
const ON_UPDATE: i32 = 16;
const ON_ANY_CHANGE: i32 = 4 | 8 | 16;

/// The tables and functions that the use of the relation `$1` involves and that belong neither to the owner of the jobs
/// table `$2`, nor to us, nor to a role that may do what ours may. `$3` are the triggers that count, as a mask.
const OUTSIDERS: &str = "WITH RECURSIVE relations AS ( \
       SELECT $1::oid AS oid \
       UNION \
       SELECT below.oid FROM relations r CROSS JOIN LATERAL ( \
         SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = r.oid \
         UNION ALL SELECT d.refobjid FROM pg_rewrite w JOIN pg_depend d \
           ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass \
         WHERE w.ev_class = r.oid) AS below(oid)), \
     used AS ( \
       SELECT format('the %s %s', CASE c.relkind WHEN 'v' THEN 'view' ELSE 'table' END, c.oid::regclass) AS what, \
              c.relowner AS owner, \
              format('ALTER %s %s OWNER TO %I;', CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, c.oid::regclass, \
                     j.rolname) AS remedy \
       FROM relations r JOIN pg_class c ON c.oid = r.oid CROSS JOIN jobs j \
       WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') \
       UNION ALL \
       SELECT format('the function %s of the trigger %I of %s', t.tgfoid::regprocedure, t.tgname, t.tgrelid::regclass), \
              p.proowner, \
              format('DROP TRIGGER %I ON %s; or ALTER FUNCTION %s OWNER TO %I;', t.tgname, t.tgrelid::regclass, \
                     p.oid::regprocedure, j.rolname) \
       FROM relations r JOIN pg_trigger t ON t.tgrelid = r.oid JOIN pg_proc p ON p.oid = t.tgfoid CROSS JOIN jobs j \
       WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype::int & $3 <> 0 \
       UNION ALL \
       SELECT format('the function %s in %s', p.oid::regprocedure, r.oid::regclass), p.proowner, \
              format('ALTER FUNCTION %s OWNER TO %I;', p.oid::regprocedure, j.rolname) \
       FROM relations r JOIN pg_rewrite w ON w.ev_class = r.oid \
       JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_proc'::regclass \
       JOIN pg_proc p ON p.oid = d.refobjid CROSS JOIN jobs j), \
     jobs AS (SELECT c.relowner, o.rolname FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner WHERE c.oid = $2) \
     SELECT u.what, pg_get_userbyid(u.owner)::text, u.remedy FROM used u CROSS JOIN jobs j \
     WHERE u.owner <> j.relowner AND pg_get_userbyid(u.owner) <> current_user AND NOT pg_has_role(u.owner, session_user, 'MEMBER') \
     ORDER BY u.what LIKE 'the function%', u.what";

/// Fails where the use of the jobs table runs code of a third party.
///
/// # Errors
/// [`JobsTableError::OthersCode`], and the server's.
pub(super) async fn check_jobs_table(
    session: &Session,
    table: &str,
    oid: u32,
) -> Result<(), JobsTableError> {
    let outsiders = find(session, oid, oid, ON_UPDATE).await?;
    let Some(Outsider {
        what,
        owner,
        remedy,
    }) = outsiders.into_iter().next()
    else {
        return Ok(());
    };
    Err(JobsTableError::OthersCode {
        table: table.to_owned(),
        what,
        owner,
        role: session.role().await?,
        remedy,
    })
}

/// The failures table, as it is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// There is none.
    Missing,
    /// It can be used.
    Usable,
    /// It cannot: why, and what to do.
    Unusable(String),
}

/// Looks at the failures table of this name, quoted, which belongs to the jobs table `jobs`.
///
/// # Errors
/// The server's.
pub(super) async fn look_at_failures(
    session: &Session,
    table: &str,
    jobs: u32,
) -> Result<Found, DatabaseError> {
    let found: Option<(u32, i8)> = session
        .query_opt(
            "SELECT oid, relkind FROM pg_class WHERE oid = to_regclass($1)",
            &[&table],
        )
        .await
        .and_then(|row| row.as_ref().map(columns).transpose())
        .map_err(DatabaseError::during(format!("looking for {table}")))?;
    let Some((oid, kind)) = found else {
        return Ok(Found::Missing);
    };
    if kind.cast_unsigned() != b'r' {
        return Ok(Found::Unusable(format!(
            "{table} is not an ordinary table, so refused rows cannot be recorded in it; rename it, and run \
             lantern-cli sql jobs | psql as the owner of the jobs table"
        )));
    }
    let outsiders = find(session, oid, jobs, ON_ANY_CHANGE).await?;
    Ok(match outsiders.into_iter().next() {
        None => Found::Usable,
        Some(Outsider {
            what,
            owner,
            remedy,
        }) => Found::Unusable(format!(
            "{table} is not used: {what} belongs to the role {owner}, and its code would run with the rights of the \
             daemon's role. Only the owner of the jobs table, the daemon's role and superusers may own it; if {owner} is \
             to be trusted, run: {remedy} otherwise: DROP TABLE {table};"
        )),
    })
}

async fn find(
    session: &Session,
    relation: u32,
    jobs: u32,
    triggers: i32,
) -> Result<Vec<Outsider>, DatabaseError> {
    let found: Vec<(String, String, String)> = session
        .query(OUTSIDERS, &[&relation, &jobs, &triggers])
        .await
        .and_then(|rows| all(&rows))
        .map_err(DatabaseError::during(
            "asking whose code runs with the jobs table",
        ))?;
    let outsider = |(what, owner, remedy)| Outsider {
        what,
        owner,
        remedy,
    };
    Ok(found.into_iter().map(outsider).collect())
}
