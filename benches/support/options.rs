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
    /// Only these sections; start, idle, visible and burst if none is named. May be repeated.
    #[arg(long, value_enum, value_name = "SECTION", value_delimiter = ',')]
    only: Vec<Section>,

    /// Every section; the long ones take most of an hour.
    #[arg(long, conflicts_with = "only")]
    all: bool,

    /// Seconds that a run of a burst measures, after a second of warm-up.
    #[arg(long, default_value_t = 10, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// Seconds that a run of `sustained`, of `mixed` and of the sustained half of `stored` lasts.
    #[arg(long, default_value_t = 60, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=3600))]
    sustained_seconds: u64,

    /// Rounds of `burst`, `sustained`, `slow-disk`, `stored` and `compare`; each is one run of every
    /// server, and medians over the rounds are shown.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,

    /// Numbers of connections for the burst; `compare` takes the first.
    #[arg(long, default_values_t = [64, 256], value_name = "N", value_delimiter = ',')]
    pub connections: Vec<usize>,

    /// References in the receipts: one more random key in the state, or null.
    #[arg(long, value_enum, default_value_t = Reference::Distinct, value_name = "KIND")]
    pub reference: Reference,

    /// Numbers of notifications that are there already in `stored`. Each million takes 1.1 GB of
    /// disk, and as much again while it runs.
    #[arg(long, default_values_t = [1_000_000], value_name = "N", value_delimiter = ',')]
    pub stored: Vec<u64>,

    /// Number of callbacks that wait to be settled in `backlog`.
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    pub backlog: u64,

    /// Keep the databases made for `stored`, so that a later run need not make them again.
    #[arg(long)]
    pub keep: bool,

    /// Write the table of `compare` as a picture.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,

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
    /// Closed loop for a minute at 64 connections: rate, and how far the state is behind at the end.
    Sustained,
    /// Burst at 256 connections with fsync slowed by 2 and by 10 ms.
    SlowDisk,
    /// A million callbacks that wait in the journal: how fast they are settled.
    Backlog,
    /// Burst and sustained with notifications already stored, beside an empty database.
    Stored,
    /// Open loop at 1,000/s while the journal is pruned and the state is read.
    Mixed,
    /// Beside what one would write or pick instead.
    Compare,
}

/// What is measured when nothing is named: what takes two minutes.
const SHORT: [Section; 4] = [Section::Start, Section::Idle, Section::Visible, Section::Burst];

impl Options {
    /// Whether that section is asked for.
    pub fn wants(&self, section: Section) -> bool {
        let named = if self.only.is_empty() { &SHORT[..] } else { &self.only };
        self.all || named.contains(&section)
    }

    /// Whether `cargo bench` started us.
    pub fn under_bench(&self) -> bool {
        self.bench
    }

    /// How long a run of a burst measures.
    pub fn measured(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// How long a run of what is sustained lasts.
    pub fn sustained(&self) -> Duration {
        Duration::from_secs(self.sustained_seconds)
    }
}
