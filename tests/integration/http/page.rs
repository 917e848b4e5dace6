//! The status page in a headless Chromium. Its pictures are left in `target/tmp/page-*.png`.

use std::path::Path;

use lantern::status::board::Snapshot;
use lantern::status::job_status::JobState;
use lantern::status::lag::WalStatus;
use serde_json::json;
use testkit::Browser;
use testkit::browser::Screen;
use testkit::scene::{CAVES, MOON, TIDES};

use super::daemon::{address_of, wait_for_state};
use super::fixtures::{ODD_TABLE, Shown, backfilling, failure, idle, snapshot, streaming};
use crate::support::notes_scene;

const DESKTOP: Screen = Screen {
    width: 1280,
    height: 900,
    is_phone: false,
    is_dark: false,
};
const PHONE: Screen = Screen {
    width: 390,
    height: 844,
    is_phone: true,
    is_dark: false,
};

/// The page says that it is connected.
const IS_LIVE: &str = "document.getElementById('connection')?.dataset.state";

/// The text of an element as it is seen, on one line.
fn text_of(selector: &str) -> String {
    format!("(document.querySelector('{selector}')?.innerText ?? '').replace(/\\s+/g, ' ').trim()")
}

/// Takes pictures at both sizes, in light and in dark.
fn take_pictures(browser: &mut Browser, name: &str) {
    for (size, screen) in [("desktop", DESKTOP), ("phone", PHONE)] {
        for (scheme, is_dark) in [("light", false), ("dark", true)] {
            browser.show_on(Screen { is_dark, ..screen });
            let file = format!("page-{name}-{size}-{scheme}.png");
            browser.take_picture(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(file));
        }
    }
    browser.show_on(DESKTOP);
}

/// Gives the jobs a past, as a quarter of an hour would: the page's requests are answered with it.
const WITH_A_PAST: &str = "
    const ask = window.fetch;
    const past = (scale, seed) => Array.from({ length: 180 }, (_, n) =>
      Math.max(0, scale * (1 + Math.sin(n / 9 + seed) + 0.4 * Math.sin(n * 1.7 + seed))));
    window.fetch = async (...request) => {
      const response = await ask(...request);
      const status = await response.json();
      status.jobs.forEach((job, n) => {
        if (!job.daemon) return;
        status.history[job.id] = {
          rows_per_second: past(job.rows_per_second, n),
          lag_seconds: n % 2 ? past(job.lag_seconds, n + 2).slice(60) : past(job.lag_seconds, n + 2),
        };
      });
      return new Response(JSON.stringify(status), { headers: response.headers });
    }";

/// Jobs in all states.
fn busy() -> Snapshot {
    let mut yielding = streaming("12", "support.tickets");
    yielding.source = Some("description".into());
    yielding.destination = Some("description_embedding".into());
    yielding.rows_per_second = Some(3.4);
    yielding.lag_seconds = Some(0.0);
    let mut late = streaming("31", "crm.\"Customer notes\"");
    late.lag_seconds = Some(734.0);
    if let Some(slot) = &mut late.slot {
        slot.wal_status = WalStatus::Unreserved;
        slot.retained_bytes = 14_900 << 20;
    }
    let mut away = streaming("44", "archive.mails");
    away.state = JobState::Interrupted;
    away.reason = Some(
        "the target server refuses the daemon, which is tried again until it accepts it: password authentication \
         failed for user \"lantern\""
            .into(),
    );
    away.rows_per_second = Some(0.0);
    let jobs = vec![
        streaming("7", "public.articles"),
        backfilling("9", "public.books"),
        yielding,
        late,
        away,
        idle(
            "50",
            "public.products",
            JobState::Failed,
            "the role lantern lacks 2 things for this job: SELECT on public.products (title), UPDATE on public.products \
             (title_embedding); let the owner of the table run sql/prepare_publication.sql with -v schema=public -v \
             table=products -v key=id -v source=title -v destination=title_embedding -v role=lantern",
        ),
        idle("51", "public.drafts", JobState::Canceled, ""),
        idle("52", "public.events", JobState::Waiting, ""),
    ];
    let failures = vec![
        failure(
            "7",
            "{\"id\": \"18232\"}",
            "new row for relation \"articles\" violates check constraint \"keeps\"",
        ),
        failure(
            "31",
            "{\"tenant\": \"acme\", \"id\": \"7\"}",
            "value too long for type character varying(20)",
        ),
    ];
    snapshot(jobs, failures)
}

