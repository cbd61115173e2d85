//! `receiptd show`: what is known of one message, and when it was told.

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use super::Failure;
use super::db::{self, unreadable};
use super::flags::ConfigFlags;
use super::output::{self, Column, Screen, moment, plain, text};
use crate::clock::{Clock, Timestamp};
use crate::lookout::{STUCK_S, ends_by};
use crate::state::read::{ExpectationRow, HistoryLine, MessageRow, NotificationRow, Reader};

/// Show the state of one message and every callback about it
///
/// ID is the notification's id, which the platform gave when your app sent it, or that of a
/// received text message. Where several sources know the id, each is shown. The time line has the
/// callbacks in the order in which they were kept, which need not be the order of what they tell:
/// `receiptd explain ID` says why one of them won. Of a message that your app said it sent, it shows
/// when its end is due and whether it is overdue. Exits with 1 if nothing has that id.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  receiptd show 740e5834-3a29-46b4-9a6f-16142fde533a
  receiptd show 740e5834-3a29-46b4-9a6f-16142fde533a --format json | jq .notification.status")]
pub struct Args {
    /// The notification's or the received message's id
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

/// How one thing is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// What is known under one id in one source.
#[derive(Serialize)]
#[serde(untagged)]
enum Subject {
    Notification {
        notification: Box<NotificationRow>,
        #[serde(skip_serializing_if = "Option::is_none")]
        expected: Option<Expectation>,
        history: Vec<HistoryLine>,
    },
    Message {
        received_message: MessageRow,
        history: Vec<HistoryLine>,
    },
    /// Nothing was heard of it; with the history that every subject has.
    Unheard {
        expected: Expectation,
        history: [HistoryLine; 0],
    },
}

/// What an app said it sent.
#[derive(Serialize)]
pub(super) struct Expectation {
    #[serde(flatten)]
    said: ExpectationRow,
    /// Whether its end should have come by now.
    overdue: bool,
}

impl Expectation {
    fn new(said: ExpectationRow, has_ended: bool, now: Timestamp) -> Self {
        let overdue = !has_ended && due(&said) < now;
        Self { said, overdue }
    }

