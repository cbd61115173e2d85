//! `receiptd reconcile`: without a receiver, beside one, and only to see.

use std::fs;

use crate::platform::{Kind, Platform, Row, SECRET, Text, Trouble, WRITTEN, ago, id};
use crate::support::{
    Client, Ended, Receiptd, Setup, eventually, metric, open, receiptd, rows, run, source,
};
use crate::{call_back, entries, no_identity, setup_with, statuses, upstream};

/// A configuration whose upstream only a command knows of: the receiver asks nobody.
fn setup() -> (Platform, Setup, String) {
    let platform = Platform::start(Kind::Gc);
    let setup = Setup::new();
    let section = upstream(&setup, &platform, "every = \"1h\"");
    (platform, setup, section)
}

impl Setup {
    /// Runs a command with the configuration and this section behind it.
    pub fn command(&self, section: &str, arguments: &[&str]) -> Ended {
        let own = fs::read_to_string(self.write()).unwrap();
        let config = self.path("command.toml");
        fs::write(&config, format!("{own}{section}")).unwrap();
        let arguments = [arguments, &["--config", config.to_str().unwrap()]].concat();
        let ended = run(&mut receiptd(self.folder.path(), &arguments));
        assert!(!format!("{ended:?}").contains(SECRET), "{ended:?}");
        ended
    }
}

