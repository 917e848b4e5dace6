//! A daemon that loses its network: it runs, and nothing that it sends or is sent arrives.

use super::Fleet;
use super::process_network::ProcessNetwork;
use crate::hazards::scene::{CAVES, MOON, PATIENCE, TIDES};
use crate::support::{Daemon, server};

#[tokio::test]
async fn the_jobs_of_a_daemon_without_network_are_taken_over_and_it_comes_back_as_a_newcomer() {
    let mut fleet = Fleet::of(4).await;
    let network = ProcessNetwork::before(server().port()).await;
    let direct = format!(":{}/", server().port());
    let uri = fleet
        .scene
        .database
        .uri()
        .replace(&direct, &format!(":{}/", network.port));
    let through = format!("UPDATE jobs SET db_connection = '{uri}'");
    fleet.scene.sql(&through).await;
    for _ in 0..2 {
        let daemon = Daemon::start_with(&["--uri", &uri]);
        fleet.daemons.push(daemon);
    }
    fleet.wait_for_loads("2 2").await;
    fleet.scene.start_is_over().await;
    fleet.put(1, TIDES).await;
    fleet.settled().await;
    fleet.confirmed().await;

    let lost = fleet.daemons[0].id();
    network.cut(lost);
    fleet.put(2, MOON).await;
    fleet.settled().await;
    fleet.wait_for_loads("4").await;
    fleet.confirmed().await;
    assert_eq!(fleet.not_written(1).await, "");

    fleet.each_job_has_one_writer().await;

    network.mend(lost);
    let gone = "another daemon has taken this job over";
    fleet.daemons[0].wait_for_line(gone, PATIENCE).await;
    fleet.wait_for_loads("2 2").await;
    fleet.put(3, CAVES).await;
    fleet.settled().await;
    fleet.confirmed().await;
    assert_eq!(fleet.not_written(1).await, "");
    fleet.no_job_has_failed().await;
}
