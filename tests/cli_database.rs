//! `rebuild`, `check-db` and `backup`: what they promise of real files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use clap::Parser;
use receiptd::cli::{Failure, backup, check_db, rebuild};
use receiptd::clock::Clock;
use receiptd::journal::{self, Entry, Journal, SourceRow, Writer};
use receiptd::lock::Lock;
use receiptd::provider::Provider;
use receiptd::replay::fixtures;
use receiptd::settle::{self, Settled, Settler};
use receiptd::sqlite::Durability;
use receiptd::sqlite::checkpoint::Hold;
use rusqlite::Connection;
use rusqlite::types::Value;

#[derive(Parser)]
enum Line {
    Rebuild(rebuild::Args),
    CheckDb(check_db::Args),
    Backup(backup::Args),
}

fn run(arguments: &[&str]) -> Result<(ExitCode, String), Failure> {
    let line = Line::try_parse_from([&["receiptd"], arguments].concat())
        .map_err(|error| Failure::new(Failure::USAGE, error.to_string()))?;
    let mut out = Vec::new();
    let code = match line {
        Line::Rebuild(args) => rebuild::run(&args, &[], &mut out),
        Line::CheckDb(args) => check_db::run(&args, &[], &mut out),
        Line::Backup(args) => backup::run(&args, &[], &mut out),
    }?;
    Ok((code, String::from_utf8(out).unwrap()))
}

fn no() -> ExitCode {
    ExitCode::from(Failure::NO)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// A receiver without its front door.
struct Receiver {
    journal: Journal,
    writer: Writer,
    settler: Settler,
    settled: Settled,
}

impl Receiver {
    fn start(db: &Path) -> Self {
        let options = journal::Options {
            queue_callbacks_max: 1_000,
            queue_bytes_max: 64 << 20,
            batch_callbacks_max: 7,
            free_bytes_min: 0,
            reserve_bytes: 0,
            durability: Durability::Normal,
        };
        let path = journal::path_beside(db);
        let (journal, writer, tell) = journal::start(&path, options, Box::new(|_| {})).unwrap();
        thread::spawn(move || block_on(tell));
        let clock = Clock::system();
        let opened = settle::open_state(db, &clock).unwrap();
        let options = settle::Options {
            path: db.to_owned(),
            journal: path,
            callbacks_max: 5,
            clock,
            owed_to: vec![],
            hold: Hold::default(),
        };
        let progress = Arc::clone(journal.progress());
        let (settler, settled) =
            settle::start(options, opened, progress, Box::new(|_| {})).unwrap();
        Self { journal, writer, settler, settled }
    }

    fn remember(&self, name: &str, provider: Provider) {
        let row = SourceRow { name: name.to_owned(), dialect: provider.into() };
        self.journal.on_writer(move |connection| row.remember(connection)).unwrap().unwrap();
    }

    fn take(&self, source: &str, body: &[u8]) -> i64 {
        let now = Clock::system().now();
        let entry = Entry::called_back(Arc::from(source), now, body.to_vec().into());
        self.journal.append(entry).unwrap().blocking_recv().unwrap().unwrap()
    }

    fn stop(self) {
        let last = self.journal.progress().committed();
        assert!(block_on(self.settled.reaches(last)));
        self.settler.stop(std::time::Instant::now() + std::time::Duration::from_secs(10));
        self.journal.close();
        self.writer.join();
    }
}

/// A database of every fixture there is, and how many callbacks those are.
fn database() -> (tempfile::TempDir, PathBuf, usize) {
    static MADE: OnceLock<(Vec<u8>, Vec<u8>, usize)> = OnceLock::new();
    let (state, journal, callbacks) = MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let db = folder.path().join("receiptd.db");
        let callbacks = fill(&db);
        (fs::read(&db).unwrap(), fs::read(journal::path_beside(&db)).unwrap(), callbacks)
    });
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("receiptd.db");
    fs::write(&db, state).unwrap();
    fs::write(journal::path_beside(&db), journal).unwrap();
    (folder, db, *callbacks)
}

