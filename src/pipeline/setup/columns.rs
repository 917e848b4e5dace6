//! Creates the columns of a job that its table lacks: the destination and the fingerprint.
//!
//! Adding a column without a default changes the catalog only and rewrites no row (PostgreSQL manual, "ALTER TABLE"),
//! but it takes the strongest lock for a moment, so it goes through [`ddl`].

use crate::pipeline::error::JobError;
use crate::pipeline::setup::ddl;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::table::target::DestinationColumn;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// The type of the column for vectors of this many dimensions, where it has to be created: that of `column_type` of the
/// jobs table. Without one it is a `vector` where pgvector is installed, and else a `real[]`. Where the dimensions of
/// the model are not known yet, the type does not say them.
///
/// # Errors
/// Permanent ones for a type that is not known, or that needs pgvector; and the server's.
pub async fn destination_type(
    session: &Session,
    column_type: Option<&str>,
    dimensions: Option<usize>,
) -> Result<String, JobError> {
    let extension = vector_schema(session).await?;
    match (column_type, extension.as_deref()) {
        (Some(requested), extension) => requested_type(requested, extension, dimensions),
        (None, Some(schema)) => Ok(with_dimensions(
            &format!("{}.vector", identifier(schema)),
            dimensions,
        )),
        (None, None) => Ok("real[]".to_owned()),
    }
}

/// [`destination_type`], if the role may use the schema that it is in. Without that right not even the owner of the table
/// can create the column.
///
/// # Errors
/// As [`destination_type`]; and a permanent one with the GRANT.
pub async fn usable_type(
    session: &Session,
    column_type: Option<&str>,
    dimensions: Option<usize>,
) -> Result<String, JobError> {
    let type_name = destination_type(session, column_type, dimensions).await?;
    let Some(schema) = vector_schema(session).await? else {
        return Ok(type_name);
    };
    let quoted = identifier(&schema);
    let is_there = type_name.starts_with(&format!("{quoted}."));
    if !is_there || may_use_schema(session, &schema).await? {
        return Ok(type_name);
    }
    let role = session.role().await?;
    Err(JobError::permanent(format!(
        "the column for the vectors has the type {type_name}, and the role {role} may not use the schema {quoted}; \
         run as its owner: GRANT USAGE ON SCHEMA {quoted} TO {};",
        identifier(&role)
    )))
}

async fn may_use_schema(session: &Session, schema: &str) -> Result<bool, DatabaseError> {
    session
        .query_one("SELECT has_schema_privilege($1::text, 'USAGE')", &[&schema])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during("looking at the schema of pgvector"))
}

/// The column for vectors of this many dimensions, as [`create_destination`] would create it.
///
/// # Errors
/// As [`usable_type`].
pub async fn planned_destination(
    session: &Session,
    names: &TargetNames,
    column_type: Option<&str>,
    dimensions: usize,
) -> Result<DestinationColumn, JobError> {
    let type_name = usable_type(session, column_type, Some(dimensions)).await?;
    let of_pgvector = ["vector", "halfvec"]
        .into_iter()
        .find(|base| type_name.ends_with(&with_dimensions(&format!(".{base}"), Some(dimensions))));
    let vector_schema = match of_pgvector {
        Some(_) => vector_schema(session).await?,
        None => None,
    };
    Ok(DestinationColumn {
        name: names.destination.clone(),
        base_type: of_pgvector.unwrap_or(&type_name).to_owned(),
        type_name,
        dimensions: of_pgvector.and_then(|_| u32::try_from(dimensions).ok()),
        vector_schema,
        exists: false,
    })
}

/// Creates the column for vectors of this many dimensions.
///
/// # Errors
/// As [`usable_type`]; and the server's, with the statement to run by hand.
pub async fn create_destination(
    session: &Session,
    names: &TargetNames,
    column_type: Option<&str>,
    dimensions: usize,
) -> Result<(), JobError> {
    let type_name = usable_type(session, column_type, Some(dimensions)).await?;
    create(session, names, &names.destination, &type_name).await
}

