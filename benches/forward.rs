//! What forwarding costs and how fast it is: beside the same receiver without sinks, and, where
//! nothing is kept, beside a bare hyper server.
//!
//! `cargo bench --bench forward -- --help` tells what can be measured. The load generator, the
//! yardstick and the judging are those of `benches/ingest.rs`; the sink is a thread of this program,
//! so that one clock measures from the 204 to the arrival.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a measurement is there to be read")]

mod support;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use support::common::Common;
use support::program::{self, Done};
use support::report::Report;
use support::server::Bench;
use support::{down, healthy, relay};

/// Measures what forwarding costs and how fast it is.
///
/// Two runs with the same load, one with a sink and one without, tell what forwarding costs those who
/// call; every change that is owed must reach the sink, in order for each notification. Absolute
/// figures belong to the machine and to what else it does.
#[derive(Parser)]
#[command(name = "cargo bench --bench forward --", bin_name = "cargo bench --bench forward --")]
struct Options {
    /// Only these sections; all of them if none is named. May be repeated.
    #[arg(long, value_enum, value_name = "SECTION", value_delimiter = ',')]
    only: Vec<Section>,

    /// Changes that wait for the sink of `down` when it comes up, at least.
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    backlog: u64,

    #[command(flatten)]
    common: Common,
}

/// A part of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// A sink that takes everything: what it costs, how much leaves, and after how long.
    Healthy,
    /// A sink that is down for the whole burst, and then comes up: what it costs, and how it drains.
    Down,
    /// Nothing is kept: callbacks are answered once JetStream has them.
    Relay,
}

fn main() -> ExitCode {
    program::run(|| {
        let options = Options::parse();
        program::measure(&options.common, |bench, report| measure(&options, bench, report))
    })
}

fn measure(options: &Options, bench: &Bench, report: &mut Report) -> Done {
    let is_wanted = |section| options.only.is_empty() || options.only.contains(&section);
    if is_wanted(Section::Healthy) {
        healthy::run(&options.common, bench, report)?;
    }
    if is_wanted(Section::Down) {
        down::run(&options.common, options.backlog, bench, report)?;
    }
    if is_wanted(Section::Relay) {
        relay::run(&options.common, bench, report)?;
    }
    Ok(())
}
