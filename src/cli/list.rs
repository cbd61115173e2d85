//! `receiptd list`: notifications, newest first.

use std::io::Write;
use std::process::ExitCode;

use super::Failure;
use super::db::{self, unreadable};
use super::flags::ConfigFlags;
use super::output::{Column, second, text};
use super::pages::PageFlags;
use crate::clock::{Clock, Timestamp};
use crate::ends::Ends;
use crate::lookout::{STUCK_S, ends_by};
use crate::provider::notify::FAILURES;
use crate::state::expected::{Overdue, Question};
use crate::state::read::{Filter, NotificationRow, Reader, Stuck, Window};

/// List notifications and their states, newest first
///
/// Newest is what was first heard of last. The table shows what fits the terminal; --format json
/// (one object a line) and csv hold every column. CSV values are written as they came: a value that
/// begins with = + - or @ is a formula to a spreadsheet, so import such columns as text.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  receiptd list --status failed --since 7d
  receiptd list --reference application-1234
  receiptd list --stuck --source passport
  receiptd list --overdue --format json
  receiptd list --source passport --format csv > passport.csv")]
pub struct Args {
    /// Only with this status; may be given several times
    ///
    /// Any status word as it stands in the database, or `failed` for every word that says a message
    /// did not reach its recipient.
    #[arg(long = "status", value_name = "STATUS", value_delimiter = ',')]
    pub statuses: Vec<String>,

    /// Only with this reference, the one your app gave when it sent the message
    #[arg(long, value_name = "TEXT")]
    pub reference: Option<String>,

    /// Only of this type: email, sms, letter, …
    #[arg(long = "type", value_name = "TYPE")]
    pub notification_type: Option<String>,

    /// Only those that have not come to an end within the platforms' 72 hours
    #[arg(long)]
    pub stuck: bool,

    /// In place of that: what your app said it sent and has not come to an end by its deadline
    ///
    /// Without a deadline within 72 hours. Oldest first; a notification that nothing was heard of has
    /// no status. A list that is cut has no cursor: --limit says how many there are to be.
    #[arg(
        long,
        conflicts_with_all = [
            "stuck", "statuses", "reference", "notification_type", "since", "until", "cursor",
        ]
    )]
    pub overdue: bool,

    /// Which part of the list.
    #[command(flatten)]
    pub page: PageFlags,

    /// Where the configuration and the data are.
    #[command(flatten)]
    pub flags: ConfigFlags,
}

const COLUMNS: [Column<NotificationRow>; 9] = [
    Column { title: "id", rank: 0, text: |row| row.id.clone() },
    Column { title: "status", rank: 0, text: |row| text(row.status.as_ref()) },
    Column { title: "type", rank: 2, text: |row| text(row.notification_type.as_ref()) },
    Column { title: "reference", rank: 4, text: |row| text(row.reference.as_ref()) },
    Column { title: "source", rank: 3, text: |row| row.source.clone() },
    Column { title: "completed (UTC)", rank: 5, text: |row| second(row.completed_at) },
    Column {
        title: "first received (UTC)",
        rank: 1,
        text: |row| second(Some(row.first_received_at)),
    },
    Column { title: "complained", rank: 6, text: |row| second(row.complained_at) },
    Column { title: "returned", rank: 6, text: |row| second(row.returned_at) },
];

const OVERDUE: [Column<Overdue>; 6] = [
    Column { title: "id", rank: 0, text: |row| row.id.clone() },
    Column { title: "status", rank: 0, text: |row| text(row.status.as_ref()) },
    Column { title: "deadline (UTC)", rank: 1, text: |row| second(row.deadline) },
    Column { title: "app told us (UTC)", rank: 2, text: |row| second(Some(row.since)) },
    Column { title: "reference", rank: 4, text: |row| text(row.reference.as_ref()) },
    Column { title: "source", rank: 3, text: |row| row.source.clone() },
];

/// Runs the command.
///
/// # Errors
/// If the database cannot be read or the output not be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let reader = db::state(&args.flags)?;
    let now = Clock::system().now();
    if args.overdue {
        return overdue(args, &reader, now, out);
    }
    let stuck = match args.stuck {
        true => Some(Stuck { ends: what_ends(args)?, since: now.plus_seconds(-STUCK_S) }),
        false => None,
    };
    let mut filter = Filter {
        window: args.page.window(),
        statuses: statuses(&args.statuses),
        reference: args.reference.clone(),
        notification_type: args.notification_type.clone(),
        stuck,
    };
    let read = |window: &Window| {
        filter.window.clone_from(window);
        reader.list(&filter)
    };
    args.page.write(&NotificationRow::COLUMNS, &COLUMNS, read, out)
}

fn overdue(
    args: &Args,
    reader: &Reader,
    now: Timestamp,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let ends = what_ends(args)?;
    let question = Question {
        source: args.page.source.as_deref(),
        ends: &ends,
        now,
        said_before: now.plus_seconds(-STUCK_S),
        said_since: None,
        behind: i64::MIN,
        // One more, to know whether there are more.
        rows_max: args.page.rows_max().saturating_add(1),
        is_new: false,
    };
    let rows = reader.overdue(&question).map_err(unreadable)?;
    args.page.write_all(&Overdue::COLUMNS, &OVERDUE, rows, out)
}

/// What is an end in each source: the journal knows whose platform it is.
fn what_ends(args: &Args) -> Result<Ends, Failure> {
    let journal = db::journal(&args.flags)?;
    ends_by(&journal).map_err(unreadable)
}

fn statuses(words: &[String]) -> Vec<String> {
    let expand = |word: &String| match word.as_str() {
        "failed" => FAILURES.map(str::to_owned).to_vec(),
        _ => vec![word.clone()],
    };
    words.iter().flat_map(expand).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::notify::is_known_status;

    #[test]
    fn every_failure_is_a_word_that_some_platform_uses() {
        assert!(FAILURES.into_iter().all(is_known_status));
        let words = ["failed".to_owned(), "sent".to_owned()];
        assert_eq!(statuses(&words).len(), FAILURES.len() + 1);
    }
}
