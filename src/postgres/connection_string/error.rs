//! Why a connection string was refused.

/// A connection string was refused. The message never repeats a value of it: each may be a misplaced password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the connection string is not valid: {0}; expected postgresql://user:password@host:port/database \
     (percent-encode special characters in the password)"
)]
pub struct InvalidConnectionString(pub(super) String);

/// What a part of a connection string means.
pub(super) type Parsed<T> = Result<T, InvalidConnectionString>;

/// A refusal, for `return`.
pub(super) fn refused<T>(why: impl Into<String>) -> Parsed<T> {
    Err(InvalidConnectionString(why.into()))
}
