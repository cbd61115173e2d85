//! What the app said it sent, what is overdue of it, and what is stuck.

use std::sync::Arc;

use receiptd::callback::{Expected, Origin};
use receiptd::clock::Timestamp;
use receiptd::journal::reader::Reader;
use receiptd::journal::{self, Options};
use receiptd::settle::expect;
use receiptd::sqlite::{self, Access, Durability};
use serde_json::{Value, json};

use crate::platform::{Kind, Platform, Row, Trouble, ago, id};
use crate::support::{
    Ended, Setup, TOKEN, eventually, metric, open, post, receiptd, rows, run, source,
};
use crate::{call_back, round, setup, setup_with, statuses};

/// While no receiver runs: the app said then that it sent this.
pub fn say(setup: &Setup, at: Timestamp, body: &str) {
    let access = Access::Write(Durability::Full);
    let journal = sqlite::open(&setup.journal(), &journal::SCHEMA, access).unwrap();
    let sql = "INSERT INTO callback (source, received_at, body, origin) VALUES (?1, ?2, ?3, ?4)";
    let row = ("passport", at.to_string(), body.as_bytes(), Origin::Expected.number());
    journal.execute(sql, row).unwrap();
}

pub fn said(number: usize, deadline: Timestamp) -> String {
    let id = id(number);
    format!(r#"{{"id": "{id}", "reference": "mine-{number}", "deadline": "{deadline}"}}"#)
}

/// The ids and statuses that `receiptd list` prints with these flags.
fn list(setup: &Setup, flags: &[&str]) -> Vec<(String, Value)> {
    let config = setup.write();
    let arguments = [&["list", "--format", "json", "--config", config.to_str().unwrap()], flags];
    let ended = run(&mut receiptd(setup.folder.path(), &arguments.concat()));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let rows = ended.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|row| (row["id"].as_str().unwrap().to_owned(), row["status"].clone())).collect()
}

