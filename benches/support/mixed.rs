//! A bad day: callbacks come at their usual rate while the journal is pruned, checkpoints run and
//! others read the state.

use std::error::Error;
use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::database::{Kept, State};
use super::load::{self, Outcome, Target};
use super::options::Options;
use super::preload::Base;
use super::receipt::Ids;
use super::report::{Report, ms};
use super::server::{Bench, Server};

const PER_SECOND: u32 = 1_000;
const CONNECTIONS: usize = 64;
/// There before; the older half of them is pruned.
const STORED: u64 = 200_000;
/// What the first pruning removes from both files.
const OLD: &str = "30d";
/// What the others remove from the journal, again and again.
const RECENT: &str = "5s";
const PRUNE_PAUSE: Duration = Duration::from_secs(2);
/// Between two reports over the whole table, and between two pages of the history.
const REPORT_PAUSE: Duration = Duration::from_secs(1);
const PAGE_PAUSE: Duration = Duration::from_millis(20);
const P99_MAX: Duration = Duration::from_millis(10);
const MAX: Duration = Duration::from_secs(1);

/// What was going on beside the load.
#[derive(Default)]
struct Beside {
    prunings: AtomicU64,
    reports: AtomicU64,
    pages: AtomicU64,
}

/// Runs the open loop once.
pub fn run(options: &Options, bench: &Bench, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let files = Base::find_or_make(options, bench, STORED)?.copy(bench)?;
    let server = bench.receiptd_on(&files, Duration::ZERO)?;
    let beside = Beside::default();
    let outcome = drive(options, bench, &server, &beside)?;
    server.wait_until_settled()?;
    // The older half is gone from both files, and most callbacks from the journal.
    let kept = Kept::count(&server, &outcome)?.beside(STORED - STORED / 2).in_state_only();
    server.stop()?;
    print(options, &outcome, &beside, kept);
    judge(&outcome, kept, report);
    Ok(())
}

fn drive(
    options: &Options,
    bench: &Bench,
    server: &Server,
    beside: &Beside,
) -> Result<Outcome, Box<dyn Error>> {
    let target = Target {
        server: server.callbacks,
        connections: CONNECTIONS,
        reference: options.common.reference,
    };
    let state = server.state_file();
    let readers = [State::open(&state)?, State::open(&state)?];
    let over = AtomicBool::new(false);
    thread::scope(|threads| {
        let ([reporter, follower], over) = (readers, &over);
        let pruning = threads.spawn(|| prune(bench, server, over, &beside.prunings));
        let reading = [
            threads.spawn(move || report_on(&reporter, over, &beside.reports)),
            threads.spawn(move || follow(&follower, over, &beside.pages)),
        ];
        let mut ids = Ids::new(options.common.seed);
        let outcome = load::open_loop(target, &mut ids, PER_SECOND, options.sustained(), |_, _| {});
        over.store(true, Ordering::Relaxed);
        pruning.join().expect("pruning does not panic")?;
        for one in reading {
            one.join().expect("reading does not panic")?;
        }
        Ok(outcome?)
    })
}

/// A report over the whole table, now and then.
fn report_on(state: &State, over: &AtomicBool, times: &AtomicU64) -> rusqlite::Result<()> {
    while !over.load(Ordering::Relaxed) {
        state.count_by_status()?;
        times.fetch_add(1, Ordering::Relaxed);
        thread::sleep(REPORT_PAUSE);
    }
    Ok(())
}

/// What an app does that follows the history, page by page.
fn follow(state: &State, over: &AtomicBool, times: &AtomicU64) -> rusqlite::Result<()> {
    let mut read_up_to = 0;
    while !over.load(Ordering::Relaxed) {
        if let Some(seq) = state.page_of_history(read_up_to)? {
            read_up_to = seq;
            times.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(PAGE_PAUSE);
    }
    Ok(())
}

/// What arrived long ago from both files, then what has just arrived from the journal, over and
/// over: there is always something being pruned.
fn prune(bench: &Bench, server: &Server, over: &AtomicBool, times: &AtomicU64) -> io::Result<()> {
    let prune = |arguments: &[&str]| {
        let mut command = Command::new(bench.binary());
        command.arg("prune").arg("--db").arg(server.state_file()).args(arguments);
        let done = command.output()?;
        // 1 says that a reader kept a log from being emptied, as readers do here.
        if !matches!(done.status.code(), Some(0 | 1)) {
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            return Err(io::Error::other(format!("receiptd prune: {said}")));
        }
        times.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    prune(&["--older-than", OLD])?;
    while !over.load(Ordering::Relaxed) {
        prune(&["--older-than", RECENT, "--bodies-only"])?;
        thread::sleep(PRUNE_PAUSE);
    }
    Ok(())
}

fn print(options: &Options, outcome: &Outcome, beside: &Beside, kept: Kept) {
    let seconds = options.sustained().as_secs();
    println!("\nmixed, open loop at {PER_SECOND}/s for {seconds} s, {STORED} stored before");
    let latency = &outcome.latency;
    let [p50, p99, p999] = [500, 990, 999].map(|per_mille| ms(latency.quantile(per_mille)));
    let max = ms(latency.max());
    println!("  from due to 204: p50 {p50} ms, p99 {p99} ms, p99.9 {p999} ms, max {max} ms");
    let [prunings, reports, pages] = [&beside.prunings, &beside.reports, &beside.pages]
        .map(|times| times.load(Ordering::Relaxed));
    println!(
        "  meanwhile: {prunings} prunings, {reports} reports over all, {pages} pages of the history"
    );
    println!("  {kept}");
}

fn judge(outcome: &Outcome, kept: Kept, report: &mut Report) {
    let (p99, max) = (outcome.latency.quantile(990), outcome.latency.max());
    report.aim(format!("mixed, p99: {} ms (under 10 ms)", ms(p99)), p99 < P99_MAX);
    report.require(format!("mixed, longest: {} ms (under 1 s)", ms(max)), max < MAX);
    kept.require("in mixed", report);
}
