//! The daemon's arguments in the process list, which every user of the machine can read.

use testkit::client::execute;
use testkit::jobs::articles;
use testkit::server;
use testkit::wait::TIMEOUT;

use super::{PASSWORD, assert_clean, command_lines, keywords, marked_role, url};
use crate::support::program;

const READY: &str = "watching";

#[tokio::test]
async fn a_password_among_the_arguments_disappears_from_the_process_list() {
    let (database, client) = articles(server::shared()).await;
    let role = marked_role(&database, &client).await;
    for uri in [
        url(&role, PASSWORD, &database),
        keywords(&role, PASSWORD, &database),
    ] {
        let joined = format!("--uri={uri}");
        for arguments in [
            &["--uri", uri.as_str(), "--table", "jobs"][..],
            &["--table", "jobs", &joined],
        ] {
            let mut daemon = program().start_daemon(arguments);
            let before = daemon.id();
            daemon.wait_for_line(READY, TIMEOUT).await;
            assert_eq!(daemon.id(), before);
            let shown = command_lines(daemon.id());
            assert_clean("the process list", &shown);
            assert!(shown.contains("start-daemon --table jobs"), "{shown}");
            let name = std::fs::read_to_string(format!("/proc/{}/comm", daemon.id()));
            assert_eq!(name.expect("it runs"), "lantern-cli\n");
            assert!(daemon.terminate().await.0.success());
        }
    }
    execute(&client, &format!("DROP ROLE {role}")).await;
}
