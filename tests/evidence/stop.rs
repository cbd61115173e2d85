//! Promise 8: stopping loses nothing and refuses nothing it could serve.
//!
//! Senders of every habit are at work when SIGTERM comes: kept connections, a new one for each
//! callback, bodies that dribble, heads that come in two pieces. Whoever began a request before the
//! receiver stopped accepting (half a second after the signal) must be answered; nobody may see the
//! end of a connection in place of an answer. A request begun later may find the door closed: to
//! the sender that is an outage, and it comes again.
//!
//! In every fourth round the senders are simulated platforms and the receiver comes back: see
//! [`simulated`].

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::Signal;

mod simulated;

use super::Promise;
use super::report::{Control, Found};
use super::support::{Client, PATH, Setup, TOKEN, open, post, receipt};

/// What is promised.
pub const PROMISE: Promise = Promise {
    name: "stop",
    number: 8,
    claim: "Stopping loses nothing and refuses nothing it could serve",
    needs_root: false,
    needs: &[],
    rounds: (200, 8),
    run,
};

/// How long after SIGTERM a request may begin and must still be answered. The receiver accepts for
/// 500 ms; the rest is for a machine that is busy.
const SERVED_FOR: Duration = Duration::from_millis(350);

/// The longest that the whole of stopping may take.
const EXIT_MAX: Duration = Duration::from_secs(10);

/// Rounds at the same time: much of a round is waiting.
const ROUNDS_AT_ONCE: usize = 3;

/// One round in so many has simulated platforms as its senders.
const SIMULATED_EACH: u32 = 4;

/// Control rounds; fewer than [`SIMULATED_EACH`], whose senders would come again.
const CONTROLS: u32 = 3;

/// How a sender behaves.
#[derive(Clone, Copy, Debug)]
enum Habit {
    /// One connection, one callback after another.
    Kept,
    /// A connection for each.
    Fresh,
    /// Each body in pieces, over up to two seconds.
    SlowBody,
    /// Each head in two pieces.
    SlowHead,
    /// One connection, and pauses of up to a second between callbacks.
    Thoughtful,
}

const HABITS: [Habit; 9] = [
    Habit::Kept,
    Habit::Kept,
    Habit::Kept,
    Habit::Fresh,
    Habit::Fresh,
    Habit::SlowBody,
    Habit::SlowBody,
    Habit::SlowHead,
    Habit::Thoughtful,
];

/// One request, as its sender saw it.
struct Tried {
    habit: Habit,
    id: String,
    began: Instant,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Answered(u16),
    /// Connecting failed: nothing had begun.
    NotReached,
    /// The connection ended in place of an answer.
    CutOff(String),
}

/// Counted over rounds.
#[derive(Default)]
struct Seen {
    acknowledged: u64,
    after_signal: u64,
    refused: u64,
    lost: u64,
    cut_off: u64,
    too_late: u64,
    slowest_exit: Duration,
    bad_exits: u64,
    /// Rounds of simulated platforms, their callbacks, and what they had to send again.
    simulated_stops: u64,
    simulated: u64,
    sent_again: u64,
    problems: Vec<String>,
}

fn run(rounds: u32, seed: u64) -> Found {
    let seen = rounds_of(rounds, seed, Signal::TERM);
    let killed = rounds_of(CONTROLS, seed, Signal::KILL);
    let bad = seen.lost + seen.cut_off + seen.bad_exits;
    let counts = [
        ("acknowledged", seen.acknowledged),
        ("of them after the signal", seen.after_signal),
        ("acknowledged but lost", seen.lost),
        ("connections cut off in a request", seen.cut_off),
        ("refused with 503 though begun in time", seen.refused),
        ("found the door closed, too late", seen.too_late),
        ("stops under simulated platforms", seen.simulated_stops),
        ("callbacks of simulated platforms", seen.simulated),
        ("attempts of theirs that had to be repeated", seen.sent_again),
        ("exits other than code 0 within 10 s", seen.bad_exits),
        ("slowest exit in ms", u64::try_from(seen.slowest_exit.as_millis()).unwrap_or(u64::MAX)),
    ];
    Found {
        held: bad == 0 && seen.refused == 0 && seen.after_signal > 0,
        figure: format!(
            "{} lost and {} cut off of {} acknowledged in {rounds} stops, the slowest in {:.1} s",
            seen.lost,
            seen.cut_off,
            seen.acknowledged,
            seen.slowest_exit.as_secs_f64()
        ),
        counts: counts.map(|(name, count)| (name.to_owned(), count)).to_vec(),
        control: Control {
            what: format!(
                "SIGKILL in place of SIGTERM: {} connections cut off in {CONTROLS} rounds",
                killed.cut_off
            ),
            caught: killed.cut_off >= u64::from(CONTROLS) && killed.bad_exits > 0,
        },
        problems: seen.problems,
    }
}

