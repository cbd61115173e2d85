//! The thread on which every upstream is asked: started, given others to ask, stopped.
//!
//! Each source has a task of its own, so that one slow platform holds up no other. A round begins when
//! the time since the last one began is over, also across a restart, and the first at a moment by chance.
//! Given other sources, the task of one about which nothing is different goes on as if nothing had been.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::budget::{Budget, Budgets};
use super::keep::{InJournal, Keep as _};
use super::known::Known;
use super::order::{asked_through, asked_to_wait, before, first_pause, order};
use super::round::{Ended, Memory, Report, Round, Seen};
use super::told::Told;
use super::upstream::{List, Platform};
use crate::clock::Clock;
use crate::config::settings::{Source, Upstream};
use crate::forward::backoff::{Backoff, Chance};
use crate::journal::{AskedThrough, Journal, Outcome, PerList, Rounds};
use crate::provider::{Provider, ends};
use crate::settle::{OnThread, Settled};
use crate::state::outstanding::make_index;
use crate::telemetry::{Metrics, UpstreamMetrics};

/// The first round begins by chance within this time, so that receivers that start together do not ask
/// together.
const FIRST_MAX: Duration = Duration::from_secs(10);

/// An upstream that could not be opened is tried again after this time, or after a round's if that is
/// shorter.
const OPEN_AGAIN: Duration = Duration::from_secs(60);

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
    budgets: Arc<Budgets>,
    running: Mutex<Option<Running>>,
}

impl std::fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reconciler").field("parts", &self.parts).finish_non_exhaustive()
    }
}

struct Running {
    wanted: watch::Sender<Vec<AskedSource>>,
    thread: JoinHandle<()>,
}

impl Reconciler {
    /// Starts to ask for these sources.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(sources: &[Source], parts: Parts, metrics: Arc<Metrics>) -> io::Result<Self> {
        let (budgets, running) = (Arc::default(), Mutex::default());
        let reconciler = Self { parts, metrics, budgets, running };
        let wanted = asked(sources);
        if !wanted.is_empty() {
            reconciler.announce(&wanted);
            *reconciler.running() = Some(reconciler.run(wanted, Begun::WithTheProcess)?);
        }
        Ok(reconciler)
    }

    /// Makes sure that [`Reconciler::replace`] can be done with these sources; asks nobody else than
    /// before. If that is not done after all, a thread may be there that has nothing to ask.
    ///
    /// # Errors
    /// As [`Reconciler::start`].
    pub fn make_ready(&self, sources: &[Source]) -> io::Result<()> {
        let mut running = self.running();
        if running.is_none() && !asked(sources).is_empty() {
            *running = Some(self.run(Vec::new(), Begun::Later)?);
        }
        Ok(())
    }

    /// Asks for these sources, for which it was made ready, from now on. Where nothing about one is
    /// different, it is not begun anew; where something is, what was sent to its host still counts.
    pub fn replace(&self, sources: &[Source]) {
        let wanted = asked(sources);
        self.announce(&wanted);
        let mut running = self.running();
        if wanted.is_empty() {
            // Dropping its sender stops the thread, wherever it is.
            *running = None;
        } else {
            let running = running.as_ref().expect("it was made ready for sources that are asked");
            running.wanted.send_replace(wanted);
        }
    }

    /// So that every series is there before anybody can look, and none of who is asked no more.
    fn announce(&self, wanted: &[AskedSource]) {
        let names: Vec<&str> = wanted.iter().map(|source| &*source.name).collect();
        self.metrics.asks(&names);
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, asked: Vec<AskedSource>, begun: Begun) -> io::Result<Running> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (wanted, changes) = watch::channel(asked);
        let following = Following {
            parts: self.parts.clone(),
            metrics: Arc::clone(&self.metrics),
            budgets: Arc::clone(&self.budgets),
            begun,
        };
        let thread = std::thread::Builder::new()
            .name("reconcile".to_owned())
            .spawn(move || runtime.block_on(following.run(changes)))?;
        Ok(Running { wanted, thread })
    }

    /// Stops at once: what was not asked for is asked for the next time. Blocks until `deadline` at most.
    pub fn stop(self, deadline: Instant) {
        let running = self.running.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Some(Running { wanted, thread }) = running else { return };
        drop(wanted);
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// When a source began to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    /// Who restarts a process means nothing by it: what was asked for before still counts.
    WithTheProcess,
    /// Somebody has just said that it should be.
    Later,
}

/// What is followed on the thread.
struct Following {
    parts: Parts,
    metrics: Arc<Metrics>,
    budgets: Arc<Budgets>,
    begun: Begun,
}

impl Following {
    /// Until nobody can want anything else any more.
    async fn run(mut self, mut wanted: watch::Receiver<Vec<AskedSource>>) {
        let mut all = JoinSet::new();
        let mut followed: Vec<(AskedSource, AbortHandle)> = Vec::new();
        loop {
            let asked = wanted.borrow_and_update().clone();
            followed.retain(|(source, task)| {
                let stays = asked.contains(source) && !task.is_finished();
                if !stays {
                    task.abort();
                }
                stays
            });
            for source in asked {
                if followed.iter().any(|(known, _)| *known == source) {
                    continue;
                }
                match self.follower(source.clone()) {
                    Ok(follower) => followed.push((source, all.spawn(follower.run()))),
                    Err(error) => tracing::error!(%error, "a platform is not asked"),
                }
            }
            self.begun = Begun::Later;
            if until_changed(&mut wanted, &mut all).await.is_err() {
                return;
            }
        }
    }

