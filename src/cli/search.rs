//! `lantern-cli search`

use anyhow::{Context, bail};
use clap::{Args, ValueEnum, value_parser};
use tokio_postgres::Row;

use super::engine_arguments::EngineArguments;
use super::job::{JobArguments, OpenJob};
use super::{json, output, stderr, table};
use crate::embedding::{Engine, TextRole};
use crate::pipeline::table::target::TargetTable;
use crate::postgres::DatabaseError;
use crate::postgres::quote::identifier;

/// Find the rows of a job's table that are nearest in meaning to a query
///
/// The query is embedded with the job's model. Rows are ordered by the cosine similarity of their vectors to it.
#[derive(Args)]
pub struct Search {
    #[command(flatten)]
    job: JobArguments,

    /// How many rows to print
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = value_parser!(u32).range(1..))]
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
    let engine = arguments.engine.engine()?;
    let job = arguments.job.open(&engine).await?;
    let target = &job.target;
    let columns = shown_columns(&job, &arguments.columns).await?;
    let vector = embed_query(&engine, &job, arguments.query).await?;
    let statement = statement(target, &columns, arguments.limit);
    let rows = job.session.query(&statement, &[&vector]).await;
    let failed = || DatabaseError::during(format!("searching {}", target.qualified()));
    let rows = rows.map_err(failed())?;

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
            output::line(format_args!(
                "no row of {} has a vector yet",
                target.qualified()
            ))?;
        }
        RowFormat::Table => {
            let headings: Vec<&str> = ["similarity"]
                .into_iter()
                .chain(keys.iter().copied())
                .chain(shown)
                .collect();
            let cells = rows.iter().map(|row| cells(row, headings.len()));
            let cells: Vec<Vec<String>> = cells.collect::<Result<_, _>>().map_err(failed())?;
            table::print(&headings, &cells, 70)?;
        }
        RowFormat::Json => {
            let headings: Vec<&str> = keys.iter().copied().chain(shown).collect();
            let objects = rows.iter().map(|row| object(row, &headings));
            let objects: Vec<serde_json::Value> =
                objects.collect::<Result<_, _>>().map_err(failed())?;
            json::print(&objects)?;
        }
    }
    Ok(())
}

async fn embed_query(engine: &Engine, job: &OpenJob, query: String) -> anyhow::Result<Vec<f32>> {
    let embedded = engine.embed_each(&job.model, TextRole::Query, vec![query]);
    let embedded = embedded.await?.remove(0);
    if embedded.is_truncated {
        stderr::line(&format!(
            "warning: the query is longer than the {} tokens that the model {} reads; its end does not count",
            job.model.max_text_tokens(),
            job.model.name()
        ));
    }
    embedded.vector.context("the query has no vector")
}

/// The columns to print: those that were asked for, by the names that the table has them under.
async fn shown_columns(job: &OpenJob, wanted: &[String]) -> anyhow::Result<Vec<String>> {
    let target = &job.target;
    if wanted.is_empty() {
        return Ok(vec![target.source.name.clone()]);
    }
    let statement = "SELECT attname::text FROM pg_attribute \
                     WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let rows = job.session.query(statement, &[&target.oid]).await;
    let columns: Result<Vec<String>, _> =
        rows.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect());
    let columns = columns.map_err(DatabaseError::during("reading the columns of the table"))?;
    let mut shown = Vec::new();
    for wanted in wanted.iter().filter(|wanted| !wanted.trim().is_empty()) {
        // A blank beside a comma is part of the list, unless it is part of a name.
        let names = [wanted.as_str(), wanted.trim()];
        let found = names
            .iter()
            .find_map(|name| columns.iter().find(|column| column == name));
        let Some(found) = found else {
            bail!(
                "{} has no column {}; it has {}",
                target.qualified(),
                identifier(wanted.trim()),
                columns.join(", ")
            );
        };
        if !shown.contains(found) {
            shown.push(found.clone());
        }
    }
    Ok(shown)
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

fn cells(row: &Row, columns: usize) -> Result<Vec<String>, tokio_postgres::Error> {
    let similarity: Option<f64> = row.try_get(0)?;
    let mut cells =
        vec![similarity.map_or_else(|| "?".into(), |similarity| format!("{similarity:.3}"))];
    for index in 1..columns {
        cells.push(row.try_get::<_, Option<String>>(index)?.unwrap_or_default());
    }
    Ok(cells)
}

fn object(row: &Row, headings: &[&str]) -> Result<serde_json::Value, tokio_postgres::Error> {
    let mut object = serde_json::Map::new();
    object.insert(
        "similarity".into(),
        row.try_get::<_, Option<f64>>(0)?.into(),
    );
    for (index, heading) in headings.iter().enumerate() {
        object.insert(
            (*heading).to_string(),
            row.try_get::<_, Option<String>>(index + 1)?.into(),
        );
    }
    Ok(object.into())
}
