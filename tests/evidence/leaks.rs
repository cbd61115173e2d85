//! Promise 11: secrets and personal data leak nowhere.
//!
//! A receiver lives a whole life at its most talkative, over plain HTTP and over TLS: callbacks
//! that are understood and that are not, callers that are refused for every reason, a bad
//! configuration on SIGHUP, pruning through its control file, every command that prints. Each
//! canary is made anew for the round. Then our own senders live one: see [`senders`]. Nothing that was printed, logged, measured, answered or
//! written holds one, but the columns of the two databases that are there for it; tokens stand in
//! no file at all.
//!
//! Not reached from outside: a panic while settling. A test of `settle` holds that.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};
use receiptd::client::{self, Client, Options, Target};
use rustix::process::Signal;

mod senders;

use super::Promise;
use super::report::{Control, Found};
use super::scan::{Secret, files};
use super::support::{
    PATH, Receiptd, SOURCE, Setup, holds_within, open, post, post_with, receiptd, rows,
    run as run_to_its_end, source,
};

/// What is promised.
pub const PROMISE: Promise = Promise {
    name: "leaks",
    number: 11,
    claim: "Secrets and personal data leak nowhere",
    needs_root: false,
    needs: &[],
    rounds: (40, 4),
    run,
};

/// Tables of the state whose columns hold what callbacks say.
const MEANT_FOR_THEM: [&str; 5] =
    ["callback", "notification_row", "message_row", "history_row", "message_history_row"];

/// What must not be seen.
struct Canaries {
    /// The bearer in force, and others that are shown: they stand in no file at all.
    tokens: Vec<Secret>,
    /// What callbacks say: in its columns only.
    said: Vec<Secret>,
}

impl Canaries {
    fn new(number: u32, chance: &mut ChaCha8Rng) -> Self {
        let mut fresh = |what: &str| {
            Secret::new(&format!("canary-{what}-{number}-{:012x}", chance.random::<u64>()))
        };
        let tokens = ["bearer", "wrong", "query", "header", "path", "in-config"].map(&mut fresh);
        let said = ["address", "number", "text", "reference", "unknown", "id"].map(&mut fresh);
        Self { tokens: tokens.into(), said: said.into() }
    }

    fn token(&self, at: usize) -> &str {
        &self.tokens[at].text
    }

    fn all(&self) -> impl Iterator<Item = &Secret> {
        self.tokens.iter().chain(&self.said)
    }

