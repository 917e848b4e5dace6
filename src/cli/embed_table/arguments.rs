//! The arguments, and what they ask for.

use std::num::NonZeroU32;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use crate::cli::engine_arguments::{EngineArguments, InferenceArguments};
use crate::cli::new_job::default_destination;
use crate::cli::refuse_superuser::RefuseSuperuserArguments;
use crate::embedding::{Engine, ModelName};
use crate::jobs::Definition;
use crate::pipeline::commands::embed_table::Request;
use crate::pipeline::setup::preflight::users_code::PowerfulRoles;

/// Embed a table once, without a job, a slot or logical replication
///
/// For tables that are not replicated, and servers on which wal_level stays as it is. The column for the vectors is
/// created if it does not exist, and every row gets a vector whose text has none yet: changes that come later are left
/// to the next run, or to a job. With a fingerprint column the next run also finds vectors of older texts. Works while
/// the table is in use: a row that changes meanwhile gets the vector of its new text. Where a run is interrupted, the
/// same command goes on. Rows that cannot be embedded are printed, and the exit status is then 1.
#[derive(Args)]
pub struct EmbedTable {
    /// The database with the table
    #[arg(long, env = "LANTERN_URI", hide_env_values = true, value_name = "URI")]
    uri: String,

    /// The table
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    table: String,

    /// The schema of the table
    #[arg(long, default_value = "public", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    schema: String,

    /// The column with the text
    #[arg(long, visible_alias = "column", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    src_column: String,

    /// The column for the vectors, created if it does not exist [default: the name of the column and _embedding]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    dst_column: Option<String>,

    /// The embedding model
    #[arg(long, default_value = ModelName::DEFAULT, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    model: String,

    /// Where the model is: ort (in this process), or servers that speak a protocol: openai, cohere, voyage, ollama
    #[arg(long, value_name = "RUNTIME")]
    runtime: Option<String>,

    /// How the model is used, as JSON; api_key_env names any variable of this command's environment
    #[arg(long, value_name = "JSON")]
    runtime_params: Option<String>,

    /// Embed only rows for which this SQL condition is true, such as "lang = 'en'"
    #[arg(long = "where", value_name = "CONDITION", value_parser = NonEmptyStringValueParser::new())]
    within: Option<String>,

    /// Embed every row, whatever its vector is
    #[arg(long)]
    all: bool,

    /// A uuid column that tells which vectors are current, created if it does not exist
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    fingerprint_column: Option<String>,

    /// The type of a column that is created for vectors: vector, halfvec, REAL[] or DOUBLE PRECISION[] [default: vector
    /// where pgvector is installed, else REAL[]]
    #[arg(long, value_name = "TYPE")]
    column_type: Option<String>,

    /// The columns of the table's key, separated by commas; the command fails if the key is another one
    #[arg(long, value_name = "COLUMNS")]
    pk: Option<String>,

    /// The most rows in one transaction [default: 512]
    #[arg(long, value_name = "N")]
    batch_size: Option<NonZeroU32>,

    /// Write vectors without firing triggers of the table
    #[arg(long)]
    skip_triggers: bool,

    /// Build an index of the vectors after the last row: hnsw
    #[arg(long, value_name = "METHOD")]
    create_index: Option<String>,

    /// How that index is built, as JSON, such as {"m": 16}
    #[arg(long, value_name = "JSON", requires = "create_index")]
    index_params: Option<String>,

    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    refuse_superuser: RefuseSuperuserArguments,

    #[command(flatten)]
    engine: EngineArguments,

    #[command(flatten)]
    inference: InferenceArguments,
}

impl EmbedTable {
    /// The database with the table.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Whether to change nothing.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// What to do about roles with more rights than they need.
    pub fn powerful_roles(&self) -> PowerfulRoles {
        self.refuse_superuser.powerful_roles()
    }

    /// An engine for the rows.
    ///
    /// # Errors
    /// If there is no folder of models.
    pub fn engine(&self) -> anyhow::Result<Engine> {
        self.engine.engine_for_rows(&self.inference)
    }

    /// What is asked for, as a job would have it.
    pub fn request(&self) -> Request {
        let destination = self.dst_column.clone();
        let destination = destination.unwrap_or_else(|| default_destination(&self.src_column));
        Request {
            definition: Definition {
                db_connection: String::new(),
                write_connection: None,
                schema: self.schema.clone(),
                table: Some(self.table.clone()),
                src_column: Some(self.src_column.clone()),
                dst_column: Some(destination),
                embedding_model: Some(self.model.clone()),
                column_type: self.column_type.clone(),
                pk: self.pk.clone(),
                batch_size: self.batch_size.map(|size| i64::from(size.get())),
                runtime: self.runtime.clone(),
                runtime_params: self.runtime_params.clone(),
                fingerprint_column: self.fingerprint_column.clone(),
                chunk_table: None,
                trust_existing: false,
                backfill: true,
                skip_triggers: self.skip_triggers,
                create_index: self.create_index.clone(),
                index_params: self.index_params.clone(),
                replaces: None,
                accept_failures: false,
                defect: None,
            },
            within: self.within.clone(),
            all: self.all,
        }
    }
}
