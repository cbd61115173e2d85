//! The burst on a slower disk: fsync is fast on many virtual machines and slow on many others.

use std::error::Error;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::options::Options;
use super::report::{Report, median, ms};
use super::server::Bench;
use super::trial::{self, Trial};

const CONNECTIONS: usize = 256;
/// By how much fsync is slowed, and how many acknowledgements a second are aimed at then.
const AIMS: [(Duration, f64); 2] =
    [(Duration::from_millis(2), 20_000.0), (Duration::from_millis(10), 12_000.0)];

/// Makes every fsync of what `command` starts take so much longer. The library for it is compiled
/// into `folder`.
pub fn delay(command: &mut Command, folder: &Path, by: Duration) -> io::Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/support/slow_fsync.c");
    let library = folder.join("slow_fsync.so");
    let done = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .args([&library, &source])
        .status()
        .map_err(|error| io::Error::other(format!("a C compiler is needed, `cc`: {error}")))?;
    if !done.success() {
        return Err(io::Error::other(format!("cc failed on {}", source.display())));
    }
    command.env("LD_PRELOAD", library).env("FSYNC_DELAY_US", by.as_micros().to_string());
    Ok(())
}

/// A delay that has no effect, on a binary without dynamic libraries say, must not pass for one.
/// Whoever waits for a commit waits at least as long as its fsync.
pub fn verify(trial: &Trial, delay: Duration) -> io::Result<()> {
    let median = trial.outcome.latency.quantile(500);
    if median < delay {
        let found = ms(median);
        return Err(io::Error::other(format!(
            "fsync was to take {} ms longer, but half the answers came within {found} ms",
            delay.as_millis()
        )));
    }
    Ok(())
}

/// Runs all rounds at each delay.
pub fn run(options: &Options, bench: &Bench, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let mut results = AIMS.map(|_| Vec::new());
    for _ in 0..options.common.rounds {
        for ((delay, _), trials) in AIMS.iter().zip(&mut results) {
            let server = bench.receiptd_on(&bench.files()?, *delay)?;
            let trial = trial::run(
                &options.common,
                server,
                CONNECTIONS,
                trial::Load::Closed(options.common.measured()),
            )?;
            verify(&trial, *delay)?;
            trials.push(trial);
        }
    }
    let seconds = options.common.measured().as_secs();
    println!(
        "\nslow disk, {CONNECTIONS} connections, {seconds} s, medians of {}",
        options.common.rounds
    );
    for ((delay, aim), trials) in AIMS.iter().zip(&results) {
        let rate = median(trials.iter().map(Trial::per_second)).unwrap_or(0.0);
        let [p50, p99, p999] =
            [500, 990, 999].map(|per_mille| ms(trial::latency(trials, per_mille)));
        let when = format!("with fsync +{} ms", delay.as_millis());
        println!("  {when}: {rate:.0}/s, p50 {p50} ms, p99 {p99} ms, p99.9 {p999} ms");
        trial::print_kept(trials);
        report.aim(format!("acknowledged {when}: {rate:.0}/s ({aim:.0} or more)"), rate >= *aim);
        trial::require_kept(trials, &when, report);
    }
    Ok(())
}
