//! `receiptd outbox retry` and `discard`: what to do about changes that did not get through.
//!
//! A file has one writer: while a receiver runs on the database it is asked to do the work, as for
//! `receiptd prune`. What would be touched is read through a connection that cannot write.

use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use super::Failure;
use super::db::{must_exist, not_opened, unreadable};
use super::flags::ConfigFlags;
use super::outbox::{SelectFlags, StandingWord, word};
use super::output::{self, Column, Screen, second};
use super::prune::ask_control;
use super::setup;
use crate::api::control::OUTBOX_PATH;
use crate::clock::{Clock, Timestamp};
use crate::lock::{Lock, LockError};
use crate::sqlite::checkpoint::{self, Mode};
use crate::sqlite::{self, Access, Durability};
use crate::state::outbox::Standing;
use crate::state::outbox_ask::{Order, Place, Selection, Touched, Verb, carry_out};
use crate::state::read::Reader;
use crate::state::tables;

/// Rows read at once: bounds the memory.
const PAGE_ROWS: usize = 1_000;

/// Try again what was given up, as if it had never been tried
///
/// The parked ones, unless --standing says otherwise: `--standing waiting` tries at once what would
/// be tried later. Their attempts are counted from nought; one that is older than the sink's
/// `age_s_max` has one attempt before it is parked again. Changes of one message that were not parked
/// may have been delivered meanwhile: the sink can tell by the time of each which is the newest.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  receiptd outbox retry --sink app --dry-run
  receiptd outbox retry --sink app --error 'answered 404'
  receiptd outbox retry --standing waiting")]
pub struct RetryArgs {
    #[command(flatten)]
    select: SelectFlags,

    /// Only say what would be retried
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    flags: ConfigFlags,
}

/// Give changes up for good: no sink is told of them
///
/// Says which by at least one flag. Where it is more than one change, asks first unless --yes is
/// given. What is under way to a sink at this moment may still arrive.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  receiptd outbox discard --sink app --standing parked --older-than 30d --dry-run
  receiptd outbox discard --sink a-sink-that-is-gone --yes")]
pub struct DiscardArgs {
    #[command(flatten)]
    select: SelectFlags,

    /// Only say what would be discarded
    #[arg(long)]
    dry_run: bool,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    flags: ConfigFlags,
}

/// Retries.
///
/// # Errors
/// If the flags make no sense, or the files cannot be used or the receiver not be asked.
pub fn retry(
    args: &RetryArgs,
    env: &[(String, String)],
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    if let Some(standing @ (StandingWord::Fresh | StandingWord::Held)) = args.select.standing {
        let word = word(standing.into());
        return Err(Failure::new(Failure::USAGE, format!("what is {word} has not failed"))
            .hint("only --standing parked and --standing waiting can be retried"));
    }
    let mut selection = args.select.selection(Clock::system().now());
    selection.standing = selection.standing.or(Some(Standing::Parked));
    let state = setup::settings(&args.flags, env)?.store.path;
    let order = Order { verb: Verb::Retry, selection };
    let found = look(&state, &order)?;
    if args.dry_run || found.is_empty() {
        return would("retry", &found, out);
    }
    report("retried", &change(&state, &order)?, out)
}

/// Discards.
///
/// # Errors
/// As for [`retry`], or if it is not confirmed.
pub fn discard(
    args: &DiscardArgs,
    env: &[(String, String)],
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    if !args.select.are_given() {
        return Err(Failure::new(Failure::USAGE, "nothing says what to discard")
            .hint("give --sink, --standing, --older-than, --error or --id"));
    }
    let selection = args.select.selection(Clock::system().now());
    let state = setup::settings(&args.flags, env)?.store.path;
    let order = Order { verb: Verb::Discard, selection };
    let found = look(&state, &order)?;
    if args.dry_run || found.is_empty() {
        return would("discard", &found, out);
    }
    if found.rows() > 1 && !args.yes {
        found.write(out).map_err(Failure::output)?;
        confirm(&format!("discard {} for good?", changes(found.rows())), out)?;
    }
    report("discarded", &change(&state, &order)?, out)
}

