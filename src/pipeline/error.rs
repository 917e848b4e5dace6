//! Why a job stops, in one sentence for a person, and whether trying again can help.

use tokio_postgres::error::SqlState;

use crate::embedding::{EmbeddingError, ModelNameError};
use crate::postgres::DatabaseError;
use crate::postgres::allowed_hosts::HostNotAllowed;
use crate::postgres::connection_string::InvalidConnectionString;
use crate::postgres::sqlstate::classify;
use crate::replication::ReplicationError;

/// An error that ends the current attempt of a job.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Somebody has to change something first; the sentence says what.
    #[error("{0}")]
    Definite(String),
    /// A definite error that left a publication behind which would make the user's own statements fail.
    #[error("{0}")]
    Harmful(String),
    /// Passes by itself.
    #[error("{0}")]
    Transient(String),
    /// Passes with a new slot: the old one is of no use any more, or does harm.
    #[error("{0}")]
    StartOver(String),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Replication(#[from] ReplicationError),
    #[error(transparent)]
    Embedding(#[from] EmbeddingError),
    #[error(transparent)]
    ModelName(#[from] ModelNameError),
    #[error("db_connection of the job: {0}")]
    ConnectionString(#[from] InvalidConnectionString),
    #[error(transparent)]
    Host(#[from] HostNotAllowed),
}

impl JobError {
    pub fn definite(message: impl Into<String>) -> Self {
        JobError::Definite(message.into())
    }

    /// True where another attempt may succeed without anybody's doing.
    pub fn is_transient(&self) -> bool {
        match self {
            JobError::Definite(_)
            | JobError::Harmful(_)
            | JobError::ModelName(_)
            | JobError::ConnectionString(_)
            | JobError::Host(_) => false,
            JobError::Transient(_) | JobError::StartOver(_) => true,
            JobError::Database(error) => error.is_transient(),
            JobError::Replication(error) => {
                is_transient_replication_error(error) || self.gives_up_slot()
            }
            JobError::Embedding(error) => error.is_transient(),
        }
    }

    /// True where another attempt needs a new slot: the WAL cannot be replayed, or is not to be.
    ///
    /// The server says `undefined_object` of a publication that was missing at some place in the WAL, or of the slot itself,
    /// and `object_not_in_prerequisite_state` of a slot that it has invalidated.
    pub fn gives_up_slot(&self) -> bool {
        let useless = [
            &SqlState::UNDEFINED_OBJECT,
            &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        ];
        match self {
            JobError::StartOver(_) => true,
            JobError::Replication(error) => {
                error.code().is_some_and(|code| useless.contains(&code))
            }
            _ => false,
        }
    }

    /// The same for one of several jobs that it ends.
    pub fn for_each(&self) -> JobError {
        let message = self.to_string();
        if self.gives_up_slot() {
            JobError::StartOver(message)
        } else if self.is_transient() {
            JobError::Transient(message)
        } else {
            JobError::Definite(message)
        }
    }

    /// True for a definite refusal by the server because of missing rights.
    pub fn is_privilege(&self) -> bool {
        self.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
    }

    /// The SQLSTATE of an error that a statement ended with.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            JobError::Database(error) => error.code(),
            _ => None,
        }
    }

    /// Adds what a person can do about a definite error.
    pub fn with_remedy(self, remedy: String) -> Self {
        if self.is_transient() {
            return self;
        }
        JobError::Definite(format!("{self}; {remedy}"))
    }
}

/// Whether a replication connection may do better later, without a change by a person.
pub fn is_transient_replication_error(error: &ReplicationError) -> bool {
    let by_code = error.code().map(|code| classify(code).is_transient());
    by_code.unwrap_or_else(|| error.is_link_failure())
}

/// For errors of statements that need no wrapping: transient or definite as SQLSTATE says.
pub fn is_retryable(error: &tokio_postgres::Error) -> bool {
    error
        .code()
        .is_none_or(|code| classify(code).is_transient())
}
