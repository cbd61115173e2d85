//! How fast apps are answered that read, with many notifications stored and callbacks arriving.
//!
//! `cargo bench --bench ask -- --help` tells what can be measured. The load generator and the judging
//! are those of `benches/ingest.rs`; the app is one thread of this program with one connection.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a measurement is there to be read")]

mod support;

use std::process::ExitCode;

use clap::Parser;
use support::asking;
use support::common::Common;
use support::program;

/// Measures how fast apps are answered that read.
///
/// A database is made in which half of all notifications have one reference, and every status and type
/// occurs; then an app asks by id and for pages of every filter, from anywhere in the list, while
/// callbacks arrive at 1,000 a second. Absolute figures belong to the machine and to what else it does.
#[derive(Parser)]
#[command(name = "cargo bench --bench ask --", bin_name = "cargo bench --bench ask --")]
struct Options {
    /// Notifications that are there already. Each million takes 1.5 GB of disk.
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    stored: u64,

    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    program::run(|| {
        let options = Options::parse();
        program::measure(&options.common, |bench, report| {
            asking::run(&options.common, options.stored, bench, report)
        })
    })
}