/// Every fixture case as a source of its own, because many of them share an id.
fn cases() -> Vec<(String, Provider, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut cases = Vec::new();
    for provider in Provider::ALL {
        for entry in fs::read_dir(root.join(provider.as_str())).unwrap() {
            let folder = entry.unwrap().path();
            let name = folder.file_name().unwrap().to_str().unwrap();
            cases.push((format!("{provider}-{name}"), provider, folder));
        }
    }
    cases.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    cases
}

fn fill(db: &Path) -> usize {
    let receiver = Receiver::start(db);
    let mut callbacks = 0;
    for (source, provider, folder) in cases() {
        receiver.remember(&source, provider);
        for fixture in fixtures::load([folder]).unwrap() {
            receiver.take(&source, &fixture.body);
            callbacks += 1;
        }
    }
    receiver.stop();
    callbacks
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Every row of every table, in the order in which they are stored; but for what is made by chance.
fn dump(db: &Path) -> Vec<(String, Vec<Vec<Value>>)> {
    let connection = Connection::open(db).unwrap();
    let mut names = connection
        .prepare(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name != 'epoch' ORDER BY name",
        )
        .unwrap();
    let names: Vec<String> =
        names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let rows = |name: &String| {
        let mut statement = connection.prepare(&format!("SELECT * FROM {name}")).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| (0..columns).map(|at| row.get(at)).collect());
        rows.unwrap().map(Result::unwrap).collect()
    };
    names.iter().map(|name| (name.clone(), rows(name))).collect()
}

fn change(db: &Path, sql: &str) {
    assert_eq!(Connection::open(db).unwrap().execute(sql, []).unwrap(), 1, "{sql}");
}

#[test]
fn a_rebuild_gives_the_same_rows_and_keys_to_the_last_byte() {
    let (_folder, db, callbacks) = database();
    let before = dump(&db);
    assert!(before.iter().any(|(name, rows)| name == "notification_row" && rows.len() > 50));
    let (code, out) = run(&["rebuild", "--db", text(&db)]).unwrap();
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(out.starts_with(&format!("settled {callbacks} callbacks into ")), "{out}");
    assert_eq!(dump(&db), before);
}

#[test]
fn a_rebuild_mends_what_was_tampered_with_or_lost() {
    let (_folder, db, _) = database();
    let before = dump(&db);
    change(&db, "DELETE FROM notification_row WHERE key = (SELECT max(key) FROM notification_row)");
    run(&["rebuild", "--db", text(&db)]).unwrap();
    assert_eq!(dump(&db), before);
    fs::remove_file(&db).unwrap();
    run(&["rebuild", "--db", text(&db)]).unwrap();
    assert_eq!(dump(&db), before);
    fs::write(&db, vec![b'x'; 8192]).unwrap();
    run(&["rebuild", "--db", text(&db)]).unwrap();
    assert_eq!(dump(&db), before);
}

#[test]
fn a_rebuild_that_ends_in_the_middle_leaves_the_old_state_and_can_be_run_again() {
    let (_folder, db, callbacks) = database();
    let before = dump(&db);
    let journal = journal::path_beside(&db);
    let half = i64::try_from(callbacks / 2).unwrap();
    let crash = catch_unwind(AssertUnwindSafe(|| {
        settle::rebuild(&db, &journal, 10, &[], |seq, _| assert!(seq < half, "this is the crash"))
    }));
    assert!(crash.is_err());
    assert!(db.with_extension("db-rebuilding").exists(), "the crash came too late or too early");
    assert_eq!(dump(&db), before);
    run(&["rebuild", "--db", text(&db)]).unwrap();
    assert_eq!(dump(&db), before);
    assert!(!db.with_extension("db-rebuilding").exists());
}

