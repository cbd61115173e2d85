//! `receiptd outbox show`: one change as it is sent, and how far it has got.

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;
use serde_json::Value;

use super::Failure;
use super::db::{self, unreadable};
use super::flags::ConfigFlags;
use super::outbox::{due, parse_id, too_short, word};
use super::outbox_sinks::Sinks;
use super::output::{self, Column, moment, plain, text};
use super::setup;
use super::show::Format;
use crate::clock::Timestamp;
use crate::config::settings::Sink;
use crate::forward::event::Event;
use crate::state::outbox_ask::{OutboxRow, Place, Selection};
use crate::state::read::Reader;

/// Rows that are shown at most: whoever asks by an id means a few.
const ROWS_MAX: usize = 100;

/// Show what is owed about one message, or one change, as it is sent
///
/// ID is the id of a notification or a received message, or the first four digits or more of a change's
/// id. The event is what the sink is told: it holds personal data. Exits with 1 if nothing is owed by that id; what
/// was delivered is not.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  receiptd outbox show 740e5834-3a29-46b4-9a6f-16142fde533a
  receiptd outbox show 3f9a0c12 --sink app --format json | jq .event.data")]
pub struct Args {
    /// The message's id, or the first digits of the change's
    #[arg(value_name = "ID", value_parser = parse_id)]
    id: String,

    /// Only what is owed to this sink
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    #[command(flatten)]
    flags: ConfigFlags,
}

/// A row, and what the sink is told.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    row: OutboxRow,
    event: Value,
}

const ROW: [Column<OutboxRow>; 10] = [
    Column { title: "change", rank: 0, text: |row| row.id.clone() },
    Column { title: "sink", rank: 0, text: |row| row.sink.clone() },
    Column { title: "standing", rank: 0, text: |row| word(row.standing).to_owned() },
    Column { title: "failed attempts", rank: 0, text: |row| row.attempts.to_string() },
    Column { title: "last error", rank: 0, text: |row| text(row.error.as_ref()) },
    Column { title: "due", rank: 0, text: |row| utc(due(row)) },
    Column { title: "received", rank: 0, text: |row| utc(Some(row.received_at)) },
    Column { title: "kind", rank: 0, text: |row| row.kind.clone() },
    Column { title: "source", rank: 0, text: |row| row.source.clone() },
    Column { title: "subject", rank: 0, text: |row| text(row.subject.as_ref()) },
];

fn utc(time: Option<Timestamp>) -> String {
    time.map(|time| format!("{} UTC", moment(time))).unwrap_or_default()
}

/// Runs the command.
///
/// # Errors
/// If the database cannot be read, nothing is owed by that id, or the output cannot be written.
pub fn run(
    args: &Args,
    env: &[(String, String)],
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let reader = db::state(&args.flags)?;
    let settings = setup::kept(&args.flags, env)?;
    Sinks::of(&settings, &args.flags, env).must_know(args.sink.as_ref(), &reader)?;
    let selection =
        Selection { sink: args.sink.clone(), id: Some(args.id.clone()), ..Selection::default() };
    let (rows, next) = reader.outbox(&selection, &Place::start(), ROWS_MAX).map_err(unreadable)?;
    let shown = with_events(&reader, rows, &settings.sinks).map_err(unreadable)?;
    if shown.is_empty() {
        let message = format!("nothing is owed by the id {}", plain(&args.id));
        return Err(Failure::new(Failure::NO, message).hint(too_short(&args.id).unwrap_or(
            "what was delivered is gone from the outbox; `receiptd show ID` shows what is known",
        )));
    }
    output::done(match args.format {
        Format::Json => output::json(&shown, out).and_then(|()| out.flush()),
        Format::Text => print(&shown, next.is_some(), out),
    })
}

/// Each row that is still there, with its event.
fn with_events(
    reader: &Reader,
    rows: Vec<OutboxRow>,
    sinks: &[Sink],
) -> rusqlite::Result<Vec<Shown>> {
    let mut shown = Vec::new();
    for row in rows {
        let Some(owed) = reader.owed(&row)? else { continue };
        let sink = sinks.iter().find(|sink| *sink.name == row.sink);
        let event = Event::new(&owed, sink.is_some_and(|sink| sink.include_raw));
        let event = serde_json::from_slice(&event.structured()).unwrap_or_default();
        shown.push(Shown { row, event });
    }
    Ok(shown)
}

fn print(shown: &[Shown], has_more: bool, out: &mut dyn Write) -> io::Result<()> {
    for (index, Shown { row, event }) in shown.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        output::block(&ROW, row, out)?;
        writeln!(out)?;
        let text = serde_json::to_string_pretty(event)?;
        text.lines().try_for_each(|line| writeln!(out, "{}", plain(line)))?;
    }
    if has_more {
        writeln!(out, "\nthere is more: `receiptd outbox list --id ID` lists all of it")?;
    }
    out.flush()
}
