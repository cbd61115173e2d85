//! One run against one server of whatever kind, from its start to what it kept.

use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use super::common::Common;
use super::database::Kept;
use super::load::{self, Outcome, Target};
use super::machine::{MemoryWatch, Meter};
use super::receipt::Ids;
use super::report::{Report, median, ms};
use super::server::{Bench, Server};

/// Of every closed loop.
pub const WARM_UP: Duration = Duration::from_secs(1);
/// How long the state may take to follow after the load.
const SETTLE_MAX: Duration = Duration::from_secs(900);

/// What came of it.
pub struct Trial {
    /// Of the requests; the first, which only told that the server is there, is acknowledged too.
    pub outcome: Outcome,
    /// From the start of the process to the first 204.
    pub start: Duration,
    /// The most that the server and its children held, in MiB.
    pub mebibytes: f64,
    /// From the last 204 until all of them were in the state; zero where that is the same commit.
    pub lag: Duration,
    /// What is there afterwards; nothing of the yardstick.
    pub kept: Option<Kept>,
    /// Of the processors, what neither generator nor server used.
    pub others_percent: f64,
    whole: Duration,
}

impl Trial {
    /// 204s a second while it was measured.
    pub fn per_second(&self) -> f64 {
        self.outcome.per_second()
    }

    /// Callbacks a second that receiptd's state followed with, the lag included in the time.
    pub fn in_state_per_second(&self) -> f64 {
        self.outcome.acknowledged as f64 / self.whole.as_secs_f64().max(f64::EPSILON)
    }
}

/// How much is asked of a server.
#[derive(Clone, Copy)]
pub enum Load {
    /// As much as it takes, after a second of warm-up, for so long.
    Closed(Duration),
    /// So many a second whatever it does, for so long.
    Open(u32, Duration),
}

/// Loads a server that has just been started, lets it finish, counts, and stops it.
pub fn run(
    common: &Common,
    server: Server,
    connections: usize,
    load: Load,
) -> Result<Trial, Box<dyn Error>> {
    run_beside(common, server, connections, load, 0)
}

/// The same where so many notifications were there before.
pub fn run_beside(
    common: &Common,
    mut server: Server,
    connections: usize,
    load: Load,
    before: u64,
) -> Result<Trial, Box<dyn Error>> {
    let mut ids = Ids::new(common.seed);
    let start = server.first_acknowledged(&mut ids, common.reference)?;
    let target = Target { server: server.callbacks, connections, reference: common.reference };
    let (meter, memory) = (Meter::start(server.pid())?, MemoryWatch::start(server.pid()));
    let began = Instant::now();
    let outcome = match load {
        Load::Closed(measured) => load::closed_loop(target, &mut ids, WARM_UP, measured),
        Load::Open(rate, lasting) => load::open_loop(target, &mut ids, rate, lasting, |_, _| {}),
    };
    let others_percent = meter.others_percent()?;
    let ended = finish(&server);
    let mebibytes = memory.peak();
    let (mut outcome, ended) = (outcome?, ended?);
    outcome.acknowledged += 1;
    if outcome.uncertain() > 0 {
        eprintln!("{} requests not answered 204\n{}", outcome.uncertain(), server.last_words());
    }
    let is_behind = server.settles();
    let lag = if is_behind { ended - outcome.last_acknowledged_at } else { Duration::ZERO };
    let whole = ended - began;
    let kept = count(&server, &outcome)?.map(|kept| kept.beside(before));
    server.stop()?;
    Ok(Trial { outcome, start, mebibytes, lag, kept, others_percent, whole })
}

/// When everything acknowledged was in the state.
fn finish(server: &Server) -> io::Result<Instant> {
    if server.settles() {
        server.wait_until_settled_within(SETTLE_MAX)?;
    }
    Ok(Instant::now())
}

fn count(server: &Server, outcome: &Outcome) -> rusqlite::Result<Option<Kept>> {
    match server.rows_file() {
        Some(file) => Kept::count_rows(file, outcome).map(Some),
        None if server.settles() => Kept::count(server, outcome).map(Some),
        None => Ok(None),
    }
}

/// Requests a second of the yardstick, to divide by.
pub fn bare(common: &Common, bench: &Bench, connections: usize) -> Result<f64, Box<dyn Error>> {
    let load = Load::Closed(common.measured());
    run(common, bench.bare()?, connections, load).map(|trial| trial.per_second())
}

/// The median over trials of what `per_mille` of a thousand answers did not exceed.
pub fn latency(trials: &[Trial], per_mille: u64) -> Duration {
    let latencies = trials.iter().map(|trial| trial.outcome.latency.quantile(per_mille));
    median(latencies).unwrap_or(Duration::MAX)
}

/// The median lag.
pub fn lag(trials: &[Trial]) -> Duration {
    median(trials.iter().map(|trial| trial.lag)).unwrap_or(Duration::MAX)
}

/// A line on standard error for whoever waits.
pub fn tell(name: &str, trial: &Trial) {
    let (rate, p99) = (trial.per_second(), ms(trial.outcome.latency.quantile(990)));
    let (lag, others) = (trial.lag.as_secs_f64(), trial.others_percent);
    eprintln!("{name}: {rate:.0}/s, p99 {p99} ms, lag {lag:.2} s; others took {others:.0} %");
}

/// What each kept.
pub fn print_kept(trials: &[Trial]) {
    for kept in trials.iter().filter_map(|trial| trial.kept) {
        println!("  {kept}");
    }
}

/// That all of them answered everything and kept all of it is not a matter of speed.
pub fn require_kept(trials: &[Trial], when: &str, report: &mut Report) {
    let uncertain: u64 = trials.iter().map(|trial| trial.outcome.uncertain()).sum();
    report.require(format!("not answered 204 {when}: {uncertain} (0)"), uncertain == 0);
    let whole = trials.iter().filter(|one| one.kept.is_some_and(|kept| kept.all())).count();
    let of = trials.len();
    report.require(format!("runs {when} that kept everything: {whole} (all {of})"), whole == of);
}