#[test]
fn a_database_that_a_receiver_writes_is_not_rebuilt() {
    let (_folder, db, _) = database();
    let _receiver = Lock::acquire(&db).unwrap();
    let failure = run(&["rebuild", "--db", text(&db)]).unwrap_err();
    let pid = std::process::id();
    let expected = format!("a receiver is running on this database (pid {pid}): stop it first");
    assert_eq!((failure.code, failure.message), (Failure::NO, expected));
}

#[test]
fn what_the_journal_cannot_give_back_is_not_rebuilt_away() {
    let (_folder, db, _) = database();
    let journal = journal::path_beside(&db);
    let before = dump(&db);
    let last = "DELETE FROM callback WHERE seq = (SELECT max(seq) FROM callback)";
    change(&journal, last);
    change(&journal, "UPDATE sqlite_sequence SET seq = seq - 1");
    let refused = run(&["rebuild", "--db", text(&db)]).unwrap_err();
    assert_eq!(refused.code, Failure::NO, "{refused}");
    change(&journal, "UPDATE identity SET journal_id = 'another'");
    let refused = run(&["rebuild", "--db", text(&db)]).unwrap_err();
    assert_eq!(refused.code, Failure::NO, "{refused}");
    fs::remove_file(&journal).unwrap();
    let refused = run(&["rebuild", "--db", text(&db)]).unwrap_err();
    assert_eq!(refused.code, Failure::IO, "{refused}");
    assert_eq!(dump(&db), before);
}

#[test]
fn a_sound_database_is_found_sound() {
    let (_folder, db, _) = database();
    let (code, out) = run(&["check-db", "--db", text(&db)]).unwrap();
    assert_eq!(code, ExitCode::SUCCESS, "{out}");
    assert!(out.ends_with("the state is what the journal says\n"), "{out}");
    for table in ["notification_row", "message_row", "history_row", "unrecognised"] {
        let line = out.lines().find(|line| line.starts_with(&format!("{table}: "))).unwrap();
        assert!(!line.contains(": 0 rows"), "{line}");
    }
}

#[test]
fn every_kind_of_tampering_is_found_and_named() {
    let first = "key = (SELECT min(key) FROM notification_row)";
    for (sql, expected) in [
        (
            format!("UPDATE notification_row SET status = 'seen' WHERE {first}"),
            "status is \"seen\"",
        ),
        (format!("DELETE FROM notification_row WHERE {first}"), "missing"),
        (format!("UPDATE notification_row SET key = 1 WHERE {first}"), "should not be there"),
        (
            "DELETE FROM history_row WHERE seq = (SELECT max(seq) FROM history_row)".into(),
            "missing",
        ),
        ("INSERT INTO unrecognised VALUES (99999, 'x', 'x', 'x')".into(), "should not be there"),
    ] {
        let (_folder, db, _) = database();
        change(&db, &sql);
        let (code, out) = run(&["check-db", "--db", text(&db)]).unwrap();
        assert_eq!(code, no(), "{sql}");
        assert!(out.contains(expected), "{sql}: {out}");
        run(&["rebuild", "--db", text(&db)]).unwrap();
        assert_eq!(run(&["check-db", "--db", text(&db)]).unwrap().0, ExitCode::SUCCESS);
    }
}

/// As a version left it that did not know what an app says it sent.
fn made_older(db: &Path) {
    let back = |path: &Path, sql: &str| Connection::open(path).unwrap().execute_batch(sql).unwrap();
    back(
        db,
        "DROP TRIGGER awaited_again; DROP TRIGGER awaited_unheard_of; DROP TABLE awaited_row;
         DROP TABLE awaited_ends; DROP VIEW expected; DROP TABLE expected_row; DROP TABLE epoch;
         DROP TABLE settled_by; PRAGMA user_version = 2",
    );
    let journal = "DROP TABLE expected_row; ALTER TABLE identity DROP COLUMN pruned_before;
                   DROP TABLE IF EXISTS upstream_round; PRAGMA user_version = 3";
    back(&journal::path_beside(db), journal);
}

