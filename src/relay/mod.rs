//! Relay: nothing is kept here; what a callback says is passed on before it is answered.
//!
//! For `store.kind = "none"`: any number of receivers without a disk in front of a broker, or of an
//! app, that keeps. A callback is recognised at once, by itself ([`crate::settle::alone`]), and is
//! safe once every sink that wants to hear of it has accepted it. Promises:
//!
//! - `Ok` is given only after each matching sink has accepted every change of the callback, and only
//!   sinks that have shown what they accept to be durable are sent anything;
//! - whatever else happens, the answer comes within `limits.ack_wait_ms_max`. Nothing is tried again
//!   here: the sender has the callback and repeats it, and a repetition carries the same ids, so a
//!   sink that had accepted its part can tell;
//! - one sink that does not accept keeps no other from hearing of the callback;
//! - at most `limits.queue_callbacks_max` callbacks, and `limits.queue_bytes_max` of their bytes,
//!   are under way; what is beyond is refused at once;
//! - a caller that goes away cancels nothing: the task that passes a callback on owns it;
//! - no change is without a sink: configurations under which one could be are refused
//!   ([`check`]), because nothing else would keep it.
//!
//! What it does not promise is order. Changes of one callback about one notification are sent one
//! after the other; between callbacks, and between receivers, nobody here could know.
//!
//! All of it runs on the thread of the sockets, with no hop to another: publishing is pipelined by
//! there being as many callbacks under way as there are callers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::change::Change;
use crate::config::settings::{Limits, Settings, Source};
use crate::journal::Entry;
use crate::provider::Dialect;
use crate::settle::alone::{Alone, alone};
use crate::telemetry::Metrics;

mod check;
mod target;

pub use check::{Problem, check};

use target::Target;

/// How long a start waits for the sinks to show that they keep what they accept.
const PROVE_MAX: Duration = Duration::from_secs(3);

/// Why a callback was not passed on, or not wholly. All of these are answered 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPassedOn {
    /// More callbacks, or bytes of them, are under way than are allowed to be.
    #[error("too many callbacks are under way")]
    Full,
    /// A sink has not shown, so far, that what it accepts is durable.
    #[error("a sink has not shown that it keeps what it accepts")]
    Unproven,
    /// A sink failed.
    #[error("a sink did not accept an event")]
    Failed,
    /// A sink will never accept this.
    #[error("a sink refused an event for good")]
    Refused,
    /// A sink has not answered in time; it may have accepted the event.
    #[error("a sink did not answer in time")]
    Late,
    /// No sink wants to hear of a change, so nobody would keep it.
    #[error("no sink takes a change")]
    NoSink,
    /// A bug of ours.
    #[error("passing it on panicked")]
    Panicked,
}

/// What passes callbacks on.
#[derive(Debug)]
pub struct Relay {
    dialects: RwLock<Arc<Dialects>>,
    targets: Vec<Arc<Target>>,
    metrics: Arc<Metrics>,
    ack_wait_max: Duration,
    callbacks_max: usize,
    bytes_max: usize,
    under_way: Mutex<UnderWay>,
    emptied: Notify,
}

type Dialects = HashMap<Arc<str>, Dialect>;

/// What has been taken and not been answered for.
#[derive(Clone, Copy, Debug, Default)]
struct UnderWay {
    callbacks: usize,
    bytes: usize,
}

