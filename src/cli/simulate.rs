//! `receiptd simulate`: a sender to own. Sends what a platform would send, as it would send it,
//! and holds the receiver against what every message truly came to.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::client::Resumption;

use super::output::Screen;
use super::{
    Failure, junit, progress, replay_post, simulate_probe, simulate_report, simulate_verify,
};
use crate::callback::Kind;
use crate::client::{Target, tls_config};
use crate::sender::Platform;
use crate::simulate::connection::Tls;
use crate::simulate::engine::{self, EngineError, Plan, Status};
use crate::simulate::life::Truth;
use crate::simulate::report::Report;
use crate::simulate::request::{Credential, Request};
use crate::simulate::scenario::Scenario;
use crate::simulate::schedule::{Lives, Pace};
use crate::simulate::verify::Verification;
use crate::simulate::worker::Place;

/// Messages a second, where nothing else is said.
const RATE: f64 = 200.0;

/// Messages, where nothing else is said.
const COUNT: u64 = 1_000;

/// Workers in an open loop.
const CONNECTIONS: usize = 10;

/// Be the platform: send callbacks to a receiver as it would, and check what they came to
///
/// Lives of messages come by chance from a seed: the same seed at the same rate and speed sends
/// the same bytes. Each callback is sent with the platform's headers, connection habits and time limits, and is sent again or
/// given up as the platform does. Waits between retries and gaps in lives are compressed by
/// --speed; time limits are not. Stretches of more than a minute of the platform's time in which
/// nothing is queued and no retry is pending are skipped.
///
/// With --rate, or without --connections, callbacks fall due on a schedule that does not wait for
/// slow answers, and latency counts from when each was due (open loop). With --connections alone
/// each connection sends as soon as its answer is there (closed loop).
///
/// The token comes from RECEIPTD_TOKEN or --token-file; for va-notify-signed it is the secret that
/// signs. Exits with 0 if nothing was lost and every state compared is as it should be, with 1 if
/// not, with 2 on wrong usage, with 69 if the receiver could never be reached, with 74 if a file
/// could not be used.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  RECEIPTD_TOKEN=… receiptd simulate http://127.0.0.1:8080/callbacks/passport \\
    --provider gc-notify --count 3000 --speed 1000 --seed 7 --verify-db receiptd.db
  receiptd simulate https://receipts.example.gc.ca/callbacks/passport --provider gc-notify \\
    --token-file token --rate 50 --duration 60s --verify-url 'https://app.example/status/{id}'
  receiptd simulate http://127.0.0.1:8080/callbacks/licensing --provider govuk-notify \\
    --token-file token --connections 64 --duration 10s")]
pub struct Args {
    /// Where the receiver takes callbacks
    #[arg(value_name = "URL")]
    pub url: String,

    /// Which platform to be
    #[arg(long, value_name = "PLATFORM", value_enum)]
    pub provider: Platform,

    /// Messages to send; each has some callbacks [default: 1000, or what fits --duration]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Messages a second, by our time; open loop [default: 200]
    #[arg(long, value_name = "PER_SECOND", value_parser = above_zero)]
    pub rate: Option<f64>,

    /// Begin messages for this long, by our time: 500ms, 60s, 5m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,

    /// Connections at once; without --rate a closed loop at full speed [default: 10, open loop]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub connections: Option<u16>,

    /// How much faster than ours the platform's time runs; at 300 GOV.UK Notify's 25 minutes of
    /// retries take 5 seconds
    #[arg(long, value_name = "FACTOR", default_value_t = 300.0, value_parser = above_zero)]
    pub speed: f64,

    /// Where chance starts
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Read the token, or the secret that signs, from this file instead of from RECEIPTD_TOKEN
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Trust the authorities in this PEM file, beside those of this machine
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// Send the probe of the platform's set-up form first and go no further if it fails; on by
    /// default where the platform has one (gc-notify)
    #[arg(long, overrides_with = "no_probe")]
    pub probe: bool,

    /// Send no probe
    #[arg(long)]
    pub no_probe: bool,

    /// Compare with this state file of the receiver, once it has settled everything
    #[arg(long, value_name = "FILE", conflicts_with = "verify_url")]
    pub verify_db: Option<PathBuf>,

    /// Compare only this source in --verify-db; needed if several share ids
    #[arg(long, value_name = "NAME", requires = "verify_db")]
    pub source: Option<String>,

    /// Compare with what this URL answers for each notification: `{id}` stands for its id, the
    /// answer is a JSON object whose keys are those of `receiptd replay`, `status` among them. A
    /// bearer for it may stand in RECEIPTD_VERIFY_TOKEN
    #[arg(long, value_name = "TEMPLATE")]
    pub verify_url: Option<String>,

