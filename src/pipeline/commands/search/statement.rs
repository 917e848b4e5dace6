//! The SELECT of a search.
//!
//! The condition may come with the caller's own `search_path`, so everything of ours is named with its schema,
//! operators too: a function or an operator of that name in another schema could fit better (PostgreSQL manual, "Type
//! Conversion").
//!
//! The condition sees the table alone, under its own name: it stands in a subquery, which the planner pulls up.

use crate::pipeline::commands::search::columns::ShownColumns;
use crate::pipeline::commands::search::condition::Condition;
use crate::pipeline::index::catalog::VectorIndex;
use crate::pipeline::table::distance::Distance;
use crate::pipeline::table::target::{DestinationColumn, TargetTable};
use crate::postgres::quote::identifier;

/// How the rows are ordered.
pub enum Order<'a> {
    /// By the expression of an index, so that the planner can use it.
    ByIndex(&'a VectorIndex),
    /// So that no index is used: each vector is compared.
    Exact(Distance),
}

/// The nearest rows of a table.
pub struct Nearest<'a> {
    /// The table.
    pub target: &'a TargetTable,
    /// What is shown of each row.
    pub columns: &'a ShownColumns,
    /// Which rows count; `None`: all.
    pub condition: Option<&'a Condition>,
    /// The most rows.
    pub limit: u32,
}

impl Nearest<'_> {
    /// The statement. Its one parameter is the vector of the query. Each row is: the distance, the cosine similarity,
    /// and the shown columns as text.
    pub fn statement(&self, order: &Order<'_>) -> String {
        let shown: Vec<String> = self
            .columns
            .names()
            .map(|column| format!("pg_catalog.format('%s', t.{})", identifier(column)))
            .collect();
        let (shown, from, limit) = (shown.join(", "), self.from(), self.limit);
        let Figures {
            column,
            distance,
            similarity,
            sorted_by,
            further_from,
        } = Figures::new(&self.target.destination, "t", order);
        format!(
            "SELECT {distance}, {similarity}, {shown} FROM {from}{further_from} \
             WHERE {column} IS NOT NULL ORDER BY {sorted_by} LIMIT {limit}"
        )
    }

    /// The table, as `t`.
    fn from(&self) -> String {
        let table = self.target.from_clause();
        let Some(condition) = self.condition else {
            return format!("{table} AS t");
        };
        let mut needed: Vec<String> = self.columns.names().map(|it| identifier(it)).collect();
        let destination = identifier(&self.target.destination.name);
        if !needed.contains(&destination) {
            needed.push(destination);
        }
        format!(
            "(SELECT {} FROM {table} AS {} WHERE {}) AS t",
            needed.join(", "),
            identifier(&self.target.name),
            condition.sql()
        )
    }
}

/// SQL for how far the vector of a row is from that of the query, which is the parameter `$1`.
pub(super) struct Figures {
    /// The column of the vectors.
    pub column: String,
    /// The distance.
    pub distance: String,
    /// The cosine of the angle.
    pub similarity: String,
    /// The distance as it stands in ORDER BY.
    pub sorted_by: String,
    /// What FROM needs besides the table.
    pub further_from: String,
}

impl Figures {
    /// Of the row `alias`.
    pub fn new(destination: &DestinationColumn, alias: &str, order: &Order<'_>) -> Figures {
        let column = format!("{alias}.{}", identifier(&destination.name));
        let Some(schema) = &destination.vector_schema else {
            return Figures {
                distance: "(1::float8 OPERATOR(pg_catalog.-) s.cosine)".into(),
                similarity: "s.cosine".into(),
                sorted_by: "s.cosine DESC NULLS LAST".into(),
                further_from: format!(" CROSS JOIN LATERAL ({}) s", cosine_of_arrays(&column)),
                column,
            };
        };
        let own_type = &destination.type_name;
        let between = |distance: Distance, cast: Option<&str>| {
            let operator = format!("OPERATOR({}.{})", identifier(schema), distance.operator());
            match cast {
                None => format!("({column} {operator} $1::real[]::{own_type})"),
                Some(cast) => format!("(({column}::{cast}) {operator} $1::real[]::{cast})"),
            }
        };
        let (distance, sorted_by) = match order {
            Order::ByIndex(index) => {
                let distance = between(index.distance, index.cast.as_deref());
                (distance.clone(), distance)
            }
            Order::Exact(distance) => {
                let distance = between(*distance, None);
                let sorted_by = format!("{distance} OPERATOR(pg_catalog.+) 0::float8");
                (distance, sorted_by)
            }
        };
        Figures {
            similarity: format!(
                "(1::float8 OPERATOR(pg_catalog.-) {})",
                between(Distance::Cosine, None)
            ),
            distance,
            sorted_by,
            further_from: String::new(),
            column,
        }
    }
}

/// A query for the cosine of the column and the parameter. Arrays have no operator for it.
fn cosine_of_arrays(column: &str) -> String {
    let sum = |a: &str, b: &str| {
        format!("pg_catalog.sum(u.{a}::float8 OPERATOR(pg_catalog.*) u.{b}::float8)")
    };
    let (both, own, other) = (sum("a", "b"), sum("a", "a"), sum("b", "b"));
    format!(
        "SELECT {both} OPERATOR(pg_catalog./) NULLIF(pg_catalog.sqrt({own} OPERATOR(pg_catalog.*) {other}), 0::float8) AS cosine \
         FROM ROWS FROM (pg_catalog.unnest({column}), pg_catalog.unnest($1::real[])) AS u(a, b)"
    )
}
