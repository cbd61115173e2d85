//! Promise 9: bad input cannot hurt or block.
//!
//! Everything goes over real sockets to the real binary: JSON at its edges as whole bodies and in
//! every place of a body of every kind, for every provider; random mutations of valid bodies; raw
//! HTTP, written by hand and mutated. Real callbacks go in between and must come to their state.
//! The platforms never repeat what was answered 4xx, so a body that is authentic and small enough
//! must be answered 204, kept byte for byte, and be either understood or listed as unrecognised.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};
use receiptd::callback::News;
use receiptd::provider::{self, Provider};

use super::Promise;
use super::report::{Control, Found};
use super::support::{
    Client, Receiptd, SOURCE, Setup, TOKEN, metric, open, post, receipt, rows, sha256_hex, source,
};

mod http_edges;
mod json_edges;
#[path = "../support/naughty.rs"]
mod naughty;

/// What is promised.
pub const PROMISE: Promise = Promise {
    name: "bad-input",
    number: 9,
    claim: "Bad input cannot hurt or block",
    needs_root: false,
    needs: &[],
    rounds: (100_000, 2_000),
    run,
};

/// Senders at the same time.
const SENDERS: usize = 4;

/// One real callback after so many bad bodies.
const REAL_EVERY: usize = 25;

/// Values larger than this go into one place of each body, not into all of them.
const LARGE_BYTES: usize = 10_000;

/// How long a strange request may go without an answer before its sender gives up on it.
const ANSWER_PATIENCE: Duration = Duration::from_millis(60);

/// One body, where it went, and what came back.
struct Sent {
    provider: Provider,
    body: Vec<u8>,
    status: Option<u16>,
}

/// Counted.
#[derive(Default)]
struct Seen {
    bodies: u64,
    real: u64,
    raw: u64,
    raw_answered: u64,
    refused: u64,
    server_errors: u64,
    lost: u64,
    unsettled: u64,
    panics: u64,
    understood: u64,
    unrecognised: u64,
    problems: Vec<String>,
}

/// `rounds` mutated bodies, and half as many mutated requests, beside all that is written by hand.
fn run(rounds: u32, seed: u64) -> Found {
    let setup = Setup::with_sources(&sources());
    let server = setup.start();
    let mut seen = Seen::default();
    let bodies = bodies(rounds, seed);
    let sent = send_all(server.callbacks, bodies);
    server.settled();
    seen.judge_bodies(&sent, &kept(&setup.journal()));
    seen.judge_settling(&setup);
    seen.send_raw(&server, &setup, rounds / 2, seed);
    seen.judge_health(server, &setup);
    seen.found(rounds, control())
}

fn name_of(provider: Provider) -> String {
    // The first is the source that the raw requests name.
    if provider == Provider::GcNotify { SOURCE.to_owned() } else { provider.to_string() }
}

fn sources() -> String {
    let of =
        |provider: &Provider| source(&name_of(*provider), provider.as_str(), &[("live", TOKEN)]);
    Provider::ALL.iter().map(of).collect()
}

/// Every edge for some provider, every naughty value in every place, and mutations.
fn bodies(mutations: u32, seed: u64) -> Vec<(Provider, Vec<u8>)> {
    let mut bodies = Vec::new();
    for provider in Provider::ALL {
        bodies.extend(json_edges::edges().into_iter().map(|edge| (provider, edge)));
    }
    let mut turn = Provider::ALL.into_iter().cycle();
    let mut next = move || turn.next().expect("it goes round");
    let edges = json_edges::edges();
    let values = naughty::naughty_values().into_iter().map(String::into_bytes).chain(edges);
    for value in values {
        for seed in naughty::SEEDS {
            let mark = r#""put the value here""#;
            let mut places = naughty::with_each_value_replaced(seed, mark);
            if value.len() > LARGE_BYTES {
                places.truncate(2);
            }
            for place in places {
                bodies.push((next(), replace(place.as_bytes(), mark.as_bytes(), &value)));
            }
        }
    }
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    for _ in 0..mutations {
        let mut body =
            naughty::SEEDS[chance.random_range(0..naughty::SEEDS.len())].as_bytes().to_vec();
        for _ in 0..chance.random_range(1..6) {
            http_edges::mutate(&mut body, &mut chance);
        }
        bodies.push((next(), body));
    }
    bodies.retain(|(provider, body)| body.len() < 1 << 20 && !provider::is_probe(*provider, body));
    bodies
}

