//! The slot of a job, found without knowing how its daemon was started: its own one, or a shared one of which it is a
//! member.

use super::names::MemberId;
use crate::postgres::answer::all;
use crate::postgres::{DatabaseError, Session};
use crate::replication::{Lsn, SlotName};

/// A slot that has the changes of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSlot {
    /// Its name.
    pub name: String,
    /// Everything up to here is confirmed; `None` while it is being created.
    pub confirmed: Option<Lsn>,
    /// A walsender reads it, for a daemon.
    pub is_read: bool,
    /// The server has removed its WAL. A daemon replaces it.
    pub is_lost: bool,
}

impl JobSlot {
    /// Whether everything up to this position is confirmed.
    pub fn has_confirmed(&self, position: Lsn) -> bool {
        !self.is_lost
            && self
                .confirmed
                .is_some_and(|confirmed| confirmed >= position)
    }
}

/// The slots in this database of the job whose own slot is called `own`, or would be. There is one at most, except while
/// a daemon changes from own to shared slots.
///
/// The identity of the jobs table is a part of the name, and of another value for roles that may not read the server's
/// system identifier, or that see the table through a view. So if no slot has that of `own`, those of any identity count
/// that are of the same job under the same definition.
///
/// # Errors
/// The server's.
pub async fn find_job_slots(
    session: &Session,
    own: &SlotName,
) -> Result<Vec<JobSlot>, DatabaseError> {
    let member = MemberId::from_slot(own).to_string();
    let prefix = own.as_str().strip_suffix(&member).unwrap_or_default();
    let failed = || DatabaseError::during("looking for the replication slot of the job");
    let question = session.repeated(FIND).await.map_err(failed())?;
    let found: Vec<(String, Option<String>, bool, bool)> = session
        .query(&question, &[&member])
        .await
        .and_then(|rows| all(&rows))
        .map_err(failed())?;
    let slot =
        |(name, confirmed, is_read, is_lost): (String, Option<String>, bool, bool)| JobSlot {
            name,
            confirmed: confirmed.and_then(|lsn| lsn.parse().ok()),
            is_read,
            is_lost,
        };
    let mut slots: Vec<JobSlot> = found.into_iter().map(slot).collect();
    if slots.iter().any(|slot| slot.name.starts_with(prefix)) {
        slots.retain(|slot| slot.name.starts_with(prefix));
    }
    Ok(slots)
}

/// The slots of one member, whose id consists of letters, digits and underscores. The comment on a shared publication
/// lists its members.
const FIND: &str = "SELECT s.slot_name::text, s.confirmed_flush_lsn::text, s.active, \
        COALESCE(s.wal_status = 'lost', false) \
     FROM pg_replication_slots s LEFT JOIN pg_publication p ON p.pubname = s.slot_name \
     WHERE s.database = current_database() \
       AND (s.slot_name ~ ('^lantern_[0-9a-f]{8}_' || $1 || '$') \
            OR s.slot_name ~ '^lantern_[0-9a-f]{8}_db_[0-9a-f]{16}$' \
               AND obj_description(p.oid, 'pg_publication') ~ (' ' || $1 || '@'))";