fn rounds_of(rounds: u32, seed: u64, signal: Signal) -> Seen {
    let next = AtomicU32::new(0);
    let all = Mutex::new(Seen::default());
    std::thread::scope(|scope| {
        for _ in 0..ROUNDS_AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= rounds {
                        return;
                    }
                    let seen = round(number, seed, signal);
                    all.lock().expect("no panic under this lock").add(seen);
                }
            });
        }
    });
    all.into_inner().expect("no panic under this lock")
}

fn round(number: u32, seed: u64, signal: Signal) -> Seen {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    chance.set_stream(u64::from(number));
    if number % SIMULATED_EACH == SIMULATED_EACH - 1 {
        return simulated::round(number, seed, &mut chance);
    }
    let setup = Setup::new();
    let mut server = setup.start();
    let signalled = Arc::new(OnceLock::new());
    let senders: Vec<_> = HABITS
        .into_iter()
        .enumerate()
        .map(|(at, habit)| {
            let mut chance = ChaCha8Rng::seed_from_u64(seed);
            chance.set_stream(1_000_000 + u64::from(number) * 100 + at as u64);
            let mut sender = Sender {
                habit,
                name: format!("r{number}-{at}"),
                address: server.callbacks,
                client: None,
                chance,
                signalled: Arc::clone(&signalled),
            };
            std::thread::spawn(move || sender.work())
        })
        .collect();
    std::thread::sleep(Duration::from_millis(chance.random_range(0..400)));
    server.signal(signal);
    let at = Instant::now();
    signalled.set(at).expect("set once");
    let code = server.wait(EXIT_MAX * 2);
    let took = at.elapsed();
    let tried: Vec<Tried> =
        senders.into_iter().flat_map(|s| s.join().expect("a sender does not panic")).collect();
    let mut seen = Seen { slowest_exit: took, ..Seen::default() };
    if code != Some(0) || took > EXIT_MAX {
        seen.bad_exits = 1;
        seen.problems.push(format!("round {number}: exit {code:?} after {took:?}"));
    }
    seen.judge(number, &tried, at, &setup.journal());
    seen
}

/// One sender with its habit.
struct Sender {
    habit: Habit,
    name: String,
    address: SocketAddr,
    client: Option<Client>,
    chance: ChaCha8Rng,
    signalled: Arc<OnceLock<Instant>>,
}

impl Sender {
    /// Sends until the door is closed.
    fn work(&mut self) -> Vec<Tried> {
        let mut tried = Vec::new();
        for number in 0.. {
            let id = format!("{}-{number}", self.name);
            let began = Instant::now();
            let outcome = self.deliver(&id);
            let is_over =
                self.signalled.get().is_some() && !matches!(outcome, Outcome::Answered(_));
            if !matches!(outcome, Outcome::Answered(_)) {
                self.client = None;
            }
            tried.push(Tried { habit: self.habit, id, began, outcome });
            if is_over {
                break;
            }
            if matches!(self.habit, Habit::Thoughtful) {
                std::thread::sleep(Duration::from_millis(self.chance.random_range(0..1_000)));
            }
        }
        tried
    }

