//! One file a command. The only room that prints.
//!
//! Every command is `run(args) -> Result<ExitCode, Failure>`: what it has to say goes to standard
//! output, what went wrong comes back as a [`Failure`] and is printed once, by `main`, on standard
//! error. Exit codes: 0 done; 1 the answer is no (a difference, a damaged file, not found);
//! 2 wrong usage; 69 the receiver cannot be reached; 74 a file could not be read or written;
//! 78 the configuration is wrong.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser as _;

use crate::client::ClientError;
use crate::clock::Clock;
use crate::lock::LockError;
use crate::sqlite::OpenError;

pub mod flags;

mod setup;

pub mod config;

pub mod replay;
mod replay_files;
mod replay_post;

pub mod doctor;
mod doctor_show;

pub mod simulate;
mod simulate_probe;
mod simulate_report;
mod simulate_verify;

mod junit;

pub mod prune;

pub mod reconcile;
mod reconcile_asked;

mod progress;

pub mod healthcheck;

pub mod rebuild;

pub mod check_db;

pub mod backup;

pub mod serve;

pub mod demo;
mod demo_body;
mod demo_scenario;
mod demo_show;
mod demo_stage;
mod demo_verdict;

pub mod db;
pub mod output;
pub mod pages;

pub mod show;

pub mod explain;
mod verdict;

pub mod list;
pub mod messages;
pub mod unrecognised;

pub mod stats;

pub mod outbox;
mod outbox_change;
mod outbox_list;
mod outbox_show;
mod outbox_sinks;

pub mod token;

/// Why a command failed, in words for the person at the terminal.
#[derive(Debug)]
pub struct Failure {
    /// What is wrong: a sentence fragment, lower case, without a full stop.
    pub message: String,
    /// What to do about it, if we know.
    pub hint: Option<String>,
    /// The exit code.
    pub code: u8,
}

impl Failure {
    /// The answer is no.
    pub const NO: u8 = 1;
    /// Wrong usage.
    pub const USAGE: u8 = 2;
    /// The receiver cannot be reached.
    pub const UNAVAILABLE: u8 = 69;
    /// A file could not be read or written.
    pub const IO: u8 = 74;
    /// The configuration is wrong.
    pub const CONFIG: u8 = 78;

    /// A failure with that exit code.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code }
    }

    /// What to do if the system would not let us at a file.
    pub const LOOK_AT_FOLDER: &str = "does the folder exist, and may this user write there?";

    /// The same, with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Failure {
    /// What was to be printed could not be: the reader of a pipe has gone, or the disk is full.
    #[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
    pub fn output(error: io::Error) -> Self {
        Self::new(Self::IO, format!("failed to write the output: {error}"))
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::new(Self::IO, format!("failed to use the database: {error}"))
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::new(Self::IO, error.to_string())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match error {
            ClientError::Url(_) => Self::USAGE,
            ClientError::Trust(_) => Self::IO,
            ClientError::Connect { .. } | ClientError::Answer { .. } => Self::UNAVAILABLE,
        };
        Self::new(code, error.to_string())
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        match &error {
            LockError::Held { holder, .. } => {
                let by = holder.as_ref().map(|holder| format!(" ({holder})")).unwrap_or_default();
                let message = format!("a receiver is running on this database{by}: stop it first");
                Self::new(Self::NO, message)
            }
            LockError::Io { .. } => {
                Self::new(Self::IO, error.to_string()).hint(Self::LOOK_AT_FOLDER)
            }
            LockError::NetworkFileSystem { .. } => Self::new(Self::CONFIG, error.to_string()),
        }
    }
}

/// Runs a future on a runtime of its own: commands are plain functions.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Failure::IO, format!("failed to start: {error}")))?;
    Ok(runtime.block_on(future))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  hint: {hint}"))
    }
}

/// Receive, settle and keep the callbacks of the Notify family and Adobe Journey Optimizer.
#[derive(Debug, clap::Parser)]
#[command(name = "receiptd", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
#[command(disable_help_subcommand = true)]
enum Command {
    Serve(serve::Args),
    Demo(demo::Args),
    Config(config::Args),
    Token(token::Args),
    Show(show::Args),
    Explain(explain::Args),
    List(list::Args),
    Messages(messages::Args),
    Unrecognised(unrecognised::Args),
    Stats(stats::Args),
    Outbox(outbox::Args),
    Replay(replay::Args),
    Doctor(doctor::Args),
    Simulate(simulate::Args),
    Rebuild(rebuild::Args),
    CheckDb(check_db::Args),
    Backup(backup::Args),
    Prune(prune::Args),
    Reconcile(reconcile::Args),
    Healthcheck(healthcheck::Args),
}

impl Command {
    fn run(&self, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let env = crate::config::environment();
        match self {
            Self::Serve(args) => serve::run(args, env, out),
            Self::Demo(args) => demo::run(args, out),
            Self::Config(args) => config::run(args, env, Clock::system().now(), out),
            Self::Token(args) => token::run(args, out),
            Self::Show(args) => show::run(args, out),
            Self::Explain(args) => explain::run(args, out),
            Self::List(args) => list::run(args, out),
            Self::Messages(args) => messages::run(args, out),
            Self::Unrecognised(args) => unrecognised::run(args, out),
            Self::Stats(args) => stats::run(args, out),
            Self::Outbox(args) => outbox::run(args, &env, out),
            Self::Replay(args) => replay::run(args, &env, out),
            Self::Doctor(args) => doctor::run(args, &env, out),
            Self::Simulate(args) => simulate::run(args, &env, out),
            Self::Rebuild(args) => rebuild::run(args, &env, out),
            Self::CheckDb(args) => check_db::run(args, &env, out),
            Self::Backup(args) => backup::run(args, &env, out),
            Self::Prune(args) => prune::run(args, &env, out),
            Self::Reconcile(args) => reconcile::run(args, &env, out),
            Self::Healthcheck(args) => healthcheck::run(args, &env, out),
        }
    }
}

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    let result = command.run(&mut std::io::stdout().lock());
    result.unwrap_or_else(|failure| {
        #[expect(clippy::print_stderr, reason = "the one place where a failure is printed")]
        {
            eprintln!("receiptd: {failure}");
        }
        ExitCode::from(failure.code)
    })
}
