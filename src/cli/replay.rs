//! `receiptd replay`: what do these callbacks come to?
//!
//! Offline into a database in memory ([`crate::replay`]), into the files of a database
//! (`files`), or over HTTP as the senders would (`post`).

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::output::counted;
use super::{Failure, replay_files, replay_post};
use crate::provider::Provider;
use crate::replay::expect::{self, Expected};
use crate::replay::fixtures::{self, Fixture};
use crate::replay::order::Order;
use crate::replay::permute::{Conflict, Verdict, permute};
use crate::replay::{Offline, Outcome, ReplayError, SettledNotification};

/// The source of callbacks that no receiver gave one.
const SOURCE: &str = "replay";

/// Refusals, or callbacks that were not understood, that are printed one by one.
pub(super) const PRINTED_MAX: usize = 20;

/// Settle callbacks from files and print what they come to
///
/// A .json file is one body, byte for byte; a .jsonl file is one body a line. Of a folder, every
/// such file in it and below is taken, sorted by path; files named expected.jsonl are not, and of a
/// folder that holds callbacks/ beside an expected.jsonl only callbacks/ is.
///
/// Without --db or --to nothing is kept: the callbacks are settled in memory as if they had arrived
/// at 2000-01-01T00:00:00Z, which then also stands where only the receive time is known (when a
/// letter came back, a complaint without a date).
///
/// Prints one JSON object a line for each notification the callbacks told of, sorted by id. What
/// could not be understood is named on standard error. Exits with 1 if --expect finds a difference,
/// --permute a second state, or --to an answer that is not 2xx.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  receiptd replay --provider gc-notify tests/callbacks
  receiptd replay --provider gc-notify tests/callbacks --expect tests/expected.jsonl
  receiptd replay --provider gc-notify tests/callbacks --permute
  RECEIPTD_TOKEN=… receiptd replay tests/callbacks --to http://127.0.0.1:8080/callbacks/passport

An expectation names what it cares about, and an id:
  {\"id\": \"740e5834-3a29-46b4-9a6f-16142fde533a\", \"status\": \"permanent-failure\"}")]
pub struct Args {
    /// Files and folders of callbacks
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// Who sent them: notify (any of the family), gc-notify, govuk-notify, us-notify, va-notify,
    /// notify-nl or ajo
    #[arg(long, value_name = "PROVIDER", required_unless_present = "to", conflicts_with = "to")]
    pub provider: Option<Provider>,

    /// The source they are settled under [default: replay]; with --to, print only what came through
    /// this source
    #[arg(long, value_name = "NAME", value_parser = source_name)]
    pub source: Option<String>,

    /// The order in which they arrive
    #[arg(long, value_enum, default_value_t = OrderWord::AsIs)]
    pub order: OrderWord,

    /// Where chance starts, for shuffled and --permute; the same seed gives the same orders
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// How often they all arrive
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub repeat: u16,

    /// Try every order of the callbacks about each notification (beyond 7 of them 1,000 by chance), each
    /// as one batch and one by one: all must give one state
    #[arg(long, conflicts_with_all = ["to", "db"])]
    pub permute: bool,

    /// Compare with the lines of this file instead of printing; only the keys a line names are
    /// compared, and every notification must have a line
    #[arg(long, value_name = "FILE")]
    pub expect: Option<PathBuf>,

    /// Keep them in this database instead of in memory; with --to, read there what the receiver
    /// settled
    #[arg(long, value_name = "FILE")]
    pub db: Option<PathBuf>,

    /// Post them to this URL as the senders would, one after the other, and print the answers; the
    /// token comes from RECEIPTD_TOKEN or --token-file
    #[arg(long, value_name = "URL")]
    pub to: Option<String>,

    /// Read the token from this file instead of from RECEIPTD_TOKEN
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Trust the authorities in this PEM file, beside those of this machine
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// The orders by their words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OrderWord {
    /// As they stand
    AsIs,
    /// The last one first
    Reversed,
    /// By chance
    Shuffled,
}

fn source_name(text: &str) -> Result<String, &'static str> {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.is_empty() || !text.bytes().all(is_name) {
        return Err("expected a name of lower-case letters, digits and -");
    }
    Ok(text.to_owned())
}

