//! What binds the [`testkit`] to this package: the program under test, which Cargo names to its integration tests
//! alone.

use testkit::scene::NOTES;
use testkit::{Process, Program, Scene, TestDatabase, server};

/// Counts the locks of jobs that daemons hold.
pub const LOCKS: &str = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                         WHERE l.locktype = 'advisory' AND l.objsubid = 1 \
                         AND a.datname = current_database() AND a.application_name = 'lantern-cli: jobs'";

/// The program under test.
pub fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_lantern-cli")).without_yielding()
}

/// Starts a daemon on the table `jobs` of `database`; `arguments` come last.
pub fn start_daemon(database: &TestDatabase, arguments: &[&str]) -> Process {
    let uri = database.uri();
    program().start_daemon(&[&["--uri", &uri, "--table", "jobs"], arguments].concat())
}

/// A scene on the shared server, with these tables and no job yet.
pub async fn scene_with(tables: &str) -> Scene {
    Scene::new(program(), server::shared(), tables).await
}

/// A scene on the shared server, with the table `notes` and its job.
pub async fn notes_scene() -> Scene {
    let scene = scene_with(NOTES).await;
    scene.job("notes", "body").await;
    scene
}
