//! `receiptd prune`: what is old is gone from the files.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use rusqlite::Connection;
use serde::de::DeserializeOwned;

use super::flags::ConfigFlags;
use super::output::counted;
use super::{Failure, progress};
use crate::api::control::{ControlFile, PRUNE_PATH};
use crate::client::{Answer, Client, Options, Target};
use crate::clock::Clock;
use crate::journal;
use crate::lock::{Lock, LockError};
use crate::settle::prune::{Hands, Order, PruneError, Pruned, Work, prune, would_prune};
use crate::sqlite::checkpoint::{self, Mode};
use crate::sqlite::{self, Access, Durability};
use crate::state;

/// How long a receiver may take to prune, in steps between commits. What takes longer it finishes by itself;
/// only nobody hears what it came to.
const ASK_MAX: Duration = Duration::from_secs(3600);

/// Delete what is older than a number of days, from the files too
///
/// Callbacks that arrived before then are deleted from the journal, and notifications and received
/// messages about which nothing has arrived since are deleted from the state. What is deleted is
/// overwritten in the files and gone from their write-ahead logs. A notification that is still
/// alive keeps its state, even after a rebuild. What your app last said before then that it sent is
/// forgotten too, unless its deadline is later.
///
/// What is still owed to a sink stays, and so does everything that came after it; what a sink was
/// given up on, its parked changes, goes too.
///
/// While a receiver runs on the database, it is asked to do the work between two commits.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  receiptd prune --older-than 30d
  receiptd prune --older-than 7d --bodies-only   keep every state, delete the raw callbacks
  receiptd prune --older-than 30d --dry-run      only say what would go

Exit codes: 0 done; 1 done, but a reader kept a write-ahead log from being emptied: run it again;
or callbacks stay because a change is still owed to a sink; 69 the receiver is pruning already.")]
pub struct Args {
    #[command(flatten)]
    flags: ConfigFlags,

    /// Days, hours, minutes or seconds: 30d, 12h, 90m, 45s
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    older_than: Duration,

    /// Delete only the raw callbacks; every notification and message stays
    #[arg(long)]
    bodies_only: bool,

    /// Delete nothing, only say how many callbacks would go, and how many stay because of sinks
    ///
    /// Reads only, also beside a running receiver. Notifications and received messages are not counted:
    /// which of them would go takes the work of deleting them.
    #[arg(long)]
    dry_run: bool,
}

/// Prunes, or has it done.
///
/// # Errors
/// If the files cannot be opened or the receiver cannot be asked.
pub fn run(
    args: &Args,
    env: &[(String, String)],
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let now = Clock::system().now();
    let settings = super::setup::kept(&args.flags, env)?;
    let age = i64::try_from(args.older_than.as_secs()).unwrap_or(i64::MAX);
    let before = now.plus_seconds(-age);
    let order = Order { before, bodies_only: args.bodies_only, now };
    let state = &settings.store.path;
    if !state.exists() {
        return Err(Failure::new(Failure::IO, format!("there is no {}", state.display()))
            .hint("name the state file with --db or --config"));
    }
    if args.dry_run {
        let would = would_prune(before, &journal::path_beside(state), state);
        return say(
            order,
            would.map_err(|error| Failure::new(Failure::IO, error.to_string()))?,
            out,
        );
    }
    let pruned = match Lock::acquire(state) {
        Ok(lock) => {
            let pruned = prune_files(order, state);
            drop(lock);
            pruned?
        }
        Err(LockError::Held { .. }) => ask_receiver(order, state)?,
        Err(error) => return Err(Failure::new(Failure::IO, error.to_string())),
    };
    report(order, pruned, out)
}

fn report(order: Order, pruned: Pruned, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let Pruned { callbacks, subjects, parked_changes, held_back_by_sinks, is_log_empty } = pruned;
    let _ = writeln!(
        out,
        "pruned what arrived before {}: {}, {}",
        order.before,
        counted(callbacks, "callback"),
        match subjects {
            1 => "1 notification or message".to_owned(),
            _ => format!("{subjects} notifications and messages"),
        }
    );
    if parked_changes > 0 {
        let _ = writeln!(out, "discarded with them: {}", counted(parked_changes, "parked change"));
    }
    tell_of_held_back(held_back_by_sinks, out).map_err(Failure::output)?;
    if is_log_empty {
        return Ok(ExitCode::from(u8::from(held_back_by_sinks > 0)));
    }
    Err(Failure::new(Failure::NO, "a write-ahead log could not be emptied: somebody is reading")
        .hint("run it again when no other program has the database open"))
}

