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
use super::outbox_sinks::Sinks;
use super::output::{self, Column, Screen, plain, second};
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

    /// Those that stand so
    #[arg(long, value_enum, default_value_t = RetriedWord::Parked)]
    standing: RetriedWord,

    /// Only say what would be retried
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    flags: ConfigFlags,
}

/// Give up for good what is parked: no sink is told of it
///
/// The parked ones, unless --standing says otherwise: `--standing any` gives up all that is owed, also
/// what would still be sent. Say which by at least one flag. Asks first, unless --yes is given. What is
/// under way to a sink at this moment may still arrive.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  receiptd outbox discard --sink app --older-than 30d --dry-run
  receiptd outbox discard --sink a-sink-that-is-gone --standing any --yes")]
pub struct DiscardArgs {
    #[command(flatten)]
    select: SelectFlags,

    /// Those that stand so [default: parked]
    #[arg(long, value_enum)]
    standing: Option<StandingWord>,

    /// Only say what would be discarded
    #[arg(long)]
    dry_run: bool,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    flags: ConfigFlags,
}

/// What can be retried: what was never tried, or waits for another, goes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum RetriedWord {
    /// Failed, and tried again when it is due: now
    Waiting,
    /// Given up
    Parked,
}

impl From<RetriedWord> for Standing {
    fn from(word: RetriedWord) -> Self {
        match word {
            RetriedWord::Waiting => Self::Waiting,
            RetriedWord::Parked => Self::Parked,
        }
    }
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
    let standing = Standing::from(args.standing);
    let selection = args.select.selection(Some(standing), Clock::system().now());
    let settings = setup::kept(&args.flags, env)?;
    let (state, sinks) = (settings.store.path.clone(), Sinks::of(&settings, &args.flags, env));
    let order = Order { verb: Verb::Retry, selection };
    let reader = open(&state)?;
    sinks.must_know(args.select.sink.as_ref(), &reader)?;
    let found = look(&reader, &order)?;
    if found.is_empty() {
        return nothing(&args.select, &reader, &order, out);
    }
    if args.dry_run {
        return would("retry", &found, out);
    }
    retried(&change(&state, &order)?, &sinks, out)
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
    if args.standing.is_none() && !args.select.are_given() {
        return Err(Failure::new(Failure::USAGE, "nothing says what to discard")
            .hint("give --sink, --standing, --older-than, --error or --id"));
    }
    let standing = args.standing.unwrap_or(StandingWord::Parked).standing();
    let selection = args.select.selection(standing, Clock::system().now());
    let settings = setup::kept(&args.flags, env)?;
    let (state, sinks) = (settings.store.path.clone(), Sinks::of(&settings, &args.flags, env));
    let order = Order { verb: Verb::Discard, selection };
    let reader = open(&state)?;
    sinks.must_know(args.select.sink.as_ref(), &reader)?;
    let found = look(&reader, &order)?;
    if found.is_empty() {
        return nothing(&args.select, &reader, &order, out);
    }
    if args.dry_run {
        return would("discard", &found, out);
    }
    if !args.yes {
        found.write(out).map_err(Failure::output)?;
        confirm(&format!("discard {} for good?", changes(found.rows())), out)?;
    }
    let discarded = changes(change(&state, &order)?.rows());
    output::done(writeln!(out, "discarded {discarded}").and_then(|()| out.flush()))
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

    fn standing(&self, standing: Standing) -> i64 {
        let so = self.groups.iter().filter(|((_, stands, _), _)| *stands == word(standing));
        so.map(|(_, group)| group.rows).sum()
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let rows: Vec<GroupRow> =
            self.groups.iter().map(|(key, group)| (key.clone(), *group)).collect();
        output::table(Screen::of_stdout(), &GROUPS, &rows, out)
    }
}

fn open(state: &Path) -> Result<Reader, Failure> {
    must_exist(state)?;
    Reader::open(state).map_err(not_opened)
}

fn look(reader: &Reader, order: &Order) -> Result<Found, Failure> {
    let Order { verb, selection } = order;
    let mut found = Found::default();
    let mut place = Some(Place::start());
    while let Some(from) = place {
        let (rows, next) = page(reader, selection, &from)?;
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
    output::counted(rows, "change")
}

fn would(verb: &str, found: &Found, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    output::done(found.write(out).and_then(|()| {
        writeln!(out, "\nwould {verb} {}", changes(found.rows()))?;
        out.flush()
    }))
}

/// Says that nothing matches. Whoever looks for what is parked is told of what is owed beside it.
fn nothing(
    select: &SelectFlags,
    reader: &Reader,
    order: &Order,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let Order { verb, selection } = order;
    let mut said = select.nothing();
    if selection.standing == Some(Standing::Parked) {
        let any = Selection { standing: None, ..selection.clone() };
        let owed = look(reader, &Order { verb: Verb::Discard, selection: any })?;
        if let Some(beside) = beside(*verb, &owed) {
            let what = if select.narrow() { "nothing that matches" } else { "nothing" };
            said = format!("{what} is parked; {beside}");
        }
    }
    output::done(writeln!(out, "{said}").and_then(|()| out.flush()))
}

/// What is owed and not parked, and how it is reached.
fn beside(verb: Verb, owed: &Found) -> Option<String> {
    let is = |rows, one, many| format!("{} {}", changes(rows), if rows == 1 { one } else { many });
    match (verb, owed.standing(Standing::Waiting), owed.rows()) {
        (_, _, 0) => None,
        (Verb::Discard, _, rows) => {
            Some(format!("{} still sent (--standing any: those too)", is(rows, "is", "are")))
        }
        (Verb::Retry, 0, rows) => Some(format!("{} sent by themselves", is(rows, "is", "are"))),
        (Verb::Retry, rows, _) => {
            let wait = is(rows, "waits and is", "wait and are");
            Some(format!("{wait} tried again without this (--standing waiting: now)"))
        }
    }
}

/// Says what was retried; of a sink that is no longer configured, that nobody sends it.
fn retried(touched: &Touched, sinks: &Sinks, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let mut sent = 0;
    let mut lines = Vec::new();
    for (sink, count) in &touched.sinks {
        let rows = count.parked + count.others;
        if sinks.lack(sink) {
            let them = if rows == 1 { "it" } else { "them" };
            let (marked, sink) = (changes(rows), plain(sink));
            lines.push(format!(
                "marked {marked}; no sink {sink} is configured, so nobody sends {them}"
            ));
        } else {
            sent += rows;
        }
    }
    if sent > 0 || lines.is_empty() {
        lines.insert(0, format!("retried {}", changes(sent)));
    }
    output::done(writeln!(out, "{}", lines.join("\n")).and_then(|()| out.flush()))
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
