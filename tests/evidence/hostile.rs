//! Promise 10: slow and hostile clients cannot starve the real one.
//!
//! `slowhttptest` holds 2,000 connections by slow heads, slow bodies and slow reading, and 10,000
//! connections say nothing at all, against a receiver with its default limit of 1,024. Meanwhile a
//! sender posts on a schedule that does not forgive: a callback's time counts from when it was due.
//! Half of its callbacks go over kept connections, half over new ones, with the senders' own time
//! limits.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use receiptd::client::{self, Client, Options, Target};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::Promise;
use super::report::{Control, Found};
use super::support::{PATH, Receiptd, Setup, TOKEN, metric, receipt};

/// What is promised.
pub const PROMISE: Promise = Promise {
    name: "hostile",
    number: 10,
    claim: "Slow and hostile clients cannot starve the real one",
    needs_root: false,
    needs: &[],
    rounds: (5, 1),
    run,
};

/// The slowest that one callback in a hundred may be.
const P99_MAX: Duration = Duration::from_millis(250);

/// The longest that a hostile connection may stay.
const STAY_MAX: Duration = Duration::from_secs(10);

/// Callbacks of the real sender in a second.
const RATE: u32 = 100;

/// Connections of `slowhttptest`, and how many it opens in a second.
const SLOW_CONNECTIONS: u32 = 2_000;
const SLOW_RATE: u32 = 1_000;

/// Connections that say nothing.
const IDLE_CONNECTIONS: usize = 10_000;

/// Connections that the real sender keeps.
const POOL_MAX: usize = 16;

/// The most connections that are the real sender's, or ask for the metrics.
const OWN_CONNECTIONS_MAX: u32 = 32;

/// Idle connections that are enough for a server with 64 threads.
const CONTROL_CONNECTIONS: usize = 100;

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

/// What the sender met.
#[derive(Default)]
struct Met {
    times: Vec<Duration>,
    failures: Vec<String>,
}

impl Met {
    fn percentile(&mut self, share: f64) -> Duration {
        self.times.sort();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let at = (self.times.len() as f64 * share) as usize;
        self.times.get(at.min(self.times.len().saturating_sub(1))).copied().unwrap_or(Duration::MAX)
    }
}

/// How an attack went.
struct Attacked {
    connections: usize,
    /// From the moment when the last connection was opened until none was left.
    stayed: Duration,
}

/// Each attack that many times, a new receiver for each.
fn run(rounds: u32, _seed: u64) -> Found {
    let idle = raise_open_files();
    let mut found = Found {
        held: true,
        figure: String::new(),
        counts: Vec::new(),
        control: control(),
        problems: Vec::new(),
    };
    let mut figures = Vec::new();
    for attack in ATTACKS {
        if attack != Attack::Idle && !has_slowhttptest() {
            found.counts.push((format!("SKIPPED, no slowhttptest: {}", attack.name()), 0));
            continue;
        }
        let (mut met, mut stayed, mut connections) = (Met::default(), Duration::ZERO, 0);
        for _ in 0..rounds {
            let (attacked, one) = round(attack, idle, &mut found.problems);
            stayed = stayed.max(attacked.stayed);
            connections = attacked.connections;
            met.times.extend(one.times);
            met.failures.extend(one.failures);
        }
        figures.push(found.judge(attack, connections, stayed, &mut met));
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
        met: &mut Met,
    ) -> String {
        let name = attack.name();
        let p99 = met.percentile(0.99);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let worst = met.percentile(1.0);
        self.counts.extend([
            (format!("{name}: hostile connections"), connections as u64),
            (format!("{name}: callbacks"), (met.times.len() + met.failures.len()) as u64),
            (format!("{name}: failures"), met.failures.len() as u64),
            (format!("{name}: p50 in ms"), millis(met.percentile(0.5))),
            (format!("{name}: p99 in ms"), millis(p99)),
            (format!("{name}: slowest in ms"), millis(worst)),
            (format!("{name}: hostile connections gone after ms"), millis(stayed)),
        ]);
        let mut problem = |is_one: bool, what: String| {
            if is_one {
                self.problems.push(format!("{name}: {what}"));
            }
        };
        problem(connections == 0, "the attack never began".to_owned());
        problem(p99 >= P99_MAX, format!("p99 is {p99:?}"));
        problem(stayed > STAY_MAX, format!("hostile connections stayed for {stayed:?}"));
        problem(
            !met.failures.is_empty(),
            format!("{} failures, first: {:?}", met.failures.len(), met.failures.first()),
        );
        format!(
            "{name}: p99 {} ms, {} failures, gone in {:.1} s",
            millis(p99),
            met.failures.len(),
            stayed.as_secs_f64()
        )
    }
}

fn round(attack: Attack, idle: usize, problems: &mut Vec<String>) -> (Attacked, Met) {
    let setup = Setup::new();
    let server = setup.start();
    let sender = Sender::start(server.callbacks);
    let attacked = match attack {
        Attack::Idle => stay_idle(server.callbacks, idle),
        _ => slowhttptest(attack, &server),
    };
    let met = sender.stop();
    server.settled();
    server.stop();
    let kept = setup.callbacks();
    if kept < i64::try_from(met.times.len()).expect("thousands") {
        problems.push(format!("{} acknowledged, {kept} kept", met.times.len()));
    }
    (attacked, met)
}

/// The real sender, until it is stopped.
struct Sender {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Met>,
}

impl Sender {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || runtime().block_on(send(address, &stop))
        });
        Self { stop, thread }
    }

    fn stop(self) -> Met {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sender does not panic")
    }
}

