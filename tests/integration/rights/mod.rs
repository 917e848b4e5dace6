//! Who may do what: roles with few rights suffice, and nobody gains rights through the daemon.

mod escalation;
mod limits;
mod locks_of_strangers;
mod owner_role;
mod reading_jobs;
mod tables_beside_the_jobs;
mod two_roles;

use testkit::Scene;
use testkit::client::connect;
use tokio_postgres::Client;

/// A role that may log in.
pub struct Role {
    pub name: String,
    /// Its connection string for the scene's database.
    pub uri: String,
}

/// Creates a role for this scene alone. Roles are shared by all databases of a server.
pub async fn role(scene: &Scene, name: &str, attributes: &str) -> Role {
    let role = named(scene, name);
    let create = format!("CREATE ROLE {} LOGIN {attributes} PASSWORD 'pw'", role.name);
    scene.sql(&create).await;
    role
}

/// The role of that name, which need not exist yet.
pub fn named(scene: &Scene, name: &str) -> Role {
    let name = format!("{name}_{}", scene.database.name());
    let uri = scene.database.uri();
    let (_, place) = uri.split_once('@').expect("a URI with a password");
    Role {
        uri: format!("postgresql://{name}:pw@{place}"),
        name,
    }
}

impl Role {
    /// A session of the role, after these statements.
    pub async fn session(&self, statements: &str) -> Client {
        let client = connect(&self.uri).await;
        testkit::client::execute(&client, statements).await;
        client
    }
}

/// Runs a file of `sql/` in psql with these variables.
pub async fn run_script(scene: &Scene, file: &str, variables: &[(&str, &str)]) {
    let set = variables
        .iter()
        .map(|(name, value)| format!("\\set {name} '{}'\n", value.replace('\'', "''")));
    let script = set.collect::<String>() + &testkit::paths::read(file);
    scene.database.psql(&script).await;
}
