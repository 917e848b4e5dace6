//! The rows of a job's table whose vectors are nearest to that of a query.
//!
//! ```text
//! columns, condition ─▶ is there an index of the column? ─┬─ yes ─▶ by its distance ─┬─ enough rows ───────▶ found
//!                                                         │                          └─ too few ─┐
//!                                                         └─ no ──▶ by the cosine ───────────────┴─ exact ─▶ found
//! ```
//!
//! Everything runs in one READ ONLY transaction: the condition is the caller's own SQL, under the caller's own role,
//! and whatever it calls cannot write.
//!
//! An index is approximate. With a condition, or with more rows than it looks at by default, it may give fewer rows
//! than were asked for, although there are some (pgvector, "Filtering"). Then every vector is compared.
//!
//! | file | holds |
//! | --- | --- |
//! | [`columns`] | the columns to show |
//! | [`condition`] | whether the condition is one expression |
//! | [`statement`] | the SELECT |
//! | [`settings`] | how far an index is searched |
//! | `rights` | what the role lacks |
//! | [`explain`] | which index was used, and the server's plan |

pub mod columns;
pub mod condition;
pub mod explain;
mod rights;
pub mod settings;
pub mod statement;

use tokio_postgres::Row;

use crate::pipeline::commands::search::columns::{ShownColumns, all_columns};
use crate::pipeline::commands::search::condition::{Condition, refuse_parameters};
use crate::pipeline::commands::search::rights::Lacking;
use crate::pipeline::commands::search::statement::{Nearest, Order};
use crate::pipeline::error::JobError;
use crate::pipeline::index::catalog::{self, VectorIndex};
use crate::pipeline::table::distance::Distance;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::user_settings::set_local_defaults;
use crate::postgres::{DatabaseError, Session};

/// What is searched for.
pub struct Query<'a> {
    /// The table.
    pub target: &'a TargetTable,
    /// The columns to show besides the key, as the caller wrote them. Empty: the source column.
    pub columns: &'a [String],
    /// The caller's condition.
    pub condition: Option<&'a str>,
    /// The most rows.
    pub limit: u32,
    /// The vector of the query.
    pub vector: &'a [f32],
}

/// A row that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundRow {
    /// The cosine of the angle between its vector and the query's; `None` where one of them has the length 0.
    pub similarity: Option<f64>,
    /// The distance by which the rows are ordered.
    pub distance: Option<f64>,
    /// The values of the key and the shown columns, as text.
    pub cells: Vec<Option<String>>,
}

/// How the rows were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// With the index, if the planner chose it.
    Index(VectorIndex),
    /// Every vector was compared: the index gave only so many rows.
    TooFew(VectorIndex, usize),
    /// Every vector was compared: there is no index. With the name of one that is invalid.
    NoIndex(Option<String>),
}

/// The answer to a query.
pub struct Found {
    /// The nearest rows first.
    pub rows: Vec<FoundRow>,
    /// The names of the key columns, then of the others.
    pub columns: ShownColumns,
    /// By what the rows are ordered.
    pub distance: Distance,
    /// How they were found.
    pub way: Way,
    /// The statement that gave the rows; it takes the vector as its parameter.
    pub sql: String,
}

impl Way {
    /// How they are found instead, when this way gave only so many rows.
    fn then_exact(self, rows: usize) -> Way {
        match self {
            Way::Index(index) => Way::TooFew(index, rows),
            other => other,
        }
    }
}

/// What one statement gave.
struct Answer {
    rows: Vec<Row>,
    way: Way,
    sql: String,
}

impl Answer {
    fn nothing(way: Way) -> Answer {
        Answer {
            rows: Vec::new(),
            way,
            sql: String::new(),
        }
    }
}

/// A transaction for one search. It ends with the session.
pub struct Search<'a> {
    session: &'a Session,
    query: Query<'a>,
}

impl<'a> Search<'a> {
    /// Begins the transaction.
    ///
    /// # Errors
    /// The server's.
    pub async fn begin(session: &'a Session, query: Query<'a>) -> Result<Self, DatabaseError> {
        session
            .batch_execute("BEGIN TRANSACTION READ ONLY")
            .await
            .map_err(DatabaseError::during("beginning the search"))?;
        Ok(Search { session, query })
    }

