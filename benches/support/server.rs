//! The servers as child processes: started, asked, measured from outside, stopped.
//!
//! Of receiptd this assumes the flags in [`Bench::command`], the line that names the two
//! addresses on standard output, and the routes `/readyz` and `/settled` of its admin listener.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::alternatives::Prepared;
use super::common::Common;
use super::machine;
use super::receipt::{Ids, Reference, Request, SOURCE, bearer_sha256};
use super::slow_disk;

/// The first argument that makes this program the bare server.
pub const BARE_ROLE: &str = "serve-bare-hyper";
/// The first argument that makes this program the stand-in for receiptd.
pub const STAND_IN_ROLE: &str = "serve-stand-in";

/// The names of receiptd's files in a server's folder.
pub const STATE_FILE: &str = "receiptd.db";
/// See [`STATE_FILE`].
pub const JOURNAL_FILE: &str = "receiptd.callbacks.db";

/// The name of the database of what is not receiptd.
pub const ROWS_FILE: &str = "receipts.db";

/// How long a server may take to say where it listens, and one that does not say it to answer.
const START_MAX: Duration = Duration::from_secs(60);
/// Between two tries to be answered.
const TRY_PACE: Duration = Duration::from_millis(1);
/// How long one may take to stop when asked; then it is killed.
const STOP_MAX: Duration = Duration::from_secs(12);
/// How long settling what a run left behind may take.
const SETTLE_MAX: Duration = Duration::from_secs(180);

/// So much of a server's standard error is shown when something went wrong.
const LAST_WORDS_BYTES: usize = 2_000;

/// How to start either server.
pub struct Bench {
    receiptd: PathBuf,
    stand_in: bool,
    dir: PathBuf,
}

/// A running server and the folder with its files; dropping it ends both, the folder unless
/// somebody else holds it.
pub struct Server {
    child: Child,
    files: Arc<TempDir>,
    /// When its process was started.
    pub spawned: Instant,
    /// Where callbacks go.
    pub callbacks: SocketAddr,
    admin: Option<SocketAddr>,
    rows: Option<PathBuf>,
}

/// Memory of a process, in MiB.
#[derive(Clone, Copy, Default)]
pub struct Memory {
    /// Resident now.
    pub resident: f64,
    /// The most that was ever resident.
    pub peak: f64,
}

impl Bench {
    /// As the options say.
    pub fn new(common: &Common) -> io::Result<Self> {
        let built = || PathBuf::from(env!("CARGO_BIN_EXE_receiptd"));
        let receiptd = match (&common.receiptd, common.stand_in) {
            (_, true) => std::env::current_exe()?,
            (chosen, false) => chosen.clone().unwrap_or_else(built),
        };
        Ok(Self { receiptd, stand_in: common.stand_in, dir: common.dir.clone() })
    }

