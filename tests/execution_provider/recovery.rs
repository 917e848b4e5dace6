//! A device that runs out of memory, and one that is lost. What happens to `faulty:memory` and `faulty:lost` is decided by
//! files that the daemon's failpoints name.

use std::fs;

use testkit::wait::TIMEOUT;

use crate::device_scene::{COMPUTES_AGAIN, DeviceScene, LOST, TOO_LITTLE, texts};

#[tokio::test]
async fn a_batch_that_does_not_fit_is_halved_and_later_ones_are_smaller() {
    let mut texts = texts();
    let long = vec!["w9"; 60].join(" ");
    texts.push(long);
    let mut device = DeviceScene::new("faulty:memory", &["device-memory"], &texts).await;
    // Enough for the texts but the last.
    fs::write(device.file("device-memory"), "40").unwrap();
    device.write_all().await;
    device.wait_for_line(TOO_LITTLE).await;
    device
        .wait_for_line("has no memory for 60 tokens of the model chaos/one")
        .await;
    device.assert_no_failed_row().await;

    fs::write(device.file("device-memory"), "60").unwrap();
    device.scene.wait_for_vectors("notes", "body").await;
    device.assert_no_failed_row().await;
    assert_eq!(
        device.lines(TOO_LITTLE),
        1,
        "{}",
        device.scene.daemon().log()
    );
}

#[tokio::test]
async fn rows_wait_for_a_device_that_is_lost() {
    let mut device = DeviceScene::new("faulty:lost", &["device-lost"], &texts()).await;
    fs::write(device.file("device-lost"), "").unwrap();
    device.write_all().await;
    device.wait_for_line(LOST).await;
    // The vector of one text is known: that of the row that was there before.
    let written = "SELECT count(DISTINCT body) FROM notes WHERE embedding IS NOT NULL";
    assert_eq!(device.scene.value(written).await, "1");

    fs::remove_file(device.file("device-lost")).unwrap();
    device.scene.wait_for_vectors("notes", "body").await;
    device.wait_for_line(COMPUTES_AGAIN).await;
    device.assert_no_failed_row().await;
    let log = device.scene.daemon().log();
    assert_eq!(
        (device.lines(LOST), device.lines(COMPUTES_AGAIN)),
        (1, 1),
        "{log}"
    );
    assert_eq!(device.lines("batch failed"), 0, "{log}");
}

#[tokio::test]
async fn a_daemon_ends_while_its_device_is_lost() {
    let mut device = DeviceScene::new("faulty:lost", &["device-lost"], &texts()).await;
    fs::write(device.file("device-lost"), "").unwrap();
    device.write_all().await;
    device.wait_for_line(LOST).await;
    device.scene.stop_daemon().await;
}

#[tokio::test]
async fn the_size_of_batches_is_measured_on_a_device_alone() {
    let loaded = async |provider: &str| {
        let mut device = DeviceScene::new(provider, &[], &texts()[..1]).await;
        let daemon = device.scene.daemon();
        daemon.wait_for_line("model loaded", TIMEOUT).await
    };
    let line = loaded("faulty:device").await;
    let tokens = line.split("batch_tokens=").nth(1).expect(&line);
    let digits: String = tokens.chars().take_while(char::is_ascii_digit).collect();
    let tokens: usize = digits.parse().unwrap();
    let is_size = tokens.is_power_of_two() && (1024..=65_536).contains(&tokens);
    assert!(is_size, "{line}");
    for processor in ["cpu", "faulty"] {
        let line = loaded(processor).await;
        assert!(!line.contains("batch_tokens"), "{line}");
    }
}
