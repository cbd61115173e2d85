//! `receiptd outbox list`: what is owed, in the order in which it is sent.

use std::io::{self, Write};
use std::process::ExitCode;

use super::Failure;
use super::db::{self, unreadable};
use super::flags::ConfigFlags;
use super::outbox::{SelectFlags, word};
use super::output::{self, Column, Format, Screen, second, text};
use crate::clock::Clock;
use crate::state::outbox_ask::{OutboxRow, Place};

/// Rows of a table unless `--limit` says otherwise.
const TABLE_ROWS: u64 = 50;

/// Rows read at once: bounds the memory.
const PAGE_ROWS: u64 = 1_000;

/// List what is owed, by sink and in the order in which it is sent
///
/// The table shows what fits the terminal; --format json (one object a line) and csv hold every
/// column. What a change tells is not among them: `receiptd outbox show ID` shows that.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  receiptd outbox list --sink app --standing parked
  receiptd outbox list --older-than 1h --format json")]
pub struct Args {
    #[command(flatten)]
    select: SelectFlags,

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
    // Enough of it to name the change.
    Column { title: "change", rank: 0, text: |row| row.id[..12].to_owned() },
    Column { title: "kind", rank: 5, text: |row| row.kind.clone() },
    Column { title: "status", rank: 6, text: |row| text(row.status.as_ref()) },
    Column { title: "subject", rank: 4, text: |row| text(row.subject.as_ref()) },
    Column { title: "standing", rank: 0, text: |row| word(row.standing).to_owned() },
    Column { title: "tried", rank: 7, text: tried },
    Column { title: "due (UTC)", rank: 3, text: |row| second(row.due_at) },
    Column { title: "received (UTC)", rank: 1, text: |row| second(Some(row.received_at)) },
    Column { title: "error", rank: 2, text: |row| text(row.error.as_ref()) },
];

fn tried(row: &OutboxRow) -> String {
    if row.attempts == 0 { String::new() } else { row.attempts.to_string() }
}

/// Runs the command.
///
/// # Errors
/// If the database cannot be read or the output not be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let reader = db::state(&args.flags)?;
    let selection = args.select.selection(Clock::system().now());
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
    if rows.is_empty() {
        writeln!(out, "nothing matches")?;
        return out.flush();
    }
    output::table(screen, &COLUMNS, rows, out)?;
    if let Some(next) = next {
        writeln!(out, "\nthere is more: add --cursor {next}")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::outbox::Standing;

    #[test]
    fn what_fails_and_since_when_is_seen_even_on_60_columns() {
        let row: OutboxRow = OutboxRow::for_test("app", Standing::Parked, "answered 404");
        let mut out = Vec::new();
        let screen = Screen { width: Some(60), is_terminal: true };
        write_table(screen, &[row], None, &mut out).unwrap();
        let table = String::from_utf8(out).unwrap();
        assert!(table.contains("3f9a0c123f9a"), "{table}");
        assert!(table.contains("parked") && table.contains("2026-11-22 10:00:00"), "{table}");
        assert!(table.lines().all(|line| line.chars().count() <= 60), "{table}");
    }
}
