//! The promises, held against the real binary: power cuts, crashes, failing and full disks, hostile
//! clients. One command for all of them, one name for each:
//!
//! ```text
//! cargo test --release --test evidence                          every promise, full figures
//! cargo test --release --test evidence -- crash --rounds 50     one of them
//! cargo test --release --test evidence -- --bounded             a small part of each, for CI
//! ```
//!
//! Each prints its seed and its counts, and each runs a control: the same attack on something made
//! unsafe on purpose, which must be caught. A promise whose control is not caught is not held. What
//! needs root says so and is shown as skipped, never as passed. Results are kept as JSON beside the
//! build, and `table` makes the README's table of them.

#![expect(clippy::print_stdout, reason = "a program whose output is its purpose")]

use std::process::ExitCode;

use clap::Parser as _;

mod bad_input;
mod compare;
mod control;
mod crash;
mod forward;
mod full_disk;
mod hostile;
mod leaks;
mod ledger;
mod lives;
mod machine;
mod options;
mod outages;
mod place;
mod platform;
mod power_cut;
mod pruned;
mod report;
mod scan;
mod sender;
mod stop;
mod storage_fault;
#[path = "../support/mod.rs"]
mod support;
mod trace;

use machine::Need;
use options::Options;
use report::{Found, Report, Verdict};

/// One promise and how it is tried.
pub struct Promise {
    /// The name on the command line.
    pub name: &'static str,
    /// Its number in the README's table.
    pub number: u32,
    /// What is promised, in a sentence.
    pub claim: &'static str,
    /// Whether it needs root.
    pub needs_root: bool,
    /// What else the machine must have or allow.
    pub needs: &'static [Need],
    /// Rounds of the full run and of the bounded one.
    pub rounds: (u32, u32),
    /// Tries it that many rounds, from that seed.
    pub run: fn(rounds: u32, seed: u64) -> Found,
}

const PROMISES: &[Promise] = &[
    power_cut::PROMISE,
    crash::PROMISE,
    storage_fault::PROMISE,
    full_disk::PROMISE,
    outages::PROMISE,
    forward::PROMISE,
    stop::PROMISE,
    bad_input::PROMISE,
    hostile::PROMISE,
    leaks::PROMISE,
    pruned::PROMISE,
];

fn main() -> ExitCode {
    if let Some(code) = control::was_asked() {
        return code;
    }
    let options = Options::parse();
    if options.table {
        return report::table(PROMISES);
    }
    let mut report = Report::new(&options);
    for promise in PROMISES.iter().filter(|promise| options.wants(promise.name)) {
        let verdict = if promise.needs_root && !rustix::process::geteuid().is_root() {
            Verdict::Skipped("needs root".to_owned())
        } else if let Some(missing) = promise.needs.iter().find_map(Need::missing) {
            Verdict::Skipped(missing)
        } else {
            report.begin(promise);
            Verdict::Found((promise.run)(options.rounds_of(promise), options.seed))
        };
        report.end(promise, verdict);
    }
    machine::clean_up();
    report.finish()
}
