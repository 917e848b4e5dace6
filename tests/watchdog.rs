//! A supervisor that hangs gives its service manager no sign of life. A binary of its own: the place where it hangs exists
//! only with the feature `failpoints`.

use std::time::Duration;

use testkit::wait::{TIMEOUT, wait_until};
use testkit::{NotifySocket, Program, TestDatabase, server};

/// Longer than the pause between two signs of life.
const SILENCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_supervisor_that_hangs_gives_no_sign_of_life() {
    let database = TestDatabase::create(server::shared()).await;
    testkit::jobs::create_documented_table(&database.client().await).await;
    let mut manager = NotifySocket::default();
    let program = Program::new(env!("CARGO_BIN_EXE_lantern-cli"))
        .with_env("FAILPOINTS", "supervisor-step=5*off->1*sleep(600000)");
    let _daemon = manager.start_daemon(&program, 3000, &["--uri", &database.uri()]);
    manager.wait_for("READY=1").await;
    manager.wait_for("WATCHDOG=1").await;
    wait_until("it falls silent", TIMEOUT, async || {
        let silent = manager.last("WATCHDOG=1").expect("it was heard").elapsed();
        if silent >= SILENCE {
            Ok(())
        } else {
            Err(silent)
        }
    })
    .await;
}