fn replace(body: &[u8], mark: &[u8], value: &[u8]) -> Vec<u8> {
    match body.windows(mark.len()).position(|window| window == mark) {
        Some(at) => [&body[..at], value, &body[at + mark.len()..]].concat(),
        None => body.to_vec(),
    }
}

/// Posts every body on kept connections, real callbacks in between.
fn send_all(address: SocketAddr, bodies: Vec<(Provider, Vec<u8>)>) -> Vec<Sent> {
    let queue = Arc::new(Mutex::new(bodies.into_iter().enumerate()));
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || {
                let mut sent = Vec::new();
                let mut client = None;
                loop {
                    let next = queue.lock().expect("no panic under this lock").next();
                    let Some((number, (provider, body))) = next else { return sent };
                    let status = deliver(&mut client, address, &name_of(provider), &body);
                    sent.push(Sent { provider, body, status });
                    if number % REAL_EVERY == 0 {
                        let body = receipt(&format!("real-{number}")).into_bytes();
                        let status = deliver(&mut client, address, SOURCE, &body);
                        sent.push(Sent { provider: Provider::GcNotify, body, status });
                    }
                }
            })
        })
        .collect();
    senders.into_iter().flat_map(|s| s.join().expect("a sender does not panic")).collect()
}

fn deliver(client: &mut Option<Client>, to: SocketAddr, name: &str, body: &[u8]) -> Option<u16> {
    let mut connected = client.take().or_else(|| Client::try_connect(to).ok())?;
    connected.try_send(post(&format!("/callbacks/{name}"), TOKEN, body)).ok()?;
    let answer = connected.try_answer().ok().flatten()?;
    if answer.header("connection") != Some("close") {
        *client = Some(connected);
    }
    Some(answer.status)
}

/// How often each body stands in the journal, by source and digest.
type Kept = HashMap<(String, String), u64>;

fn kept(journal: &Path) -> Kept {
    let journal = open(journal);
    let mut rows = journal.prepare("SELECT source, body FROM callback").expect("a journal");
    let bodies = rows.query_map([], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?)));
    let mut kept = Kept::new();
    for row in bodies.expect("rows") {
        let (source, body) = row.expect("a row");
        *kept.entry((source, sha256_hex(&body))).or_default() += 1;
    }
    kept
}

impl Seen {
    /// Every body against its answer and the journal.
    fn judge_bodies(&mut self, sent: &[Sent], kept: &Kept) {
        let mut acknowledged = Kept::new();
        for Sent { provider, body, status } in sent {
            self.bodies += 1;
            match status {
                Some(200..300) => {
                    let key = (name_of(*provider), sha256_hex(body));
                    *acknowledged.entry(key).or_default() += 1;
                    continue;
                }
                Some(500..) => self.server_errors += 1,
                _ => self.refused += 1,
            }
            let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
            self.problem(format!("{provider}: {shown:?} was answered {status:?}"));
        }
        for (key, times) in acknowledged {
            let missing = times.saturating_sub(kept.get(&key).copied().unwrap_or(0));
            self.lost += missing;
            if missing > 0 {
                self.problem(format!("{} lost {missing} of a body it acknowledged", key.0));
            }
        }
    }