#[tokio::test]
async fn it_shows_every_state_on_a_desk_and_on_a_phone() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let shown = Shown::start();
    shown.board.publish(busy());
    browser.show_on(DESKTOP);
    browser.open(&shown.url("/"));
    browser.wait_for(IS_LIVE, "live").await;
    browser
        .wait_for("document.querySelectorAll('#jobs > li').length", 8)
        .await;
    browser.wait_for("document.title", "(4) lantern-cli").await;
    let worst = browser.value(&text_of("#problem-list > li"));
    let worst = worst.as_str().unwrap();
    assert!(
        worst.starts_with("Job 31 on crm.\"Customer notes\" may lose its place"),
        "{worst}"
    );
    let failed = browser.value(&text_of("#problem-list > li:nth-child(2)"));
    let failed = failed.as_str().unwrap();
    let statement = "UPDATE \"public\".\"jobs\" SET init_failed_at = NULL WHERE id = '50';";
    assert!(failed.ends_with(statement), "{failed}");
    assert!(failed.contains("prepare_publication.sql"), "{failed}");
    let scan = browser.value(&text_of("[data-job=\"9\"] .progress"));
    assert_eq!(scan, "42 % · 420,000 of 1,000,000 rows · 7 min 44 s left");
    let rows = browser.value(&text_of("#failure-list > li"));
    assert!(rows.as_str().unwrap().contains("18232"), "{rows}");

    // Nothing is wider than a phone.
    for screen in [
        PHONE,
        Screen {
            width: 320,
            ..PHONE
        },
    ] {
        browser.show_on(screen);
        let overflow =
            "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.value(overflow), 0, "{screen:?}");
    }
    browser.show_on(DESKTOP);
    browser.value("document.querySelector('[data-job=\"7\"] details').open = true");
    browser
        .wait_for(
            &text_of("[data-job=\"7\"] dl div:nth-child(3) dd"),
            "process 4242 on db-1.example.net",
        )
        .await;
    browser.value(WITH_A_PAST);
    let curve = "document.querySelector('[data-job=\"7\"] .rows polyline').getAttribute('points').split(' ').length";
    browser.wait_for(curve, 180).await;
    take_pictures(&mut browser, "states");
    assert_eq!(browser.complaints(), &[] as &[String]);
}

#[tokio::test]
async fn figures_change_in_place_and_what_is_open_stays_open() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let shown = Shown::start();
    shown
        .board
        .publish(snapshot(vec![streaming("1", "public.articles")], vec![]));
    browser.open(&shown.url("/"));
    browser
        .wait_for("document.querySelectorAll('#jobs > li').length", 1)
        .await;
    // By the keyboard alone: the first stop is the job, which Enter opens.
    browser.press("Tab", 9);
    assert_eq!(browser.value("document.activeElement.tagName"), "SUMMARY");
    browser.press("Enter", 13);
    browser
        .wait_for("document.querySelector('details').open", true)
        .await;
    browser.value("window.same = document.activeElement");

    let jobs = vec![
        backfilling("0", "public.first"),
        backfilling("1", "public.articles"),
    ];
    let failed = failure("1", "{\"id\": \"5\"}", "too long");
    shown.board.publish(snapshot(jobs, vec![failed]));
    browser
        .wait_for(&text_of("[data-job=\"1\"] .badge"), "backfilling")
        .await;
    browser
        .wait_for("document.querySelectorAll('#jobs > li').length", 2)
        .await;
    browser
        .wait_for(&text_of("#failure-list .key"), "{\"id\": \"5\"}")
        .await;
    assert_eq!(
        browser.value("document.activeElement === window.same"),
        true
    );
    assert_eq!(
        browser.value("document.activeElement.parentNode.open"),
        true
    );

    shown.board.publish(snapshot(vec![], vec![]));
    browser
        .wait_for("document.querySelectorAll('#jobs > li').length", 0)
        .await;
    assert_eq!(
        browser.value("document.getElementById('failures').hidden"),
        true
    );
    let empty = browser.value(&text_of("#no-jobs:not([hidden])"));
    assert_eq!(empty, "No jobs yet: insert a row into the jobs table.");
    assert_eq!(browser.complaints(), &[] as &[String]);
}

