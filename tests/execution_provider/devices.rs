//! Several devices together: they work at the same time, each by its own measure, and the loss of one does not stop the
//! others.

use std::fs;
use std::path::Path;

use serde_json::Value;
use testkit::paths;
use testkit::wait::{TIMEOUT, wait_until};

use crate::device_scene::{COMPUTES_AGAIN, DeviceScene, LOST, TOO_LITTLE, some_texts, texts};
use crate::{engine, errors, program, refusal};

/// What the devices have done: the name of each, and the padded tokens of a run that begins, or nothing when one ends.
fn runs(file: &Path) -> Vec<(String, Option<usize>)> {
    let lines = fs::read_to_string(file).unwrap();
    let run = |line: &str| {
        let mut words = line.split(' ');
        let (device, what) = (words.next().unwrap(), words.next().unwrap());
        let tokens = words.next().map(|tokens| tokens.parse().unwrap());
        assert_eq!(what, if tokens.is_some() { "begins" } else { "ends" });
        (device.to_owned(), tokens)
    };
    lines.lines().map(run).collect()
}

/// The padded tokens of each run of this device.
fn tokens(runs: &[(String, Option<usize>)], device: &str) -> Vec<usize> {
    let own = runs.iter().filter(|(name, _)| name == device);
    own.filter_map(|(_, tokens)| *tokens).collect()
}

/// The most runs that were under way at the same time, of these devices.
fn most_at_once(runs: &[(String, Option<usize>)], devices: &[&str]) -> usize {
    let (mut now, mut most) = (0, 0);
    for (device, begins) in runs {
        if !devices.contains(&device.as_str()) {
            continue;
        }
        now = if begins.is_some() { now + 1 } else { now - 1 };
        most = most.max(now);
    }
    most
}

#[tokio::test]
async fn devices_work_at_the_same_time_and_a_slow_one_gets_fewer_batches() {
    let group = "faulty:slow+device";
    let failpoints = ["device-runs", "device-slow=40"];
    let mut device = DeviceScene::new(group, &failpoints, &some_texts(2000)).await;
    let file = device.file("device-runs");
    fs::write(&file, "").unwrap();
    device.write_all().await;
    device.scene.wait_for_vectors("notes", "body").await;
    device.assert_no_failed_row().await;

    let runs = runs(&file);
    let [slow, fast] = ["faulty:slow", "faulty:device"].map(|name| tokens(&runs, name).len());
    assert!(slow > 0 && fast > slow, "{slow} and {fast}: {runs:?}");
    let both = most_at_once(&runs, &["faulty:slow", "faulty:device"]);
    let slow_alone = most_at_once(&runs, &["faulty:slow"]);
    assert!(both > slow_alone && slow_alone == 2, "{both}, {slow_alone}");
    device
        .scene
        .wait_for("SELECT stats ->> 'provider' FROM jobs", group)
        .await;
    let log = device.scene.daemon().log();
    let loaded = log.lines().find(|line| line.contains("model loaded"));
    let loaded = loaded.expect(&log);
    assert!(loaded.contains(&format!("provider={group} ")), "{loaded}");
    assert_eq!(device.lines("are those of the CPU"), 2, "{log}");
}

