//! What the asking commands answer, from real files that were really settled.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use clap::{Args, CommandFactory, Parser};
use receiptd::callback::{Callback, Origin};
use receiptd::cli::{Failure, explain, list, messages, show, stats, token, unrecognised};
use receiptd::clock::Timestamp;
use receiptd::journal::{self, SourceRow};
use receiptd::provider::{Dialect, Provider};
use receiptd::settle::settle;
use receiptd::sqlite::{self, Access, Durability};
use receiptd::state::tables;
use rusqlite::Connection;
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};

/// The two files, with whoever writes them.
struct World {
    folder: tempfile::TempDir,
    journal: Connection,
    state: Connection,
    dialects: HashMap<Arc<str>, Dialect>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receiptd.db");
        let write = Access::Write(Durability::Normal);
        let journal = sqlite::open(&journal::path_beside(&path), &journal::SCHEMA, write).unwrap();
        let state = sqlite::open(&path, &tables::SCHEMA, write).unwrap();
        let world = Self { folder, journal, state, dialects: HashMap::new() };
        world.with("passport", Provider::GcNotify).with("journey", Provider::Ajo)
    }

    fn with(mut self, source: &str, provider: Provider) -> Self {
        let dialect = Dialect::from(provider);
        SourceRow { name: source.to_owned(), dialect: dialect.clone() }
            .remember(&self.journal)
            .unwrap();
        self.dialects.insert(Arc::from(source), dialect);
        self
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("receiptd.db")
    }

    /// Keeps and settles one callback, which arrives a second after the one before.
    fn hear(&self, source: &str, body: impl AsRef<[u8]>) -> i64 {
        let body = body.as_ref().to_vec();
        let start: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let (_, before) = tables::cursor(&self.state).unwrap();
        let received_at = start.plus_seconds(before);
        self.journal
            .execute(
                "INSERT INTO callback (source, received_at, body) VALUES (?1, ?2, ?3)",
                (source, received_at.to_string(), &body),
            )
            .unwrap();
        let seq = self.journal.last_insert_rowid();
        let callback = Callback {
            seq,
            source: Arc::from(source),
            received_at,
            body,
            origin: Origin::CalledBack,
        };
        settle(&self.state, &[callback], &self.dialects, &[]).unwrap();
        tables::set_cursor(&self.state, "journal", seq).unwrap();
        seq
    }

    fn prune(&self, seq: i64) {
        assert_eq!(self.journal.execute("DELETE FROM callback WHERE seq = ?1", [seq]), Ok(1));
    }

    fn ask<A: Args>(&self, run: Run<A>, words: &[&str]) -> Result<String, Failure> {
        let mut out = Vec::new();
        run(&parse(&self.path(), words), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    /// The rows a command prints as JSON.
    fn rows<A: Args>(&self, run: Run<A>, words: &[&str]) -> Vec<Value> {
        let words = [words, &["--format", "json"]].concat();
        let text = self.ask(run, &words).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What `explain` says: position, verdict and reason of each callback, in its order.
    fn explained(&self, id: &str) -> Vec<(i64, String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        self.rows(explain::run, &[id])
            .iter()
            .map(|row| (row["seq"].as_i64().unwrap(), text(&row["verdict"]), text(&row["why"])))
            .collect()
    }
}

type Run<A> = fn(&A, &mut dyn Write) -> Result<ExitCode, Failure>;

#[derive(Debug, Parser)]
struct Line<A: Args> {
    #[command(flatten)]
    args: A,
}

fn parse<A: Args>(db: &Path, words: &[&str]) -> A {
    let db = db.to_str().unwrap();
    let words = ["receiptd"].iter().chain(words).copied().chain(["--db", db]);
    Line::<A>::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).args
}

/// A receipt of the Notify family; `completed_at` is given as the time of a day.
fn receipt(id: &str, status: &str, completed_at: Option<&str>) -> String {
    json!({
        "id": id, "reference": "application-7", "to": "a@example.com", "status": status,
        "created_at": "2026-11-22T09:00:00.000000Z", "sent_at": null,
        "completed_at": completed_at.map(|time| format!("2026-11-22T{time}.000000Z")),
        "notification_type": "email",
    })
    .to_string()
}

fn complaint(id: &str) -> String {
    json!({
        "notification_id": id, "complaint_id": "c", "reference": null, "to": "a@example.com",
        "complaint_date": "2026-11-22T11:00:00.000000Z",
    })
    .to_string()
}

fn text_message(id: &str, message: &str) -> String {
    json!({
        "id": id, "source_number": "447700900111", "destination_number": "07700987654",
        "message": message, "date_received": "2026-11-22T09:30:00.000000Z",
    })
    .to_string()
}

fn judged(expected: &[(i64, &str, &str)]) -> Vec<(i64, String, String)> {
    let owned = |&(seq, verdict, why): &(i64, &str, &str)| (seq, verdict.into(), why.into());
    expected.iter().map(owned).collect()
}

#[test]
fn explain_says_of_every_callback_why_it_won_or_lost() {
    let world = World::new();
    world.hear("passport", receipt("n", "delivered", Some("12:16:50")));
    world.hear("passport", receipt("n", "sending", None));
    world.hear("passport", receipt("n", "temporary-failure", Some("12:15:00")));
    world.hear("passport", receipt("n", "permanent-failure", Some("12:16:50")));
    world.hear("passport", receipt("n", "permanent-failure", Some("12:16:50")));
    world.hear("passport", complaint("n"));
    world.hear("passport", complaint("n"));
    let identical = |seq| format!("identical to seq {seq}: counted as duplicate");
    let expected = [
        (4, "wins", "wins: same completed_at as seq 1, but permanent-failure outranks delivered"),
        (1, "loses", "same completed_at as seq 4, but permanent-failure outranks delivered"),
        (
            3,
            "loses",
            "older than seq 4: completed_at 2026-11-22 12:15:00 is before 2026-11-22 12:16:50",
        ),
        (2, "loses", "no completed_at, which counts as older than any: seq 4 has one"),
        (5, "duplicate", &identical(4)),
        (6, "no-status", "carries no status: joined as complained_at"),
        (7, "duplicate", &identical(6)),
    ];
    assert_eq!(world.explained("n"), judged(&expected));
    let text = world.ask(explain::run, &["n"]).unwrap();
    assert!(text.starts_with("n (source passport): permanent-failure, completed_at 2026-"));
    assert!(text.contains("seq 4: permanent-failure, received 2026-11-22 10:00:03\n    wins: "));
}

#[test]
fn explain_says_what_the_latest_won_by_and_that_a_lone_receipt_has_no_rival() {
    let world = World::new();
    world.hear("passport", receipt("n", "delivered", Some("12:16:50")));
    let alone = [(1, "wins", "wins: nothing else tells a status")];
    assert_eq!(world.explained("n"), judged(&alone));
    world.hear("passport", receipt("n", "sent", Some("12:16:51")));
    assert_eq!(world.explained("n")[0].2, "wins: latest completed_at 2026-11-22 12:16:51");
}

#[test]
fn explain_says_how_a_tie_was_broken() {
    let world = World::new();
    for completed_by in ["a", "b"] {
        let receipt = receipt("n", "delivered", Some("12:00:00"));
        world.hear("passport", receipt.replace("a@example", &format!("{completed_by}@example")));
    }
    let explained = world.explained("n");
    let tie = "the greater fingerprint decides, the same on every machine";
    assert!(explained.iter().all(|(_, _, why)| why.contains(tie)), "{explained:?}");
}

#[test]
fn explain_speaks_of_what_can_follow_where_no_event_says_when() {
    let world = World::new();
    for body in bodies(Path::new("tests/fixtures/ajo/sms-delivered-beats-bounce")) {
        world.hear("journey", body);
    }
    let id = world.rows(list::run, &[])[0]["id"].as_str().unwrap().to_owned();
    let (_, verdict, why) = &world.explained(&id)[0];
    assert_eq!(verdict, "wins");
    assert!(why.starts_with("wins: no callback says when, and delivered outranks"), "{why}");
}

#[test]
fn explain_tells_the_events_of_one_callback_apart() {
    let world = World::new();
    let events = bodies(Path::new("tests/fixtures/ajo/sms-delivered-beats-bounce"));
    let [delivered, bounce, sent] = events.try_into().unwrap();
    let array = [&bounce[..], &delivered, &bounce, &sent].join(&b","[..]);
    world.hear("journey", [b"[", &array[..], b"]"].concat());
    let row = &world.rows(list::run, &[])[0];
    let lines = world.rows(explain::run, &[row["id"].as_str().unwrap()]);
    let verdicts: Vec<_> = lines.iter().map(|line| (&line["status"], &line["verdict"])).collect();
    let bounced = &json!("permanent-failure");
    let expected = [
        (&json!("delivered"), &json!("wins")),
        (bounced, &json!("loses")),
        (&json!("sent"), &json!("loses")),
        (bounced, &json!("duplicate")),
    ];
    assert_eq!(verdicts, expected);
    assert!(lines[3]["why"].as_str().unwrap().starts_with("identical to seq 1"), "{lines:#?}");
}

#[test]
fn explain_says_what_history_kept_of_pruned_callbacks() {
    let world = World::new();
    world.hear("passport", receipt("n", "delivered", Some("12:15:00")));
    world.hear("passport", receipt("n", "permanent-failure", Some("12:16:50")));
    world.hear("passport", receipt("n", "permanent-failure", Some("12:16:50")));
    world.hear("passport", receipt("n", "delivered", Some("12:16:50")));
    world.hear("passport", complaint("n"));
    for seq in [1, 2, 5] {
        world.prune(seq);
    }
    let kept = "its body was pruned, this is what history kept";
    let expected = [
        (2, "wins", &*format!("wins: the state has its status; {kept}")),
        (4, "unknown", "same completed_at as seq 2; what decided between them was pruned"),
        (
            1,
            "loses",
            &format!(
                "older than seq 2: completed_at 2026-11-22 12:15:00 is before 2026-11-22 \
                 12:16:50; {kept}"
            ),
        ),
        (3, "duplicate", "identical to an earlier callback: counted as duplicate"),
        (5, "no-status", &format!("carries no status: joined as complained_at; {kept}")),
    ];
    assert_eq!(world.explained("n"), judged(&expected));
}

#[test]
fn explain_and_the_state_name_the_same_winner_in_every_fixture() {
    let mut world = World::new();
    let mut explained = 0;
    for provider in Provider::ALL {
        let folder = Path::new("tests/fixtures").join(provider.as_str());
        for case in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let source = format!("{provider}-{}", case.file_name().unwrap().display());
            world = world.with(&source, provider);
            for body in bodies(&case) {
                world.hear(&source, body);
            }
            for row in world.rows(list::run, &["--source", &source]) {
                let id = row["id"].as_str().unwrap();
                let lines = world.rows(explain::run, &[id, "--source", &source]);
                assert_explained(&row, &lines);
                explained += 1;
            }
        }
    }
    assert!(explained > 50, "only {explained} notifications were explained");
}

