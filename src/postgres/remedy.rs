//! What to do about a server that refuses a login, or a walsender, if its own message does not say.

use tokio_postgres::error::SqlState;

/// A sentence for the operator. Only for errors of a login: later the same codes mean other things.
pub fn for_refusal(code: &SqlState, message: &str) -> Option<&'static str> {
    // The messages are those of PostgreSQL and PgBouncer. Both send them untranslated to a client that is not yet
    // authenticated. Otherwise the code is enough.
    match *code {
        SqlState::PROTOCOL_VIOLATION if message.contains("startup parameter") => Some(
            "this is how a pooler such as PgBouncer answers, and poolers carry no replication: name the server itself in \
             db_connection",
        ),
        SqlState::TOO_MANY_CONNECTIONS if message.contains("max_wal_senders") => Some(
            "each job takes one walsender: raise max_wal_senders and restart the server, or end what else replicates \
             (SELECT * FROM pg_stat_replication)",
        ),
        SqlState::TOO_MANY_CONNECTIONS => Some(
            "the server, the database or the role has no connection left: raise max_connections or the limit of the \
             database or role, or close other connections (SELECT * FROM pg_stat_activity)",
        ),
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION if message.contains("pg_hba.conf") => Some(
            "pg_hba.conf needs a line that lets this role into this database from the daemon's address, before any that \
             rejects it; then run SELECT pg_reload_conf()",
        ),
        SqlState::INSUFFICIENT_PRIVILEGE
            if message.contains("walsender") || message.contains("WAL sender") =>
        {
            Some(
                "to replicate, a role needs the attribute: ALTER ROLE … REPLICATION (managed services grant it in their \
                 own way, Amazon RDS by GRANT rds_replication)",
            )
        }
        _ => None,
    }
}