#[test]
fn what_was_said_is_matched_whichever_of_the_two_comes_first() {
    let setup = Setup::new();
    let server = setup.start();
    // Called back before it was said.
    call_back(&server, &Row::new(1, "delivered", 100).callback());
    call_back(&server, &Row::new(2, "sending", 100).callback());
    server.stop();
    for number in [1, 2, 3, 4] {
        say(&setup, ago(90), &said(number, ago(60)));
    }
    say(&setup, ago(90), &said(5, ago(-3_600)));
    say(&setup, ago(90), &format!(r#"{{"id": "{}"}}"#, id(6)));
    let server = setup.start();
    server.settled();
    // Called back after it was said.
    call_back(&server, &Row::new(3, "delivered", 100).callback());
    let overdue = [(id(2), Value::from("sending")), (id(4), Value::Null)];
    assert_eq!(list(&setup, &["--overdue"]), overdue);
    assert_eq!(list(&setup, &["--overdue", "--source", "another"]), []);
    assert_eq!(list(&setup, &["--overdue", "--limit", "1"]).len(), 1);
    let sql = "SELECT id, reference FROM expected WHERE deadline IS NULL OR id = ?1 ORDER BY id";
    let sql = sql.replace("?1", &format!("'{}'", id(1)));
    let expected = [format!("{}|mine-1", id(1)), format!("{}|null", id(6))];
    assert_eq!(rows(&open(&setup.state()), &sql), expected);
    // It is no notification, and nobody called it back.
    assert_eq!(statuses(&setup).len(), 3);
    assert_eq!(rows(&open(&setup.state()), "SELECT count(*) FROM history"), ["3"]);
}

#[test]
fn stuck_is_what_has_had_no_end_for_longer_than_the_platforms_take() {
    let setup = Setup::new();
    let server = setup.start();
    let day = 86_400;
    for (number, status, days) in
        [(1, "sending", 4), (2, "delivered", 4), (3, "sending", 2), (4, "a-new-word", 5)]
    {
        call_back(&server, &Row::new(number, status, days * day).callback());
    }
    let stuck = [(id(4), Value::from("a-new-word")), (id(1), Value::from("sending"))];
    assert_eq!(list(&setup, &["--stuck"]), stuck);
    assert_eq!(list(&setup, &["--stuck", "--status", "sending"]), stuck[1..]);
}

/// Where only its coming back was called back, and where that was told of what has another status.
#[test]
fn a_letter_that_came_back_is_neither_stuck_nor_overdue() {
    let setup = Setup::with_sources(&source("passport", "govuk-notify", &[("live", TOKEN)]));
    let server = setup.start();
    let days = 4 * 86_400;
    for number in [2, 3] {
        call_back(&server, &Row::new(number, "sending", days).callback());
    }
    for number in [1, 2] {
        let came_back = json!({
            "notification_id": id(number), "reference": null, "date_sent": "2026-11-01",
            "sent_by": "API", "template_name": "a", "template_id": "None",
            "template_version": null, "spreadsheet_file_name": null,
            "spreadsheet_row_number": null, "upload_letter_file_name": null,
        });
        call_back(&server, &came_back.to_string());
    }
    server.stop();
    for number in [1, 2, 3] {
        say(&setup, ago(90), &said(number, ago(60)));
    }
    let server = setup.start();
    server.settled();
    let open = [(id(3), Value::from("sending"))];
    assert_eq!(list(&setup, &["--stuck"]), open);
    assert_eq!(list(&setup, &["--overdue"]), open);
    for (number, is_overdue) in [(1, false), (2, false), (3, true)] {
        let shown = tell_of(&setup, "show", number, "json").stdout;
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["expected"]["overdue"], is_overdue, "{number}");
    }
    server.stop();
    // It is counted by one that looks at its start.
    let server = setup.start();
    let counted =
        |name: &str| metric(&server.metrics(), &format!("receiptd_{name}{{source=\"passport\"}}"));
    eventually("it is counted", || counted("expected_overdue") == Some(1.0));
    assert_eq!(counted("stuck"), Some(1.0));
}

/// As a callback about a text message.
fn text(row: &Row) -> String {
    row.callback().replace("\"email\"", "\"sms\"")
}

#[test]
fn a_text_that_is_sent_is_at_its_end_but_at_va_notify_and_an_email_nowhere() {
    let va = source("va", "va-notify", &[("live", TOKEN)]);
    let sources = source("passport", "govuk-notify", &[("live", TOKEN)]) + &va;
    let setup = Setup::with_sources(&sources);
    let server = setup.start();
    let sent = |number| Row::new(number, "sent", 4 * 86_400);
    call_back(&server, &sent(1).callback());
    call_back(&server, &text(&sent(2)));
    for body in [sent(3).callback(), text(&sent(4))] {
        assert_eq!(server.ask(post("/callbacks/va", TOKEN, body)).status, 204);
    }
    server.stop();
    for number in [1, 2] {
        say(&setup, ago(90), &said(number, ago(60)));
    }
    let server = setup.start();
    server.settled();
    let rows = |numbers: &[usize]| -> Vec<(String, Value)> {
        numbers.iter().map(|number| (id(*number), Value::from("sent"))).collect()
    };
    assert_eq!(list(&setup, &["--stuck"]), rows(&[4, 3, 1]));
    assert_eq!(list(&setup, &["--overdue"]), rows(&[1]));
    server.stop();
    // It is counted by one that looks at its start.
    let server = setup.start();
    let counted = |name: &str, source: &str| {
        metric(&server.metrics(), &format!("receiptd_{name}{{source=\"{source}\"}}"))
    };
    eventually("they are counted", || counted("expected_overdue", "passport") == Some(1.0));
    assert_eq!(counted("stuck", "passport"), Some(1.0));
    eventually("va's are counted", || counted("stuck", "va") == Some(2.0));
}

/// What a command says of that notification.
fn tell_of(setup: &Setup, command: &str, number: usize, format: &str) -> Ended {
    let (config, id) = (setup.write(), id(number));
    let arguments = [command, &id, "--format", format, "--config", config.to_str().unwrap()];
    run(&mut receiptd(setup.folder.path(), &arguments))
}

#[test]
fn show_tells_of_what_was_only_said_and_whether_it_is_overdue() {
    let setup = Setup::new();
    setup.start().stop();
    let (since, deadlines) = (ago(90), [ago(60), ago(-3_600)]);
    say(&setup, since, &said(1, deadlines[0]));
    say(&setup, since, &said(2, deadlines[1]));
    say(&setup, since, &format!(r#"{{"id": "{}"}}"#, id(3)));
    say(&setup, since, &said(4, deadlines[0]));
    let server = setup.start();
    server.settled();
    call_back(&server, &Row::new(4, "sending", 100).callback());
    let shown = |number| {
        let ended = tell_of(&setup, "show", number, "json");
        assert_eq!(ended.code, Some(0), "{ended:?}");
        serde_json::from_str::<Value>(&ended.stdout).unwrap()
    };
    for (number, is_overdue) in [(1, true), (2, false)] {
        let expected = json!({
            "source": "passport", "id": id(number), "reference": format!("mine-{number}"),
            "deadline": deadlines[number - 1], "since": since, "overdue": is_overdue,
        });
        assert_eq!(shown(number), json!({"expected": expected, "history": []}));
    }
    let without = shown(3)["expected"].clone();
    assert_eq!((&without["deadline"], &without["overdue"]), (&Value::Null, &json!(false)));
    // It was heard of, which is no end of it.
    assert_eq!(shown(4)["notification"]["status"], "sending");
    assert_eq!(shown(4)["expected"]["overdue"], true);
    let text = tell_of(&setup, "show", 4, "text").stdout;
    assert!(text.contains("overdue      yes"), "{text}");
    call_back(&server, &Row::new(4, "delivered", 100).callback());
    server.settled();
    assert_eq!(shown(4)["expected"]["overdue"], false, "it has ended");
    let text = tell_of(&setup, "show", 1, "text").stdout;
    let status = "status        not known: nothing was heard of it";
    for line in [status, "reference     mine-1", "overdue       yes"] {
        assert!(text.contains(line), "{text}");
    }
    let due = since.plus_seconds(72 * 3_600).to_string();
    let text = tell_of(&setup, "show", 3, "text").stdout;
    assert!(text.contains(&format!("due           {}", &due[..10])), "{text}");
    let ended = tell_of(&setup, "show", 5, "text");
    assert_eq!(ended.code, Some(1), "nobody said so");
    assert!(ended.stderr.contains("settled in this database, or it was pruned;"), "{ended:?}");
}

#[test]
fn explain_says_that_nothing_was_heard_of_what_was_only_said() {
    let setup = Setup::new();
    setup.start().stop();
    say(&setup, ago(90), &said(1, ago(60)));
    say(&setup, ago(90), &said(2, ago(-3_600)));
    let server = setup.start();
    server.settled();
    for (number, due) in [(1, "it has been overdue since 2"), (2, "it is due by 2")] {
        for format in ["text", "json"] {
            let ended = tell_of(&setup, "explain", number, format);
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
            let told = format!("nothing was heard of {}, which your app told us at", id(number));
            for words in [&*told, &*format!("(reference mine-{number})"), due] {
                assert!(ended.stderr.contains(words), "{ended:?}");
            }
            assert!(ended.stderr.contains("`receiptd reconcile` asks"), "{ended:?}");
        }
    }
}

#[test]
fn explain_does_not_say_that_the_platform_is_asked_for_an_id_that_is_no_uuid() {
    let setup = Setup::new();
    setup.start().stop();
    say(&setup, ago(90), r#"{"id": "no-uuid"}"#);
    setup.start().settled();
    let config = setup.write();
    let explain = ["explain", "no-uuid", "--config", config.to_str().unwrap()];
    let ended = run(&mut receiptd(setup.folder.path(), &explain));
    assert!(ended.stderr.contains("its id is no UUID"), "{ended:?}");
    assert!(!ended.stderr.contains("receiptd reconcile"), "{ended:?}");
}

#[test]
fn the_list_of_what_is_overdue_has_the_apps_reference_and_when_it_told_us() {
    let setup = Setup::new();
    setup.start().stop();
    say(&setup, ago(90), &said(1, ago(60)));
    let server = setup.start();
    // With a reference of the platform's.
    call_back(&server, &Row::new(1, "sending", 100).callback());
    let config = setup.write();
    let list = ["list", "--overdue", "--config", config.to_str().unwrap()];
    let table = run(&mut receiptd(setup.folder.path(), &list)).stdout;
    assert!(table.contains("app told us (UTC)") && table.contains("mine-1"), "{table}");
    assert!(!table.contains("ref-"), "{table}");
}

#[test]
fn a_list_of_what_is_overdue_that_is_cut_says_so() {
    let setup = Setup::new();
    setup.start().stop();
    (0..51).for_each(|number| say(&setup, ago(90), &said(number, ago(60))));
    let server = setup.start();
    server.settled();
    let config = setup.write();
    let list = |flags: &[&str]| {
        let arguments = [&["list", "--overdue", "--config", config.to_str().unwrap()], flags];
        let ended = run(&mut receiptd(setup.folder.path(), &arguments.concat()));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let rows = ended.stdout.lines().filter(|line| line.contains("mine-")).count();
        (rows, ended.stdout.lines().last().unwrap_or_default().to_owned())
    };
    let (rows, last) = list(&[]);
    assert_eq!((rows, &*last), (50, "there is more: add --limit, more than 50"));
    let (rows, last) = list(&["--limit", "51"]);
    assert!(rows == 51 && last.contains("mine-50"), "{last}");
    assert_eq!(list(&["--limit", "2", "--format", "csv"]).0, 2);
    assert_eq!(list(&["--format", "json"]).0, 51);
}

#[test]
fn what_is_overdue_is_asked_for_first() {
    let platform = Platform::start(Kind::Govuk);
    let setup = setup(&platform, Kind::Govuk);
    // The files are there once a receiver has run.
    setup.start().stop();
    say(&setup, ago(90), &said(1, ago(60)));
    say(&setup, ago(90), &said(2, ago(-3_600)));
    say(&setup, ago(90), &said(3, ago(60)));
    platform.add([Row { is_listed: false, ..Row::new(1, "delivered", 95) }]);
    platform.state().asked.clear();
    let server = setup.start();
    round(&server);
    assert_eq!(statuses(&setup), [format!("{}|delivered", id(1))]);
    let asked: Vec<String> =
        platform.state().asked.iter().take(3).map(|asked| asked.path.clone()).collect();
    let by_id = |number| format!("/v2/notifications/{}", id(number));
    assert_eq!(asked[..2], [by_id(1), by_id(3)]);
    assert!(asked[2].starts_with("/v2/notifications?"), "{asked:?}");
    assert_eq!(platform.asked(&by_id(2)), 0, "there is time");
    assert_eq!(list(&setup, &["--overdue"]), [(id(3), Value::Null)]);
}

#[test]
fn one_that_the_platform_fails_for_is_not_in_the_way_of_the_next() {
    let platform = Platform::start(Kind::Govuk);
    let setup = setup(&platform, Kind::Govuk);
    setup.start().stop();
    for number in [1, 2] {
        say(&setup, ago(90), &said(number, ago(60)));
        platform.add([Row { is_listed: false, ..Row::new(number, "delivered", 95) }]);
    }
    let first = Box::leak(format!("/v2/notifications/{}", id(1)).into_boxed_str());
    platform.trouble(first, Trouble::status(500, ""), usize::MAX);
    let server = setup.start();
    eventually("the other is healed", || {
        server.settled();
        statuses(&setup) == [format!("{}|delivered", id(2))]
    });
}

#[test]
fn what_is_overdue_and_what_is_stuck_is_counted() {
    let platform = Platform::start(Kind::Govuk);
    let setup = setup_with(&platform, Kind::Govuk, "every = \"1h\"");
    let server = setup.start();
    call_back(&server, &Row::new(1, "sending", 4 * 86_400).callback());
    server.stop();
    say(&setup, ago(90), &said(1, ago(60)));
    say(&setup, ago(90), &said(2, ago(60)));
    // It is settled by this one, and counted by the next, which looks at its start.
    let server = setup.start();
    server.settled();
    server.stop();
    let server = setup.start();
    let counted =
        |name: &str| metric(&server.metrics(), &format!("receiptd_{name}{{source=\"passport\"}}"));
    eventually("they are counted", || counted("expected_overdue") == Some(2.0));
    assert_eq!(counted("stuck"), Some(1.0));
    assert_eq!(counted("expected_silent"), Some(0.0), "nothing was sent since the start");
}

#[test]
fn sinks_are_told_once_what_is_overdue_though_there_is_a_restart_or_a_rebuild_between() {
    let setup = Setup::new();
    setup.start().stop();
    call_back_and_stop(&setup, &[Row::new(1, "sending", 100), Row::new(2, "delivered", 100)]);
    for number in [1, 2, 3] {
        say(&setup, ago(90), &said(number, ago(60)));
    }
    say(&setup, ago(90), &said(4, ago(-3_600)));
    let path = setup.path("changes.jsonl");
    let sink = format!(
        "\n[[sink]]\nname = \"app\"\ntype = \"file\"\npath = {path:?}\nkinds = [\"overdue\"]\n"
    );
    let setup = Setup { sources: setup.sources.clone() + &sink, ..setup };
    let told = || -> Vec<Value> {
        let lines = std::fs::read_to_string(&path).unwrap_or_default();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let server = setup.start();
    eventually("both are told", || told().len() == 2);
    server.stop();
    let first = told();
    assert!(first.iter().all(|event| event["type"] == "receiptd.overdue"), "{first:?}");
    let subjects: Vec<&str> =
        first.iter().map(|event| event["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, [id(1), id(3)]);
    assert_eq!(first[0]["data"]["status"], "sending");
    assert_eq!(first[1]["data"]["reference"], "mine-3");
    assert_eq!(first[1]["data"]["status"], Value::Null);
    let config = setup.write();
    let rebuild = ["rebuild", "--config", config.to_str().unwrap()];
    assert_eq!(run(&mut receiptd(setup.folder.path(), &rebuild)).code, Some(0));
    let check = ["check-db", "--config", config.to_str().unwrap()];
    assert_eq!(run(&mut receiptd(setup.folder.path(), &check)).code, Some(0));
    // What was found overdue by one look is said before that look counts.
    let server = setup.start();
    let series = "receiptd_expected_overdue{source=\"passport\"}";
    eventually("it has looked", || metric(&server.metrics(), series) == Some(2.0));
    server.settled();
    server.stop();
    assert_eq!(told(), first);
    let sql = "SELECT count(*) FROM callback WHERE origin = 3";
    assert_eq!(rows(&open(&setup.journal()), sql), ["2"]);
}

#[test]
fn of_a_source_whose_overdue_no_sink_wants_nothing_is_kept() {
    let of = |name: &str| source(name, "gc-notify", &[("live", TOKEN)]);
    let setup = Setup::with_sources(&(of("passport") + &of("visa")));
    setup.start().stop();
    for number in [1, 2] {
        say(&setup, ago(90), &said(number, ago(60)));
    }
    let journal =
        sqlite::open(&setup.journal(), &journal::SCHEMA, Access::Write(Durability::Full)).unwrap();
    journal.execute("UPDATE callback SET source = 'visa' WHERE seq = 2", []).unwrap();
    drop(journal);
    // One wants it of one source, the other nothing of the kind.
    let sink = |name: &str, filter: &str| {
        let path = setup.path(&format!("{name}.jsonl"));
        format!("\n[[sink]]\nname = \"{name}\"\ntype = \"file\"\npath = {path:?}\n{filter}\n")
    };
    let sinks = sink("app", "sources = [\"visa\"]") + &sink("all", "kinds = [\"status\"]");
    let setup = Setup { sources: setup.sources.clone() + &sinks, ..setup };
    let server = setup.start();
    let told = || std::fs::read_to_string(setup.path("app.jsonl")).unwrap_or_default();
    eventually("it is told", || told().lines().count() == 1);
    assert!(told().contains(&id(2)), "{}", told());
    server.stop();
    // What was found overdue by one look is said before that look counts.
    let server = setup.start();
    let counted = |source: &str| {
        metric(&server.metrics(), &format!("receiptd_expected_overdue{{source=\"{source}\"}}"))
    };
    let are_counted = || ["passport", "visa"].map(counted) == [Some(1.0); 2];
    eventually("it has looked", are_counted);
    let sql = "SELECT source FROM callback WHERE origin = 3";
    assert_eq!(rows(&open(&setup.journal()), sql), ["visa"]);
}

/// A receiver runs for as long as it takes to hear of these.
fn call_back_and_stop(setup: &Setup, all: &[Row]) {
    let server = setup.start();
    all.iter().for_each(|row| call_back(&server, &row.callback()));
    server.stop();
}

#[test]
fn without_a_sink_that_wants_it_nothing_is_kept_of_what_is_overdue() {
    let setup = Setup::new();
    setup.start().stop();
    say(&setup, ago(90), &said(1, ago(60)));
    let server = setup.start();
    server.settled();
    server.stop();
    let server = setup.start();
    let series = "receiptd_expected_overdue{source=\"passport\"}";
    eventually("it has looked", || metric(&server.metrics(), series) == Some(1.0));
    assert_eq!(rows(&open(&setup.journal()), "SELECT count(*) FROM callback"), ["1"]);
}

#[test]
fn answers_that_get_callbacks_suspended_are_counted_for_five_minutes() {
    let setup = Setup::new().free_bytes_min(1 << 50);
    let server = setup.start();
    let counted =
        || metric(&server.metrics(), "receiptd_unwell_answers{source=\"passport\"}").unwrap();
    assert_eq!(counted(), 0.0);
    for number in 0..3 {
        assert_eq!(server.post(Row::new(number, "sending", 1).callback()), 503);
    }
    assert_eq!(counted(), 3.0);
}

#[test]
fn an_app_can_say_many_at_once_and_they_are_durable_then() {
    let setup = Setup::new();
    setup.start().stop();
    let options = Options {
        queue_callbacks_max: 100,
        queue_bytes_max: 1 << 20,
        batch_callbacks_max: 100,
        free_bytes_min: 0,
        reserve_bytes: 0,
        durability: Durability::Full,
    };
    let (journal, writer, tell) =
        journal::start(&setup.journal(), options, Box::new(|_| {})).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let all: Vec<Expected> = (0..50)
        .map(|number| Expected { id: id(number), reference: None, deadline: Some(ago(1)) })
        .collect();
    runtime.block_on(async {
        tokio::spawn(tell);
        expect(&journal, &Arc::from("passport"), ago(2), &all).await.unwrap();
    });
    journal.close();
    writer.join();
    let kept = Reader::open(&setup.journal()).unwrap().after(0, i64::MAX, 100, 1 << 20).unwrap();
    assert!(kept.len() == 50 && kept.iter().all(|entry| entry.origin == Origin::Expected));
    let server = setup.start();
    server.settled();
    assert_eq!(list(&setup, &["--overdue"]).len(), 50);
}
