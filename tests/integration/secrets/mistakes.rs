//! A daemon that cannot start prints the reason without the password.

use testkit::jobs::articles;
use testkit::server;
use testkit::wait::TIMEOUT;

use super::{MARK, PASSWORD, assert_clean, keywords, url};
use crate::support::program;

#[tokio::test]
async fn a_daemon_that_cannot_start_does_not_print_the_password() {
    let (database, _client) = articles(server::shared()).await;
    let wrong = url("postgres", PASSWORD, &database);
    let port = server::shared().port();
    for uri in [
        keywords("postgres", PASSWORD, &database),
        wrong.replace(&port.to_string(), "1"),
        wrong.replace("127.0.0.1", "no-such-host.invalid"),
        wrong.replace("postgresql:", "mysql:"),
        format!("{wrong}?{MARK}={MARK}"),
        format!("postgresql://postgres:{MARK}@{MARK}@127.0.0.1:{port}/d"),
        format!("postgresql://postgres:1/{MARK}@{MARK}@127.0.0.1:{port}/d"),
        format!("host=127.0.0.1 user=postgres password={MARK} {MARK} port={port}"),
        format!("{MARK} = '{MARK}"),
        wrong,
    ] {
        let mut daemon = program().start_daemon(&["--uri", &uri, "--log-level", "trace"]);
        let (status, _) = daemon.wait(TIMEOUT).await;
        assert_eq!(status.code(), Some(1), "{uri}");
        let said = daemon.log();
        assert!(said.contains("error: "), "{uri}: {said}");
        assert_clean(&format!("what is said of {uri}"), &said);
    }
}