    /// Callbacks of every kind, understood and not.
    fn bodies(&self) -> Vec<String> {
        let [address, number, text, reference, unknown, id] =
            [0, 1, 2, 3, 4, 5].map(|at| self.said[at].text.as_str());
        let receipt = format!(
            r#"{{"id": "{id}", "reference": "{reference}", "to": "{address}@example.ca", "status": "delivered", "status_description": "{text}", "provider_response": "{unknown}", "created_at": "2026-11-22T10:00:00.000000Z", "completed_at": "2026-11-22T10:00:01.000000Z", "sent_at": null, "notification_type": "email"}}"#
        );
        vec![
            receipt.clone(),
            receipt.clone(),
            receipt.replace("delivered", unknown),
            receipt.replace("2026-11-22T10:00:01.000000Z", unknown),
            receipt[..receipt.len() - 9].to_owned(),
            format!(
                r#"{{"id": "m-{id}", "source_number": "{number}", "destination_number": "{number}", "message": "{text}", "date_received": "2026-11-22T10:00:00.000000Z"}}"#
            ),
            format!(r#"{{"{unknown}": "{text}"}}"#),
            format!("[{unknown:?}]"),
            unknown.to_owned(),
        ]
    }

    /// Requests that are refused, for every reason there is.
    fn refused(&self) -> Vec<Vec<u8>> {
        let body = self.bodies().remove(0);
        let bearer = self.token(0);
        let auth = format!("authorization: Bearer {bearer}\r\n");
        let mut method = post(PATH, bearer, &body);
        method.splice(..4, *b"DELETE");
        vec![
            post(PATH, self.token(1), &body),
            post_with(&format!("{PATH}?token={}", self.token(2)), "", &body),
            post(&format!("/callbacks/{}", self.token(4)), bearer, &body),
            post_with(PATH, format!("{auth}{auth}"), &body),
            post_with(PATH, format!("authorization: Basic {bearer}\r\n"), &body),
            post_with(PATH, format!("{auth}x: {}\r\n", self.token(3).repeat(900)), &body),
            post_with(PATH, format!("{auth}host: {}\r\n", self.token(3)), &body),
            post(PATH, bearer, body.repeat(100)),
            method,
            format!("{} {}\r\n\r\n", self.token(4), self.token(3)).into_bytes(),
            post(PATH, bearer, &body)[..300].to_vec(),
        ]
    }
}

#[derive(Default)]
struct Seen {
    canaries: u64,
    places: u64,
    bytes: u64,
    hits: u64,
    problems: Vec<String>,
}

fn run(rounds: u32, seed: u64) -> Found {
    let mut seen = Seen::default();
    for number in 0..rounds {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        chance.set_stream(u64::from(number));
        seen.round(number, &mut chance);
        seen.senders(number, &mut chance);
    }
    let counts = [
        ("canaries", seen.canaries),
        ("places searched", seen.places),
        ("bytes searched", seen.bytes),
        ("hits outside their columns", seen.hits),
    ];
    Found {
        held: seen.hits == 0 && seen.places > 0,
        figure: format!(
            "{} hits of {} canaries in {} places over {rounds} lives",
            seen.hits, seen.canaries, seen.places
        ),
        counts: counts.map(|(name, count)| (name.to_owned(), count)).to_vec(),
        control: control(seed),
        problems: seen.problems,
    }
}

impl Seen {
    fn round(&mut self, number: u32, chance: &mut ChaCha8Rng) {
        let canaries = Canaries::new(number, chance);
        self.canaries += canaries.all().count() as u64;
        let format = if number.is_multiple_of(2) { "json" } else { "text" };
        let setup =
            Setup::with_sources(&source(SOURCE, "gc-notify", &[("live", canaries.token(0))]))
                .limits("body_bytes_max = 20000")
                .with("log", &format!("level = \"trace\"\nformat = \"{format}\""));
        let setup = if number % 4 >= 2 { with_tls(setup) } else { setup };
        let server = setup.start();
        self.callers(&canaries, &setup, &server);
        server.settled();
        self.bad_reload(&canaries, &setup, &server);
        for path in ["/metrics", "/readyz", "/livez", "/settled", "/unknown"] {
            self.look(&canaries, path, &server.admin(path).body);
        }
        self.look(&canaries, "what was printed", server.printed.as_bytes());
        self.commands(&canaries, &setup);
        self.databases(&canaries, &setup);
        server.stop();
        self.commands(&canaries, &setup);
        self.databases(&canaries, &setup);
        let log = fs::read(setup.path("stderr.txt")).expect("a log");
        if log.is_empty() {
            self.problems.push("nothing was logged, so nothing is tested".to_owned());
        }
        self.folder(&canaries, &setup);
    }

    /// Everybody who calls, and what they hear.
    fn callers(&mut self, canaries: &Canaries, setup: &Setup, server: &Receiptd) {
        let is_tls = setup.sections.contains_key("tls");
        for body in canaries.bodies() {
            let status = if is_tls {
                post_over_tls(setup, server, canaries.token(0), &body)
            } else {
                server.ask(post(PATH, canaries.token(0), &body)).status
            };
            if status != 204 {
                self.problems.push(format!("a callback was answered {status}"));
            }
        }
        // Over TLS these are garbage in place of a handshake, which is a case of its own.
        for request in canaries.refused() {
            let mut client = server.connect();
            let _ = client.try_send(&request);
            if request.len() == 300 {
                continue;
            }
            if let Ok(Some(answer)) = client.try_answer() {
                self.look(canaries, "an answer", &answer.body);
                self.look(canaries, "an answer's head", format!("{:?}", answer.headers).as_bytes());
            }
            if is_tls {
                break;
            }
        }
    }

    /// A configuration with a bearer where its digest belongs: refused, and not quoted.
    fn bad_reload(&mut self, canaries: &Canaries, setup: &Setup, server: &Receiptd) {
        let path = setup.path("receiptd.toml");
        let good = fs::read_to_string(&path).expect("a configuration");
        let digest = super::support::sha256_hex(canaries.token(0).as_bytes());
        let bad = good.replace(&digest, canaries.token(5));
        fs::write(&path, bad).expect("a configuration");
        let before = server.stderr().len();
        server.signal(Signal::HUP);
        let is_said =
            holds_within(Duration::from_secs(10), || server.stderr()[before..].contains("sha256"));
        if !is_said {
            self.problems.push("a bad configuration was not reported".to_owned());
        }
        let arguments = ["config", "check", "--config", path.to_str().expect("a path")];
        let ended = run_to_its_end(&mut receiptd(setup.folder.path(), &arguments));
        self.look(canaries, "config check", ended.stdout.as_bytes());
        self.look(canaries, "config check", ended.stderr.as_bytes());
        fs::write(&path, good).expect("a configuration");
    }

