//! Why an attempt of a job ended: one sentence for a person, and for the code whether another attempt can help.
//!
//! ```text
//! transient ───────────▶ retry after a pause
//! requires a new slot ─▶ drop the slot, retry; the next attempt backfills
//! withdraws ───────────▶ drop the job's publication (its part in a shared one), retry; the next attempt backfills
//! permanent ───────────▶ fail the job: drop slot and publication, write the reason into the jobs table
//! ```

use tokio_postgres::error::SqlState;

use crate::embedding::{EmbeddingError, ModelNameError};
use crate::postgres::DatabaseError;
use crate::postgres::connection_string::InvalidConnectionString;
use crate::postgres::job_access::AccessDenied;
use crate::postgres::sqlstate::classify;
use crate::replication::ReplicationError;
use crate::replication::pgoutput::DecodeError;

/// An error that ends the current attempt of a job.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// A person has to change something first. The message says what.
    #[error("{0}")]
    Permanent(String),
    /// Another attempt may succeed.
    #[error("{0}")]
    Transient(String),
    /// Another attempt may succeed, with a new slot: the old one is unusable or does harm.
    #[error("{0}")]
    NewSlotRequired(String),
    /// The server refuses the daemon's login, or a setting of it forbids to stream. Whether that is worth another attempt
    /// depends on the job: see [`is_access_refusal`](Self::is_access_refusal).
    #[error("{0}")]
    AccessRefused(String),
    /// Another job, or a daemon with a copy of the jobs database, works where this job would. The job leaves everything
    /// as it is, and looks again later.
    #[error("{0}")]
    StandsBack(String),
    /// Another attempt may succeed. Until then nothing of the job may stay on the server, because the publication makes
    /// statements of the table's users fail, or brings changes with which the job's vectors would not be right.
    #[error("{0}")]
    Withdrawn(String),
    /// The table that the job has followed is gone from its name. As [`Withdrawn`](Self::Withdrawn); the job waits for a
    /// table of that name.
    #[error("{0}")]
    TableGone(String),
    /// There is no table of the job's name. Permanent for a job that has never had one.
    #[error("{0}")]
    TableMissing(String),
    /// Another job has taken over the column of this one, which has nothing to do any more. It ends as soon as its row
    /// says so.
    #[error("{0}")]
    Replaced(String),
    /// Passages may be missing, or may be of rows that are gone, without a change in the stream. Another attempt may succeed,
    /// and looks at every row.
    #[error("{0}")]
    PassagesUnverified(String),
    /// The columns of the job have exchanged their names. The next attempt goes on at once, with those of now.
    #[error("{0}")]
    Swapped(String),
    /// The server cannot send a change of a row, each time that it comes to it. Another attempt needs a new slot behind that
    /// change.
    #[error("the server cannot send a change of a row: {0}")]
    Unsendable(String),
    /// An SQL session failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The replication connection failed.
    #[error(transparent)]
    Replication(#[from] ReplicationError),
    /// The model could not be loaded, or did not embed.
    #[error(transparent)]
    Embedding(#[from] EmbeddingError),
    /// `embedding_model` is not a model name.
    #[error(transparent)]
    ModelName(#[from] ModelNameError),
    /// `db_connection` is not a connection string.
    #[error("db_connection of the job: {0}")]
    ConnectionString(#[from] InvalidConnectionString),
    /// `db_connection` names a host or a file that a job may not use.
    #[error(transparent)]
    Access(#[from] AccessDenied),
}

impl JobError {
    /// A permanent error with this message.
    pub fn permanent(message: impl Into<String>) -> Self {
        JobError::Permanent(message.into())
    }

    /// The batcher has ended before the task that feeds it. Its own error says why.
    pub fn batcher_stopped() -> Self {
        JobError::Transient("the batcher has stopped".into())
    }

    /// Whether another attempt may succeed without a change by a person.
    pub fn is_transient(&self) -> bool {
        match self {
            JobError::Permanent(_)
            | JobError::AccessRefused(_)
            | JobError::TableMissing(_)
            | JobError::ModelName(_)
            | JobError::ConnectionString(_)
            | JobError::Access(_) => false,
            JobError::Transient(_)
            | JobError::NewSlotRequired(_)
            | JobError::StandsBack(_)
            | JobError::Replaced(_)
            | JobError::Swapped(_)
            | JobError::PassagesUnverified(_)
            | JobError::Unsendable(_)
            | JobError::Withdrawn(_)
            | JobError::TableGone(_) => true,
            JobError::Database(error) => error.is_transient(),
            JobError::Replication(error) => {
                is_transient_replication_error(error) || self.requires_new_slot()
            }
            JobError::Embedding(error) => error.is_transient(),
        }
    }

    /// Whether a server refuses the daemon, as after a change of a password, or of the key of a model's
    /// server. A job that has never run fails: its row is most likely wrong. For one that has, this is an outage.
    pub fn is_access_refusal(&self) -> bool {
        match self {
            JobError::AccessRefused(_) => true,
            JobError::Database(error) => error.is_access_refusal(),
            JobError::Replication(error) => error.code() == Some(&SqlState::DATABASE_DROPPED),
            JobError::Embedding(error) => error.is_refusal(),
            _ => false,
        }
    }

    /// Whether another attempt needs a new slot.
    ///
    /// The server reports `undefined_object` for a publication that did not exist at some position in the WAL, and for the
    /// slot itself; `object_not_in_prerequisite_state` for a slot that it has invalidated (`slot.c`).
    pub fn requires_new_slot(&self) -> bool {
        match self {
            JobError::NewSlotRequired(_) | JobError::Unsendable(_) => true,
            JobError::Replication(error) => {
                let unusable = [
                    SqlState::UNDEFINED_OBJECT,
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                ];
                error.code().is_some_and(|code| unusable.contains(code)) || is_unsendable(error)
            }
            _ => false,
        }
    }

    /// Whether nothing of the job may stay on the server until the next attempt.
    pub fn withdraws(&self) -> bool {
        matches!(self, JobError::Withdrawn(_) | JobError::TableGone(_))
    }

    /// Whether a statement failed because of what its objects are, or are no more: a user may have changed them since the
    /// attempt read their definitions (class 42, a schema that is gone, a plan that no longer fits).
    pub fn may_be_outdated(&self) -> bool {
        !self.is_transient()
            && self.code().is_some_and(|code| {
                let code = code.code();
                code.starts_with("42") || ["3F000", "0A000"].contains(&code)
            })
    }

    /// A copy for one of several jobs that the error ends. Keeps the message and what to do about it.
    pub fn for_each_job(&self) -> JobError {
        let message = self.to_string();
        if matches!(self, JobError::Replication(error) if is_unsendable(error)) {
            JobError::Unsendable(message)
        } else if self.requires_new_slot() {
            JobError::NewSlotRequired(message)
        } else if self.is_access_refusal() {
            JobError::AccessRefused(message)
        } else if self.is_transient() {
            JobError::Transient(message)
        } else {
            JobError::Permanent(message)
        }
    }

    /// Whether a statement failed because the role lacks a privilege.
    pub fn is_insufficient_privilege(&self) -> bool {
        self.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
    }

    /// The SQLSTATE with which a statement failed.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            JobError::Database(error) => error.code(),
            _ => None,
        }
    }

    /// Adds to a permanent error what a person can do about it. A table that is gone meanwhile needs no remedy: the next
    /// attempt tells.
    pub fn with_remedy(self, remedy: impl std::fmt::Display) -> Self {
        if self.is_transient() || self.code() == Some(&SqlState::UNDEFINED_TABLE) {
            return self;
        }
        JobError::Permanent(format!("{self}; {remedy}"))
    }
}

/// The server sent a message that is not of the protocol. A new connection may fare better.
impl From<DecodeError> for JobError {
    fn from(error: DecodeError) -> Self {
        JobError::Transient(format!("the replication stream is not understood: {error}"))
    }
}

/// A task of the job panicked or was aborted.
impl From<tokio::task::JoinError> for JobError {
    fn from(error: tokio::task::JoinError) -> Self {
        JobError::Transient(format!("a task of the job ended early: {error}"))
    }
}

/// Whether the server failed at the content of a change, as it will each time that it comes to it: a text without a UTF-8
/// form, or a row that is larger than a message can be (1 GB).
fn is_unsendable(error: &ReplicationError) -> bool {
    let ReplicationError::Server { code, message, .. } = error else {
        return false;
    };
    let of_content = [
        SqlState::CHARACTER_NOT_IN_REPERTOIRE,
        SqlState::UNTRANSLATABLE_CHARACTER,
        SqlState::PROGRAM_LIMIT_EXCEEDED,
    ];
    // `palloc` in `mcxt.c`; the server does not translate it.
    let too_large = "invalid memory alloc request size";
    of_content.contains(code) || *code == SqlState::INTERNAL_ERROR && message.starts_with(too_large)
}

/// Whether a replication connection may fare better later, without a change by a person.
pub fn is_transient_replication_error(error: &ReplicationError) -> bool {
    let by_code = error.code().map(|code| classify(code).is_transient());
    by_code.unwrap_or_else(|| error.is_link_failure())
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn a_walsender_is_tried_again_after_what_may_pass() {
        let server = |code| ReplicationError::Server {
            code: SqlState::from_code(code),
            severity: "FATAL".into(),
            message: "no".into(),
            detail: None,
            hint: None,
        };
        let tls = |kind| ReplicationError::Tls(Box::new(Error::from(kind)));
        for (error, transient) in [
            (server("57P01"), true),
            (server("57P03"), true),
            (server("53300"), true),
            (server("55006"), true),
            (server("28P01"), false),
            (server("3D000"), false),
            (server("57P04"), false),
            (server(""), false),
            (ReplicationError::Closed, true),
            (ReplicationError::Io(ErrorKind::BrokenPipe.into()), true),
            (tls(ErrorKind::UnexpectedEof), true),
            (tls(ErrorKind::InvalidData), false),
            (ReplicationError::Protocol("no".into()), false),
            (ReplicationError::Config("no".into()), false),
        ] {
            let name = format!("{error:?}");
            assert_eq!(JobError::from(error).is_transient(), transient, "{name}");
        }
        // The database of a running stream was dropped: it may come back.
        assert!(JobError::from(server("57P04")).is_access_refusal());
        for code in ["22021", "22P05", "54000"] {
            let error = JobError::from(server(code));
            assert!(error.requires_new_slot() && error.is_transient(), "{code}");
            assert!(
                matches!(error.for_each_job(), JobError::Unsendable(_)),
                "{code}"
            );
        }
        // A slot that is gone, or that the server has invalidated, is created again.
        for code in ["42704", "55000"] {
            let error = JobError::from(server(code));
            assert!(error.requires_new_slot() && error.is_transient(), "{code}");
        }
    }
}
