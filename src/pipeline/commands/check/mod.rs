//! `check`: all that a job needs, looked at as the daemon's own role would, before or while a daemon runs.
//!
//! ```text
//! model ─▶ connection ─▶ survey ─▶ walsender ─▶ other writers ─▶ advice
//!          └─ fails: the rest cannot be looked at
//! ```
//!
//! The survey is the one of a job that starts (`setup/preflight/survey.rs`), so both say the same words. What stands
//! beside it is either the very function that the job calls, or advice, which keeps no job from starting.
//!
//! | file | holds |
//! | --- | --- |
//! | `chunk_table_advice` | what the chunk table of a job could be spared |
//! | `index` | whether the index that the job asks for can be built |
//! | `model` | whether the model and the library are there |
//! | `server_advice` | what the server could be spared, or could do to the slot |
//! | `storage` | how a table is stored, and vacuumed |
//! | `table_advice` | what the table could be spared |

mod chunk_table_advice;
mod index;
mod model;
mod server_advice;
mod storage;
mod table_advice;

use crate::embedding::{Engine, Model};
use crate::jobs::{InitProgress, JobRow, JobStore};
use crate::pipeline::changeover::obstacle;
use crate::pipeline::changeover::place::{Changeover, Place};
use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::points::{Outcome, Points};
use crate::pipeline::setup::preflight::publishing::SlotPlan;
use crate::pipeline::setup::preflight::server::{is_standby, standby_refusal};
use crate::pipeline::setup::preflight::subject::Subject;
use crate::pipeline::setup::preflight::survey;
use crate::pipeline::setup::preflight::users_code::PowerfulRoles;
use crate::pipeline::setup::row_access::Sessions;
use crate::pipeline::setup::target_table::{self, assemble};
use crate::pipeline::setup::written_columns::{self, Claim};
use crate::pipeline::setup::{copies, row_access, target_database};
use crate::pipeline::slot::catalog::find_slot;
use crate::pipeline::slot::names::JobNames;
use crate::pipeline::slot::session_locks::Identity;
use crate::pipeline::slot::walsender;
use crate::pipeline::table::passages::Cutting;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::{ConnectionString, DatabaseError, JobAccess, ServerInstance, Session};

/// A job to look at, and the daemon that would run it.
pub struct Check<'a> {
    /// The job's row. One that does not exist yet has an empty id.
    pub row: &'a JobRow,
    /// The jobs table, of a job that exists.
    pub store: Option<&'a JobStore>,
    /// Loads models of this machine, and downloads none.
    pub engine: &'a Engine,
    /// The daemon would download a missing model.
    pub downloads: bool,
    /// What jobs may name.
    pub access: &'a JobAccess,
    /// What the daemon does if others could gain rights.
    pub powerful_roles: PowerfulRoles,
    /// The daemon runs with `--slots database`.
    pub shares_slots: bool,
    /// The label of the daemon.
    pub label: Option<&'a str>,
}

/// A session for looking: the server refuses every change.
///
/// # Errors
/// The server's.
pub async fn open_read_only(database: &ConnectionString) -> Result<Session, DatabaseError> {
    let session = Session::open(&database.named("check")).await?;
    forbid_changes(&session).await?;
    Ok(session)
}

async fn forbid_changes(session: &Session) -> Result<(), DatabaseError> {
    session
        .batch_execute("SET default_transaction_read_only = on")
        .await
        .map_err(DatabaseError::during("making the session read-only"))
}

/// Adds all points of a job that cannot be looked at, for this reason.
pub fn skip(points: &mut Points, why: &str) {
    points.skip(
        &["definition", model::MODEL, model::LIBRARY, "connection"],
        why,
    );
    skip_target(points, why);
}

/// Adds all points behind the connection that cannot be looked at.
fn skip_target(points: &mut Points, why: &str) {
    survey::skip(points, why);
    points.skip(&["walsender", OTHER_JOBS], why);
    server_advice::skip(points, why);
    table_advice::skip(points, why);
}

