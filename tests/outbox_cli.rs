//! What an operator sees of the outbox and does to it, beside a running receiver and without one; and
//! that neither readiness nor pruning forgets what is owed.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;
use support::{Ended, Receiptd, Setup, metric, receipt, receiptd, run};

/// An app that answers everything with the same status, which can be changed; its URL.
fn app(status: u16) -> (String, Arc<AtomicU16>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/receipts", listener.local_addr().unwrap());
    let answer = Arc::new(AtomicU16::new(status));
    let code = Arc::clone(&answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let code = Arc::clone(&code);
            std::thread::spawn(move || answer_all(stream, &code));
        }
    });
    (url, answer)
}

fn answer_all(mut stream: std::net::TcpStream, code: &AtomicU16) {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let head = read.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| at + 4);
        let length = head.map(|head| {
            let text = String::from_utf8_lossy(&read[..head]).to_lowercase();
            let line = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            head + line.map_or(0, |line| line.trim().parse::<usize>().unwrap())
        });
        if let Some(whole) = length.filter(|whole| read.len() >= *whole) {
            read.drain(..whole);
            let code = code.load(Ordering::SeqCst);
            let answer = format!("HTTP/1.1 {code} X\r\ncontent-length: 0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
            continue;
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(bytes) => read.extend_from_slice(&buffer[..bytes]),
        }
    }
}

fn with_sink(url: &str) -> Setup {
    let mut setup = Setup::new();
    setup.sources.push_str(&format!(
        "[[sink]]\nname = \"app\"\ntype = \"http\"\nurl = \"{url}\"\nbackoff_ms_min = 1000\n"
    ));
    setup
}

fn outbox(setup: &Setup, arguments: &[&str]) -> Ended {
    let config = setup.path("receiptd.toml");
    let all = [&["outbox"], arguments, &["--config", config.to_str().unwrap()]].concat();
    run(&mut receiptd(setup.folder.path(), &all))
}

fn lines(setup: &Setup, arguments: &[&str]) -> Vec<Value> {
    let ended = outbox(setup, &[arguments, &["--format", "json"]].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn gauge(server: &Receiptd, name: &str) -> f64 {
    let page = server.metrics();
    metric(&page, &format!("receiptd_{name}{{sink=\"app\"}}")).expect(name)
}

fn attempts(server: &Receiptd, outcome: &str) -> f64 {
    let series = format!("receiptd_forward_attempts_total{{sink=\"app\",outcome=\"{outcome}\"}}");
    metric(&server.metrics(), &series).expect(outcome)
}

/// A receiver whose app refuses everything, and that many changes that were given up.
fn parked(count: usize) -> (Setup, Receiptd, Arc<AtomicU16>) {
    let (url, answer) = app(404);
    let setup = with_sink(&url);
    let server = setup.start();
    for number in 0..count {
        assert_eq!(server.post(receipt(&format!("n{number}"))), 204);
    }
    let all = f64::from(u32::try_from(count).unwrap());
    support::eventually("all are parked", || (gauge(&server, "outbox_parked") - all).abs() < 0.1);
    (setup, server, answer)
}

#[test]
fn readiness_and_answers_do_not_depend_on_a_sink() {
    // Nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let setup = with_sink(&format!("http://{closed}/"));
    let server = setup.start();
    for number in 0..12 {
        assert_eq!(server.post(receipt(&format!("n{number}"))), 204);
    }
    server.settled();
    support::eventually("the sink is known to fail", || {
        gauge(&server, "forward_breaker") > 0.5 && attempts(&server, "passing") > 4.5
    });
    assert_eq!(server.admin("/readyz").status, 200);
    assert!((gauge(&server, "outbox_depth") - 12.0).abs() < 0.1);
    support::eventually("it is seen how long", || gauge(&server, "outbox_oldest_seconds") > 0.0);
    server.stop();
    let server = setup.start();
    assert_eq!(server.admin("/readyz").status, 200);
    assert!((gauge(&server, "outbox_depth") - 12.0).abs() < 0.1, "what was owed is counted");
    server.stop();
}

#[test]
fn what_was_given_up_is_seen_and_sent_again_while_the_receiver_runs() {
    let (setup, server, answer) = parked(3);
    let rows = lines(&setup, &["list", "--standing", "parked"]);
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row["sink"] == "app" && row["error"] == "answered 404"));
    let table = outbox(&setup, &["list"]);
    assert!(table.stdout.contains("parked") && !table.stdout.contains("someone@"), "{table:?}");
    let shown = lines(&setup, &["show", "n1"]);
    assert_eq!(shown[0]["event"]["data"]["recipient"], "someone@example.ca");
    assert_eq!(shown[0]["event"]["id"], shown[0]["id"]);
    let prefix = &shown[0]["id"].as_str().unwrap()[..8];
    let text = outbox(&setup, &["show", prefix]);
    assert!(text.stdout.contains("last error       answered 404"), "{}", text.stdout);
    assert_eq!(outbox(&setup, &["show", "nobody"]).code, Some(1));

    answer.store(204, Ordering::SeqCst);
    let would = outbox(&setup, &["retry", "--error", "404", "--dry-run"]);
    assert!(would.stdout.ends_with("\nwould retry 3 changes\n"), "{}", would.stdout);
    assert!((gauge(&server, "outbox_parked") - 3.0).abs() < 0.1, "nothing was touched");
    let retried = outbox(&setup, &["retry", "--id", "n1"]);
    assert_eq!((retried.code, &*retried.stdout), (Some(0), "retried 1 change\n"));
    assert!(server.stderr().contains("changes are tried again as asked changes=1"));
    support::eventually("it is delivered", || attempts(&server, "delivered") > 0.5);
    assert_eq!(outbox(&setup, &["retry"]).stdout, "retried 2 changes\n");
    support::eventually("all are delivered", || lines(&setup, &["list"]).is_empty());
    support::eventually("nothing is owed", || {
        gauge(&server, "outbox_depth").abs() < 0.1 && gauge(&server, "outbox_parked").abs() < 0.1
    });
    assert_eq!(outbox(&setup, &["list"]).stdout, "nothing matches\n");
    server.stop();
}

