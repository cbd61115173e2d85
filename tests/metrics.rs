//! What can be seen on the admin listener: every metric is there, says what happened, and the page
//! is what a scraper can read.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

use receiptd::clock::Clock;
use receiptd::receive::refusal::Reason;
use support::{
    Client, PATH, SOURCE, Setup, TOKEN, metric, post, post_with, receipt, receipt_of, source,
};

/// Every series after a known sequence of requests.
fn page() -> String {
    let old = source("passport", "gc-notify", &[("new", TOKEN), ("old", "the-old-token")]);
    let old = format!("{old}not_after = \"2099-12-31\"\n");
    let setup = Setup::with_sources(&format!(
        "{old}{}",
        source("quiet", "ajo", &[("a", "the-token-of-quiet")])
    ));
    let server = setup.start();
    assert_eq!(server.post(receipt("a")), 204);
    assert_eq!(server.post(receipt("a")), 204);
    assert_eq!(server.post(receipt_of("b", "brand-new-status", "2026-11-22T10:00:00Z")), 204);
    assert_eq!(server.post(r#"{"id": "m", "source_number": "1", "message": "hi"}"#), 204);
    let complaint = r#"{"notification_id": "a", "complaint_id": "c", "complaint_date": null}"#;
    assert_eq!(server.post(complaint), 204);
    let letter = r#"{"notification_id": "l", "date_sent": "2026-11-01", "template_name": "t"}"#;
    assert_eq!(server.post(letter), 204);
    assert_eq!(server.post("not understood"), 204);
    assert_eq!(server.post(r#"{"health_check": true}"#), 204);
    assert_eq!(server.ask(post(PATH, "the-old-token", receipt("c"))).status, 204);
    assert_eq!(server.ask(post(PATH, "wrong-token", receipt("a"))).status, 401);
    assert_eq!(server.ask(post(PATH, "wrong-token", receipt("a"))).status, 401);
    assert_eq!(server.ask(post_with(PATH, "", receipt("a"))).status, 401);
    assert_eq!(server.ask(post("/elsewhere", TOKEN, receipt("a"))).status, 404);
    server.settled();
    let _open: Client = server.connect();
    support::eventually("only that connection is open", || {
        metric(&server.metrics(), "receiptd_connections") == Some(1.0)
    });
    let answer = server.admin("/metrics");
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)));
    answer.text()
}

#[test]
fn every_metric_says_what_happened() {
    let page = page();
    for (series, value) in [
        (r#"callbacks_total{source="passport",code="204"}"#, 8.0),
        (r#"probes_total{source="passport"}"#, 1.0),
        (r#"callbacks_total{source="passport",code="401"}"#, 3.0),
        (r#"callbacks_total{source="",code="404"}"#, 1.0),
        (r#"callbacks_total{source="quiet",code="204"}"#, 0.0),
        (r#"probes_total{source="quiet"}"#, 0.0),
        (r#"authentication_refusals_total{source="passport",reason="wrong"}"#, 2.0),
        (r#"authentication_refusals_total{source="passport",reason="missing"}"#, 1.0),
        (r#"events_total{source="passport",kind="receipt"}"#, 4.0),
        (r#"events_total{source="passport",kind="received-message"}"#, 1.0),
        (r#"events_total{source="passport",kind="complaint"}"#, 1.0),
        (r#"events_total{source="passport",kind="returned-letter"}"#, 1.0),
        (r#"events_total{source="quiet",kind="receipt"}"#, 0.0),
        (r#"duplicates_total{source="passport"}"#, 1.0),
        (r#"duplicates_total{source="quiet"}"#, 0.0),
        (r#"unrecognised_total{source="passport"}"#, 1.0),
        (r#"unknown_statuses_total{source="passport"}"#, 1.0),
        ("settle_panics_total", 0.0),
        // The probe is not committed.
        ("commit_seconds_count", 8.0),
        ("commit_wait_seconds_count", 8.0),
        ("batch_callbacks_count", 8.0),
        ("batch_callbacks_sum", 8.0),
        ("answer_seconds_count", 13.0),
        ("connections", 1.0),
        ("queue_callbacks", 0.0),
        ("settle_lag_callbacks", 0.0),
        ("settle_lag_seconds", 0.0),
        ("ready", 1.0),
        ("settling_failing", 0.0),
    ] {
        assert_eq!(metric(&page, &format!("receiptd_{series}")), Some(value), "{series}\n{page}");
    }
}

#[test]
fn times_and_sizes_are_plausible() {
    let page = page();
    let value = |series: &str| metric(&page, &format!("receiptd_{series}")).expect(series);
    let now = UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    let recent = now - Duration::from_secs(300).as_secs_f64()..=now;
    let last = value(r#"last_callback_timestamp_seconds{source="passport"}"#);
    assert!(recent.contains(&last), "{last}");
    let used = value(r#"token_last_used_timestamp_seconds{source="passport",token="old"}"#);
    assert!(recent.contains(&used), "{used}");
    // The end of 2099-12-31.
    let end = value(r#"token_not_after_timestamp_seconds{source="passport",token="old"}"#);
    assert!((4_102_444_799.0..=4_102_444_800.0).contains(&end), "{end}");
    assert!(value(r#"wal_bytes{file="journal"}"#) > 0.0);
    assert!(value(r#"wal_bytes{file="state"}"#) > 0.0);
    assert!(value("free_bytes") > 0.0);
    assert!(value("commit_seconds_sum") > 0.0);
    assert!((1.0..=8.0).contains(&value("settle_seconds_count")));
}

#[test]
fn when_a_source_last_called_back_outlives_a_restart_and_is_not_said_of_one_that_never_did() {
    let passport = source("passport", "gc-notify", &[("a", TOKEN)]);
    let quiet = source("quiet", "ajo", &[("a", "the-token-of-quiet")]);
    let setup = Setup::with_sources(&format!("{passport}{quiet}"));
    let last = |page: &str, source: &str| {
        metric(page, &format!("receiptd_last_callback_timestamp_seconds{{source=\"{source}\"}}"))
    };
    let server = setup.start();
    assert_eq!(last(&server.metrics(), "passport"), None);
    // Anybody can send the second: a probe says nothing about whether callbacks come.
    let probe = r#"{"health_check": true}"#;
    for token in [TOKEN, "bearer_token_set"] {
        assert_eq!(server.ask(post(PATH, token, probe)).status, 204);
    }
    assert_eq!(last(&server.metrics(), "passport"), None);
    assert_eq!(server.post(receipt("a")), 204);
    let before = last(&server.metrics(), "passport").unwrap();
    server.stop();
    let server = setup.start();
    let page = server.metrics();
    // The journal has when it arrived, and before the restart it was when it was answered.
    let recalled = last(&page, "passport").unwrap();
    assert!((before - 60.0..=before).contains(&recalled), "{recalled} {before}");
    assert_eq!(last(&page, "quiet"), None, "{page}");
    assert_eq!(server.post(receipt("b")), 204);
    assert!(last(&server.metrics(), "passport").unwrap() > before);
}

#[test]
fn every_count_is_there_before_the_first_of_its_kind() {
    let setup = Setup::new();
    let server = setup.start();
    let page = server.metrics();
    let of_source = |code: &u16| (SOURCE, *code);
    let codes = [204, 400, 401, 405, 408, 413, 503];
    for (name, code) in codes.iter().map(of_source).chain([("", 400), ("", 404)]) {
        let series = format!("receiptd_callbacks_total{{source=\"{name}\",code=\"{code}\"}}");
        assert_eq!(metric(&page, &series), Some(0.0), "{series}");
    }
    for reason in Reason::ALL {
        let by = format!("source=\"{SOURCE}\",reason=\"{}\"", reason.as_str());
        let series = format!("receiptd_authentication_refusals_total{{{by}}}");
        assert_eq!(metric(&page, &series), Some(0.0), "{series}");
    }
    // And there are no more, whatever strangers ask for.
    let count = |page: &str| page.lines().filter(|line| !line.starts_with('#')).count();
    for path in ["/a", "/b", "/callbacks/nobody"] {
        assert_eq!(server.ask(post(path, TOKEN, receipt("a"))).status, 404);
    }
    assert_eq!(server.ask(post(PATH, "wrong-token", receipt("a"))).status, 401);
    assert_eq!(count(&server.metrics()), count(&page));
}

/// A line that is no comment: name, labels, value.
fn series(line: &str) -> (&str, Option<&str>, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    match series.split_once('{') {
        None => (series, None, value),
        Some((name, labels)) => (name, Some(labels.strip_suffix('}').expect(line)), value),
    }
}

fn is_name(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty() && text.chars().all(is_letter) && !text.starts_with(|c: char| c.is_numeric())
}

#[test]
fn the_page_is_openmetrics_text() {
    let page = page();
    assert!(page.ends_with("# EOF\n") && page.matches("# EOF").count() == 1);
    let mut types = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for line in page.lines().filter(|line| *line != "# EOF") {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (word, name) = (words.next().unwrap(), words.next().unwrap());
            assert!(is_name(name) && name.starts_with("receiptd_"), "{line}");
            let text = words.next().unwrap_or_default();
            match word {
                "HELP" => assert!(!text.is_empty(), "{line}"),
                "UNIT" => assert!(name.ends_with(text), "{line}"),
                "TYPE" => {
                    let before = types.insert(name, text);
                    assert_eq!(before, None, "{name} is declared twice");
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (name, labels, value) = series(line);
        assert!(is_name(name), "{line}");
        assert!(seen.insert((name, labels)), "twice: {line}");
        let suffixes = ["", "_total", "_sum", "_count", "_bucket"];
        let kind = suffixes
            .iter()
            .find_map(|suffix| types.get(name.strip_suffix(suffix)?).map(|kind| (*kind, *suffix)));
        let allowed = [
            ("counter", "_total"),
            ("gauge", ""),
            ("histogram", "_sum"),
            ("histogram", "_count"),
            ("histogram", "_bucket"),
        ];
        assert!(kind.is_some_and(|kind| allowed.contains(&kind)), "{line}: {kind:?}");
        assert!(!value.is_nan(), "{line}");
        for label in labels.into_iter().flat_map(|labels| labels.split("\",")) {
            let (label, text) = label.split_once("=\"").expect(line);
            assert!(is_name(label) && !text.trim_end_matches('"').contains('"'), "{line}");
        }
    }
    assert!(types.len() >= 20, "{types:?}");
}

#[test]
fn a_source_that_a_reload_removed_is_not_said_to_be_silent_for_ever() {
    let passport = source("passport", "gc-notify", &[("live", TOKEN)]);
    let other = source("other", "gc-notify", &[("live", "the-other-token")]);
    let mut setup = Setup::with_sources(&format!("{passport}{other}"));
    let server = setup.start();
    assert_eq!(server.post(receipt("a")), 204);
    let answer = server.ask(post("/callbacks/other", "the-other-token", receipt("a")));
    assert_eq!(answer.status, 204);
    let last = |source: &str| {
        let name = "receiptd_last_callback_timestamp_seconds";
        metric(&server.metrics(), &format!("{name}{{source=\"{source}\"}}"))
    };
    assert!(last("passport").is_some() && last("other").is_some());
    let (both, last_called) = (setup.sources, last("other"));
    setup.sources = passport;
    setup.write();
    server.signal(rustix::process::Signal::HUP);
    support::eventually("it is gone", || last("other").is_none());
    assert!(last("passport").is_some());
    // Or it would be silent since the start.
    setup.sources = both;
    setup.write();
    server.signal(rustix::process::Signal::HUP);
    support::eventually("it is as it was", || last("other") == last_called);
}

/// The day that many days from now.
fn in_days(days: i64) -> String {
    Clock::system().now().plus_seconds(days * 86_400).date().to_string()
}

fn token_until(label: &str, bearer: &str, last_day: &str) -> String {
    let sha256 = support::sha256_hex(bearer.as_bytes());
    format!(
        "[[source.token]]\nlabel = \"{label}\"\nsha256 = \"{sha256}\"\nnot_after = \"{last_day}\"\n"
    )
}

#[test]
fn a_token_that_a_reload_removed_is_gone_from_the_page_and_others_stay() {
    let live = source("passport", "gc-notify", &[("live", TOKEN)]);
    let kept = token_until("kept", "the-kept-token", "2099-12-31");
    let old = token_until("old", "the-old-token", "2099-12-31");
    let mut setup = Setup::with_sources(&format!("{live}{old}{kept}"));
    let server = setup.start();
    for bearer in ["the-old-token", "the-kept-token"] {
        assert_eq!(server.ask(post(PATH, bearer, receipt("a"))).status, 204);
    }
    let series = |token: &str| {
        let page = server.metrics();
        ["token_last_used_timestamp_seconds", "token_not_after_timestamp_seconds"].map(|name| {
            let series = format!("receiptd_{name}{{source=\"passport\",token=\"{token}\"}}");
            metric(&page, &series)
        })
    };
    let before = series("kept");
    assert!(series("old").iter().chain(&before).all(Option::is_some));
    setup.sources = format!("{live}{kept}");
    setup.write();
    server.signal(rustix::process::Signal::HUP);
    support::eventually("it is gone", || series("old") == [None, None]);
    assert_eq!(series("kept"), before);
}

#[test]
fn a_used_token_is_warned_of_if_it_ends_soon_or_retires_and_not_otherwise() {
    let of = |name: &str, tokens: &str| {
        format!("[[source]]\nname = \"{name}\"\nprovider = \"notify\"\n{tokens}")
    };
    let far = token_until("far", "the-far-token", &in_days(1_000));
    let soon = token_until("soon", "the-soon-token", &in_days(3));
    let retiring = token_until("retiring", "the-retiring-token", &in_days(500));
    let sources = [
        of("alone", &far),
        of("ending", &soon),
        of("rotated", &(retiring + &token_until("next", "the-next-token", &in_days(900)))),
    ];
    let setup = Setup::with_sources(&sources.concat());
    let server = setup.start();
    let warnings = |label: &str| {
        let said = server.stderr();
        said.lines().filter(|line| line.contains("WARN") && line.contains(label)).count()
    };
    assert_eq!(warnings("soon"), 1, "at the start, used or not: {}", server.stderr());
    for (source, bearer) in [
        ("alone", "the-far-token"),
        ("ending", "the-soon-token"),
        ("rotated", "the-retiring-token"),
        ("rotated", "the-next-token"),
    ] {
        for _ in 0..2 {
            let path = format!("/callbacks/{source}");
            assert_eq!(server.ask(post(&path, bearer, receipt("a"))).status, 204);
        }
    }
    let said = ["far", "soon", "retiring", "next"].map(warnings);
    assert_eq!(said, [0, 2, 1, 0], "{}", server.stderr());
}

#[test]
fn the_admin_listener_answers_what_is_asked_and_nothing_else() {
    let setup = Setup::new();
    let server = setup.start();
    for (path, status) in [("/livez", 200), ("/readyz", 200), ("/", 404), (PATH, 404)] {
        assert_eq!(server.admin(path).status, status, "{path}");
    }
    let posted = Client::connect(server.admin).ask(post(PATH, TOKEN, receipt("a")));
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")));
    let read = server.admin("/control/prune");
    assert_eq!((read.status, read.header("allow")), (405, Some("POST")));
    for (wait, status) in [("wait=5s", 204), ("wait=+5s", 400), ("wait=61s", 400), ("5s", 400)] {
        assert_eq!(server.admin(&format!("/settled?{wait}")).status, status, "{wait}");
    }
    assert_eq!(setup.callbacks(), 0);
}