    /// Write what every notification came to, as lines that `receiptd replay --expect` takes
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,

    /// Write the checks to this file as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,

    /// How the report is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// How the report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// One JSON object
    Json,
}

/// Bounded so that no time comes out longer than a clock can hold.
fn above_zero(text: &str) -> Result<f64, &'static str> {
    let number = text.parse().ok().filter(|n: &f64| (0.001..=1_000_000.0).contains(n));
    number.ok_or("expected a number over 0: from 0.001 to 1,000,000")
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    const EXPECTED: &str = "expected a time such as 500ms, 60s, 5m or 1h";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| EXPECTED)?;
    let ms = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let ms = ms.and_then(|ms: u64| number.checked_mul(ms)).filter(|ms| *ms > 0);
    ms.map(Duration::from_millis).ok_or(EXPECTED)
}

impl Lives for Scenario {
    fn callbacks(&self, message: u64) -> Vec<crate::simulate::life::Planned> {
        self.callbacks(message)
    }

    fn truth(&self, message: u64) -> Truth {
        self.truth(message)
    }
}

/// What is asked for, checked.
pub(super) struct Asked {
    /// How first attempts come about.
    pub pace: Pace,
    /// At most so many messages.
    pub messages: u64,
    /// Messages a second by our time, in an open loop.
    pub rate: Option<f64>,
    /// Workers.
    pub connections: usize,
}

impl Asked {
    fn of(args: &Args) -> Self {
        let closed = args.rate.is_none() && args.connections.is_some();
        if closed {
            let until = args.duration.map_or(COUNT, |_| u64::MAX);
            return Self {
                pace: Pace::Closed { lasting: args.duration },
                messages: args.count.unwrap_or(until),
                rate: None,
                connections: args.connections.map_or(CONNECTIONS, usize::from),
            };
        }
        let rate = args.rate.unwrap_or(RATE);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float becomes the nearest whole number that there is"
        )]
        let fitting = args.duration.map(|lasting| (lasting.as_secs_f64() * rate).ceil() as u64);
        Self {
            pace: Pace::Open,
            messages: fitting.into_iter().chain(args.count).min().unwrap_or(COUNT),
            rate: Some(rate),
            connections: args.connections.map_or(CONNECTIONS, usize::from),
        }
    }
}

/// Everything there is to report.
pub(super) struct Outcome {
    /// What was asked for.
    pub asked: Asked,
    /// Where chance started.
    pub seed: u64,
    /// How long the probe's answer took, if one was sent.
    pub probe: Option<Duration>,
    /// What came of sending.
    pub report: Report,
    /// What came of comparing, if that was asked for, and how long it took.
    pub verification: Option<(Verification, Duration)>,
}

impl Outcome {
    /// Whether nothing was lost and everything compared is as it should be.
    pub fn is_good(&self) -> bool {
        let is_verified = self.verification.as_ref().is_none_or(|(found, _)| found.is_good());
        self.report.lost_callbacks() == 0 && is_verified
    }
}

/// Simulates, compares, reports.
///
/// # Errors
/// If the arguments do not fit together, a file cannot be used, or the receiver not be reached.
pub fn run(
    args: &Args,
    env: &[(String, String)],
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let target = Target::parse(&args.url)?;
    let token = replay_post::token(args.token_file.as_deref(), env)?;
    let asked = Asked::of(args);
    let scenario = Scenario::new(args.provider, args.seed, asked.rate.unwrap_or(RATE) / args.speed);
    let credential = match args.provider {
        Platform::VaNotifySigned => Credential::Signature(token),
        _ => Credential::Bearer(token),
    };
    let request = Request::new(&target, credential)
        .map_err(|error| Failure::new(Failure::USAGE, error.to_string()))?;
    let verifier = simulate_verify::Verifier::of(args, env)?;
    let place = place(&target, args.ca_file.as_deref())?;
    verifier.look(&place)?;
    let probe = simulate_probe::run(args, &target, &place, &request)?;
    let plan = Plan {
        platform: args.provider,
        rules: Kind::ALL.map(|kind| args.provider.rules(kind)),
        lives: &scenario,
        messages: asked.messages,
        pace: asked.pace,
        speed: args.speed,
        connections: asked.connections,
        seed: args.seed,
        place,
        request,
    };
    let report = send(plan)?;
    if !report.is_reached && report.attempts > 0 {
        return Err(unreachable(&target, &report));
    }
    if let Some(path) = &args.truth {
        write_to(path, |out| write_truth(&scenario, report.messages, out))?;
    }
    let started = Instant::now();
    // If there is nothing to compare with, what came of sending is still to be told.
    let (verification, failure) = match verifier.run(&scenario, report.messages) {
        Ok(verification) => (verification, None),
        Err(failure) => (None, Some(failure)),
    };
    let verification = verification.map(|verification| (verification, started.elapsed()));
    let outcome = Outcome { asked, seed: args.seed, probe, report, verification };
    if let Some(path) = &args.junit {
        let cases = simulate_report::cases(&outcome);
        write_to(path, |out| junit::write("receiptd simulate", &cases, out))?;
    }
    let printed = match args.format {
        Format::Table => simulate_report::print(&outcome, Screen::of_stdout(), out),
        Format::Json => simulate_report::print_json(&outcome, out),
    };
    printed.map_err(Failure::output)?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    Ok(if outcome.is_good() { ExitCode::SUCCESS } else { ExitCode::from(Failure::NO) })
}