/// What would be pruned.
fn say(order: Order, would: Pruned, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let Pruned { callbacks, parked_changes, held_back_by_sinks, .. } = would;
    let write = |out: &mut dyn Write| {
        let callbacks = counted(callbacks, "callback");
        writeln!(out, "would prune what arrived before {}: {callbacks}", order.before)?;
        if parked_changes > 0 {
            let parked = counted(parked_changes, "parked change");
            writeln!(out, "would be discarded with them: {parked}")?;
        }
        tell_of_held_back(held_back_by_sinks, out)?;
        match order.bodies_only {
            true => Ok(()),
            false => {
                writeln!(out, "notifications and messages would go too; how many is not counted")
            }
        }
    };
    write(out).map_err(Failure::output)?;
    Ok(ExitCode::from(u8::from(held_back_by_sinks > 0)))
}

fn tell_of_held_back(callbacks: i64, out: &mut dyn Write) -> io::Result<()> {
    let stay = match callbacks {
        0 => return Ok(()),
        1 => "1 callback stays".to_owned(),
        _ => format!("{callbacks} callbacks stay"),
    };
    writeln!(
        out,
        "{stay}, because a change is still owed to a sink: `receiptd stats --by sink` \
         says to which, `receiptd outbox discard --sink NAME --standing any` gives it up",
    )
}

struct OwnHands {
    journal: Connection,
    state: Connection,
}

impl Hands for OwnHands {
    fn on_journal(&mut self, work: Work) -> Result<i64, PruneError> {
        let rows = work(&mut self.journal)?;
        // Nobody else checkpoints: without this the log would grow to the size of what is pruned.
        checkpoint::run(&self.journal, Mode::Passive)?;
        Ok(rows)
    }

    fn on_state(&mut self, work: Work) -> Result<i64, PruneError> {
        let rows = work(&mut self.state)?;
        checkpoint::run(&self.state, Mode::Passive)?;
        Ok(rows)
    }
}

fn prune_files(order: Order, state: &Path) -> Result<Pruned, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(Failure::IO, error.to_string());
    let journal = journal::path_beside(state);
    let full = Access::Write(Durability::Full);
    let mut hands = OwnHands {
        journal: sqlite::open(&journal, &journal::SCHEMA, full).map_err(|error| failed(&error))?,
        state: sqlite::open(state, &state::tables::SCHEMA, full).map_err(|error| failed(&error))?,
    };
    let bar = progress::bar("pruning");
    let pruned = prune(order, (&journal, state), &mut hands, |done, all| {
        progress::show(&bar, done, all);
    });
    bar.finish_and_clear();
    pruned.map_err(|error| failed(&error))
}

fn ask_receiver(order: Order, state: &Path) -> Result<Pruned, Failure> {
    let suffix = if order.bodies_only { "&bodies_only" } else { "" };
    let path = format!("{PRUNE_PATH}?before={}{suffix}", order.before);
    ask_control(state, &path, bytes::Bytes::new())
}

/// What the receiver that runs on this database answers to someone with its control file.
pub(super) fn ask_control<A: DeserializeOwned>(
    state: &Path,
    path: &str,
    body: bytes::Bytes,
) -> Result<A, Failure> {
    let (base, key) = ControlFile::read(state).map_err(|error| {
        Failure::new(
            Failure::UNAVAILABLE,
            format!(
                "another process has the database, and its control file cannot be read: {error}"
            ),
        )
        .hint("run this as the same user as the receiver, or stop the receiver")
    })?;
    let answer = ask(&format!("{base}{path}"), &key, body)
        .map_err(|error| Failure::new(Failure::UNAVAILABLE, error.to_string()))?;
    if answer.code != 200 {
        let said = answer.first_line();
        let kind = if answer.code == 409 { Failure::UNAVAILABLE } else { Failure::IO };
        return Err(Failure::new(kind, format!("the receiver refused: {said}")));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|error| Failure::new(Failure::UNAVAILABLE, format!("unexpected answer: {error}")))
}

fn ask(url: &str, key: &str, body: bytes::Bytes) -> Result<Answer, Box<dyn std::error::Error>> {
    let options = Options { answer_ms_max: ASK_MAX, ..Options::default() };
    let mut client = Client::new(Target::parse(url)?, options)?;
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {key}").parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(client.post(headers, body))?)
}

pub(super) fn parse_age(text: &str) -> Result<Duration, String> {
    let expected = "expected a number and d, h, m or s, such as 30d";
    let unit = text.chars().last().ok_or(expected)?;
    let seconds = match unit {
        'd' => 86_400,
        'h' => 3_600,
        'm' => 60,
        's' => 1,
        _ => return Err(expected.to_owned()),
    };
    let number: u32 = text[..text.len() - 1].parse().map_err(|_| expected)?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn an_age_has_a_unit() {
        assert_eq!(parse_age("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_age("90m"), Ok(Duration::from_secs(5_400)));
        for wrong in ["", "30", "d", "-1d", "1.5h", "30 d", "30é"] {
            assert!(parse_age(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_timestamp_survives_the_query() {
        let now: Timestamp = "2026-11-22T10:00:00.000001Z".parse().unwrap();
        assert_eq!(now.to_string().parse::<Timestamp>().unwrap(), now);
    }
}
