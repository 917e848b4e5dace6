//! Whose code runs with the rights of the daemon's role, and who could gain rights by it.
//!
//! An UPDATE runs the triggers of its table, its CHECK constraints, the expressions of generated columns and of indexes,
//! the constraints of domains, and casts between types, as the role that updates. So the owner of the table, or of a function
//! behind one of these, may do whatever that role may: that write-backs then run as the table's owner
//! ([`owner_role`](crate::pipeline::write::owner_role)) keeps it from mistakes, not from malice, since such code can
//! `RESET ROLE`. That is harmless while the role has no more rights than the job needs, and a way to become superuser
//! where the role is one.
//!
//! Functions that such functions call are not looked at, nor are rights on other tables. Extensions belong to the role
//! that has created them.

use crate::pipeline::error::JobError;
use crate::postgres::answer::all;
use crate::postgres::{DatabaseError, Session};

/// What to do about a role whose rights others could gain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PowerfulRoles {
    /// Say so.
    #[default]
    Warn,
    /// Fail.
    Refuse,
}

/// The owners of code that an UPDATE of the table `$1`, schema and name quoted, runs, with the powers of this session's role
/// that they lack, and what is theirs.
///
/// A power is an attribute, or the membership in a role of the system that reaches beyond its own tables (PostgreSQL
/// manual, "Role Attributes" and "Predefined Roles"). A member of a role has its powers too, by SET ROLE. The role that has
/// logged in counts beside the current one, for `RESET ROLE`. REPLICATION does not count, since every job needs it.
///
/// The table is looked up in the catalog: `to_regclass` fails where the role may not use the schema, before another point
/// names that right.
const EXPOSED: &str = "WITH RECURSIVE relations AS ( \
       SELECT c.oid FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid \
       WHERE n.nspname = (parse_ident($1))[1] AND c.relname = (parse_ident($1))[2] \
       UNION \
       SELECT next.oid FROM relations r CROSS JOIN LATERAL ( \
         SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = r.oid \
         UNION ALL SELECT i.inhparent FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition \
         WHERE i.inhrelid = r.oid) AS next(oid)), \
     types AS ( \
       SELECT a.atttypid AS oid FROM relations r \
       JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped \
       UNION \
       SELECT next.oid FROM types y JOIN pg_type t ON t.oid = y.oid CROSS JOIN LATERAL ( \
         SELECT t.typbasetype UNION ALL SELECT t.typelem \
         UNION ALL SELECT a.atttypid FROM pg_attribute a \
         WHERE a.attrelid = t.typrelid AND t.typrelid <> 0 AND a.attnum > 0 AND NOT a.attisdropped) AS next(oid) \
       WHERE next.oid <> 0), \
     expressions AS ( \
       SELECT 'pg_trigger'::regclass AS class, t.oid, format('the trigger %I of %s', t.tgname, t.tgrelid::regclass) AS place \
       FROM relations r JOIN pg_trigger t ON t.tgrelid = r.oid \
       WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype::int & 16 <> 0 \
       UNION ALL \
       SELECT 'pg_constraint'::regclass, c.oid, format('the constraint %I of %s', c.conname, c.conrelid::regclass) \
       FROM relations r JOIN pg_constraint c ON c.conrelid = r.oid \
       UNION ALL \
       SELECT 'pg_constraint'::regclass, c.oid, format('the constraint %I of the domain %s', c.conname, c.contypid::regtype) \
       FROM types y JOIN pg_constraint c ON c.contypid = y.oid \
       UNION ALL \
       SELECT 'pg_attrdef'::regclass, d.oid, format('the default or generated column %I of %s', a.attname, d.adrelid::regclass) \
       FROM relations r JOIN pg_attrdef d ON d.adrelid = r.oid \
       JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum \
       UNION ALL \
       SELECT 'pg_class'::regclass, i.indexrelid, format('the index %s', i.indexrelid::regclass) \
       FROM relations r JOIN pg_index i ON i.indrelid = r.oid \
       UNION ALL \
       SELECT 'pg_cast'::regclass, c.oid, format('the cast from %s to %s', c.castsource::regtype, c.casttarget::regtype) \
       FROM types y JOIN pg_cast c ON y.oid IN (c.castsource, c.casttarget)), \
     functions AS ( \
       SELECT e.place, d.refobjid AS oid FROM expressions e \
       JOIN pg_depend d ON d.classid = e.class AND d.objid = e.oid AND d.refclassid = 'pg_proc'::regclass \
       UNION \
       SELECT e.place, o.oprcode::oid FROM expressions e \
       JOIN pg_depend d ON d.classid = e.class AND d.objid = e.oid AND d.refclassid = 'pg_operator'::regclass \
       JOIN pg_operator o ON o.oid = d.refobjid), \
     code AS ( \
       SELECT c.relowner AS owner, format('the table %s', c.oid::regclass) AS what \
       FROM relations r JOIN pg_class c ON c.oid = r.oid \
       UNION \
       SELECT t.typowner, format('the domain %s', t.oid::regtype) \
       FROM types y JOIN pg_type t ON t.oid = y.oid WHERE t.typtype = 'd' \
       UNION \
       SELECT p.proowner, format('the function %s in %s', p.oid::regprocedure, f.place) \
       FROM functions f JOIN pg_proc p ON p.oid = f.oid), \
     powers AS ( \
       SELECT r.oid AS holder, v.name, v.place FROM pg_roles r CROSS JOIN LATERAL (VALUES \
         ('superuser', 1, r.rolsuper), ('CREATEROLE', 2, r.rolcreaterole), ('CREATEDB', 3, r.rolcreatedb), \
         ('BYPASSRLS', 4, r.rolbypassrls), \
         (r.rolname::text, 5, r.rolname IN ('pg_execute_server_program', 'pg_write_server_files', \
           'pg_read_server_files', 'pg_read_all_data', 'pg_write_all_data', 'pg_maintain', 'pg_checkpoint', \
           'pg_create_subscription', 'pg_use_reserved_connections', 'rds_superuser', 'rdsadmin', 'cloudsqlsuperuser', \
           'alloydbsuperuser', 'azure_pg_admin', 'azure_superuser'))) AS v(name, place, has) WHERE v.has), \
     ours AS ( \
       SELECT DISTINCT name, place FROM powers \
       WHERE pg_has_role(session_user, holder, 'MEMBER') OR pg_has_role(current_user, holder, 'MEMBER')) \
     SELECT pg_get_userbyid(c.owner)::text, \
            (SELECT array_agg(o.name ORDER BY o.place, o.name) FROM ours o WHERE NOT EXISTS ( \
               SELECT FROM powers p WHERE p.name = o.name AND pg_has_role(c.owner, p.holder, 'MEMBER'))), \
            array_agg(DISTINCT c.what), current_user::text \
     FROM code c GROUP BY c.owner \
     HAVING EXISTS (SELECT FROM ours o WHERE NOT EXISTS ( \
       SELECT FROM powers p WHERE p.name = o.name AND pg_has_role(c.owner, p.holder, 'MEMBER'))) \
     ORDER BY 1";