    /// In a sentence, where nothing was heard of it.
    pub(super) fn sentence(&self) -> String {
        let Self { said, overdue } = self;
        let reference = said.reference.as_ref();
        let reference = reference.map(|text| format!(" (reference {})", plain(text)));
        format!(
            "nothing was heard of {}, which your app told us at {} that it sent through {}{}: {} {}",
            plain(&said.id),
            utc(Some(said.since)),
            plain(&said.source),
            reference.unwrap_or_default(),
            if *overdue { "it has been overdue since" } else { "it is due by" },
            utc(Some(due(said))),
        )
    }
}

/// When the end of it is due.
fn due(said: &ExpectationRow) -> Timestamp {
    said.deadline.unwrap_or_else(|| said.since.plus_seconds(STUCK_S))
}

const STATE: [Column<NotificationRow>; 19] = [
    Column { title: "notification", rank: 0, text: |row| row.id.clone() },
    Column { title: "source", rank: 0, text: |row| row.source.clone() },
    Column { title: "status", rank: 0, text: status },
    Column { title: "description", rank: 0, text: |row| text(row.status_description.as_ref()) },
    Column { title: "provider says", rank: 0, text: |row| text(row.provider_response.as_ref()) },
    Column { title: "completed", rank: 0, text: |row| utc(row.completed_at) },
    Column { title: "sent", rank: 0, text: |row| utc(row.sent_at) },
    Column { title: "created", rank: 0, text: |row| utc(row.created_at) },
    Column { title: "complained", rank: 0, text: |row| utc(row.complained_at) },
    Column { title: "returned", rank: 0, text: |row| utc(row.returned_at) },
    Column { title: "reference", rank: 0, text: |row| text(row.reference.as_ref()) },
    Column { title: "recipient", rank: 0, text: |row| text(row.recipient.as_ref()) },
    Column { title: "type", rank: 0, text: |row| text(row.notification_type.as_ref()) },
    Column { title: "template", rank: 0, text: |row| text(row.template_id.as_ref()) },
    Column { title: "version", rank: 0, text: |row| number(row.template_version) },
    Column { title: "receipts", rank: 0, text: |row| row.receipts.to_string() },
    Column { title: "duplicates", rank: 0, text: |row| row.duplicates.to_string() },
    Column { title: "first heard of", rank: 0, text: |row| utc(Some(row.first_received_at)) },
    Column { title: "last news", rank: 0, text: |row| utc(Some(row.last_received_at)) },
];

const MESSAGE: [Column<MessageRow>; 7] = [
    Column { title: "received message", rank: 0, text: |row| row.id.clone() },
    Column { title: "source", rank: 0, text: |row| row.source.clone() },
    Column { title: "from", rank: 0, text: |row| text(row.source_number.as_ref()) },
    Column { title: "to", rank: 0, text: |row| text(row.destination_number.as_ref()) },
    Column { title: "message", rank: 0, text: |row| text(row.message.as_ref()) },
    Column { title: "platform got it", rank: 0, text: |row| utc(row.date_received) },
    Column { title: "first heard of", rank: 0, text: |row| utc(Some(row.received_at)) },
];

/// Beside the state.
const DUE: [Column<Expectation>; 3] = [
    Column { title: "app told us", rank: 0, text: told_us },
    Column { title: "due", rank: 0, text: due_at },
    Column { title: "overdue", rank: 0, text: is_overdue },
];

const UNHEARD: [Column<Expectation>; 7] = [
    Column { title: "notification", rank: 0, text: |row| row.said.id.clone() },
    Column { title: "source", rank: 0, text: |row| row.said.source.clone() },
    Column { title: "status", rank: 0, text: |_| "not known: nothing was heard of it".to_owned() },
    Column { title: "reference", rank: 0, text: |row| text(row.said.reference.as_ref()) },
    Column { title: "app told us", rank: 0, text: told_us },
    Column { title: "due", rank: 0, text: due_at },
    Column { title: "overdue", rank: 0, text: is_overdue },
];

const TIME_LINE: [Column<HistoryLine>; 7] = [
    Column { title: "received (UTC)", rank: 0, text: |line| moment(line.received_at) },
    Column { title: "seq", rank: 1, text: |line| line.seq.to_string() },
    Column { title: "kind", rank: 4, text: |line| line.kind.clone() },
    Column { title: "told", rank: 0, text: told },
    Column { title: "origin", rank: 2, text: |line| line.origin.clone() },
    Column {
        title: "completed (UTC)",
        rank: 3,
        text: |line| line.completed_at.map(moment).unwrap_or_default(),
    },
    Column {
        title: "",
        rank: 1,
        text: |line| if line.duplicate { "duplicate" } else { "" }.into(),
    },
];

/// Runs the command.
///
/// # Errors
/// If the database cannot be read, nothing has that id, or the output cannot be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let reader = db::state(&args.flags)?;
    let now = Clock::system().now();
    let subjects = find(&reader, args, now)?;
    if subjects.is_empty() {
        return Err(not_found(&args.id, args.source.as_deref()));
    }
    output::done(match args.format {
        Format::Json => output::json(&subjects, out).and_then(|()| out.flush()),
        Format::Text => print(&subjects, Screen::of_stdout(), out),
    })
}

/// Nothing has that id.
pub(super) fn not_found(id: &str, source: Option<&str>) -> Failure {
    let of = source.map(|source| format!(" of source {}", plain(source))).unwrap_or_default();
    Failure::new(Failure::NO, format!("nothing is known of {}{of}", plain(id))).hint(
        "no callback about it was settled in this database, or it was pruned; `receiptd list` shows \
         those there are, `receiptd list --reference TEXT` finds one by your app's reference",
    )
}