#[test]
fn discarding_asks_first_and_works_with_and_without_a_receiver() {
    let (setup, server, _) = parked(4);
    assert_eq!(outbox(&setup, &["discard"]).code, Some(2), "nothing says which");
    let unconfirmed = outbox(&setup, &["discard", "--sink", "app"]);
    assert_eq!(unconfirmed.code, Some(2), "nobody is there to confirm it");
    assert_eq!(outbox(&setup, &["retry", "--standing", "fresh"]).code, Some(2));
    assert_eq!(lines(&setup, &["list"]).len(), 4);
    let one = outbox(&setup, &["discard", "--id", "n0"]);
    assert_eq!(one.code, Some(2), "one is asked about too");
    assert_eq!(outbox(&setup, &["discard", "--id", "n0", "--yes"]).stdout, "discarded 1 change\n");
    assert!(server.stderr().contains("changes were discarded as asked changes=1"));
    assert!((gauge(&server, "outbox_parked") - 3.0).abs() < 0.1);
    server.stop();
    assert_eq!(outbox(&setup, &["discard", "--id", "n1", "--yes"]).stdout, "discarded 1 change\n");
    let rest = outbox(&setup, &["discard", "--sink", "app", "--yes"]);
    assert_eq!((rest.code, &*rest.stdout), (Some(0), "discarded 2 changes\n"));
    assert_eq!(support::count(&setup.state(), "change_row"), 0);
}

#[test]
fn what_waits_is_tried_again_without_a_word_and_retry_says_so() {
    let (url, _) = app(503);
    let setup = with_sink(&url);
    let server = setup.start();
    for number in 0..2 {
        assert_eq!(server.post(receipt(&format!("n{number}"))), 204);
    }
    support::eventually("both wait", || {
        lines(&setup, &["list", "--standing", "waiting"]).len() == 2
    });
    server.stop();
    let said = outbox(&setup, &["retry"]).stdout;
    let expected = "2 changes wait and are tried again without this (--standing waiting: now)\n";
    assert_eq!(said, format!("nothing is parked; {expected}"));
    let said = outbox(&setup, &["retry", "--error", "503"]).stdout;
    assert_eq!(said, format!("nothing that matches is parked; {expected}"));
    assert_eq!(outbox(&setup, &["retry", "--error", "404"]).stdout, "nothing matches\n");
    assert_eq!(outbox(&setup, &["retry", "--standing", "waiting"]).stdout, "retried 2 changes\n");
}

