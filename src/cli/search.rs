//! `lantern-cli search`

use anyhow::{Context, bail};
use clap::{Args, ValueEnum, value_parser};
use serde_json::{Map, Value};

use super::engine_arguments::EngineArguments;
use super::job::{JobArguments, OpenJob};
use super::json_flag::JsonFlag;
use super::{found_passages, json, output, stderr, table};
use crate::embedding::{Engine, TextRole};
use crate::pipeline::commands::search::explain::Explanation;
use crate::pipeline::commands::search::found::FoundRow;
use crate::pipeline::commands::search::{Found, Query, Search as Searching};
use crate::pipeline::table::distance::Distance;
use crate::pipeline::table::target::TargetTable;

/// Find the rows of a job's table that are nearest in meaning to a query
///
/// The query is embedded with the job's model. An index of pgvector on the vectors is used where there is one, by the
/// distance that it has; otherwise every vector is compared, by the cosine. `similarity` is the cosine of the angle
/// between two vectors: 1 for the same meaning.
///
/// For a job with a chunk_table the nearest passage of each document is printed, with the ones before and after it.
/// Documents whose passages are not yet those of their text are left out.
#[derive(Args)]
pub struct Search {
    #[command(flatten)]
    job: JobArguments,

    /// How many rows to print, or documents
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    limit: u32,

    /// Search only rows for which this SQL condition over the table's columns is true, such as "views > 10". It is run
    /// with the rights of the role that searches, in a transaction that cannot write
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,

    /// Columns to print besides the key [default: the job's source column; none with a chunk_table, whose passages are
    /// printed]
    #[arg(long, value_delimiter = ',', value_name = "COLUMN,…")]
    columns: Vec<String>,

    /// Print which index and which distance were used, or why none, and the server's plan, in place of the rows
    #[arg(long)]
    explain: bool,

    /// How to print the result
    #[arg(long, value_enum, default_value_t = RowFormat::Table)]
    format: RowFormat,

    #[command(flatten)]
    json: JsonFlag,

    #[command(flatten)]
    engine: EngineArguments,

    /// The text to search for
    query: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RowFormat {
    Table,
    /// An array of objects, whose values are strings, as SQL prints them, or null; with --explain one object
    Json,
}

pub async fn run(arguments: Search) -> anyhow::Result<()> {
    if arguments.query.trim().is_empty() {
        bail!("the query is empty");
    }
    let format = arguments.json.or(RowFormat::Json, arguments.format);
    let engine = arguments.engine.engine()?;
    let mut job = arguments.job.open(&engine).await?;
    let (found, explanation) = loop {
        let found = arguments.find(&engine, &job).await;
        if let Ok(Some(found)) = found {
            break found;
        }
        // The column may have been exchanged for that of another model after it was opened.
        let now = arguments.job.open(&engine).await?;
        if now.number == job.number {
            found?;
        }
        job = now;
    };
    if let Some(explanation) = explanation {
        return print_explanation(format, &found, &explanation);
    }
    match format {
        RowFormat::Table if found.rows.is_empty() => {
            let has_condition = arguments.condition.is_some();
            output::line(none_found(&job.target, has_condition))?;
        }
        RowFormat::Table if job.target.passages.is_some() => print_documents(&found)?,
        RowFormat::Table => {
            let headings = headings(&found, &job.target);
            let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
            let cells: Vec<Vec<String>> = found.rows.iter().map(|row| cells(row, &found)).collect();
            table::print(&headings, &cells, 70)?;
        }
        RowFormat::Json => {
            let headings = headings(&found, &job.target);
            let objects = found.rows.iter().map(|row| object(row, &found, &headings));
            json::print(&objects.collect::<Vec<Value>>())?;
        }
    }
    Ok(())
}

impl Search {
    /// The rows, and how they were found if that was asked for. `None` where the column is another one by now, whose vectors
    /// are of another model.
    async fn find(
        &self,
        engine: &Engine,
        job: &OpenJob,
    ) -> anyhow::Result<Option<(Found, Option<Explanation>)>> {
        let vector = embed_query(engine, job, self.query.clone()).await?;
        let query = Query {
            target: &job.target,
            columns: &self.columns,
            condition: self.condition.as_deref(),
            limit: self.limit,
            vector: &vector,
        };
        let searching = Searching::begin(&job.session, query).await?;
        let found = searching.run().await?;
        let explanation = match self.explain {
            true => Some(searching.explain(&found).await?),
            false => None,
        };
        Ok(job.has_its_column().await?.then_some((found, explanation)))
    }
}

async fn embed_query(engine: &Engine, job: &OpenJob, query: String) -> anyhow::Result<Vec<f32>> {
    let embedded = engine.embed_each(&job.model, TextRole::Query, vec![query]);
    let embedded = embedded.await?.remove(0);
    if embedded.is_truncated {
        stderr::line(&format!(
            "warning: the query is longer than {}; its end does not count",
            job.model.window()
        ));
    }
    embedded.vector.context("the query has no vector")
}

fn none_found(target: &TargetTable, has_condition: bool) -> String {
    let table = target.qualified();
    match (&target.passages, has_condition) {
        (None, true) => format!("no row of {table} for which the condition is true has a vector"),
        (None, false) => format!("no row of {table} has a vector yet"),
        (Some(passages), true) => format!(
            "no row of {table} for which the condition is true has passages of its present text in {}",
            passages.qualified()
        ),
        (Some(passages), false) => format!(
            "no row of {table} has passages of its present text in {} yet: run lantern-cli status, which shows how far the \
             job is",
            passages.qualified()
        ),
    }
}

/// The name of the figure by which rows are ordered, beside the similarity; `None` for the cosine, which is the same.
fn order_heading(distance: Distance) -> Option<&'static str> {
    match distance {
        Distance::Cosine => None,
        Distance::InnerProduct => Some("inner_product"),
        Distance::L2 => Some("l2_distance"),
        Distance::L1 => Some("l1_distance"),
    }
}

