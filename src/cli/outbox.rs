//! `receiptd outbox`: what is owed to sinks, and what to do about it.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use super::Failure;
use super::prune::parse_age;
use super::{outbox_change, outbox_list, outbox_show};
use crate::clock::Timestamp;
use crate::state::outbox::Standing;
use crate::state::outbox_ask::{ID_DIGITS_MIN, Selection};

/// List, show, retry and discard what is owed to sinks
///
/// A change is `fresh` until it is sent; `waiting` after an attempt that failed; `held` behind one of
/// the same message that waits; `parked` once it was given up. It is gone once it was delivered.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  receiptd outbox list --standing parked
  receiptd outbox retry --sink app --dry-run
  receiptd outbox discard --sink app --error 404")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(outbox_list::Args),
    Show(outbox_show::Args),
    Retry(outbox_change::RetryArgs),
    Discard(outbox_change::DiscardArgs),
}

/// Runs the command.
///
/// # Errors
/// If the database cannot be read or changed, nothing has the id that was given, or the output cannot
/// be written.
pub fn run(
    args: &Args,
    env: &[(String, String)],
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::List(args) => outbox_list::run(args, out),
        Command::Show(args) => outbox_show::run(args, env, out),
        Command::Retry(args) => outbox_change::retry(args, env, out),
        Command::Discard(args) => outbox_change::discard(args, env, out),
    }
}

/// Which changes: those that match every flag.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SelectFlags {
    /// Only those owed to this sink, configured or not
    #[arg(long, value_name = "NAME")]
    pub sink: Option<String>,

    /// Only those that stand so
    #[arg(long, value_enum)]
    pub standing: Option<StandingWord>,

    /// Only those whose callback arrived longer ago: 30d, 12h, 90m, 45s
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub older_than: Option<Duration>,

    /// Only those whose last error contains this text
    #[arg(long, value_name = "TEXT")]
    pub error: Option<String>,

    /// Only those about this notification or message, or the change whose id begins so
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    pub id: Option<String>,
}

/// How far a change has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StandingWord {
    /// Never sent yet
    Fresh,
    /// Failed, and tried again when it is due
    Waiting,
    /// Behind a waiting one of the same message
    Held,
    /// Given up
    Parked,
}

impl From<StandingWord> for Standing {
    fn from(word: StandingWord) -> Self {
        match word {
            StandingWord::Fresh => Self::Fresh,
            StandingWord::Waiting => Self::Waiting,
            StandingWord::Held => Self::Held,
            StandingWord::Parked => Self::Parked,
        }
    }
}

impl SelectFlags {
    /// What they select, if it is `now`.
    pub fn selection(&self, now: Timestamp) -> Selection {
        let before = self.older_than.map(|age| {
            now.plus_seconds(i64::try_from(age.as_secs()).unwrap_or(i64::MAX).saturating_neg())
        });
        Selection {
            sink: self.sink.clone(),
            standing: self.standing.map(Standing::from),
            before,
            error: self.error.clone(),
            id: self.id.clone(),
        }
    }

    /// Whether any of them was given.
    pub fn are_given(&self) -> bool {
        let Self { sink, standing, older_than, error, id } = self;
        sink.is_some()
            || standing.is_some()
            || older_than.is_some()
            || error.is_some()
            || id.is_some()
    }
}

/// An id that names something: no shorter than what a change can be named by.
pub fn parse_id(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err(format!(
            "expected the id of a message, or {ID_DIGITS_MIN} digits or more of a change's"
        ));
    }
    Ok(text.to_owned())
}

/// The word for people.
pub fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Fresh => "fresh",
        Standing::Waiting => "waiting",
        Standing::Held => "held",
        Standing::Parked => "parked",
    }
}
