//! `receiptd doctor`: is this endpoint safe?
//!
//! Asks before anything is sent to a host that is not this machine: what it sends is written there.

use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::output::{self, plain};
use super::{Failure, block_on, doctor_show, replay_post};
use crate::client::Target;
use crate::clock::Clock;
use crate::config::settings::Secret;
use crate::doctor::findings::Report;
use crate::doctor::{self, Question, specimen};
use crate::sender::Platform;

/// Find out what a sender would lose at a receiver, and how to mend it
///
/// Posts to the URL what the platform is known to send and what hand-written receivers are known to
/// answer wrongly: the set-up probe, wrong and missing tokens, nulls, words and keys nobody has
/// heard of, duplicates, reversed order, a late bounce, long, broken and slow bodies; looks at
/// redirects, at connections that are used again and at the certificate. Works with any receiver.
/// For each it says what was sent, what came back, what the platform would do with that, and what to
/// change.
///
/// The token comes from RECEIPTD_TOKEN or --token-file: use one made for tests; for va-notify-signed
/// it is the secret that signs. Every id it writes
/// begins with d0c70000- and is listed at the end, so that it can be looked up and removed. If the
/// URL is not on this machine it asks first.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  RECEIPTD_TOKEN=… receiptd doctor http://127.0.0.1:8080/callbacks/passport --provider gc-notify
  receiptd doctor https://receiver.example/callback --provider govuk-notify --token-file token --yes
  receiptd doctor http://localhost:8000/notify --provider gc-notify --format junit > doctor.xml

A finding is ok; skipped; warn (nothing is lost by it alone); lost (a callback, or all of them,
would be gone for good); unsafe (it accepts what it must refuse).

Exit codes: 0 nothing is lost, nobody let in; 1 something is lost or unsafe; 2 wrong usage;
69 not reachable; 74 a file could not be read.")]
pub struct Args {
    /// The receiver's URL for callbacks
    #[arg(value_name = "URL")]
    url: String,

    /// As whom to call
    #[arg(long, value_enum, value_name = "PROVIDER")]
    provider: Platform,

    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// Do not ask before sending to a host that is not this machine
    #[arg(long)]
    yes: bool,

    /// Read the token from this file instead of from RECEIPTD_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Trust the authorities in this PEM file, beside those of this machine
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// The longest that a check waits on purpose: between the pieces of a slow body, and before a
    /// connection is used again; less finds less
    #[arg(long, value_name = "SECONDS", default_value_t = 6, value_parser = clap::value_parser!(u64).range(..=60))]
    patience: u64,

    /// Where the ids come from [default: by chance, and printed]
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
}

/// How the findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table, and a paragraph for each finding that is not ok
    Table,
    /// One JSON object with everything
    Json,
    /// JUnit XML, one test case for each check
    Junit,
}

/// What the report is about.
pub(super) struct Subject {
    /// Without its query, which may hold a secret.
    pub url: String,
    pub platform: Platform,
    pub seed: u32,
}

/// Examines the receiver and prints what was found.
///
/// # Errors
/// If the arguments do not fit together, there is no token, or the receiver cannot be reached.
pub fn run(
    args: &Args,
    env: &[(String, String)],
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let target = Target::parse(&args.url)?;
    let token = Secret(replay_post::token(args.token_file.as_deref(), env)?);
    let seed = args.seed.map_or_else(by_chance, Ok)?;
    let url = bare_url(&target);
    let subject = Subject { url, platform: args.provider, seed };
    if !args.yes && !doctor::is_loopback(&target) {
        ask(&subject, &target)?;
    }
    if args.format == Format::Table {
        let opening = doctor_show::opening(doctor_show::width(), &subject);
        output::done(out.write_all(opening.as_bytes()).and_then(|()| out.flush()))?;
    }
    let report = block_on(doctor::examine(Question {
        target,
        platform: args.provider,
        token,
        ca_file: args.ca_file.clone(),
        patience: Duration::from_secs(args.patience),
        seed: seed.into(),
        now: Clock::system().now(),
    }))??;
    output::done(print(args.format, &subject, &report, out))?;
    Ok(if report.is_safe() { ExitCode::SUCCESS } else { ExitCode::from(Failure::NO) })
}

fn print(
    format: Format,
    subject: &Subject,
    report: &Report,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        Format::Table => doctor_show::table(subject, report, out),
        Format::Json => doctor_show::json(subject, report, out),
        Format::Junit => doctor_show::junit(subject, report, out),
    }
}

/// The question before anything leaves for another machine.
fn ask(subject: &Subject, target: &Target) -> Result<(), Failure> {
    let refused = |message: &str| {
        Failure::new(Failure::USAGE, message).hint("--yes examines it without asking")
    };
    let (stdin, mut stderr) = (io::stdin(), io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Err(refused("the URL is not on this machine, and nobody is here to be asked"));
    }
    let in_the_clear = if target.is_https { "" } else { ", the token in the clear" };
    let (url, prefix) = (plain(&subject.url), specimen::ID_PREFIX);
    let _ = write!(
        stderr,
        "This posts about 25 callbacks to {url}{in_the_clear}.\n\
         The receiver will keep receipts whose ids begin with {prefix}. Go on? [y/N] "
    );
    let _ = stderr.flush();
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    match (read, answer.trim().to_ascii_lowercase().as_str()) {
        (Ok(_), "y" | "yes") => Ok(()),
        _ => Err(refused("not examined")),
    }
}

/// Ids that no earlier run has used.
fn by_chance() -> Result<u32, Failure> {
    getrandom::u32()
        .map_err(|error| Failure::new(Failure::IO, format!("there is no randomness: {error}")))
}

fn bare_url(target: &Target) -> String {
    let scheme = if target.is_https { "https" } else { "http" };
    let path = target.path.split('?').next().unwrap_or_default();
    format!("{scheme}://{}{path}", target.authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_of_a_url_is_not_repeated() {
        let target = Target::parse("https://receiver.example:8443/a/b?key=secret").unwrap();
        assert_eq!(bare_url(&target), "https://receiver.example:8443/a/b");
    }
}
