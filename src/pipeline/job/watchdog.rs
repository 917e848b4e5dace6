//! The questions about a table that are asked each second while its job streams, unless nothing was committed on the server
//! since.
//!
//! - **Does the publication harm the table's users?** UPDATE of a table that is published with its updates fails where it has
//!   no replica identity, or one with columns that are not published (PostgreSQL manual, "Publication"). A user may change
//!   that at any time; then the publication is dropped, and the job fails or starts over with one that fits.
//! - **Does the publication still serve the job?** Servers from 18 on leave out what a missing publication would have
//!   published, without an error. Then the job starts again and scans.
//! - **Is the table still the same?** Its name, its visibility, its columns, what its texts are made of: see
//!   [`TableState`]. The stream goes by the table's OID and shows nothing of that.
//! - **Are the partitions the same?** One that was attached has rows that no change brings, and one may be outside of the
//!   WAL.
//! - **Does another session need the database for itself?** Then the job leaves it, and comes back by itself.
//! - **Do commits wait for every reader of a stream?** Then the job waits until they do not.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::pipeline::backfill::partitions::Partitions;
use crate::pipeline::capture::subscription::Subscription;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::database_watch::{DatabaseWatch, DatabaseWatches};
use crate::pipeline::setup::leaves;
use crate::pipeline::setup::passages_state::PassagesFault;
use crate::pipeline::setup::preflight::generated::virtual_under_full;
use crate::pipeline::setup::preflight::partitions::{Root, find_unsuitable};
use crate::pipeline::setup::preflight::privileges::check_all_rows_visible;
use crate::pipeline::setup::preflight::synchronous::refuse_if_all_count;
use crate::pipeline::setup::publication::check::Defect;
use crate::pipeline::setup::table_state::{TableFault, TableState};
use crate::pipeline::table::leaf::Leaf;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::Session;
use crate::postgres::quote::identifier;
use crate::ticks;

const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A table and what belongs to it.
#[derive(Clone, Copy)]
pub struct WatchedTable<'a> {
    /// The table as it was when the attempt began.
    pub target: &'a TargetTable,
    /// The publication that the job streams from; `None` while it has none yet.
    pub publication: Option<&'a str>,
    /// Knows what the publication must be like.
    pub subscription: &'a Subscription,
    /// The partitions that the job knows.
    pub partitions: &'a Partitions,
}

/// Returns when the attempt has to end: see the head of this file, or when the database cannot be asked. `state` is that of
/// the table when the attempt began.
///
/// Shares the session of the write-backs. A question that falls into an aborted transaction is asked again the next time.
///
/// Cancellation safe.
pub async fn watch(
    session: Arc<Session>,
    watched: WatchedTable<'_>,
    state: TableState,
    databases: DatabaseWatches,
) -> JobError {
    let mut watchdog = Watchdog {
        session,
        watched,
        state,
        databases,
        database: None,
        seen: None,
    };
    let mut clock = ticks::together(CHECK_INTERVAL, watched.target.oid);
    // The first look is at once: since the attempt has read the table, it has created a slot, which may have taken long.
    loop {
        match watchdog.look().await {
            Ok(()) => {}
            Err(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => {}
            Err(error) => return error,
        }
        clock.tick().await;
    }
}

/// The state of [`watch`].
struct Watchdog<'a> {
    session: Arc<Session>,
    watched: WatchedTable<'a>,
    state: TableState,
    databases: DatabaseWatches,
    database: Option<DatabaseWatch>,
    /// The snapshot before the last look at the table.
    seen: Option<String>,
}

impl Watchdog<'_> {
    async fn look(&mut self) -> Result<(), JobError> {
        let session = &self.session;
        let database = match &mut self.database {
            Some(database) => database,
            database => database.insert(self.databases.of(session).await?),
        };
        let now = database.state(session).await?;
        if let Some(leave) = now.leave {
            return Err(JobError::Transient(leave.reason().into()));
        }
        refuse_if_all_count(&now.standbys)?;
        // A session that is gone has to be noticed, too.
        if self.seen.as_ref() == Some(&now.snapshot) && !session.is_closed() {
            return Ok(());
        }
        let state = find_fault(session, self.watched, &self.state).await?;
        warn_of_children(self.watched.target, self.state.children(), state.children());
        (self.state, self.seen) = (state, Some(now.snapshot));
        Ok(())
    }
}

/// Returns the state of the table if the job can go on.
///
/// # Errors
/// Why the attempt has to end, or the server's.
///
/// Cancellation safe: it only reads.
pub async fn find_fault(
    session: &Session,
    watched: WatchedTable<'_>,
    before: &TableState,
) -> Result<TableState, JobError> {
    let WatchedTable {
        target,
        publication,
        subscription,
        partitions,
    } = watched;
    let leaves = match target.partitioned {
        true => leaves::read(session, target.oid, &target.source.columns(), None).await?,
        false => Vec::new(),
    };
    let now = TableState::read(session, target, &leaves).await?;
    if let Some(fault) = before.find_fault(&now, target) {
        return Err(consequence(session, target, fault).await);
    }
    if target.partitioned {
        partitions.note_files(now.partition_files().unwrap_or_default());
    }
    check_leaves(session, target, &leaves)?;
    let Some(publication) = publication else {
        return Ok(now);
    };
    if let Some(Defect {
        reason,
        harms_users,
    }) = subscription
        .find_defect(session, publication, target)
        .await?
    {
        let reason = format!("the publication {publication} {reason}");
        return Err(match harms_users {
            true => JobError::Withdrawn(reason),
            false => JobError::Transient(reason),
        });
    }
    match partitions.attached_with_rows(session, &leaves).await? {
        Some(name) => Err(JobError::Transient(format!(
            "the partition {name} was attached with rows in it"
        ))),
        None => Ok(now),
    }
}

