//! What a burst leaves behind: a journal full of callbacks and no state, at the start of a process.

use std::error::Error;

use super::options::Options;
use super::preload::Base;
use super::report::Report;
use super::server::Bench;

const PER_SECOND_MIN: f64 = 40_000.0;

/// Settles it once; nothing else happens meanwhile.
pub fn run(options: &Options, bench: &Bench, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let count = options.backlog;
    let (_, backlog) = Base::make(options, bench, count)?;
    let took = backlog.took.as_secs_f64();
    let rate = count as f64 / took;
    println!("\nbacklog of {count} callbacks, from the start of the process");
    println!("  settled in {took:.1} s: {rate:.0}/s");
    println!("  {}", backlog.kept);
    let text = format!("backlog settles at: {rate:.0}/s ({PER_SECOND_MIN:.0} or more)");
    report.aim(text, rate >= PER_SECOND_MIN);
    Ok(())
}
