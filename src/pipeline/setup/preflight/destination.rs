//! The column for the vectors, where it exists.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::relation::TargetColumn;
use crate::pipeline::table::target::DestinationColumn;
use crate::postgres::quote::identifier;

/// The destination of a job, if the column can hold vectors of this many dimensions; of any, where those of the model
/// are not known.
///
/// # Errors
/// Permanent ones with the remedy.
pub fn usable_destination(
    names: &TargetNames,
    column: &TargetColumn,
    dimensions: Option<usize>,
) -> Result<DestinationColumn, JobError> {
    let shown = names.qualified_column(&column.name);
    if column.generated {
        return Err(JobError::permanent(format!(
            "{shown} (dst_column) is a generated column, which cannot be written; name another one"
        )));
    }
    let Some(form) = VectorForm::from_column(column) else {
        return Err(JobError::permanent(format!(
            "{shown} (dst_column) has the type {}; vectors go into vector, halfvec, REAL[] or DOUBLE PRECISION[]",
            column.declared
        )));
    };
    if let VectorForm::Pgvector(Some(declared)) = form
        && let Some(dimensions) = dimensions
        && usize::try_from(declared) != Ok(dimensions)
    {
        return Err(JobError::permanent(format!(
            "{shown} holds vectors of {declared} dimensions, but the model {} makes {dimensions}; choose another model, or run: \
             ALTER TABLE {} ALTER COLUMN {} TYPE {}({dimensions}) USING NULL;",
            names.model,
            names.qualified(),
            identifier(&column.name),
            column.base_type
        )));
    }
    Ok(DestinationColumn {
        name: column.name.clone(),
        type_name: column.declared.clone(),
        base_type: column.base_type.clone(),
        dimensions: match form {
            VectorForm::Pgvector(declared) => declared.map(i32::unsigned_abs),
            VectorForm::Array => None,
        },
        vector_schema: matches!(form, VectorForm::Pgvector(_)).then(|| column.base_schema.clone()),
        exists: true,
    })
}

/// How a column can hold vectors.
enum VectorForm {
    /// `vector` or `halfvec`, with the dimensions that it is declared for, if it is.
    Pgvector(Option<i32>),
    /// An array. It holds vectors of any length.
    Array,
}

impl VectorForm {
    fn from_column(column: &TargetColumn) -> Option<VectorForm> {
        match (column.base_type.as_str(), column.element_type.as_deref()) {
            ("vector" | "halfvec", _) => {
                let declared = Some(column.modifier).filter(|dimensions| *dimensions > 0);
                Some(VectorForm::Pgvector(declared))
            }
            (_, Some("float4" | "float8")) => Some(VectorForm::Array),
            _ => None,
        }
    }
}