#[test]
fn a_round_by_hand_heals_while_no_receiver_runs_and_says_what() {
    let (platform, setup, section) = setup();
    let server = setup.start();
    call_back(&server, &Row::new(1, "sending", 500).callback());
    call_back(&server, &Row { is_listed: false, ..Row::new(2, "sending", 400) }.callback());
    server.stop();
    platform.add([
        Row::new(1, "delivered", 500),
        Row { is_listed: false, ..Row::new(2, "permanent-failure", 400) },
        Row::new(3, "delivered", 300),
    ]);
    platform.state().texts.push(Text { id: id(9), created_at: ago(200) });
    let ended = setup.command(&section, &["reconcile"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said = "healed 2 statuses, 1 notification never heard of, 1 received text\n";
    assert!(ended.stdout.contains(said), "{}", ended.stdout);
    let expected = [(1, "delivered"), (2, "permanent-failure"), (3, "delivered")];
    assert_eq!(
        statuses(&setup),
        expected.map(|(number, status)| format!("{}|{status}", id(number)))
    );
    assert_eq!((entries(&setup, 0), entries(&setup, 1)), (2, 4));
    let again = setup.command(&section, &["reconcile"]);
    assert!(again.stdout.contains("nothing was missing"), "{}", again.stdout);
    assert_eq!(entries(&setup, 1), 4);
    for command in ["check-db", "rebuild", "check-db"] {
        let ended = setup.command(&section, &[command]);
        assert_eq!(ended.code, Some(0), "{command} {ended:?}");
    }
    let why = setup.command(&section, &["explain", &id(1)]).stdout;
    assert!(why.contains("told when asked, not called back; wins: latest completed_at"), "{why}");
}

#[test]
fn beside_a_receiver_the_receiver_is_handed_what_is_new() {
    let (platform, setup, section) = setup();
    let server = setup.start();
    let known: Vec<Row> = (0..150).map(|n| Row::new(n, "sending", 900 - n as i64)).collect();
    call_back(&server, &known[0].callback());
    platform.state().page_size = 100;
    platform.add(known);
    platform.set(0, "delivered");
    let ended = setup.command(&section, &["reconcile"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said = "healed 1 status, 149 notifications never heard of\n";
    assert!(ended.stdout.contains(said), "{}", ended.stdout);
    assert_eq!(statuses(&setup).len(), 150, "it is settled when the command ends");
    let series = "receiptd_reconcile_healed_total{source=\"passport\",kind=\"notification\"}";
    assert_eq!(metric(&server.metrics(), series), Some(149.0));
    let again = setup.command(&section, &["reconcile"]);
    assert!(again.stdout.contains("nothing was missing"), "{}", again.stdout);
    assert_eq!(entries(&setup, 1), 150);
    for file in fs::read_dir(setup.folder.path()).unwrap().map(Result::unwrap) {
        let content = fs::read(file.path()).unwrap();
        let has = content.windows(WRITTEN.len()).any(|part| part == WRITTEN.as_bytes());
        assert!(!has, "{:?}", file.file_name());
    }
}

#[test]
fn a_dry_run_keeps_nothing_beside_a_receiver_or_without_one() {
    let (platform, setup, section) = setup();
    platform.add((0..3).map(|n| Row::new(n, "delivered", 60 + n as i64)));
    let server = setup.start();
    let look = || {
        let ended = setup.command(&section, &["reconcile", "--dry-run"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains("would heal 3 notifications never heard of\n"), "{ended:?}");
    };
    look();
    server.stop();
    look();
    assert_eq!((entries(&setup, 1), statuses(&setup).len()), (0, 0));
}

#[test]
fn who_reads_a_database_of_an_older_version_is_told_what_to_do() {
    let (_platform, setup, section) = setup();
    setup.start().stop();
    let older = "DROP TRIGGER awaited_again; DROP TRIGGER awaited_unheard_of; DROP TABLE awaited_row;
        DROP TABLE awaited_ends; DROP VIEW expected; DROP TABLE expected_row; PRAGMA user_version = 2";
    rusqlite::Connection::open(setup.state()).unwrap().execute_batch(older).unwrap();
    let look = |arguments: &[&str]| {
        let ended = setup.command(&section, arguments);
        assert_eq!(ended.code, Some(74), "{ended:?}");
        for way in ["`receiptd serve` of this version", "`receiptd rebuild`"] {
            assert!(ended.stderr.contains(way), "{arguments:?}: {}", ended.stderr);
        }
    };
    look(&["reconcile", "--dry-run"]);
    look(&["list", "--overdue"]);
    for command in ["show", "explain"] {
        look(&[command, &id(1)]);
    }
}

#[test]
fn it_asks_only_whom_and_since_when_it_is_told() {
    let (platform, setup, section) = setup();
    platform.state().page_size = 10;
    platform.add((0..60).map(|n| Row::new(n, "delivered", 60 * n as i64 + 30)));
    let server = setup.start();
    let ended = setup.command(&section, &["reconcile", "--source", "passport", "--since", "20m"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!((20..=30).contains(&statuses(&setup).len()), "{}", statuses(&setup).len());
    let ended = setup.command(&section, &["reconcile", "--source", "nobody"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let ended = setup.command("", &["reconcile"]);
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert!(ended.stderr.contains("[source.upstream]"), "{}", ended.stderr);
    server.stop();
}

#[test]
fn where_there_is_no_database_none_is_made() {
    let (platform, setup, section) = setup();
    platform.add([Row::new(1, "delivered", 60)]);
    let ended = setup.command(&section, &["reconcile"]);
    assert_eq!(ended.code, Some(74), "{ended:?}");
    assert!(ended.stderr.contains("there is no database at"), "{ended:?}");
    assert!(!setup.journal().exists() && !setup.state().exists());
    assert_eq!(platform.asked("/"), 0);
}

#[test]
fn a_source_whose_platform_cannot_be_tried_keeps_no_other_from_being_asked() {
    let (platform, setup, section) = setup();
    setup.start().stop();
    platform.add((0..3).map(|n| Row::new(n, "delivered", 60 + n as i64)));
    let other = source("another", "gc-notify", &[("live", "another-bearer-0123456789")]);
    let broken = upstream(&setup, &platform, &no_identity(&setup));
    let setup = Setup { sources: setup.sources.clone() + &broken + &other, ..setup };
    let ended = setup.command(&section, &["reconcile"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("passport: not asked: "), "{}", ended.stdout);
    assert!(ended.stdout.contains("healed 3 notifications never heard of\n"), "{}", ended.stdout);
    assert_eq!(statuses(&setup).len(), 3);
}

#[test]
fn what_could_not_be_asked_for_is_said_and_what_was_found_by_then_is_kept() {
    let (platform, setup, section) = setup();
    platform.state().page_size = 3;
    platform.add((0..9).map(|n| Row::new(n, "delivered", 60 + n as i64)));
    let older = "/v2/notifications?include_jobs=true&older";
    platform.trouble(older, Trouble::status(403, ""), usize::MAX);
    let server = setup.start();
    let ended = setup.command(&section, &["reconcile"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("healed 3 notifications never heard of"), "{}", ended.stdout);
    assert!(ended.stdout.contains("not everything was asked for"), "{}", ended.stdout);
    assert!(ended.stdout.contains("answered 403"), "{}", ended.stdout);
    assert_eq!(statuses(&setup).len(), 3);
    server.stop();
}

#[test]
fn only_who_can_read_the_control_file_can_hand_over_what_a_platform_told() {
    let platform = Platform::start(Kind::Gc);
    let setup = setup_with(&platform, Kind::Gc, "every = \"1h\"");
    let server = setup.start();
    let control = fs::read_to_string(setup.path("receiptd.db.control")).unwrap();
    let key = control.lines().nth(1).unwrap();
    let ask = |key: &str, source: &str| {
        let body = format!(
            r#"{{"source": "{source}", "pieces": [{{"heals": "status", "at": "2026-11-22T10:00:00Z", "body": "{{\"id\": \"n\", \"status\": \"sent\", \"type\": \"sms\"}}"}}]}}"#
        );
        Client::connect(server.admin)
            .ask(format!(
                "POST /control/polled HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            ))
            .status
    };
    assert_eq!(ask("not-the-key", "passport"), 401);
    assert_eq!(ask(key, "another"), 400);
    assert_eq!(rows(&open(&setup.journal()), "SELECT count(*) FROM callback"), ["0"]);
    assert_eq!(ask(key, "passport"), 204);
    assert_eq!(statuses(&setup), ["n|sent"]);
    let note = |key: &str, body: &str| {
        let request = format!(
            "POST /control/asked HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        Client::connect(server.admin).ask(request).status
    };
    let outcome = r#"{"through": [null, null], "succeeded_at": "2026-11-22T10:00:00Z", "rests_until": null, "is_by_hand": true}"#;
    let body = |source: &str| format!(r#"{{"source": "{source}", "outcome": {outcome}}}"#);
    assert_eq!(note("not-the-key", &body("passport")), 401);
    assert_eq!(note(key, &body("another")), 400);
    assert_eq!(note(key, outcome), 400);
    let noted = || rows(&open(&setup.journal()), "SELECT succeeded_at FROM upstream_round");
    assert!(!noted().contains(&"2026-11-22T10:00:00.000000Z".to_owned()));
    assert_eq!(note(key, &body("passport")), 204);
    assert_eq!(noted(), ["2026-11-22T10:00:00.000000Z"]);
}

/// What the metrics say: when the last round succeeded, and how far behind it is.
fn said(server: &Receiptd) -> [Option<f64>; 2] {
    ["last_success_timestamp", "behind"].map(|name| {
        let series = format!("receiptd_reconcile_{name}_seconds{{source=\"passport\"}}");
        metric(&server.metrics(), &series)
    })
}

#[test]
fn what_a_round_by_hand_came_to_is_in_the_metrics_of_the_receiver_beside_it_and_of_the_next() {
    let (platform, mut setup, section) = setup();
    platform.state().page_size = 5;
    platform.add((0..20).map(|n| Row::new(n, "delivered", 60 * n as i64 + 30)));
    // What the receiver asks never answers.
    let silent = Platform::start(Kind::Gc);
    silent.trouble("/", Trouble::Silence, usize::MAX);
    let own = upstream(&setup, &silent, "every = \"1h\"");
    setup.sources.push_str(&own);
    let server = setup.start();
    setup.sources = setup.sources.replace(&own, "");
    eventually("it has asked", || silent.asked("/") > 0);
    // Not everything was asked for: not down to a point that is known, only to see, and in vain.
    for flags in [&["--since", "2m"][..], &["--dry-run"]] {
        let ended = setup.command(&section, &[&["reconcile"], flags].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    platform.trouble("/v2/received", Trouble::status(400, ""), 1);
    assert_eq!(setup.command(&section, &["reconcile"]).code, Some(1));
    let [last, behind] = said(&server).map(Option::unwrap);
    assert!(last == 0.0 && behind > 6.0 * 86_400.0, "{last} {behind}");
    assert_eq!(setup.command(&section, &["reconcile"]).code, Some(0));
    let [last, behind] = said(&server).map(Option::unwrap);
    assert!(last > 1e9 && behind < 60.0, "{last} {behind}");
    server.stop();
    // Without a receiver it is noted too, and the next one says so before it has asked anybody.
    assert_eq!(setup.command(&section, &["reconcile", "--since", "2m"]).code, Some(0));
    setup.sources.push_str(&section);
    platform.trouble("/", Trouble::Silence, usize::MAX);
    let server = setup.start();
    eventually("it is said", || said(&server)[0].is_some_and(|said| said >= last));
    let [later, behind] = said(&server).map(Option::unwrap);
    assert!(later > last && behind < 60.0, "{last} {later} {behind}");
}

#[test]
fn what_earlier_rounds_came_to_is_known_after_a_start() {
    let platform = Platform::start(Kind::Gc);
    let setup = setup_with(&platform, Kind::Gc, "every = \"1h\"");
    let server = setup.start();
    eventually("the first round", || said(&server)[0].is_some_and(|said| said > 0.0));
    let [last, _] = said(&server);
    server.stop();
    platform.trouble("/", Trouble::Silence, usize::MAX);
    let server = setup.start();
    eventually("it is said", || said(&server)[0] == last);
    assert!(said(&server)[1].unwrap() < 60.0);
}

#[test]
fn what_a_round_by_hand_came_to_is_not_told_by_a_receiver_that_does_not_ask_that_source() {
    let (platform, setup, section) = setup();
    platform.add([Row::new(1, "delivered", 100)]);
    let server = setup.start();
    assert_eq!(setup.command(&section, &["reconcile"]).code, Some(0));
    assert_eq!(statuses(&setup).len(), 1);
    // It would be longer ago for ever: nobody asks again.
    assert_eq!(said(&server), [None, None]);
}
