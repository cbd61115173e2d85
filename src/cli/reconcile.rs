//! `receiptd reconcile`: one round by hand.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::flags::ConfigFlags;
use super::output::plain;
use super::pages::Moment;
use super::reconcile_asked::Receiver;
use super::setup::kept;
use super::{Failure, block_on, progress};
use crate::clock::{Clock, Timestamp};
use crate::config::Settings;
use crate::config::settings::{Source, Upstream};
use crate::forward::backoff::Chance;
use crate::halves::{self, Halves};
use crate::journal::{self, AskedThrough, Outcome, PerList};
use crate::lock::{Lock, LockError, check_file_system};
use crate::provider::ends;
use crate::reconcile::budget::Budget;
use crate::reconcile::fault::Fault;
use crate::reconcile::keep::{InJournal, Keep, Nothing};
use crate::reconcile::known::{Heals, Known};
use crate::reconcile::order::{asked_through, before};
use crate::reconcile::round::{Depth, Ended, Memory, Order, Report, Round, Seen, Unreadable};
use crate::reconcile::upstream::Platform;
use crate::telemetry::Metrics;

/// How long what was found may take to be settled at the end.
const STOP_MAX: Duration = Duration::from_secs(60);

/// Ask platforms for what they never called back about, now
///
/// Asks for everything down to --since: notifications and received texts page by page, and by their
/// ids those that have not come to an end and that no page shows. What says something new is kept in
/// the journal and settled; it prints what that healed. A receiver asks by itself as often as its
/// `every` says; where one runs on the database, it is handed what is new, and told how far this got.
/// No minute has more requests than configured; those of a running receiver are not counted. What was
/// pruned is not asked for.
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
    // A state may be missing, to be settled again; a path that was mistyped has no journal either.
    if !journal::path_beside(&state).exists() {
        super::db::must_exist(&state)?;
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
        match ask(source, upstream, args.since, state, keep.clone()).await? {
            Ok(asked) => {
                is_whole &= asked.ended.is_ok();
                tell(&source.name, asked, args.dry_run, out)
            }
            // No reason not to ask the others.
            Err(error) => {
                is_whole = false;
                writeln!(out, "{}: not asked: {}", source.name, plain(&error))
            }
        }
        .map_err(Failure::output)?;
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::from(Failure::NO) })
}

/// What asking one platform came to.
struct Asked {
    /// Which it is.
    base: String,
    report: Report,
    ended: Result<(), Ended>,
    /// What was created before this was pruned, and so not asked for.
    cut: Option<Timestamp>,
}

