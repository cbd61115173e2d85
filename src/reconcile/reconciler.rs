//! The thread on which every upstream is asked: started, given others to ask, stopped.
//!
//! Each source has a task of its own, so that one slow platform holds up no other. A round begins when
//! the time since the last one began is over, and once more after a start, at a moment by chance.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::budget::Budget;
use super::keep::InJournal;
use super::known::Known;
use super::round::{Ended, Memory, OVERLAP_S, Order, Report, Round, Seen};
use super::told::Told;
use super::upstream::Platform;
use crate::clock::{Clock, Timestamp};
use crate::config::settings::{Source, Upstream};
use crate::forward::backoff::{Backoff, Chance};
use crate::forward::breaker::RETRY_AFTER_MAX;
use crate::journal::reader::Reader;
use crate::journal::{AskedThrough, Journal};
use crate::provider::{Provider, ends};
use crate::settle::{OnThread, Settled};
use crate::state::outstanding::make_index;
use crate::telemetry::{Metrics, UpstreamMetrics};

/// How often everything down to the horizon is asked for, in seconds.
const SWEEP_S: i64 = 86_400;

/// The first round begins by chance within this time, so that receivers that start together do not ask
/// together.
const FIRST_MAX: Duration = Duration::from_secs(10);

/// What reconciling works with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The journal's file and the state's.
    pub files: [PathBuf; 2],
    /// To append to.
    pub journal: Journal,
    /// How far it is settled.
    pub settled: Settled,
    /// To make an index.
    pub on_thread: OnThread,
    /// The time.
    pub clock: Clock,
}

/// A source with an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AskedSource {
    name: Arc<str>,
    provider: Provider,
    upstream: Upstream,
}

fn asked(sources: &[Source]) -> Vec<AskedSource> {
    let one = |source: &Source| {
        let (name, provider) = (Arc::clone(&source.name), source.dialect.provider);
        source.upstream.clone().map(|upstream| AskedSource { name, provider, upstream })
    };
    sources.iter().filter_map(one).collect()
}

/// Asks platforms, on a thread that is there only if there is one to ask. Dropped, it ends by itself.
pub struct Reconciler {
    parts: Parts,
    metrics: Arc<Metrics>,
    running: Mutex<Option<Running>>,
}

impl std::fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reconciler").field("parts", &self.parts).finish_non_exhaustive()
    }
}

struct Running {
    asked: Vec<AskedSource>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Reconciler {
    /// Starts to ask for these sources.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(sources: &[Source], parts: Parts, metrics: Arc<Metrics>) -> io::Result<Self> {
        let reconciler = Self { parts, metrics, running: Mutex::default() };
        reconciler.replace(sources)?;
        Ok(reconciler)
    }

    /// Asks for these sources from now on. Where nothing about it is different, nothing is begun anew.
    ///
    /// # Errors
    /// As [`Reconciler::start`].
    pub fn replace(&self, sources: &[Source]) -> io::Result<()> {
        let asked = asked(sources);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.as_ref().map_or(&[][..], |running| &running.asked) == asked.as_slice() {
            return Ok(());
        }
        // Dropping its sender stops the old one, wherever it is.
        *running = None;
        if !asked.is_empty() {
            *running = Some(self.run(asked)?);
        }
        Ok(())
    }

