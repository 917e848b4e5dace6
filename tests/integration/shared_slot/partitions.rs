//! A partitioned table and one of its partitions cannot both be followed by one slot.

use testkit::jobs::wait_for_failure;

use super::*;

#[tokio::test]
async fn a_job_on_a_partition_of_a_followed_table_is_rejected() {
    let scene = streaming().await;
    let id = scene.job("parts_0", "body").await;
    let reason = wait_for_failure(&scene.client, id).await;
    assert!(
        reason.contains("parts") && reason.contains("--slots job"),
        "{reason}"
    );
    put(&scene, 3, NEW_TEXT).await;
    wait_for_all_vectors(&scene).await;
    caught_up(&scene).await;
}