/// What came of a replay.
pub(super) struct Replayed {
    /// What to print or compare; `None` if a receiver keeps it to itself.
    pub notifications: Option<Vec<SettledNotification>>,
    /// Whether everything else was as it should be.
    pub is_yes: bool,
}

/// Replays, and prints what it came to; remarks go to standard error.
///
/// # Errors
/// If the arguments do not fit together, a file cannot be used, or a receiver not be reached.
pub fn run(
    args: &Args,
    env: &[(String, String)],
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    run_with(args, env, out, &mut io::stderr())
}

/// The same, with remarks going to `aside`.
///
/// # Errors
/// As of [`run`].
pub fn run_with(
    args: &Args,
    env: &[(String, String)],
    out: &mut dyn Write,
    aside: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    check(args)?;
    let expected = read_expected(args)?;
    let fixtures = fixtures::load(&args.paths)
        .map_err(|error| Failure::new(Failure::IO, error.to_string()))?;
    let fixtures: Vec<&Fixture> = fixtures.iter().collect();
    let arranged = order(args).arrange(&fixtures, args.repeat.into());
    let Replayed { notifications, is_yes } = match (&args.to, &args.db) {
        (Some(url), _) => replay_post::replay(args, url, env, &arranged, out, aside)?,
        (None, Some(db)) => into_files(args, db, &arranged, aside)?,
        (None, None) => in_memory(args, &arranged, out, aside)?,
    };
    let is_as_expected = match (notifications, expected) {
        (None, _) => true,
        (Some(notifications), Some(expected)) => compare(&expected, &notifications, out)?,
        (Some(notifications), None) => print(&notifications, out)?,
    };
    Ok(if is_yes && is_as_expected { ExitCode::SUCCESS } else { ExitCode::from(Failure::NO) })
}

/// What clap cannot tell: there, a flag that excludes another lifts what a third requires of it.
fn check(args: &Args) -> Result<(), Failure> {
    if args.to.is_some() && args.db.is_none() && args.expect.is_some() {
        return Err(Failure::new(Failure::USAGE, "--to and --expect need --db")
            .hint("what a receiver has settled is read from its state file"));
    }
    if args.to.is_none() && (args.token_file.is_some() || args.ca_file.is_some()) {
        return Err(Failure::new(Failure::USAGE, "--token-file and --ca-file are for --to"));
    }
    Ok(())
}

fn order(args: &Args) -> Order {
    match args.order {
        OrderWord::AsIs => Order::AsIs,
        OrderWord::Reversed => Order::Reversed,
        OrderWord::Shuffled => Order::Shuffled { seed: args.seed },
    }
}

fn provider(args: &Args) -> Result<Provider, Failure> {
    args.provider.ok_or_else(|| Failure::new(Failure::USAGE, "--provider says who sent them"))
}

fn read_expected(args: &Args) -> Result<Option<Vec<Expected>>, Failure> {
    let Some(path) = &args.expect else { return Ok(None) };
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(Failure::IO, format!("failed to read {}: {error}", path.display()))
    })?;
    match expect::parse(&text) {
        Ok(expected) => Ok(Some(expected)),
        Err(error) => Err(Failure::new(Failure::USAGE, format!("{}, {error}", path.display()))),
    }
}

fn in_memory(
    args: &Args,
    fixtures: &[&Fixture],
    out: &mut dyn Write,
    aside: &mut dyn Write,
) -> Result<Replayed, Failure> {
    let wrong = |error: ReplayError| Failure::new(Failure::IO, error.to_string());
    let source = args.source.as_deref().unwrap_or(SOURCE);
    let mut offline = Offline::new(source, provider(args)?).map_err(wrong)?;
    let Outcome { notifications, unrecognised } =
        offline.settle(fixtures.iter().copied()).map_err(wrong)?;
    remark(fixtures, &unrecognised, aside);
    if args.permute {
        let seed = args.seed;
        match permute(&mut offline, fixtures.iter().copied(), seed).map_err(wrong)? {
            Verdict::One { notifications, orders } => {
                let orders = counted(orders, "order");
                let notifications = counted(notifications, "notification");
                remark_line(aside, &format!("{orders} of {notifications}: one state each"));
            }
            Verdict::Two(conflict) => {
                out.write_all(describe(&conflict, fixtures).as_bytes()).map_err(Failure::output)?;
                return Ok(Replayed { notifications: None, is_yes: false });
            }
        }
    }
    Ok(Replayed { notifications: Some(notifications), is_yes: true })
}

