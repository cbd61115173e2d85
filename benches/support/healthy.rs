//! A sink that takes everything at once: what it costs those who call, how much leaves, and how long
//! a change takes to arrive.

use std::time::{Duration, Instant};

use super::arrivals::Sink;
use super::common::Common;
use super::database::Kept;
use super::histogram::Histogram;
use super::load::{self, Outcome, Target};
use super::owed::{self, Outbox};
use super::program::Done;
use super::receipt::{Id, Ids};
use super::report::{Report, median, ms};
use super::server::{Bench, Server};
use super::trial::{self, Load, Trial};

/// Connections of every load of `forward`.
pub const CONNECTIONS: usize = 64;
/// What a sink may cost.
pub const RATIO_MIN: f64 = 0.9;
const LEAVING_MIN: f64 = 5_000.0;
const PER_SECOND: u32 = 500;
const LASTING: Duration = Duration::from_secs(10);
const MEDIAN_MAX: Duration = Duration::from_millis(50);
/// How long what a load leaves behind may take to leave.
const DRAIN_MAX: Duration = Duration::from_secs(600);

/// One burst with a sink.
struct Burst {
    /// To the burst without a sink of the same round.
    ratio: f64,
    /// Changes that arrived a second while callbacks came as fast as they were taken.
    during: f64,
    /// And until the outbox was empty.
    whole: f64,
    /// From the last 204 until then.
    drained_in: Duration,
    owed: u64,
    missing: u64,
    inversions: u64,
    repeats: u64,
    others_percent: f64,
}

/// Runs all rounds, then the open loop.
pub fn run(common: &Common, bench: &Bench, report: &mut Report) -> Done {
    let mut without = Vec::new();
    let mut with = Vec::new();
    for round in 0..common.rounds {
        // Who goes first changes, so that a drift of the machine favours neither.
        let early = if round.is_multiple_of(2) { Some(plain(common, bench)?) } else { None };
        let mut burst = burst(common, bench)?;
        let plain = early.map_or_else(|| plain(common, bench), Ok)?;
        let rate = plain.per_second();
        burst.ratio /= rate;
        let (ratio, during) = (burst.ratio, burst.during);
        eprintln!(
            "round {}: {rate:.0}/s without, {ratio:.2} of it with, {during:.0}/s leave",
            round + 1
        );
        without.push(plain);
        with.push(burst);
    }
    print(common, &without, &with);
    judge(&without, &with, report);
    arrive(common, bench, report)
}

/// A burst without a sink.
pub fn plain(common: &Common, bench: &Bench) -> Done<Trial> {
    let load = Load::Closed(common.measured());
    trial::run(common, bench.receiptd()?, CONNECTIONS, load)
}

/// One with a sink; its rate stands where the ratio belongs.
fn burst(common: &Common, bench: &Bench) -> Done<Burst> {
    let (mut sink, address) = Sink::down()?;
    sink.come_up(address)?;
    let server = bench.receiptd_with(&bench.files()?, &owed::http_sink(address))?;
    let mut ids = Ids::new(common.seed);
    let target =
        Target { server: server.callbacks, connections: CONNECTIONS, reference: common.reference };
    let meter = super::machine::Meter::start(server.pid())?;
    let began = Instant::now();
    let outcome = load::closed_loop(target, &mut ids, trial::WARM_UP, common.measured())?;
    let lasted = began.elapsed();
    let during = sink.arrivals().changes() as f64 / lasted.as_secs_f64();
    let others_percent = meter.others_percent()?;
    drain(&server)?;
    let kept = Kept::count(&server, &outcome)?;
    if !kept.all() {
        return Err(format!("not everything was kept: {kept}").into());
    }
    server.stop()?;
    let arrivals = sink.arrivals();
    let (_, last) = arrivals.span.ok_or("nothing arrived")?;
    Ok(Burst {
        ratio: outcome.per_second(),
        during,
        whole: arrivals.changes() as f64 / (last - began).as_secs_f64(),
        drained_in: last.saturating_duration_since(outcome.last_acknowledged_at),
        owed: outcome.acknowledged,
        missing: outcome.acknowledged.saturating_sub(arrivals.notifications()),
        inversions: arrivals.inversions + arrivals.unreadable,
        repeats: arrivals.events - arrivals.changes(),
        others_percent,
    })
}

/// Waits until everything acknowledged is settled and has left.
fn drain(server: &Server) -> Done {
    server.wait_until_settled_within(DRAIN_MAX)?;
    Outbox::open(&server.state_file())?.wait_until_empty(DRAIN_MAX)
}