fn assert_explained(row: &Value, lines: &[Value]) {
    let with = |verdict: &str| {
        let lines = lines.iter().filter(|line| line["verdict"] == verdict);
        lines.map(|line| &line["status"]).collect::<Vec<_>>()
    };
    let status = Some(&row["status"]).filter(|status| !status.is_null());
    assert_eq!(with("wins"), Vec::from_iter(status), "{lines:#?}");
    assert_eq!(row["duplicates"], with("duplicate").len(), "{lines:#?}");
    assert!(with("unknown").is_empty(), "{lines:#?}");
}

#[test]
fn explain_notices_a_state_that_is_not_what_the_journal_says() {
    let world = World::new();
    world.hear("passport", receipt("n", "delivered", Some("12:00:00")));
    world.state.execute("UPDATE notification_row SET status = 'sent'", []).unwrap();
    let text = world.ask(explain::run, &["n"]).unwrap();
    assert!(text.contains("The journal, read by this version, says delivered."), "{text}");
}

#[test]
fn show_gives_the_state_and_the_time_line() {
    let world = World::new();
    world.hear("passport", receipt("n", "sending", None));
    world.hear("passport", receipt("n", "delivered", Some("12:16:50")));
    world.hear("passport", receipt("n", "delivered", Some("12:16:50")));
    let text = world.ask(show::run, &["n"]).unwrap();
    for part in ["status          delivered\n", "application-7", "10:00:01", "sending"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("complained"), "what is not known is not shown: {text}");
    let row = &world.rows(show::run, &["n"])[0];
    assert_eq!(row["notification"]["status"], "delivered");
    let history = row["history"].as_array().unwrap();
    let duplicates: Vec<_> = history.iter().map(|line| &line["duplicate"]).collect();
    assert_eq!(duplicates, [false, false, true]);
}

