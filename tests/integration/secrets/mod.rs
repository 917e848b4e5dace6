//! Passwords do not leak: everything runs at trace level with marked passwords, and the tests search for the mark in
//! logs, the process list, SQL and the jobs table.

mod mistakes;
mod process_list;
mod trace;

use testkit::client::execute;
use testkit::{TestDatabase, procfs, server};
use tokio_postgres::Client;

/// Stands in each part that a password may be torn into.
const MARK: &str = "m4rk";

/// What may stand in a password and means something in a connection string.
const PASSWORD: &str =
    "m4rk1@m4rk2/m4rk3?m4rk4#m4rk5:m4rk6 m4rk7'm4rk8\\m4rk9\"m4rk0&m4rka=m4rkb%m4rkcé";

/// A superuser of this database's own, with [`PASSWORD`].
async fn marked_role(database: &TestDatabase, client: &Client) -> String {
    let role = format!("marked_{}", database.name());
    let quoted = PASSWORD.replace('\'', "''").replace('\\', "\\\\");
    let create = format!(
        "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} SUPERUSER LOGIN PASSWORD E'{quoted}'"
    );
    execute(client, &create).await;
    role
}

/// As a URL needs it.
fn percent_encoded(text: &str) -> String {
    let bytes: Vec<String> = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    bytes.concat()
}

fn url(role: &str, password: &str, database: &TestDatabase) -> String {
    let (password, port) = (percent_encoded(password), server::shared().port());
    format!(
        "postgresql://{role}:{password}@127.0.0.1:{port}/{}",
        database.name()
    )
}

fn keywords(role: &str, password: &str, database: &TestDatabase) -> String {
    let password = password.replace('\\', "\\\\").replace('\'', "\\'");
    let (port, name) = (server::shared().port(), database.name());
    format!("host=127.0.0.1 port={port} user={role} password='{password}' dbname={name}")
}

/// No part of a marked password is in the text, encoded or not.
fn assert_clean(place: &str, text: &str) {
    for mark in [MARK, &percent_encoded(MARK)] {
        if let Some(at) = text.find(mark) {
            let from = text[..at].rfind('\n').map_or(0, |line| line + 1);
            let line: String = text[from..].chars().take(400).collect();
            panic!("a password is in {place}: {line}");
        }
    }
}

/// What every user of the machine can read of a process and of those that it started.
fn command_lines(process: u32) -> String {
    let children = procfs::children(process);
    let lines = std::iter::once(process).chain(children);
    let lines: Vec<String> = lines.map(procfs::command_line).collect();
    lines.join("\n")
}