fn print(common: &Common, without: &[Trial], with: &[Burst]) {
    let figure = |read: fn(&Burst) -> f64| median(with.iter().map(read)).unwrap_or(0.0);
    let plain = median(without.iter().map(Trial::per_second)).unwrap_or(0.0);
    let seconds = common.measured().as_secs();
    println!(
        "\nhealthy sink, {CONNECTIONS} connections, {seconds} s, medians of {} rounds",
        common.rounds
    );
    println!("  acknowledged without a sink: {plain:.0}/s");
    println!(
        "  acknowledged with a sink: {:.2} of that in the same round",
        figure(|one| one.ratio)
    );
    println!("  changes that left during the burst: {:.0}/s", figure(|one| one.during));
    println!("  until the outbox was empty: {:.0}/s", figure(|one| one.whole));
    let drained = figure(|one| one.drained_in.as_secs_f64());
    println!("  from the last 204 until then: {drained:.2} s");
    for one in with {
        let Burst { owed, missing, inversions, repeats, others_percent, .. } = one;
        println!(
            "  {owed} acknowledged, {missing} never arrived, {inversions} out of order, {repeats} repeats; \
             others took {others_percent:.0} %"
        );
    }
}

fn judge(without: &[Trial], with: &[Burst], report: &mut Report) {
    trial::require_kept(without, "without a sink", report);
    require_arrived(
        "with a healthy sink",
        with.iter().map(|one| one.missing).sum(),
        with.iter().map(|one| one.inversions).sum(),
        report,
    );
    let figure = |read: fn(&Burst) -> f64| median(with.iter().map(read)).unwrap_or(0.0);
    let ratio = figure(|one| one.ratio);
    let text = format!(
        "acknowledged with a healthy sink, of that without: {ratio:.2} ({RATIO_MIN} or more)"
    );
    report.aim(text, ratio >= RATIO_MIN);
    for (what, rate) in [
        ("until all are out", figure(|one| one.whole)),
        ("during a burst", figure(|one| one.during)),
    ] {
        let text = format!("changes leave {what} at: {rate:.0}/s ({LEAVING_MIN:.0} or more)");
        report.aim(text, rate >= LEAVING_MIN);
    }
}

/// That nothing is missing and nothing out of order is not a matter of speed.
pub fn require_arrived(when: &str, missing: u64, inversions: u64, report: &mut Report) {
    report.require(format!("changes that never arrived {when}: {missing} (0)"), missing == 0);
    report.require(format!("changes out of order {when}: {inversions} (0)"), inversions == 0);
}

/// The open loop: from the 204 to the arrival.
fn arrive(common: &Common, bench: &Bench, report: &mut Report) -> Done {
    let (mut sink, address) = Sink::down()?;
    sink.come_up(address)?;
    let server = bench.receiptd_with(&bench.files()?, &owed::http_sink(address))?;
    let target =
        Target { server: server.callbacks, connections: CONNECTIONS, reference: common.reference };
    let mut acknowledged = Vec::new();
    let mut ids = Ids::new(common.seed);
    let lasting = LASTING.min(common.measured());
    let outcome = load::open_loop(target, &mut ids, PER_SECOND, lasting, |id, now| {
        acknowledged.push((id, now));
    })?;
    drain(&server)?;
    server.stop()?;
    judge_arrivals(&outcome, &acknowledged, &sink, report);
    Ok(())
}

fn judge_arrivals(
    outcome: &Outcome,
    acknowledged: &[(Id, Instant)],
    sink: &Sink,
    report: &mut Report,
) {
    let arrivals = sink.arrivals();
    let mut delay = Histogram::new();
    let mut missing = 0;
    for (id, since) in acknowledged {
        match arrivals.first_at(*id) {
            // It may arrive before we have read the 204.
            Some(at) => delay.record(at.saturating_duration_since(*since)),
            None => missing += 1,
        }
    }
    let [p50, p99, p999] = [500, 990, 999].map(|per_mille| delay.quantile(per_mille));
    println!("\nhealthy sink, open loop at {PER_SECOND}/s for {} s", outcome.measured.as_secs());
    println!(
        "  from 204 to arrival: p50 {} ms, p99 {} ms, p99.9 {} ms, max {} ms ({})",
        ms(p50),
        ms(p99),
        ms(p999),
        ms(delay.max()),
        delay.count()
    );
    let when = format!("at {PER_SECOND}/s");
    let uncertain = outcome.uncertain();
    report.require(format!("not answered 204 {when} with a sink: {uncertain} (0)"), uncertain == 0);
    require_arrived(&when, missing, arrivals.inversions + arrivals.unreadable, report);
    let text = format!("from 204 to arrival {when}, median: {} ms (under 50 ms)", ms(p50));
    report.aim(text, p50 < MEDIAN_MAX);
}