    fn deliver(&mut self, id: &str) -> Outcome {
        if self.client.is_none() {
            match Client::try_connect(self.address) {
                Ok(client) => self.client = Some(client),
                Err(_) => return Outcome::NotReached,
            }
        }
        let request = post(PATH, TOKEN, receipt(id));
        let sent = self.send(&request);
        let client = self.client.as_mut().expect("connected above");
        // Even where sending failed an answer may have come before.
        let answer = match (sent, client.try_answer()) {
            (_, Ok(Some(answer))) => answer,
            (Err(error), _) => return Outcome::CutOff(format!("while sending: {error}")),
            (Ok(()), Ok(None)) => return Outcome::CutOff("closed without an answer".to_owned()),
            (Ok(()), Err(error)) => return Outcome::CutOff(error.to_string()),
        };
        let is_closing = answer.header("connection") == Some("close");
        if is_closing || matches!(self.habit, Habit::Fresh) {
            self.client = None;
        }
        Outcome::Answered(answer.status)
    }

    fn send(&mut self, request: &[u8]) -> std::io::Result<()> {
        let client = self.client.as_mut().expect("connected");
        let head = request.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
        match self.habit {
            Habit::SlowBody => {
                client.try_send(&request[..head])?;
                let pieces = self.chance.random_range(2..6);
                let pause = Duration::from_millis(self.chance.random_range(1..400));
                for piece in request[head..].chunks((request.len() - head).div_ceil(pieces)) {
                    std::thread::sleep(pause);
                    client.try_send(piece)?;
                }
                Ok(())
            }
            Habit::SlowHead => {
                client.try_send(&request[..head / 2])?;
                std::thread::sleep(Duration::from_millis(self.chance.random_range(1..300)));
                client.try_send(&request[head / 2..])
            }
            Habit::Kept | Habit::Fresh | Habit::Thoughtful => client.try_send(request),
        }
    }
}

impl Seen {
    /// What each sender saw against what the journal holds.
    fn judge(&mut self, number: u32, tried: &[Tried], signalled: Instant, journal: &Path) {
        let kept = kept(journal);
        for Tried { habit, id, began, outcome } in tried {
            let is_in_time = *began < signalled + SERVED_FOR;
            let problem = match outcome {
                Outcome::Answered(204) => {
                    self.acknowledged += 1;
                    self.after_signal += u64::from(*began > signalled);
                    if kept.contains(receipt(id).as_bytes()) {
                        continue;
                    }
                    self.lost += 1;
                    "acknowledged and lost".to_owned()
                }
                Outcome::Answered(503) if !is_in_time => {
                    self.too_late += 1;
                    continue;
                }
                Outcome::Answered(code) => {
                    self.refused += 1;
                    format!("answered {code}")
                }
                // Nothing had begun: the platform counts it as an outage.
                Outcome::NotReached => {
                    self.too_late += 1;
                    continue;
                }
                Outcome::CutOff(_) if !is_in_time => {
                    self.too_late += 1;
                    continue;
                }
                Outcome::CutOff(how) => {
                    self.cut_off += 1;
                    format!("cut off: {how}")
                }
            };
            let when = if *began < signalled {
                format!("{:?} before", signalled - *began)
            } else {
                format!("{:?} after", *began - signalled)
            };
            self.problems.push(format!("round {number}: {habit:?} {id}, begun {when}: {problem}"));
        }
    }

    fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.after_signal += other.after_signal;
        self.refused += other.refused;
        self.lost += other.lost;
        self.cut_off += other.cut_off;
        self.too_late += other.too_late;
        self.slowest_exit = self.slowest_exit.max(other.slowest_exit);
        self.bad_exits += other.bad_exits;
        self.simulated_stops += other.simulated_stops;
        self.simulated += other.simulated;
        self.sent_again += other.sent_again;
        self.problems.extend(other.problems);
    }
}

fn kept(journal: &Path) -> HashSet<Vec<u8>> {
    let journal = open(journal);
    let mut rows = journal.prepare("SELECT body FROM callback").expect("a journal");
    let bodies = rows.query_map([], |row| row.get(0)).expect("bodies");
    bodies.map(|body| body.expect("a body")).collect()
}
