//! `receiptd replay` as a person at a terminal meets it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;

use clap::Parser;
use receiptd::cli::{Failure, replay};
use receiptd::clock::Clock;
use receiptd::journal::{self, Entry, Journal, SourceRow};
use receiptd::lock::Lock;
use receiptd::provider::Provider;
use receiptd::settle;
use receiptd::sqlite::Durability;
use receiptd::sqlite::checkpoint::Hold;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: replay::Args,
}

struct Told {
    code: ExitCode,
    out: String,
    aside: String,
}

fn run(arguments: &[&str]) -> Result<Told, Failure> {
    run_in(&[("RECEIPTD_TOKEN", "a-token-of-the-tests")], arguments)
}

fn run_in(env: &[(&str, &str)], arguments: &[&str]) -> Result<Told, Failure> {
    let line = Line::try_parse_from([&["replay"], arguments].concat())
        .map_err(|error| Failure::new(Failure::USAGE, error.to_string()))?;
    let env: Vec<_> = env.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
    let (mut out, mut aside) = (Vec::new(), Vec::new());
    let code = replay::run_with(&line.args, &env, &mut out, &mut aside)?;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ok(Told { code, out: text(out), aside: text(aside) })
}

fn no() -> ExitCode {
    ExitCode::from(Failure::NO)
}

fn case(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

const LATE_BOUNCE: &str = "gc-notify/late-bounce-after-delivered";

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn settled_notifications_are_printed_one_a_line_with_every_key() {
    let told = run(&["--provider", "gc-notify", &case(LATE_BOUNCE)]).unwrap();
    assert_eq!(told.code, ExitCode::SUCCESS);
    let expected = fs::read_to_string(case(LATE_BOUNCE) + "/expected.jsonl").unwrap();
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let (mut printed, expected) = (value(&told.out), value(&expected));
    assert_eq!(printed.as_object_mut().unwrap().remove("returned_at"), Some(().into()));
    assert_eq!(printed, expected);
    assert!(told.out.starts_with(r#"{"id":""#) && told.out.ends_with("\"duplicates\":0}\n"));
}

#[test]
fn every_case_is_as_its_own_expectation_says() {
    for provider in fs::read_dir(case("")).unwrap().map(|entry| entry.unwrap().path()) {
        let word = provider.file_name().unwrap().to_str().unwrap();
        if word.parse::<Provider>().is_err() {
            continue;
        }
        for folder in fs::read_dir(&provider).unwrap().map(|entry| entry.unwrap().path()) {
            let expect = folder.join("expected.jsonl");
            let (folder, expect) = (folder.to_str().unwrap(), expect.to_str().unwrap());
            let order = ["--order", "shuffled", "--seed", "5"];
            let told =
                run(&[&["--provider", word, folder, "--expect", expect][..], &order].concat());
            let told = told.unwrap();
            assert_eq!(told.code, ExitCode::SUCCESS, "{folder}: {}", told.out);
            assert!(told.out.ends_with(", all as expected\n"), "{}", told.out);
        }
    }
}

#[test]
fn a_difference_is_named_by_id_and_key_and_exits_with_1() {
    let folder = tempfile::tempdir().unwrap();
    let printed = run(&["--provider", "gc-notify", &case(LATE_BOUNCE)]).unwrap().out;
    let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let id = printed["id"].as_str().unwrap();
    let line = format!(r#"{{"id": "{id}", "status": "delivered", "receipts": 2}}"#);
    let expect = write(folder.path(), "e.jsonl", &line);
    let told = run(&["--provider", "gc-notify", &case(LATE_BOUNCE), "--expect", &expect]).unwrap();
    assert_eq!(told.code, no());
    let difference = "status\n  expected \"delivered\"\n  got      \"permanent-failure\"";
    assert_eq!(told.out, format!("{id}: {difference}\n1 difference\n"));
}

#[test]
fn an_expectation_with_a_misspelt_key_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let expect = write(folder.path(), "e.jsonl", "{\"id\": \"1\", \"sttus\": \"sent\"}");
    let failure = run(&["--provider", "gc-notify", &case(LATE_BOUNCE), "--expect", &expect]);
    let failure = failure.err().unwrap();
    assert_eq!(failure.code, Failure::USAGE);
    assert!(failure.message.contains("e.jsonl, line 1: unknown key \"sttus\""), "{failure}");
}

#[test]
fn permuting_says_how_many_orders_gave_one_state() {
    let told = run(&["--provider", "gc-notify", &case(LATE_BOUNCE), "--permute"]).unwrap();
    assert_eq!(told.code, ExitCode::SUCCESS);
    assert_eq!(told.aside, "2 orders of 1 notification: one state each\n");
}

#[test]
fn what_is_not_understood_is_named_aside_and_does_not_spoil_the_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.jsonl", "[]\n{\"id\": 1");
    let told = run(&["--provider", "gc-notify", &path]).unwrap();
    assert_eq!((told.code, &*told.out), (ExitCode::SUCCESS, ""));
    let lines: Vec<_> = told.aside.lines().collect();
    assert!(lines[0].starts_with(&format!("{path}:1: unrecognised: ")), "{}", told.aside);
    assert!(lines[1].starts_with(&format!("{path}:2: unrecognised: ")), "{}", told.aside);
}

#[test]
fn arguments_that_do_not_fit_together_are_wrong_usage() {
    let path = case(LATE_BOUNCE);
    for arguments in [
        &[&*path][..],
        &["--provider", "gc-notify"],
        &["--provider", "gcnotify", &path],
        &["--provider", "gc-notify", "--to", "http://localhost/", &path],
        &["--to", "http://localhost/", "--permute", &path],
        &["--to", "http://localhost/", "--expect", "e.jsonl", &path],
        &["--to", "ftp://localhost/", &path],
        &["--to", "http://user:password@localhost/", &path],
        &["--provider", "gc-notify", "--db", "x.db", "--permute", &path],
        &["--provider", "gc-notify", "--repeat", "0", &path],
        &["--provider", "gc-notify", "--source", "Ä", &path],
        &["--provider", "gc-notify", "--token-file", "t", &path],
    ] {
        let failure = run(arguments).err().unwrap_or_else(|| panic!("{arguments:?} is accepted"));
        assert_eq!(failure.code, Failure::USAGE, "{arguments:?}: {failure}");
    }
}

#[test]
fn replaying_into_files_gives_the_same_lines_and_keeps_them() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("receiptd.db");
    let db = db.to_str().unwrap();
    let arguments = ["--provider", "gc-notify", &case(LATE_BOUNCE)];
    let in_memory = run(&arguments).unwrap().out;
    let with_db = [&arguments[..], &["--db", db]].concat();
    assert_eq!(run(&with_db).unwrap().out, in_memory);
    let again = run(&with_db).unwrap().out;
    assert_eq!(again, in_memory.replace("\"duplicates\":0", "\"duplicates\":2"));
    let lone = ["--provider", "gc-notify", &case("gc-notify/delivered"), "--db", db];
    assert_eq!(run(&lone).unwrap().out.lines().count(), 1, "only what was told of this time");
}

#[test]
fn a_source_is_not_read_as_another_provider_than_before() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("receiptd.db");
    let db = db.to_str().unwrap();
    run(&["--provider", "gc-notify", &case(LATE_BOUNCE), "--db", db]).unwrap();
    let failure = run(&["--provider", "ajo", &case(LATE_BOUNCE), "--db", db]).err().unwrap();
    assert_eq!(failure.message, "replay is a source of gc-notify in this database");
    run(&["--provider", "ajo", &case(LATE_BOUNCE), "--db", db, "--source", "other"]).unwrap();
}

