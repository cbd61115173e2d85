//! As much as the server takes for a minute: what it can keep up, not what it can put off.

use std::error::Error;
use std::time::Duration;

use super::options::Options;
use super::report::{Report, median, ms};
use super::server::Bench;
use super::trial::{self, Trial};

const CONNECTIONS: usize = 64;
const RATIO_MIN: f64 = 0.22;
const LAG_MAX: Duration = Duration::from_secs(1);

/// Runs all rounds. The yardstick runs before and after each, for the time of a burst.
pub fn run(options: &Options, bench: &Bench, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let (mut trials, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let before = trial::bare(options, bench, CONNECTIONS)?;
        let trial = trial::run(options, bench.receiptd()?, CONNECTIONS, options.sustained())?;
        let bare = f64::midpoint(before, trial::bare(options, bench, CONNECTIONS)?);
        trial::tell("sustained", &trial);
        ratios.push(trial.per_second() / bare);
        trials.push(trial);
    }
    let ratio = median(ratios).unwrap_or(0.0);
    print(options, &trials, ratio);
    let text = format!("sustained ratio: {ratio:.2} ({RATIO_MIN:.2} or more)");
    report.aim(text, ratio >= RATIO_MIN);
    let lag = trial::lag(&trials);
    let text = format!("lag after a sustained run: {:.2} s (under 1 s)", lag.as_secs_f64());
    report.aim(text, lag < LAG_MAX);
    trial::require_kept(&trials, "when sustained", report);
    Ok(())
}

fn print(options: &Options, trials: &[Trial], ratio: f64) {
    let figure = |read: fn(&Trial) -> f64| median(trials.iter().map(read)).unwrap_or(0.0);
    let seconds = options.sustained().as_secs();
    println!("\nsustained, {CONNECTIONS} connections, {seconds} s, medians of {}", trials.len());
    let (rate, in_state) = (figure(Trial::per_second), figure(Trial::in_state_per_second));
    println!("  acknowledged: {rate:.0}/s, {ratio:.2} of bare hyper");
    println!("  in the state, lag included: {in_state:.0}/s");
    println!("  lag from the last 204 to the state: {:.2} s", trial::lag(trials).as_secs_f64());
    let [p50, p99, p999] = [500, 990, 999].map(|per_mille| ms(trial::latency(trials, per_mille)));
    println!("  p50 {p50} ms, p99 {p99} ms, p99.9 {p999} ms");
    println!("  memory, peak: {:.1} MiB", figure(|trial| trial.mebibytes));
    trial::print_kept(trials);
}
