//! What can be asked of every benchmark on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::receipt::Reference;

/// See each benchmark for what it adds.
#[derive(Args)]
pub struct Common {
    /// Seconds that a run of a burst measures, after a second of warm-up.
    #[arg(long, default_value_t = 10, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// Rounds of the sections that run every server in turn; medians over the rounds are shown.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,

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

impl Common {
    /// Whether `cargo bench` started us.
    pub fn under_bench(&self) -> bool {
        self.bench
    }

    /// How long a run of a burst measures.
    pub fn measured(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}