    /// Every command that prints something that is not what it was asked for.
    fn commands(&mut self, canaries: &Canaries, setup: &Setup) {
        let state = setup.state();
        let (state, config) = (state.to_str().expect("a path"), setup.path("receiptd.toml"));
        let config = config.to_str().expect("a path");
        let commands: [&[&str]; 5] = [
            &["stats", "--db", state],
            &["config", "show", "--config", config],
            &["config", "check", "--config", config],
            &["check-db", "--db", state],
            &["prune", "--older-than", "1d", "--db", state],
        ];
        for arguments in commands {
            let ended = run_to_its_end(&mut receiptd(setup.folder.path(), arguments));
            if ended.stdout.is_empty() && ended.stderr.is_empty() {
                self.problems.push(format!("{} said nothing", arguments[0]));
            }
            self.look(canaries, arguments[0], ended.stdout.as_bytes());
            self.look(canaries, arguments[0], ended.stderr.as_bytes());
        }
    }

    /// Tokens in no column of any table; what callbacks say in its columns only.
    fn databases(&mut self, canaries: &Canaries, setup: &Setup) {
        for path in [setup.journal(), setup.state()] {
            let connection = open(&path);
            let tables = rows(&connection, "SELECT name FROM sqlite_schema WHERE type = 'table'");
            for table in tables {
                let lines = rows(&connection, &format!("SELECT * FROM \"{table}\""));
                let text = lines.join("\n");
                let is_meant = MEANT_FOR_THEM.contains(&table.as_str());
                let secrets: Vec<&Secret> = if is_meant {
                    canaries.tokens.iter().collect()
                } else {
                    canaries.all().collect()
                };
                self.look_for(&secrets, &format!("table {table}"), text.as_bytes());
            }
        }
    }

    /// Every file: the databases hold no token, all others hold no canary.
    fn folder(&mut self, canaries: &Canaries, setup: &Setup) {
        for (path, bytes) in files(setup.folder.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let secrets: Vec<&Secret> = if name.contains(".db") && !name.ends_with(".lock") {
                canaries.tokens.iter().collect()
            } else {
                canaries.all().collect()
            };
            self.look_for(&secrets, &name, &bytes);
        }
        // Where it belongs, it is; otherwise nothing was tested.
        let journal = fs::read(setup.journal()).expect("a journal");
        if canaries.said.iter().any(|secret| !secret.found_in(&journal).contains(&"plain")) {
            self.problems.push("a canary never reached the journal".to_owned());
        }
    }

    fn look(&mut self, canaries: &Canaries, place: &str, bytes: &[u8]) {
        self.look_for(&canaries.all().collect::<Vec<_>>(), place, bytes);
    }

    fn look_for(&mut self, secrets: &[&Secret], place: &str, bytes: &[u8]) {
        self.places += 1;
        self.bytes += bytes.len() as u64;
        for secret in secrets {
            let forms = secret.found_in(bytes);
            self.hits += forms.len() as u64;
            if !forms.is_empty() && self.problems.len() < 20 {
                self.problems.push(format!("{} stands in {place} as {forms:?}", secret.text));
            }
        }
    }
}

fn with_tls(setup: Setup) -> Setup {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (setup.path("tls.crt"), setup.path("tls.key"));
    fs::write(&cert, pair.cert.pem()).expect("a file");
    fs::write(&key, pair.signing_key.serialize_pem()).expect("a file");
    setup.with("tls", &format!("cert_file = {cert:?}\nkey_file = {key:?}"))
}

fn post_over_tls(setup: &Setup, server: &Receiptd, token: &str, body: &str) -> u16 {
    let url = format!("https://localhost:{}{PATH}", server.callbacks.port());
    let options = Options { ca_file: Some(setup.path("tls.crt")), ..Options::default() };
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, client::bearer(token).expect("a header"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let target = Target::parse(&url).expect("a URL");
        let mut client = Client::new(target, options).expect("a client");
        let answer = client.post(headers, Bytes::copy_from_slice(body.as_bytes())).await;
        answer.map_or(0, |answer| answer.code)
    })
}

/// The same scanner over a log in which a canary was planted, once in each form.
fn control(seed: u64) -> Control {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    chance.set_stream(u64::MAX);
    let secret = Secret::new(&format!("canary \"planted\" {:012x}", chance.random::<u64>()));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut planted, mut found) = (0, 0);
    for (name, form) in secret.forms() {
        let line = [b"2026-11-22T10:00:00Z INFO a line, value=", form, b" and more\n"].concat();
        fs::write(folder.path().join("log.txt"), line).expect("a file");
        planted += 1;
        let all = files(folder.path());
        found += u32::from(all.iter().any(|(_, bytes)| secret.found_in(bytes).contains(&name)));
    }
    Control {
        what: format!("a canary planted in a log in {planted} forms: found in {found}"),
        caught: planted == found && planted > 0,
    }
}
