//! How long an acknowledged callback takes to show in the state, at 1,000 a second.

use std::error::Error;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::database::{Kept, State};
use super::histogram::Histogram;
use super::load::{self, Outcome, Target};
use super::options::Options;
use super::receipt::{Id, Ids};
use super::report::{Report, ms};
use super::server::{Bench, Server};

const PER_SECOND: u32 = 1_000;
const LASTING: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 64;
/// Every so many-th acknowledged callback is looked for, so that looking does not become the load.
const ONE_IN: u64 = 10;
/// Between two looks; also about how exact the figure is.
const PACE: Duration = Duration::from_micros(500);
/// What does not show this long after the last acknowledgement never will.
const PATIENCE: Duration = Duration::from_secs(10);

/// A callback we have the 204 of and wait to see.
type Awaited = (Id, Instant);

/// What looking found.
struct Seen {
    lag: Histogram,
    never: usize,
}

/// Runs the open loop and prints both latencies.
pub fn run(options: &Options, bench: &Bench, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let server = bench.receiptd()?;
    let (outcome, seen) = drive(options, &server)?;
    server.wait_until_settled()?;
    let kept = Kept::count(&server, &outcome)?;
    server.stop()?;
    print(&outcome, &seen, kept);
    judge(&outcome, &seen, kept, report);
    Ok(())
}

fn drive(options: &Options, server: &Server) -> Result<(Outcome, Seen), Box<dyn Error>> {
    let state = State::open(&server.state_file())?;
    let target = Target {
        server: server.callbacks,
        connections: CONNECTIONS,
        reference: options.common.reference,
    };
    let (tell, told) = mpsc::channel();
    let watcher = thread::spawn(move || watch(&state, &told));
    let mut acknowledged = 0;
    let mut ids = Ids::new(options.common.seed);
    let outcome = load::open_loop(target, &mut ids, PER_SECOND, LASTING, |id, now| {
        if acknowledged % ONE_IN == 0 {
            let _ = tell.send((id, now));
        }
        acknowledged += 1;
    })?;
    drop(tell);
    Ok((outcome, watcher.join().expect("watching does not panic")?))
}

/// Looks for each callback it is told of until all are seen or patience ends.
fn watch(state: &State, told: &Receiver<Awaited>) -> rusqlite::Result<Seen> {
    let mut lag = Histogram::new();
    let mut awaited = Vec::new();
    let mut all_told_at = None;
    loop {
        if take_what_is_told(told, &mut awaited) && all_told_at.is_none() {
            all_told_at = Some(Instant::now());
        }
        let mut still = Vec::with_capacity(awaited.len());
        for (id, since) in awaited.drain(..) {
            if state.shows(id)? {
                lag.record(since.elapsed());
            } else {
                still.push((id, since));
            }
        }
        awaited = still;
        if all_told_at.is_some_and(|at| awaited.is_empty() || at.elapsed() > PATIENCE) {
            return Ok(Seen { lag, never: awaited.len() });
        }
        thread::sleep(PACE);
    }
}

/// True once there is nothing more to come.
fn take_what_is_told(told: &Receiver<Awaited>, awaited: &mut Vec<Awaited>) -> bool {
    loop {
        match told.try_recv() {
            Ok(one) => awaited.push(one),
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => return true,
        }
    }
}

fn print(outcome: &Outcome, seen: &Seen, kept: Kept) {
    println!("\nvisible, open loop at {PER_SECOND}/s for {} s", LASTING.as_secs());
    let line = |what: &str, of: &Histogram| {
        let [p50, p99, p999] = [500, 990, 999].map(|per_mille| ms(of.quantile(per_mille)));
        let (count, max) = (of.count(), ms(of.max()));
        println!("  {what}: p50 {p50} ms, p99 {p99} ms, p99.9 {p999} ms, max {max} ms ({count})");
    };
    line("from due to 204", &outcome.latency);
    line("from 204 to state", &seen.lag);
    println!("  {kept}");
}

fn judge(outcome: &Outcome, seen: &Seen, kept: Kept, report: &mut Report) {
    let (median, p99) = (seen.lag.quantile(500), seen.lag.quantile(990));
    let limit = Duration::from_millis(50);
    let reached = p99 < limit && seen.never == 0 && seen.lag.count() > 0;
    let text = format!("state visible at 1,000/s, p99: {} ms (under 50 ms)", ms(p99));
    report.require(text, reached);
    kept.require("at 1,000/s", report);
    let reached = median < Duration::from_millis(10);
    report
        .aim(format!("state visible at 1,000/s, median: {} ms (under 10 ms)", ms(median)), reached);
    let p99 = outcome.latency.quantile(990);
    let reached = p99 < Duration::from_millis(10);
    report.aim(format!("answered at 1,000/s, p99: {} ms (under 10 ms)", ms(p99)), reached);
}
