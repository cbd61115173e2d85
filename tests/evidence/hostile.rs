//! Promise 10: slow and hostile clients cannot starve the real one.
//!
//! `slowhttptest` holds 2,000 connections by slow heads, slow bodies and slow reading, and 10,000
//! connections say nothing at all, against a receiver with its default limit of 1,024. Meanwhile
//! two senders are at work, `receiptd simulate` as a platform that keeps its connections and as one
//! that opens a connection for each callback. Their schedule does not forgive: a callback's time
//! counts from when it was due. Nothing may have to be sent twice, and every final state is checked.
//!
//! Times are judged over several rounds only. One round is a look, on a machine that others may be
//! using: it tells the times, and fails if anything had to be sent twice, was lost or is wrong.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::Promise;
use super::machine::Need;
use super::platform::{self, HABITS, Platform, Told};
use super::report::{Control, Found};
use super::support::{Receiptd, Setup, eventually, metric};

/// What is promised.
pub const PROMISE: Promise = Promise {
    name: "hostile",
    number: 10,
    claim: "Slow and hostile clients cannot starve the real one",
    needs_root: false,
    // Idle connections alone are not the promise.
    needs: &[Need::Program("slowhttptest", "slowhttptest")],
    rounds: (5, 1),
    run,
};

/// The slowest that one callback in a hundred may be.
const P99_MAX: Duration = Duration::from_millis(250);

/// The longest that a hostile connection may stay.
const STAY_MAX: Duration = Duration::from_secs(10);

/// Messages of each real sender in a second; some of them have several callbacks.
const RATE: u32 = 50;

/// Connections of `slowhttptest`, and how many it opens in a second.
const SLOW_CONNECTIONS: u32 = 2_000;
const SLOW_RATE: u32 = 1_000;

/// How long it goes on.
const SLOW_LASTS: Duration = Duration::from_secs(20);

/// Connections that say nothing, and how many are opened in a second: as many as `slowhttptest`
/// opens. A flood of new connections is another attack: the kernel's queue of those that wait to be
/// accepted is shared by all, and only what stands in front can tell them apart.
const IDLE_CONNECTIONS: usize = 10_000;
const IDLE_RATE: u32 = 1_000;

/// Idle connections that are enough for a server with 64 threads.
const CONTROL_CONNECTIONS: usize = 100;

/// How long they are held.
const CONTROL_LASTS: Duration = Duration::from_secs(3);

/// An attack.
#[derive(Clone, Copy, PartialEq)]
enum Attack {
    SlowHead,
    SlowBody,
    SlowRead,
    Idle,
}

const ATTACKS: [Attack; 4] = [Attack::SlowHead, Attack::SlowBody, Attack::SlowRead, Attack::Idle];

impl Attack {
    fn name(self) -> &'static str {
        match self {
            Self::SlowHead => "slow heads",
            Self::SlowBody => "slow bodies",
            Self::SlowRead => "slow reading",
            Self::Idle => "idle connections",
        }
    }

    fn opened_a_second(self) -> u32 {
        if self == Self::Idle { IDLE_RATE } else { SLOW_RATE }
    }

    /// What makes `slowhttptest` do it.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::SlowHead => &["-H", "-i", "2", "-x", "24"],
            Self::SlowBody => &["-B", "-i", "2", "-s", "8192", "-x", "10"],
            Self::SlowRead => &["-X", "-w", "1", "-y", "16", "-n", "2", "-z", "1", "-k", "3"],
            Self::Idle => &[],
        }
    }
}

/// What the senders met, summed over rounds and platforms; of percentiles the worst.
#[derive(Default)]
struct Met {
    callbacks: u64,
    failures: u64,
    p50_ms: f64,
    p99_ms: f64,
    slowest_ms: f64,
    problems: Vec<String>,
}

impl Met {
    fn hear(&mut self, told: &Told) {
        let worst = |seen: f64, key| seen.max(told.latency_ms(key).unwrap_or(f64::INFINITY));
        self.p50_ms = worst(self.p50_ms, "p50");
        self.p99_ms = worst(self.p99_ms, "p99");
        self.slowest_ms = worst(self.slowest_ms, "max");
        self.callbacks += told.callbacks;
        self.failures += told.failures() + told.lost() + told.wrong();
        let failed = told.what_failed();
        if !failed.is_empty() && self.problems.len() < 5 {
            self.problems.push(failed);
        }
    }

    fn is_slow(&self) -> bool {
        self.p99_ms >= P99_MAX.as_secs_f64() * 1e3
    }
}

/// How an attack went.
struct Attacked {
    connections: usize,
    /// The longest that one of them stayed open.
    stayed: Duration,
}

