//! What can be checked of a job's definition without any server.

use crate::embedding::{InvalidOptions, ModelOptions, RemoteOptions};
use crate::jobs::Definition;
use crate::jobs::chunk_table::ChunkTableName;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::text_options::TextOptions;
use crate::pipeline::table::index_options::IndexOptions;
use crate::pipeline::table::passages;
use crate::pipeline::table::template::Template;
use crate::postgres::quote::identifier;

/// The names in a definition, none of them missing, as the jobs table has them: not quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetNames {
    /// The schema of the table.
    pub schema: String,
    /// The table.
    pub table: String,
    /// The column with the text.
    pub source: String,
    /// The column for the vectors: of the table, or of the table for passages.
    pub destination: String,
    /// The column by whose name fingerprints go. Another one than the destination only while a job fills a column that
    /// is to replace it.
    pub destination_in_fingerprints: String,
    /// The model; not parsed yet.
    pub model: String,
    /// Where the model is, and how it is used.
    pub runtime: Runtime,
    /// The column for the fingerprints, if the job has one.
    pub fingerprint: Option<String>,
    /// The index that the job asks for, if it does.
    pub index: Option<IndexOptions>,
    /// The table for passages, if the job cuts its texts.
    pub passages: Option<ChunkTableName>,
    /// What is embedded of each text.
    pub text: TextOptions,
}

/// Where the model of a job is, and how it is used, as far as the job says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runtime {
    /// In this process (`ort`).
    Ort(ModelOptions),
    /// At servers.
    Remote(Box<RemoteOptions>),
}

/// The runtime of jobs that name none.
const ORT: &str = "ort";

impl TargetNames {
    /// Checks a definition and takes its names.
    ///
    /// # Errors
    /// Permanent ones, with the column of the jobs table that a person has to correct.
    pub fn from_definition(definition: &Definition) -> Result<TargetNames, JobError> {
        if let Some(defect) = &definition.defect {
            return Err(JobError::permanent(defect));
        }
        let model = required(definition.embedding_model.as_deref(), "embedding_model")?;
        let source = required(definition.src_column.as_deref(), "src_column")?;
        let passages = passages(definition)?;
        let (text, params) = TextOptions::take(
            definition.runtime_params.as_deref(),
            &source,
            passages.is_some(),
        )
        .map_err(|reason| JobError::permanent(format!("the job's runtime_params: {reason}")))?;
        let names = TargetNames {
            schema: definition.schema.clone(),
            table: required(definition.table.as_deref(), "\"table\"")?,
            source,
            destination: required(definition.dst_column.as_deref(), "dst_column")?,
            destination_in_fingerprints: required(definition.dst_column.as_deref(), "dst_column")?,
            runtime: runtime(definition, params.as_deref(), &model)?,
            model,
            fingerprint: definition.fingerprint_column.clone(),
            index: index_options(definition)?,
            passages,
            text,
        };
        names.check_columns()?;
        check_batch_size(definition)?;
        Ok(names)
    }

    /// Schema and table, quoted.
    pub fn qualified(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.table))
    }

    /// The names of a job whose target is the table for passages itself.
    pub fn of_chunk_table(&self, table: &ChunkTableName) -> TargetNames {
        TargetNames {
            schema: table.schema.clone(),
            table: table.table.clone(),
            passages: None,
            ..self.clone()
        }
    }

    /// The table that vectors are written to, quoted.
    pub fn written(&self) -> String {
        match &self.passages {
            Some(table) => table.qualified(),
            None => self.qualified(),
        }
    }

    /// Schema, table and a column of it, quoted.
    pub fn qualified_column(&self, column: &str) -> String {
        format!("{}.{}", self.qualified(), identifier(column))
    }

    /// No column has two purposes.
    fn check_columns(&self) -> Result<(), JobError> {
        if let Some(column) = &self.fingerprint
            && [&self.source, &self.destination].contains(&column)
        {
            return Err(JobError::permanent(format!(
                "fingerprint_column names {}, which is the source or the destination; fingerprints need a column of their own",
                identifier(column)
            )));
        }
        self.check_template()?;
        if self.passages.is_none() && self.source == self.destination {
            return Err(JobError::permanent(format!(
                "src_column and dst_column are both {}; the vectors need a column of their own",
                identifier(&self.source)
            )));
        }
        Ok(())
    }

    /// What the job writes must not decide what it writes.
    fn check_template(&self) -> Result<(), JobError> {
        let written = [
            (Some(&self.destination), "dst_column"),
            (self.fingerprint.as_ref(), "fingerprint_column"),
        ];
        let fields = self.text.template.iter().flat_map(Template::columns);
        for field in fields.filter(|_| self.passages.is_none()) {
            let own = written.iter().find(|(column, _)| *column == Some(field));
            if let Some((_, option)) = own {
                return Err(JobError::permanent(format!(
                    "the template names {} ({option}), which the job writes itself; remove it from template in \
                     runtime_params",
                    identifier(field)
                )));
            }
        }
        Ok(())
    }
}

