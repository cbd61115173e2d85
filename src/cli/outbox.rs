//! `receiptd outbox`: what is owed to sinks, and what to do about it.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use super::Failure;
use super::prune::parse_age;
use super::{outbox_change, outbox_list, outbox_show};
use crate::clock::Timestamp;
use crate::state::outbox::Standing;
use crate::state::outbox_ask::{ID_DIGITS_MIN, OutboxRow, Selection};

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
        Command::List(args) => outbox_list::run(args, env, out),
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

    /// Only those whose callback arrived longer ago: 30d, 12h, 90m, 45s
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub older_than: Option<Duration>,

    /// Only those whose last error contains this text
    #[arg(long, value_name = "TEXT")]
    pub error: Option<String>,

    /// Only those about this notification or message, or the change whose id begins so (four digits
    /// or more)
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
    /// All of these
    Any,
}

impl StandingWord {
    /// The one it names, if it names one.
    pub fn standing(self) -> Option<Standing> {
        match self {
            Self::Fresh => Some(Standing::Fresh),
            Self::Waiting => Some(Standing::Waiting),
            Self::Held => Some(Standing::Held),
            Self::Parked => Some(Standing::Parked),
            Self::Any => None,
        }
    }
}

impl SelectFlags {
    /// What they select of those that stand so, if it is `now`.
    pub fn selection(&self, standing: Option<Standing>, now: Timestamp) -> Selection {
        let before = self.older_than.map(|age| {
            now.plus_seconds(i64::try_from(age.as_secs()).unwrap_or(i64::MAX).saturating_neg())
        });
        Selection {
            sink: self.sink.clone(),
            standing,
            before,
            error: self.error.clone(),
            id: self.id.clone(),
        }
    }

    /// Whether any of them was given.
    pub fn are_given(&self) -> bool {
        self.sink.is_some() || self.narrow()
    }

    /// Whether any was given that leaves out some of what a sink is owed.
    pub fn narrow(&self) -> bool {
        let Self { sink: _, older_than, error, id } = self;
        older_than.is_some() || error.is_some() || id.is_some()
    }

    /// What to say if nothing matches.
    pub fn nothing(&self) -> String {
        match self.id.as_deref().and_then(too_short) {
            Some(why) => format!("nothing matches: {why}"),
            None => "nothing matches".to_owned(),
        }
    }
}

/// Why an id that might be the beginning of a change's names none.
pub fn too_short(id: &str) -> Option<&'static str> {
    let is_short = id.len() < ID_DIGITS_MIN && id.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_short.then_some("a change's id needs four digits or more")
}

/// An id that names something: no shorter than what a change can be named by.
pub fn parse_id(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err(format!(
            "expected the id of a message, or the first {ID_DIGITS_MIN} digits or more of a change's"
        ));
    }
    Ok(text.to_owned())
}

/// When it is tried again. What is held goes when what it is behind has gone, whatever stands in its row.
pub fn due(row: &OutboxRow) -> Option<Timestamp> {
    row.due_at.filter(|_| row.standing != Standing::Held)
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