/// Each attack that many times, a new receiver for each.
fn run(rounds: u32, seed: u64) -> Found {
    let idle = raise_open_files();
    println!("   idle connections: {idle}, opened at {IDLE_RATE}/s");
    let mut found = Found {
        held: true,
        figure: String::new(),
        counts: Vec::new(),
        control: control(seed),
        problems: Vec::new(),
    };
    let mut figures = Vec::new();
    for attack in ATTACKS {
        let (mut met, mut stayed, mut connections) = (Met::default(), Duration::ZERO, 0);
        for number in 0..rounds {
            let seed = seed * 1_000 + u64::from(number) * 2;
            let attacked = round(attack, idle, seed, &mut met);
            stayed = stayed.max(attacked.stayed);
            connections = attacked.connections;
        }
        figures.push(found.judge(attack, connections, stayed, met, rounds > 1));
    }
    found.held = found.problems.is_empty();
    found.figure = figures.join("; ");
    found
}

impl Found {
    fn judge(
        &mut self,
        attack: Attack,
        connections: usize,
        stayed: Duration,
        met: Met,
        times_count: bool,
    ) -> String {
        let name = attack.name();
        let opened = attack.opened_a_second();
        let millis = u64::try_from(stayed.as_millis()).unwrap_or(u64::MAX);
        self.counts.extend([
            (format!("{name}: hostile connections"), connections as u64),
            (format!("{name}: opened in a second, at most"), u64::from(opened)),
            (format!("{name}: callbacks"), met.callbacks),
            (format!("{name}: failures"), met.failures),
            (format!("{name}: worst p50 in ms"), whole(met.p50_ms)),
            (format!("{name}: worst p99 in ms"), whole(met.p99_ms)),
            (format!("{name}: slowest in ms"), whole(met.slowest_ms)),
            (format!("{name}: longest a hostile connection stayed, in ms"), millis),
        ]);
        let (p99, failures) = (whole(met.p99_ms), met.failures);
        let mut problem = |is_one: bool, what: String| {
            if is_one {
                self.problems.push(format!("{name}: {what}"));
            }
        };
        problem(connections == 0, "the attack never began".to_owned());
        problem(times_count && met.is_slow(), format!("p99 is {p99} ms"));
        problem(
            times_count && stayed > STAY_MAX,
            format!("hostile connections stayed for {stayed:?}"),
        );
        met.problems.into_iter().for_each(|what| problem(true, what));
        format!(
            "{name} ({connections} at {opened}/s): p99 {p99} ms, {failures} failures, gone in {:.1} s",
            stayed.as_secs_f64()
        )
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times are no less")]
fn whole(ms: f64) -> u64 {
    ms.ceil() as u64
}

fn round(attack: Attack, idle: usize, seed: u64, met: &mut Met) -> Attacked {
    let setup = Setup::with_sources(&platform::sources());
    let server = setup.start();
    let connections = if attack == Attack::Idle { idle } else { SLOW_CONNECTIONS as usize };
    // As long as the attack at most: quiet times would make the percentiles better than they were.
    let lasts = opening(connections, attack.opened_a_second()) + STAY_MAX;
    let senders = HABITS.map(|name| {
        let seed = seed + u64::from(name == HABITS[0]);
        let arguments = [
            format!("--rate={RATE}"),
            format!("--duration={}ms", lasts.as_millis()),
            format!("--seed={seed}"),
            "--speed=1000".to_owned(),
        ];
        Platform::start(server.callbacks, name, Some(&setup.state()), &arguments)
    });
    eventually("both senders are at work", || {
        let page = server.metrics();
        HABITS.iter().all(|name| {
            let series = format!("receiptd_callbacks_total{{source=\"{name}\",code=\"204\"}}");
            metric(&page, &series) >= Some(5.0)
        })
    });
    let attacked = match attack {
        Attack::Idle => stay_idle(server.callbacks, idle),
        _ => slowhttptest(attack, &server),
    };
    for sender in senders {
        match sender.end() {
            Ok(told) => met.hear(&told),
            Err(why) => met.problems.push(why),
        }
    }
    server.stop();
    attacked
}

/// How long it takes to open so many.
fn opening(connections: usize, a_second: u32) -> Duration {
    Duration::from_millis(connections as u64 * 1_000 / u64::from(a_second))
}

/// Lets it attack until none of its connections is left, and follows each of them: `slowhttptest`
/// opens them more slowly than it is told, and notices a close long after it.
fn slowhttptest(attack: Attack, server: &Receiptd) -> Attacked {
    let mut attacker = Command::new("slowhttptest")
        .args(attack.arguments())
        .args(["-c", &SLOW_CONNECTIONS.to_string(), "-r", &SLOW_RATE.to_string()])
        .args(["-l", &SLOW_LASTS.as_secs().to_string(), "-v", "0"])
        .args(["-u", &format!("http://{}/callbacks/{}", server.callbacks, HABITS[0])])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("slowhttptest can be run");
    let began = Instant::now();
    let (mut opened, mut stayed) = (HashMap::new(), Duration::ZERO);
    while began.elapsed() < SLOW_LASTS + STAY_MAX {
        let open = established(attacker.id(), server.callbacks.port());
        let now = Instant::now();
        for port in &open {
            stayed = stayed.max(now - *opened.entry(*port).or_insert(now));
        }
        if open.is_empty() && opened.len() >= SLOW_CONNECTIONS as usize * 9 / 10 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = attacker.kill();
    let _ = attacker.wait();
    Attacked { connections: opened.len(), stayed }
}

/// The local ports of that process's connections to `port` that neither side has closed.
fn established(process: u32, port: u16) -> Vec<u16> {
    let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let links = files.filter_map(|file| fs::read_link(file.path()).ok());
    let sockets: HashSet<String> =
        links.filter_map(|link| inode(&link.to_string_lossy())).collect();
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let mine = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, "01", _, _, _, _, _, inode, ..] = words[..] else { return None };
        let port_of = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
        (port_of(remote)? == port && sockets.contains(inode)).then(|| port_of(local))?
    });
    mine.collect()
}