#[test]
fn show_finds_every_source_that_knows_the_id_and_messages_too() {
    let world = World::new().with("visa", Provider::GovukNotify);
    world.hear("visa", receipt("n", "sent", None));
    world.hear("passport", receipt("n", "delivered", Some("12:00:00")));
    world.hear("passport", text_message("n", "hello"));
    let rows = world.rows(show::run, &["n"]);
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0]["notification"]["source"], "passport");
    assert_eq!(rows[0]["history"].as_array().unwrap().len(), 1, "the message has its own");
    assert_eq!(rows[2]["received_message"]["message"], "hello");
    assert_eq!(world.rows(show::run, &["n", "--source", "visa"]).len(), 1);
    assert_eq!(world.rows(explain::run, &["n"]).len(), 2);
}

#[test]
fn what_is_not_there_is_answered_with_1_and_a_hint() {
    let world = World::new();
    world.hear("passport", text_message("m", "hello"));
    let failures = [
        world.ask(show::run, &["no\u{1b}[2J"]),
        world.ask(show::run, &["m", "--source", "visa"]),
        world.ask(explain::run, &["n"]),
        world.ask(explain::run, &["m"]),
        world.ask(unrecognised::run, &["show", "1"]),
    ];
    for failure in failures.map(Result::unwrap_err) {
        assert_eq!(failure.code, Failure::NO, "{failure}");
        assert!(failure.hint.is_some() && !failure.to_string().contains('\u{1b}'), "{failure}");
    }
}

