//! Nothing is kept: a callback is answered once JetStream has its change.

use super::common::Common;
use super::healthy::CONNECTIONS;
use super::jetstream::JetStream;
use super::load::{self, Outcome, Target};
use super::program::Done;
use super::receipt::Ids;
use super::report::{Report, median, ms};
use super::server::Bench;
use super::trial;

const RATIO_MIN: f64 = 0.3;

/// One burst.
struct Run {
    outcome: Outcome,
    ratio: f64,
    in_stream: u64,
}

/// Runs all rounds, the yardstick before each.
pub fn run(common: &Common, bench: &Bench, report: &mut Report) -> Done {
    let mut runs = Vec::new();
    for _ in 0..common.rounds {
        let bare = trial::bare(common, bench, CONNECTIONS)?;
        let run = burst(common, bench, bare)?;
        eprintln!("relay: {:.0}/s, {:.2} of bare hyper", run.outcome.per_second(), run.ratio);
        runs.push(run);
    }
    let figure = |read: fn(&Run) -> f64| median(runs.iter().map(read)).unwrap_or(0.0);
    let (rate, ratio) = (figure(|run| run.outcome.per_second()), figure(|run| run.ratio));
    let seconds = common.measured().as_secs();
    println!(
        "\nrelay into JetStream, {CONNECTIONS} connections, {seconds} s, medians of {}",
        common.rounds
    );
    println!("  acknowledged: {rate:.0}/s, {ratio:.2} of bare hyper");
    let latency = |per_mille| {
        ms(median(runs.iter().map(|run| run.outcome.latency.quantile(per_mille)))
            .unwrap_or_default())
    };
    println!("  p50 {} ms, p99 {} ms, p99.9 {} ms", latency(500), latency(990), latency(999));
    for Run { outcome, in_stream, .. } in &runs {
        println!("  {} acknowledged, {in_stream} in the stream", outcome.acknowledged);
    }
    judge(&runs, ratio, report);
    Ok(())
}

fn burst(common: &Common, bench: &Bench, bare: f64) -> Done<Run> {
    let nats = JetStream::start(&bench.files()?)?;
    let server = bench.relay(&nats.relay())?;
    let target =
        Target { server: server.callbacks, connections: CONNECTIONS, reference: common.reference };
    let mut ids = Ids::new(common.seed);
    let outcome = load::closed_loop(target, &mut ids, trial::WARM_UP, common.measured())?;
    if outcome.uncertain() > 0 {
        eprintln!("{} requests not answered 204\n{}", outcome.uncertain(), server.last_words());
    }
    server.stop()?;
    let in_stream = nats.messages()?;
    let ratio = outcome.per_second() / bare;
    Ok(Run { outcome, ratio, in_stream })
}

fn judge(runs: &[Run], ratio: f64, report: &mut Report) {
    let uncertain: u64 = runs.iter().map(|run| run.outcome.uncertain()).sum();
    report.require(format!("not answered 204 by a relay: {uncertain} (0)"), uncertain == 0);
    // Every receipt is of its own notification, and the stream drops repeats by their ids.
    let lost: u64 =
        runs.iter().map(|run| run.outcome.acknowledged.saturating_sub(run.in_stream)).sum();
    report.require(format!("acknowledged by a relay and not in the stream: {lost} (0)"), lost == 0);
    let text = format!("relay into JetStream, of bare hyper: {ratio:.2} ({RATIO_MIN} or more)");
    report.aim(text, ratio >= RATIO_MIN);
}