fn inode(link: &str) -> Option<String> {
    Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
}

/// Connections that say nothing, until the last of them is closed by the other side.
fn stay_idle(address: SocketAddr, connections: usize) -> Attacked {
    runtime().block_on(async {
        let mut idle = JoinSet::new();
        let began = Instant::now();
        for number in 0..connections {
            idle.spawn(async move {
                let connecting = TcpStream::connect(address);
                let mut stream = tokio::time::timeout(STAY_MAX * 2, connecting).await.ok()?.ok()?;
                let began = Instant::now();
                let _ = tokio::time::timeout(STAY_MAX * 3, stream.read(&mut [0; 512])).await;
                Some(began.elapsed())
            });
            tokio::time::sleep_until((began + opening(number + 1, IDLE_RATE)).into()).await;
        }
        let (mut opened, mut stayed) = (0, Duration::ZERO);
        while let Some(time) = idle.join_next().await {
            if let Some(time) = time.expect("waiting does not panic") {
                opened += 1;
                stayed = stayed.max(time);
            }
        }
        Attacked { connections: opened, stayed }
    })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// As many open files as this process may have; how many idle connections that is enough for.
fn raise_open_files() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let room = maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    IDLE_CONNECTIONS.min(room.saturating_sub(500))
}

/// A server with a thread for each of 64 connections, as many frameworks have it, and no time limits.
fn control(seed: u64) -> Control {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let listener = Arc::new(listener);
    for _ in 0..64 {
        let listener = Arc::clone(&listener);
        // They end with the harness: a connection that never speaks holds its thread for ever.
        std::thread::spawn(move || while bare(&listener) {});
    }
    let attack = std::thread::spawn(move || {
        runtime().block_on(async {
            let mut held = Vec::new();
            for _ in 0..CONTROL_CONNECTIONS {
                held.push(TcpStream::connect(address).await);
            }
            tokio::time::sleep(CONTROL_LASTS).await;
        });
    });
    let arguments = [
        "--rate=20".to_owned(),
        format!("--duration={}ms", CONTROL_LASTS.as_millis()),
        format!("--seed={seed}"),
        "--speed=1000".to_owned(),
        "--no-probe".to_owned(),
    ];
    let sender = Platform::start(address, "gc-notify", None, &arguments);
    attack.join().expect("the attack does not panic");
    let mut met = Met::default();
    match sender.end() {
        Ok(told) => met.hear(&told),
        Err(what) => return Control { what, caught: false },
    }
    Control {
        what: format!(
            "{CONTROL_CONNECTIONS} idle connections against a thread for each of 64: p99 {:.1} s, {} failures of {}",
            met.p99_ms / 1e3,
            met.failures,
            met.callbacks
        ),
        caught: met.is_slow() || met.failures > 0,
    }
}

/// Serves one connection to its end; whether the listener is still there.
fn bare(listener: &TcpListener) -> bool {
    let Ok((mut stream, _)) = listener.accept() else { return false };
    let mut piece = [0; 4096];
    while let Ok(1..) = stream.read(&mut piece) {
        if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() {
            break;
        }
    }
    true
}
