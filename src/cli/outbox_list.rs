//! `receiptd outbox list`: what is owed, in the order in which it is sent.

use std::io::{self, Write};
use std::process::ExitCode;

use super::Failure;
use super::db::{self, unreadable};
use super::flags::ConfigFlags;
use super::outbox::{SelectFlags, StandingWord, due, word};
use super::outbox_sinks::Sinks;
use super::output::{self, Column, Cut, Format, Screen, second, text};
use super::setup;
use crate::clock::Clock;
use crate::state::outbox_ask::{OutboxRow, Place};

/// Rows of a table unless `--limit` says otherwise.
const TABLE_ROWS: u64 = 50;

/// Rows read at once: bounds the memory.
const PAGE_ROWS: u64 = 1_000;

/// List what is owed, by sink and in the order in which it is sent
///
/// The table shows what fits the terminal; --format json (one object a line) and csv hold every
/// column. What a change tells is not among them: `receiptd outbox show ID` shows that. Where a change
/// was due in the past, its sink is left alone for a while after failures.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  receiptd outbox list --sink app --standing parked
  receiptd outbox list --older-than 1h --format json")]
pub struct Args {
    #[command(flatten)]
    select: SelectFlags,

    /// Only those that stand so
    #[arg(long, value_enum, default_value_t = StandingWord::Any)]
    standing: StandingWord,

    /// At most this many rows [default: 50 in a table, otherwise all]
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// Go on where an earlier table ended: it prints the cursor below its last row
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<Place>,

    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    #[command(flatten)]
    flags: ConfigFlags,
}

/// The columns of the table.
pub(super) const COLUMNS: [Column<OutboxRow>; 10] = [
    Column { title: "sink", rank: 0, text: |row| row.sink.clone() },
    Column { title: "standing", rank: 0, text: |row| word(row.standing).to_owned() },
    Column { title: "subject", rank: 1, text: |row| text(row.subject.as_ref()) },
    Column { title: "error", rank: 2, text: |row| text(row.error.as_ref()) },
    // Enough of it to name the change.
    Column { title: "change", rank: 3, text: |row| row.id[..12].to_owned() },
    Column { title: "due (UTC)", rank: 4, text: |row| second(due(row)) },
    Column { title: "received (UTC)", rank: 5, text: |row| second(Some(row.received_at)) },
    Column { title: "kind", rank: 6, text: |row| row.kind.clone() },
    Column { title: "status", rank: 7, text: |row| text(row.status.as_ref()) },
    Column { title: "tried", rank: 8, text: tried },
];

/// The two that say what to see to: both have room on 60 columns beside a sink with a longer name.
const CUTS: [Cut; 2] =
    [Cut { title: "subject", chars_min: 13 }, Cut { title: "error", chars_min: 14 }];

fn tried(row: &OutboxRow) -> String {
    if row.attempts == 0 { String::new() } else { row.attempts.to_string() }
}

/// Runs the command.
///
/// # Errors
/// If the database cannot be read or the output not be written.
pub fn run(
    args: &Args,
    env: &[(String, String)],
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let reader = db::state(&args.flags)?;
    let settings = setup::kept(&args.flags, env)?;
    Sinks::of(&settings, &args.flags, env).must_know(args.select.sink.as_ref(), &reader)?;
    let selection = args.select.selection(args.standing.standing(), Clock::system().now());
    let default = if args.format == Format::Table { TABLE_ROWS } else { u64::MAX };
    let mut left = args.limit.unwrap_or(default);
    let mut place = args.cursor.clone().or_else(|| Some(Place::start()));
    let mut tabled = Vec::new();
    let mut heading = Some(&OutboxRow::COLUMNS[..]);
    while let Some(from) = place.take_if(|_| left > 0) {
        let rows_max = usize::try_from(left.min(PAGE_ROWS)).unwrap_or(1);
        let (rows, next) = reader.outbox(&selection, &from, rows_max).map_err(unreadable)?;
        left -= rows.len() as u64;
        place = next;
        let written = match args.format {
            Format::Json => output::json(&rows, out),
            Format::Csv => output::csv(heading.take(), &rows, out),
            Format::Table => {
                tabled.extend(rows);
                Ok(())
            }
        };
        if written.is_err() {
            return output::done(written);
        }
    }
    output::done(match args.format {
        Format::Table if tabled.is_empty() => {
            writeln!(out, "{}", args.select.nothing()).and_then(|()| out.flush())
        }
        Format::Table => write_table(Screen::of_stdout(), &tabled, place.as_ref(), out),
        Format::Json | Format::Csv => out.flush(),
    })
}

fn write_table(
    screen: Screen,
    rows: &[OutboxRow],
    next: Option<&Place>,
    out: &mut dyn Write,
) -> io::Result<()> {
    output::table_cut(screen, &COLUMNS, &CUTS, rows, out)?;
    if let Some(next) = next {
        writeln!(out, "\nthere is more: add --cursor {next}")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::outbox::Standing;

    fn tabled(width: usize, row: OutboxRow) -> String {
        let mut out = Vec::new();
        let screen = Screen { width: Some(width), is_terminal: true };
        write_table(screen, &[row], None, &mut out).unwrap();
        let table = String::from_utf8(out).unwrap();
        assert!(table.lines().all(|line| line.chars().count() <= width), "{table}");
        table
    }

    #[test]
    fn what_fails_and_why_is_seen_even_on_60_columns() {
        let long = "failed to connect: connection refused";
        let row = |error| OutboxRow::for_test("app", Standing::Parked, error);
        let table = tabled(60, row("answered 404"));
        assert!(table.contains("app   parked    740e5834-3a29-46b4-9a6f-1614"), "{table}");
        assert!(table.contains("…  answered 404"), "{table}");
        let table = tabled(60, row(long));
        assert!(table.contains("740e5834-3a2…  failed to connect: connectio…"), "{table}");
        let table = tabled(80, row(long));
        assert!(
            table.contains("740e5834-3a29-46b4-9a6f-16142fde533a  failed to connect: "),
            "{table}"
        );
        let table = tabled(100, row("answered 404"));
        assert!(table.contains("answered 404  3f9a0c123f9a"), "{table}");
    }

    #[test]
    fn what_is_held_is_not_due_at_any_time() {
        let mut row = OutboxRow::for_test("app", Standing::Held, "");
        row.due_at = Some(row.received_at);
        assert!(!tabled(200, row.clone()).contains("due (UTC)"));
        row.standing = Standing::Waiting;
        assert!(tabled(200, row).contains("due (UTC)"));
    }
}
