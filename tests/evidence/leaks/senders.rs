//! A life in which our own senders call: `simulate` and `doctor` hold the token, and `simulate`
//! holds what people are called and what they wrote. Neither tells of it: not in its arguments,
//! which everybody on the machine can read, not in a report of any kind, and not where the receiver
//! holds something else than it should or repeats the token in its answers.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;
use rusqlite::Connection;

use super::super::scan::Secret;
use super::super::support::{
    PATH, SOURCE, Setup, holds_within, open, receiptd, run as run_to_its_end, source,
};
use super::{Canaries, Seen};

/// Messages of a simulation.
const MESSAGES: &str = "120";

/// Names, numbers and texts that are looked for, at most.
const PERSONAL_MAX: usize = 24;

/// Shorter ones could stand anywhere by chance.
const PERSONAL_CHARS_MIN: usize = 12;

impl Seen {
    /// The life of that number.
    pub(super) fn senders(&mut self, number: u32, chance: &mut ChaCha8Rng) {
        let token = Secret::new(&format!("canary-sender-{number}-{:012x}", chance.random::<u64>()));
        let setup = Setup::with_sources(&source(SOURCE, "gc-notify", &[("live", &token.text)]))
            .with("log", "level = \"trace\"\nformat = \"json\"");
        let server = setup.start();
        let elsewhere = tempfile::tempdir().expect("a temporary folder");
        let token_file = elsewhere.path().join("token");
        fs::write(&token_file, &token.text).expect("a file");
        let caller = Caller { address: server.callbacks, token: &token.text, folder: &setup };
        let seed = chance.random::<u32>().to_string();

        let junit = setup.path("simulate.xml");
        let junit_argument = format!("--junit={}", junit.display());
        let state = setup.state();
        let right = caller.simulate(&state, &seed, &["--format=json", &junit_argument]);
        server.settled();
        let other = a_state_that_differs(&setup, &elsewhere.path().join("other.db"));
        let token_argument = format!("--token-file={}", token_file.display());
        let wrong = caller.simulate(&other, &seed, &[&junit_argument, &token_argument]);
        if !wrong.text.contains("recipient differs") {
            self.problems.push(format!("no difference was reported: {}", wrong.text));
        }
        let format = ["--format=table", "--format=json", "--format=junit"][number as usize % 3];
        let doctor = caller.doctor(server.callbacks, format);
        let repeated = caller.doctor(echo(), format);

        let canaries = Canaries { tokens: vec![token.clone()], said: personal(&setup) };
        self.canaries += canaries.all().count() as u64;
        if canaries.said.len() < PERSONAL_MAX {
            self.problems.push(format!("only {} canaries of people", canaries.said.len()));
        }
        for (who, told) in [("simulate", right), ("simulate", wrong), ("doctor", doctor)] {
            self.look_at(&canaries, who, &told);
        }
        self.look_at(&canaries, "doctor beside a receiver that repeats everything", &repeated);
        self.look(&canaries, "metrics", server.metrics().as_bytes());
        self.look(&canaries, "what was printed", server.printed.as_bytes());
        self.databases(&canaries, &setup);
        server.stop();
        // The JUnit report and the log among them.
        self.folder(&canaries, &setup);
        if !junit.exists() {
            self.problems.push("simulate wrote no JUnit report".to_owned());
        }
    }

    fn look_at(&mut self, canaries: &Canaries, who: &str, told: &Told) {
        self.look(canaries, &format!("the arguments of {who}"), &told.arguments);
        self.look(canaries, &format!("what {who} printed"), told.text.as_bytes());
        let name = who.split(' ').next().unwrap_or(who);
        if !String::from_utf8_lossy(&told.arguments).contains(name) || told.text.is_empty() {
            let said: String = told.text.chars().take(200).collect();
            self.problems.push(format!("{who} was not heard: {said}"));
        }
    }
}

/// Who holds the token.
struct Caller<'c> {
    address: SocketAddr,
    token: &'c str,
    folder: &'c Setup,
}

/// What anybody can read of a process, and all it printed.
struct Told {
    arguments: Vec<u8>,
    text: String,
}

