//! A definition, checked by itself.

use crate::jobs::Definition;
use crate::pipeline::error::JobError;
use crate::postgres::quote::identifier;

/// The names that a definition gives, all present.
pub struct Names {
    pub schema: String,
    pub table: String,
    pub source: String,
    pub destination: String,
    pub model: String,
    pub fingerprint: Option<String>,
}

/// Checks a definition by itself, without any server.
pub fn names(definition: &Definition) -> Result<Names, JobError> {
    let required = |value: &Option<String>, column: &str| {
        value.clone().ok_or_else(|| {
            JobError::permanent(format!(
                "the job's {column} is empty; set it in the jobs table"
            ))
        })
    };
    let names = Names {
        schema: definition.schema.clone(),
        table: required(&definition.table, "\"table\"")?,
        source: required(&definition.src_column, "src_column")?,
        destination: required(&definition.dst_column, "dst_column")?,
        model: required(&definition.embedding_model, "embedding_model")?,
        fingerprint: definition.fingerprint_column.clone(),
    };
    if let Some(column) = names
        .fingerprint
        .as_ref()
        .filter(|column| [&names.source, &names.destination].contains(column))
    {
        return Err(JobError::permanent(format!(
            "fingerprint_column names {}, which is the source or the destination; fingerprints need a column of their own",
            identifier(column)
        )));
    }
    if names.source == names.destination {
        return Err(JobError::permanent(format!(
            "src_column and dst_column are both {}; the vectors need a column of their own",
            identifier(&names.source)
        )));
    }
    if let Some(runtime) = definition
        .runtime
        .as_deref()
        .filter(|runtime| *runtime != "ort")
    {
        return Err(JobError::permanent(format!(
            "the runtime {runtime:?} is not known; only \"ort\" (models in this process) is"
        )));
    }
    if definition.batch_size.is_some_and(|size| size < 1) {
        return Err(JobError::permanent(
            "batch_size must be at least 1; set it to NULL for the default",
        ));
    }
    let parameters = definition.runtime_params.as_deref().unwrap_or("{}");
    if !matches!(serde_json::from_str(parameters), Ok(serde_json::Value::Object(map)) if map.is_empty())
    {
        return Err(JobError::permanent(format!(
            "the job's runtime_params are {parameters}, but the runtime \"ort\" has no parameters; set them to NULL"
        )));
    }
    Ok(names)
}