/// Posts on a schedule, whatever the answers do.
async fn send(address: SocketAddr, stop: &AtomicBool) -> Met {
    let target = Target::parse(&format!("http://{address}{PATH}")).expect("a URL");
    let pool: Arc<Mutex<Vec<Client>>> = Arc::default();
    let mut posts = JoinSet::new();
    let began = Instant::now();
    let mut met = Met::default();
    for number in 0.. {
        let due = began + Duration::from_secs(1) * number / RATE;
        tokio::time::sleep_until(due.into()).await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let keeps = number % 2 == 0;
        let kept = if keeps { pool.lock().expect("no panic here").pop() } else { None };
        let options = Options { keep_alive: keeps, ..Options::default() };
        let client = kept.unwrap_or_else(|| Client::new(target.clone(), options).expect("no TLS"));
        posts.spawn(post(client, keeps.then(|| Arc::clone(&pool)), number, due));
        while let Some(done) = posts.try_join_next() {
            met.hear(done.expect("posting does not panic"));
        }
    }
    while let Some(done) = posts.join_next().await {
        met.hear(done.expect("posting does not panic"));
    }
    met
}

impl Met {
    fn hear(&mut self, heard: Result<Duration, String>) {
        match heard {
            Ok(time) => self.times.push(time),
            Err(failure) => self.failures.push(failure),
        }
    }
}

async fn post(
    mut client: Client,
    pool: Option<Arc<Mutex<Vec<Client>>>>,
    number: u32,
    due: Instant,
) -> Result<Duration, String> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, client::bearer(TOKEN).expect("a header"));
    let body = Bytes::from(receipt(&format!("n{number}")));
    match client.post(headers, body).await {
        Ok(answer) if answer.code == 204 => {
            let time = due.elapsed();
            if let Some(pool) = pool {
                let mut pool = pool.lock().expect("no panic here");
                if pool.len() < POOL_MAX {
                    pool.push(client);
                }
            }
            Ok(time)
        }
        Ok(answer) => Err(format!("answered {}", answer.code)),
        Err(error) => Err(error.to_string()),
    }
}

/// Lets it attack until the receiver has none of its connections left. What the receiver says is
/// what counts: a client that reads a byte in two seconds notices a close long after it.
fn slowhttptest(attack: Attack, server: &Receiptd) -> Attacked {
    let opening = Duration::from_secs(u64::from(SLOW_CONNECTIONS / SLOW_RATE));
    let began = Instant::now();
    let mut attacker = Command::new("slowhttptest")
        .args(attack.arguments())
        .args(["-c", &SLOW_CONNECTIONS.to_string(), "-r", &SLOW_RATE.to_string()])
        .args(["-l", "20", "-v", "0", "-u", &format!("http://{}{PATH}", server.callbacks)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("slowhttptest can be run");
    let mut most = 0;
    let mut last = began;
    while began.elapsed() < opening + STAY_MAX * 2 {
        let open = metric(&server.metrics(), "receiptd_connections").unwrap_or(0.0);
        if open > f64::from(OWN_CONNECTIONS_MAX) {
            last = Instant::now();
            most += 1;
        } else if began.elapsed() > opening + Duration::from_secs(1) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = attacker.kill();
    let _ = attacker.wait();
    // An attack that nobody noticed proves nothing.
    let connections = if most > 0 { SLOW_CONNECTIONS as usize } else { 0 };
    Attacked { connections, stayed: last.saturating_duration_since(began + opening) }
}

fn has_slowhttptest() -> bool {
    let quiet = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()
    };
    quiet(Command::new("slowhttptest").arg("-h")).is_ok()
}

/// Connections that say nothing, until the last of them is closed by the other side.
fn stay_idle(address: SocketAddr, connections: usize) -> Attacked {
    runtime().block_on(async {
        let mut idle = JoinSet::new();
        for number in 0..connections {
            idle.spawn(async move {
                let connecting = TcpStream::connect(address);
                let mut stream = tokio::time::timeout(STAY_MAX * 2, connecting).await.ok()?.ok()?;
                let began = Instant::now();
                let _ = tokio::time::timeout(STAY_MAX * 3, stream.read(&mut [0; 512])).await;
                Some(began.elapsed())
            });
            // A thousand in a second, as `slowhttptest` opens them: a flood of new connections is
            // another attack, against which only the kernel and what stands in front can help.
            if number % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
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
fn control() -> Control {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let listener = Arc::new(listener);
    for _ in 0..64 {
        let listener = Arc::clone(&listener);
        // They end with the harness: a connection that never speaks holds its thread for ever.
        std::thread::spawn(move || while bare(&listener) {});
    }
    let sender = Sender::start(address);
    let attack = std::thread::spawn(move || {
        runtime().block_on(async {
            let mut held = JoinSet::new();
            for _ in 0..CONTROL_CONNECTIONS {
                held.spawn(async move {
                    let stream = TcpStream::connect(address).await;
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    drop(stream);
                });
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
            drop(held);
        });
    });
    attack.join().expect("the attack does not panic");
    let mut met = sender.stop();
    let p99 = met.percentile(0.99);
    Control {
        what: format!(
            "{CONTROL_CONNECTIONS} idle connections against a thread for each of 64: p99 {:.1} s, {} failures of {}",
            p99.as_secs_f64(),
            met.failures.len(),
            met.times.len() + met.failures.len()
        ),
        caught: p99 >= P99_MAX || !met.failures.is_empty(),
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