/// What an app said it sent under that id, through sources that told nothing of it.
pub(super) fn unheard(
    reader: &Reader,
    source: Option<&str>,
    id: &str,
    now: Timestamp,
) -> rusqlite::Result<Vec<Expectation>> {
    let heard = reader.notification(source, id)?;
    let mut said = reader.expectation(source, id)?;
    said.retain(|row| heard.iter().all(|heard| heard.source != row.source));
    Ok(said.into_iter().map(|said| Expectation::new(said, false, now)).collect())
}

fn find(reader: &Reader, args: &Args, now: Timestamp) -> Result<Vec<Subject>, Failure> {
    let (source, id) = (args.source.as_deref(), &args.id);
    let mut subjects = Vec::new();
    let said = reader.expectation(source, id).map_err(unreadable)?;
    // Whose platform each source is, and so what is an end, the journal knows, if it is there.
    let ends = match said.is_empty() {
        true => None,
        false => db::journal(&args.flags).ok().and_then(|journal| ends_by(&journal).ok()),
    };
    let expected_of = |row: &NotificationRow| {
        let said = said.iter().find(|said| said.source == row.source)?;
        let kind = row.notification_type.as_deref();
        let is_end = ends.as_ref()?.is_end(&row.source, row.status.as_deref(), kind);
        let has_ended = is_end || row.returned_at.is_some();
        Some(Expectation::new(said.clone(), has_ended, now))
    };
    for notification in reader.notification(source, id).map_err(unreadable)? {
        let history = about(reader, &notification.source, id, |kind| kind != "received-message")?;
        let expected = expected_of(&notification);
        let notification = Box::new(notification);
        subjects.push(Subject::Notification { notification, expected, history });
    }
    for received_message in reader.message(source, id).map_err(unreadable)? {
        let history =
            about(reader, &received_message.source, id, |kind| kind == "received-message")?;
        subjects.push(Subject::Message { received_message, history });
    }
    let unheard = unheard(reader, source, id, now).map_err(unreadable)?;
    subjects.extend(unheard.into_iter().map(|expected| Subject::Unheard { expected, history: [] }));
    Ok(subjects)
}

fn about(
    reader: &Reader,
    source: &str,
    id: &str,
    is_kind: impl Fn(&str) -> bool,
) -> Result<Vec<HistoryLine>, Failure> {
    let mut history = reader.history(source, id).map_err(unreadable)?;
    history.retain(|line| is_kind(&line.kind));
    Ok(history)
}

fn print(subjects: &[Subject], screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    for (index, subject) in subjects.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        let history = match subject {
            Subject::Notification { notification, expected, history } => {
                output::block(&STATE, notification, out)?;
                if let Some(expected) = expected {
                    writeln!(out)?;
                    output::block(&DUE, expected, out)?;
                }
                history
            }
            Subject::Message { received_message, history } => {
                output::block(&MESSAGE, received_message, out)?;
                history
            }
            Subject::Unheard { expected, .. } => {
                output::block(&UNHEARD, expected, out)?;
                continue;
            }
        };
        writeln!(out)?;
        output::table(screen, &TIME_LINE, history, out)?;
    }
    out.flush()
}

fn status(row: &NotificationRow) -> String {
    row.status.clone().unwrap_or_else(|| "not known: no receipt has told one".to_owned())
}

fn told_us(row: &Expectation) -> String {
    utc(Some(row.said.since))
}

fn due_at(row: &Expectation) -> String {
    utc(Some(due(&row.said)))
}

fn is_overdue(row: &Expectation) -> String {
    if row.overdue { "yes" } else { "no" }.to_owned()
}

fn told(line: &HistoryLine) -> String {
    line.status.clone().unwrap_or_else(|| format!("({})", line.kind))
}

fn number(value: Option<i64>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn utc(time: Option<Timestamp>) -> String {
    time.map(|time| format!("{} UTC", moment(time))).unwrap_or_default()
}