#[test]
fn a_replay_leaves_what_the_journal_remembers_of_a_source() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("receiptd.db");
    let journal = receiptd::journal::path_beside(&db);
    let replay = ["--provider", "ajo", &case(LATE_BOUNCE), "--db", db.to_str().unwrap()];
    run(&replay).unwrap();
    let connection = rusqlite::Connection::open(journal).unwrap();
    let set = "UPDATE source SET ims_org = 'an org', sandbox = 'prod' WHERE name = 'replay'";
    assert_eq!(connection.execute(set, []).unwrap(), 1);
    run(&replay).unwrap();
    let known: (String, String) = connection
        .query_row("SELECT ims_org, sandbox FROM source", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(known, ("an org".to_owned(), "prod".to_owned()));
}

#[test]
fn a_database_that_a_receiver_writes_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("receiptd.db");
    let _receiver = Lock::acquire(&db).unwrap();
    let db = db.to_str().unwrap();
    let failure = run(&["--provider", "gc-notify", &case(LATE_BOUNCE), "--db", db]).err().unwrap();
    assert_eq!(failure.code, Failure::NO);
    assert!(failure.message.contains(&format!("pid {}", std::process::id())), "{failure}");
}

/// A receiver as simple as can be: what it is sent, and what it says to each request in turn.
struct Receiver {
    url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    fn start(answer: impl Fn(usize, Vec<u8>) -> u16 + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/callbacks/x", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heads);
        thread::spawn(move || {
            for stream in listener.incoming() {
                serve(&stream.unwrap(), &kept, &answer);
            }
        });
        Self { url, heads }
    }
}

fn serve(stream: &TcpStream, heads: &Mutex<Vec<String>>, answer: &dyn Fn(usize, Vec<u8>) -> u16) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap() == 0 {
                return;
            }
        }
        let length = head.to_lowercase();
        let length = length.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let number = {
            let mut heads = heads.lock().unwrap();
            heads.push(head);
            heads.len()
        };
        let code = answer(number, body);
        let said = if code == 204 { String::new() } else { format!("because of {number}\nmore") };
        let length = said.len();
        write!(&mut &*stream, "HTTP/1.1 {code} X\r\nContent-Length: {length}\r\n\r\n{said}")
            .unwrap();
    }
}

