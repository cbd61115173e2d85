//! What is healed, and that nothing is healed twice.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::platform::{Kind, Platform, Row, SECRET, Text, WRITTEN, ago, id};
use crate::support::{Receiptd, Setup, eventually, open, receiptd, rows, run};
use crate::{call_back, counted, entries, round, setup, setup_with, statuses, upstream};

fn started(kind: Kind) -> (Platform, Setup, Receiptd) {
    let platform = Platform::start(kind);
    let setup = setup(&platform, kind);
    let server = setup.start();
    (platform, setup, server)
}

fn status(number: usize, status: &str) -> String {
    format!("{}|{status}", id(number))
}

#[test]
fn a_receipt_that_never_came_is_fetched_and_settled() {
    for kind in [Kind::Govuk, Kind::Gc, Kind::Us] {
        let (platform, setup, server) = started(kind);
        platform.add([
            Row::new(1, "delivered", 90),
            Row::new(2, "permanent-failure", 80),
            Row::new(3, "sending", 70),
        ]);
        round(&server);
        let expected =
            [status(1, "delivered"), status(2, "permanent-failure"), status(3, "sending")];
        assert_eq!(statuses(&setup), expected, "{kind:?}");
        assert_eq!((entries(&setup, 1), entries(&setup, 0)), (3, 0));
        assert_eq!(counted(&server, "healed", r#"kind="notification""#), 3.0);
        platform.set(3, "temporary-failure");
        round(&server);
        assert_eq!(statuses(&setup)[2], status(3, "temporary-failure"));
        assert_eq!(counted(&server, "healed", r#"kind="status""#), 1.0);
        assert_eq!(entries(&setup, 1), 4);
    }
}

#[test]
fn what_is_known_is_not_appended_again_however_often_it_is_told() {
    let (platform, setup, server) = started(Kind::Govuk);
    let known: Vec<Row> = (0..300).map(|n| Row::new(n, "delivered", 500 - n as i64)).collect();
    for row in &known {
        call_back(&server, &row.callback());
    }
    platform.add(known);
    platform.add((300..320).map(|n| Row::new(n, "sending", 100)));
    round(&server);
    round(&server);
    assert_eq!((entries(&setup, 0), entries(&setup, 1)), (300, 20));
    assert!(platform.asked("/v2/notifications?") > 4);
    let duplicates = rows(&open(&setup.state()), "SELECT sum(duplicates) FROM notification");
    assert_eq!(duplicates, ["0"]);
}

#[test]
fn pages_are_read_to_the_horizon_and_instants_that_a_page_ends_in_are_seen_whole() {
    let platform = Platform::start(Kind::Govuk);
    platform.state().page_size = 7;
    let mut rows: Vec<Row> = (0..100).map(|n| Row::new(n, "delivered", 1_000 + n as i64)).collect();
    // Runs of five that share an instant; the pages end anywhere among them.
    for run in rows.chunks_mut(5) {
        let instant = run[0].created_at;
        run.iter_mut().for_each(|row| row.created_at = instant);
    }
    // Older than what is asked for.
    rows.push(Row::new(100, "delivered", 7_200));
    platform.add(rows);
    let setup = setup_with(&platform, Kind::Govuk, "horizon = \"1h\"");
    let server = setup.start();
    round(&server);
    let expected: BTreeSet<String> = (0..100).map(|n| status(n, "delivered")).collect();
    let mut found: BTreeSet<String> = statuses(&setup).into_iter().collect();
    // It may stand on a page with others.
    found.remove(&status(100, "delivered"));
    assert_eq!(found, expected);
}

#[test]
fn after_a_round_only_the_newest_page_is_asked_for_also_by_the_next_process() {
    let platform = Platform::start(Kind::Govuk);
    platform.state().page_size = 10;
    platform.add((0..100).map(|n| Row::new(n, "delivered", 5_000 + n as i64)));
    let setup = setup(&platform, Kind::Govuk);
    let server = setup.start();
    round(&server);
    assert_eq!(statuses(&setup).len(), 100);
    server.stop();
    let older = |platform: &Platform| platform.asked("/v2/notifications?include_jobs=true&older");
    let before = older(&platform);
    assert!(before >= 10);
    let server = setup.start();
    round(&server);
    assert_eq!(older(&platform), before, "the point is noted in the journal");
    assert_eq!(entries(&setup, 1), 100);
}

#[test]
fn a_notification_that_no_page_shows_is_asked_for_by_its_id_until_it_has_come_to_an_end() {
    let (platform, setup, server) = started(Kind::Govuk);
    let sent = Row { is_listed: false, ..Row::new(1, "sending", 3_000) };
    call_back(&server, &sent.callback());
    platform.add([sent]);
    round(&server);
    let path = format!("/v2/notifications/{}", id(1));
    assert!(platform.asked(&path) > 0);
    platform.set(1, "delivered");
    round(&server);
    assert_eq!(statuses(&setup), [status(1, "delivered")]);
    let asked = platform.asked(&path);
    round(&server);
    assert_eq!(platform.asked(&path), asked);
}

#[test]
fn an_email_that_is_sent_is_asked_for_by_its_id_and_a_text_that_is_sent_is_not() {
    let (platform, setup, server) = started(Kind::Govuk);
    let rows = [1, 2].map(|number| Row { is_listed: false, ..Row::new(number, "sent", 3_000) });
    call_back(&server, &rows[0].callback());
    call_back(&server, &rows[1].callback().replace("\"email\"", "\"sms\""));
    platform.add(rows);
    round(&server);
    let by_id = |number| platform.asked(&format!("/v2/notifications/{}", id(number)));
    assert!(by_id(1) > 0);
    platform.set(1, "delivered");
    round(&server);
    assert_eq!(statuses(&setup), [status(1, "delivered"), status(2, "sent")]);
    assert_eq!(by_id(2), 0);
}

#[test]
fn the_time_line_says_what_was_called_back_and_what_was_told_when_asked() {
    let (platform, setup, server) = started(Kind::Govuk);
    let row = Row::new(1, "sending", 3_000);
    call_back(&server, &row.callback());
    platform.add([row]);
    platform.set(1, "delivered");
    round(&server);
    let sql = "SELECT status, origin FROM history ORDER BY seq";
    assert_eq!(rows(&open(&setup.state()), sql), ["sending|called-back", "delivered|polled"]);
    let config = setup.write();
    let shown = |command: &str, format: &str| {
        let id = id(1);
        let arguments = [command, &id, "--format", format, "--config", config.to_str().unwrap()];
        run(&mut receiptd(setup.folder.path(), &arguments)).stdout
    };
    let line: Value = serde_json::from_str(&shown("show", "json")).unwrap();
    let history = line["history"].as_array().unwrap();
    let origins: Vec<&Value> = history.iter().map(|line| &line["origin"]).collect();
    assert_eq!(origins, ["called-back", "polled"]);
    let table = shown("show", "text");
    assert!(table.contains("origin") && table.contains("polled"), "{table}");
    let why = shown("explain", "text");
    assert_eq!(why.matches("told when asked, not called back").count(), 1, "{why}");
}

#[test]
fn what_the_platform_has_forgotten_is_asked_for_once() {
    let (platform, setup, server) = started(Kind::Gc);
    for (number, seconds) in [(1, 3_000), (2, 10)] {
        call_back(&server, &Row::new(number, "sending", seconds).callback());
    }
    round(&server);
    assert_eq!(counted(&server, "requests", r#"outcome="not-found""#), 2.0);
    round(&server);
    assert_eq!(counted(&server, "requests", r#"outcome="not-found""#), 2.0);
    assert_eq!(platform.asked(&format!("/v2/notifications/{}", id(1))), 1);
    assert_eq!(entries(&setup, 1), 0);
}

#[test]
fn of_a_callback_and_an_answer_the_later_stands_whichever_comes_first() {
    let (platform, setup, server) = started(Kind::Govuk);
    // Called back as bounced after the platform's answer was made.
    let early = Row::new(1, "delivered", 3_000);
    let mut late = Row { status: "permanent-failure", ..early.clone() };
    late.updated_at = Some(ago(5));
    call_back(&server, &late.callback());
    // Delivered on, which was not called back.
    let mut healed = Row::new(2, "temporary-failure", 3_000);
    call_back(&server, &healed.callback());
    (healed.status, healed.updated_at) = ("delivered", Some(ago(5)));
    // Taken back and tried again: no version, so nothing that could be compared.
    let mut again = Row::new(3, "temporary-failure", 3_000);
    call_back(&server, &again.callback());
    (again.status, again.updated_at) = ("sending", Some(ago(5)));
    platform.add([early.clone(), healed.clone(), again]);
    round(&server);
    let expected =
        [status(1, "permanent-failure"), status(2, "delivered"), status(3, "temporary-failure")];
    assert_eq!(statuses(&setup), expected);
    assert_eq!(entries(&setup, 1), 1);
    // What was asked for is called back after all, and what was before it too.
    call_back(&server, &healed.callback());
    call_back(&server, &Row::new(2, "temporary-failure", 3_000).callback());
    round(&server);
    assert_eq!(statuses(&setup), expected);
    assert_eq!(entries(&setup, 1), 1);
}

#[test]
fn texts_from_the_public_that_never_came_are_kept_and_a_callback_keeps_the_word() {
    let (platform, setup, server) = started(Kind::Govuk);
    let text = |number, seconds| Text { id: id(number), created_at: ago(seconds) };
    platform.state().page_size = 3;
    platform.state().texts.extend((0..8).map(|number| text(number, 100 + number as i64 / 2)));
    let said = |number: usize, message: &str| {
        let id = id(number);
        format!(
            r#"{{"id": "{id}", "source_number": "447700900111", "destination_number": "07900900002", "message": "{message}", "date_received": "2026-11-22T10:00:00.000000Z"}}"#
        )
    };
    call_back(&server, &said(0, "as it came"));
    round(&server);
    round(&server);
    assert_eq!(entries(&setup, 1), 7);
    assert_eq!(counted(&server, "healed", r#"kind="message""#), 7.0);
    call_back(&server, &said(1, "late"));
    let sql = "SELECT message, count(*) FROM received_message GROUP BY 1 ORDER BY 1";
    assert_eq!(rows(&open(&setup.state()), sql), ["Hi|6", "as it came|1", "late|1"]);
}

#[test]
fn a_state_that_is_lost_is_the_same_after_it_was_settled_again() {
    let (platform, setup, server) = started(Kind::Gc);
    platform.add((0..20).map(|n| Row::new(n, "delivered", 60)));
    call_back(&server, &Row::new(3, "sending", 60).callback());
    round(&server);
    let sql = "SELECT * FROM notification ORDER BY id";
    let before = rows(&open(&setup.state()), sql);
    assert_eq!(before.len(), 20);
    server.stop();
    fs::remove_file(setup.state()).unwrap();
    let server = setup.start();
    server.settled();
    assert_eq!(rows(&open(&setup.state()), sql), before);
    assert!(server.stderr().contains("settled from the journal"));
}

fn threads(server: &Receiptd) -> Vec<String> {
    let tasks = format!("/proc/{}/task", server.pid().as_raw_nonzero());
    let tasks = fs::read_dir(tasks).unwrap().map(Result::unwrap);
    tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok()).collect()
}

#[test]
fn an_upstream_that_is_configured_while_the_receiver_runs_is_asked() {
    let platform = Platform::start(Kind::Gc);
    platform.add([Row::new(1, "delivered", 60)]);
    let mut setup = Setup::new();
    let server = setup.start();
    let section = upstream(&setup, &platform, "");
    setup.sources.push_str(&section);
    setup.write();
    server.signal(rustix::process::Signal::HUP);
    eventually("it is asked", || platform.asked("/v2/notifications?") > 0);
    assert!(threads(&server).contains(&"reconcile\n".to_owned()));
    round(&server);
    assert_eq!(statuses(&setup), [status(1, "delivered")]);
    let without = setup.sources.replace(&section, "");
    setup.sources = without;
    setup.write();
    server.signal(rustix::process::Signal::HUP);
    eventually("its thread has ended", || !threads(&server).contains(&"reconcile\n".to_owned()));
}

#[test]
fn neither_the_key_nor_what_was_written_to_people_gets_anywhere() {
    let (platform, setup, server) = started(Kind::Govuk);
    platform.add([Row::new(1, "delivered", 60), Row::new(2, "sending", 60)]);
    call_back(&server, &Row { is_listed: false, ..Row::new(3, "sending", 3_000) }.callback());
    round(&server);
    assert_eq!(entries(&setup, 1), 2);
    assert!(!server.metrics().contains(SECRET));
    for file in fs::read_dir(setup.folder.path()).unwrap().map(Result::unwrap) {
        let name = file.file_name();
        let content = fs::read(file.path()).unwrap();
        let has = |text: &str| content.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(!has(WRITTEN), "{name:?}");
        assert!(name == "api-key" || !has(SECRET), "{name:?}");
    }
}

#[test]
fn no_minute_has_more_requests_than_are_allowed() {
    let platform = Platform::start(Kind::Govuk);
    platform.state().page_size = 2;
    platform.add((0..100).map(|n| Row::new(n, "delivered", 100 + n as i64)));
    let setup = setup_with(&platform, Kind::Govuk, "requests_per_minute_max = 5");
    let server = setup.start();
    eventually("the budget is spent", || platform.asked("/") == 5);
    // What was told by then is there, and stopping does not wait for the rest.
    eventually("all of it is settled", || statuses(&setup).len() >= 5);
    server.stop();
    assert_eq!(platform.asked("/"), 5);
}
