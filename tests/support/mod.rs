//! What the end-to-end tests share: the real binary as a child process, HTTP as it goes over the
//! wire, and the two databases as an app beside the receiver would read them.
//!
//! Nothing here sleeps for a fixed time and hopes: [`eventually`] asks again until a deadline, and
//! `/settled` is the barrier between what was acknowledged and what can be read.

#![allow(dead_code, reason = "each suite uses its own part of it")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use rustix::process::{Pid, Signal};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// The longest that anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The bearer of [`Setup::new`]'s source.
pub const TOKEN: &str = "a-bearer-for-tests-0123456789";

/// The source, and its path, of [`Setup::new`].
pub const SOURCE: &str = "passport";

/// The path of [`SOURCE`].
pub const PATH: &str = "/callbacks/passport";

/// A folder, and a configuration in it, for one receiver at a time.
pub struct Setup {
    pub folder: TempDir,
    /// Top-level keys, then sections: what stands in the file.
    pub sections: BTreeMap<&'static str, String>,
    pub sources: String,
}

impl Setup {
    /// One source of GC Notify with one token.
    pub fn new() -> Self {
        Self::with_sources(&source(SOURCE, "gc-notify", &[("live", TOKEN)]))
    }

    pub fn with_sources(sources: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = format!(
            "path = {:?}\nfree_bytes_min = 0\nreserve_bytes = 0\n",
            folder.path().join("receiptd.db")
        );
        let sections = BTreeMap::from([("store", store)]);
        Self { folder, sections, sources: sources.to_owned() }
    }

    /// The same with these lines in that section.
    pub fn with(mut self, section: &'static str, lines: &str) -> Self {
        let text = self.sections.entry(section).or_default();
        text.push_str(lines);
        text.push('\n');
        self
    }

    /// The same with these bounds.
    pub fn limits(self, lines: &str) -> Self {
        self.with("limits", lines)
    }

    /// The same with that much free space asked for.
    pub fn free_bytes_min(mut self, bytes: u64) -> Self {
        let store = self.sections.get_mut("store").unwrap();
        *store = store.replace("free_bytes_min = 0", &format!("free_bytes_min = {bytes}"));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("receiptd.db")
    }

    pub fn journal(&self) -> PathBuf {
        self.path("receiptd.callbacks.db")
    }

    /// Writes the configuration as it is now.
    pub fn write(&self) -> PathBuf {
        let path = self.path("receiptd.toml");
        let mut text = String::from("listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n");
        for (section, lines) in &self.sections {
            text.push_str(&format!("[{section}]\n{lines}"));
        }
        text.push_str(&self.sources);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs `receiptd serve` with the configuration as it is now.
    pub fn start(&self) -> Receiptd {
        let config = self.write();
        Receiptd::start(self.folder.path(), |command| {
            command.arg("--config").arg(config);
        })
    }

    /// Rows of the journal, from the outside.
    pub fn callbacks(&self) -> i64 {
        count(&self.journal(), "callback")
    }
}

/// A source in the configuration file.
pub fn source(name: &str, provider: &str, tokens: &[(&str, &str)]) -> String {
    let mut text = format!("[[source]]\nname = \"{name}\"\nprovider = \"{provider}\"\n");
    for (label, bearer) in tokens {
        let sha256 = sha256_hex(bearer.as_bytes());
        text.push_str(&format!("[[source.token]]\nlabel = \"{label}\"\nsha256 = \"{sha256}\"\n"));
    }
    text
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

/// A running `receiptd serve`; killed when dropped.
pub struct Receiptd {
    child: Guard,
    pub callbacks: SocketAddr,
    pub admin: SocketAddr,
    /// What it printed until it was ready.
    pub printed: String,
    stderr: PathBuf,
}

/// How a process ended, and what it had said.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// `receiptd` with these arguments, in that folder, without any setting from outside.
pub fn receiptd(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_receiptd"));
    without_settings(&mut command).args(arguments).current_dir(folder);
    command
}

fn without_settings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RECEIPTD_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs to its end a command that is expected to end by itself.
pub fn run(command: &mut Command) -> Ended {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Guard(child.spawn().unwrap());
    let mut stdout = child.0.stdout.take().unwrap();
    let mut stderr = child.0.stderr.take().unwrap();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text).unwrap_or_default()
    });
    let watching = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text).unwrap_or_default()
    });
    let status = wait(&mut child.0, PATIENCE).expect("the command did not end");
    Ended { code: status.code(), stdout: watching.join().unwrap(), stderr: reading.join().unwrap() }
}