/// Names, keys and errors are texts of others.
#[tokio::test]
async fn texts_of_others_are_texts() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let shown = Shown::start();
    let markup = "<img src=x onerror=\"document.title='owned'\">";
    let mut job = streaming("' OR \"x\" <b>", ODD_TABLE);
    job.state = JobState::Failed;
    job.daemon = None;
    job.reason = Some(markup.into());
    job.model = Some(markup.into());
    let failed = failure(&job.id, markup, markup);
    shown.board.publish(snapshot(vec![job], vec![failed]));
    browser.open(&shown.url("/"));
    browser
        .wait_for("document.querySelectorAll('#failure-list > li').length", 1)
        .await;
    assert_eq!(
        browser.value("document.querySelectorAll('main img, main b, td').length"),
        0
    );
    assert_eq!(browser.value("document.title"), "(1) lantern-cli");
    let statement = browser.value(&text_of("#problem-list code"));
    assert!(
        statement
            .as_str()
            .unwrap()
            .ends_with("WHERE id = ''' OR \"x\" <b>';"),
        "{statement}"
    );
    assert_eq!(
        browser.value("document.querySelector('#failure-list .key').textContent"),
        markup
    );
    assert_eq!(browser.complaints(), &[] as &[String]);
}

#[tokio::test]
async fn it_says_since_when_the_daemon_does_not_answer() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let shown = Shown::start();
    shown.board.publish(busy());
    browser.open(&shown.url("/"));
    browser.wait_for(IS_LIVE, "live").await;
    drop(shown);
    browser.wait_for(IS_LIVE, "lost").await;
    let banner = browser.value(&text_of("#banner"));
    assert!(
        banner
            .as_str()
            .unwrap()
            .starts_with("The daemon has not answered since "),
        "{banner}"
    );
    // The last figures stay readable.
    assert_eq!(
        browser.value("document.querySelectorAll('#jobs > li').length"),
        8
    );
    take_pictures(&mut browser, "lost");
}

#[tokio::test]
async fn with_a_token_the_browser_sends_it_and_the_page_says_when_it_is_refused() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let token = "0123456789abcdef0123456789abcdef";
    let shown = Shown::at("127.0.0.1:0", Some(token));
    shown
        .board
        .publish(snapshot(vec![streaming("1", "public.articles")], vec![]));
    browser.send_headers(json!({"Authorization": format!("Bearer {token}")}));
    browser.open(&shown.url("/"));
    browser.wait_for(IS_LIVE, "live").await;
    browser.send_headers(json!({"Authorization": "Bearer another-one"}));
    browser.wait_for(IS_LIVE, "lost").await;
    let banner = browser.value(&text_of("#banner"));
    assert!(
        banner.as_str().unwrap().contains("Reload this page"),
        "{banner}"
    );
}

/// A real daemon: the rows that exist, then a row that is refused, without a reload.
#[tokio::test]
async fn a_job_proceeds_and_a_failure_appears() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let mut scene = notes_scene().await;
    scene.write(&[TIDES, CAVES]).await;
    scene
        .sql("ALTER TABLE notes ADD CONSTRAINT keeps CHECK (embedding IS NULL OR id <> 9)")
        .await;
    let daemon = scene.spawn_daemon_with(&["--listen", "127.0.0.1:0"]);
    let address = address_of(daemon).await;
    wait_for_state(address).await;
    browser.show_on(DESKTOP);
    browser.open(&format!("http://{address}/"));
    browser.value("window.first = true");
    let written =
        "document.querySelector('#jobs dl')?.innerText.match(/Vectors written\\n(\\d+)/)?.[1]";
    browser
        .wait_for("document.querySelectorAll('#jobs > li').length", 1)
        .await;
    browser.value("document.querySelector('#jobs details').open = true");
    browser
        .wait_for(&text_of("#jobs .badge"), "streaming")
        .await;
    browser.wait_for(written, "2").await;
    scene.put(3, MOON).await;
    browser.wait_for(written, "3").await;
    scene.put(9, TIDES).await;
    browser
        .wait_for(&text_of("#failure-list .key"), "{\"id\": \"9\"}")
        .await;
    let error = browser.value(&text_of("#failure-list"));
    assert!(error.as_str().unwrap().contains("\"keeps\""), "{error}");

    scene
        .sql("ALTER TABLE notes RENAME COLUMN body TO text")
        .await;
    browser.wait_for(&text_of("#jobs .badge"), "failed").await;
    let problem = browser.value(&text_of("#problem-list"));
    assert!(
        problem
            .as_str()
            .unwrap()
            .contains("SET init_failed_at = NULL"),
        "{problem}"
    );
    assert_eq!(browser.value("window.first"), true, "it was not reloaded");
    assert_eq!(browser.complaints(), &[] as &[String]);
}
