//! The servers as child processes: started, asked, measured from outside, stopped.
//!
//! Of receiptd this assumes the flags in [`Bench::receiptd`], the line that names the two
//! addresses on standard output, and the routes `/readyz` and `/settled` of its admin listener.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::options::Options;
use super::receipt::{SOURCE, bearer_sha256};

/// The first argument that makes this program the bare server.
pub const BARE_ROLE: &str = "serve-bare-hyper";
/// The first argument that makes this program the stand-in for receiptd.
pub const STAND_IN_ROLE: &str = "serve-stand-in";

/// How long a server may take to say where it listens.
const START_MAX: Duration = Duration::from_secs(10);
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

/// A running server and the folder with its files; dropping it ends both.
pub struct Server {
    child: Child,
    files: TempDir,
    /// When its process was started.
    pub spawned: Instant,
    /// Where callbacks go.
    pub callbacks: SocketAddr,
    admin: Option<SocketAddr>,
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
    pub fn new(options: &Options) -> io::Result<Self> {
        let built = || PathBuf::from(env!("CARGO_BIN_EXE_receiptd"));
        let receiptd = match (&options.receiptd, options.stand_in) {
            (_, true) => std::env::current_exe()?,
            (chosen, false) => chosen.clone().unwrap_or_else(built),
        };
        Ok(Self { receiptd, stand_in: options.stand_in, dir: options.dir.clone() })
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
        let files = self.files()?;
        let mut command = Command::new(&self.receiptd);
        if self.stand_in {
            command.arg(STAND_IN_ROLE);
        }
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.arg("--db").arg(state_file(files.path()));
        command.args(["--source", &format!("{SOURCE}=gc-notify")]);
        command.args(["--token-sha256", &bearer_sha256()]);
        Server::start(command, files)
    }

    fn files(&self) -> io::Result<TempDir> {
        fs::create_dir_all(&self.dir)?;
        tempfile::Builder::new().prefix("ingest-").tempdir_in(&self.dir)
    }
}

impl Server {
    fn start(mut command: Command, files: TempDir) -> io::Result<Self> {
        let ours = std::env::vars_os().map(|(name, _)| name);
        for name in ours.filter(|name| name.to_string_lossy().starts_with("RECEIPTD_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(File::create(files.path().join("stderr"))?);
        let spawned = Instant::now();
        let child = command.spawn()?;
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server = Self { child, files, spawned, callbacks: nowhere, admin: None };
        let line = server.listening_line()?;
        server.callbacks = address_in(&line, "callbacks=").ok_or_else(|| failed(&line))?;
        server.admin = address_in(&line, "admin=");
        Ok(server)
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

    /// The state file.
    pub fn state_file(&self) -> PathBuf {
        state_file(self.files.path())
    }

    /// The journal file.
    pub fn journal_file(&self) -> PathBuf {
        self.files.path().join("receiptd.callbacks.db")
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
        let until = Instant::now() + SETTLE_MAX;
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
        let _ = self.child.kill();
        let _ = self.child.wait();
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
    folder.join("receiptd.db")
}

fn address_in(line: &str, name: &str) -> Option<SocketAddr> {
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(name))?;
    value.strip_prefix("http://")?.trim_end_matches('/').parse().ok()
}

fn failed(why: &str) -> io::Error {
    io::Error::other(why.to_owned())
}
