//! The list of all that a job needs of its target database, in one place: for a job that starts and for
//! `lantern-cli check`.
//!
//! A job takes the first failure, a person gets all points. So a refused job says what `check` says, word for word.

use crate::jobs::Definition;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::columns::{FINGERPRINT_TYPE, destination_type};
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::leaves;
use crate::pipeline::setup::preflight::fingerprint::check_fingerprint;
use crate::pipeline::setup::preflight::generated::check_generated;
use crate::pipeline::setup::preflight::inspect::{FoundTable, LookedAt, TABLE_POINTS, TableLook};
use crate::pipeline::setup::preflight::key::check_pk;
use crate::pipeline::setup::preflight::partitions::{Root, find_unsuitable};
use crate::pipeline::setup::preflight::points::{Outcome, Points};
use crate::pipeline::setup::preflight::prerequisites::{Lacking, Prerequisites};
use crate::pipeline::setup::preflight::privileges::check_writable;
use crate::pipeline::setup::preflight::publishing::SlotPlan;
use crate::pipeline::setup::preflight::relation::find_column;
use crate::pipeline::setup::preflight::rules::check_rules;
use crate::pipeline::setup::preflight::server::{
    check_encoding, check_free_slot, check_may_replicate, check_version, check_wal_level,
};
use crate::pipeline::setup::preflight::triggers::check_may_skip;
use crate::pipeline::setup::preflight::users_code::{PowerfulRoles, check_exposure};
use crate::pipeline::setup::publication::own;
use crate::pipeline::setup::row_access::Sessions;
use crate::pipeline::setup::target_table::assemble;
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

/// What is looked at for a job.
#[derive(Clone, Copy)]
pub struct Survey<'a> {
    /// The sessions of its roles.
    pub sessions: Sessions<'a>,
    /// Its names.
    pub names: &'a TargetNames,
    /// Its definition.
    pub definition: &'a Definition,
    /// The dimensions of its model, where they are known.
    pub dimensions: Option<usize>,
    /// The slot that it gets.
    pub slot: SlotPlan<'a>,
    /// What to do if others could gain rights through its role.
    pub powerful_roles: PowerfulRoles,
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
}

/// The point that comes first.
const VERSION: &str = "version";
/// The points of the server.
const SERVER_POINTS: [&str; 4] = ["encoding", "wal_level", "slots", "privileges"];
/// Whose code runs with rights of the role.
const USERS_CODE: &str = "users' code";
/// The point that comes last.
const PUBLICATION: &str = "publication";
/// The points that follow those of the table, and are there for every job.
const FURTHER_POINTS: [&str; 3] = ["writing", "new columns", "rules"];