/// Looks the host up once: what a sender asks anew for each connection rarely changes meanwhile.
fn place(target: &Target, ca_file: Option<&Path>) -> Result<Place, Failure> {
    let found = (target.host.as_str(), target.port).to_socket_addrs().map_err(|error| {
        Failure::new(Failure::UNAVAILABLE, format!("failed to find {}: {error}", target.host))
    })?;
    let tls = if target.is_https {
        let mut config = tls_config(ca_file)?;
        // Python's library begins every session anew.
        config.resumption = Resumption::disabled();
        Some(Tls { config: Arc::new(config), name: target.server_name()? })
    } else {
        None
    };
    Ok(Place { addresses: found.collect(), tls })
}

fn send(plan: Plan<'_>) -> Result<Report, Failure> {
    let bar = progress::bar("sending");
    let report = engine::run(plan, &mut |status: Status| match status.planned {
        Some(planned) => {
            bar.set_length(planned);
            bar.set_position(status.done);
        }
        None => bar.set_message(format!("sending: {} sent, {} lost", status.done, status.lost)),
    });
    bar.finish_and_clear();
    report.map_err(Failure::from)
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let failure = Self::new(Self::IO, error.to_string());
        match error {
            EngineError::Exhausted(_) => {
                failure.hint("fewer --connections, a lower --rate, or a higher `ulimit -n`")
            }
            EngineError::System(_) => failure,
        }
    }
}

/// What is said of a receiver that nobody could connect to.
pub(super) fn unreachable(target: &Target, report: &Report) -> Failure {
    let causes: Vec<_> = report.no_answers.keys().map(|cause| cause.as_str()).collect();
    let message = format!("failed to connect to {}: {}", target.authority, causes.join(", "));
    Failure::new(Failure::UNAVAILABLE, message)
        .hint("does the receiver run, and is this its address?")
}

/// One line for each notification; received texts have no line in the language of `replay`.
fn write_truth(scenario: &Scenario, messages: u64, out: &mut dyn Write) -> io::Result<()> {
    for message in 0..messages {
        if let Truth::Notification(keys) = scenario.truth(message) {
            serde_json::to_writer(&mut *out, &keys)?;
            out.write_all(b"\n")?;
        }
    }
    Ok(())
}

fn write_to(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Failure> {
    let written = File::create(path).and_then(|file| {
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        out.flush()
    });
    written.map_err(|error| {
        Failure::new(Failure::IO, format!("failed to write {}: {error}", path.display()))
            .hint(Failure::LOOK_AT_FOLDER)
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn asked(flags: &str) -> Asked {
        let line = format!("simulate http://localhost/ --provider gc-notify {flags}");
        Asked::of(&Line::try_parse_from(line.split_whitespace()).unwrap().args)
    }

    #[test]
    fn a_rate_or_nothing_is_an_open_loop_and_connections_alone_a_closed_one() {
        let closed =
            |seconds: Option<u64>| Pace::Closed { lasting: seconds.map(Duration::from_secs) };
        for (flags, pace, messages, connections) in [
            ("", Pace::Open, 1_000, 10),
            ("--count 7", Pace::Open, 7, 10),
            ("--rate 50 --duration 60s", Pace::Open, 3_000, 10),
            ("--rate 50 --duration 1m --count 9 --connections 3", Pace::Open, 9, 3),
            ("--rate 0.5 --duration 3s", Pace::Open, 2, 10),
            ("--connections 64", closed(None), 1_000, 64),
            ("--connections 64 --count 5", closed(None), 5, 64),
            ("--connections 64 --duration 10s", closed(Some(10)), u64::MAX, 64),
            ("--connections 64 --duration 10s --count 5", closed(Some(10)), 5, 64),
        ] {
            let asked = asked(flags);
            let got = (asked.pace, asked.messages, asked.connections);
            assert_eq!(got, (pace, messages, connections), "{flags:?}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7_200)));
        for text in ["", "5", "s", "0s", "5d", "-1s", "1.5s", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }
}
