//! Pruning beside everything else that goes on: readers, callbacks, stopping, older copies.

mod support;

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Setup, count, dump, open, receipt, receiptd, run};

/// A receiver that has kept and settled that many receipts.
fn filled(setup: &Setup, receipts: usize) -> support::Receiptd {
    let server = setup.start();
    for number in 0..receipts {
        assert_eq!(server.post(receipt(&format!("n{number}"))), 204);
    }
    server.settled();
    server
}

fn prune(setup: &Setup, arguments: &[&str]) -> std::process::Command {
    let state = setup.state();
    let mut all = vec!["prune", "--older-than", "0s", "--db", state.to_str().unwrap()];
    all.extend(arguments);
    receiptd(setup.folder.path(), &all)
}

#[test]
fn a_reader_that_holds_up_pruning_holds_up_no_callback_and_no_settling() {
    let setup = Setup::new();
    let server = filled(&setup, 20);
    let readers = [setup.journal(), setup.state()].map(|path| {
        let reader = open(&path);
        reader.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").unwrap();
        reader
    });
    let mut pruning =
        prune(&setup, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    let mut posted = 0;
    while pruning.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(30), "pruning never gives up");
        let sent = Instant::now();
        assert_eq!(server.post(receipt(&format!("during-{posted}"))), 204);
        assert!(sent.elapsed() < Duration::from_secs(1), "a callback waited {:?}", sent.elapsed());
        server.settled();
        posted += 1;
    }
    assert!(posted > 0);
    assert_eq!(pruning.wait().unwrap().code(), Some(1), "the logs could not be emptied");
    drop(readers);
    assert_eq!(run(&mut prune(&setup, &[])).code, Some(0));
}

#[test]
fn while_somebody_prunes_another_is_told_so() {
    let setup = Setup::new();
    let server = filled(&setup, 20);
    // Neither ends before it has given up emptying the log, so they meet.
    let reader = open(&setup.journal());
    reader.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").unwrap();
    support::eventually("one of the two is refused", || {
        let mut first = prune(&setup, &[]);
        let first = first.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let second = run(&mut prune(&setup, &[]));
        let first = first.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&first.stderr).into_owned();
        let ended = [(first.status.code(), said), (second.code, second.stderr)];
        for (code, said) in &ended {
            let is_refused = said.contains("it is pruning already");
            assert_eq!(*code, Some(if is_refused { 69 } else { 1 }), "{said}");
        }
        ended.iter().any(|(code, _)| *code == Some(69))
    });
    drop(reader);
    assert_eq!(server.post(receipt("later")), 204);
    assert_eq!(run(&mut prune(&setup, &[])).code, Some(0));
    assert_eq!(count(&setup.journal(), "callback"), 0);
}

#[test]
fn a_receiver_that_is_pruning_still_stops_in_time() {
    let setup = Setup::new();
    let mut server = filled(&setup, 20);
    let reader = open(&setup.journal());
    reader.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").unwrap();
    let mut pruning =
        prune(&setup, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    support::eventually("pruning has begun", || count(&setup.journal(), "callback") == 0);
    server.signal(Signal::TERM);
    assert_eq!(server.wait(Duration::from_secs(10)), Some(0));
    pruning.wait().unwrap();
}

#[test]
fn a_state_older_than_the_last_pruning_is_settled_again_whole() {
    let setup = Setup::new();
    let server = filled(&setup, 5);
    server.stop();
    let older = fs::read(setup.state()).unwrap();
    let server = setup.start();
    for number in 5..10 {
        assert_eq!(server.post(receipt(&format!("n{number}"))), 204);
    }
    server.settled();
    assert_eq!(run(&mut prune(&setup, &["--bodies-only"])).code, Some(0));
    server.stop();
    let whole = dump(&open(&setup.state()));
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(setup.path(&format!("receiptd.db{suffix}")));
    }
    fs::write(setup.state(), older).unwrap();

    let refused = run(&mut prune(&setup, &[]));
    assert_eq!(refused.code, Some(74), "{}", refused.stderr);
    let server = setup.start();
    assert_eq!(server.post(receipt("news")), 204);
    server.settled();
    server.stop();
    let now = dump(&open(&setup.state()));
    assert!(whole.iter().all(|row| now.contains(row)), "what was pruned is still known");
}

#[test]
fn a_damaged_journal_is_not_blamed_on_the_state() {
    let setup = Setup::new();
    filled(&setup, 200).stop();
    let whole = dump(&open(&setup.state()));
    assert_eq!(whole.len(), 400);
    // The state is new, so that the journal has to be read; and a page of it is garbage.
    fs::rename(setup.state(), setup.path("kept.db")).unwrap();
    let mut bytes = fs::read(setup.journal()).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xff);
    fs::write(setup.journal(), bytes).unwrap();
    let config = setup.write();
    let arguments = ["serve", "--config", config.to_str().unwrap()];
    let ended = run(&mut receiptd(setup.folder.path(), &arguments));
    assert_eq!(ended.code, Some(74), "{}", ended.stderr);
    let files = fs::read_dir(setup.folder.path()).unwrap();
    let aside = files
        .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().contains("damaged"));
    assert_eq!(aside.count(), 0, "no state was set aside");
}

#[test]
fn a_file_that_is_no_database_is_left_alone_where_there_is_no_journal() {
    let setup = Setup::new();
    fs::write(setup.state(), "somebody's notes\n".repeat(1000)).unwrap();
    let path = setup.write();
    let ended =
        run(&mut receiptd(setup.folder.path(), &["serve", "--config", path.to_str().unwrap()]));
    assert_eq!(ended.code, Some(74), "{}", ended.stderr);
    assert!(fs::read_to_string(setup.state()).unwrap().starts_with("somebody's notes"));
}

#[test]
fn a_dry_run_says_how_many_callbacks_would_go_and_changes_nothing() {
    let setup = Setup::new();
    let server = filled(&setup, 5);
    let before = dump(&open(&setup.state()));
    let said = "2026-11-22T10:00:00Z";
    for is_running in [true, false] {
        if !is_running {
            server.signal(Signal::TERM);
            support::eventually("it has stopped", || !setup.path("receiptd.db.control").exists());
        }
        for flags in [&["--dry-run"][..], &["--dry-run", "--bodies-only"]] {
            let ended = run(&mut prune(&setup, flags));
            assert_eq!(ended.code, Some(0), "{ended:?}");
            let (first, rest) = ended.stdout.split_once('\n').unwrap();
            assert!(first.starts_with("would prune what arrived before "), "{}", ended.stdout);
            assert!(first.len() > said.len() && first.ends_with(": 5 callbacks"), "{first}");
            let would_go = rest.contains("notifications and messages would go too");
            assert_eq!(would_go, flags.len() == 1, "{rest}");
        }
    }
    assert_eq!((count(&setup.journal(), "callback"), dump(&open(&setup.state()))), (5, before));
    let ended = run(&mut prune(&setup, &[]));
    assert!(ended.stdout.contains(": 5 callbacks, 5 notifications"), "{ended:?}");
}
