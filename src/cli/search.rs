//! `lantern-cli search`

use anyhow::bail;
use clap::{Args, ValueEnum};
use tokio_postgres::Row;

use super::engine_arguments::EngineArguments;
use super::job::JobArguments;
use super::table;
use crate::embedding::TextRole;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::quote::identifier;

/// Find the rows of a job's table that are nearest in meaning to a query
///
/// The query is embedded with the job's model. Rows are ordered by the cosine similarity of their vectors to it.
#[derive(Args)]
pub struct Search {
    #[command(flatten)]
    job: JobArguments,

    /// How many rows to print
    #[arg(long, default_value_t = 5, value_name = "N")]
    limit: u32,

    /// Columns to print besides the key [default: the job's source column]
    #[arg(long, value_delimiter = ',', value_name = "COLUMN,…")]
    columns: Vec<String>,

    /// How to print the result
    #[arg(long, value_enum, default_value_t = RowFormat::Table)]
    format: RowFormat,

    #[command(flatten)]
    engine: EngineArguments,

    /// The text to search for
    query: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RowFormat {
    Table,
    /// An array of objects
    Json,
}

pub async fn run(arguments: Search) -> anyhow::Result<()> {
    if arguments.query.trim().is_empty() {
        bail!("the query is empty");
    }
    let engine = arguments.engine.engine();
    let job = arguments.job.open(&engine).await?;
    let vector = engine
        .embed(&job.model, TextRole::Query, vec![arguments.query.clone()])
        .await?
        .remove(0);
    let target = &job.target;
    let columns = if arguments.columns.is_empty() {
        vec![target.source.name.clone()]
    } else {
        arguments.columns.clone()
    };
    let statement = statement(target, &columns, arguments.limit);
    let rows = job.session.query(&statement, &[&vector]).await.map_err(
        crate::postgres::DatabaseError::during(format!("searching {}", target.qualified())),
    )?;

    let keys: Vec<&str> = target
        .key
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    let shown: Vec<&str> = columns
        .iter()
        .map(String::as_str)
        .filter(|column| !keys.contains(column))
        .collect();
    match arguments.format {
        RowFormat::Table if rows.is_empty() => {
            println!("no row of {} has a vector yet", target.qualified());
        }
        RowFormat::Table => {
            let headings: Vec<&str> = ["similarity"]
                .into_iter()
                .chain(keys.iter().copied())
                .chain(shown)
                .collect();
            let cells: Vec<Vec<String>> =
                rows.iter().map(|row| cells(row, headings.len())).collect();
            table::print(&headings, &cells, 70);
        }
        RowFormat::Json => {
            let headings: Vec<&str> = keys.iter().copied().chain(shown).collect();
            let objects: Vec<serde_json::Value> =
                rows.iter().map(|row| object(row, &headings)).collect();
            println!("{}", serde_json::to_string_pretty(&objects)?);
        }
    }
    Ok(())
}

/// The nearest rows first: similarity, key columns, then the others, all as text.
///
/// With a pgvector column the order is by its distance operator alone, so that an index on the column can be used.
/// Arrays have no such operator: each vector is compared.
fn statement(target: &TargetTable, columns: &[String], limit: u32) -> String {
    let destination = format!("t.{}", identifier(&target.destination.name));
    let keys = target.key.iter().map(|column| column.name.as_str());
    let shown: Vec<String> = keys
        .clone()
        .chain(
            columns
                .iter()
                .map(String::as_str)
                .filter(|column| keys.clone().all(|key| key != *column)),
        )
        .map(|column| format!("format('%s', t.{})", identifier(column)))
        .collect();
    let (shown, table) = (shown.join(", "), target.from_clause());
    match &target.destination.vector_schema {
        Some(schema) => {
            let schema = identifier(schema);
            let kind = &target.destination.type_name;
            let distance = format!("{destination} OPERATOR({schema}.<=>) ($1::real[])::{kind}");
            format!(
                "SELECT (1 - ({distance}))::float8, {shown} FROM {table} t WHERE {destination} IS NOT NULL ORDER BY {distance} LIMIT {limit}"
            )
        }
        None => format!(
            "SELECT s.cosine, {shown} FROM {table} t CROSS JOIN LATERAL ( \
               SELECT sum(u.a::float8 * u.b) / NULLIF(sqrt(sum(u.a::float8 * u.a) * sum(u.b::float8 * u.b)), 0) AS cosine \
               FROM unnest({destination}, $1::real[]) AS u(a, b)) s \
             WHERE {destination} IS NOT NULL ORDER BY s.cosine DESC NULLS LAST LIMIT {limit}"
        ),
    }
}

fn cells(row: &Row, columns: usize) -> Vec<String> {
    let similarity: Option<f64> = row.get(0);
    let mut cells =
        vec![similarity.map_or_else(|| "?".into(), |similarity| format!("{similarity:.3}"))];
    cells.extend((1..columns).map(|index| row.get::<_, Option<String>>(index).unwrap_or_default()));
    cells
}

fn object(row: &Row, headings: &[&str]) -> serde_json::Value {
    let mut object = serde_json::Map::new();
    object.insert("similarity".into(), row.get::<_, Option<f64>>(0).into());
    for (index, heading) in headings.iter().enumerate() {
        object.insert(
            (*heading).to_string(),
            row.get::<_, Option<String>>(index + 1).into(),
        );
    }
    object.into()
}
