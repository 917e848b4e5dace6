//! The table with its model: what is missing, and how much there is to do.

use std::sync::Arc;

use super::look::OpenTable;
use super::{EmbedTable, index};
use crate::embedding::Model;
use crate::pipeline::backfill::scope::BackfillScope;
use crate::pipeline::error::JobError;
use crate::pipeline::index::wanted::WantedIndex;
use crate::pipeline::setup::preflight::inspect::FoundTable;
use crate::pipeline::setup::row_access::Sessions;
use crate::pipeline::setup::{columns_of_command, target_table};
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::write::path::WriteOptions;
use crate::postgres::answer::columns;
use crate::postgres::{ConnectionString, DatabaseError};

/// A table that was looked at, with its model.
pub struct PlannedTable<'a> {
    open: OpenTable<'a>,
    model: Model,
    found: FoundTable,
    /// As it will be once its columns exist.
    target: TargetTable,
    index: Option<WantedIndex>,
    missing: Vec<(String, String)>,
}

/// How much there is to do.
pub struct Counts {
    /// Rows of the table for which the condition is true.
    pub rows: u64,
    /// Those of them that would be embedded, or cleared.
    pub to_do: u64,
}

impl<'a> PlannedTable<'a> {
    /// Looks at the table again, with the dimensions of the model's vectors.
    ///
    /// # Errors
    /// Permanent, with the remedy; and the server's.
    pub async fn new(open: OpenTable<'a>, model: Model) -> Result<PlannedTable<'a>, JobError> {
        let dimensions = model.dimensions();
        let found = open.look(Some(dimensions)).await?;
        let (session, names, definition) = (&open.session, &open.names, &open.request.definition);
        let target =
            target_table::planned(session, names, definition, found.clone(), dimensions).await?;
        let target = target.ok_or_else(|| JobError::Transient("the table is gone".into()))?;
        let index = match &open.names.index {
            None => None,
            Some(options) => {
                let wanted = WantedIndex::new(&target, dimensions, options);
                let wanted = wanted.map_err(JobError::permanent)?;
                index::check(&open.session, &target, &wanted).await?;
                Some(wanted)
            }
        };
        let missing = open.missing_columns(&found, Some(dimensions)).await?;
        Ok(PlannedTable {
            open,
            model,
            found,
            target,
            index,
            missing,
        })
    }

    /// The columns that will be created, each with its type as SQL.
    pub fn missing(&self) -> &[(String, String)] {
        &self.missing
    }

    /// Whether the column for the vectors exists already.
    pub fn has_destination(&self) -> bool {
        self.target.destination.exists
    }

    /// The index that was asked for.
    pub fn index(&self) -> Option<&WantedIndex> {
        self.index.as_ref()
    }

    /// The server that the command has reached.
    pub fn database(&self) -> &ConnectionString {
        self.open.session.server()
    }

    /// Counts the rows, now.
    ///
    /// # Errors
    /// The server's.
    pub async fn count(&self) -> Result<Counts, JobError> {
        let within = self.within().unwrap_or_else(|| "true".to_owned());
        let statement = format!(
            "SELECT count(*), count(*) FILTER (WHERE {}) FROM {} t WHERE {within}",
            self.to_do(),
            self.target.from_clause()
        );
        let counted = self.open.session.query_one(&statement, &[]).await;
        let counted: Result<(i64, i64), _> = counted.and_then(|row| columns(&row));
        let (rows, to_do) = counted.map_err(DatabaseError::during(format!(
            "counting the rows of {}",
            self.target.qualified()
        )))?;
        Ok(Counts {
            rows: rows.unsigned_abs(),
            to_do: to_do.unsigned_abs(),
        })
    }

    /// Creates the missing columns, and keeps jobs and other commands from writing them.
    ///
    /// # Errors
    /// Permanent, with the remedy, also where a job writes one of them; and the server's.
    ///
    /// Cancellation safe: each column is created in a statement of its own, or not at all.
    pub async fn complete(self) -> Result<EmbedTable, JobError> {
        let within = self.within();
        let OpenTable {
            request,
            names,
            session,
            ..
        } = self.open;
        let definition = &request.definition;
        columns_of_command::acquire(&session, &self.target).await?;
        let sessions = Sessions::of_one_role(&session);
        let target =
            target_table::complete(sessions, &names, definition, self.found, &self.model).await?;
        columns_of_command::acquire(&session, &target).await?;
        let scope = match request.all {
            true => BackfillScope::All,
            false => BackfillScope::for_resync(definition, &target),
        };
        Ok(EmbedTable {
            database: session.server().clone(),
            options: WriteOptions::from_definition(definition),
            target: Arc::new(target),
            model: self.model,
            session,
            scope,
            within,
        })
    }

    /// The condition as part of another one. A comment in it ends with its line.
    fn within(&self) -> Option<String> {
        let within = self.open.request.within.as_ref();
        within.map(|condition| format!("({condition}\n)"))
    }

    /// SQL over the row `t` that is true for the rows to embed. Columns that do not exist yet are empty.
    fn to_do(&self) -> String {
        let (target, request) = (&self.target, self.open.request);
        let lacks_fingerprint =
            self.open.names.fingerprint.is_some() && target.fingerprint.is_none();
        if !target.destination.exists {
            return format!("{} IS NOT NULL", target.source.plain_sql("t"));
        }
        let scope = match request.all || lacks_fingerprint {
            true => BackfillScope::All,
            false => BackfillScope::for_resync(&request.definition, target),
        };
        scope.condition(target)
    }
}