impl Survey<'_> {
    /// Looks at everything. Changes nothing.
    ///
    /// Cancellation safe: it only reads.
    pub async fn run(self) -> Surveyed {
        let mut found = Surveyed::default();
        let version = check_version(self.sessions.stream);
        let shown = |version: &String| format!("PostgreSQL {version}");
        if found.points.note(VERSION, version, shown).is_none() {
            skip_behind_version(&mut found.points, "the server is too old to ask");
            return found;
        }
        self.look_at_server(&mut found.points).await;
        let rights = self.look_at_rights(&mut found.points).await;
        found.exposure = self.look_at_exposure(&mut found.points).await;
        let look = TableLook {
            session: self.sessions.rows,
            names: self.names,
            dimensions: self.dimensions,
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
        let checked = prerequisites
            .as_ref()
            .map(|found| found.check_all(names, self.dimensions));
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
        }
    }

    async fn look_at_exposure(&self, points: &mut Points) -> Option<String> {
        let table = self.names.qualified();
        let exposure = check_exposure(self.sessions.rows, &table, self.powerful_roles).await;
        let found = points.note_failure(USERS_CODE, exposure)?;
        let outcome = match &found {
            Some(exposure) => Outcome::Advice(exposure.clone()),
            None => Outcome::Passed("none that could gain rights of the role".into()),
        };
        points.add(USERS_CODE, outcome);
        found
    }

    async fn look_further(&self, points: &mut Points, table: &LookedAt, rights: &Rights) {
        let [writing, new_columns, rules] = FURTHER_POINTS;
        let (names, rows, definition) = (self.names, self.sessions.rows, self.definition);
        match (&table.key, definition.pk.as_deref()) {
            (Some(key), Some(asked)) => {
                let checked = check_pk(names, key, Some(asked));
                points.note("pk", checked, |()| asked.to_owned());
            }
            (None, Some(_)) => points.skip(&["pk"], "the table has no usable key"),
            (_, None) => {}
        }
        if rights.are_said {
            points.skip(&[writing], "see what the role lacks, above");
        } else {
            let writable = check_writable(rows, names, &table.columns).await;
            points.note(writing, writable, |()| "the role may write".into());
        }
        if let Some(name) = &names.fingerprint {
            let checked = check_fingerprint(names, &table.columns);
            points.note("fingerprint", checked, |()| names.qualified_column(name));
        }
        points.note_failure(
            "generated columns",
            check_generated(names, &table.relation, &table.columns),
        );
        self.look_at_partitions(points, table).await;
        self.look_at_new_columns(points, new_columns, table, rights)
            .await;
        let skips = definition.skip_triggers;
        if skips {
            let may = check_may_skip(rows).await;
            points.note("skip_triggers", may, |()| {
                "the role may skip triggers".into()
            });
        }
        let found = check_rules(rows, (table.relation.oid, &names.qualified()), skips).await;
        points.note(rules, found, |()| "none rewrites a write-back".into());
        warn_of_not_null(points, names, table);
    }

    async fn look_at_partitions(&self, points: &mut Points, table: &LookedAt) {
        let point = "partitions";
        if !table.relation.partitioned {
            return;
        }
        let (Some(key), Some(source)) = (&table.key, &table.source) else {
            points.skip(&[point], "its key or its source is not known");
            return;
        };
        let session = self.sessions.rows;
        let leaves = leaves::read(session, table.relation.oid, &source.name, None).await;
        let Some(leaves) = points.note_failure(point, leaves) else {
            return;
        };
        let root = Root {
            table: &self.names.qualified(),
            key,
            identity_full: table.relation.has_identity_full(),
            version: session.version(),
        };
        let checked = match find_unsuitable(root, &leaves) {
            Some(reason) => Err(JobError::permanent(reason)),
            None => Ok(leaves.len()),
        };
        points.note(point, checked, |count| format!("{count} can be followed"));
    }

    async fn look_at_new_columns(
        &self,
        points: &mut Points,
        point: &'static str,
        table: &LookedAt,
        rights: &Rights,
    ) {
        let mut missing = Vec::new();
        if find_column(&table.columns, &self.names.destination).is_none() {
            let requested = self.definition.column_type.as_deref();
            let stream = self.sessions.stream;
            let kind = destination_type(stream, requested, self.dimensions).await;
            let Some(kind) = points.note_failure(point, kind) else {
                return;
            };
            missing.push((self.names.destination.as_str(), kind));
        }
        if let Some(name) = &self.names.fingerprint
            && find_column(&table.columns, name).is_none()
        {
            missing.push((name, FINGERPRINT_TYPE.to_owned()));
        }
        let Some(prerequisites) = rights.prerequisites.as_ref() else {
            return;
        };
        if missing.is_empty() || rights.are_said {
            return;
        }
        let checked = prerequisites.check_additions(self.names, &missing);
        points.note(point, checked, |()| {
            let list = missing.iter();
            let list: Vec<String> = list
                .map(|(name, kind)| format!("{} {kind}", identifier(name)))
                .collect();
            format!("the job creates {}", list.join(" and "))
        });
    }

    /// Whether what the job needs is published for it. A prepared publication may be one for other columns.
    async fn look_at_publication(&self, found: &mut Surveyed, rights: &Rights) {
        let Some(prerequisites) = &rights.prerequisites else {
            return;
        };
        if rights.are_said {
            return;
        }
        let names = self.names;
        let table = found.table.clone();
        let target = table.and_then(|table| assemble(table, names, ""));
        let checked = match (prerequisites.check_publishing(names), target) {
            (Ok(()), Some(target)) if prerequisites.relies_on_prepared() => {
                let serving = own::find_prepared(self.sessions.stream, &target).await;
                match serving {
                    Ok(Some(name)) => Ok(format!("{name} serves the job")),
                    Ok(None) => Err(prerequisites.no_publication(names)),
                    Err(error) => Err(error.into()),
                }
            }
            (Ok(()), _) => Ok("the role may publish the table".to_owned()),
            (Err(error), _) => Err(error),
        };
        found.points.note(PUBLICATION, checked, String::clone);
    }
}

/// What the roles may do, as far as it was asked for.
struct Rights {
    /// `None` where there is no table.
    prerequisites: Option<Prerequisites>,
    /// All that the roles lack was said at one point.
    are_said: bool,
}

/// A row without a text has no vector, which such a column cannot say. Tables whose texts are never empty do not mind.
fn warn_of_not_null(points: &mut Points, names: &TargetNames, table: &LookedAt) {
    let column = find_column(&table.columns, &names.destination);
    if column.is_some_and(|column| column.not_null) {
        points.add(
            "destination",
            Outcome::Advice(format!(
                "{} (dst_column) is NOT NULL: a row whose text is NULL or empty cannot be cleared and is quarantined; run: \
                 ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL;",
                names.qualified_column(&names.destination),
                names.qualified(),
                identifier(&names.destination)
            )),
        );
    }
}
