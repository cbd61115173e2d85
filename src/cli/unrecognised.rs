//! `receiptd unrecognised`: authentic callbacks that could not be understood.

use std::io::{self, Write};
use std::process::ExitCode;

use super::Failure;
use super::db::{self, unreadable};
use super::flags::ConfigFlags;
use super::output::{self, Column, plain, second};
use super::pages::PageFlags;
use crate::state::read::UnrecognisedRow;

/// List callbacks that were kept but not understood, newest first; `show SEQ` prints one
///
/// They were authentic, answered and kept, and are settled again by `receiptd rebuild` once a newer
/// version understands them. The list says why, without any of their values.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  receiptd unrecognised --since 7d\n  receiptd unrecognised show 4711"
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    page: PageFlags,

    #[command(flatten)]
    flags: ConfigFlags,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print why one was not understood, and its body from the journal
    ///
    /// The body is what the sender sent: personal data, such as addresses, numbers and names, stands
    /// in it. Characters that would steer the terminal are shown as symbols; --raw prints the
    /// bytes as they came and nothing else, for a file or another program.
    #[command(after_help = "\
Examples:
  receiptd unrecognised show 4711
  receiptd unrecognised show 4711 --raw > body.json")]
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// Its position in the journal, the first column of the list
    #[arg(value_name = "SEQ")]
    seq: i64,

    /// Print only the body, byte for byte
    #[arg(long)]
    raw: bool,

    #[command(flatten)]
    flags: ConfigFlags,
}

const COLUMNS: [Column<UnrecognisedRow>; 4] = [
    Column { title: "seq", rank: 0, text: |row| row.seq.to_string() },
    Column { title: "received (UTC)", rank: 2, text: |row| second(Some(row.received_at)) },
    Column { title: "source", rank: 1, text: |row| row.source.clone() },
    Column { title: "reason", rank: 0, text: |row| row.reason.clone() },
];

/// Runs the command.
///
/// # Errors
/// If the database cannot be read, there is no such callback, or the output cannot be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    match &args.command {
        Some(Command::Show(args)) => show(args, out),
        None => {
            let reader = db::state(&args.list.flags)?;
            let read = |window: &_| reader.unrecognised(window);
            args.list.page.write(&UnrecognisedRow::COLUMNS, &COLUMNS, read, out)
        }
    }
}

fn show(args: &ShowArgs, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let seq = args.seq;
    let row =
        db::state(&args.flags)?.unrecognised_at(seq).map_err(unreadable)?.ok_or_else(|| {
            Failure::new(Failure::NO, format!("no unrecognised callback has the position {seq}"))
                .hint("`receiptd unrecognised` lists them all; the position is the first column")
        })?;
    let callback = db::journal(&args.flags)?.at(seq).map_err(unreadable)?;
    let body = callback.map(|callback| callback.body);
    match (args.raw, body) {
        (true, Some(body)) => output::done(out.write_all(&body).and_then(|()| out.flush())),
        (true, None) => {
            Err(Failure::new(Failure::NO, format!("the body of callback {seq} was pruned"))
                .hint("without --raw, what is still known of it is printed"))
        }
        (false, body) => output::done(print(&row, body.as_deref(), out)),
    }
}

fn print(row: &UnrecognisedRow, body: Option<&[u8]>, out: &mut dyn Write) -> io::Result<()> {
    output::block(&COLUMNS, row, out)?;
    writeln!(out)?;
    match body {
        None => writeln!(out, "its body was pruned")?,
        Some([]) => writeln!(out, "its body is empty")?,
        Some(body) => {
            // Line breaks are kept, so that a body written over several lines can be read.
            let text = String::from_utf8_lossy(body);
            for line in text.lines() {
                writeln!(out, "{}", plain(line))?;
            }
        }
    }
    out.flush()
}
