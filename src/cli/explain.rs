//! `receiptd explain`: why a notification has the status it has.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use super::Failure;
use super::db::{self, unreadable};
use super::flags::ConfigFlags;
use super::output::{self, moment, plain};
use super::show::{Expectation, Format, not_found, unheard};
use super::verdict::{Line, Told, Verdict, judge};
use crate::callback::{Callback, News, Origin, Report};
use crate::clock::Clock;
use crate::journal;
use crate::provider::polled::is_uuid;
use crate::provider::{self, Dialect};
use crate::state::read::{HistoryLine, NotificationRow, Reader};

/// Explain why a message has the status it has, callback by callback
///
/// Reads every callback about the notification again from the journal and says of each why it won
/// or lost: a later completed_at wins; at the same instant the status that can follow the other;
/// an identical callback is a duplicate. Of callbacks that were pruned it says what history kept.
/// Exits with 1 if no notification has that id, or nothing was heard of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  receiptd explain 740e5834-3a29-46b4-9a6f-16142fde533a
  receiptd explain 740e5834-3a29-46b4-9a6f-16142fde533a --format json | jq -r .why")]
pub struct Args {
    /// The notification's id
    #[arg(value_name = "ID")]
    pub id: String,

    /// Only that of this source
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Where the configuration and the data are.
    #[command(flatten)]
    pub flags: ConfigFlags,
}

/// Runs the command.
///
/// # Errors
/// If a database cannot be read, no notification has that id, or the output cannot be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let Args { id, source, .. } = args;
    let state = db::state(&args.flags)?;
    let notifications = state.notification(source.as_deref(), id).map_err(unreadable)?;
    if notifications.is_empty() {
        if !state.message(source.as_deref(), id).map_err(unreadable)?.is_empty() {
            let message = format!("{} is a received text message and has no status", plain(id));
            return Err(Failure::new(Failure::NO, message).hint("`receiptd show` shows it"));
        }
        let now = Clock::system().now();
        let unheard = unheard(&state, source.as_deref(), id, now).map_err(unreadable)?;
        if !unheard.is_empty() {
            let sentences: Vec<String> = unheard.iter().map(Expectation::sentence).collect();
            return Err(Failure::new(Failure::NO, sentences.join("; ")).hint(hint_unheard(id)));
        }
        return Err(not_found(id, source.as_deref()));
    }
    let mut journal = db::journal(&args.flags)?;
    for (index, notification) in notifications.iter().enumerate() {
        let lines = explain(&state, &mut journal, notification).map_err(unreadable)?;
        let written = match args.format {
            Format::Json => output::json(&lines, out),
            Format::Text if index == 0 => print(notification, &lines, out),
            Format::Text => writeln!(out).and_then(|()| print(notification, &lines, out)),
        };
        if written.is_err() {
            return output::done(written);
        }
    }
    output::done(out.flush())
}

fn hint_unheard(id: &str) -> &'static str {
    if is_uuid(id) {
        "there is no status to explain; `receiptd reconcile` asks the platform for it, where the source \
         has an upstream"
    } else {
        "there is no status to explain, and its id is no UUID: the platform cannot be asked for it"
    }
}

fn explain(
    state: &Reader,
    journal: &mut journal::reader::Reader,
    notification: &NotificationRow,
) -> rusqlite::Result<Vec<Line>> {
    let NotificationRow { source, id, status, completed_at, .. } = notification;
    let dialects = journal.dialects()?;
    let dialect = dialects.get(source.as_str());
    // A callback of several events has several lines of history at one position.
    let mut callbacks: BTreeMap<i64, Vec<HistoryLine>> = BTreeMap::new();
    for line in state.history(source, id)? {
        if line.kind != "received-message" {
            callbacks.entry(line.seq).or_default().push(line);
        }
    }
    let mut told = Vec::new();
    for (seq, lines) in callbacks {
        match journal.at(seq)? {
            None => told.extend(lines.into_iter().map(Told::Pruned)),
            Some(callback) => told.extend(read_again(dialect, &callback, id, lines)),
        }
    }
    let mut lines = judge(told, status.as_deref(), *completed_at);
    let polled = Origin::Polled.as_str();
    for line in lines.iter_mut().filter(|line| line.history.origin == polled) {
        line.why = format!("told when asked, not called back; {}", line.why);
    }
    Ok(lines)
}

/// The events of one body about the notification `id`, each with its line of history. Lines of one
/// callback come in no certain order, so an event takes the line that says the same.
fn read_again(
    dialect: Option<&Dialect>,
    Callback { origin, body, .. }: &Callback,
    id: &str,
    mut lines: Vec<HistoryLine>,
) -> Vec<Told> {
    let reading = dialect.map(|dialect| provider::read_entry(dialect, *origin, body));
    let events = reading.map(|reading| reading.events).unwrap_or_default();
    let mut told = Vec::new();
    for event in events {
        let fingerprint = event.fingerprint;
        let News::Notification(report) = event.news else { continue };
        if report.id == id && !lines.is_empty() {
            let says = lines.iter().position(|line| says_the_same(line, &report)).unwrap_or(0);
            let line = lines.swap_remove(says);
            told.push(Told::Read {
                line,
                kind: report.kind,
                standing: report.standing,
                fingerprint,
            });
        }
    }
    told.extend(lines.into_iter().map(Told::Unread));
    told
}

fn says_the_same(line: &HistoryLine, report: &Report) -> bool {
    let standing = report.standing.as_ref();
    line.kind == report.kind.as_str()
        && line.status.as_ref() == standing.map(|standing| &standing.status)
        && line.completed_at == standing.and_then(|standing| standing.completed_at)
}

fn print(notification: &NotificationRow, lines: &[Line], out: &mut dyn Write) -> io::Result<()> {
    let NotificationRow { source, id, status, completed_at, .. } = notification;
    let status = status.as_deref().unwrap_or("no status is known");
    let at = completed_at.map(|at| format!(", completed_at {}", moment(at))).unwrap_or_default();
    writeln!(out, "{} (source {}): {}{at}", plain(id), plain(source), plain(status))?;
    for Line { history, why, .. } in lines {
        let told = history.status.as_deref().unwrap_or(&history.kind);
        let received = moment(history.received_at);
        writeln!(out, "\n  seq {}: {}, received {received}", history.seq, plain(told))?;
        writeln!(out, "    {}", plain(why))?;
    }
    if let Some(reading) = disagreement(notification, lines) {
        writeln!(
            out,
            "\nThe journal, read by this version, says {}. `receiptd rebuild` settles it again.",
            plain(reading)
        )?;
    }
    Ok(())
}

/// The status the journal gives, if it is not the one the state has.
fn disagreement<'l>(notification: &NotificationRow, lines: &'l [Line]) -> Option<&'l str> {
    let winner = lines.iter().find(|line| line.verdict == Verdict::Wins)?;
    let status = winner.history.status.as_deref();
    status.filter(|_| status != notification.status.as_deref())
}
