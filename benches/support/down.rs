//! A sink that is down for the whole of a burst: what that costs those who call, and how what is owed
//! leaves once it is up.

use std::time::{Duration, Instant};

use super::arrivals::Sink;
use super::common::Common;
use super::healthy::{self, CONNECTIONS, RATIO_MIN};
use super::load::{self, Outcome, Target};
use super::machine::MemoryWatch;
use super::owed::{self, Outbox};
use super::program::Done;
use super::receipt::Ids;
use super::report::Report;
use super::server::{Bench, Server};
use super::trial;

/// Receipts about each notification: enough that order means something.
const RECEIPTS_EACH: u64 = 4;
/// Beside what the burst without a sink takes, in MiB.
const MEMORY_MAX: f64 = 64.0;
const DRAIN_MAX: Duration = Duration::from_secs(900);
/// What is added to the backlog at a time.
const MORE: Duration = Duration::from_secs(2);

/// What was found.
struct Found {
    /// 204s a second while the sink was down.
    per_second: f64,
    uncertain: u64,
    mebibytes: f64,
    owed: u64,
    /// From the sink's coming up to the first arrival.
    noticed_in: Duration,
    /// From the first arrival to the last.
    drained_in: Duration,
    /// Resident memory while it drained, at most.
    mebibytes_draining: f64,
    missing: u64,
    inversions: u64,
    repeats: u64,
    parked: u64,
}

/// Once without a sink, once with one that is down, in the same run.
pub fn run(common: &Common, backlog: u64, bench: &Bench, report: &mut Report) -> Done {
    let without = healthy::plain(common, bench)?;
    trial::tell("without a sink", &without);
    let found = measure(common, backlog, bench)?;
    let ratio = found.per_second / without.per_second();
    print(&found, without.per_second(), without.mebibytes, ratio);
    judge(&found, without.mebibytes, ratio, report);
    Ok(())
}

fn measure(common: &Common, backlog: u64, bench: &Bench) -> Done<Found> {
    let (mut sink, address) = Sink::down()?;
    let server = bench.receiptd_with(&bench.files()?, &owed::http_sink(address))?;
    let mut ids = Ids::repeated(common.seed, RECEIPTS_EACH);
    let memory = MemoryWatch::start(server.pid());
    let outcome =
        load::closed_loop(target(&server, common), &mut ids, trial::WARM_UP, common.measured())?;
    let mut uncertain = outcome.uncertain();
    let outbox = Outbox::open(&server.state_file())?;
    server.wait_until_settled_within(DRAIN_MAX)?;
    while outbox.count()? < backlog {
        uncertain += more(&server, common, &mut ids)?.uncertain();
        server.wait_until_settled_within(DRAIN_MAX)?;
    }
    let mebibytes = memory.peak();
    let owed = outbox.ids()?;
    let memory = MemoryWatch::start(server.pid());
    let up = Instant::now();
    sink.come_up(address)?;
    let parked = outbox.parked()?;
    outbox.wait_until_empty(DRAIN_MAX)?;
    let mebibytes_draining = memory.peak();
    server.stop()?;
    let arrivals = sink.arrivals();
    let (first, last) = arrivals.span.ok_or("nothing arrived")?;
    Ok(Found {
        per_second: outcome.per_second(),
        uncertain,
        mebibytes,
        owed: owed.len() as u64,
        noticed_in: first.saturating_duration_since(up),
        drained_in: last - first,
        mebibytes_draining,
        missing: arrivals.missing(&owed),
        inversions: arrivals.inversions + arrivals.unreadable,
        repeats: arrivals.events - arrivals.changes(),
        parked,
    })
}

fn target(server: &Server, common: &Common) -> Target {
    Target { server: server.callbacks, connections: CONNECTIONS, reference: common.reference }
}

fn more(server: &Server, common: &Common, ids: &mut Ids) -> Done<Outcome> {
    Ok(load::closed_loop(target(server, common), ids, Duration::ZERO, MORE)?)
}

fn print(found: &Found, plain: f64, mebibytes: f64, ratio: f64) {
    println!(
        "\nsink down, {CONNECTIONS} connections, {RECEIPTS_EACH} receipts about each notification"
    );
    println!("  acknowledged without a sink: {plain:.0}/s, at most {mebibytes:.1} MiB");
    println!(
        "  acknowledged with a sink that is down: {ratio:.2} of that, at most {:.1} MiB",
        found.mebibytes
    );
    let rate = found.owed as f64 / found.drained_in.as_secs_f64();
    println!(
        "  {} changes drained in {:.1} s: {rate:.0}/s, at most {:.1} MiB; noticed {:.1} s after it came up",
        found.owed,
        found.drained_in.as_secs_f64(),
        found.mebibytes_draining,
        found.noticed_in.as_secs_f64()
    );
    let Found { missing, inversions, repeats, parked, .. } = found;
    println!(
        "  {missing} never arrived, {inversions} out of order, {repeats} repeats, {parked} parked"
    );
}

fn judge(found: &Found, mebibytes: f64, ratio: f64, report: &mut Report) {
    let when = "with a sink that was down";
    let uncertain = found.uncertain;
    report.require(format!("not answered 204 {when}: {uncertain} (0)"), uncertain == 0);
    healthy::require_arrived(when, found.missing, found.inversions, report);
    let more = found.mebibytes.max(found.mebibytes_draining) - mebibytes;
    let text =
        format!("memory {when}, beyond that without: {more:.0} MiB (under {MEMORY_MAX:.0} MiB)");
    report.require(text, more < MEMORY_MAX);
    let text = format!("acknowledged {when}, of that without: {ratio:.2} ({RATIO_MIN} or more)");
    report.aim(text, ratio >= RATIO_MIN);
}
