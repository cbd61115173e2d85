//! Real servers, found on this machine and run for one suite.
//!
//! A server runs in a temporary folder, on free ports, in a process group of its own, and is killed
//! with all its children when it is dropped. One that is not installed is [`Missing`]: its suite
//! says so and how to install it, and passes; under `RECEIPTD_TEST_SERVERS=required` it fails.

#![allow(dead_code, reason = "which kinds there are depends on the features")]

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::support::{PATIENCE, holds_within, say};

/// Where Debian puts servers beside `PATH`; `*` is any folder, the last in order first.
const PLACES: [&str; 6] = [
    "/usr/sbin",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/bin",
    "/usr/lib/postgresql/*/bin",
    "/usr/lib/rabbitmq/lib/*/sbin",
];

/// A program that is not on this machine.
#[derive(Debug)]
pub struct Missing {
    /// What.
    pub program: String,
    /// How to install it, as a command.
    pub install: &'static str,
}

/// Whether a missing server fails its suite.
pub fn is_required() -> bool {
    std::env::var("RECEIPTD_TEST_SERVERS").is_ok_and(|value| value == "required")
}

/// The started server; `None`, said aloud, if it is missing.
///
/// # Panics
/// If it is missing and required.
pub fn or_left_out<S>(suite: &str, started: Result<S, Missing>) -> Option<S> {
    match started {
        Ok(server) => Some(server),
        Err(Missing { program, install }) => {
            let text = format!("{suite}: {program} is not installed: {install}");
            assert!(!is_required(), "{text}");
            say(&format!("left out: {text}"));
            None
        }
    }
}

/// The program of that name on `PATH` or in the usual places.
///
/// # Errors
/// If it is in none of them; `install` is a command that helps.
pub fn find(program: &str, install: &'static str) -> Result<PathBuf, Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = PLACES.iter().flat_map(|place| spread(place));
    std::env::split_paths(&path)
        .chain(usual)
        .map(|folder| folder.join(program))
        .find(|file| {
            file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
        .ok_or_else(|| Missing { program: program.to_owned(), install })
}

/// The folders of a place with at most one `*`.
fn spread(place: &str) -> Vec<PathBuf> {
    let Some((before, after)) = place.split_once("/*/") else { return vec![place.into()] };
    let mut folders: Vec<PathBuf> = fs::read_dir(before)
        .map(|entries| entries.flatten().map(|entry| entry.path().join(after)).collect())
        .unwrap_or_default();
    folders.sort();
    folders.reverse();
    folders
}

/// A port nobody listens on. Free now; whoever wants it takes it soon.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An address of this machine.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A folder that other users may enter: some servers refuse to run as root.
pub fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("receiptd-server-").tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Whether we are root and so must run as somebody else what refuses to run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `program`, run as `user` if we are root.
pub fn as_user(user: &str, program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--init-groups");
    command.arg(program);
    command
}

/// Gives a folder and what is in it to `user`, if we are root.
pub fn give_to(user: &str, folder: &Path) {
    if is_root() {
        let status = Command::new("chown").arg("-R").arg(user).arg(folder).status().unwrap();
        assert!(status.success(), "chown {user}");
    }
}

/// Runs a command to its end; what it printed.
///
/// # Panics
/// If it fails, with everything it said.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}\n{errors}", output.status);
    said
}

/// A running server and its children; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts it in a process group of its own. What it says is appended to `log`.
    pub fn start(mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.process_group(0).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// Waits until `is_so`.
    ///
    /// # Panics
    /// If that takes too long or the server has ended, with what it said.
    pub fn wait_until(&mut self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE * 3;
        while !is_so() {
            let ended = self.child.try_wait().unwrap();
            let is_late = Instant::now() > deadline;
            assert!(ended.is_none() && !is_late, "not {what} ({ended:?}):\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it takes connections there.
    pub fn wait_for(&mut self, address: SocketAddr) {
        self.wait_until("listening", || is_listening(address));
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to end and waits for that.
    pub fn terminate(&mut self, signal: Signal) {
        let _ = kill_process_group(self.pid(), signal);
        let ended = holds_within(PATIENCE, || self.child.try_wait().unwrap().is_some());
        assert!(ended, "it did not end:\n{}", self.said());
    }

    /// Kills it and its children, as a crash would.
    pub fn kill(&mut self) {
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.child.wait();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether somebody takes connections there.
pub fn is_listening(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}