#[test]
fn a_missing_database_says_what_makes_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.db");
    let failure = list::run(&parse(&path, &[]), &mut Vec::new()).unwrap_err();
    assert_eq!(failure.code, Failure::IO);
    assert!(failure.message.contains("there is no database at"), "{failure}");
    assert!(failure.hint.unwrap().contains("receiptd serve"));
    assert!(!path.exists(), "asking makes no file");
}

#[test]
fn the_journal_is_not_taken_for_the_state() {
    let world = World::new();
    let path = journal::path_beside(&world.path());
    let failure = list::run(&parse(&path, &[]), &mut Vec::new()).unwrap_err();
    assert!(failure.to_string().contains("name the state file"), "{failure}");
}

#[test]
fn list_filters_and_pages_in_every_format() {
    let world = World::new();
    for (id, status) in [("a", "delivered"), ("b", "permanent-failure"), ("c", "pii-check-failed")]
    {
        world.hear("passport", receipt(id, status, Some("12:00:00")));
    }
    let ids = |words: &[&str]| {
        let rows = world.rows(list::run, words);
        rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect::<String>()
    };
    assert_eq!(ids(&[]), "cba");
    assert_eq!(ids(&["--status", "failed"]), "cb");
    assert_eq!(ids(&["--status", "delivered,permanent-failure"]), "ba");
    assert_eq!(ids(&["--since", "2026-11-22T10:00:01Z", "--until", "2026-11-22T10:00:02Z"]), "b");
    assert_eq!(ids(&["--reference", "application-7", "--type", "email", "--limit", "2"]), "cb");
    assert_eq!(ids(&["--source", "visa"]), "");

    let table = world.ask(list::run, &["--limit", "2"]).unwrap();
    let cursor = table.trim_end().rsplit(' ').next().unwrap();
    assert_eq!(ids(&["--cursor", cursor]), "a");
    let table = world.ask(list::run, &["--source", "visa"]).unwrap();
    assert_eq!(table, "nothing matches\n");

    let csv = world.ask(list::run, &["--format", "csv", "--limit", "1"]).unwrap();
    let lines: Vec<_> = csv.lines().collect();
    assert!(lines[0].starts_with("source,id,status,status_description,"), "{csv}");
    assert!(lines[1].starts_with("passport,c,pii-check-failed,,"), "{csv}");
    assert_eq!(lines.len(), 2);
}