const NO_CONNECTION: &str = "there is no connection with the target";
/// Whether the job can take over the column of another one.
const REPLACES: &str = "replaces";
/// Whether another job writes the same columns.
const OTHER_JOBS: &str = "other jobs";

impl Check<'_> {
    /// Looks at everything that can be looked at, and adds it to `points`. Changes nothing.
    ///
    /// Cancellation safe: it only reads.
    pub async fn run(&self, points: &mut Points) {
        let names = TargetNames::from_definition(&self.row.definition);
        let names = points.note("definition", names, |_| self.row.definition.to_string());
        let (dimensions, model) = match &names {
            Some(names) => self.look_at_model(points, names).await,
            None => (None, None),
        };
        let database = target_database::from_definition(&self.row.definition, self.access);
        let session = match points.note_failure("connection", database) {
            Some(database) => self.connect(points, &database).await,
            None => None,
        };
        let (Some(session), Some(names)) = (session, names) else {
            return skip_target(points, NO_CONNECTION);
        };
        let of_rows = self.connect_for_rows(&session).await;
        let Some(of_rows) = points.note_failure("write_connection", of_rows) else {
            return skip_target(points, NO_CONNECTION);
        };
        let sessions = Sessions {
            stream: &session,
            rows: of_rows.as_ref().unwrap_or(&session),
        };
        let place = self.place(sessions.stream, names).await;
        match points.note_failure(REPLACES, place) {
            Some(place) => {
                let model = (dimensions, model.as_ref());
                self.look_at_target(points, sessions, &place, model).await;
            }
            None => skip_target(points, "the job cannot replace the other one"),
        }
    }

    /// What the job works on now.
    async fn place(&self, session: &Session, names: TargetNames) -> Result<Place, JobError> {
        let (Some(store), Some(replaced)) = (self.store, &self.row.definition.replaces) else {
            return Ok(Place::ordinary(names, &self.row.definition));
        };
        let predecessor = store.rows_with_id(replaced).await?.pop();
        Place::of_successor(session, names, self.row, predecessor).await
    }

    async fn connect(&self, points: &mut Points, database: &ConnectionString) -> Option<Session> {
        let opened = open_read_only(database).await;
        let session = points.note_failure("connection", opened)?;
        let checked = match is_standby(&session).await {
            Ok(true) => Err(standby_refusal(self.row.progress)),
            Ok(false) => Ok(session),
            Err(error) => Err(error.into()),
        };
        points.note("connection", checked, |session| {
            session.server().to_string()
        })
    }

    /// `None` where the job names one role.
    async fn connect_for_rows(&self, session: &Session) -> Result<Option<Session>, JobError> {
        let Some(rows) = target_database::of_rows(&self.row.definition, self.access)? else {
            return Ok(None);
        };
        let session = row_access::open(&rows.named("check"), session).await?;
        forbid_changes(&session).await?;
        Ok(Some(session))
    }

    async fn look_at_target(
        &self,
        points: &mut Points,
        sessions: Sessions<'_>,
        place: &Place,
        (dimensions, model): (Option<usize>, Option<&Model>),
    ) {
        let Place {
            names,
            definition,
            changeover,
        } = place;
        let job_names = self
            .store
            .map(|store| JobNames::new(store.table().identity(), self.label, self.row));
        let slot = match self.shares_slots && !self.row.definition.needs_own_slot() {
            true => SlotPlan::Shared(job_names.as_ref()),
            false => SlotPlan::Own(job_names.as_ref()),
        };
        if let (Some(store), Some(job_names)) = (self.store, &job_names) {
            let found = stand_back(store, sessions.rows, job_names).await;
            points.note_failure("copies", found);
        }
        let subject = Subject {
            sessions,
            names,
            definition,
            dimensions,
            model,
            slot,
            powerful_roles: self.powerful_roles,
        };
        let surveyed = subject.survey().await;
        points.append(surveyed.points);
        look_at_walsender(points, sessions.stream, slot).await;
        let target = surveyed
            .table
            .clone()
            .and_then(|table| assemble(table, names, "", Cutting::default()));
        if let (Some(store), Some(job_names)) = (self.store, &job_names) {
            let found = self
                .find_other_writer(store, sessions.stream, job_names, target.as_ref())
                .await;
            points.note(OTHER_JOBS, found, |()| {
                "none writes the same columns".into()
            });
        }
        let progress = self.row.progress;
        let planned = match surveyed.table.zip(dimensions) {
            Some((table, dimensions)) => {
                let stream = sessions.stream;
                let planned = target_table::planned(stream, names, definition, table, dimensions);
                // The survey has said why the column cannot be created.
                planned.await.ok().flatten()
            }
            None => None,
        };
        let vectors = planned.as_ref().zip(dimensions);
        index::look(points, sessions, names, vectors, progress).await;
        server_advice::give(points, sessions.stream, slot, progress, surveyed.owns_table).await;
        if let (Some(changeover), Some(table)) = (changeover, &surveyed.looked) {
            let table = table.relation.oid;
            look_at_changeover(points, sessions, names, table, changeover).await;
        }
        match &surveyed.looked {
            Some(table) => {
                table_advice::give(points, sessions.rows, names, definition, table).await;
                if let Some(oid) = table.chunk_table {
                    chunk_table_advice::give(points, sessions.rows, names, oid).await;
                }
            }
            None => table_advice::skip(points, "there is no table to look at"),
        }
    }

    /// Fails where another job writes a column of this one, as the job itself does. `target` is the table if it has the
    /// columns.
    async fn find_other_writer(
        &self,
        store: &JobStore,
        session: &Session,
        names: &JobNames,
        target: Option<&TargetTable>,
    ) -> Result<(), JobError> {
        let rows = store.all_rows().await?.rows;
        let first = rows
            .iter()
            .filter(|row| !row.canceled && !row.failed)
            .find(|other| self.row.comes_after(other));
        if let Some(first) = first {
            let reason = written_columns::refusal(&self.row.definition, &first.id);
            return Err(JobError::Permanent(reason));
        }
        let Some(target) = target else { return Ok(()) };
        let jobs_server = ServerInstance::of(store.session()).await?;
        let claim = Claim {
            identity: Identity::new(jobs_server, store.table().identity(), &self.row.id),
            names,
            is_newcomer: self.row.progress == InitProgress::New,
        };
        claim.check(session, target).await
    }
}