#[test]
fn a_sink_that_is_gone_is_told_from_one_that_never_was() {
    let (mut setup, server, _) = parked(3);
    server.stop();
    setup.sources = setup.sources.replace("\"app\"", "\"another\"");
    setup.write();
    let unknown = outbox(&setup, &["list", "--sink", "anothr"]);
    assert_eq!(unknown.code, Some(1));
    let said =
        "no sink anothr is configured, and nothing is owed to it\n  hint: did you mean `another`?";
    assert!(unknown.stderr.contains(said), "{}", unknown.stderr);
    for verb in ["retry", "discard"] {
        let ended = outbox(&setup, &[verb, "--sink", "appp"]);
        assert_eq!(ended.code, Some(1), "{verb}");
        assert!(ended.stderr.contains("did you mean `app`?"), "{}", ended.stderr);
    }
    assert_eq!(outbox(&setup, &["list", "--sink", "another"]).stdout, "nothing matches\n");
    let said = outbox(&setup, &["retry", "--sink", "app"]).stdout;
    assert_eq!(said, "marked 3 changes; no sink app is configured, so nobody sends them\n");
    let all = ["discard", "--sink", "app", "--standing", "any", "--yes"];
    assert_eq!(outbox(&setup, &all).stdout, "discarded 3 changes\n");
}

#[test]
fn a_beginning_of_an_id_that_is_too_short_is_said_to_be() {
    let (setup, server, _) = parked(1);
    server.stop();
    let id = lines(&setup, &["list"])[0]["id"].as_str().unwrap().to_owned();
    let why = "a change's id needs four digits or more";
    let said = outbox(&setup, &["list", "--id", &id[..3]]).stdout;
    assert_eq!(said, format!("nothing matches: {why}\n"));
    let ended = outbox(&setup, &["show", &id[..3]]);
    assert!(ended.code == Some(1) && ended.stderr.contains(why), "{}", ended.stderr);
    assert_eq!(lines(&setup, &["list", "--id", &id[..4]]).len(), 1);
}

#[test]
fn a_sink_that_is_gone_shows_why_and_goes_on_at_the_next_start() {
    let (url, answer) = app(410);
    let setup = with_sink(&url);
    let server = setup.start();
    assert_eq!(server.post(receipt("n1")), 204);
    support::eventually("it is stopped", || gauge(&server, "forward_breaker") > 2.5);
    support::eventually("why is written down", || {
        lines(&setup, &["list"])[0]["standing"] == "waiting"
    });
    assert_eq!(server.post(receipt("n2")), 204);
    server.settled();
    let rows = lines(&setup, &["list"]);
    let why = "answered 410; nothing is sent to this sink until the next start";
    assert_eq!((&rows[0]["error"], &rows[1]["standing"]), (&why.into(), &"fresh".into()));
    assert!((gauge(&server, "forward_breaker") - 3.0).abs() < 0.1, "it stays so");
    server.stop();
    answer.store(204, Ordering::SeqCst);
    let server = setup.start();
    support::eventually("both are delivered", || attempts(&server, "delivered") > 1.5);
    assert!(gauge(&server, "forward_breaker").abs() < 0.1);
    server.stop();
}

#[test]
fn that_a_sink_is_left_alone_and_that_it_is_there_again_is_logged() {
    let (url, answer) = app(503);
    let setup = with_sink(&url);
    let server = setup.start();
    for number in 0..8 {
        assert_eq!(server.post(receipt(&format!("n{number}"))), 204);
    }
    let said = "the sink is failing and left alone";
    support::eventually("it is left alone", || server.stderr().contains(said));
    assert!(!server.stderr().contains("takes changes again"));
    answer.store(204, Ordering::SeqCst);
    support::eventually("all are delivered", || attempts(&server, "delivered") > 7.5);
    let said = server.stderr();
    let again: Vec<&str> =
        said.lines().filter(|line| line.contains("the sink takes changes again")).collect();
    assert_eq!(again.len(), 1, "{said}");
    assert!(again[0].contains("sink=\"app\"") && again[0].contains("after_s="), "{}", again[0]);
    server.stop();
}

