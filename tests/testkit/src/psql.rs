//! The real psql, as a person uses it.

use std::process::Stdio;

use lantern::embedded::PrivatePostgres;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::server::client_program;

/// Runs `sql` in psql on a database of the server; returns what it prints, unaligned and without headings.
///
/// # Panics
///
/// At the first statement that fails, with psql's message.
pub async fn psql(server: &PrivatePostgres, database: &str, sql: &str) -> String {
    let mut psql = Command::new(client_program(server, "psql"))
        .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"])
        .args(["--set=ON_ERROR_STOP=1", "--file=-", "--dbname"])
        .arg(server.uri(database))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("psql starts");
    let mut input = psql.stdin.take().expect("its input is a pipe");
    // A psql that has failed reads no further: the assertion below shows why.
    let _ = input.write_all(sql.as_bytes()).await;
    drop(input);
    let output = psql.wait_with_output().await.expect("psql ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "psql failed: {errors}\n{sql}");
    String::from_utf8(output.stdout).expect("psql prints UTF-8")
}
