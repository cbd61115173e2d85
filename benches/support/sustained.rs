//! What the server keeps up for a minute, not what it can put off: at the rate aimed at the state
//! has to follow, and, for whoever asks for all of it, as much as the server takes.

use std::error::Error;
use std::time::Duration;

use super::options::Options;
use super::report::{Report, median, ms};
use super::server::Bench;
use super::trial::{self, Load, Trial};

const CONNECTIONS: usize = 64;
const RATIO_MIN: f64 = 0.22;
const LAG_MAX: Duration = Duration::from_secs(1);

/// Runs all rounds. The yardstick runs before and after each, for the time of a burst; the rate that
/// is offered is a share of what it reached before.
pub fn run(options: &Options, bench: &Bench, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let (mut offered, mut most) = (Series::default(), Series::default());
    for _ in 0..options.common.rounds {
        let before = trial::bare(&options.common, bench, CONNECTIONS)?;
        let lasting = options.sustained();
        let rate = before * RATIO_MIN;
        let at_rate =
            trial::run(&options.common, bench.receiptd()?, CONNECTIONS, open(rate, lasting))?;
        let between = trial::bare(&options.common, bench, CONNECTIONS)?;
        let load = Load::Closed(lasting);
        let all = trial::run(&options.common, bench.receiptd()?, CONNECTIONS, load)?;
        let after = trial::bare(&options.common, bench, CONNECTIONS)?;
        trial::tell("sustained, offered", &at_rate);
        trial::tell("sustained, as much as it takes", &all);
        offered.push(at_rate, before.midpoint(between));
        most.push(all, between.midpoint(after));
    }
    let seconds = options.sustained().as_secs();
    println!(
        "\nsustained, {CONNECTIONS} connections, {seconds} s, medians of {}",
        options.common.rounds
    );
    offered.print(&format!("{RATIO_MIN:.2} of bare hyper offered"));
    most.print("as much as it takes");
    judge(&offered, &most, report);
    Ok(())
}

/// Rates are far below what would not fit, and a fraction of a request says nothing.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
fn open(per_second: f64, lasting: Duration) -> Load {
    Load::Open(per_second.max(1.0) as u32, lasting)
}

/// All runs of one load.
#[derive(Default)]
struct Series {
    trials: Vec<Trial>,
    /// To the yardstick around each.
    ratios: Vec<f64>,
}

impl Series {
    fn push(&mut self, trial: Trial, bare: f64) {
        self.ratios.push(trial.per_second() / bare);
        self.trials.push(trial);
    }

    fn ratio(&self) -> f64 {
        median(self.ratios.iter().copied()).unwrap_or(0.0)
    }

    fn lag(&self) -> Duration {
        trial::lag(&self.trials)
    }

    fn print(&self, name: &str) {
        let trials = &self.trials;
        let figure = |read: fn(&Trial) -> f64| median(trials.iter().map(read)).unwrap_or(0.0);
        let (rate, in_state) = (figure(Trial::per_second), figure(Trial::in_state_per_second));
        println!("  {name}");
        println!("    acknowledged: {rate:.0}/s, {:.2} of bare hyper", self.ratio());
        println!("    in the state, lag included: {in_state:.0}/s");
        println!("    lag from the last 204 to the state: {:.2} s", self.lag().as_secs_f64());
        let [p50, p99, p999] =
            [500, 990, 999].map(|per_mille| ms(trial::latency(trials, per_mille)));
        println!("    p50 {p50} ms, p99 {p99} ms, p99.9 {p999} ms");
        println!("    memory, peak: {:.1} MiB", figure(|trial| trial.mebibytes));
        trial::print_kept(trials);
    }
}

fn judge(offered: &Series, most: &Series, report: &mut Report) {
    let ratio = most.ratio();
    let text = format!("sustained, as much as it takes: {ratio:.2} ({RATIO_MIN:.2} or more)");
    report.aim(text, ratio >= RATIO_MIN);
    for (series, what) in [
        (offered, format!("{RATIO_MIN:.2} of bare hyper for a minute")),
        (most, "as much as it takes for a minute".to_owned()),
    ] {
        let lag = series.lag();
        let text = format!("lag after {what}: {:.2} s (under 1 s)", lag.as_secs_f64());
        report.aim(text, lag < LAG_MAX);
        trial::require_kept(&series.trials, &format!("in {what}"), report);
    }
}