/// What would be touched, by sink, standing and last error.
#[derive(Default)]
struct Found {
    groups: BTreeMap<(String, &'static str, String), Group>,
}

#[derive(Clone, Copy)]
struct Group {
    rows: i64,
    oldest: Timestamp,
}

type GroupRow = ((String, &'static str, String), Group);

const GROUPS: [Column<GroupRow>; 5] = [
    Column { title: "sink", rank: 0, text: |row| row.0.0.clone() },
    Column { title: "standing", rank: 0, text: |row| row.0.1.to_owned() },
    Column { title: "changes", rank: 0, text: |row| row.1.rows.to_string() },
    Column { title: "oldest (UTC)", rank: 2, text: |row| second(Some(row.1.oldest)) },
    Column { title: "error", rank: 1, text: |row| row.0.2.clone() },
];

impl Found {
    fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    fn rows(&self) -> i64 {
        self.groups.values().map(|group| group.rows).sum()
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let rows: Vec<GroupRow> =
            self.groups.iter().map(|(key, group)| (key.clone(), *group)).collect();
        output::table(Screen::of_stdout(), &GROUPS, &rows, out)
    }
}

fn look(state: &Path, order: &Order) -> Result<Found, Failure> {
    must_exist(state)?;
    let reader = Reader::open(state).map_err(not_opened)?;
    let Order { verb, selection } = order;
    let mut found = Found::default();
    let mut place = Some(Place::start());
    while let Some(from) = place {
        let (rows, next) = page(&reader, selection, &from)?;
        for row in rows.into_iter().filter(|row| verb.is_for(row)) {
            let key = (row.sink, word(row.standing), row.error.unwrap_or_default());
            let oldest = row.received_at;
            let group = found.groups.entry(key).or_insert(Group { rows: 0, oldest });
            group.rows += 1;
            group.oldest = group.oldest.min(oldest);
        }
        place = next;
    }
    Ok(found)
}

type Rows = (Vec<crate::state::outbox_ask::OutboxRow>, Option<Place>);

fn page(reader: &Reader, selection: &Selection, from: &Place) -> Result<Rows, Failure> {
    reader.outbox(selection, from, PAGE_ROWS).map_err(unreadable)
}

fn changes(rows: i64) -> String {
    if rows == 1 { "1 change".to_owned() } else { format!("{rows} changes") }
}

fn would(verb: &str, found: &Found, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    if found.is_empty() {
        return output::done(writeln!(out, "nothing matches").and_then(|()| out.flush()));
    }
    output::done(found.write(out).and_then(|()| {
        writeln!(out, "\nwould {verb} {}", changes(found.rows()))?;
        out.flush()
    }))
}

fn report(done: &str, touched: &Touched, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    output::done(writeln!(out, "{done} {}", changes(touched.rows())).and_then(|()| out.flush()))
}

/// Asks the person at the terminal.
fn confirm(question: &str, out: &mut dyn Write) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(Failure::USAGE, "nobody is there to confirm that")
            .hint("add --yes to discard them, or --dry-run to see what they are"));
    }
    write!(out, "\n{question} [y/N] ").and_then(|()| out.flush()).map_err(Failure::output)?;
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    match read.map(|_| line.trim().to_ascii_lowercase()) {
        Ok(answer) if matches!(answer.as_str(), "y" | "yes") => Ok(()),
        _ => Err(Failure::new(Failure::NO, "nothing was discarded")),
    }
}

/// Does it, or has it done.
fn change(state: &Path, order: &Order) -> Result<Touched, Failure> {
    match Lock::acquire(state) {
        Ok(_lock) => change_file(state, order),
        Err(LockError::Held { .. }) => {
            let body = serde_json::to_vec(order)
                .map_err(|error| Failure::new(Failure::IO, error.to_string()))?;
            ask_control(state, OUTBOX_PATH, body.into())
        }
        Err(error) => Err(Failure::new(Failure::IO, error.to_string())),
    }
}

fn change_file(state: &Path, order: &Order) -> Result<Touched, Failure> {
    let access = Access::Write(Durability::Full);
    let mut connection = sqlite::open(state, &tables::SCHEMA, access).map_err(not_opened)?;
    let touched = carry_out(order, Clock::system().now(), |step| {
        let done = step(&mut connection)?;
        // Nobody else checkpoints: without this the log would grow to the size of the outbox.
        checkpoint::run(&connection, Mode::Passive)?;
        Ok::<_, rusqlite::Error>(done)
    })?;
    Ok(touched)
}