#[test]
fn programs_get_the_whole_list_however_many_pages_it_has() {
    let world = World::new();
    world.state.execute_batch("BEGIN").unwrap();
    for number in 0..1_203 {
        world.hear("passport", receipt(&format!("n{number}"), "delivered", Some("12:00:00")));
    }
    world.state.execute_batch("COMMIT").unwrap();
    assert_eq!(world.rows(list::run, &[]).len(), 1_203);
    assert_eq!(world.rows(list::run, &["--limit", "1100"]).len(), 1_100);
    let csv = world.ask(list::run, &["--format", "csv"]).unwrap();
    assert_eq!(csv.lines().count(), 1_204, "the heading comes once");
}

#[test]
fn messages_are_whole_for_programs_and_harmless_on_a_terminal() {
    let world = World::new();
    world.hear("passport", text_message("m", "hello\u{1b}[2J\u{202e} \"you\",\n=1+1"));
    let row = &world.rows(messages::run, &[])[0];
    assert_eq!(row["message"], "hello\u{1b}[2J\u{202e} \"you\",\n=1+1");
    for text in [world.ask(messages::run, &[]).unwrap(), world.ask(show::run, &["m"]).unwrap()] {
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
    }
}

#[test]
fn an_unrecognised_callback_is_listed_with_its_reason_and_shown_with_its_body() {
    let world = World::new();
    let body = b"{\"secret\": \"a@example.com\x1b[2J\"\n}\xff";
    let seq = world.hear("passport", body).to_string();
    let row = &world.rows(unrecognised::run, &[])[0];
    assert_eq!((&row["seq"], &row["source"]), (&json!(1), &json!("passport")));
    let listed = world.ask(unrecognised::run, &[]).unwrap();
    assert!(!listed.contains("example.com"), "{listed}");

    let shown = world.ask(unrecognised::run, &["show", &seq]).unwrap();
    assert!(shown.contains("reason"), "{shown}");
    assert!(shown.ends_with("\n{\"secret\": \"a@example.com␛[2J\"\n}\u{fffd}\n"), "{shown}");
    let mut raw = Vec::new();
    unrecognised::run(&parse(&world.path(), &["show", &seq, "--raw"]), &mut raw).unwrap();
    assert_eq!(raw, body);

    world.prune(1);
    let shown = world.ask(unrecognised::run, &["show", &seq]).unwrap();
    assert!(shown.ends_with("its body was pruned\n"), "{shown}");
    let failure = world.ask(unrecognised::run, &["show", &seq, "--raw"]).unwrap_err();
    assert_eq!(failure.code, Failure::NO);
}

