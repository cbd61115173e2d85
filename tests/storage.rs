//! Disks that are full, and disks that fail: no 2xx is ever false, nothing stored is harmed.
//!
//! These need what not every machine allows (a small tmpfs to mount, strace). Where that is
//! missing a test says so past the harness's capture, and passes.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use receiptd::journal::free_bytes;
use support::{
    Client, PATH, Receiptd, Setup, TOKEN, eventually, holds_within, metric, open, post, receipt,
    receiptd, rows, run, say,
};

/// A small file system of its own; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    /// Nothing, and a word about it, where that is not permitted.
    fn mount(folder: &Path, mebibytes: u32) -> Option<Self> {
        let path = folder.join("disk");
        fs::create_dir(&path).unwrap();
        let size = format!("size={mebibytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "receiptd-test"]).arg(&path);
        let is_mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if !is_mounted {
            say("SKIPPED: a full disk cannot be tried here, because mounting is not permitted");
        }
        is_mounted.then_some(Self(path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A receiver whose database stands on `disk`.
fn setup_on(disk: &Disk, free_bytes_min: u64, reserve_bytes: u64) -> Setup {
    let mut setup = Setup::new();
    let store = format!(
        "path = {:?}\nfree_bytes_min = {free_bytes_min}\nreserve_bytes = {reserve_bytes}\n",
        disk.0.join("receiptd.db")
    );
    setup.sections.insert("store", store);
    setup
}

fn state_on(disk: &Disk) -> PathBuf {
    disk.0.join("receiptd.db")
}

fn journal_on(disk: &Disk) -> PathBuf {
    disk.0.join("receiptd.callbacks.db")
}

/// A callback of a good ten kilobytes.
fn large(id: &str) -> String {
    receipt(id).replacen('{', &format!(r#"{{"padding": "{}", "#, "x".repeat(10_000)), 1)
}

/// Posts until one is refused; what was acknowledged, and the answer that refused.
fn fill(server: &Receiptd, name: &str) -> (BTreeSet<String>, u16) {
    let mut client = server.connect();
    let mut acknowledged = BTreeSet::new();
    for index in 0..10_000 {
        let id = format!("{name}-{index}");
        let status = client.ask(post(PATH, TOKEN, large(&id))).status;
        if status != 204 {
            return (acknowledged, status);
        }
        acknowledged.insert(id);
    }
    panic!("the disk never filled");
}

fn kept(disk: &Disk) -> BTreeSet<String> {
    let ids = "SELECT json_extract(CAST(body AS TEXT), '$.id') FROM callback";
    rows(&open(&journal_on(disk)), ids).into_iter().collect()
}

#[test]
fn callbacks_are_refused_before_the_disk_is_full_and_served_again_after() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(folder.path(), 16) else { return };
    let setup = setup_on(&disk, 3 << 20, 1 << 20);
    let server = setup.start();
    assert_eq!(server.post(receipt("first")), 204);
    let ballast = disk.0.join("ballast");
    fs::write(&ballast, vec![0; 6 << 20]).unwrap();
    let (mut acknowledged, status) = fill(&server, "a");
    assert_eq!(status, 503);
    assert!(acknowledged.len() > 10, "{}", acknowledged.len());
    acknowledged.insert("first".to_owned());
    // Early enough: it was not the disk that refused.
    assert!(!server.stderr().contains("the disk is full"), "{}", server.stderr());
    let ready = server.admin("/readyz");
    assert_eq!((ready.status, ready.text().as_str()), (503, "low on disk space\n"));
    assert_eq!(metric(&server.metrics(), "receiptd_ready"), Some(0.0));
    fs::remove_file(&ballast).unwrap();
    let since = Instant::now();
    eventually("it serves again", || server.post(receipt("again")) == 204);
    assert!(since.elapsed() < Duration::from_secs(30));
    assert_eq!(server.admin("/readyz").status, 200);
    acknowledged.insert("again".to_owned());
    server.settled();
    let settled: BTreeSet<_> =
        rows(&open(&state_on(&disk)), "SELECT id FROM notification").into_iter().collect();
    assert_eq!(settled, acknowledged);
    server.stop();
    assert_eq!(kept(&disk), acknowledged);
    for path in [journal_on(&disk), state_on(&disk)] {
        assert_eq!(rows(&open(&path), "PRAGMA integrity_check"), ["ok"]);
    }
}

#[test]
fn what_is_pruned_makes_room_on_a_disk_that_stays_full() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(folder.path(), 128) else { return };
    // So much that pruning has room for the logs.
    let setup = setup_on(&disk, 64 << 20, 1 << 20);
    let server = setup.start();
    // Another each time: a repeat of what is settled is answered 204 on a full disk too.
    let mut number = 0;
    let mut is_served = || {
        number += 1;
        server.post(receipt(&format!("more-{number}"))) == 204
    };
    // Cutting the log makes room by itself, for a while.
    for round in 0.. {
        assert_eq!(fill(&server, &format!("{round}")).1, 503);
        if !holds_within(Duration::from_secs(2), &mut is_served) {
            break;
        }
    }
    let path = setup.path("receiptd.toml");
    let arguments = ["prune", "--config", path.to_str().unwrap(), "--older-than", "1s"];
    let pruned = run(&mut receiptd(folder.path(), &arguments));
    assert_eq!(pruned.code, Some(0), "{pruned:?}");
    // What the logs gave back others take.
    let free_bytes = || usize::try_from(free_bytes(&disk.0).unwrap()).unwrap();
    let too_little = 56 << 20;
    fs::write(disk.0.join("ballast"), vec![0; free_bytes().saturating_sub(too_little)]).unwrap();
    assert!(holds_within(Duration::from_secs(10), &mut is_served), "{}", server.stderr());
    assert!(free_bytes() <= too_little);
    assert_eq!(server.admin("/readyz").status, 200);
}

#[test]
fn a_disk_that_others_fill_costs_no_acknowledged_callback() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(folder.path(), 12) else { return };
    // Nothing is refused early here: the disk itself has to say no.
    let setup = setup_on(&disk, 0, 1 << 20);
    let mut server = setup.start();
    let (mut acknowledged, status) = fill(&server, "a");
    assert_eq!(status, 503);
    assert!(acknowledged.len() > 50, "{}", acknowledged.len());
    assert_eq!(server.admin("/livez").status, 200, "{}", server.stderr());
    // A crash of a full disk is the worst moment to start again.
    server.kill();
    disk.grow();
    let server = setup.start();
    let is_served = || server.post(receipt("again")) == 204;
    assert!(holds_within(Duration::from_secs(30), is_served), "{}", server.stderr());
    acknowledged.insert("again".to_owned());
    server.settled();
    let kept = kept(&disk);
    let lost: Vec<_> = acknowledged.difference(&kept).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(rows(&open(&journal_on(&disk)), "PRAGMA integrity_check"), ["ok"]);
}

impl Disk {
    /// More space, as if somebody had removed something.
    fn grow(&self) {
        let mut mount = Command::new("mount");
        mount.args(["-o", "remount,size=64m"]).arg(&self.0);
        assert!(mount.status().unwrap().success());
    }
}

/// A receiver under strace, which fails the calls of that expression.
fn start_injected(setup: &Setup, inject: &str) -> Option<Receiptd> {
    let strace = |arguments: &[&str]| {
        let mut command = Command::new("strace");
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    if !strace(&["-f", "-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success()) {
        say("SKIPPED: a failing disk cannot be tried here, because strace is missing or forbidden");
        return None;
    }
    let config = setup.write();
    let plain = receiptd(setup.folder.path(), &["serve", "--config"]);
    let mut command = Command::new("strace");
    // -D: the receiver is our child, and strace its companion.
    command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", inject]);
    command.arg(plain.get_program()).args(plain.get_args()).arg(config);
    for (name, value) in plain.get_envs() {
        assert_eq!(value, None);
        command.env_remove(name);
    }
    command.current_dir(setup.folder.path());
    Some(Receiptd::start_command(setup.folder.path(), command))
}

/// Posts one callback after the other until nobody is there; what was acknowledged.
fn post_until_gone(server: &Receiptd) -> (Vec<String>, usize) {
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    for index in 0..200 {
        let Ok(_) = std::net::TcpStream::connect(server.callbacks) else { break };
        let Ok(mut client) = std::panic::catch_unwind(|| Client::connect(server.callbacks)) else {
            break;
        };
        let id = format!("n{index}");
        let sent = client.try_send(post(PATH, TOKEN, receipt(&id)));
        match sent.and_then(|()| client.try_answer()) {
            Ok(Some(answer)) if answer.status == 204 => acknowledged.push(id),
            Ok(Some(answer)) => {
                assert_eq!(answer.status, 503);
                refused += 1;
            }
            Ok(None) | Err(_) => {}
        }
    }
    (acknowledged, refused)
}

#[test]
fn a_failed_fsync_is_never_acknowledged_and_ends_the_process() {
    // Counted by thread; the first few of an existing database belong to its start.
    for when in [4, 5, 6, 7, 15] {
        let setup = Setup::new();
        setup.start().stop();
        let inject = format!("inject=fsync,fdatasync:error=EIO:when={when}+");
        let Some(mut server) = start_injected(&setup, &inject) else { return };
        let (acknowledged, _) = post_until_gone(&server);
        assert_eq!(server.wait(Duration::from_secs(20)), Some(74), "{}", server.stderr());
        assert!(acknowledged.len() < 200, "the fault was never met");
        assert!(server.stderr().contains("nothing more is accepted"), "{}", server.stderr());
        let healthy = setup.start();
        healthy.settled();
        let settled: BTreeSet<_> =
            rows(&open(&setup.state()), "SELECT id FROM notification").into_iter().collect();
        let lost: Vec<_> = acknowledged.iter().filter(|id| !settled.contains(*id)).collect();
        assert!(lost.is_empty(), "{when}: {lost:?}");
        assert_eq!(healthy.post(receipt("later")), 204);
    }
}