    /// Finds the rows.
    ///
    /// # Errors
    /// Permanent ones where a column does not exist or the condition cannot be used, and the server's.
    pub async fn run(&self) -> Result<Found, JobError> {
        let Query { target, limit, .. } = self.query;
        let existing = all_columns(self.session, target.oid).await?;
        let columns = ShownColumns::choose(target, self.query.columns, &existing)?;
        let column = &target.destination.name;
        let indexes = catalog::read(self.session, target.oid, column).await?;
        let index = catalog::best(&indexes).cloned();
        if let Some(schema) = &target.destination.vector_schema {
            settings::search_far(self.session, schema, limit).await?;
        }
        let condition = match self.query.condition {
            Some(text) => Some(self.condition(text, &existing).await?),
            None => None,
        };
        let nearest = Nearest {
            target,
            columns: &columns,
            condition: condition.as_ref(),
            limit,
        };
        let distance = index.as_ref().map_or(Distance::Cosine, |it| it.distance);
        let mut answer = match index {
            Some(index) => {
                let order = Order::ByIndex(&index);
                let way = Way::Index(index.clone());
                self.ask(&nearest, way, &order).await?
            }
            None => Answer::nothing(Way::NoIndex(invalid(&indexes))),
        };
        if answer.rows.len() < limit as usize {
            let way = answer.way.then_exact(answer.rows.len());
            let order = Order::Exact(distance);
            answer = self.ask(&nearest, way, &order).await?;
        }
        let mut rows = read_rows(&answer.rows)?;
        // An index may give rows that are almost in order (`ivfflat.iterative_scan`).
        rows.sort_by(|a, b| order(a.distance, b.distance));
        Ok(Found {
            rows,
            columns,
            distance,
            way: answer.way,
            sql: answer.sql,
        })
    }

    /// The condition means what it means in the caller's own sessions: the rest of the transaction has their settings.
    async fn condition(&self, text: &str, existing: &[String]) -> Result<Condition, JobError> {
        self.session
            .batch_execute(&set_local_defaults())
            .await
            .map_err(DatabaseError::during("preparing the condition"))?;
        let condition = Condition::check(self.session, text).await?;
        match refuse_parameters(self.session, &condition, self.query.target, existing).await {
            Ok(()) => Ok(condition),
            Err(error) => Err(self.with_rights(error, None).await),
        }
    }

    async fn ask(
        &self,
        nearest: &Nearest<'_>,
        way: Way,
        order: &Order<'_>,
    ) -> Result<Answer, JobError> {
        let sql = nearest.statement(order);
        match self.session.query(&sql, &[&self.query.vector]).await {
            Ok(rows) => Ok(Answer { rows, way, sql }),
            Err(cause) => {
                let error = DatabaseError::during(self.doing())(cause).into();
                Err(self.with_rights(error, Some(nearest.columns)).await)
            }
        }
    }

    /// Adds to an error about missing rights who lacks them, and what grants them.
    async fn with_rights(&self, error: JobError, columns: Option<&ShownColumns>) -> JobError {
        if !error.is_insufficient_privilege() {
            return error;
        }
        let lacking = Lacking {
            target: self.query.target,
            columns,
            has_condition: self.query.condition.is_some(),
        };
        match lacking.remedy(self.session).await {
            Ok(remedy) => error.with_remedy(remedy),
            Err(_) => error,
        }
    }

    fn doing(&self) -> String {
        format!("searching {}", self.query.target.qualified())
    }
}

/// The name of an index that would serve if its build had been completed.
fn invalid(indexes: &[VectorIndex]) -> Option<String> {
    let invalid = indexes.iter().find(|index| !index.is_valid);
    invalid.map(VectorIndex::qualified)
}

/// NULL and NaN come last, as in SQL.
fn order(a: Option<f64>, b: Option<f64>) -> std::cmp::Ordering {
    let key = |distance: Option<f64>| distance.filter(|distance| !distance.is_nan());
    match (key(a), key(b)) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (a, b) => a.is_none().cmp(&b.is_none()),
    }
}

fn read_rows(rows: &[Row]) -> Result<Vec<FoundRow>, DatabaseError> {
    let rows: Result<_, _> = rows.iter().map(found_row).collect();
    rows.map_err(DatabaseError::during("reading the rows that were found"))
}

fn found_row(row: &Row) -> Result<FoundRow, tokio_postgres::Error> {
    let figure = |index: usize| row.try_get::<_, Option<f64>>(index);
    let cells = (2..row.len()).map(|index| row.try_get(index));
    Ok(FoundRow {
        distance: figure(0)?,
        similarity: figure(1)?.filter(|similarity| !similarity.is_nan()),
        cells: cells.collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn distances_that_are_unknown_come_last() {
        let mut distances = [Some(f64::NAN), Some(2.0), None, Some(-1.0)];
        distances.sort_by(|a, b| order(*a, *b));
        assert_eq!(distances[..2], [Some(-1.0), Some(2.0)]);
    }
}