#[test]
fn stats_count_by_status_and_by_source() {
    let world = World::new().with("visa", Provider::GovukNotify);
    let none = "no notifications; --by source counts everything else\n";
    assert_eq!(world.ask(stats::run, &[]).unwrap(), none);
    let none = "nothing of any source is settled, or all of it was pruned\n";
    assert_eq!(world.ask(stats::run, &["--by", "source"]).unwrap(), none);
    world.hear("visa", "not JSON");
    let none = "no notifications; --by source counts everything else\n";
    assert_eq!(world.ask(stats::run, &[]).unwrap(), none, "though something is settled");
    world.hear("passport", receipt("a", "delivered", Some("12:00:00")));
    world.hear("passport", receipt("b", "delivered", Some("12:00:00")));
    world.hear("passport", complaint("c"));
    let rows = world.rows(stats::run, &[]);
    assert_eq!((&rows[0]["status"], &rows[0]["notifications"]), (&json!("delivered"), &json!(2)));
    assert_eq!((&rows[1]["status"], &rows[1]["notifications"]), (&json!(null), &json!(1)));
    let rows = world.rows(stats::run, &["--by", "source"]);
    assert_eq!((&rows[1]["source"], &rows[1]["unrecognised"]), (&json!("visa"), &json!(1)));
    let csv = world.ask(stats::run, &["--format", "csv"]).unwrap();
    assert_eq!(csv.lines().nth(1), Some("passport,delivered,2,2,0"));
    assert!(world.ask(stats::run, &[]).unwrap().contains("(none told)"));
}

#[test]
fn what_goes_through_a_pipe_is_not_cut_to_the_terminal_on_which_it_began() {
    let world = World::new();
    world.hear("passport", receipt("a", "delivered", Some("12:00:00")));
    let terminal = fs::File::options().read(true).write(true).open("/dev/ptmx").unwrap();
    let size = Winsize { ws_row: 24, ws_col: 40, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal, size).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_receiptd"))
        .args(["list", "--db", world.path().to_str().unwrap()])
        .stdin(terminal.try_clone().unwrap())
        .stderr(terminal)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && told.contains("application-7"), "{told}");
}

#[test]
fn a_reader_that_goes_away_ends_a_command_without_a_failure() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
    let world = World::new();
    world.hear("passport", receipt("n", "delivered", Some("12:00:00")));
    let path = world.path();
    for format in ["table", "json", "csv"] {
        assert!(list::run(&parse(&path, &["--format", format]), &mut Gone).is_ok(), "{format}");
        assert!(stats::run(&parse(&path, &["--format", format]), &mut Gone).is_ok(), "{format}");
    }
    for format in ["text", "json"] {
        assert!(show::run(&parse(&path, &["n", "--format", format]), &mut Gone).is_ok());
        assert!(explain::run(&parse(&path, &["n", "--format", format]), &mut Gone).is_ok());
    }
}

#[test]
fn the_help_of_every_command_has_an_example() {
    let helps = [
        help::<show::Args>(&[]),
        help::<explain::Args>(&[]),
        help::<list::Args>(&[]),
        help::<messages::Args>(&[]),
        help::<unrecognised::Args>(&[]),
        help::<unrecognised::Args>(&["show"]),
        help::<stats::Args>(&[]),
        help::<token::Args>(&["new"]),
        help::<token::Args>(&["hash"]),
    ];
    for help in helps {
        let (_, examples) = help.split_once("Example").expect("an example");
        assert!(examples.contains("receiptd "), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
    assert!(help::<unrecognised::Args>(&["show"]).contains("personal data"));
}

fn help<A: Args>(path: &[&str]) -> String {
    let mut command = Line::<A>::command().term_width(100);
    command.build();
    let named = path.iter().fold(&mut command, |command, name| {
        command.find_subcommand_mut(name).expect("the command exists")
    });
    named.render_long_help().to_string()
}

/// The bodies of one fixture, in order.
fn bodies(case: &Path) -> Vec<Vec<u8>> {
    let folder = fs::read_dir(case.join("callbacks")).unwrap();
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut bodies = Vec::new();
    for file in files {
        let bytes = fs::read(&file).unwrap();
        if file.extension().is_some_and(|extension| extension == "jsonl") {
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            bodies.extend(lines.map(<[u8]>::to_vec));
        } else {
            bodies.push(bytes);
        }
    }
    bodies
}