/// Asks one platform, or says why it cannot even be tried.
async fn ask<K: Keep + Clone + Send>(
    source: &Source,
    upstream: &Upstream,
    since: Option<Moment>,
    state: &Path,
    mut keep: K,
) -> Result<Result<Asked, String>, Failure> {
    let clock = Clock::system();
    let known = Known::new(state, ends::of([(&*source.name, source.dialect.provider)]));
    let pruned = known.check().and_then(|()| known.pruned_before());
    let pruned = pruned.map_err(|error| Failure::new(Failure::IO, error.to_string()))?;
    let (noted, rounds) = known.noted(&source.name);
    let (order, cut) = order(upstream, since, (noted, pruned), clock.now());
    let platform = match Platform::open(upstream, source.dialect.provider, clock.clone()) {
        Ok(platform) => platform,
        Err(error) => return Ok(Err(error)),
    };
    let mut budget = Budget::new(upstream.requests_per_minute_max);
    budget.rest_as_noted(&rounds, order.now, Instant::now());
    let budget = Mutex::new(budget);
    let bar = progress::bar("asking");
    let mut round = Round {
        source: Arc::clone(&source.name),
        platform: &platform,
        known: &known,
        keep: keep.clone(),
        budget: &budget,
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
    let through = asked_through(&report, order, noted);
    let now = clock.now();
    // What was asked for since a later time than the point is not everything.
    let succeeded_at = (ended.is_ok() && through.iter().all(Option::is_some)).then_some(now);
    let budget = budget.into_inner().unwrap_or_else(PoisonError::into_inner);
    let rests_until = budget.rests_until(now, Instant::now());
    let outcome = Outcome { through, succeeded_at, rests_until, is_by_hand: true };
    let ended = ended.and(keep.note(&source.name, outcome).await);
    Ok(Ok(Asked { base: platform.base().to_owned(), report, ended, cut }))
}

/// What to ask for, and what was created before which time was pruned, if that cuts it.
fn order(
    upstream: &Upstream,
    since: Option<Moment>,
    (noted, pruned): (PerList<Option<AskedThrough>>, Option<Timestamp>),
    now: Timestamp,
) -> (Order, Option<Timestamp>) {
    let horizon = before(now, upstream.horizon);
    let wanted = since.map_or(horizon, |since| since.at(now));
    let cut = pruned.filter(|pruned| *pruned > wanted);
    let down_to = cut.unwrap_or(wanted);
    let floor = cut.unwrap_or(horizon.min(wanted));
    let horizon = horizon.min(wanted);
    let point = |noted: AskedThrough| noted.point.min(now);
    let lists = noted.map(|noted| Depth { down_to, point: noted.map_or(down_to, point) });
    (Order { now, lists, horizon, floor, ids_max: usize::MAX }, cut)
}

fn tell(source: &str, asked: Asked, is_dry: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let Asked { base, report, ended, cut } = asked;
    let Report { requests, seen, not_found, cut_instants, .. } = report;
    let base = plain(&base);
    let times = counted(requests, "time", "times");
    let told = counted(seen, "notification or message", "notifications and messages");
    writeln!(out, "{source} ({base}): asked {times}, told of {told}")?;
    let healed: Vec<String> =
        report.healed().filter(|(_, count)| *count > 0).map(in_words).collect();
    let would = if is_dry { "would heal" } else { "healed" };
    match (healed.is_empty(), &ended) {
        (false, _) => writeln!(out, "  {would} {}", healed.join(", "))?,
        (true, Ok(())) => writeln!(out, "  nothing was missing")?,
        // Whoever was not told all cannot know.
        (true, Err(_)) if seen > 0 => writeln!(out, "  nothing of that was missing")?,
        (true, Err(_)) => {}
    }
    if let Some(cut) = cut {
        writeln!(out, "  what was created before {cut} was pruned and is not asked for")?;
    }
    if not_found > 0 {
        let open = counted(not_found, "that has not", "that have not");
        writeln!(out, "  the platform does not know {open} come to an end:")?;
        name(&report.not_found_named, not_found, out)?;
    }
    tell_of_unreadable(&report, out)?;
    if cut_instants > 0 {
        let fill = counted(cut_instants as u64, "instant fills", "instants fill");
        writeln!(out, "  {fill} a page: some created then may not have been seen")?;
    }
    match ended {
        Ok(()) | Err(Ended::Partial(_)) => {}
        Err(ended) => {
            writeln!(out, "  not everything was asked for: {ended}")?;
            if let Ended::Upstream(Fault::Denied { .. }) = ended {
                writeln!(out, "  the key is that of its api_key_file: `receiptd config show`")?;
            }
        }
    }
    out.flush()
}

fn tell_of_unreadable(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    let Unreadable { count, named, .. } = &report.unreadable;
    if *count == 0 {
        return Ok(());
    }
    let is = if *count == 1 { "is" } else { "are" };
    writeln!(out, "  {count} could not be understood and {is} asked for again:")?;
    name(named, *count, out)
}

/// Those that are named, a line each, and how many more there are.
fn name(named: &[String], count: u64, out: &mut dyn Write) -> std::io::Result<()> {
    named.iter().try_for_each(|named| writeln!(out, "    {named}"))?;
    match count.saturating_sub(named.len() as u64) {
        0 => Ok(()),
        others => writeln!(out, "    and {others} more"),
    }
}

fn in_words((heals, count): (Heals, u64)) -> String {
    let (one, many) = match heals {
        Heals::Status => ("status", "statuses"),
        Heals::Notification => ("notification never heard of", "notifications never heard of"),
        Heals::Message => ("received text", "received texts"),
        Heals::Version => ("later version of a status", "later versions of a status"),
    };
    counted(count, one, many)
}

/// A number and what there are so many of.
fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(report: Report, ended: Result<(), Ended>) -> String {
        let mut out = Vec::new();
        tell(
            "passport",
            Asked { base: "https://api".into(), report, ended, cut: None },
            false,
            &mut out,
        )
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_is_told_of_as_one_and_two_as_two() {
        let report = |count: u64| Report {
            requests: count,
            seen: count,
            not_found: count,
            not_found_named: vec!["an id".into()],
            cut_instants: usize::try_from(count).unwrap(),
            healed: [count; Heals::ALL.len()],
            unreadable: Unreadable { count, named: vec!["it: why".into()], since: [None; 2] },
            ..Report::default()
        };
        let one = "passport (https://api): asked 1 time, told of 1 notification or message\n  healed 1 status, \
                   1 notification never heard of, 1 received text, 1 later version of a status\n  \
                   the platform does not know 1 that has not come to an end:\n    an id\n  1 could not be \
                   understood and is asked for again:\n    it: why\n  1 instant fills a page: some \
                   created then may not have been seen\n";
        assert_eq!(told(report(1), Err(Ended::Partial(1))), one);
        let two = "passport (https://api): asked 2 times, told of 2 notifications and messages\n  healed 2 \
                   statuses, 2 notifications never heard of, 2 received texts, 2 later versions of \
                   a status\n  the platform does not know 2 that have not come to an end:\n    an id\n    and 1 more\n  2 could \
                   not be understood and are asked for again:\n    it: why\n    and 1 more\n  2 \
                   instants fill a page: some created then may not have been seen\n";
        assert_eq!(told(report(2), Err(Ended::Partial(2))), two);
    }

    #[test]
    fn a_key_that_is_not_accepted_can_be_found() {
        let denied = told(Report::default(), Err(Ended::Upstream(Fault::Denied { code: 403 })));
        assert!(denied.contains("https://api") && denied.contains("api_key_file"), "{denied}");
    }

    #[test]
    fn nothing_is_said_not_to_be_missing_where_not_all_was_told() {
        let whole = told(Report { requests: 2, seen: 3, ..Report::default() }, Ok(()));
        assert!(whole.ends_with("\n  nothing was missing\n"), "{whole}");
        for (seen, said) in [(0, ""), (3, "  nothing of that was missing\n")] {
            let report = Report { requests: 2, seen, ..Report::default() };
            let broken = told(report, Err(Ended::Behind));
            let (_, rest) = broken.split_once('\n').unwrap();
            let end = "  not everything was asked for: the state is behind the journal\n";
            assert_eq!(rest, format!("{said}{end}"));
        }
    }
}
