//! How fast receipts come in, beside a bare hyper server on the same machine in the same run.
//!
//! `cargo bench --bench ingest -- --help` tells what can be measured. This program is the load
//! generator and the judge; started again with a role as its first argument it is also the
//! yardstick. receiptd itself is the real binary, measured from outside like any process: over
//! its sockets, through `/proc`, and by reading the files it leaves.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a measurement is there to be read")]

mod support;

use std::process::ExitCode;

use clap::Parser;
use support::options::{Options, Section};
use support::program::{self, Done};
use support::report::Report;
use support::server::Bench;
use support::{
    backlog, burst, compare, idle, mixed, preload, slow_disk, start, stored, sustained, visible,
};

/// Measures one section.
type Run = fn(&Options, &Bench, &mut Report) -> Done;

/// Every section, in the order in which they run: what needs a quiet machine most comes first.
const SECTIONS: [(Section, Run); 11] = [
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
    (Section::CompareStored, compare::run_stored),
];

fn main() -> ExitCode {
    program::run(|| {
        let options = Options::parse();
        program::measure(&options.common, |bench, report| measure(&options, bench, report))
    })
}

fn measure(options: &Options, bench: &Bench, report: &mut Report) -> Done {
    let measured = SECTIONS
        .iter()
        .filter(|(section, _)| options.wants(*section))
        .try_for_each(|(_, run)| run(options, bench, report));
    if !options.keep {
        preload::clean(&options.common.dir)?;
    }
    measured
}