    /// What is measured against bare hyper, for the report.
    pub fn subject(&self) -> &'static str {
        if self.stand_in { "stand-in" } else { "receiptd" }
    }

    /// The binary that is measured.
    pub fn binary(&self) -> &Path {
        &self.receiptd
    }

    /// Starts the yardstick.
    pub fn bare(&self) -> io::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(BARE_ROLE);
        Server::start(command, self.files()?)
    }

    /// Starts receiptd on fresh files.
    pub fn receiptd(&self) -> io::Result<Server> {
        self.receiptd_on(&self.files()?, Duration::ZERO)
    }

    /// Starts receiptd on the files in that folder, every fsync taking so much longer.
    pub fn receiptd_on(&self, files: &Arc<TempDir>, fsync_delay: Duration) -> io::Result<Server> {
        let mut command = self.command();
        command.arg("--db").arg(state_file(files.path()));
        if fsync_delay > Duration::ZERO {
            slow_disk::delay(&mut command, files.path(), fsync_delay)?;
        }
        Server::start(command, Arc::clone(files))
    }

    /// Starts receiptd with what that configuration adds, on the files in that folder.
    pub fn receiptd_with(&self, files: &Arc<TempDir>, configuration: &str) -> io::Result<Server> {
        let mut command = self.configured(files, configuration)?;
        command.arg("--db").arg(state_file(files.path()));
        Server::start(command, Arc::clone(files))
    }

    /// Starts receiptd where that configuration says that it keeps nothing.
    pub fn relay(&self, configuration: &str) -> io::Result<Server> {
        let files = self.files()?;
        Server::start(self.configured(&files, configuration)?, files)
    }

    /// Starts receiptd with that configuration, sources and all, on the files in that folder.
    pub fn receiptd_of(&self, files: &Arc<TempDir>, configuration: &str) -> io::Result<Server> {
        let file = files.path().join("receiptd.toml");
        fs::write(&file, configuration)?;
        let mut command = self.serve();
        command.arg("--config").arg(file).arg("--db").arg(state_file(files.path()));
        Server::start(command, Arc::clone(files))
    }

    fn configured(&self, files: &Arc<TempDir>, configuration: &str) -> io::Result<Command> {
        let file = files.path().join("receiptd.toml");
        fs::write(&file, configuration)?;
        let mut command = self.command();
        command.arg("--config").arg(file);
        Ok(command)
    }

    fn serve(&self) -> Command {
        let mut command = Command::new(&self.receiptd);
        if self.stand_in {
            command.arg(STAND_IN_ROLE);
        }
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command
    }

    fn command(&self) -> Command {
        let mut command = self.serve();
        command.args(["--source", &format!("{SOURCE}=gc-notify")]);
        command.args(["--token-sha256", &bearer_sha256()]);
        command
    }

    /// Starts something else on the database in that folder, or on a fresh one there.
    pub fn alternative(&self, chosen: &Prepared, files: &Arc<TempDir>) -> io::Result<Server> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let db = files.path().join(ROWS_FILE);
        let mut server = Server::spawn(chosen.command(address.port(), &db)?, Arc::clone(files))?;
        (server.callbacks, server.rows) = (address, Some(db));
        Ok(server)
    }

    /// A new folder beside the throw-away databases, which goes when it is dropped.
    pub fn files(&self) -> io::Result<Arc<TempDir>> {
        fs::create_dir_all(&self.dir)?;
        tempfile::Builder::new().prefix("ingest-").tempdir_in(&self.dir).map(Arc::new)
    }
}

impl Server {
    /// Starts one that says where it listens.
    fn start(command: Command, files: Arc<TempDir>) -> io::Result<Self> {
        let mut server = Self::spawn(command, files)?;
        let line = server.listening_line()?;
        server.callbacks = address_in(&line, "callbacks=").ok_or_else(|| failed(&line))?;
        server.admin = address_in(&line, "admin=");
        Ok(server)
    }