fn into_files(
    args: &Args,
    db: &std::path::Path,
    fixtures: &[&Fixture],
    aside: &mut dyn Write,
) -> Result<Replayed, Failure> {
    let source = args.source.as_deref().unwrap_or(SOURCE);
    let Outcome { notifications, unrecognised } =
        replay_files::settle(db, source, provider(args)?, fixtures)?;
    remark(fixtures, &unrecognised, aside);
    Ok(Replayed { notifications: Some(notifications), is_yes: true })
}

/// Two orders and what is different between what they give.
fn describe(conflict: &Conflict, fixtures: &[&Fixture]) -> String {
    let Conflict { id, one, other, is_one_by_one } = conflict;
    let mut text = format!("{id}: two orders of the same callbacks give two states\n");
    let one_by_one = if *is_one_by_one { ", one by one" } else { "" };
    for (heading, (order, _)) in [("one order:", one), (&*format!("another{one_by_one}:"), other)] {
        let _ = writeln!(text, "{heading}");
        for place in order {
            let _ = writeln!(text, "  {}", fixtures.get(*place).map_or("?", |it| &*it.name));
        }
    }
    let expected = one.1.iter().map(Expected::exactly).collect::<Vec<_>>();
    let _ = writeln!(text, "the difference, with the first as what is expected:");
    for difference in expect::differences(&expected, &other.1) {
        let _ = writeln!(text, "{difference}");
    }
    text
}

/// Whether there was no difference.
fn compare(
    expected: &[Expected],
    notifications: &[SettledNotification],
    out: &mut dyn Write,
) -> Result<bool, Failure> {
    let differences = expect::differences(expected, notifications);
    for difference in &differences {
        writeln!(out, "{difference}").map_err(Failure::output)?;
    }
    let verdict = match differences.len() {
        0 => format!("{}, all as expected", counted(notifications.len(), "notification")),
        count => counted(count, "difference"),
    };
    writeln!(out, "{verdict}").map_err(Failure::output)?;
    Ok(differences.is_empty())
}

fn print(notifications: &[SettledNotification], out: &mut dyn Write) -> Result<bool, Failure> {
    for notification in notifications {
        let line = serde_json::to_string(notification)
            .map_err(|error| Failure::new(Failure::IO, error.to_string()))?;
        writeln!(out, "{line}").map_err(Failure::output)?;
    }
    Ok(true)
}

fn remark(fixtures: &[&Fixture], unrecognised: &[(usize, String)], aside: &mut dyn Write) {
    for (place, reason) in unrecognised.iter().take(PRINTED_MAX) {
        let name = fixtures.get(*place).map_or("?", |fixture| &*fixture.name);
        remark_line(aside, &format!("{name}: unrecognised: {reason}"));
    }
    if let Some(more) = unrecognised.len().checked_sub(PRINTED_MAX).filter(|more| *more > 0) {
        remark_line(aside, &format!("… and {more} more that were not recognised"));
    }
}

/// A remark nobody can read any more is no reason to fail.
fn remark_line(aside: &mut dyn Write, line: &str) {
    let _ = writeln!(aside, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_shows_both_orders_and_the_difference() {
        let fixtures = [
            Fixture::new("a", r#"{"id":"1","status":"sent","notification_type":"sms"}"#),
            Fixture::new("b", r#"{"id":"1","status":"delivered","notification_type":"sms"}"#),
        ];
        let settled = |fixtures: &[Fixture]| {
            let mut offline = Offline::new(SOURCE, Provider::Notify).unwrap();
            offline.settle(fixtures).unwrap().notifications
        };
        let conflict = Conflict {
            id: "1".to_owned(),
            one: (vec![0, 1], settled(&fixtures)),
            other: (vec![1, 0], settled(&fixtures[..1])),
            is_one_by_one: true,
        };
        assert_eq!(
            describe(&conflict, &fixtures.iter().collect::<Vec<_>>()),
            "1: two orders of the same callbacks give two states\n\
             one order:\n  a\n  b\n\
             another, one by one:\n  b\n  a\n\
             the difference, with the first as what is expected:\n\
             1: status\n  expected \"delivered\"\n  got      \"sent\"\n\
             1: receipts\n  expected 2\n  got      1\n"
        );
    }
}
