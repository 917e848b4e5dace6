//! The list of all that a job needs of its target database, in one place: for a job that starts and for
//! `lantern-cli check`.
//!
//! A job takes the first failure, a person gets all points. So a refused job says what `check` says, word for word.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::columns::destination_type;
use crate::pipeline::setup::preflight::inspect::{FoundTable, LookedAt, TABLE_POINTS, TableLook};
use crate::pipeline::setup::preflight::points::{Outcome, Points};
use crate::pipeline::setup::preflight::prerequisites::{Lacking, Prerequisites};
use crate::pipeline::setup::preflight::publishing::SlotPlan;
use crate::pipeline::setup::preflight::relation::TableUse;
use crate::pipeline::setup::preflight::server::{
    check_encoding, check_free_slot, check_may_replicate, check_version, check_wal_level,
};
use crate::pipeline::setup::preflight::subject::{NO_SOURCE, Rights, SAID_ABOVE, Subject};
use crate::pipeline::setup::preflight::survey_table::FURTHER_POINTS;
use crate::pipeline::setup::preflight::synchronous::check_synchronous;
use crate::pipeline::setup::preflight::users_code::check_exposure;
use crate::pipeline::setup::publication::add_member::related_refusal;
use crate::pipeline::setup::publication::catalog::{published_changes, related_table};
use crate::pipeline::setup::publication::own;
use crate::pipeline::setup::target_table::assemble;
use crate::pipeline::table::passages::Cutting;
use crate::pipeline::table::target::{DestinationColumn, TargetTable};
use crate::postgres::quote::identifier;

/// Adds all points of a survey that cannot be made, for this reason.
pub fn skip(points: &mut Points, why: &str) {
    points.skip(&[VERSION], why);
    skip_behind_version(points, why);
}

fn skip_behind_version(points: &mut Points, why: &str) {
    points.skip(&SERVER_POINTS, why);
    points.skip(&[USERS_CODE], why);
    points.skip(&TABLE_POINTS, why);
    skip_behind_table(points, why);
}

fn skip_behind_table(points: &mut Points, why: &str) {
    points.skip(&FURTHER_POINTS, why);
    points.skip(&[PUBLICATION], why);
}

/// What a survey has found.
#[derive(Default)]
pub struct Surveyed {
    /// All points, in the order of the list.
    pub points: Points,
    /// The table, as far as it is as the job needs it.
    pub looked: Option<LookedAt>,
    /// The table, where every point of it is as the job needs it.
    pub table: Option<FoundTable>,
    /// Who could gain rights through the role that writes, in words, where that is not refused.
    pub exposure: Option<String>,
    /// The role of the stream has the rights of the table's owner.
    pub owns_table: bool,
}

/// The point that comes first.
const VERSION: &str = "version";
/// The points of the server.
const SERVER_POINTS: [&str; 4] = ["encoding", "wal_level", "slots", "privileges"];
/// Named only where it is wrong: most servers have no synchronous standby.
const SYNCHRONOUS: &str = "synchronous standbys";
/// Whose code runs with rights of the role.
const USERS_CODE: &str = "users' code";
const MAY_PUBLISH: &str = "the role may publish the table";
/// The point that comes last.
const PUBLICATION: &str = "publication";

