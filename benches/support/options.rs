//! What can be asked for on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use super::receipt::Reference;

/// Measures receiptd against a bare hyper server on this machine.
///
/// The yardstick reads the body, keeps nothing and answers 204; receiptd has every callback on the
/// disk before it answers. One load generator, in one thread of this process, drives both in turn
/// with distinct receipts, and only their ratio in one run says something about receiptd: absolute
/// figures belong to the machine and to what else it does. After each run of receiptd the journal
/// and the state are counted; a run that lost a callback fails.
#[derive(Parser)]
#[command(name = "cargo bench --bench ingest --", bin_name = "cargo bench --bench ingest --")]
pub struct Options {
    /// Only these sections; all of them if none is named. May be repeated.
    #[arg(long, value_enum, value_name = "SECTION", value_delimiter = ',')]
    only: Vec<Section>,

    /// Seconds that a run of the burst measures, after a second of warm-up.
    #[arg(long, default_value_t = 10, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// Rounds of the burst; each is one run of either server at each number of connections, and
    /// medians over the rounds are shown.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,

    /// Numbers of connections for the burst.
    #[arg(long, default_values_t = [64, 256], value_name = "N", value_delimiter = ',')]
    pub connections: Vec<usize>,

    /// References in the receipts: one more random key in the state, or null.
    #[arg(long, value_enum, default_value_t = Reference::Distinct, value_name = "KIND")]
    pub reference: Reference,

    /// Start of the sequence of ids; the same seed gives the same ids.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,

    /// Folder for the throw-away databases. It must be on a disk: where fsync is free, in memory,
    /// the figures mean nothing.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"), value_name = "FOLDER")]
    pub dir: PathBuf,

    /// Another receiptd binary than the one just built.
    #[arg(long, value_name = "FILE", conflicts_with = "stand_in")]
    pub receiptd: Option<PathBuf>,

    /// A stand-in instead of receiptd, to try the measurement itself: it answers before it keeps.
    #[arg(long)]
    pub stand_in: bool,

    /// Exit with 1 if something required is not reached. Where nothing could be measured it is 2.
    #[arg(long)]
    pub check: bool,

    /// Given by `cargo bench` to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Section {
    /// Closed loop, receiptd and bare hyper in turn: rate, latency, memory, what was kept.
    Burst,
    /// Open loop at 1,000/s for 10 s: latency, and time until the state shows it.
    Visible,
    /// Memory after the start, and at 256 connections.
    Idle,
    /// Time from the start of the process to readiness and to the first 204; size of the binary.
    Start,
}

impl Options {
    /// Whether that section is asked for.
    pub fn wants(&self, section: Section) -> bool {
        self.only.is_empty() || self.only.contains(&section)
    }

    /// Whether `cargo bench` started us.
    pub fn under_bench(&self) -> bool {
        self.bench
    }

    /// How long a run of the burst measures.
    pub fn measured(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}