    /// Every callback of the journal is understood or listed, and every event of it has a row.
    fn judge_settling(&mut self, setup: &Setup) {
        let (journal, state) = (open(&setup.journal()), open(&setup.state()));
        let listed = rows(&state, "SELECT seq FROM unrecognised");
        let listed: std::collections::HashSet<i64> =
            listed.iter().map(|seq| seq.parse().expect("a number")).collect();
        let of_name: HashMap<String, Provider> =
            Provider::ALL.into_iter().map(|provider| (name_of(provider), provider)).collect();
        let mut has_notification = state
            .prepare("SELECT count(*) FROM notification_row WHERE source = ?1 AND id = ?2")
            .expect("a state");
        let mut has_message = state
            .prepare("SELECT count(*) FROM message_row WHERE source = ?1 AND id = ?2")
            .expect("a state");
        let mut all = journal.prepare("SELECT seq, source, body FROM callback").expect("a journal");
        let mut rows = all.query([]).expect("rows");
        while let Some(row) = rows.next().expect("a row") {
            let (seq, name): (i64, String) = (row.get_unwrap(0), row.get_unwrap(1));
            let body: Vec<u8> = row.get_unwrap(2);
            self.real += u64::from(body.starts_with(br#"{"id": "real-"#));
            let reading = provider::read(&of_name[&name].into(), &body);
            let is_right = reading.unrecognised.is_some() == listed.contains(&seq)
                && reading.events.iter().all(|event| {
                    let statement = match event.news {
                        News::Notification(_) => &mut has_notification,
                        News::Message(_) => &mut has_message,
                    };
                    statement.query_row([&name, event.id()], |row| row.get(0)) == Ok(1)
                });
            match (is_right, reading.unrecognised.is_some()) {
                (true, false) => self.understood += 1,
                (true, true) => self.unrecognised += 1,
                (false, _) => {
                    self.unsettled += 1;
                    self.problem(format!("callback {seq} of {name} is not settled as it reads"));
                }
            }
        }
    }

    /// Raw requests, one connection each; what is answered 2xx must be one row more.
    fn send_raw(&mut self, server: &Receiptd, setup: &Setup, mutations: u32, seed: u64) {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        chance.set_stream(1);
        let mut requests = http_edges::edges();
        for number in 0..mutations {
            requests.push(http_edges::mutated(&format!("m{number}"), &mut chance));
        }
        self.raw = requests.len() as u64;
        let before = setup.callbacks();
        let address = server.callbacks;
        let queue = Arc::new(Mutex::new(requests.into_iter()));
        let senders: Vec<_> = (0..SENDERS * 4)
            .map(|_| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || {
                    let mut statuses = Vec::new();
                    loop {
                        let next = queue.lock().expect("no panic under this lock").next();
                        let Some(request) = next else { return statuses };
                        statuses.extend(
                            raw(address, &request).into_iter().map(|s| (s, request.clone())),
                        );
                    }
                })
            })
            .collect();
        let mut kept = 0;
        for sender in senders {
            for (status, request) in sender.join().expect("a sender does not panic") {
                self.raw_answered += 1;
                kept += i64::from((200..300).contains(&status));
                if status >= 500 && status != 505 {
                    self.server_errors += 1;
                    let shown = String::from_utf8_lossy(&request).into_owned();
                    self.problem(format!("raw {shown:?} was answered {status}"));
                }
            }
        }
        let rows = setup.callbacks() - before;
        if rows < kept {
            self.lost += kept.abs_diff(rows);
            self.problem(format!("{kept} raw requests were acknowledged, {rows} are kept"));
        }
    }

    /// It is still there, has not panicked, takes a real callback, and ends well.
    fn judge_health(&mut self, server: Receiptd, setup: &Setup) {
        if server.post(receipt("the-last")) != 204 {
            self.problem("after all of it a real callback was refused".to_owned());
        }
        server.settled();
        let panics = metric(&server.metrics(), "receiptd_settle_panics_total");
        let log = server.stderr();
        self.panics = log.matches("panicked").count() as u64;
        if panics != Some(0.0) || self.panics > 0 {
            self.panics = self.panics.max(1);
            self.problem(format!("it panicked: {panics:?} while settling"));
        }
        server.stop();
        let reference = rows(
            &open(&setup.state()),
            "SELECT count(*) FROM notification_row WHERE id LIKE 'real-%' AND status = 'delivered'",
        );
        if reference != [self.real.to_string()] {
            self.problem(format!("of {} real notifications {reference:?} are right", self.real));
        }
    }

    fn problem(&mut self, problem: String) {
        if self.problems.len() < 20 {
            self.problems.push(problem);
        }
    }

