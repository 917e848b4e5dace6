//! `docs/monitoring.md`, the dashboard and the alert rules name metrics that exist.

use std::collections::BTreeSet;

use serde_json::Value;
use testkit::paths::{checkout, read};

use super::metrics::{metrics_of_all_states, names, promtool};

/// The metrics among the words of a text: names of samples, as queries have them.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_name(c));
    words
        .filter(|word| word.starts_with("lantern_") || word.starts_with("process_"))
        .collect()
}

/// The names of all samples.
fn known(text: &str) -> BTreeSet<&str> {
    names(text).into_iter().collect()
}

/// Name, kind and meaning of each metric, as the daemon tells them.
fn told(text: &str) -> Vec<[String; 3]> {
    let mut told: Vec<[String; 3]> = Vec::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a name");
            told.push([
                name.into(),
                String::new(),
                help.trim_end_matches('.').into(),
            ]);
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (_, kind) = kind.split_once(' ').expect("a kind");
            told.last_mut().expect("help comes first")[1] = kind.into();
        }
    }
    told
}

#[test]
fn the_table_of_metrics_is_what_the_daemon_tells() {
    let document = read("docs/monitoring.md");
    let rows = document.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, meaning] = cells[..] else {
            return None;
        };
        let name = name.strip_prefix('`')?.strip_suffix('`')?;
        let is_metric = name.starts_with("lantern_") || name.starts_with("process_");
        is_metric.then(|| [name.to_owned(), kind.to_owned(), meaning.to_owned()])
    });
    let text = metrics_of_all_states();
    assert_eq!(rows.collect::<Vec<_>>(), told(&text));
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let dashboard = read("docs/monitoring/grafana-dashboard.json");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("it is JSON");
    assert!(
        dashboard["schemaVersion"].as_u64() >= Some(39),
        "{}",
        dashboard["schemaVersion"]
    );
    let panels = dashboard["panels"].as_array().expect("panels");
    let text = metrics_of_all_states();
    let (known, mut asked) = (known(&text), BTreeSet::new());
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{panel}");
        for target in panel["targets"].as_array().expect("targets") {
            let query = target["expr"].as_str().expect("a query");
            let metrics = metrics_in(query);
            assert!(!metrics.is_empty() && metrics.is_subset(&known), "{query}");
            asked.extend(metrics);
        }
    }
    for variable in dashboard["templating"]["list"]
        .as_array()
        .expect("variables")
    {
        if let Some(query) = variable["definition"].as_str() {
            assert!(metrics_in(query).is_subset(&known), "{query}");
        }
    }
    assert!(asked.len() > 15, "{asked:?}");
}

#[test]
fn alerts_ask_for_metrics_that_exist() {
    let rules = read("docs/monitoring/alerts.yml");
    let text = metrics_of_all_states();
    let unknown: Vec<&str> = metrics_in(&rules)
        .difference(&known(&text))
        .copied()
        .collect();
    assert_eq!(unknown, [] as [&str; 0]);
    // Each is explained.
    let document = read("docs/monitoring.md");
    for name in alerts(&rules) {
        assert!(document.contains(&format!("`{name}`")), "{name}");
    }
    let Some(mut promtool) = promtool() else {
        return;
    };
    let rules = checkout().join("docs/monitoring/alerts.yml");
    let output = promtool
        .args(["check", "rules"])
        .arg(rules)
        .output()
        .expect("promtool runs");
    assert!(output.status.success(), "{output:?}");
}

/// `docs/monitoring/alerts_test.yml` fires each of them once, beside a daemon whose jobs are well.
#[test]
fn each_alert_fires_when_it_should() {
    let tests = read("docs/monitoring/alerts_test.yml");
    for name in alerts(&read("docs/monitoring/alerts.yml")) {
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "{name}");
    }
    let Some(mut promtool) = promtool() else {
        return;
    };
    let tests = checkout().join("docs/monitoring/alerts_test.yml");
    let output = promtool.args(["test", "rules"]).arg(tests).output();
    let output = output.expect("promtool runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// The names of the alerts of a file with rules.
fn alerts(rules: &str) -> impl Iterator<Item = &str> {
    let lines = rules.lines();
    lines.filter_map(|line| line.trim().strip_prefix("- alert: "))
}
