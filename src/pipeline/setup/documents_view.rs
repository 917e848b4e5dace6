//! The view `<chunk_table>_documents`: passages with their rows, as long as they are those of the rows' content.
//!
//! A view with a reference to the table of the texts would make the users' `DROP TABLE`, `DROP COLUMN` and `ALTER COLUMN …
//! TYPE` fail. So the view selects from a function of the same name, whose body is a text, which depends on nothing. The
//! planner puts the body in the function's place (`inline_set_returning_function` in `clauses.c`), so that conditions and
//! ORDER BY reach the indexes of both tables. For that the function has one SELECT, is STABLE, not STRICT, has no SET and
//! no SECURITY DEFINER. It runs with the rights of who reads, and row level security applies to them.
//!
//! The function returns rows of a composite type. `RETURNS TABLE` would leave modifiers out, and the planner would take
//! `vector` and `vector(384)` for two expressions, of which an index on a cast has only the latter.
//!
//! Everything in the body is qualified: it runs under the search path of who reads.

use xxhash_rust::xxh3::xxh3_64;

use crate::pipeline::error::JobError;
use crate::pipeline::setup::chunk_table::Access;
use crate::pipeline::setup::ddl;
use crate::pipeline::setup::preflight::chunk_table::{Declaration, declare_columns};
use crate::pipeline::table::passages::{
    CHUNK, DOCUMENT_FINGERPRINT, END, PassageTable, SEQ, START,
};
use crate::pipeline::table::target::TargetTable;
use crate::postgres::answer::columns;
use crate::postgres::quote::{identifier, literal};
use crate::postgres::{DatabaseError, Session};

/// The longest name of an object, in bytes.
const MAX_NAME: usize = 63;
/// How the names of the views end, and of the functions.
const ENDING: &str = "_documents";
/// How the names of the types end.
const TYPE_ENDING: &str = "_document";
/// What the comments on view and function say, by which they are found to be ours. Kept on servers: it never changes.
const OURS: &str = "made by lantern-cli, which replaces it when the columns of the table change";

/// The name of the view of a table for passages, not quoted.
pub fn name(chunk_table: &str) -> String {
    with_ending(chunk_table, ENDING)
}

fn with_ending(name: &str, ending: &str) -> String {
    format!("{}{ending}", cut(name, MAX_NAME - ending.len()))
}

