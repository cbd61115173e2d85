//! `receiptd demo`: the whole service, shown by itself.
//!
//! Nothing is mocked: a receiver as `serve` runs it, requests over sockets, answers after an fsync,
//! the state read from the file an app would read. What is played and what must come of it is a
//! table (`scenario`); `stage` plays it, `verdict` compares, `show` prints. Because every
//! answer and every state is compared, `demo --once` is a test of the binary it is part of.

use std::io::Write;
use std::process::ExitCode;

use serde_json::json;

use super::{Failure, demo_show};
use crate::config::settings::{Log, LogFormat};
use crate::receiver::Ended;
use crate::shutdown::{Asked, Signals};
use crate::telemetry::start_logging;

use super::demo_scenario::{GC_NOTIFY, LIVES};
use super::demo_show::Screen;
use super::demo_stage::{Played, Stage};
use super::demo_verdict::{Line, Verdict};

/// Show what receiptd does, with a throw-away database
///
/// Starts a receiver on free ports of this machine, plays the lives of several messages to it as
/// GC Notify, GOV.UK Notify and Adobe Journey Optimizer would, and prints what each callback was
/// answered and what was settled. Then it goes on, so that you can send callbacks of your own.
/// Nothing is kept.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  receiptd demo
  receiptd demo --once                  end after the table
  receiptd demo --once --format json    one JSON object a line

Exit codes: 0 everything was as expected; 1 an answer or a state was not; 69 an answer did not
come; 74 the throw-away database could not be written.")]
pub struct Args {
    /// End after the table instead of going on until Ctrl-C
    #[arg(long)]
    once: bool,

    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// How the outcome is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// One JSON object a line (JSON Lines)
    Json,
}

/// Plays the scenario and, unless it is to be `--once`, goes on until a signal.
///
/// # Errors
/// If the receiver cannot start or does not answer.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    // What goes wrong is worth a line; refusals and unread bodies are part of the show.
    start_logging(Log { format: LogFormat::Text, level: tracing::Level::ERROR });
    super::block_on(demo(args, out))?
}

async fn demo(args: &Args, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()
        .map_err(|error| Failure::new(Failure::IO, format!("failed to start: {error}")))?;
    let mut stage = Stage::set().await?;
    let all_well = match args.format {
        Format::Table => for_people(&mut stage, args.once, out).await?,
        Format::Json => for_programs(&mut stage, args.once, out).await?,
    };
    if !args.once {
        let asked_to_stop = async { while signals.next().await != Asked::Stop {} };
        tokio::select! {
            () = asked_to_stop => {}
            () = stage.receiver.failed() => {}
        }
    }
    match stage.clear().await {
        Ended::Stopped if all_well => Ok(ExitCode::SUCCESS),
        Ended::Stopped => Ok(ExitCode::from(Failure::NO)),
        Ended::Failed => Err(Failure::new(Failure::IO, "an I/O error stopped the journal")),
    }
}

/// Prints each life as it is played, then the table. Whether all was as expected.
async fn for_people(stage: &mut Stage, once: bool, out: &mut dyn Write) -> Result<bool, Failure> {
    let screen = Screen::of_stdout();
    say(out, &demo_show::opening(screen, stage));
    let mut lives = Vec::new();
    for (life, number) in LIVES.iter().zip(1..) {
        let played = stage.play(life, number).await?;
        say(out, &demo_show::life(screen, number, life, &played.fates));
        lives.push(played);
    }
    let verdicts = judge(stage, &lives).await?;
    say(out, &demo_show::table(screen, &verdicts));
    say(out, &demo_show::conclusion(screen, &verdicts));
    if !once {
        say(out, &demo_show::invitation(screen, stage));
    }
    Ok(verdicts.iter().all(Verdict::is_as_expected))
}

/// Prints a line for each life, and one for the receiver if it goes on.
async fn for_programs(stage: &mut Stage, once: bool, out: &mut dyn Write) -> Result<bool, Failure> {
    let mut lives = Vec::new();
    for (life, number) in LIVES.iter().zip(1..) {
        lives.push(stage.play(life, number).await?);
    }
    let verdicts = judge(stage, &lives).await?;
    for (verdict, played) in verdicts.iter().zip(&lives) {
        let line = serde_json::to_string(&Line::of(verdict, &played.fates))
            .map_err(|error| Failure::output(error.into()))?;
        say(out, &format!("{line}\n"));
    }
    if !once {
        let line = json!({
            "callback_url": stage.receiver.callback_url(GC_NOTIFY.source),
            "token": stage.token(&GC_NOTIFY),
            "admin_url": format!("http://{}", stage.receiver.admin()),
            "database": stage.database(),
        });
        say(out, &format!("{line}\n"));
    }
    Ok(verdicts.iter().all(Verdict::is_as_expected))
}

/// Waits until everything is settled, and compares.
async fn judge(stage: &Stage, lives: &[Played]) -> Result<Vec<Verdict>, Failure> {
    stage.receiver.settled().await;
    LIVES
        .iter()
        .zip(1..)
        .zip(lives)
        .map(|((life, number), played)| {
            let outcome = stage.outcome(life, number, played)?;
            Ok(Verdict::of(number, life, &played.fates, outcome))
        })
        .collect()
}

/// Prints. Standard output may be closed; the demonstration works all the same.
fn say(out: &mut dyn Write, text: &str) {
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
