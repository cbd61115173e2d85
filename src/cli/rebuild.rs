//! `receiptd rebuild`: settle the journal again, from the start.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use super::Failure;
use super::flags::ConfigFlags;
use super::output::counted;
use super::progress;
use super::setup::{check_journal_is_ahead, kept};
use crate::config::Settings;
use crate::halves;
use crate::journal::reader::Reader;
use crate::journal::{self, SourceRow};
use crate::lock::{Lock, check_file_system};
use crate::settle;
use crate::sqlite::{self, Access, Durability};

/// Settle the journal again from the start, into a new state
///
/// For after an upgrade that understands more than the version before, after a source was
/// configured as the wrong provider, or after check-db found a difference. Of the journal nothing is
/// changed but that it gets the tables of this version and remembers the sources that are configured, as
/// with `receiptd serve`. The old state stays in place until the new one is complete; interrupting is
/// safe. What is known of notifications whose callbacks were pruned is kept.
///
/// The receiver must be stopped meanwhile: senders keep what they cannot deliver and try again.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  receiptd rebuild --db /data/receiptd.db")]
pub struct Args {
    /// The configuration file and the state file.
    #[command(flatten)]
    pub config: ConfigFlags,
}

/// Rebuilds, and says how many callbacks it took how long to settle.
///
/// # Errors
/// If a receiver holds the database, a file cannot be used, or the state knows what the journal
/// does not.
pub fn run(
    args: &Args,
    env: &[(String, String)],
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let Settings { store, limits, sinks, sources, .. } = kept(&args.config, env)?;
    let state = store.path;
    let journal = journal::path_beside(&state);
    let started = Instant::now();
    check_file_system(&state, store.network_file_system)?;
    let _lock = Lock::acquire(&state)?;
    if !journal.exists() {
        return Err(Failure::new(Failure::IO, format!("there is no {}", journal.display()))
            .hint("the journal stands beside the state: is --db right?"));
    }
    check_journal_is_ahead(&state, &journal)?;
    // What is settled from it may stand in tables that an older version did not have.
    let writer = sqlite::open(&journal, &journal::SCHEMA, Access::Write(Durability::Full))?;
    // As at a start: whose platform a source is may be what was mended.
    for source in &sources {
        let (name, dialect) = (source.name.to_string(), source.dialect.clone());
        SourceRow { name, dialect }.remember(&writer)?;
    }
    drop(writer);
    let reader = Reader::open(&journal)?;
    let (callbacks, _) = reader.totals()?;
    let owed_to = halves::known_owed_to(&sinks, reader.connection())?;
    let bar = progress::bar("settling");
    let show = |seq, last| progress::show(&bar, seq, last);
    let result = settle::rebuild(&state, &journal, limits.settle_callbacks_max, &owed_to, show);
    bar.finish_and_clear();
    result?;
    writeln!(
        out,
        "settled {} into {} in {:.1} s",
        counted(callbacks, "callback"),
        state.display(),
        started.elapsed().as_secs_f64()
    )
    .map_err(Failure::output)?;
    Ok(ExitCode::SUCCESS)
}