/// The type of the column for fingerprints.
pub const FINGERPRINT_TYPE: &str = "pg_catalog.uuid";

/// Creates the column `name` for fingerprints.
///
/// # Errors
/// The server's, with the statement to run by hand.
pub async fn create_fingerprint(
    session: &Session,
    names: &TargetNames,
    name: &str,
) -> Result<(), JobError> {
    create(session, names, name, FINGERPRINT_TYPE).await
}

async fn create(
    session: &Session,
    names: &TargetNames,
    column: &str,
    type_name: &str,
) -> Result<(), JobError> {
    let statement = add_column(names, column, type_name);
    ddl::run(session, &statement)
        .await
        .map_err(|error| error.with_remedy(format!("create the column yourself: {statement};")))?;
    tracing::info!(
        "created the column {} {type_name}",
        names.qualified_column(column)
    );
    Ok(())
}

/// The statement that adds a column, without its semicolon.
pub fn add_column(names: &TargetNames, column: &str, type_name: &str) -> String {
    format!(
        "ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} {type_name}",
        names.qualified(),
        identifier(column)
    )
}

fn with_dimensions(type_name: &str, dimensions: Option<usize>) -> String {
    match dimensions {
        Some(dimensions) => format!("{type_name}({dimensions})"),
        None => type_name.to_owned(),
    }
}

/// The schema in which pgvector is installed.
///
/// # Errors
/// The server's.
pub async fn vector_schema(session: &Session) -> Result<Option<String>, DatabaseError> {
    session
        .query_opt(
            "SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'",
            &[],
        )
        .await
        .and_then(|row| row.map(|row| row.try_get(0)).transpose())
        .map_err(DatabaseError::during("looking for pgvector"))
}

/// The SQL for `column_type` of the jobs table. It is the name of a type and never SQL, so only known names are
/// accepted.
fn requested_type(
    requested: &str,
    extension: Option<&str>,
    dimensions: Option<usize>,
) -> Result<String, JobError> {
    let normal = requested.trim().to_ascii_lowercase().replace(' ', "");
    let (base, modifier) = match normal.split_once('(') {
        Some((base, modifier)) => (base, modifier.strip_suffix(')')),
        None => (normal.as_str(), None),
    };
    if let Some(modifier) = modifier
        && let Some(dimensions) = dimensions
        && modifier != dimensions.to_string()
    {
        return Err(JobError::permanent(format!(
            "the job's column_type is {requested}, but the model makes {dimensions} dimensions, not {modifier}"
        )));
    }
    match (base, extension) {
        ("real[]" | "float4[]", _) => Ok("real[]".into()),
        ("doubleprecision[]" | "float8[]", _) => Ok("double precision[]".into()),
        ("vector" | "halfvec", Some(schema)) => {
            let type_name = format!("{}.{base}", identifier(schema));
            Ok(with_dimensions(&type_name, dimensions))
        }
        ("vector" | "halfvec", None) => Err(JobError::permanent(format!(
            "the job's column_type is {requested}, but pgvector is not installed in the target database; \
             run: CREATE EXTENSION vector; or set column_type to REAL[]"
        ))),
        _ => Err(JobError::permanent(format!(
            "the job's column_type {requested:?} is not known; use vector, halfvec, REAL[] or DOUBLE PRECISION[]"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_type_is_a_type_and_never_sql() {
        let sql = |requested, extension| requested_type(requested, extension, Some(3));
        assert_eq!(sql("REAL[]", None).unwrap(), "real[]");
        assert_eq!(
            sql("double precision[]", None).unwrap(),
            "double precision[]"
        );
        assert_eq!(sql("Vector(3)", Some("ext")).unwrap(), "\"ext\".vector(3)");
        assert!(sql("vector(4)", Some("ext")).is_err());
        assert!(sql("int; DROP TABLE x", None).is_err());
        let refused = sql("vector", None).unwrap_err().to_string();
        assert!(refused.contains("CREATE EXTENSION vector"), "{refused}");
    }
}