/// Says what is in the way of the swap.
async fn look_at_changeover(
    points: &mut Points,
    sessions: Sessions<'_>,
    names: &TargetNames,
    table: u32,
    changeover: &Changeover,
) {
    let columns = &changeover.columns;
    let asked = obstacle::of_roles(sessions, names, table, columns).await;
    let Some(reasons) = points.note_failure(REPLACES, asked) else {
        return;
    };
    if reasons.is_empty() {
        let column = names.qualified_column(&columns.destination.name);
        let passed = format!("takes over {column} once every row has its vector");
        points.add(REPLACES, Outcome::Passed(passed));
    }
    for reason in reasons {
        let advice = format!("before the job can take over: {reason}");
        points.add(REPLACES, Outcome::Advice(advice));
    }
}

/// Logs in as a walsender, as the job does. Where there is none left, one that runs has its own.
async fn look_at_walsender(points: &mut Points, session: &Session, slot: SlotPlan<'_>) {
    let opened = walsender::connect(&session.server().named("check"), &[]).await;
    let has_slot = match slot.slot() {
        Some(name) => find_slot(session, name)
            .await
            .is_ok_and(|slot| slot.is_some()),
        None => false,
    };
    match opened {
        Err(error) if has_slot && error.is_transient() => {
            points.add("walsender", Outcome::Advice(error.to_string()));
        }
        opened => {
            points.note("walsender", opened, |_| {
                "the server lets the role replicate".into()
            });
        }
    }
}

/// Fails where a daemon with another copy of the jobs table runs the job.
async fn stand_back(store: &JobStore, session: &Session, names: &JobNames) -> Result<(), JobError> {
    let jobs_server = ServerInstance::of(store.session()).await?;
    copies::stand_back(session, names, jobs_server).await
}
