//! Roles of the daemon other than the superuser.

use testkit::Scene;
use testkit::jobs::{Job, insert_job};

/// A role that may log in and replicate, and the connection string with which its jobs connect.
pub struct DaemonRole {
    pub name: String,
    pub uri: String,
}

/// Creates a role for this scene alone.
pub async fn daemon_role(scene: &Scene) -> DaemonRole {
    let name = format!("daemon_{}", scene.database.name());
    scene
        .sql(&format!(
            "CREATE ROLE {name} LOGIN REPLICATION PASSWORD 'secret'"
        ))
        .await;
    let uri = scene.database.uri();
    let (_, place) = uri.split_once('@').expect("a URI with a password");
    let uri = format!("postgresql://{name}:secret@{place}");
    DaemonRole { name, uri }
}

impl DaemonRole {
    /// Inserts a job on this table for the role.
    pub async fn job(&self, scene: &Scene, table: &str) -> i32 {
        let job = Job {
            db_connection: self.uri.clone(),
            ..Job::on(&scene.database, table, "body", "embedding")
        };
        insert_job(&scene.client, job).await
    }

    /// Makes the role own the table, with all that its jobs need.
    pub async fn own(&self, scene: &Scene, table: &str) {
        let (name, database) = (&self.name, scene.database.name());
        scene
            .sql(&format!(
                "ALTER TABLE {table} OWNER TO {name}; GRANT CREATE ON DATABASE {database} TO {name}; \
                 GRANT USAGE, CREATE ON SCHEMA public TO {name}"
            ))
            .await;
    }

    /// Prepares a table for the role, which then owns nothing and has rights on this table alone. `columns` are those of the
    /// key and the source.
    pub async fn prepare(&self, scene: &Scene, table: &str, columns: &str, options: &str) {
        let list = match scene.database.version() >= 15 {
            true => format!("({columns})"),
            false => String::new(),
        };
        let name = &self.name;
        scene
            .sql(&format!(
                "CREATE PUBLICATION lantern_prepared_{table} FOR TABLE {table} {list} WITH (publish = 'insert, update'{options}); \
                 GRANT SELECT ({columns}, embedding, ctid, tableoid), UPDATE (embedding) ON {table} TO {name}"
            ))
            .await;
    }
}
