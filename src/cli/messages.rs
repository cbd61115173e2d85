//! `receiptd messages`: text messages from the public, newest first.

use std::io::Write;
use std::process::ExitCode;

use super::Failure;
use super::db;
use super::flags::ConfigFlags;
use super::output::{Column, second, text};
use super::pages::PageFlags;
use crate::state::read::MessageRow;

/// List text messages received from the public, newest first
///
/// What people wrote, and their numbers, are personal data. The table cuts long messages; `receiptd
/// show ID`, --format json (one object a line) and csv have them whole. CSV values are written as
/// they came: a value that begins with = + - or @ is a formula to a spreadsheet, so import such
/// columns as text.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  receiptd messages --since 1d --format json")]
pub struct Args {
    /// Which part of the list.
    #[command(flatten)]
    pub page: PageFlags,

    /// Where the configuration and the data are.
    #[command(flatten)]
    pub flags: ConfigFlags,
}

const COLUMNS: [Column<MessageRow>; 6] = [
    Column { title: "received (UTC)", rank: 0, text: |row| second(Some(row.received_at)) },
    Column { title: "from", rank: 2, text: |row| text(row.source_number.as_ref()) },
    Column { title: "to", rank: 5, text: |row| text(row.destination_number.as_ref()) },
    Column { title: "message", rank: 1, text: |row| text(row.message.as_ref()) },
    Column { title: "source", rank: 4, text: |row| row.source.clone() },
    Column { title: "id", rank: 3, text: |row| row.id.clone() },
];

/// Runs the command.
///
/// # Errors
/// If the database cannot be read or the output not be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let reader = db::state(&args.flags)?;
    args.page.write(&MessageRow::COLUMNS, &COLUMNS, |window| reader.messages(window), out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Screen, table};

    #[test]
    fn what_was_written_is_seen_even_on_60_columns() {
        let row = MessageRow {
            source: "passport".to_owned(),
            id: "740e5834-3a29-46b4-9a6f-16142fde533a".to_owned(),
            source_number: Some("447700900111".to_owned()),
            destination_number: None,
            message: Some("my passport did not come ".repeat(9)),
            date_received: None,
            received_at: "2026-11-22T10:00:00Z".parse().unwrap(),
        };
        let mut out = Vec::new();
        let screen = Screen { width: Some(60), is_terminal: true };
        table(screen, &COLUMNS, &[row], &mut out).unwrap();
        let table = String::from_utf8(out).unwrap();
        assert!(table.contains("2026-11-22 10:00:00  my passport did not come"), "{table}");
        assert!(table.lines().all(|line| line.chars().count() <= 60), "{table}");
    }
}
