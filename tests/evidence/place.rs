//! Where a receiver of the evidence stands: a folder for its configuration and its log, and its
//! database there or on a disk of its own. Starts the real binary as it is, under a tracer, or with a
//! library put before the system's.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::machine::root;
use super::support::{Client, Receiptd, SOURCE, Setup, TOKEN, receiptd, source};

/// How long a receiver may take to end: twice its own bound.
const END_MAX: Duration = Duration::from_secs(20);

const TICK: Duration = Duration::from_millis(5);

/// A receiver's folder.
pub struct Place {
    setup: Setup,
    disk: PathBuf,
}

impl Place {
    /// With its database in the folder itself.
    pub fn new() -> Self {
        let setup = setup();
        let disk = setup.folder.path().to_owned();
        Self { setup, disk }.stored("free_bytes_min = 0\nreserve_bytes = 0\n")
    }

    /// With its database on that disk, and these lines about it.
    pub fn on(disk: &Path, store: &str) -> Self {
        Self { setup: setup(), disk: disk.to_owned() }.stored(store)
    }

    fn stored(mut self, store: &str) -> Self {
        let store = format!("path = {:?}\n{store}", self.state());
        self.setup.sections.insert("store", store);
        self.setup.write();
        self
    }

    /// The same with these lines at the end of its configuration.
    pub fn with(mut self, lines: &str) -> Self {
        self.setup.sources.push_str(lines);
        self.setup.write();
        self
    }

    /// The folder of the configuration and the log.
    pub fn folder(&self) -> &Path {
        self.setup.folder.path()
    }

    /// The state file.
    pub fn state(&self) -> PathBuf {
        self.disk.join("receiptd.db")
    }

    /// The journal.
    pub fn journal(&self) -> PathBuf {
        self.disk.join("receiptd.callbacks.db")
    }

    /// Removes the state, as anyone may at any time while no receiver runs.
    pub fn delete_state(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let mut path = self.state().into_os_string();
            path.push(suffix);
            let _ = std::fs::remove_file(path);
        }
    }

    /// `receiptd` with these arguments and this configuration, in a process group of its own: a
    /// Ctrl-C is for the harness, which ends its children itself.
    pub fn receiptd(&self, arguments: &[&str]) -> Command {
        let mut command = receiptd(self.folder(), arguments);
        command.arg("--config").arg(self.folder().join("receiptd.toml")).process_group(0);
        command
    }

    /// The receiver, until it listens.
    pub fn start(&self) -> Result<Receiptd, String> {
        self.start_as(self.receiptd(&["serve"]))
    }

    /// As [`Place::start`], of a command that is whole already.
    pub fn start_as(&self, mut command: Command) -> Result<Receiptd, String> {
        command.process_group(0);
        Receiptd::try_start_command(self.folder(), command)
    }

    /// A command that is not waited for, its output dropped.
    pub fn spawn(&self, arguments: &[&str]) -> Running {
        let mut command = self.receiptd(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Running::start(&mut command).expect("the binary can be run")
    }

    /// Whether both files are sound and the state is what the journal says.
    pub fn check_db(&self) -> Result<(), String> {
        let ended = self.receiptd(&["check-db"]).output().map_err(|error| error.to_string())?;
        let [out, err] = [&ended.stdout, &ended.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        let said = || format!("check-db: {}\n{out}{err}", ended.status);
        if ended.status.success() { Ok(()) } else { Err(said()) }
    }

    /// What the receivers in this folder have logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("stderr.txt")).unwrap_or_default()
    }
}

fn setup() -> Setup {
    let folder = tempfile::tempdir_in(root()).expect("the temporary folder can be written");
    let sources = source(SOURCE, "gc-notify", &[("live", TOKEN)]);
    Setup { folder, sections: std::collections::BTreeMap::new(), sources }
}

/// The status of an admin request; nothing if nobody answers.
pub fn ask(admin: SocketAddr, path: &str) -> Option<u16> {
    let mut client = Client::try_connect(admin).ok()?;
    client.try_send(format!("GET {path} HTTP/1.1\r\nhost: admin\r\n\r\n")).ok()?;
    client.try_answer().ok().flatten().map(|answer| answer.status)
}

/// Waits for its end; the exit code, if it was not a signal. The time is counted in short sleeps, so
/// that a machine that stood still for a minute is not taken for a receiver that hangs.
pub fn exit_code(receiver: &mut Receiptd) -> Result<Option<i32>, String> {
    for _ in 0..END_MAX.as_millis() / TICK.as_millis() {
        if let Some(status) = receiver.ended() {
            return Ok(status.code());
        }
        std::thread::sleep(TICK);
    }
    Err(format!("it did not end within {END_MAX:?}; its threads wait in:{}", waits(receiver)))
}

/// Where in the kernel each thread is.
fn waits(receiver: &Receiptd) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", receiver.pid()));
    let tasks = tasks.into_iter().flatten().flatten().map(|task| task.path());
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    tasks
        .map(|task| {
            let (name, waits) = (read(task.join("comm")), read(task.join("wchan")));
            format!(" {} in {waits};", name.trim_end())
        })
        .collect()
}

/// A process that is killed when dropped.
pub struct Running(Child);

impl Running {
    /// Starts it.
    pub fn start(command: &mut Command) -> Result<Self, String> {
        command.spawn().map(Self).map_err(|error| format!("{command:?}: {error}"))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// `kill -9`, and waits; whether it ran until then.
    pub fn kill(&mut self) -> bool {
        let was_running = self.is_running();
        let _ = self.0.kill();
        let _ = self.0.wait();
        was_running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