#[test]
fn check_db_of_a_database_of_an_older_version_says_what_to_do_and_changes_nothing() {
    let (_folder, db, _) = database();
    made_older(&db);
    let refused = run(&["check-db", "--db", text(&db)]).unwrap_err();
    assert!(refused.message.contains("written by an older receiptd (schema 2,"), "{refused}");
    assert!(refused.message.contains("start `receiptd serve` of this version once"), "{refused}");
    let version: i64 = Connection::open(&db)
        .unwrap()
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    assert_eq!(version, 2);
}

#[test]
fn a_rebuild_brings_a_database_of_an_older_version_up_to_date() {
    let (_folder, db, callbacks) = database();
    let before = dump(&db);
    made_older(&db);
    let (code, out) = run(&["rebuild", "--db", text(&db)]).unwrap();
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(out.contains(&format!("settled {callbacks} callbacks")), "{out}");
    assert_eq!(dump(&db), before);
    let (code, out) = run(&["check-db", "--db", text(&db)]).unwrap();
    assert_eq!(code, ExitCode::SUCCESS, "{out}");
}

#[test]
fn a_difference_in_an_address_does_not_show_the_address() {
    let (_folder, db, _) = database();
    change(
        &db,
        "UPDATE notification_row SET recipient = 'somebody@example.ca'
         WHERE key = (SELECT min(key) FROM notification_row)",
    );
    let (code, out) = run(&["check-db", "--db", text(&db)]).unwrap();
    assert_eq!(code, no());
    assert!(out.contains("recipient differs") && !out.contains('@'), "{out}");
}

#[test]
fn what_is_not_settled_yet_is_no_difference() {
    let (_folder, db, callbacks) = database();
    let journal = journal::path_beside(&db);
    fs::remove_file(&db).unwrap();
    let half = i64::try_from(callbacks / 2).unwrap();
    settle::settle_afresh(&db, &journal, half, 10, |_, _| {}).unwrap();
    let (code, out) = run(&["check-db", "--db", text(&db)]).unwrap();
    assert_eq!(code, ExitCode::SUCCESS, "{out}");
    let lag = i64::try_from(callbacks).unwrap() - half;
    assert!(out.contains(&format!("the last {lag} callbacks are not settled yet")), "{out}");
}

#[test]
fn a_damaged_page_is_found() {
    let (_folder, db, _) = database();
    let mut bytes = fs::read(&db).unwrap();
    let middle = bytes.len() / 8192 * 4096;
    bytes[middle..middle + 4096].fill(0xAB);
    fs::write(&db, bytes).unwrap();
    let (code, out) = run(&["check-db", "--db", text(&db)]).unwrap();
    assert_eq!(code, no());
    assert!(out.contains("rebuild"), "{out}");
}

#[test]
fn a_state_of_another_journal_is_found() {
    let (_folder, db, _) = database();
    change(&db, "UPDATE cursor SET journal_id = 'another'");
    let (code, out) = run(&["check-db", "--db", text(&db)]).unwrap();
    assert_eq!(code, no());
    assert!(out.contains("another journal"), "{out}");
}

fn cursor_and_last(db: &Path) -> (i64, i64) {
    let number = |path: &Path, sql: &str| -> i64 {
        Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let last = "SELECT seq FROM sqlite_sequence WHERE name = 'callback'";
    (number(db, "SELECT seq FROM cursor"), number(&journal::path_beside(db), last))
}

#[test]
fn backups_taken_while_callbacks_arrive_are_consistent_and_the_journal_is_never_behind() {
    let (folder, db, _) = database();
    let receiver = Arc::new(Receiver::start(&db));
    let stop = Arc::new(AtomicBool::new(false));
    let sender = thread::spawn({
        let (receiver, stop) = (Arc::clone(&receiver), Arc::clone(&stop));
        move || {
            let mut sent = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let id = sent % 1_000;
                let body = format!(
                    r#"{{"id": "{id}", "status": "sent", "notification_type": "sms", "n": {sent}}}"#
                );
                receiver.take("gc-notify-delivered", body.as_bytes());
                sent += 1;
            }
        }
    });
    let mut lasts = Vec::new();
    for number in 0..3 {
        let to = folder.path().join(format!("backup/{number}.db"));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let (code, _) = run(&["backup", "--db", text(&db), text(&to)]).unwrap();
        assert_eq!(code, ExitCode::SUCCESS);
        let (settled, last) = cursor_and_last(&to);
        assert!(settled <= last, "the state has settled {settled} of {last}");
        let (code, out) = run(&["check-db", "--db", text(&to)]).unwrap();
        assert_eq!(code, ExitCode::SUCCESS, "{out}");
        lasts.push(last);
    }
    stop.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    Arc::into_inner(receiver).unwrap().stop();
    assert!(lasts.is_sorted() && lasts[0] < lasts[2], "nothing arrived meanwhile: {lasts:?}");
}

