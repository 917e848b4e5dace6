//! Which running server a session has reached.
//!
//! A server keeps its system identifier for its whole life, and so do its physical copies: base backups, snapshots,
//! standbys. The moment at which its postmaster started differs between a server and each of its copies, and changes
//! with a restart.

use super::error::DatabaseError;
use super::session::Session;

/// A server, from one start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerInstance {
    /// `None` where the role may not read it, as with some managed services.
    system: Option<i64>,
    /// In microseconds since 1970.
    started: i64,
}

impl ServerInstance {
    /// The server of this session.
    ///
    /// # Errors
    /// The server's.
    pub async fn of(session: &Session) -> Result<ServerInstance, DatabaseError> {
        let started = session
            .query_one(
                "SELECT (EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000000)::bigint",
                &[],
            )
            .await
            .and_then(|row| row.try_get(0))
            .map_err(DatabaseError::during("asking when the server was started"))?;
        Ok(ServerInstance {
            system: system_identifier(session).await?,
            started,
        })
    }

    /// Whether one of the two is a physical copy of the other: they have the same history, and run side by side.
    pub fn is_copy_of(self, other: ServerInstance) -> bool {
        self.system.is_some() && self.system == other.system && self.started != other.started
    }

    /// Whether both are one server, as far as the roles may see: one of them may be denied the system identifier.
    pub fn may_be(self, other: ServerInstance) -> bool {
        let (system, other_system) = (self.system, other.system);
        let differs = system.zip(other_system).is_some_and(|(a, b)| a != b);
        self.started == other.started && !differs
    }

    /// A number that tells this instance from others, small enough for half of an advisory lock's key.
    pub fn number(self) -> u32 {
        let bits = self.started.cast_unsigned();
        (bits ^ (bits >> 32)) as u32
    }
}

/// `system_identifier` of the server. Some managed services deny access to it.
///
/// # Errors
/// The network's.
pub async fn system_identifier(session: &Session) -> Result<Option<i64>, DatabaseError> {
    let answer = session
        .query_one("SELECT system_identifier FROM pg_control_system()", &[])
        .await
        .and_then(|row| row.try_get(0));
    match answer {
        Ok(identifier) => Ok(Some(identifier)),
        Err(error) if error.code().is_some() => Ok(None),
        Err(error) => Err(DatabaseError::during("reading the system identifier")(
            error,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_same_history_and_another_start() {
        let instance = |system, started| ServerInstance { system, started };
        let original = instance(Some(7), 1_000);
        assert!(original.is_copy_of(instance(Some(7), 2_000)));
        assert!(!original.is_copy_of(original));
        assert!(!original.is_copy_of(instance(Some(8), 2_000)));
        // Unknown: nothing can be said.
        assert!(!instance(None, 1).is_copy_of(instance(None, 2)));
        assert!(original.may_be(instance(None, 1_000)));
        assert!(!original.may_be(instance(Some(8), 1_000)));
        assert!(!original.may_be(instance(None, 1_001)));
        assert_ne!(original.number(), instance(Some(7), 1_001).number());
    }
}
