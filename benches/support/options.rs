//! What can be asked for on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use super::common::Common;

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

    /// Seconds that a run of `sustained`, of `mixed` and of the sustained half of `stored` lasts.
    #[arg(long, default_value_t = 60, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=3600))]
    sustained_seconds: u64,

    /// Numbers of connections for the burst; `compare` takes the first.
    #[arg(long, default_values_t = [64, 256], value_name = "N", value_delimiter = ',')]
    pub connections: Vec<usize>,

    /// Numbers of notifications that are there already in `stored` and `compare-stored`. Each
    /// million takes 1.1 GB of disk, in `compare-stored` 1.7 GB, and as much again while it runs.
    #[arg(long, default_values_t = [1_000_000], value_name = "N", value_delimiter = ',')]
    pub stored: Vec<u64>,

    /// Number of callbacks that wait to be settled in `backlog`.
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    pub backlog: u64,

    /// Keep the databases made for `stored` and `compare-stored`, so that a later run need not make them again.
    #[arg(long)]
    pub keep: bool,

    /// Write the table of `compare` as a picture.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,

    #[command(flatten)]
    pub common: Common,
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
    /// The same with notifications already stored: how each changes.
    CompareStored,
}

/// What is measured when nothing is named: what takes two minutes.
const SHORT: [Section; 4] = [Section::Start, Section::Idle, Section::Visible, Section::Burst];

impl Options {
    /// Whether that section is asked for.
    pub fn wants(&self, section: Section) -> bool {
        let named = if self.only.is_empty() { &SHORT[..] } else { &self.only };
        self.all || named.contains(&section)
    }

    /// How long a run of what is sustained lasts.
    pub fn sustained(&self) -> Duration {
        Duration::from_secs(self.sustained_seconds)
    }
}
