//! A job that takes over the column of another one, with another model; and the job whose column was taken over.

use std::sync::Arc;

use super::index::IndexTask;
use super::state::Job;
use super::watchdog::{self, WatchedTable};
use crate::jobs::{InitProgress, JobId, JobRow};
use crate::pipeline::changeover::place::Place;
use crate::pipeline::changeover::stage::{Stage, find_successor};
use crate::pipeline::changeover::takeover::Takeover;
use crate::pipeline::changeover::{attributes, obstacle, stage};
use crate::pipeline::error::JobError;
use crate::pipeline::index::look::is_owner;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::row_access::Sessions;
use crate::pipeline::setup::table_state::TableState;
use crate::pipeline::setup::{ddl, target_database};
use crate::pipeline::slot::session_locks::Identity;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::{ConnectionString, ServerInstance, Session};

/// The most jobs under whose ids the model of one is offered.
const MAX_REPLACED: usize = 100;

impl Job {
    /// What the job works on now. `names` are those of its row.
    ///
    /// # Errors
    /// [`JobError::Replaced`] where another job has its column; permanent ones where the job that it replaces is none that
    /// it could replace; and the server's.
    pub(super) async fn place(
        &mut self,
        session: &Session,
        names: TargetNames,
    ) -> Result<Place, JobError> {
        self.end_if_replaced(session, &names).await?;
        let Some(id) = self.row.definition.replaces.clone() else {
            self.fills_new_column = false;
            return Ok(Place::ordinary(names, &self.row.definition));
        };
        let predecessor = self.reporter.job(&id).await;
        let is_noted =
            |row: &JobRow| row.canceled && row.replaced_by.as_ref() == Some(&self.row.id);
        let is_over = predecessor.as_ref().is_none_or(is_noted);
        let place = Place::of_successor(session, names, &self.row, predecessor.clone()).await?;
        self.fills_new_column = place.changeover.is_some();
        if self.fills_new_column {
            return Ok(place);
        }
        self.offer_in_place_of(id.clone(), predecessor).await;
        if !is_over && let Err(reason) = self.reporter.replaced(&id, &self.row.id).await {
            tracing::warn!("job {id} is replaced by this one and cannot be canceled: {reason}");
        }
        Ok(place)
    }

    /// Programs that name a job which this one has replaced, or one that had been replaced by that, get this one's model: it
    /// is the model of the column now.
    async fn offer_in_place_of(&mut self, mut id: JobId, mut replaced: Option<JobRow>) {
        if !self.offers_of_replaced.is_empty() {
            return;
        }
        let Some(model) = self.model.clone() else {
            return;
        };
        for _ in 0..MAX_REPLACED {
            let offer = self
                .served
                .offer_of_replaced_job(id.as_str(), model.clone());
            self.offers_of_replaced.push(offer);
            let Some(earlier) = replaced.and_then(|row| row.definition.replaces) else {
                return;
            };
            replaced = self.reporter.job(&earlier).await;
            id = earlier;
        }
    }

    /// Ends the attempt where another job has taken over the column of this one. `names` are those of the table.
    async fn end_if_replaced(
        &self,
        session: &Session,
        names: &TargetNames,
    ) -> Result<(), JobError> {
        let successors = self.reporter.successors().await;
        match find_successor(session, names, &self.row, &successors).await? {
            Some(successor) => Err(self.replaced_by(&successor.id).await),
            None => Ok(()),
        }
    }

    async fn replaced_by(&self, successor: &JobId) -> JobError {
        let id = &self.row.id;
        let what = format!("job {id} was replaced by job {successor}, which writes its column now");
        match self.reporter.replaced(id, successor).await {
            Ok(()) => JobError::Replaced(what),
            Err(reason) => JobError::permanent(format!("{what}; {reason}")),
        }
    }

    /// Looks once more at the columns, over the session that holds the fence: since the attempt has read the table, they may
    /// have been exchanged.
    pub(super) async fn check_columns(
        &self,
        session: &Session,
        target: &TargetTable,
        state: &TableState,
        names: &TargetNames,
    ) -> Result<(), JobError> {
        let watched = WatchedTable {
            target,
            publication: None,
            subscription: &self.subscription,
            partitions: &self.partitions,
        };
        watchdog::find_fault(session, watched, state).await?;
        self.end_if_replaced(session, names).await
    }

    /// Has the new column stored as the old one, before it is filled, and says what is in the way of the swap.
    pub(super) async fn prepare_changeover(
        &self,
        sessions: Sessions<'_>,
        place: &Place,
        target: &TargetTable,
    ) -> Result<(), JobError> {
        let Some(changeover) = &place.changeover else {
            return Ok(());
        };
        let columns = &changeover.columns;
        let session = sessions.stream;
        if self.row.progress == InitProgress::New && is_owner(session, target.oid).await? {
            for column in columns.all() {
                let statement = attributes::storage_statement(session, target.oid, column).await?;
                if let Some(statement) = statement {
                    ddl::run(session, &statement).await?;
                }
            }
        }
        for reason in obstacle::of_roles(sessions, &place.names, target.oid, columns).await? {
            tracing::warn!("before the job can take over: {reason}");
        }
        Ok(())
    }

    /// The end of the changeover, if one is under way. `databases` are those of the stream and of the rows.
    pub(super) fn takeover(
        &self,
        place: Place,
        target: &Arc<TargetTable>,
        index: Option<&IndexTask>,
        jobs_server: ServerInstance,
        databases: (&ConnectionString, &ConnectionString),
    ) -> Option<Takeover> {
        let changeover = place.changeover?;
        let replaced = self.row.definition.replaces.as_ref()?;
        let mut roles = vec![self.named(databases.0, "swap")];
        if self.row.definition.write_connection.is_some() {
            roles.push(self.named(databases.1, "swap"));
        }
        Some(Takeover {
            roles,
            names: place.names,
            target: target.clone(),
            changeover,
            wanted: match index {
                Some(IndexTask::Keep(wanted)) => Some(wanted.clone()),
                _ => None,
            },
            slot: self.subscription.names().own.clone(),
            predecessor: Identity::new(jobs_server, self.jobs_table, replaced),
            accepts_failures: self.row.definition.accept_failures,
            reporter: self.reporter.clone(),
        })
    }

    /// Whether the columns were swapped since the attempt began, which then ends with some error or other.
    pub(super) async fn has_swapped(&self) -> bool {
        if !self.fills_new_column {
            return false;
        }
        // A server that does not answer explains nothing.
        self.is_swapped().await.unwrap_or(false)
    }

    async fn is_swapped(&self) -> Result<bool, JobError> {
        let definition = &self.row.definition;
        let database = target_database::from_definition(definition, &self.access)?;
        let session = Session::open(&self.named(&database, "set-up")).await?;
        let found = stage::of_job(&session, definition, &self.row.id).await?;
        Ok(found == Some(Stage::Swapped))
    }
}