/// How much of what belongs to one owner is named.
const MAX_NAMED: usize = 3;

/// Who could gain which rights of this session's role by code that an UPDATE of the table runs, in words; `None` if
/// nobody could. `table` is its name, quoted; one that does not exist runs nothing.
///
/// # Errors
/// The server's.
///
/// Cancellation safe: it only reads.
pub async fn find_exposure(
    session: &Session,
    table: &str,
) -> Result<Option<String>, DatabaseError> {
    let found: Vec<(String, Vec<String>, Vec<String>, String)> = session
        .query(EXPOSED, &[&table])
        .await
        .and_then(|rows| all(&rows))
        .map_err(DatabaseError::during(format!(
            "asking whose code an UPDATE of {table} runs"
        )))?;
    let Some((_, _, _, role)) = found.first() else {
        return Ok(None);
    };
    let owners: Vec<String> = found
        .iter()
        .map(|(owner, powers, things, _)| gain(owner, powers, things))
        .collect();
    Ok(Some(format!(
        "an UPDATE of {table} runs code of others with the rights of the role {role}, which has more rights than they: {}",
        owners.join("; ")
    )))
}

/// Who gains what by what.
fn gain(owner: &str, powers: &[String], things: &[String]) -> String {
    // A superuser has the other powers too.
    let powers = match powers.iter().any(|power| power == "superuser") {
        true => "become a superuser".to_owned(),
        false => format!("use {}", powers.join(", ")),
    };
    let named = things.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>();
    let more = things.len().saturating_sub(MAX_NAMED);
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{owner} could {powers}, by {}{more}", named.join(", "))
}

/// What to do about an exposed target table.
pub const TARGET_REMEDY: &str = "let db_connection, or write_connection alone, name a role that has no more rights than \
                                 the job needs: lantern-cli sql role prints a script that creates one";

/// Fails where others could gain rights, if that is to be refused; else returns who could, for the log.
///
/// # Errors
/// Permanent, with the remedy; and the server's.
pub async fn check_exposure(
    session: &Session,
    table: &str,
    powerful: PowerfulRoles,
) -> Result<Option<String>, JobError> {
    let Some(exposure) = find_exposure(session, table).await? else {
        return Ok(None);
    };
    let message = format!("{exposure}; {TARGET_REMEDY}");
    match powerful {
        PowerfulRoles::Warn => Ok(Some(message)),
        PowerfulRoles::Refuse => Err(JobError::permanent(format!(
            "{message} (refused because of --refuse-superuser)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gain_names_the_greatest_right_and_the_first_things() {
        let text = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let things = text(&["the table a", "the function b() in the index c"]);
        assert_eq!(
            gain("app", &text(&["superuser", "CREATEDB"]), &things),
            "app could become a superuser, by the table a, the function b() in the index c"
        );
        let things = text(&["1", "2", "3", "4", "5"]);
        assert_eq!(
            gain("app", &text(&["CREATEDB", "BYPASSRLS"]), &things),
            "app could use CREATEDB, BYPASSRLS, by 1, 2, 3 and 2 more"
        );
    }
}