    fn follower(&self, source: AskedSource) -> io::Result<Follower> {
        Ok(Follower {
            metrics: self.metrics.upstream(&source.name),
            known: Known::new(&self.parts.files[1], ends::of([(&*source.name, source.provider)])),
            budget: self.budgets.of(
                &source.name,
                &source.upstream.base.authority,
                source.upstream.requests_per_minute_max,
            ),
            memory: Memory::default(),
            chance: Chance::new()?,
            parts: self.parts.clone(),
            told: Told::new(Arc::clone(&source.name)),
            begun: self.begun,
            source,
        })
    }
}

async fn until_changed(
    wanted: &mut watch::Receiver<Vec<AskedSource>>,
    all: &mut JoinSet<()>,
) -> Result<(), watch::error::RecvError> {
    loop {
        tokio::select! {
            changed = wanted.changed() => return changed,
            Some(ended) = all.join_next() => {
                // A bug of ours; the process goes on receiving.
                if let Some(error) = ended.err().filter(|error| !error.is_cancelled()) {
                    tracing::error!(%error, "a platform is not asked any more until the next SIGHUP or start");
                }
            }
        }
    }
}

/// One source, from round to round.
struct Follower {
    source: AskedSource,
    parts: Parts,
    known: Known,
    budget: Arc<Mutex<Budget>>,
    memory: Memory,
    chance: Chance,
    metrics: UpstreamMetrics,
    begun: Begun,
    told: Told,
}

impl Follower {
    async fn run(mut self) {
        let every = self.source.upstream.every;
        // Before anything can fail: of what cannot be asked it is to be seen that it is not.
        let first = self.begin(every);
        let platform = self.open().await;
        sleep(first).await;
        loop {
            let began = Instant::now();
            let (report, ended) = self.round(&platform).await;
            let pause = asked_to_wait(&ended).max(every.saturating_sub(began.elapsed()));
            self.told.tell(&report, ended);
            sleep(pause).await;
        }
    }

    /// Tries until it can be asked: a file that does not fit may be put right meanwhile.
    async fn open(&self) -> Platform {
        let AskedSource { name, provider, upstream } = &self.source;
        let mut told = None;
        loop {
            match Platform::open(upstream, *provider, self.parts.clock.clone()) {
                Ok(platform) => {
                    if told.is_some() {
                        tracing::info!(source = &**name, "the platform can be asked now");
                    }
                    return platform;
                }
                Err(error) if told.as_ref() != Some(&error) => {
                    tracing::error!(
                        source = &**name,
                        error,
                        "the platform cannot be asked; it is tried again"
                    );
                    told = Some(error);
                }
                Err(_) => {}
            }
            sleep(OPEN_AGAIN.min(upstream.every)).await;
        }
    }

    /// Tells what earlier rounds came to. How long to wait for the first.
    fn begin(&mut self, every: Duration) -> Duration {
        let now = self.parts.clock.now();
        let horizon = before(now, self.source.upstream.horizon);
        let (through, rounds) = self.known.noted(&self.source.name);
        self.metrics
            .asked_through(AskedThrough::all(through).map_or(horizon, |point| point.max(horizon)));
        if let Some(succeeded_at) = rounds.succeeded_at {
            self.metrics.succeeded(succeeded_at);
        }
        let first = FIRST_MAX.min(every);
        let by_chance = Backoff { min: first, max: first }.pause(0, &mut self.chance);
        // Also of what begins later: somebody may have asked by hand before.
        budget_of(&self.budget).rest_as_noted(&rounds, now, Instant::now());
        if self.begun == Begun::Later {
            return by_chance;
        }
        first_pause(&rounds, every, now, by_chance)
    }

    async fn round(&mut self, platform: &Platform) -> (Report, Result<(), Ended>) {
        self.make_index().await;
        let now = self.parts.clock.now();
        let (noted, _) = self.known.noted(&self.source.name);
        let pruned = match self.known.pruned_before() {
            Ok(pruned) => pruned,
            Err(unknown) => return (Report::default(), Err(unknown.into())),
        };
        let order = order(&self.source.upstream, (noted, pruned), now);
        let (journal, settled) = (self.parts.journal.clone(), self.parts.settled.clone());
        let mut keep = InJournal { journal, settled };
        let source = Arc::clone(&self.source.name);
        noted_or_told(keep.write(move |journal| Rounds::begin(journal, &source, now)).await);
        let mut round = Round {
            source: Arc::clone(&self.source.name),
            platform,
            known: &self.known,
            keep: keep.clone(),
            budget: &self.budget,
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
        let outcome = self.outcome(ended.is_ok(), asked_through(&report, order, noted), noted);
        noted_or_told(keep.note(&self.source.name, outcome).await);
        (report, ended)
    }

    fn outcome(
        &self,
        is_good: bool,
        through: PerList<Option<AskedThrough>>,
        noted: PerList<Option<AskedThrough>>,
    ) -> Outcome {
        let now = self.parts.clock.now();
        let reached = List::ALL.map(|list| through[list as usize].or(noted[list as usize]));
        if let Some(point) = AskedThrough::all(reached) {
            self.metrics.asked_through(point);
        }
        let succeeded_at = is_good.then_some(now);
        if is_good {
            self.metrics.succeeded(now);
        }
        let rests_until = budget_of(&self.budget).rests_until(now, Instant::now());
        Outcome { through, succeeded_at, rests_until, is_by_hand: false }
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
}

/// If it is not noted, the same is asked for again.
fn noted_or_told(noted: Result<(), Ended>) {
    if let Err(error) = noted {
        tracing::warn!(%error, "how far a platform was asked could not be noted");
    }
}

fn budget_of(budget: &Mutex<Budget>) -> MutexGuard<'_, Budget> {
    budget.lock().unwrap_or_else(PoisonError::into_inner)
}
