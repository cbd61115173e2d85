//! `receiptd messages`: text messages from the public, newest first.

use std::io::Write;
use std::process::ExitCode;

use super::Failure;
use super::db::DbFlags;
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

    /// Where the data is.
    #[command(flatten)]
    pub db: DbFlags,
}

const COLUMNS: [Column<MessageRow>; 6] = [
    Column { title: "received (UTC)", rank: 0, text: |row| second(Some(row.received_at)) },
    Column { title: "from", rank: 0, text: |row| text(row.source_number.as_ref()) },
    Column { title: "to", rank: 4, text: |row| text(row.destination_number.as_ref()) },
    Column { title: "message", rank: 1, text: |row| text(row.message.as_ref()) },
    Column { title: "source", rank: 3, text: |row| row.source.clone() },
    Column { title: "id", rank: 2, text: |row| row.id.clone() },
];

/// Runs the command.
///
/// # Errors
/// If the database cannot be read or the output not be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let reader = args.db.state()?;
    args.page.write(&MessageRow::COLUMNS, &COLUMNS, |window| reader.messages(window), out)
}