/// What stands in the folder of the backup `b.db`, or of what became of it.
fn backup_files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    let mut files: Vec<_> = names.filter(|name| name.starts_with("b.")).collect();
    files.sort();
    files
}

#[test]
fn a_backup_put_back_is_the_database_it_was_taken_of() {
    let (folder, db, _) = database();
    let to = folder.path().join("b.db");
    run(&["backup", "--db", text(&db), text(&to)]).unwrap();
    for (path, of) in
        [(to.clone(), db.clone()), (journal::path_beside(&to), journal::path_beside(&db))]
    {
        assert_eq!(dump(&path), dump(&of));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(backup_files(folder.path()), ["b.callbacks.db", "b.db"]);
}

#[test]
fn an_older_backup_is_replaced_only_when_forced() {
    let (folder, db, _) = database();
    let to = folder.path().join("b.db");
    for taken in [to.clone(), journal::path_beside(&to)] {
        fs::write(&taken, "mine").unwrap();
        let failure = run(&["backup", "--db", text(&db), text(&to)]).unwrap_err();
        assert_eq!(failure.code, Failure::NO);
        assert_eq!(fs::read(&taken).unwrap(), b"mine");
        fs::remove_file(&taken).unwrap();
    }
    // An older backup that somebody opened and changed, so that a WAL stands beside it.
    fs::copy(&db, &to).unwrap();
    let stale = Connection::open(&to).unwrap();
    stale.execute_batch("UPDATE notification_row SET status = 'stale'").unwrap();
    let wal = folder.path().join("b.db-wal");
    assert!(fs::metadata(&wal).unwrap().len() > 0);
    run(&["backup", "--force", "--db", text(&db), text(&to)]).unwrap();
    assert_eq!(dump(&to), dump(&db));
}

#[test]
fn a_backup_never_goes_over_the_database_itself_or_one_in_use() {
    let (folder, db, _) = database();
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(&db, &link).unwrap();
    for to in [&db, &link] {
        let failure = run(&["backup", "--force", "--db", text(&db), text(to)]).unwrap_err();
        assert_eq!(failure.code, Failure::USAGE, "{failure}");
    }
    let failure = run(&["backup", "--db", text(&db), text(&folder.path().join("b"))]).unwrap_err();
    assert_eq!(failure.code, Failure::USAGE, "{failure}");
    let other = folder.path().join("other.db");
    let _receiver = Lock::acquire(&other).unwrap();
    let failure = run(&["backup", "--force", "--db", text(&db), text(&other)]).unwrap_err();
    assert_eq!(failure.code, Failure::NO, "{failure}");
}

#[test]
fn a_failed_backup_leaves_nothing_behind() {
    let (folder, db, _) = database();
    fs::write(journal::path_beside(&db), vec![b'x'; 8192]).unwrap();
    let failure = run(&["backup", "--db", text(&db), text(&folder.path().join("b.db"))]);
    assert_eq!(failure.unwrap_err().code, Failure::IO);
    assert_eq!(backup_files(folder.path()), Vec::<String>::new());
}
