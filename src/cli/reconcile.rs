//! `receiptd reconcile`: one round by hand.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::flags::ConfigFlags;
use super::pages::Moment;
use super::reconcile_asked::Receiver;
use super::setup::kept;
use super::{Failure, block_on, progress};
use crate::clock::{Clock, Timestamp};
use crate::config::Settings;
use crate::config::settings::{Source, Upstream};
use crate::forward::backoff::Chance;
use crate::halves::{self, Halves};
use crate::lock::{Lock, LockError, check_file_system};
use crate::provider::ends;
use crate::reconcile::budget::Budget;
use crate::reconcile::keep::{InJournal, Keep, Nothing};
use crate::reconcile::known::{Heals, Known};
use crate::reconcile::reconciler::before;
use crate::reconcile::round::{Ended, Memory, Order, Report, Round, Seen};
use crate::reconcile::upstream::Platform;
use crate::telemetry::Metrics;

/// How long what was found may take to be settled at the end.
const STOP_MAX: Duration = Duration::from_secs(60);

/// Ask platforms for what they never called back about, now
///
/// Asks for everything down to --since: notifications and received texts page by page, and by their
/// ids those that have not come to an end and that no page shows. What says something new is kept in
/// the journal and settled; it prints what that healed. A receiver asks by itself as often as its
/// `every` says; where one runs on the database, it is handed what is new. No minute has more
/// requests than configured; those of a running receiver are not counted.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  receiptd reconcile
  receiptd reconcile --source passport --since 2d
  receiptd reconcile --dry-run                    only say what it would heal

Exit codes: 0 done; 1 a platform could not be asked for everything, or not all it told could be
understood.")]
pub struct Args {
    #[command(flatten)]
    flags: ConfigFlags,

    /// Only the platform of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,

    /// What was created then or later: a timestamp, a day or an age (2h, 7d) [default: the horizon]
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,

    /// Keep nothing, only say what it would heal
    #[arg(long)]
    dry_run: bool,
}

/// Asks each platform once.
///
/// # Errors
/// If no source has an upstream, a file cannot be used, or a running receiver not be asked.
pub fn run(
    args: &Args,
    env: &[(String, String)],
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let settings = kept(&args.flags, env)?;
    let asked = asked(&settings.sources, args.source.as_deref())?;
    let state = settings.store.path.clone();
    if args.dry_run {
        super::db::must_exist(&state)?;
        return block_on(ask_all(&asked, args, &state, Nothing, out))?;
    }
    check_file_system(&state, settings.store.network_file_system)?;
    match Lock::acquire(&state) {
        Ok(lock) => block_on(with_files(&settings, Arc::new(lock), &asked, args, out))?,
        Err(LockError::Held { .. }) => {
            let receiver = Receiver::find(&state)?;
            block_on(ask_all(&asked, args, &state, receiver, out))?
        }
        Err(error) => Err(error.into()),
    }
}

/// The sources that are to be asked, with their upstreams.
fn asked<'s>(
    sources: &'s [Source],
    only: Option<&str>,
) -> Result<Vec<(&'s Source, &'s Upstream)>, Failure> {
    if let Some(name) = only
        && !sources.iter().any(|source| *source.name == *name)
    {
        let message = format!("no source is called {name}");
        return Err(Failure::new(Failure::USAGE, message).hint("`receiptd config show` lists them"));
    }
    let is_meant = |source: &&Source| only.is_none_or(|name| *source.name == *name);
    let with = |source: &'s Source| source.upstream.as_ref().map(|upstream| (source, upstream));
    let asked: Vec<_> = sources.iter().filter(is_meant).filter_map(with).collect();
    if asked.is_empty() {
        return Err(Failure::new(Failure::CONFIG, "there is no upstream to ask")
            .hint("[source.upstream] names it: see \"Reconcile\" in the README"));
    }
    Ok(asked)
}

/// No receiver has the files, so they are ours for so long. What sinks are owed by it is sent by the
/// next receiver.
async fn with_files(
    settings: &Settings,
    lock: Arc<Lock>,
    asked: &[(&Source, &Upstream)],
    args: &Args,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(Failure::IO, error.to_string());
    let (clock, metrics) = (Clock::system(), Arc::new(Metrics::new()));
    let halves = Halves::start_without_forwarding(settings, &clock, &metrics, &lock)
        .map_err(|error| failed(&error))?;
    halves::remember(&settings.sources, &halves.journal).map_err(|error| failed(&error))?;
    let keep = InJournal { journal: halves.journal.clone(), settled: halves.settled.clone() };
    let answered = ask_all(asked, args, &settings.store.path, keep, out).await;
    let stopping = tokio::task::spawn_blocking(move || halves.stop(Instant::now() + STOP_MAX));
    stopping.await.map_err(|error| failed(&error))?;
    answered
}