#[test]
fn over_http_the_answers_are_counted_by_code_and_refusals_named() {
    let receiver = Receiver::start(|number, _| if number == 2 { 401 } else { 204 });
    let path = case("gc-notify/identical-three-times");
    let told = run(&[&path, "--to", &receiver.url]).unwrap();
    assert_eq!(told.code, no());
    let lines: Vec<_> = told.out.lines().collect();
    assert!(lines[0].ends_with(".json: 401 because of 2"), "{}", told.out);
    assert_eq!(lines[1..], ["204: 2", "401: 1"]);
}

#[test]
fn over_http_it_sends_what_the_senders_send() {
    let receiver = Receiver::start(|_, _| 204);
    let told = run(&[&case("gc-notify/delivered"), "--to", &receiver.url]).unwrap();
    assert_eq!((told.code, &*told.out), (ExitCode::SUCCESS, "204: 1\n"));
    let head = receiver.heads.lock().unwrap()[0].to_lowercase();
    for line in [
        "post /callbacks/x http/1.1\r\n",
        "\r\ncontent-type: application/json\r\n",
        "\r\nauthorization: bearer a-token-of-the-tests\r\n",
        "\r\nuser-agent: python-requests/",
    ] {
        assert!(head.contains(line), "{line:?} is not in {head}");
    }
}

#[test]
fn the_token_may_come_from_a_file_and_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "token", "from the file\r\n");
    let receiver = Receiver::start(|_, _| 401);
    let told = run(&[&case("gc-notify/delivered"), "--to", &receiver.url, "--token-file", &file]);
    let told = told.unwrap();
    let head = receiver.heads.lock().unwrap()[0].clone();
    assert!(head.contains("authorization: Bearer from the file\r\n"), "{head}");
    assert!(!told.out.contains("from the file") && !told.aside.contains("from the file"));
}

#[test]
fn without_a_token_nothing_is_sent() {
    let receiver = Receiver::start(|_, _| 204);
    let failure = run_in(&[], &[&case("gc-notify/delivered"), "--to", &receiver.url]);
    assert_eq!(failure.err().unwrap().code, Failure::USAGE);
    assert!(receiver.heads.lock().unwrap().is_empty());
}

#[test]
fn a_receiver_that_is_not_there_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let failure = run(&[&case("gc-notify/delivered"), "--to", &url]).err().unwrap();
    assert_eq!(failure.code, Failure::UNAVAILABLE, "{failure}");
}

/// The two halves of a receiver, over the files of `db`.
fn keep(db: &Path) -> Journal {
    let options = journal::Options {
        queue_callbacks_max: 100,
        queue_bytes_max: 1 << 20,
        batch_callbacks_max: 100,
        free_bytes_min: 0,
        reserve_bytes: 0,
        durability: Durability::Normal,
    };
    let path = journal::path_beside(db);
    let (journal, writer, tell) = journal::start(&path, options, Box::new(|_| {})).unwrap();
    thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(tell);
    });
    let clock = Clock::system();
    let opened = settle::open_state(db, &clock).unwrap();
    let options = settle::Options {
        path: db.to_owned(),
        journal: path,
        callbacks_max: 100,
        clock,
        owed_to: vec![],
        hold: Hold::default(),
    };
    let progress = Arc::clone(journal.progress());
    let (settler, _) = settle::start(options, opened, progress, Box::new(|_| {})).unwrap();
    // Both end when they are dropped; this receiver is there until the test is over.
    std::mem::forget((writer, settler));
    journal
}

fn append(journal: &Journal, source: &str, body: Vec<u8>) {
    let received_at = Clock::system().now();
    let entry = Entry::called_back(Arc::from(source), received_at, body.into());
    journal.append(entry).unwrap().blocking_recv().unwrap().unwrap();
}

fn remember(journal: &Journal, name: &str, provider: Provider) {
    let row = SourceRow { name: name.to_owned(), dialect: provider.into() };
    journal.on_writer(move |connection| row.remember(connection)).unwrap().unwrap();
}

#[test]
fn over_http_with_the_database_at_hand_it_prints_what_was_settled() {
    let folder = tempfile::tempdir().unwrap();
    let db: PathBuf = folder.path().join("receiptd.db");
    let journal = keep(&db);
    remember(&journal, "passport", Provider::GcNotify);
    let of_another = br#"{"id": "another", "status": "sent", "notification_type": "email"}"#;
    append(&journal, "passport", of_another.to_vec());
    let receiver = Receiver::start(move |_, body| {
        append(&journal, "passport", body);
        204
    });
    let path = case(LATE_BOUNCE);
    let told = run(&[&path, "--to", &receiver.url, "--db", db.to_str().unwrap()]).unwrap();
    assert_eq!(told.code, ExitCode::SUCCESS);
    assert_eq!(told.aside, "204: 2\n");
    assert_eq!(told.out, run(&["--provider", "gc-notify", &path]).unwrap().out);
    let of_another = ["--source", "other", "--db", db.to_str().unwrap()];
    let told = run(&[&[&*path, "--to", &receiver.url][..], &of_another].concat()).unwrap();
    assert_eq!(told.out, "");
}
