//! A daemon that loses its network: it runs, but nothing arrives in either direction.

use testkit::scene::{CAVES, MOON, TIDES};
use testkit::server;
use testkit::wait::TIMEOUT;

use super::Fleet;
use super::process_network::ProcessNetwork;
use crate::support::program;

#[tokio::test]
async fn the_jobs_of_a_daemon_without_network_are_taken_over_until_it_is_back() {
    let mut fleet = Fleet::of(4).await;
    let network = ProcessNetwork::before(server::shared().port()).await;
    let direct = format!(":{}/", server::shared().port());
    let uri = fleet
        .scene
        .database
        .uri()
        .replace(&direct, &format!(":{}/", network.port));
    let through = format!("UPDATE jobs SET db_connection = '{uri}'");
    fleet.scene.sql(&through).await;
    for _ in 0..2 {
        let daemon = program().start_daemon(&["--uri", &uri]);
        fleet.daemons.push(daemon);
    }
    fleet.wait_for_loads("2 2").await;
    fleet.scene.wait_for_backfill().await;
    fleet.put(1, TIDES).await;
    fleet.wait_for_vectors().await;
    fleet.scene.wait_until_confirmed().await;

    let lost = fleet.daemons[0].id();
    network.cut(lost);
    fleet.put(2, MOON).await;
    fleet.wait_for_vectors().await;
    fleet.wait_for_loads("4").await;
    fleet.scene.wait_until_confirmed().await;
    assert_eq!(fleet.not_written(1).await, "");

    fleet.each_job_has_one_writer().await;

    network.mend(lost);
    let gone = "another daemon has taken this job over";
    fleet.daemons[0].wait_for_line(gone, TIMEOUT).await;
    fleet.wait_for_loads("2 2").await;
    fleet.put(3, CAVES).await;
    fleet.wait_for_vectors().await;
    fleet.scene.wait_until_confirmed().await;
    assert_eq!(fleet.not_written(1).await, "");
    assert_eq!(fleet.scene.failures().await, "");
}