fn check_leaves(session: &Session, target: &TargetTable, leaves: &[Leaf]) -> Result<(), JobError> {
    let root = Root {
        table: &target.qualified(),
        key: &target.key,
        identity_full: target.identity_full,
        version: session.version(),
    };
    match find_unsuitable(root, leaves) {
        Some(reason) => Err(JobError::permanent(reason)),
        None => Ok(()),
    }
}

/// What a fault of the table means for the attempt.
async fn consequence(session: &Session, target: &TargetTable, fault: TableFault) -> JobError {
    let table = target.qualified();
    let gone = |column: &str, option: &str, otherwise: &str| {
        JobError::permanent(format!(
            "the column {} ({option}) of {table} is gone: if it was renamed, correct {option} in the jobs table; \
             {otherwise}",
            identifier(column)
        ))
    };
    let created_again =
        "if it was dropped, set init_failed_at to NULL, and the job creates it again";
    match fault {
        TableFault::Replaced => JobError::TableGone(format!(
            "{table} is another table now than the one that the job followed; the job starts over with it"
        )),
        TableFault::Gone(None) => JobError::TableGone(format!(
            "the table {table} was dropped; the job waits for a table of this name"
        )),
        TableFault::Gone(Some(called)) => JobError::TableGone(format!(
            "the table {table} is called {called} now; the job waits for a table of its name"
        )),
        TableFault::IdentityLost => JobError::permanent(target.lost_identity()),
        TableFault::IdentityNothing => JobError::permanent(target.identity_nothing()),
        TableFault::IdentityFull => JobError::permanent(target.identity_full()),
        TableFault::KeyChanged(columns) => JobError::permanent(target.changed_key(&columns)),
        TableFault::VirtualColumn(column) => {
            JobError::permanent(virtual_under_full(&table, &column))
        }
        TableFault::RowsHidden => match check_all_rows_visible(session, &table, target.oid).await {
            Err(error) => error,
            // A policy that came and went. What write-backs missed meanwhile is scanned.
            Ok(()) => JobError::Withdrawn(format!(
                "row level security hid rows of {table} from the daemon's role for a moment"
            )),
        },
        TableFault::SourceGone => gone(
            &target.source.name,
            "src_column",
            "if it was dropped, name another one or delete the job",
        ),
        TableFault::FieldGone(column) => JobError::permanent(format!(
            "the column {} of {table}, which the job's template names, is gone: if it was renamed, correct template in \
             runtime_params; if it was dropped, remove it from there",
            identifier(&column)
        )),
        TableFault::DestinationGone => gone(&target.destination.name, "dst_column", created_again),
        TableFault::FingerprintGone => {
            let name = target
                .fingerprint
                .as_ref()
                .map_or("", |column| &column.name);
            gone(name, "fingerprint_column", created_again)
        }
        TableFault::Retyped => JobError::Transient(format!(
            "the key or the destination of {table} has another type now; the job reads the table's definition again"
        )),
        TableFault::Redefined => JobError::Withdrawn(target.redefined()),
        TableFault::Passages(fault) => of_passages(target, fault),
    }
}

/// What a fault of the table for passages means. The next attempt creates what is missing, or says what does not fit.
fn of_passages(target: &TargetTable, fault: PassagesFault) -> JobError {
    let (table, passages) = (target.qualified(), target.written().qualified());
    match fault {
        PassagesFault::Gone => JobError::PassagesUnverified(format!(
            "the table {passages} (chunk_table) is gone; the job creates it again and looks at every row"
        )),
        PassagesFault::Replaced => JobError::PassagesUnverified(format!(
            "{passages} (chunk_table) is another table now than the one that the job has filled; the job looks at every row"
        )),
        PassagesFault::PartitionEmptied => JobError::PassagesUnverified(format!(
            "a partition of {table} was truncated, rewritten, detached or dropped, which the stream does not show; the job \
             looks at every row"
        )),
        PassagesFault::Hidden => JobError::Transient(format!(
            "row level security hides passages in {passages} (chunk_table) from the daemon's role"
        )),
        PassagesFault::Retyped => JobError::Transient(format!(
            "the columns or the key of {passages} (chunk_table) are other ones now; the job reads the table's definition again"
        )),
        PassagesFault::OtherColumns => JobError::Transient(format!(
            "{table} has other columns now; the job makes the view of its documents again"
        )),
        PassagesFault::ViewGone => JobError::Transient(format!(
            "the view of the documents in {passages} (chunk_table) is gone; the job makes it again"
        )),
    }
}

/// Warns of tables that inherit from the job's, those that are in `known` left out.
pub fn warn_of_children(target: &TargetTable, known: &[String], children: &[String]) {
    for child in children.iter().filter(|child| !known.contains(child)) {
        tracing::warn!("{}", target.ignored_child(child));
    }
}