impl Relay {
    /// Opens the sinks, in the runtime they are sent from. Connects to nothing.
    ///
    /// # Errors
    /// If the sinks do not cover the sources, or one cannot be opened.
    pub fn open(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Self, Problem> {
        if let Some(problem) = check(&settings.sinks, &settings.sources).into_iter().next() {
            return Err(problem);
        }
        let Limits { ack_wait_ms_max, queue_callbacks_max, queue_bytes_max, .. } = settings.limits;
        let open = |sink| Target::open(sink, metrics).map(Arc::new);
        Ok(Self {
            dialects: RwLock::new(dialects(&settings.sources)),
            targets: settings.sinks.iter().map(open).collect::<Result<_, _>>()?,
            metrics: Arc::clone(metrics),
            ack_wait_max: ack_wait_ms_max,
            callbacks_max: queue_callbacks_max,
            bytes_max: queue_bytes_max,
            under_way: Mutex::default(),
            emptied: Notify::new(),
        })
    }

    /// Asks the sinks whether they keep what they accept, each again and again until it says so.
    pub async fn prove(self: Arc<Self>) {
        let mut asking: JoinSet<()> = self
            .targets
            .iter()
            .map(|target| {
                let target = Arc::clone(target);
                async move { target.prove().await }
            })
            .collect();
        while asking.join_next().await.is_some() {}
    }

    /// Waits, for a few seconds at most, until every sink has said so.
    pub async fn proven(&self) {
        let all = async {
            for target in &self.targets {
                target.proven().await;
            }
        };
        // If one has not, callbacks are answered 503 until it has; so is readiness.
        let _ = tokio::time::timeout(PROVE_MAX, all).await;
    }

    /// Why no callback can be passed on now, for as long as nobody does anything about it. That a
    /// sink cannot be reached at the moment is no such reason: see the module `target`.
    pub fn not_ready_because(&self) -> Option<NotPassedOn> {
        self.targets.iter().find_map(|target| target.usable().err())
    }

    /// Puts these sources in the place of the old.
    ///
    /// # Errors
    /// If the sinks do not cover them; then the old ones stay.
    pub fn replace_sources(&self, sources: &[Source]) -> Result<(), Problem> {
        let filters: Vec<_> = self.targets.iter().map(|target| &target.filter).collect();
        if let Some(problem) = check::uncovered(&filters, sources).into_iter().next() {
            return Err(problem);
        }
        *self.dialects.write().unwrap_or_else(PoisonError::into_inner) = dialects(sources);
        Ok(())
    }

    /// Callbacks that are under way.
    pub fn waiting(&self) -> usize {
        self.under_way().callbacks
    }

    /// Waits until nothing is under way.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.waiting() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Returns once every sink that wants to hear of this callback has accepted it.
    ///
    /// # Errors
    /// If one has not, or not in time. Then the sender must repeat it, even if others have.
    pub async fn pass_on(self: &Arc<Self>, entry: Entry) -> Result<(), NotPassedOn> {
        let place = Place::take(self, entry.body.len())?;
        let deadline = Instant::now() + self.ack_wait_max;
        let task = tokio::spawn(async move { place.relay.send(entry, deadline).await });
        task.await.unwrap_or(Err(NotPassedOn::Panicked))
    }

    async fn send(&self, entry: Entry, deadline: Instant) -> Result<(), NotPassedOn> {
        let Entry { source, received_at, body, .. } = entry;
        let dialects = Arc::clone(&self.dialects.read().unwrap_or_else(PoisonError::into_inner));
        // A source that a reload has just taken away; it would be a 404 by now.
        let dialect = dialects.get(&source).ok_or(NotPassedOn::NoSink)?;
        let Alone { changes, tally } = alone(&source, dialect, received_at, &body);
        self.send_all(changes, &body, deadline).await?;
        self.metrics.recognised(&tally);
        Ok(())
    }

    /// Sends each change to each sink that wants it. One after the other about one subject, else
    /// beside each other; to the end even if one has failed, so that a sink that is down keeps no
    /// other from what it wants.
    async fn send_all(
        &self,
        changes: Vec<Change>,
        body: &Bytes,
        deadline: Instant,
    ) -> Result<(), NotPassedOn> {
        let mut lanes = self.lanes(changes)?;
        // The usual callback: one change for one sink.
        if lanes.len() == 1 {
            return lanes.remove(0).run(body.clone(), deadline).await;
        }
        let mut running: JoinSet<_> =
            lanes.into_iter().map(|lane| lane.run(body.clone(), deadline)).collect();
        let mut result = Ok(());
        while let Some(ended) = running.join_next().await {
            result = result.and(ended.unwrap_or(Err(NotPassedOn::Panicked)));
        }
        result
    }

    fn lanes(&self, changes: Vec<Change>) -> Result<Vec<Lane>, NotPassedOn> {
        let mut lanes: Vec<Lane> = Vec::with_capacity(self.targets.len());
        let mut places = HashMap::new();
        for change in changes {
            let mut wanting =
                self.targets.iter().enumerate().filter(|(_, to)| to.filter.matches(&change));
            let mut is_wanted = false;
            for (number, target) in &mut wanting {
                is_wanted = true;
                let place = *places.entry((number, change.subject)).or_insert_with(|| {
                    lanes.push(Lane { target: Arc::clone(target), changes: Vec::new() });
                    lanes.len() - 1
                });
                lanes[place].changes.push(change.clone());
            }
            if !is_wanted {
                return Err(NotPassedOn::NoSink);
            }
        }
        Ok(lanes)
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn dialects(sources: &[Source]) -> Arc<Dialects> {
    let pairs = sources.iter().map(|source| (Arc::clone(&source.name), source.dialect.clone()));
    Arc::new(pairs.collect())
}

/// Changes about one subject, for one sink, in order.
struct Lane {
    target: Arc<Target>,
    changes: Vec<Change>,
}

impl Lane {
    async fn run(self, body: Bytes, deadline: Instant) -> Result<(), NotPassedOn> {
        for change in self.changes {
            self.target.send(change, &body, deadline).await?;
        }
        Ok(())
    }
}

/// A callback that is under way; until this is dropped.
struct Place {
    relay: Arc<Relay>,
    bytes: usize,
}

impl Place {
    fn take(relay: &Arc<Relay>, bytes: usize) -> Result<Self, NotPassedOn> {
        let mut under_way = relay.under_way();
        let all = under_way.bytes.saturating_add(bytes);
        // A single callback larger than the bound must still be able to pass.
        let too_many_bytes = all > relay.bytes_max && under_way.callbacks > 0;
        if under_way.callbacks >= relay.callbacks_max || too_many_bytes {
            return Err(NotPassedOn::Full);
        }
        *under_way = UnderWay { callbacks: under_way.callbacks + 1, bytes: all };
        Ok(Self { relay: Arc::clone(relay), bytes })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = self.relay.under_way();
        under_way.callbacks -= 1;
        under_way.bytes -= self.bytes;
        let is_empty = under_way.callbacks == 0;
        drop(under_way);
        if is_empty {
            self.relay.emptied.notify_waiters();
        }
    }
}
