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
//! Of a job that cuts its documents into passages the nearest passage of each document is found. Several of the nearest
//! passages may be of one document, so more of them are taken from the index than documents are asked for, and more again
//! while there are too few documents.
//!
//! | file | holds |
//! | --- | --- |
//! | [`columns`] | the columns to show |
//! | [`condition`] | whether the condition is one expression |
//! | [`statement`] | the SELECT |
//! | `passages` | the same for passages |
//! | [`settings`] | how far an index is searched |
//! | `rights` | what the role lacks |
//! | [`found`] | what was found |
//! | [`explain`] | which index was used, and the server's plan |

pub mod columns;
pub mod condition;
pub mod explain;
pub mod found;
mod passages;
mod rights;
pub mod settings;
pub mod statement;

use tokio_postgres::Row;

use crate::pipeline::commands::search::columns::{ShownColumns, all_columns};
use crate::pipeline::commands::search::condition::{Condition, refuse_parameters};
use crate::pipeline::commands::search::found::{FoundRow, order, read_candidates, read_rows};
use crate::pipeline::commands::search::passages::NearestPassages;
use crate::pipeline::commands::search::rights::Lacking;
use crate::pipeline::commands::search::statement::{Nearest, Order};
use crate::pipeline::error::JobError;
use crate::pipeline::index::catalog::{self, VectorIndex};
use crate::pipeline::table::distance::Distance;
use crate::pipeline::table::passages::PassageTable;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::user_settings::set_local_defaults;
use crate::postgres::{DatabaseError, Session};

/// How many passages are taken from an index at first, for each document that is asked for.
const PASSAGES_PER_DOCUMENT: u64 = 4;
/// By how much that grows while there are too few documents.
const GROWTH: u64 = 8;
/// How often passages are taken from an index before every one is compared.
const MAX_ROUNDS: u32 = 3;

/// What is searched for.
pub struct Query<'a> {
    /// The table.
    pub target: &'a TargetTable,
    /// The columns to show besides the key, as the caller wrote them. Empty: the source column; none of a job with
    /// passages.
    pub columns: &'a [String],
    /// The caller's condition.
    pub condition: Option<&'a str>,
    /// The most rows. Each of them is a document where the job has passages.
    pub limit: u32,
    /// The vector of the query.
    pub vector: &'a [f32],
}

/// How the rows were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// With the index, if the planner chose it.
    Index(VectorIndex),
    /// Every vector was compared: the index gave only so many rows, or passages of so many documents.
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

/// What one statement gave.
struct Answer {
    rows: Vec<Row>,
    way: Way,
    sql: String,
}

/// What decides how rows are found.
struct Plan<'a> {
    columns: &'a ShownColumns,
    condition: Option<&'a Condition>,
    /// By what they are ordered.
    distance: Distance,
    /// The index to use.
    index: Option<VectorIndex>,
    /// How they are found where there is none.
    without_index: Way,
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
        let (column, written) = (&target.destination.name, target.written().oid);
        let indexes = catalog::read(self.session, written, column).await?;
        let index = catalog::best(&indexes).cloned();
        if let Some(schema) = &target.destination.vector_schema {
            let candidates = match target.passages {
                Some(_) => u64::from(limit) * PASSAGES_PER_DOCUMENT,
                None => limit.into(),
            };
            settings::search_far(self.session, schema, candidates).await?;
        }
        let condition = match self.query.condition {
            Some(text) => Some(self.condition(text, &existing).await?),
            None => None,
        };
        let distance = index.as_ref().map_or(Distance::Cosine, |it| it.distance);
        let plan = Plan {
            columns: &columns,
            condition: condition.as_ref(),
            distance,
            without_index: Way::NoIndex(invalid(&indexes)),
            index,
        };
        let answer = match &target.passages {
            Some(passages) => self.nearest_passages(passages, plan).await?,
            None => self.nearest_rows(plan).await?,
        };
        let mut rows = read_rows(&answer.rows, target.passages.is_some())?;
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

    async fn nearest_rows(&self, plan: Plan<'_>) -> Result<Answer, JobError> {
        let Query { target, limit, .. } = self.query;
        let Plan {
            columns, condition, ..
        } = plan;
        let nearest = Nearest {
            target,
            columns,
            condition,
            limit,
        };
        let mut way = plan.without_index;
        if let Some(index) = plan.index {
            let sql = nearest.statement(&Order::ByIndex(&index));
            let rows = self.ask(&sql, columns).await?;
            if rows.len() >= limit as usize {
                let way = Way::Index(index);
                return Ok(Answer { rows, way, sql });
            }
            way = Way::TooFew(index, rows.len());
        }
        let sql = nearest.statement(&Order::Exact(plan.distance));
        let rows = self.ask(&sql, columns).await?;
        Ok(Answer { rows, way, sql })
    }

    async fn nearest_passages(
        &self,
        passages: &PassageTable,
        plan: Plan<'_>,
    ) -> Result<Answer, JobError> {
        let Query { target, limit, .. } = self.query;
        let Plan {
            columns, condition, ..
        } = plan;
        let nearest = NearestPassages {
            target,
            passages,
            columns,
            condition,
            limit,
        };
        let mut way = plan.without_index;
        if let Some(index) = plan.index {
            let mut documents = 0;
            for round in 0..MAX_ROUNDS {
                let candidates = u64::from(limit) * PASSAGES_PER_DOCUMENT * GROWTH.pow(round);
                let sql = nearest.by_index(&index, candidates);
                let rows = self.ask(&sql, columns).await?;
                documents = rows.len();
                if documents >= limit as usize {
                    let way = Way::Index(index);
                    return Ok(Answer { rows, way, sql });
                }
                if read_candidates(&rows)? < candidates {
                    break;
                }
            }
            way = Way::TooFew(index, documents);
        }
        let sql = nearest.exact(plan.distance);
        let rows = self.ask(&sql, columns).await?;
        Ok(Answer { rows, way, sql })
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

    async fn ask(&self, sql: &str, columns: &ShownColumns) -> Result<Vec<Row>, JobError> {
        match self.session.query(sql, &[&self.query.vector]).await {
            Ok(rows) => Ok(rows),
            Err(cause) => {
                let error = DatabaseError::during(self.doing())(cause).into();
                Err(self.with_rights(error, Some(columns)).await)
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
