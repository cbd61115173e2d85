//! How long it takes to ask a platform for everything, and what memory that takes.
//!
//! `cargo bench --bench reconcile -- --help` tells what can be measured. The platform is an imitation in
//! this program.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a measurement is there to be read")]

mod support;

use std::process::ExitCode;

use clap::Parser;
use support::common::Common;
use support::program;
use support::reconciling;

/// Measures a full reconcile over loopback.
///
/// A platform of its own shows so many notifications on pages of 250, each made when it is asked for.
/// receiptd asks for all of them down to its horizon, twice: in the first round all are news, in the
/// second, by a new process, none is. Absolute figures belong to the machine and to what else it does.
#[derive(Parser)]
#[command(name = "cargo bench --bench reconcile --", bin_name = "cargo bench --bench reconcile --")]
struct Options {
    /// Notifications that the platform shows.
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    shown: u64,

    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    program::run(|| {
        let options = Options::parse();
        program::measure(&options.common, |bench, report| {
            reconciling::run(options.shown, bench, report)
        })
    })
}