/// That figure. The operator of the inner product changes its sign.
fn order_figure(row: &FoundRow, distance: Distance) -> Option<f64> {
    match distance {
        Distance::InnerProduct => row.distance.map(|distance| -distance),
        _ => row.distance,
    }
}

/// The figures first, then the columns, then what there is of passages. A column of the table that is called as something
/// else is shown with the name of the table.
fn headings(found: &Found, target: &TargetTable) -> Vec<String> {
    let (order, members) = match target.passages {
        Some(_) => (None, &found_passages::MEMBERS[..]),
        None => (order_heading(found.distance), &[][..]),
    };
    let figures = ["similarity"].into_iter().chain(order);
    let own: Vec<&str> = figures.clone().chain(members.iter().copied()).collect();
    let shown = found
        .columns
        .names()
        .map(|name| match own.contains(&name.as_str()) {
            true => format!("{}.{name}", target.name),
            false => name.clone(),
        });
    let members = members.iter().map(|&member| member.to_owned());
    figures
        .map(str::to_owned)
        .chain(shown)
        .chain(members)
        .collect()
}

fn cells(row: &FoundRow, found: &Found) -> Vec<String> {
    let figure = |figure: Option<f64>| figure.map_or_else(|| "?".into(), |it| format!("{it:.3}"));
    let mut cells = vec![figure(row.similarity)];
    if order_heading(found.distance).is_some() {
        cells.push(figure(order_figure(row, found.distance)));
    }
    cells.extend(
        row.cells
            .iter()
            .map(|cell| cell.clone().unwrap_or_default()),
    );
    cells
}

/// The documents for people, with an empty line between two of them.
fn print_documents(found: &Found) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for row in &found.rows {
        let Some(passage) = &row.passage else {
            continue;
        };
        let names = ["similarity"]
            .into_iter()
            .chain(order_heading(found.distance))
            .chain(found.columns.names().map(String::as_str));
        let cells = cells(row, found);
        let values: Vec<(&str, &str)> = names.zip(cells.iter().map(String::as_str)).collect();
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.extend(found_passages::lines(&values, passage));
    }
    Ok(output::lines(&lines)?)
}

fn object(row: &FoundRow, found: &Found, headings: &[String]) -> Value {
    let mut values = vec![Value::from(row.similarity)];
    if order_heading(found.distance).is_some() && row.passage.is_none() {
        values.push(order_figure(row, found.distance).into());
    }
    values.extend(row.cells.iter().cloned().map(Value::from));
    if let Some(passage) = &row.passage {
        values.extend(found_passages::members(row, passage));
    }
    let object: Map<String, Value> = headings.iter().cloned().zip(values).collect();
    object.into()
}

fn print_explanation(
    format: RowFormat,
    found: &Found,
    explanation: &Explanation,
) -> anyhow::Result<()> {
    let distance = found.distance;
    if format == RowFormat::Json {
        return json::print(&serde_json::json!({
            "distance": distance.name(),
            "operator": distance.operator(),
            "indexes": explanation.indexes,
            "reason": explanation.sentence,
            "rows": found.rows.len(),
            "plan": explanation.plan,
        }));
    }
    let mut lines = vec![
        format!("distance: {} ({})", distance.name(), distance.operator()),
        format!("index: {}", explanation.sentence),
        String::new(),
    ];
    lines.extend(explanation.plan.iter().cloned());
    Ok(output::lines(&lines)?)
}
