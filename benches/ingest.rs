//! How fast receipts come in, beside a bare hyper server on the same machine in the same run.
//!
//! `cargo bench --bench ingest -- --help` tells what can be measured. This program is the load
//! generator and the judge; started again with a role as its first argument it is also the
//! yardstick. receiptd itself is the real binary, measured from outside like any process: over
//! its sockets, through `/proc`, and by reading the files it leaves.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a measurement is there to be read")]

mod support;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use support::options::{Options, Section};
use support::report::Report;
use support::server::{BARE_ROLE, Bench, STAND_IN_ROLE};
use support::{
    backlog, bare, burst, compare, idle, machine, mixed, preload, slow_disk, stand_in, start,
    stored, sustained, visible,
};

/// Measures one section.
type Run = fn(&Options, &Bench, &mut Report) -> Result<(), Box<dyn Error>>;

/// Every section, in the order in which they run: what needs a quiet machine most comes first.
const SECTIONS: [(Section, Run); 10] = [
    (Section::Start, start::run),
    (Section::Idle, idle::run),
    (Section::Visible, visible::run),
    (Section::Burst, burst::run),
    (Section::Sustained, sustained::run),
    (Section::SlowDisk, slow_disk::run),
    (Section::Backlog, backlog::run),
    (Section::Stored, stored::run),
    (Section::Mixed, mixed::run),
    (Section::Compare, compare::run),
];

/// The exit code when there are no figures; 1 says that they are not good enough.
const CANNOT_MEASURE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.first().map(String::as_str) {
        Some(BARE_ROLE) => bare::run().map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Some(STAND_IN_ROLE) => {
            stand_in::run(&arguments).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        _ => measure(&Options::parse()),
    };
    done.unwrap_or_else(|error: Box<dyn Error>| {
        eprintln!("error: {error}");
        ExitCode::from(CANNOT_MEASURE)
    })
}

fn measure(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    if !options.under_bench() {
        // `cargo test --all-targets` runs this too, unoptimised; there is nothing to test.
        println!("measures under `cargo bench` only, or with --bench");
        return Ok(ExitCode::SUCCESS);
    }
    let bench = Bench::new(options)?;
    let mut report = Report::default();
    println!("{} in {}", machine::describe(&options.dir)?, options.dir.display());
    let measured = SECTIONS
        .iter()
        .filter(|(section, _)| options.wants(*section))
        .try_for_each(|(_, run)| run(options, &bench, &mut report));
    if !options.keep {
        preload::clean(&options.dir)?;
    }
    // What was found out before something failed is worth reading all the same.
    report.print();
    measured?;
    let failed = options.check && !report.is_good();
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