async fn ask_all<K: Keep + Clone + Send>(
    asked: &[(&Source, &Upstream)],
    args: &Args,
    state: &Path,
    keep: K,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let mut is_whole = true;
    for (source, upstream) in asked {
        let asked = ask(source, upstream, args.since, state, keep.clone()).await?;
        is_whole &= asked.ended.is_ok();
        tell(&source.name, asked, args.dry_run, out).map_err(Failure::output)?;
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::from(Failure::NO) })
}

/// What asking one platform came to.
struct Asked {
    report: Report,
    ended: Result<(), Ended>,
    /// What was created before this was pruned, and so not asked for.
    cut: Option<Timestamp>,
}

async fn ask<K: Keep + Send>(
    source: &Source,
    upstream: &Upstream,
    since: Option<Moment>,
    state: &Path,
    keep: K,
) -> Result<Asked, Failure> {
    let clock = Clock::system();
    let known = Known::new(state, ends::of([(&*source.name, source.dialect.provider)]));
    let pruned = known.pruned_before();
    let pruned = pruned.map_err(|error| Failure::new(Failure::IO, error.to_string()))?;
    let (order, cut) = order(upstream, since, pruned, clock.now());
    let platform = Platform::open(upstream, source.dialect.provider, clock.clone())
        .map_err(|error| Failure::new(Failure::CONFIG, error))?;
    let bar = progress::bar("asking");
    let mut round = Round {
        source: Arc::clone(&source.name),
        platform: &platform,
        known: &known,
        keep,
        budget: &mut Budget::new(upstream.requests_per_minute_max),
        memory: &mut Memory::default(),
        chance: &mut Chance::new().map_err(Failure::output)?,
        clock: clock.clone(),
        metrics: Metrics::new().upstream(&source.name),
        progress: &mut |read, of_all| progress::show(&bar, read, of_all),
        report: Report::default(),
        seen: Seen::default(),
    };
    let ended = round.run(order).await;
    let report = round.report;
    bar.finish_and_clear();
    Ok(Asked { report, ended, cut })
}

/// What to ask for, and what was created before which time was pruned, if that cuts it.
fn order(
    upstream: &Upstream,
    since: Option<Moment>,
    pruned: Option<Timestamp>,
    now: Timestamp,
) -> (Order, Option<Timestamp>) {
    let horizon = before(now, upstream.horizon);
    let wanted = since.map_or(horizon, |since| since.at(now));
    let cut = pruned.filter(|pruned| *pruned > wanted);
    let down_to = cut.unwrap_or(wanted);
    let floor = cut.unwrap_or(horizon.min(wanted));
    let horizon = horizon.min(wanted);
    (Order { now, down_to, horizon, floor, ids_max: usize::MAX }, cut)
}

fn tell(source: &str, asked: Asked, is_dry: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let Asked { report, ended, cut } = asked;
    let Report { requests, seen, not_found, unreadable, cut_instants, .. } = &report;
    writeln!(out, "{source}: asked {requests} times, told of {seen} notifications and messages")?;
    let healed: Vec<String> =
        report.healed().filter(|(_, count)| *count > 0).map(in_words).collect();
    match (healed.is_empty(), is_dry) {
        (true, _) => writeln!(out, "  nothing was missing")?,
        (false, true) => writeln!(out, "  would heal {}", healed.join(", "))?,
        (false, false) => writeln!(out, "  healed {}", healed.join(", "))?,
    }
    if let Some(cut) = cut {
        writeln!(out, "  what was created before {cut} was pruned and is not asked for")?;
    }
    if *not_found > 0 {
        writeln!(out, "  the platform does not know {not_found} that have not come to an end")?;
    }
    if unreadable.count > 0 {
        let is = if unreadable.count == 1 { "is" } else { "are" };
        let count = unreadable.count;
        writeln!(out, "  {count} could not be understood and {is} asked for again:")?;
        unreadable.named.iter().try_for_each(|named| writeln!(out, "    {named}"))?;
        let others = unreadable.count - unreadable.named.len() as u64;
        if others > 0 {
            writeln!(out, "    and {others} more")?;
        }
    }
    if *cut_instants > 0 {
        writeln!(
            out,
            "  {cut_instants} instants fill a page: some of them may not have been seen"
        )?;
    }
    match ended {
        Ok(()) | Err(Ended::Partial(_)) => {}
        Err(ended) => writeln!(out, "  not everything was asked for: {ended}")?,
    }
    out.flush()
}

fn in_words((heals, count): (Heals, u64)) -> String {
    let s = if count == 1 { "" } else { "s" };
    match heals {
        Heals::Status if count == 1 => "1 status".to_owned(),
        Heals::Status => format!("{count} statuses"),
        Heals::Notification => format!("{count} notification{s} never heard of"),
        Heals::Message => format!("{count} received text{s}"),
        Heals::Version => format!("{count} later version{s} of a status"),
    }
}