    fn spawn(mut command: Command, files: Arc<TempDir>) -> io::Result<Self> {
        let ours = std::env::vars_os().map(|(name, _)| name);
        for name in ours.filter(|name| name.to_string_lossy().starts_with("RECEIPTD_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(File::create(files.path().join("stderr"))?);
        let spawned = Instant::now();
        let child = command.spawn()?;
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Ok(Self { child, files, spawned, callbacks: nowhere, admin: None, rows: None })
    }

    /// Sends one receipt, again and again until there is somebody to answer, and returns the time
    /// from the start of the process to its 204.
    pub fn first_acknowledged(
        &mut self,
        ids: &mut Ids,
        reference: Reference,
    ) -> io::Result<Duration> {
        let mut request = Request::new(self.callbacks, reference);
        request.renew(ids);
        while self.spawned.elapsed() < START_MAX && self.child.try_wait()?.is_none() {
            match status_of(self.callbacks, request.bytes(), START_MAX) {
                Ok(204) => return Ok(self.spawned.elapsed()),
                Ok(status) => return Err(failed(&format!("the first answer is {status}"))),
                Err(_) => thread::sleep(TRY_PACE),
            }
        }
        let said = self.last_words();
        Err(failed(&format!("the server never answered\n{said}")))
    }

    /// Waits for the line that names the addresses, and reads on so that the pipe never fills.
    fn listening_line(&mut self) -> io::Result<String> {
        let stdout = self.child.stdout.take().expect("it is piped");
        let (found, wait) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with("listening ") {
                    let _ = found.send(line);
                }
            }
        });
        wait.recv_timeout(START_MAX).map_err(|_| {
            let said = self.last_words();
            let exit = self.child.try_wait().ok().flatten();
            failed(&format!("no line `listening callbacks=…` from the server ({exit:?})\n{said}"))
        })
    }

    /// Whether it keeps what it acknowledges: the yardstick does not.
    pub fn settles(&self) -> bool {
        self.admin.is_some()
    }

    /// The database of a server that is not receiptd.
    pub fn rows_file(&self) -> Option<&Path> {
        self.rows.as_deref()
    }

    /// The state file.
    pub fn state_file(&self) -> PathBuf {
        state_file(self.files.path())
    }

    /// The journal file.
    pub fn journal_file(&self) -> PathBuf {
        self.files.path().join(JOURNAL_FILE)
    }

    /// Where the admin listener is, if there is one.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of what it wrote to standard error, for a run that went wrong.
    pub fn last_words(&self) -> String {
        let said = fs::read(self.files.path().join("stderr")).unwrap_or_default();
        String::from_utf8_lossy(&said[said.len().saturating_sub(LAST_WORDS_BYTES)..]).into_owned()
    }

    /// Its memory now.
    pub fn memory(&self) -> io::Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let mebibytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(kibibytes / 1024.0)
        };
        let read = || Some(Memory { resident: mebibytes("VmRSS:")?, peak: mebibytes("VmHWM:")? });
        read().ok_or_else(|| failed("no memory figures in /proc"))
    }

    /// Whether `/readyz` says yes.
    pub fn is_ready(&self) -> bool {
        self.ask("/readyz", Duration::from_secs(1)).is_ok_and(|status| status == 200)
    }

    /// Waits until everything acknowledged so far is settled.
    pub fn wait_until_settled(&self) -> io::Result<()> {
        self.wait_until_settled_within(SETTLE_MAX)
    }

    /// The same with another patience.
    pub fn wait_until_settled_within(&self, patience: Duration) -> io::Result<()> {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if self.ask("/settled?wait=60s", Duration::from_secs(70))? == 204 {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(failed("the backlog is not settled in time"))
    }

    /// The status of a GET on the admin listener.
    fn ask(&self, path: &str, patience: Duration) -> io::Result<u16> {
        let admin = self.admin.ok_or_else(|| failed("the server named no admin address"))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        status_of(admin, request.as_bytes(), patience)
    }

    /// Asks it to stop and waits for that.
    pub fn stop(mut self) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.ok_or_else(|| failed("no process id"))?, Signal::TERM)?;
        let until = Instant::now() + STOP_MAX;
        while Instant::now() < until {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Err(failed("the server did not stop when asked"))
    }
}

impl Drop for Server {
    /// Whatever happened, no child outlives the measurement.
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let children = machine::tree(self.child.id()).unwrap_or_default();
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in children.iter().skip(1).filter_map(|pid| i32::try_from(*pid).ok()) {
            let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
        }
    }
}

/// Sends one request on a connection of its own and reads the status of the answer.
pub fn status_of(server: SocketAddr, request: &[u8], patience: Duration) -> io::Result<u16> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(request)?;
    let mut status_line = [0; "HTTP/1.1 204".len()];
    stream.read_exact(&mut status_line)?;
    let status = std::str::from_utf8(&status_line[9..]).ok().and_then(|digits| digits.parse().ok());
    status.ok_or_else(|| failed("no HTTP status in the answer"))
}

fn state_file(folder: &Path) -> PathBuf {
    folder.join(STATE_FILE)
}

fn address_in(line: &str, name: &str) -> Option<SocketAddr> {
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(name))?;
    value.strip_prefix("http://")?.trim_end_matches('/').parse().ok()
}

fn failed(why: &str) -> io::Error {
    io::Error::other(why.to_owned())
}