impl Subject<'_> {
    /// Looks at everything. Changes nothing.
    ///
    /// Cancellation safe: it only reads.
    pub async fn survey(self) -> Surveyed {
        let mut found = Surveyed::default();
        let version = check_version(self.sessions.stream);
        let shown = |version: &String| format!("PostgreSQL {version}");
        if found.points.note(VERSION, version, shown).is_none() {
            skip_behind_version(&mut found.points, "the server is too old to ask");
            return found;
        }
        self.look_at_server(&mut found.points).await;
        let rights = self.look_at_rights(&mut found.points).await;
        let prerequisites = rights.prerequisites.as_ref();
        found.owns_table = prerequisites.is_some_and(Prerequisites::owns_table);
        found.exposure = self.look_at_exposure(&mut found.points, &rights).await;
        let look = TableLook {
            session: self.sessions.rows,
            names: self.names,
            dimensions: self.dimensions,
            table_use: TableUse::Followed,
            asks_for_rights: !rights.are_said,
        };
        let table = look.run(&mut found.points).await;
        match table {
            Some(table) => {
                self.look_further(&mut found.points, &table, &rights).await;
                found.table = table.clone().whole(self.names);
                found.looked = Some(table);
                self.look_at_publication(&mut found, &rights).await;
            }
            None => skip_behind_table(&mut found.points, "there is no table to look at"),
        }
        found
    }

    async fn look_at_server(&self, points: &mut Points) {
        let session = self.sessions.stream;
        let [encoding, wal_level, slots, _] = SERVER_POINTS;
        points.note(encoding, check_encoding(session).await, String::clone);
        points.note(wal_level, check_wal_level(session).await, |()| {
            "logical".into()
        });
        points.note_failure(SYNCHRONOUS, check_synchronous(session).await);
        let own = self.slot.names();
        let own = own.map_or_else(Vec::new, |names| vec![&names.own, &names.shared]);
        points.note(slots, check_free_slot(session, &own).await, |room| {
            let own = match room.has_own {
                true => ", that of the job among them",
                false => "",
            };
            format!("{} of {} are in use{own}", room.used, room.limit)
        });
    }

    async fn look_at_rights(&self, points: &mut Points) -> Rights {
        let [.., privileges] = SERVER_POINTS;
        let (stream, names) = (self.sessions.stream, self.names);
        let read = Prerequisites::read(self.sessions, names, self.slot).await;
        let prerequisites = points.note_failure(privileges, read).flatten();
        let column_type = self.definition.column_type.as_deref();
        // The point of new columns says what is wrong with a type.
        let kind = destination_type(stream, column_type, self.dimensions).await;
        let kind = kind.unwrap_or_else(|_| "real[]".to_owned());
        let checked = match &prerequisites {
            // Statements for a misspelt column would only do harm.
            Some(found) if !found.has_source() => {
                points.skip(&[privileges], NO_SOURCE);
                None
            }
            found => found.as_ref().map(|found| found.check_all(names, &kind)),
        };
        let are_said = match checked {
            Some(Err(error)) => {
                points.add(privileges, Outcome::Failed(error));
                true
            }
            Some(Ok(Lacking::Nothing)) => {
                let passed = "all that the job needs".to_owned();
                points.add(privileges, Outcome::Passed(passed));
                false
            }
            // Its own point says what it is.
            Some(Ok(Lacking::OneThing)) | None => false,
        };
        if !are_said {
            let may = check_may_replicate(stream).await;
            points.note("replication", may, |role| {
                format!("the role {role} may replicate")
            });
        }
        Rights {
            prerequisites,
            are_said,
            kind,
        }
    }

    async fn look_at_exposure(&self, points: &mut Points, rights: &Rights) -> Option<String> {
        let (rows, powerful) = (self.sessions.rows, self.powerful_roles);
        let mut exposure = check_exposure(rows, &self.names.written(), powerful).await;
        if self.names.passages.is_some() && matches!(exposure, Ok(None)) {
            // Reading the texts may run code, too. And the owner of the texts may become that of the passages.
            exposure = check_exposure(rows, &self.names.qualified(), powerful).await;
        }
        // A role that may not use the schema cannot look its code up.
        if rights.are_said && matches!(&exposure, Err(error) if error.is_insufficient_privilege()) {
            points.skip(&[USERS_CODE], SAID_ABOVE);
            return None;
        }
        let found = points.note_failure(USERS_CODE, exposure)?;
        let outcome = match &found {
            Some(exposure) => Outcome::Advice(exposure.clone()),
            None => Outcome::Passed("none that could gain rights of the role".into()),
        };
        points.add(USERS_CODE, outcome);
        found
    }

    /// Whether what the job needs is published for it. A prepared publication may be one for other columns.
    async fn look_at_publication(&self, found: &mut Surveyed, rights: &Rights) {
        let Some(prerequisites) = &rights.prerequisites else {
            return;
        };
        if rights.are_said {
            return;
        }
        if !prerequisites.has_source() {
            found.points.skip(&[PUBLICATION], NO_SOURCE);
            return;
        }
        let mut table = found.table.clone();
        if let (Some(table), true) = (&mut table, self.names.passages.is_some()) {
            // What is published for the job does not depend on its table for passages, which may not exist yet.
            let destination = DestinationColumn::planned(&self.names.destination, &rights.kind);
            table.destination.get_or_insert(destination);
        }
        let target = table.and_then(|table| assemble(table, self.names, "", Cutting::default()));
        let may = prerequisites.check_publishing(self.names, &rights.kind);
        let checked = match (may, target) {
            (Ok(()), Some(target)) => self.find_publication(rights, prerequisites, &target).await,
            (Ok(()), None) => Ok(MAY_PUBLISH.to_owned()),
            (Err(error), _) => Err(error),
        };
        found.points.note(PUBLICATION, checked, String::clone);
    }

    /// The error where no prepared publication serves the job.
    async fn no_publication(
        &self,
        rights: &Rights,
        prerequisites: &Prerequisites,
        target: &TargetTable,
    ) -> Result<JobError, JobError> {
        if target.passages.is_some()
            && let Some(name) =
                own::find_prepared_without_deletes(self.sessions.stream, target).await?
        {
            return Ok(JobError::permanent(format!(
                "the publication {name} publishes no deletes and truncates, which a job with a chunk_table needs; run as its \
                 owner: ALTER PUBLICATION {} SET (publish = '{}');",
                identifier(&name),
                published_changes(target)
            )));
        }
        Ok(prerequisites.no_publication(self.names, &rights.kind))
    }

    /// Where the changes of the table come from, in words.
    async fn find_publication(
        &self,
        rights: &Rights,
        prerequisites: &Prerequisites,
        target: &TargetTable,
    ) -> Result<String, JobError> {
        let session = self.sessions.stream;
        if let SlotPlan::Shared(Some(names)) = self.slot
            && let Some(other) = related_table(session, &names.shared, target).await?
        {
            return Err(related_refusal(target, &other));
        }
        if !prerequisites.relies_on_prepared() {
            return Ok(MAY_PUBLISH.to_owned());
        }
        match own::find_prepared(session, target).await? {
            Some(name) => Ok(format!("{name} serves the job")),
            None => Err(self.no_publication(rights, prerequisites, target).await?),
        }
    }
}
