//! How people and programs wait for their vectors: in SQL, with `lantern-cli wait`, and with `start-daemon
//! --until-caught-up`.

mod catch_up;
mod causes;
mod command;
mod function;
mod idle_server;
mod property;

use testkit::{Scene, paths};

/// Creates the function of `sql/wait_for_embeddings.sql`.
async fn create_function(scene: &Scene) {
    let script = paths::read("sql/wait_for_embeddings.sql");
    scene.database.psql(&script).await;
}

/// A call of the function for job 1 and everything that is committed.
const CALL: &str = "SELECT lantern_wait_for_embeddings(1, pg_current_wal_insert_lsn(), '90 s')";
