//! The column for the vectors: checked where it exists, created where it does not.

use crate::jobs::Definition;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::ddl;
use crate::pipeline::setup::definition::Names;
use crate::pipeline::setup::preflight::relation::Column;
use crate::pipeline::table::target::DestinationColumn;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

pub(super) fn existing_destination(
    names: &Names,
    column: &Column,
    dimensions: usize,
) -> Result<DestinationColumn, JobError> {
    let table = format!("{}.{}", identifier(&names.schema), identifier(&names.table));
    let name = identifier(&column.name);
    if column.generated {
        return Err(JobError::permanent(format!(
            "{table}.{name} (dst_column) is a generated column, which nobody can write"
        )));
    }
    let declared = match (column.base_type.as_str(), column.element_type.as_deref()) {
        ("vector" | "halfvec", _) => (column.modifier > 0).then_some(column.modifier),
        (_, Some("float4" | "float8")) => None,
        _ => {
            return Err(JobError::permanent(format!(
                "{table}.{name} (dst_column) has the type {}; vectors go into vector, halfvec, REAL[] or DOUBLE PRECISION[]",
                column.declared
            )));
        }
    };
    if let Some(declared) = declared.filter(|declared| usize::try_from(*declared) != Ok(dimensions))
    {
        return Err(JobError::permanent(format!(
            "{table}.{name} holds vectors of {declared} dimensions, but the model {} makes {dimensions}; choose another model, or run: \
             ALTER TABLE {table} ALTER COLUMN {name} TYPE {}({dimensions}) USING NULL;",
            names.model, column.base_type
        )));
    }
    let vector_schema = matches!(column.base_type.as_str(), "vector" | "halfvec")
        .then(|| column.base_schema.clone());
    Ok(DestinationColumn {
        name: column.name.clone(),
        type_name: column.declared.clone(),
        vector_schema,
    })
}

/// Whether the role may write the column; only whoever writes has to ask.
pub(super) async fn check_writable(
    session: &Session,
    names: &Names,
    column: &Column,
    role_in_job: &str,
) -> Result<(), JobError> {
    if column.writable {
        return Ok(());
    }
    let role: String = session
        .query_one("SELECT current_user::text", &[])
        .await
        .map_err(DatabaseError::during("reading the role"))?
        .get(0);
    let table = format!("{}.{}", identifier(&names.schema), identifier(&names.table));
    let name = identifier(&column.name);
    Err(JobError::permanent(format!(
        "the role {role} may not write {table}.{name} ({role_in_job}); run as its owner: GRANT UPDATE ({name}) ON {table} TO {};",
        identifier(&role)
    )))
}

pub(super) async fn create_destination(
    session: &Session,
    names: &Names,
    definition: &Definition,
    dimensions: usize,
) -> Result<DestinationColumn, JobError> {
    let table = format!("{}.{}", identifier(&names.schema), identifier(&names.table));
    let name = identifier(&names.destination);
    let extension: Option<String> = session
        .query_opt(
            "SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'",
            &[],
        )
        .await
        .map_err(DatabaseError::during("looking for pgvector"))?
        .map(|row| row.get(0));
    let type_name = match (definition.column_type.as_deref(), &extension) {
        (Some(asked), _) => asked_type(asked, extension.as_deref(), dimensions)?,
        (None, Some(schema)) => format!("{}.vector({dimensions})", identifier(schema)),
        (None, None) => "real[]".to_string(),
    };
    let statement = format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {type_name}");
    ddl::run(session, &statement)
        .await
        .map_err(|error| error.with_remedy(format!("create the column yourself: {statement};")))?;
    tracing::info!("created the column {table}.{name} {type_name}");
    // As the server spells it, which is what it will be compared with.
    let type_name: String = session
        .query_one(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute \
             WHERE attrelid = $1::text::regclass AND attname = $2",
            &[&table, &names.destination],
        )
        .await
        .map_err(DatabaseError::during("reading the new column"))?
        .get(0);
    let vector_schema = extension.filter(|_| type_name.contains("vec"));
    Ok(DestinationColumn {
        name: names.destination.clone(),
        type_name,
        vector_schema,
    })
}

/// `column_type` of the jobs table is a type name, never SQL: only the known ones are taken.
fn asked_type(asked: &str, extension: Option<&str>, dimensions: usize) -> Result<String, JobError> {
    let normal = asked.trim().to_ascii_lowercase().replace(' ', "");
    let (base, modifier) = match normal.split_once('(') {
        Some((base, modifier)) => (base, modifier.strip_suffix(')')),
        None => (normal.as_str(), None),
    };
    if let Some(modifier) = modifier.filter(|modifier| *modifier != dimensions.to_string()) {
        return Err(JobError::permanent(format!(
            "the job's column_type is {asked}, but the model makes {dimensions} dimensions, not {modifier}"
        )));
    }
    match base {
        "real[]" | "float4[]" => Ok("real[]".into()),
        "doubleprecision[]" | "float8[]" => Ok("double precision[]".into()),
        "vector" | "halfvec" => match extension {
            Some(schema) => Ok(format!("{}.{base}({dimensions})", identifier(schema))),
            None => Err(JobError::permanent(format!(
                "the job's column_type is {asked}, but pgvector is not installed in the target database; run: CREATE EXTENSION vector; or set column_type to REAL[]"
            ))),
        },
        _ => Err(JobError::permanent(format!(
            "the job's column_type {asked:?} is not known; use vector, halfvec, REAL[] or DOUBLE PRECISION[]"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_type_is_a_type_and_never_sql() {
        assert_eq!(asked_type("REAL[]", None, 3).unwrap(), "real[]");
        assert_eq!(
            asked_type("double precision[]", None, 3).unwrap(),
            "double precision[]"
        );
        assert_eq!(
            asked_type("Vector(3)", Some("ext"), 3).unwrap(),
            "\"ext\".vector(3)"
        );
        assert!(asked_type("vector(4)", Some("ext"), 3).is_err());
        assert!(
            asked_type("vector", None, 3)
                .unwrap_err()
                .to_string()
                .contains("CREATE EXTENSION vector")
        );
        assert!(asked_type("int; DROP TABLE x", None, 3).is_err());
    }
}