#[test]
fn what_is_owed_to_a_sink_that_is_not_configured_is_counted_and_told() {
    let (mut setup, server, _) = parked(2);
    server.stop();
    let with = setup.sources.clone();
    let (without, _) = with.split_once("[[sink]]").unwrap();
    setup.sources = without.to_owned();
    let server = setup.start();
    let said = server.stderr();
    let line = said.lines().find(|line| line.contains("not configured; put it back")).expect(&said);
    for part in
        ["WARN", "sink=\"app\"", "changes=2", "`receiptd outbox discard --sink app --standing any`"]
    {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!((gauge(&server, "outbox_parked") - 2.0).abs() < 0.1);
    assert!(gauge(&server, "outbox_depth").abs() < 0.1);
    assert!(!server.metrics().contains("receiptd_forward_breaker{sink=\"app\"}"));
    let discard = ["discard", "--sink", "app", "--standing", "parked", "--yes"];
    assert_eq!(outbox(&setup, &discard).code, Some(0));
    assert!(gauge(&server, "outbox_parked").abs() < 0.1);
    server.stop();
    // Owed nothing and away for a start, it is new when it comes back.
    setup.start().stop();
    setup.sources = with;
    let new = "the sink is new, or was away: it is told of what arrives from now on";
    // The log is that of all starts; the first of them met a new sink too.
    let server = setup.start();
    assert_eq!(server.stderr().matches(new).count(), 2, "{}", server.stderr());
    server.stop();
    let server = setup.start();
    assert_eq!(server.stderr().matches(new).count(), 2, "{}", server.stderr());
    server.stop();
}

#[test]
fn a_line_that_is_none_of_ours_is_told_with_its_file() {
    let mut setup = Setup::new();
    let path = setup.path("changes.jsonl");
    setup
        .sources
        .push_str(&format!("[[sink]]\nname = \"app\"\ntype = \"file\"\npath = {path:?}\n"));
    std::fs::write(&path, "{\"specversion\":\"1.0\"}\nsomething").unwrap();
    let server = setup.start();
    assert_eq!(server.post(receipt("n1")), 204);
    support::eventually("it is delivered", || attempts(&server, "delivered") > 0.5);
    let said = server.stderr();
    let line = said.lines().find(|line| line.contains("none of ours")).expect(&said);
    assert!(line.contains("changes.jsonl"), "{line}");
    server.stop();
}

#[test]
fn csv_has_every_column_and_nothing_that_a_change_tells() {
    let (setup, server, _) = parked(1);
    server.stop();
    let csv = outbox(&setup, &["list", "--format", "csv"]).stdout;
    let heading = "sink,id,kind,source,subject,status,standing,attempts,due_at,error,received_at";
    assert_eq!(csv.lines().next(), Some(heading));
    assert!(csv.lines().count() == 2 && !csv.contains("someone@"), "{csv}");
}

fn prune(setup: &Setup, flags: &[&str]) -> Ended {
    let state = setup.state();
    let all = ["prune", "--older-than", "0s", "--db", state.to_str().unwrap()];
    run(&mut receiptd(setup.folder.path(), &[&all, flags].concat()))
}

fn is_anywhere(folder: &Path, text: &str) -> bool {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.to_string_lossy().contains(".db")).any(|path| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[test]
fn what_is_owed_is_not_pruned_and_what_was_given_up_is_gone_from_the_files() {
    let (setup, server, answer) = parked(5);
    answer.store(503, Ordering::SeqCst);
    assert_eq!(server.post(receipt("owed").replace("someone", "canary-of-owed")), 204);
    server.settled();
    let would = prune(&setup, &["--dry-run"]);
    assert_eq!(would.code, Some(1), "{}", would.stderr);
    for said in [": 5 callbacks\n", "discarded with them: 5 parked changes\n", "1 callback stays"] {
        assert!(would.stdout.contains(said), "{}", would.stdout);
    }
    assert!((gauge(&server, "outbox_parked") - 5.0).abs() < 0.1, "nothing was changed");
    let ended = prune(&setup, &[]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stdout.contains("discarded with them: 5 parked changes"), "{}", ended.stdout);
    assert!(ended.stdout.contains("1 callback stays"), "{}", ended.stdout);
    assert!(gauge(&server, "outbox_parked").abs() < 0.1);
    assert!(!is_anywhere(setup.folder.path(), "someone@"));
    assert!(is_anywhere(setup.folder.path(), "canary-of-owed"), "the control is seen");
    let said = outbox(&setup, &["discard", "--sink", "app", "--yes"]).stdout;
    let expected = "nothing is parked; 1 change is still sent (--standing any: those too)\n";
    assert_eq!(said, expected, "what is not given up stays");
    let said = outbox(&setup, &["discard", "--sink", "app", "--standing", "any", "--yes"]).stdout;
    assert_eq!(said, "discarded 1 change\n");
    let ended = prune(&setup, &[]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(!is_anywhere(setup.folder.path(), "canary-of-owed"));
    server.stop();
}
