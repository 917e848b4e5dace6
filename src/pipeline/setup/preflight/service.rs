//! Managed services, on which settings and rights are changed in other ways than on a server of one's own.
//!
//! A service is recognized by a role or a setting that only it has. Where that is hidden, its remedies are those of a
//! plain server.

use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// A managed service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Amazon RDS.
    Rds,
    /// Amazon Aurora.
    Aurora,
    /// Google Cloud SQL.
    CloudSql,
    /// Google AlloyDB.
    AlloyDb,
    /// Azure Database for PostgreSQL.
    Azure,
    /// Supabase.
    Supabase,
    /// Neon.
    Neon,
}

/// All of them, each with SQL that is true on it. The first that is true counts: Aurora has the roles of RDS.
const SIGNS: [(Service, &str); 7] = [
    (
        Service::Aurora,
        "EXISTS (SELECT FROM pg_proc WHERE proname = 'aurora_version')",
    ),
    (
        Service::Rds,
        "current_setting('rds.logical_replication', true) IS NOT NULL OR 'rds_superuser' = ANY (roles.names)",
    ),
    (
        Service::AlloyDb,
        "current_setting('alloydb.logical_decoding', true) IS NOT NULL OR 'alloydbsuperuser' = ANY (roles.names)",
    ),
    (
        Service::CloudSql,
        "current_setting('cloudsql.logical_decoding', true) IS NOT NULL OR 'cloudsqlsuperuser' = ANY (roles.names)",
    ),
    (
        Service::Azure,
        "current_setting('azure.extensions', true) IS NOT NULL OR 'azure_pg_admin' = ANY (roles.names)",
    ),
    (Service::Neon, "'neon_superuser' = ANY (roles.names)"),
    (Service::Supabase, "'supabase_admin' = ANY (roles.names)"),
];

impl Service {
    /// The service that the server belongs to; `None` for a server of one's own.
    ///
    /// # Errors
    /// The server's.
    pub async fn of(session: &Session) -> Result<Option<Service>, DatabaseError> {
        let signs = SIGNS.map(|(_, sign)| format!("COALESCE({sign}, false)"));
        let statement = format!(
            "SELECT array_position(ARRAY[{}], true) \
             FROM (SELECT array_agg(rolname::text) AS names FROM pg_roles) AS roles",
            signs.join(", ")
        );
        let place: Option<i32> = session
            .query_one(&statement, &[])
            .await
            .and_then(|row| row.try_get(0))
            .map_err(DatabaseError::during("recognizing a managed service"))?;
        let place = place.and_then(|place| usize::try_from(place - 1).ok());
        Ok(place.and_then(|place| SIGNS.get(place).map(|(service, _)| *service)))
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Service::Rds => "Amazon RDS",
            Service::Aurora => "Amazon Aurora",
            Service::CloudSql => "Google Cloud SQL",
            Service::AlloyDb => "Google AlloyDB",
            Service::Azure => "Azure Database for PostgreSQL",
            Service::Supabase => "Supabase",
            Service::Neon => "Neon",
        }
    }

    /// What lets the server write a WAL that can be decoded.
    fn wal_level(self) -> &'static str {
        match self {
            Service::Rds => {
                "set rds.logical_replication = 1 in the DB parameter group of the instance, and reboot it"
            }
            Service::Aurora => {
                "set rds.logical_replication = 1 in the DB cluster parameter group, and reboot the writer"
            }
            Service::CloudSql => {
                "set the flag cloudsql.logical_decoding = on of the instance, which restarts it"
            }
            Service::AlloyDb => {
                "set the flag alloydb.logical_decoding = on of the instance, which restarts it"
            }
            Service::Azure => {
                "set the server parameter wal_level to logical (az postgres flexible-server parameter set --name \
                 wal_level --value logical), and restart the server"
            }
            Service::Supabase => {
                "it is logical there by default: set it back with the Supabase CLI (postgres-config), and restart the \
                 database"
            }
            Service::Neon => {
                "enable logical replication in the settings of the project, which restarts its computes"
            }
        }
    }

    /// Where a setting of the server is changed.
    fn setting(self, name: &str, value: i64) -> String {
        let place = match self {
            Service::Rds => "in the DB parameter group of the instance, and reboot it",
            Service::Aurora => "in the DB cluster parameter group, and reboot the writer",
            Service::CloudSql | Service::AlloyDb => "as a flag of the instance, which restarts it",
            Service::Azure => "as a server parameter, and restart the server",
            Service::Supabase => {
                "with the Supabase CLI (postgres-config), and restart the database"
            }
            Service::Neon => "by a request to the support of Neon",
        };
        format!("set {name} = {value} {place}")
    }
}

/// What lets a server write a WAL that can be decoded, there.
pub fn wal_level_remedy(service: Option<Service>) -> String {
    match service {
        None => "ALTER SYSTEM SET wal_level = logical; and a restart of the server".into(),
        Some(service) => format!("on {}, {}", service.name(), service.wal_level()),
    }
}

/// What gives a role the right to replicate, there.
pub fn replication_remedy(service: Option<Service>, role: &str) -> String {
    let role = identifier(role);
    match service {
        None => format!(
            "run as a superuser: ALTER ROLE {role} REPLICATION; (managed services grant it in their own way, Amazon \
             RDS by GRANT rds_replication)"
        ),
        Some(service @ (Service::Rds | Service::Aurora)) => {
            format!(
                "on {}, run as the master user: GRANT rds_replication TO {role};",
                service.name()
            )
        }
        Some(service) => {
            let admin = match service {
                Service::CloudSql => "cloudsqlsuperuser",
                Service::AlloyDb => "alloydbsuperuser",
                Service::Azure => "azure_pg_admin",
                Service::Neon => "neon_superuser",
                _ => "postgres",
            };
            format!(
                "on {}, run as {admin} or a member of it: ALTER ROLE {role} REPLICATION;",
                service.name()
            )
        }
    }
}

/// What sets a setting that takes effect with a restart, there.
pub fn setting_remedy(service: Option<Service>, name: &str, value: i64) -> String {
    match service {
        None => format!("ALTER SYSTEM SET {name} = {value}; and restart the server"),
        Some(service) => format!("on {}, {}", service.name(), service.setting(name, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_remedies_of_its_own() {
        for (service, _) in SIGNS {
            let level = wal_level_remedy(Some(service));
            assert!(
                level.contains(service.name()) && !level.contains("ALTER SYSTEM"),
                "{level}"
            );
            let slots = setting_remedy(Some(service), "max_replication_slots", 20);
            assert!(slots.contains("max_replication_slots = 20"), "{slots}");
            assert!(!slots.contains("ALTER SYSTEM"), "{slots}");
            let right = replication_remedy(Some(service), "it's \"me\"");
            assert!(right.contains("\"it's \"\"me\"\"\""), "{right}");
        }
        assert!(replication_remedy(Some(Service::Aurora), "r").contains("GRANT rds_replication"));
        assert!(replication_remedy(None, "r").contains("ALTER ROLE \"r\" REPLICATION;"));
    }
}