    fn found(self, rounds: u32, control: Control) -> Found {
        let bad = self.refused + self.server_errors + self.lost + self.unsettled + self.panics;
        let counts = [
            ("bodies", self.bodies),
            ("of them mutations", u64::from(rounds)),
            ("real callbacks in between", self.real),
            ("understood", self.understood),
            ("listed as unrecognised", self.unrecognised),
            ("raw requests", self.raw),
            ("answers to them", self.raw_answered),
            ("authentic bodies refused", self.refused),
            ("answers of 5xx", self.server_errors),
            ("acknowledged but lost", self.lost),
            ("kept but not settled", self.unsettled),
            ("panics", self.panics),
        ];
        Found {
            held: bad == 0 && self.real > 0,
            figure: format!(
                "{} panics, {} answers of 5xx, {} lost of {} bodies and {} raw requests",
                self.panics,
                self.server_errors,
                self.lost + self.refused,
                self.bodies,
                self.raw
            ),
            counts: counts.map(|(name, count)| (name.to_owned(), count)).to_vec(),
            control,
            problems: self.problems,
        }
    }
}

/// The codes of every answer to these bytes, as far as they come soon.
fn raw(address: SocketAddr, request: &[u8]) -> Vec<u16> {
    let Ok(mut stream) = TcpStream::connect(address) else { return Vec::new() };
    stream.set_read_timeout(Some(ANSWER_PATIENCE)).expect("a time limit");
    let _ = stream.write_all(request);
    let (mut answers, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        answers.extend_from_slice(&piece[..count]);
    }
    let text = String::from_utf8_lossy(&answers);
    let codes = text.split("HTTP/1.1 ").skip(1);
    codes.filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

/// A receiver as it is usually written: it parses before it answers, refuses what does not parse,
/// fails where a text is no text, and keeps what it could read again from what it parsed.
fn control() -> Control {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let store = Arc::new(Mutex::new(Kept::new()));
    let server = std::thread::spawn({
        let store = Arc::clone(&store);
        move || while naive(&listener, &store) {}
    });
    let edges = json_edges::edges().into_iter().filter(|edge| edge.len() < LARGE_BYTES);
    let mut sent = Vec::new();
    for body in edges {
        let status = deliver(&mut None, address, SOURCE, &body);
        sent.push(Sent { provider: Provider::GcNotify, body, status });
    }
    let _ = raw(address, b"STOP");
    server.join().expect("the stand-in does not panic");
    let mut seen = Seen::default();
    seen.judge_bodies(&sent, &store.lock().expect("no panic under this lock"));
    Control {
        what: format!(
            "a receiver that parses before it answers: {} refused, {} answers of 5xx, {} kept in other bytes, of {} bodies",
            seen.refused, seen.server_errors, seen.lost, seen.bodies
        ),
        caught: seen.refused > 0 && seen.server_errors > 0 && seen.lost > 0,
    }
}

/// Serves one connection; whether to go on.
fn naive(listener: &TcpListener, store: &Mutex<Kept>) -> bool {
    let (mut stream, _) = listener.accept().expect("a connection");
    let (mut request, mut piece) = (Vec::new(), [0; 16 << 10]);
    let body = loop {
        let count = stream.read(&mut piece).unwrap_or(0);
        request.extend_from_slice(&piece[..count]);
        let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else {
            if count == 0 || request == b"STOP" {
                return request != b"STOP";
            }
            continue;
        };
        let head = String::from_utf8_lossy(&request[..end]).into_owned();
        let length = head.rsplit("content-length: ").next().and_then(|n| n.trim().parse().ok());
        let length: usize = length.unwrap_or(0);
        if request.len() >= end + 4 + length || count == 0 {
            break request[end + 4..].to_vec();
        }
    };
    let status = match std::str::from_utf8(&body).map(serde_json::from_str::<serde_json::Value>) {
        Err(_) => "500 Internal Server Error",
        Ok(Err(_)) => "400 Bad Request",
        Ok(Ok(value)) => {
            let key = (SOURCE.to_owned(), sha256_hex(value.to_string().as_bytes()));
            *store.lock().expect("no panic under this lock").entry(key).or_default() += 1;
            "204 No Content"
        }
    };
    let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    let _ = stream.write_all(answer.as_bytes());
    true
}