fn required(value: Option<&str>, column: &str) -> Result<String, JobError> {
    value.map(str::to_owned).ok_or_else(|| {
        JobError::permanent(format!(
            "the job's {column} is empty; set it in the jobs table"
        ))
    })
}

fn check_batch_size(definition: &Definition) -> Result<(), JobError> {
    if definition.batch_size.is_some_and(|size| size < 1) {
        return Err(JobError::permanent(
            "batch_size must be at least 1; set it to NULL for the default",
        ));
    }
    Ok(())
}

fn index_options(definition: &Definition) -> Result<Option<IndexOptions>, JobError> {
    let (kind, params) = (&definition.create_index, &definition.index_params);
    IndexOptions::from_columns(kind.as_deref(), params.as_deref()).map_err(JobError::permanent)
}

/// The longest name of a table, in bytes.
const MAX_NAME: usize = 63;

/// The table for passages, with the options that go with none.
fn passages(definition: &Definition) -> Result<Option<ChunkTableName>, JobError> {
    let Some(name) = &definition.chunk_table else {
        return Ok(None);
    };
    let name = ChunkTableName::parse(name, &definition.schema).map_err(JobError::permanent)?;
    let is_source = Some(&name.table) == definition.table.as_ref();
    if is_source && name.schema == definition.schema {
        return Err(JobError::permanent(
            "chunk_table names the table with the texts; passages need a table of their own",
        ));
    }
    if name.table.len() > MAX_NAME {
        return Err(JobError::permanent(format!(
            "chunk_table names a table of {} bytes, of which the server would keep {MAX_NAME}; shorten it",
            name.table.len()
        )));
    }
    let destination = definition.dst_column.as_deref();
    if let Some(destination) = destination
        && passages::COLUMNS
            .iter()
            .any(|(column, _)| *column == destination)
    {
        return Err(JobError::permanent(format!(
            "dst_column is {}, which a table for passages has for something else; name another column for the vectors",
            identifier(destination)
        )));
    }
    if definition.fingerprint_column.is_some() {
        return Err(JobError::permanent(
            "fingerprint_column and chunk_table do not go together: passages have fingerprints of their own; set \
             fingerprint_column to NULL",
        ));
    }
    if definition.replaces.is_some() {
        return Err(JobError::permanent(
            "replaces and chunk_table do not go together; add a second job with another chunk_table, and cancel the first \
             one when it is complete",
        ));
    }
    Ok(Some(name))
}

/// The runtime with its parameters, without those about texts.
fn runtime(
    definition: &Definition,
    parameters: Option<&str>,
    model: &str,
) -> Result<Runtime, JobError> {
    let invalid =
        |error: InvalidOptions| JobError::permanent(format!("the job's runtime_params: {error}"));
    match definition.runtime.as_deref() {
        None | Some(ORT) => {
            let options = parameters.map(ModelOptions::from_json).transpose();
            Ok(Runtime::Ort(options.map_err(invalid)?.unwrap_or_default()))
        }
        Some(remote) if RemoteOptions::RUNTIMES.contains(&remote) => {
            let options = RemoteOptions::new(remote, model, parameters).map_err(invalid)?;
            Ok(Runtime::Remote(Box::new(options)))
        }
        Some(other) => Err(JobError::permanent(format!(
            "the job's runtime {other:?} is not known: it is {ORT:?} (models in this process) or one of {}",
            RemoteOptions::RUNTIMES.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::JobRow;

    #[test]
    fn a_key_of_a_remote_runtime_changes_the_work_of_a_job_exactly_where_it_decides_vectors() {
        let hash = |params: &str| {
            let mut definition = JobRow::example("1").definition;
            definition.runtime = Some("openai".into());
            definition.runtime_params = Some(params.into());
            definition.hash()
        };
        for key in RemoteOptions::KEYS {
            let changes = hash(&format!("{{\"{key}\": \"a\"}}")) != hash("{}");
            assert_eq!(changes, RemoteOptions::decides_vectors(key), "{key}");
        }
    }
}
