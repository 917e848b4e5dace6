//! What to do about a server that refuses a login, or a walsender, if its own message does not say.

use tokio_postgres::error::SqlState;

use super::quote::identifier;

/// A sentence for the operator. Only for errors of a login: later the same codes mean other things.
///
/// The messages are those of PostgreSQL and PgBouncer. Before a client is authenticated the server sends them
/// untranslated. Afterwards they are in its own language; then the code is enough, and a name that is not found in the
/// message is left to the reader.
pub fn for_refusal(code: &SqlState, message: &str) -> Option<String> {
    let name = || quoted_name(message);
    let remedy = match *code {
        SqlState::PROTOCOL_VIOLATION if message.contains("startup parameter") => {
            "this is how a pooler such as PgBouncer answers, and poolers carry no replication: name the server itself in \
             db_connection"
                .into()
        }
        SqlState::TOO_MANY_CONNECTIONS if message.contains("max_wal_senders") => {
            "each job takes one walsender: raise max_wal_senders and restart the server, or end what else replicates \
             (SELECT * FROM pg_stat_replication)"
                .into()
        }
        SqlState::TOO_MANY_CONNECTIONS => {
            "the server, the database or the role has no connection left: raise max_connections or the limit of the \
             database or role, or close other connections (SELECT * FROM pg_stat_activity)"
                .into()
        }
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION if message.contains("pg_hba.conf") => {
            "pg_hba.conf needs a line that lets this role into this database from the daemon's address, before any that \
             rejects it; then run SELECT pg_reload_conf()"
                .into()
        }
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION
            if message.contains("not permitted to log in") =>
        {
            format!("run: ALTER ROLE {} LOGIN;", name())
        }
        SqlState::INVALID_PASSWORD => {
            format!(
                "correct the password in the connection string or in the password file; if it is the right one, it may \
                 have expired (VALID UNTIL): ALTER ROLE {} VALID UNTIL 'infinity';",
                name()
            )
        }
        SqlState::INVALID_CATALOG_NAME => {
            "create the database or name it back, or correct the connection string".into()
        }
        // For a database that accepts no connections (`CheckMyDatabase` in postinit.c).
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => {
            format!("run: ALTER DATABASE {} ALLOW_CONNECTIONS true;", name())
        }
        SqlState::INSUFFICIENT_PRIVILEGE if is_walsenders(message) => {
            "to replicate, a role needs the attribute: ALTER ROLE … REPLICATION (managed services grant it in their \
             own way, Amazon RDS by GRANT rds_replication)"
                .into()
        }
        SqlState::INSUFFICIENT_PRIVILEGE if message.contains("for database") => {
            format!("run: GRANT CONNECT ON DATABASE {} TO …;", name())
        }
        _ => return None,
    };
    Some(remedy)
}

fn is_walsenders(message: &str) -> bool {
    message.contains("walsender") || message.contains("WAL sender")
}

/// The first name in the message, quoted for SQL.
fn quoted_name(message: &str) -> String {
    match message.split('"').nth(1) {
        Some(name) if !name.is_empty() => identifier(name),
        _ => "…".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_names_the_object_of_the_message() {
        for (code, message, said) in [
            (
                "28000",
                "role \"my role\" is not permitted to log in",
                "ALTER ROLE \"my role\" LOGIN;",
            ),
            (
                "28P01",
                "password authentication failed for user \"l\"",
                "ALTER ROLE \"l\" VALID UNTIL 'infinity';",
            ),
            (
                "55000",
                "database \"app\" is not currently accepting connections",
                "ALTER DATABASE \"app\" ALLOW_CONNECTIONS true;",
            ),
            (
                "42501",
                "permission denied for database \"app\"",
                "GRANT CONNECT ON DATABASE \"app\" TO …;",
            ),
            (
                "55000",
                "die Datenbank »app« akzeptiert keine Verbindungen",
                "ALTER DATABASE … ALLOW_CONNECTIONS true;",
            ),
        ] {
            let remedy = for_refusal(&SqlState::from_code(code), message);
            let remedy = remedy.unwrap_or_default();
            assert!(remedy.contains(said), "{message}: {remedy}");
        }
        assert_eq!(for_refusal(&SqlState::from_code("XX000"), "no"), None);
    }
}
