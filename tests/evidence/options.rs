//! What can be asked for on the command line.

use clap::Parser;

use super::{PROMISES, Promise};

/// Holds the promises against the real binary and prints what was found.
#[derive(Parser)]
#[command(
    name = "evidence",
    bin_name = "cargo test --release --test evidence --",
    after_help = "Exit code: 0 if every promise asked for was held or visibly skipped; 1 if one was not."
)]
pub struct Options {
    /// Only these; all of them if none is named.
    #[arg(value_name = "PROMISE", value_parser = names())]
    only: Vec<String>,

    /// A small part of each, for CI: minutes in all.
    #[arg(long)]
    pub bounded: bool,

    /// So many rounds, whatever the promise's own number is.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: Option<u32>,

    /// Where chance starts: the same seed makes the same attacks at the same places.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Prints the results kept so far as a Markdown table, and tries nothing.
    #[arg(long)]
    pub table: bool,
}

fn names() -> clap::builder::PossibleValuesParser {
    PROMISES.iter().map(|promise| promise.name).collect::<Vec<_>>().into()
}

impl Options {
    /// Whether that promise is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// How many rounds it is tried.
    pub fn rounds_of(&self, promise: &Promise) -> u32 {
        Self::rounds_by(self.rounds, self.bounded, promise)
    }

    /// The same, from what was given.
    pub fn rounds_by(asked: Option<u32>, is_bounded: bool, promise: &Promise) -> u32 {
        let (full, bounded) = promise.rounds;
        asked.unwrap_or(if is_bounded { bounded } else { full })
    }
}
