//! How a job gets the changes of its table: by a slot of its own, or by one that all jobs of the database share.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::jobs::reporter::Reporter;
use crate::pipeline::capture::open::{Sharing, SlotSource};
use crate::pipeline::capture::registry::ReaderRegistry;
use crate::pipeline::capture::slot_reader::{Member, Membership, SlotReader};
use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::add_member::add_member;
use crate::pipeline::setup::publication::drop::drop_slot_and_publication;
use crate::pipeline::setup::publication::remove_member::remove_member;
use crate::pipeline::setup::publication::{own, shared};
use crate::pipeline::slot::create::NewSlot;
use crate::pipeline::slot::names::MemberId;
use crate::pipeline::slot::retention::WatchedSlot;
use crate::pipeline::slot::retention_limit::RetentionLimit;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::{ConnectionString, DatabaseError, Session};
use crate::replication::{Lsn, SlotName};

/// A job's claim to changes.
#[derive(Clone)]
pub struct Subscription {
    /// What the job's own slot and publication are called, whether they are used or not.
    own: SlotName,
    /// Those that are shared, in the same way.
    shared: SlotName,
    feeds: Option<ReaderRegistry>,
    limit: RetentionLimit,
    reporter: Reporter,
}

/// A publication that misses nothing.
pub struct Intact(String);

/// What a job can begin with.
pub struct Provided {
    pub publication: String,
    is_intact: bool,
    since: Arc<OnceLock<Lsn>>,
}

impl Subscription {
    /// With `feeds` the shared slot is used. `limit` is the most WAL that the slot may hold back.
    pub fn new(
        own: SlotName,
        shared: SlotName,
        feeds: Option<ReaderRegistry>,
        limit: RetentionLimit,
        reporter: Reporter,
    ) -> Self {
        Subscription {
            own,
            shared,
            feeds,
            limit,
            reporter,
        }
    }

    /// The slot that is read.
    pub fn slot(&self) -> &SlotName {
        match self.feeds {
            Some(_) => &self.shared,
            None => &self.own,
        }
    }

    /// What names the job and its definition, for whatever must be its alone.
    pub fn name(&self) -> &SlotName {
        &self.own
    }

    fn member(&self) -> MemberId {
        MemberId::from_slot(&self.own)
    }

    /// Whether publication and slot are all there and no change can have been missed; `None` where it can, or where nothing is
    /// there yet.
    ///
    /// # Errors
    /// The server's.
    pub async fn intact(
        &self,
        session: &Session,
        target: &TargetTable,
    ) -> Result<Option<Intact>, JobError> {
        if self.feeds.is_none() {
            let publication = own::find_unbroken(session, &self.own, target).await?;
            return Ok(publication.map(Intact));
        }
        let intact = shared::is_usable(session, &self.shared).await?
            && self.defect(session, "", target).await?.is_none();
        Ok(intact.then(|| Intact(self.shared.to_string())))
    }

    /// Makes what is the job's alone, where it is not intact. Whatever the job has in the other way goes.
    ///
    /// # Errors
    /// As [`own::create`] has them.
    pub async fn provide(
        &self,
        session: &Session,
        database: &ConnectionString,
        target: &TargetTable,
        intact: Option<Intact>,
    ) -> Result<Provided, JobError> {
        let is_intact = intact.is_some();
        let publication = match (intact, &self.feeds) {
            (Some(Intact(publication)), _) => publication,
            (None, Some(_)) => {
                drop_slot_and_publication(session, &self.own).await?;
                self.shared.to_string()
            }
            (None, None) => {
                remove_member(session, &self.shared, &self.member()).await?;
                let slot = NewSlot {
                    watched: &self.watched(database.clone()),
                    reporter: &self.reporter,
                };
                own::create(session, &slot, target).await?
            }
        };
        Ok(Provided {
            publication,
            is_intact,
            since: Arc::default(),
        })
    }

    /// Begins to stream; a shared slot is made first, where there is none of use.
    ///
    /// # Errors
    /// As [`SlotReader::join`] and [`ReaderRegistry::join`] have them.
    ///
    /// Cancellation safe.
    pub async fn begin(
        &self,
        session: &Session,
        database: &ConnectionString,
        target: &Arc<TargetTable>,
        provided: &Provided,
        stop: CancellationToken,
    ) -> Result<Membership, JobError> {
        let member = Member {
            id: self.member(),
            target: target.clone(),
            intact: provided.is_intact,
            since: provided.since.clone(),
            stop,
        };
        let watched = self.watched(database.clone());
        if let Some(feeds) = &self.feeds {
            let slot = NewSlot {
                watched: &watched,
                reporter: &self.reporter,
            };
            return feeds.join(session, &slot, member).await;
        }
        // All that the job's own slot brings.
        let _ = member.since.set(Lsn::ZERO);
        let feed = SlotReader::start(SlotSource {
            database: watched.database,
            purpose: "job".into(),
            slot: watched.slot,
            publication: provided.publication.clone(),
            sharing: Sharing::Own,
        });
        feed.join(member).await
    }

    /// Sees to it that every change of the table that a scan from now on may not find comes through the stream. That may have to
    /// wait for the table; the job's rows should be worked on meanwhile, as others wait behind them.
    ///
    /// # Errors
    /// Transient ones where the table's lock is not to be had, or the job is intact no more; definite ones with a remedy.
    pub async fn admit(
        &self,
        session: &Session,
        target: &TargetTable,
        provided: &Provided,
    ) -> Result<(), JobError> {
        let member = self.member();
        if self.feeds.is_none() {
            return Ok(());
        }
        if !provided.is_intact {
            let since = add_member(session, &self.shared, &member, target).await?;
            let _ = provided.since.set(since);
        } else if let Some(defect) =
            shared::find_defect(session, &self.shared, &member, target).await?
        {
            return Err(JobError::Transient(format!(
                "the publication {} {defect}",
                self.shared
            )));
        }
        Ok(())
    }

    /// Why the publication that the job streams from does not serve it any more, as the rest of a sentence.
    pub async fn defect(
        &self,
        session: &Session,
        publication: &str,
        target: &TargetTable,
    ) -> Result<Option<String>, DatabaseError> {
        match &self.feeds {
            None => own::find_defect(session, publication, target).await,
            Some(_) => shared::find_defect(session, &self.shared, &self.member(), target).await,
        }
    }

    /// The slot is of no use any more: its absence is what tells the next attempt, also that of another daemon, that changes
    /// were missed. A shared one has been dropped by whoever read it.
    ///
    /// # Errors
    /// The server's.
    pub async fn give_up(&self, database: &ConnectionString) -> Result<(), JobError> {
        if self.feeds.is_none() {
            drop_slot_and_publication(&Session::open(database).await?, &self.own).await?;
        }
        Ok(())
    }

    /// The job's slot, as a thing whose WAL is watched; `None` where that is done for all.
    pub fn to_watch(&self, database: ConnectionString) -> Option<WatchedSlot> {
        self.feeds.is_none().then(|| self.watched(database))
    }

    fn watched(&self, database: ConnectionString) -> WatchedSlot {
        WatchedSlot {
            database,
            slot: self.slot().clone(),
            limit: self.limit,
        }
    }
}