struct Guard(Child);

impl Guard {
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end();
    }
}

fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Receiptd {
    /// Runs `receiptd serve`, with whatever `prepare` adds, until it says that it listens.
    pub fn start(folder: &Path, prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = receiptd(folder, &["serve"]);
        prepare(&mut command);
        Self::start_command(folder, command)
    }

    /// As [`Receiptd::start`], of a command that is whole already (under a tracer, say).
    pub fn start_command(folder: &Path, command: Command) -> Self {
        Self::try_start_command(folder, command).unwrap_or_else(|said| panic!("{said}"))
    }

    /// The same; what was said instead, if it does not start.
    pub fn try_start_command(folder: &Path, mut command: Command) -> Result<Self, String> {
        let stderr = folder.join("stderr.txt");
        // Appended, so that a second run in the folder does not hide what the first one said.
        let log = File::options().create(true).append(true).open(&stderr).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = Guard(child.spawn().unwrap());
        let stdout = child.0.stdout.take().unwrap();
        let (tell, told) = mpsc::channel();
        // Reads on after the start, so that the child never waits for us.
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines();
            lines.map_while(Result::ok).try_for_each(|line| tell.send(line)).ok()
        });
        let mut printed = String::new();
        let deadline = Instant::now() + PATIENCE;
        let line = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = told.recv_timeout(left) else {
                let said = std::fs::read_to_string(&stderr).unwrap_or_default();
                return Err(format!("it did not start: {printed}\n{said}"));
            };
            printed.push_str(&line);
            printed.push('\n');
            if line.starts_with("listening ") {
                break line;
            }
        };
        let address = |key: &str| {
            let word = line.split(' ').find_map(|word| word.strip_prefix(key)).unwrap();
            word.rsplit('/').next().unwrap().parse().unwrap()
        };
        let (callbacks, admin) = (address("callbacks="), address("admin="));
        Ok(Self { child, callbacks, admin, printed, stderr })
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child.0)
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// `kill -9`, and waits for its end.
    pub fn kill(&mut self) {
        self.child.end();
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.0.try_wait().unwrap()
    }

    /// Waits for its end; the exit code, if it was not a signal.
    pub fn wait(&mut self, patience: Duration) -> Option<i32> {
        wait(&mut self.child.0, patience).expect("it did not end in time").code()
    }

    /// SIGTERM; it must end well.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.wait(PATIENCE), Some(0), "{}", self.stderr());
    }

    /// Everything that was written to standard error in its folder so far.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.callbacks)
    }

    /// One request on a connection of its own.
    pub fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        self.connect().ask(request)
    }

    /// Posts a body as the source of [`Setup::new`]; the status of the answer.
    pub fn post(&self, body: impl AsRef<[u8]>) -> u16 {
        self.ask(post(PATH, TOKEN, body)).status
    }

    /// Asks the admin listener.
    pub fn admin(&self, path: &str) -> Answer {
        Client::connect(self.admin).ask(format!("GET {path} HTTP/1.1\r\nhost: admin\r\n\r\n"))
    }

    /// Waits until everything acknowledged is settled.
    pub fn settled(&self) {
        let answer = self.admin("/settled?wait=20s");
        assert_eq!(answer.status, 204, "{}", self.stderr());
    }

    pub fn metrics(&self) -> String {
        self.admin("/metrics").text()
    }
}

/// A callback as the platforms send it.
pub fn post(path: &str, token: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    post_with(path, format!("authorization: Bearer {token}\r\n"), body)
}

/// A POST with these header lines beside those that every request needs.
pub fn post_with(path: &str, lines: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut request = format!("POST {path} HTTP/1.1\r\nhost: receiver\r\n").into_bytes();
    request.extend_from_slice(lines.as_ref());
    request.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    request.extend_from_slice(body);
    request
}

/// A delivery receipt of its own notification.
pub fn receipt(id: &str) -> String {
    receipt_of(id, "delivered", "2026-11-22T10:00:01.000000Z")
}

/// A delivery receipt with that status, reached then.
pub fn receipt_of(id: &str, status: &str, completed_at: &str) -> String {
    format!(
        r#"{{"id": "{id}", "reference": "ref-{id}", "to": "someone@example.ca", "status": "{status}", "created_at": "2026-11-22T10:00:00.000000Z", "completed_at": "{completed_at}", "sent_at": null, "notification_type": "email"}}"#
    )
}

trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// One connection, and what was read from it beyond the last answer.
pub struct Client {
    stream: Box<dyn Stream>,
    socket: TcpStream,
    read: Vec<u8>,
}

/// An answer as it came over the wire.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let first = found.next();
        assert_eq!(found.next(), None, "{name} stands there twice");
        first
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: Box::new(socket.try_clone()?), socket, read: Vec::new() })
    }

    /// The same connection, seen through `wrap` (TLS, say).
    pub fn through<S: Read + Write + Send + 'static>(
        self,
        wrap: impl FnOnce(TcpStream) -> S,
    ) -> Self {
        let inner = self.socket.try_clone().unwrap();
        Self { stream: Box::new(wrap(inner)), ..self }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request);
        self.answer()
    }

    pub fn answer(&mut self) -> Answer {
        self.try_answer().unwrap().expect("the connection ended without an answer")
    }

    /// The next answer; nothing if the other side ended the connection before one began.
    pub fn try_answer(&mut self) -> io::Result<Option<Answer>> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at;
            }
            if self.fill()? == 0 {
                let cut = io::Error::new(io::ErrorKind::UnexpectedEof, "an answer was cut short");
                return if self.read.is_empty() { Ok(None) } else { Err(cut) };
            }
        };
        let head = String::from_utf8(self.read[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.map_or(0, |(_, length)| length.parse().unwrap());
        self.read.drain(..end + 4);
        while self.read.len() < length {
            assert_ne!(self.fill()?, 0, "a body was cut short");
        }
        let body = self.read.drain(..length).collect();
        Ok(Some(Answer { status, headers, body }))
    }

    /// Waits until the other side ends the connection; whether it did so before `patience` was
    /// over, with an end of file rather than a reset.
    pub fn ends_within(&mut self, patience: Duration) -> bool {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let ended = loop {
            match self.fill() {
                Ok(0) => break true,
                Ok(_) => {}
                Err(_) => break false,
            }
        };
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        ended
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 16 << 10];
        let count = self.stream.read(&mut bytes)?;
        self.read.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

/// A read-only connection, as an app beside the receiver would open it.
pub fn open(path: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection
}

pub fn count(path: &Path, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    open(path).query_row(&sql, [], |row| row.get(0)).unwrap()
}

/// What a query gives, one text a row, columns set apart by `|`.
pub fn rows(connection: &Connection, sql: &str) -> Vec<String> {
    use rusqlite::types::ValueRef;
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let text = |value: ValueRef<'_>| match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(bytes) => data_encoding::HEXLOWER.encode(bytes),
    };
    let rows = statement.query_map([], |row| {
        (0..columns).map(|column| row.get_ref(column).map(text)).collect::<Result<Vec<_>, _>>()
    });
    rows.unwrap().map(|row| row.unwrap().join("|")).collect()
}

/// Every row of every table that settling writes: two states are equal exactly if these are.
pub fn dump(connection: &Connection) -> Vec<String> {
    let tables = [
        "notification_row",
        "message_row",
        "history_row",
        "message_history_row",
        "unrecognised",
        "expected_row",
    ];
    let all = tables.iter().flat_map(|table| {
        let all = rows(connection, &format!("SELECT * FROM {table} ORDER BY 1, 2, 3"));
        all.into_iter().map(move |row| format!("{table}: {row}"))
    });
    all.collect()
}

/// Asks until it is so; fails after [`PATIENCE`].
pub fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    assert!(holds_within(PATIENCE, is_so), "not within {PATIENCE:?}: {what}");
}

pub fn holds_within(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// The value of one series, by the text before it.
pub fn metric(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Past the capture of the test harness: what nobody may overlook, such as a test that did not run.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// SplitMix64: the same seed, the same chances everywhere.
pub struct Chance(u64);

impl Chance {
    /// From `RECEIPTD_TEST_SEED`, or from the moment; printed, so that a failure can be repeated.
    pub fn new() -> Self {
        let given = std::env::var("RECEIPTD_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = given.unwrap_or_else(|| {
            let moment = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
            u64::try_from(moment & u128::from(u64::MAX)).unwrap()
        });
        #[expect(clippy::print_stderr, reason = "shown with the failure of a test")]
        {
            eprintln!("RECEIPTD_TEST_SEED={seed}");
        }
        Self(seed)
    }

    /// The sequence of that seed.
    pub fn of_seed(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