impl Caller<'_> {
    fn simulate(&self, state: &Path, seed: &str, more: &[&str]) -> Told {
        let url = format!("http://{}{PATH}", self.address);
        let mut command = self.receiptd(&["simulate", &url, "--provider", "gc-notify"]);
        command.args(["--count", MESSAGES, "--rate", "400", "--speed", "100000"]);
        command.args(["--seed", seed, "--verify-db"]).arg(state).args(more);
        self.listen(command)
    }

    fn doctor(&self, address: SocketAddr, format: &str) -> Told {
        let url = format!("http://{address}{PATH}");
        let mut command = self.receiptd(&["doctor", &url, "--provider", "gc-notify"]);
        command.args(["--patience", "1", format]);
        self.listen(command)
    }

    fn receiptd(&self, arguments: &[&str]) -> Command {
        receiptd(self.folder.folder.path(), arguments)
    }

    fn listen(&self, mut command: Command) -> Told {
        let has_file = command.get_args().any(|it| it.to_string_lossy().contains("token-file"));
        if !has_file {
            command.env("RECEIPTD_TOKEN", self.token);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("the binary can be run");
        let mut arguments = Vec::new();
        // For a moment after its start a process has none.
        holds_within(Duration::from_secs(1), || {
            arguments = fs::read(format!("/proc/{}/cmdline", child.id())).unwrap_or_default();
            !arguments.is_empty()
        });
        let ended = child.wait_with_output().expect("it can be waited for");
        let text = [ended.stdout, ended.stderr].concat();
        Told { arguments, text: String::from_utf8_lossy(&text).into_owned() }
    }
}

/// A copy of the state in which everybody is somebody else.
fn a_state_that_differs(setup: &Setup, copy: &Path) -> std::path::PathBuf {
    let (state, to) = (setup.state(), copy.to_str().expect("a path"));
    let state = state.to_str().expect("a path");
    let arguments = ["backup", "--db", state, to];
    let ended = run_to_its_end(&mut receiptd(setup.folder.path(), &arguments));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let other = Connection::open(copy).expect("the copy");
    let altered = other.execute_batch(
        "UPDATE notification_row SET recipient = 'somebody else', status = 'pending';
         UPDATE message_row SET message = 'something else', source_number = 'somebody else'",
    );
    altered.expect("the copy can be written");
    copy.to_owned()
}

/// What the callbacks say of people, as it stands in their bytes: the scanner knows other forms.
fn personal(setup: &Setup) -> Vec<Secret> {
    let journal = open(&setup.journal());
    let mut rows = journal.prepare("SELECT body FROM callback ORDER BY seq").expect("a journal");
    let bodies = rows.query_map([], |row| row.get::<_, Vec<u8>>(0)).expect("bodies");
    let mut found = std::collections::BTreeSet::new();
    for body in bodies.flatten() {
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(&body) else { continue };
        for key in ["to", "source_number", "message"] {
            let Some(text) = value[key].as_str() else { continue };
            let is_plain =
                text.bytes().all(|b| (b' '..=b'~').contains(&b) && !b"\"\\".contains(&b));
            if is_plain && text.len() >= PERSONAL_CHARS_MIN {
                found.insert(text.to_owned());
            }
        }
    }
    // Sorted by their first letter: every so manieth, so that numbers, names and texts are there.
    let step = (found.len() / PERSONAL_MAX).max(1);
    found.iter().step_by(step).take(PERSONAL_MAX).map(|text| Secret::new(text)).collect()
}

/// A receiver that takes nothing and answers with the whole of what it was sent, the token first, as
/// some frameworks do when they validate.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    // They end with the harness.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || repeat(stream));
        }
    });
    address
}

fn repeat(stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut seen, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        // The beginning of an answer is what is shown.
        let is_first = line.to_ascii_lowercase().starts_with("authorization:");
        seen.insert_str(if is_first { 0 } else { seen.len() }, &line);
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let head = "HTTP/1.1 422 Unprocessable Content\r\nconnection: close\r\ncontent-length:";
    let answer = format!("{head} {}\r\n\r\n{seen}", seen.len() + body.len());
    reader.get_mut().write_all(&[answer.as_bytes(), &body].concat())
}