    fn run(&self, asked: Vec<AskedSource>) -> io::Result<Running> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let mut followers = Vec::new();
        for source in asked.clone() {
            followers.push(Follower {
                metrics: self.metrics.upstream(&source.name),
                known: Known::new(
                    &self.parts.files[1],
                    ends::of([(&*source.name, source.provider)]),
                ),
                budget: Budget::new(source.upstream.requests_per_minute_max),
                memory: Memory::default(),
                chance: Chance::new()?,
                parts: self.parts.clone(),
                told: Told::new(Arc::clone(&source.name)),
                source,
            });
        }
        let thread = std::thread::Builder::new()
            .name("reconcile".to_owned())
            .spawn(move || runtime.block_on(follow(followers, stopped)))?;
        Ok(Running { asked, stop, thread })
    }

    /// Stops at once: what was not asked for is asked for the next time. Blocks until `deadline` at most.
    pub fn stop(self, deadline: Instant) {
        let running = self.running.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Some(Running { stop, thread, .. }) = running else { return };
        let _ = stop.send(true);
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

async fn follow(followers: Vec<Follower>, mut stopped: watch::Receiver<bool>) {
    let mut all = JoinSet::new();
    for follower in followers {
        all.spawn(follower.run());
    }
    let ended = async {
        while let Some(ended) = all.join_next().await {
            // A bug of ours; the process goes on receiving.
            if let Err(error) = ended {
                tracing::error!(%error, "a platform is not asked any more until the next start");
            }
        }
    };
    tokio::select! {
        // Either told to stop or forgotten.
        _ = stopped.changed() => {}
        () = ended => {}
    }
}

/// One source, from round to round.
struct Follower {
    source: AskedSource,
    parts: Parts,
    known: Known,
    budget: Budget,
    memory: Memory,
    chance: Chance,
    metrics: UpstreamMetrics,
    told: Told,
}

impl Follower {
    async fn run(mut self) {
        let AskedSource { name, provider, upstream } = &self.source;
        let (name, every) = (Arc::clone(name), upstream.every);
        let platform = match Platform::open(upstream, *provider, self.parts.clock.clone()) {
            Ok(platform) => platform,
            Err(error) => {
                tracing::error!(source = &*name, error, "the platform cannot be asked");
                return;
            }
        };
        self.tell_how_far();
        let first = FIRST_MAX.min(every);
        sleep(Backoff { min: first, max: first }.pause(0, &mut self.chance)).await;
        loop {
            let began = Instant::now();
            let (report, ended) = self.round(&platform).await;
            let pause = asked_to_wait(&ended).max(every.saturating_sub(began.elapsed()));
            self.told.tell(&report, ended);
            sleep(pause).await;
        }
    }

    async fn round(&mut self, platform: &Platform) -> (Report, Result<(), Ended>) {
        self.make_index().await;
        let now = self.parts.clock.now();
        // A point that cannot be read is as good as none.
        let noted = self.noted().filter(|noted| noted.point <= now && noted.swept_at <= now);
        let pruned = match self.known.pruned_before() {
            Ok(pruned) => pruned,
            Err(unknown) => return (Report::default(), Err(unknown.into())),
        };
        let (order, is_sweep) = order(&self.source.upstream, (noted, pruned), now);
        let mut round = Round {
            source: Arc::clone(&self.source.name),
            platform,
            known: &self.known,
            keep: InJournal {
                journal: self.parts.journal.clone(),
                settled: self.parts.settled.clone(),
            },
            budget: &mut self.budget,
            memory: &mut self.memory,
            chance: &mut self.chance,
            clock: self.parts.clock.clone(),
            metrics: self.metrics.clone(),
            progress: &mut |_, _| {},
            report: Report::default(),
            seen: Seen::default(),
        };
        let ended = round.run(order).await;
        let report = round.report;
        if report.are_lists_read {
            let swept_at = noted.filter(|_| !is_sweep).map_or(now, |noted| noted.swept_at);
            // What could not be understood must be asked for again.
            let point = report.unreadable.since.map_or(now, |since| since.min(now));
            self.note(AskedThrough { point, swept_at }).await;
            self.metrics.asked_through(point);
        }
        if ended.is_ok() {
            self.metrics.succeeded(self.parts.clock.now());
        }
        (report, ended)
    }

    /// It is there after the first round, unless the state file is another.
    async fn make_index(&self) {
        let made = self.parts.on_thread.run_later(|state| make_index(state, &ends::STATUSES)).await;
        match made {
            Some(Ok(true)) => {
                tracing::info!("made an index of the notifications that have not come to an end");
            }
            // Without it, finding them takes longer.
            Some(Err(error)) => tracing::warn!(%error, "an index could not be made"),
            Some(Ok(false)) | None => {}
        }
    }

    fn noted(&self) -> Option<AskedThrough> {
        let reader = Reader::open(&self.parts.files[0]).ok()?;
        AskedThrough::of(reader.connection(), &self.source.name).ok()?
    }

    async fn note(&self, through: AskedThrough) {
        let (journal, source) = (self.parts.journal.clone(), Arc::clone(&self.source.name));
        let note = move || journal.on_writer(move |journal| through.note(journal, &source));
        // If it is not noted, the same is asked for again.
        if let Ok(Ok(Err(error))) = tokio::task::spawn_blocking(note).await {
            tracing::warn!(%error, "how far a platform was asked could not be noted");
        }
    }

    fn tell_how_far(&self) {
        let horizon = before(self.parts.clock.now(), self.source.upstream.horizon);
        self.metrics.asked_through(self.noted().map_or(horizon, |noted| noted.point.max(horizon)));
    }
}

/// How long the platform wants to be left alone, if that ended the round.
fn asked_to_wait(ended: &Result<(), Ended>) -> Duration {
    match ended {
        Err(Ended::Upstream(fault)) => fault.may_pass().unwrap_or_default().min(RETRY_AFTER_MAX),
        _ => Duration::ZERO,
    }
}

/// What to ask for now, and whether that is everything down to the horizon, or to what was pruned.
fn order(
    upstream: &Upstream,
    (noted, pruned): (Option<AskedThrough>, Option<Timestamp>),
    now: Timestamp,
) -> (Order, bool) {
    let horizon = before(now, upstream.horizon);
    let floor = pruned.map_or(horizon, |pruned| pruned.max(horizon));
    let is_sweep = noted.is_none_or(|noted| noted.swept_at.plus_seconds(SWEEP_S) <= now);
    let point = noted.filter(|_| !is_sweep).map(|noted| noted.point.plus_seconds(-OVERLAP_S));
    let down_to = point.map_or(floor, |point| point.max(floor));
    (Order { now, down_to, horizon, floor, ids_max: ids_max(upstream) }, is_sweep)
}

/// Half of what may be asked until the next round: the pages must have their turn.
fn ids_max(upstream: &Upstream) -> usize {
    let requests = u64::from(upstream.requests_per_minute_max) * upstream.every.as_secs() / 60;
    usize::try_from(requests / 2).unwrap_or(usize::MAX).max(1)
}

/// So long before.
pub fn before(now: Timestamp, span: Duration) -> Timestamp {
    now.plus_seconds(-i64::try_from(span.as_secs()).unwrap_or(i64::MAX))
}