/// As much of a name as fits into this many bytes.
fn cut(name: &str, bytes: usize) -> &str {
    let mut end = name.len().min(bytes);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// Creates the view, or replaces it where it is another one than the columns of the tables ask for. Nothing of the job
/// depends on it, so the log says why where that is not possible.
///
/// # Errors
/// The connection is lost.
///
/// Cancellation safe: view and function are replaced in one transaction.
pub async fn provide(session: &Session, target: &TargetTable) -> Result<(), JobError> {
    let Some(passages) = &target.passages else {
        return Ok(());
    };
    let columns = declare_columns(session, target.oid).await?;
    let view = DocumentsView::new(target, passages, &columns);
    let replaced = view.replace(session, target.oid).await;
    match replaced {
        Err(error) if session.is_closed() => Err(error),
        Err(error) => {
            tracing::warn!(
                "the view {} is not made, which keeps the job from nothing: {error}",
                view.shown
            );
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// What the view is to be.
struct DocumentsView {
    /// Schema and name of the view, and of the function, quoted.
    shown: String,
    /// Not quoted.
    schema: String,
    /// Not quoted.
    name: String,
    /// The name of the type, not quoted.
    type_name: String,
    /// The columns of the type.
    attributes: String,
    body: String,
}

/// What is there under the name.
struct Found {
    /// The comment on a relation of the name, where there is one.
    relation: Option<String>,
    /// The comment on a function of the name without arguments, where there is one.
    function: Option<String>,
    /// The comment on a type of the type's name, where there is one.
    kind: Option<String>,
    /// Who may read the relation, as SQL.
    readers: Vec<String>,
}

impl DocumentsView {
    fn new(target: &TargetTable, passages: &PassageTable, columns: &[Declaration]) -> Self {
        let name = name(&passages.name);
        let destination = &target.destination;
        let of_passages = [
            (SEQ, "integer"),
            (START, "integer"),
            (END, "integer"),
            (CHUNK, "text"),
            (destination.name.as_str(), destination.type_name.as_str()),
        ];
        let is_taken = |name: &str| of_passages.iter().any(|(taken, _)| *taken == name);
        let mut names: Vec<String> = Vec::new();
        let mut selected = Vec::new();
        for column in columns {
            let mut called = column.name.clone();
            if is_taken(&called) {
                called = format!("{}_{called}", target.name);
                called.truncate(cut(&called, MAX_NAME).len());
            }
            // Another column of the table may have that name.
            let is_double = |called: &String| {
                is_taken(called)
                    || names.contains(called)
                    || *called != column.name && columns.iter().any(|other| other.name == *called)
            };
            let mut count = 1;
            while is_double(&called) {
                count += 1;
                let ending = format!("_{count}");
                called = format!("{}{ending}", cut(&called, MAX_NAME - ending.len()));
            }
            selected.push((format!("d.{}", identifier(&column.name)), column.sql()));
            names.push(called);
        }
        for (name, kind) in of_passages {
            selected.push((format!("p.{}", identifier(name)), kind.to_owned()));
            names.push(name.to_owned());
        }
        let attributes: Vec<String> = names
            .iter()
            .zip(&selected)
            .map(|(name, (_, kind))| format!("{} {kind}", identifier(name)))
            .collect();
        let list: Vec<&str> = selected.iter().map(|(value, _)| value.as_str()).collect();
        let (table, key) = (passages.qualified(), &target.key);
        // As a CASE the last condition has a plain estimate. An equality would seem to leave one row, and the planner
        // would compute all of them rather than follow the index of the vectors.
        let body = format!(
            "SELECT {list} FROM {table} p JOIN {source} d ON {of_row} \
             JOIN {table} f ON {first_of_row} AND f.{SEQ} OPERATOR(pg_catalog.=) 0 \
             WHERE CASE WHEN f.{DOCUMENT_FINGERPRINT} OPERATOR(pg_catalog.=) {expected} THEN true ELSE false END",
            list = list.join(", "),
            source = target.from_clause(),
            of_row = passages.is_of(key, "p", "d"),
            first_of_row = passages.is_of(key, "f", "d"),
            expected = passages.documents.expected(&target.source, "d"),
        );
        DocumentsView {
            shown: format!("{}.{}", identifier(&passages.schema), identifier(&name)),
            schema: passages.schema.clone(),
            name,
            type_name: with_ending(&passages.name, TYPE_ENDING),
            attributes: attributes.join(", "),
            body,
        }
    }

    /// The comment on the view.
    fn view_comment(&self) -> String {
        comment(&self.attributes)
    }

    /// The comment on the function.
    fn function_comment(&self) -> String {
        comment(&format!("{} {}", self.attributes, self.body))
    }

    async fn replace(&self, session: &Session, source: u32) -> Result<(), JobError> {
        let found = self.find(session).await?;
        let is_ours = |comment: &Option<String>| {
            comment
                .as_ref()
                .is_none_or(|comment| comment.starts_with(OURS))
        };
        let all = [&found.relation, &found.function, &found.kind];
        if !all.into_iter().all(is_ours) {
            return Err(JobError::permanent(
                "something else of this name is there; rename that, and restart the job",
            ));
        }
        let has_columns = found.relation.as_ref() == Some(&self.view_comment());
        if has_columns && found.function.as_ref() == Some(&self.function_comment()) {
            return Ok(());
        }
        let script = match has_columns && found.function.is_some() {
            true => self.replace_function(),
            false => {
                let access = Access::read(session, source).await?;
                self.create(&access, &found.readers)
            }
        };
        let doing = format!("creating the view {}", self.shown);
        ddl::run_described(session, &script, &doing).await?;
        tracing::info!("created the view {}", self.shown);
        Ok(())
    }

    /// The columns are those of before: only what is compared is another one.
    fn replace_function(&self) -> String {
        format!(
            "CREATE OR REPLACE {}; {}",
            self.function(),
            self.comment_on_function()
        )
    }

    fn function(&self) -> String {
        format!(
            "FUNCTION {}() RETURNS SETOF {} LANGUAGE sql STABLE AS {}",
            self.shown,
            self.shown_type(),
            literal(&self.body)
        )
    }

    fn shown_type(&self) -> String {
        format!(
            "{}.{}",
            identifier(&self.schema),
            identifier(&self.type_name)
        )
    }

    fn comment_on_function(&self) -> String {
        format!(
            "COMMENT ON FUNCTION {}() IS {}",
            self.shown,
            literal(&self.function_comment())
        )
    }

    /// `readers` may read the view that is replaced.
    fn create(&self, access: &Access, readers: &[String]) -> String {
        let (shown, function) = (&self.shown, format!("{}()", self.shown));
        let kind = self.shown_type();
        let mut script = format!(
            "DROP VIEW IF EXISTS {shown}; DROP FUNCTION IF EXISTS {function}; DROP TYPE IF EXISTS {kind}; \
             CREATE TYPE {kind} AS ({attributes}); COMMENT ON TYPE {kind} IS {of_view}; CREATE {create}; {comment}; \
             CREATE VIEW {shown} AS SELECT * FROM {function}; COMMENT ON VIEW {shown} IS {of_view}",
            attributes = self.attributes,
            create = self.function(),
            comment = self.comment_on_function(),
            of_view = literal(&self.view_comment()),
        );
        script += &access.grant_select(shown);
        script += &access.grant_execute(&function);
        if !readers.is_empty() {
            let readers = readers.join(", ");
            script += &format!(
                "; GRANT SELECT ON {shown} TO {readers}; GRANT EXECUTE ON FUNCTION {function} TO {readers}"
            );
        }
        script += &access.give("TYPE", &kind);
        script += &access.give("FUNCTION", &function);
        script += &access.give("VIEW", shown);
        script
    }

    async fn find(&self, session: &Session) -> Result<Found, DatabaseError> {
        let (relation, function, kind, readers) = session
            .query_one(FIND, &[&self.schema, &self.name, &self.type_name])
            .await
            .and_then(|row| columns::<FoundColumns>(&row))
            .map_err(DatabaseError::during("looking for the view of documents"))?;
        Ok(Found {
            relation,
            function,
            kind,
            readers,
        })
    }
}

/// Comments on relation, function and type, and the readers of the relation.
type FoundColumns = (Option<String>, Option<String>, Option<String>, Vec<String>);

const FIND: &str = "SELECT CASE WHEN c.oid IS NOT NULL THEN COALESCE(obj_description(c.oid, 'pg_class'), '') END, \
       CASE WHEN p.oid IS NOT NULL THEN COALESCE(obj_description(p.oid, 'pg_proc'), '') END, \
       CASE WHEN t.oid IS NOT NULL THEN COALESCE(obj_description(t.oid, 'pg_type'), '') END, \
       ARRAY(SELECT DISTINCT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END \
             FROM aclexplode(c.relacl) x WHERE x.privilege_type = 'SELECT' AND x.grantee <> c.relowner ORDER BY 1) \
     FROM (VALUES (1)) one LEFT JOIN pg_namespace n ON n.nspname = $1 \
     LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = $2 \
     LEFT JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = $2 AND p.pronargs = 0 \
     LEFT JOIN pg_type t ON t.typnamespace = n.oid AND t.typname = $3";

fn comment(definition: &str) -> String {
    format!("{OURS} [{:016x}]", xxh3_64(definition.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_view_is_never_longer_than_the_server_keeps() {
        assert_eq!(name("docs_chunks"), "docs_chunks_documents");
        let long = name(&"ü".repeat(31));
        assert!(
            long.len() <= MAX_NAME && long.ends_with("ü_documents"),
            "{long}"
        );
    }
}
