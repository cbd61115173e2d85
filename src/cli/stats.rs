//! `receiptd stats`: how many messages are in which state.

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use super::Failure;
use super::db::{self, unreadable};
use super::flags::ConfigFlags;
use super::output::{self, Column, Format, Screen, second};
use crate::state::outbox_ask::SinkCount;
use crate::state::read::{SourceCount, StatusCount};

/// Count notifications by source and status
///
/// On a terminal each count has a bar, on one scale for all sources. --by source counts what each
/// source has sent, received messages and unrecognised callbacks among it; --by sink what each sink is
/// owed. Reads the whole state,
/// which takes about a second for a few million messages; nothing waits for it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  receiptd stats
  receiptd stats --by source --format json
  receiptd stats --by sink")]
pub struct Args {
    /// What to count by
    #[arg(long, value_enum, default_value_t = By::Status)]
    pub by: By,

    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,

    /// Where the configuration and the data are.
    #[command(flatten)]
    pub flags: ConfigFlags,
}

/// What to count by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// Notifications, by source and status
    Status,
    /// Everything, by source
    Source,
    /// What is owed, by sink
    Sink,
}

/// A count and the greatest of them, which has the longest bar.
struct Bar {
    count: StatusCount,
    greatest: i64,
}

/// Length of the longest bar, in characters.
const BAR_CHARS_MAX: i64 = 20;

const STATUSES: [Column<Bar>; 6] = [
    Column { title: "source", rank: 0, text: |row| row.count.source.clone() },
    Column {
        title: "status",
        rank: 0,
        text: |row| row.count.status.clone().unwrap_or_else(|| "(none told)".to_owned()),
    },
    Column { title: "count", rank: 0, text: |row| row.count.notifications.to_string() },
    Column { title: "", rank: 1, text: |row| bar(row.count.notifications, row.greatest) },
    Column { title: "receipts", rank: 2, text: |row| row.count.receipts.to_string() },
    Column { title: "duplicates", rank: 3, text: |row| row.count.duplicates.to_string() },
];

const SOURCES: [Column<SourceCount>; 7] = [
    Column { title: "source", rank: 0, text: |row| row.source.clone() },
    Column { title: "notifications", rank: 0, text: |row| row.notifications.to_string() },
    Column { title: "receipts", rank: 4, text: |row| row.receipts.to_string() },
    Column { title: "duplicates", rank: 5, text: |row| row.duplicates.to_string() },
    Column { title: "messages", rank: 1, text: |row| row.messages.to_string() },
    Column { title: "unrecognised", rank: 2, text: |row| row.unrecognised.to_string() },
    Column { title: "last news (UTC)", rank: 3, text: |row| second(row.last_received_at) },
];

const SINKS: [Column<SinkCount>; 5] = [
    Column { title: "sink", rank: 0, text: |row| row.sink.clone() },
    Column { title: "owed", rank: 0, text: |row| row.owed.to_string() },
    Column { title: "waiting", rank: 2, text: |row| row.waiting.to_string() },
    Column { title: "parked", rank: 0, text: |row| row.parked.to_string() },
    Column { title: "oldest owed (UTC)", rank: 1, text: |row| second(row.oldest_received_at) },
];

/// Runs the command.
///
/// # Errors
/// If the database cannot be read or the output not be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let reader = db::state(&args.flags)?;
    let screen = Screen::of_stdout();
    let written = match args.by {
        By::Status => {
            let counts = reader.stats().map_err(unreadable)?;
            match args.format {
                Format::Table => draw(screen, counts, out),
                format => write(format, &StatusCount::COLUMNS, &counts, out),
            }
        }
        By::Source => {
            let counts = reader.sources().map_err(unreadable)?;
            match args.format {
                Format::Table if counts.is_empty() => {
                    writeln!(out, "nothing of any source is settled, or all of it was pruned")
                }
                Format::Table => output::table(screen, &SOURCES, &counts, out),
                format => write(format, &SourceCount::COLUMNS, &counts, out),
            }
        }
        By::Sink => {
            let counts = reader.sinks().map_err(unreadable)?;
            match args.format {
                Format::Table if counts.is_empty() => writeln!(out, "nothing is owed to any sink"),
                Format::Table => output::table(screen, &SINKS, &counts, out),
                format => write(format, &SinkCount::COLUMNS, &counts, out),
            }
        }
    };
    output::done(written.and_then(|()| out.flush()))
}

fn write<R: Serialize>(
    format: Format,
    names: &[&str],
    rows: &[R],
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        Format::Csv => output::csv(Some(names), rows, out),
        _ => output::json(rows, out),
    }
}

fn draw(screen: Screen, counts: Vec<StatusCount>, out: &mut dyn Write) -> io::Result<()> {
    let all: i64 = counts.iter().map(|count| count.notifications).sum();
    if all == 0 {
        // There may be received texts, or what was not understood.
        return writeln!(out, "no notifications; {OTHERS}");
    }
    // Bars are for eyes: without a terminal the scale is nothing, and an empty column is left out.
    let greatest = counts.iter().map(|count| count.notifications).max().unwrap_or(0);
    let greatest = if screen.is_terminal { greatest } else { 0 };
    let rows: Vec<Bar> = counts.into_iter().map(|count| Bar { count, greatest }).collect();
    output::table(screen, &STATUSES, &rows, out)?;
    let all = output::counted(all, "notification");
    writeln!(out, "\n{all}; {OTHERS}")
}

const OTHERS: &str = "--by source counts everything else";

/// A bar of whole and half characters; whatever is there at all has at least a half.
fn bar(count: i64, greatest: i64) -> String {
    if greatest == 0 {
        return String::new();
    }
    let halves = (count * BAR_CHARS_MAX * 2).div_euclid(greatest).max(1);
    let whole = usize::try_from(halves / 2).unwrap_or(0);
    format!("{}{}", "█".repeat(whole), if halves % 2 == 1 { "▌" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> Vec<StatusCount> {
        [("delivered", 40), ("permanent-failure", 1)]
            .map(|(status, notifications)| StatusCount {
                source: "passport".to_owned(),
                status: Some(status.to_owned()),
                notifications,
                receipts: notifications,
                duplicates: 0,
            })
            .to_vec()
    }

    fn drawn(is_terminal: bool) -> String {
        let mut out = Vec::new();
        draw(Screen { width: Some(60), is_terminal }, counts(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_longest_bar_is_full_and_the_shortest_can_be_seen() {
        let table = drawn(true);
        assert!(table.contains(&format!("40     {}\n", "█".repeat(20))), "{table}");
        assert!(table.contains("1      ▌\n"), "{table}");
        assert!(table.lines().all(|line| line.chars().count() <= 60), "{table}");
    }

    #[test]
    fn bars_are_drawn_on_a_terminal_only() {
        assert!(!drawn(false).contains(['█', '▌']));
    }
}