#[tokio::test]
async fn the_loss_of_a_device_does_not_stop_the_other() {
    let mut device = DeviceScene::new("faulty:lost+other", &["device-lost"], &texts()).await;
    fs::write(device.file("device-lost"), "").unwrap();
    device.write_all().await;
    device.scene.wait_for_vectors("notes", "body").await;
    device.assert_no_failed_row().await;
    let log = device.scene.daemon().log();
    assert_eq!(device.lines(LOST), 1, "{log}");
    assert_eq!(device.lines(COMPUTES_AGAIN), 0, "{log}");

    // It shows, and only while it lasts.
    let lost = "SELECT string_agg(d ->> 'device' || ': ' || (d ->> 'error'), '; ') FROM jobs, \
                jsonb_array_elements(stats -> 'devices') d WHERE d ->> 'lost_since' IS NOT NULL";
    let busy = "CUDA failure 46: all CUDA-capable devices are busy or unavailable";
    wait_until("the lost device is shown", TIMEOUT, async || {
        let shown = device.scene.value(lost).await;
        let is_it = shown.starts_with("faulty:lost: ") && shown.contains(busy);
        is_it.then_some(()).ok_or(shown)
    })
    .await;
    assert_eq!(device.scene.value("SELECT last_error FROM jobs").await, "");
    let view = "SELECT lost_devices FROM jobs_status";
    let views = paths::read("sql/monitoring.sql");
    device.scene.database.psql(&views).await;
    assert!(device.scene.value(view).await.starts_with("faulty:lost: "));
    let text = device.status(&["--job", "1"]).await;
    for part in [
        "faulty:lost: ",
        "; lost for ",
        "its texts are for the others",
        "busy or unavailable",
        "faulty:other: ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json: Value = serde_json::from_str(&device.status(&["--json"]).await).unwrap();
    let devices = &json["jobs"][0]["devices"];
    assert!(devices[0]["lost_since"].as_f64() > Some(1.7e9), "{json}");
    assert_eq!(devices[1]["lost_since"], Value::Null);

    fs::remove_file(device.file("device-lost")).unwrap();
    device.wait_for_line(COMPUTES_AGAIN).await;
    device.scene.wait_for(lost, "").await;
    assert_eq!(device.scene.value(view).await, "");
    assert!(!device.status(&["--job", "1"]).await.contains("lost for"));
}

#[tokio::test]
async fn rows_that_wait_for_a_device_are_said_to_wait() {
    let mut device = DeviceScene::new("faulty:lost", &["device-lost"], &texts()).await;
    fs::write(device.file("device-lost"), "").unwrap();
    device.write_all().await;
    let error = "SELECT last_error FROM jobs";
    wait_until("the row says that others wait", TIMEOUT, async || {
        let said = device.scene.value(error).await;
        let waits = "rows wait for the model's devices: faulty:lost is lost: ";
        said.starts_with(waits).then_some(()).ok_or(said)
    })
    .await;
    let text = device.status(&["--job", "1"]).await;
    assert!(
        text.contains("interrupted") && text.contains("so rows wait"),
        "{text}"
    );

    fs::remove_file(device.file("device-lost")).unwrap();
    device.scene.wait_for_vectors("notes", "body").await;
    device.scene.wait_for(error, "").await;
    device
        .wait_for_line("the model's devices compute again")
        .await;
    device.assert_no_failed_row().await;
}

#[tokio::test]
async fn a_device_with_little_memory_gets_small_batches_and_the_other_one_does_not() {
    let failpoints = ["device-memory", "device-runs"];
    let mut device = DeviceScene::new("faulty:memory+other", &failpoints, &some_texts(1000)).await;
    fs::write(device.file("device-memory"), "64").unwrap();
    let file = device.file("device-runs");
    fs::write(&file, "").unwrap();
    device.write_all().await;
    device.scene.wait_for_vectors("notes", "body").await;
    device.assert_no_failed_row().await;

    let log = device.scene.daemon().log();
    assert_eq!(device.lines(TOO_LITTLE), 1, "{log}");
    let warning = log.lines().find(|line| line.contains(TOO_LITTLE)).unwrap();
    assert!(warning.contains("provider=faulty:memory "), "{warning}");
    let runs = runs(&file);
    let [small, large] = ["faulty:memory", "faulty:other"].map(|name| tokens(&runs, name));
    let most = |tokens: &[usize]| tokens.iter().copied().max().unwrap();
    assert!(most(&small) <= 64 && most(&large) > 64, "{runs:?}");
}

/// Tokenizing takes processors from their users, and a device does not.
#[tokio::test]
async fn runs_of_a_device_go_on_while_inference_yields() {
    let failpoints = ["device-runs", "device-slow=100", "inference-share=0.1"];
    let device = DeviceScene::new("faulty:slow", &failpoints, &some_texts(1000)).await;
    let file = device.file("device-runs");
    fs::write(&file, "").unwrap();
    device.write_all().await;
    device.scene.wait_for_vectors("notes", "body").await;
    assert_eq!(most_at_once(&runs(&file), &["faulty:slow"]), 2);
}

#[tokio::test]
async fn a_device_that_is_not_there_or_computes_wrongly_is_refused_with_its_group() {
    let error = refusal("faulty:device+wrong").await;
    let sentence = error.to_string();
    for part in [
        "faulty:device+wrong cannot be used, because faulty:wrong of it cannot: ",
        "the execution provider faulty:wrong computes other vectors",
        "; or leave that device out of --execution-provider faulty:device+wrong",
    ] {
        assert!(sentence.contains(part), "{part}: {sentence}");
    }
    assert!(error.concerns_provider() && !error.is_transient());
    let error = engine(&["faulty:missing+device"])
        .check_provider()
        .await
        .unwrap_err();
    let sentence = error.to_string();
    assert!(
        sentence.contains("because faulty:missing of it cannot: ")
            && sentence.contains("was built without it"),
        "{sentence}"
    );
}

#[tokio::test]
async fn what_follows_a_group_is_used_where_one_of_its_devices_is_not_there() {
    let order = "faulty:device+missing,faulty:other+wrong,faulty:device+other";
    let program = program();
    let output = program
        .run(&["embed", "--execution-provider", order, "a text"])
        .await;
    let alone = program.run(&["embed", "a text"]).await;
    let errors = errors(&output);
    assert!(output.status.success(), "{errors}");
    assert_eq!(output.stdout, alone.stdout);
    assert_eq!(errors.matches("is passed over").count(), 2, "{errors}");
}

/// This provider registers nothing, so ONNX Runtime gives all nodes to the processor.
#[tokio::test]
async fn what_a_provider_leaves_to_the_processor_is_said() {
    let run = async |provider: &str| {
        let arguments = ["embed", "--execution-provider", provider, "a text"];
        errors(&program().run(&arguments).await)
    };
    let said = "the execution provider leaves a part of the graph to the processor, which is slow: everything";
    let errors = run("faulty:device+other").await;
    assert_eq!(errors.matches(said).count(), 1, "{errors}");
    let errors = run("faulty").await;
    assert!(!errors.contains("to the processor"), "{errors}");
}

#[tokio::test]
async fn devices_that_cannot_be_used_together_are_refused_with_the_way_to_write_them() {
    for (written, part) in [
        (
            "cuda:0+0",
            "names the device cuda:0 twice; name each device once",
        ),
        ("cuda:0+", "or several with + between them, as in cuda:0+1"),
        (
            "openvino:CPU+GPU",
            "cannot be used together with others; name it alone",
        ),
    ] {
        let output = program()
            .run(&["embed", "--execution-provider", written, "a text"])
            .await;
        let errors = errors(&output);
        assert!(
            !output.status.success() && errors.contains(part),
            "{errors}"
        );
    }
}
