//! What stands behind the front door: both files, or sinks alone.
//!
//! Everything of a receiver that depends on where callbacks are kept is here, so that [`Receiver`]
//! asks for it and need not know: what it is started with ([`Prepared`]), how far it has got, what a
//! reload replaces, and how it ends. Where nothing is kept there is nothing to wait for, and nothing fails.
//!
//! The lock is had first and let go of last: whoever opens the files after us finds them closed.
//!
//! [`Receiver`]: super::Receiver

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::{Ended, StartError, until};
use crate::api;
use crate::api::control::ControlFile;
use crate::ask::Ask;
use crate::clock::Clock;
use crate::config::settings::{Settings, Source, Store};
use crate::halves::{Halves, prepare_sources, remember_meanwhile};
use crate::lock::{Lock, LockError, check_file_system};
use crate::lookout::Lookout;
use crate::receive::keeper::{IsKept, Keeper};
use crate::reconcile::reconciler::Reconciler;
use crate::relay::Relay;
use crate::settle::Known;
use crate::telemetry::Metrics;

/// What stopping may take beyond its deadline, for the last checkpoint.
const GRACE: Duration = Duration::from_millis(500);

/// What stands behind the front door.
#[derive(Debug)]
pub(super) enum Behind {
    /// Two files of this machine.
    Files(Box<Kept>),
    /// Sinks alone: nothing is kept here.
    Relay(Arc<Relay>),
}

/// Both files, and what says that they are ours. Dropped in this order: the lock last.
#[derive(Debug)]
pub(super) struct Kept {
    lookout: Lookout,
    reconciler: Reconciler,
    pub(super) halves: Halves,
    ask: Arc<Ask>,
    _control_file: ControlFile,
    _lock: Arc<Lock>,
}

/// What a receiver is started with, by where callbacks are kept.
pub(super) struct Prepared {
    pub(super) behind: Behind,
    /// How the front door has a callback kept.
    pub(super) keeper: Keeper,
    /// What the admin listener asks.
    pub(super) asked: api::Behind,
    /// The configured sources, or the one that is made when there are none.
    pub(super) sources: Vec<Source>,
    /// The bearer of that one, if it was made just now.
    pub(super) new_token: Option<String>,
}

impl Behind {
    /// Starts what runs beside callers. Of sinks alone, returns once they have proven themselves.
    pub(super) async fn run(&self) -> JoinHandle<()> {
        match self {
            Self::Files(kept) => tokio::spawn(kept.lookout.clone().run()),
            Self::Relay(relay) => {
                let proving = tokio::spawn(Arc::clone(relay).prove());
                relay.proven().await;
                proving
            }
        }
    }

    /// The journal's position; 0 without a store.
    pub(super) fn committed(&self) -> i64 {
        match self {
            Self::Files(kept) => kept.halves.journal.progress().committed(),
            Self::Relay(_) => 0,
        }
    }

    /// Waits until everything acknowledged before this call is settled.
    pub(super) async fn settled(&self) {
        if let Self::Files(kept) = self {
            kept.halves.settled.reaches(self.committed()).await;
        }
    }

    /// Yields when an I/O error has stopped the journal; without a store, never.
    pub(super) async fn failed(&self) {
        match self {
            Self::Files(kept) => kept.halves.journal.progress().latched().await,
            Self::Relay(_) => std::future::pending().await,
        }
    }

    /// Puts these sources in the place of the old.
    ///
    /// # Errors
    /// As [`super::Receiver::reload`]; then the old ones stay, wholly.
    pub(super) async fn replace(&self, sources: &[Source]) -> Result<(), StartError> {
        match self {
            Self::Files(kept) => {
                // What can fail comes first. Nothing of a source may reach the journal before that knows
                // how to read it.
                kept.reconciler.make_ready(sources)?;
                remember_meanwhile(sources, &kept.halves.journal).await?;
                kept.reconciler.replace(sources);
                kept.ask.replace(sources);
            }
            Self::Relay(relay) => relay.replace_sources(sources)?,
        }
        Ok(())
    }

    /// Whether an I/O error has stopped the journal.
    pub(super) fn is_latched(&self) -> bool {
        match self {
            Self::Files(kept) => kept.halves.journal.progress().is_latched(),
            Self::Relay(_) => false,
        }
    }

    /// Finishes what is done by `deadline`.
    pub(super) async fn stop(self, deadline: Instant) -> Ended {
        match self {
            Self::Files(kept) => kept.stop(deadline).await,
            Self::Relay(relay) => {
                // What callers left behind who hung up; everybody else has been answered.
                if tokio::time::timeout(until(deadline), relay.emptied()).await.is_err() {
                    tracing::warn!("stopped before every sink had answered");
                }
                Ended::Stopped
            }
        }
    }
}

impl Kept {
    async fn stop(self, deadline: Instant) -> Ended {
        let Self { lookout: _, reconciler, halves, ask, _control_file, _lock } = self;
        let progress = Arc::clone(halves.journal.progress());
        let ending = tokio::task::spawn_blocking(move || {
            ask.close();
            reconciler.stop(deadline);
            halves.stop(deadline);
        });
        // What is not done by then is done at the next start: everything acknowledged is committed.
        if tokio::time::timeout(until(deadline) + GRACE, ending).await.is_err() {
            tracing::warn!("stopped before the files could be tidied up");
        }
        if progress.is_latched() { Ended::Failed } else { Ended::Stopped }
    }
}

/// One process for each database.
pub(super) fn lock(store: &Store) -> Result<Arc<Lock>, LockError> {
    check_file_system(&store.path, store.network_file_system)?;
    Lock::acquire(&store.path).map(Arc::new)
}

/// Both files, with whatever runs on them but the listeners.
///
/// # Errors
/// If one cannot be opened, or no thread can be had.
pub(super) fn prepare_files(
    settings: &Settings,
    clock: &Clock,
    metrics: &Arc<Metrics>,
    lock: Arc<Lock>,
    admin: SocketAddr,
) -> Result<Prepared, StartError> {
    let halves = Halves::start(settings, clock, metrics, &lock)?;
    let (sources, new_token) = prepare_sources(&settings.sources, &halves.journal, clock)?;
    halves.recall(&sources, metrics);
    let control_file = ControlFile::write(&settings.store.path, admin)?;
    lock.describe(&format!("admin http://{admin}"))?;
    let keeper = Keeper::Journal {
        journal: halves.journal.clone(),
        is_kept: is_kept(&halves.files),
        ack_wait_max: settings.limits.ack_wait_ms_max,
    };
    let ask = Arc::new(Ask::new(&sources, halves.read_by(clock, metrics)));
    let asked = api::Behind::Files(Box::new(api::Files {
        journal: halves.journal.clone(),
        settled: halves.settled.clone(),
        files: halves.files.clone(),
        control: halves.control(control_file.key(), metrics),
        ask: Arc::clone(&ask),
    }));
    let reconciler = Reconciler::start(&sources, halves.asking(clock), Arc::clone(metrics))?;
    let lookout = halves.lookout(settings, clock, metrics);
    let kept = Kept { lookout, reconciler, halves, ask, _control_file: control_file, _lock: lock };
    Ok(Prepared { behind: Behind::Files(Box::new(kept)), keeper, asked, sources, new_token })
}

/// Sinks in place of both files.
///
/// # Errors
/// If one of them cannot be prepared, or cannot stand in for a store.
pub(super) fn prepare_relay(
    settings: &Settings,
    metrics: &Arc<Metrics>,
) -> Result<Prepared, StartError> {
    let relay = Arc::new(Relay::open(settings, metrics)?);
    Ok(Prepared {
        behind: Behind::Relay(Arc::clone(&relay)),
        keeper: Keeper::Relay(Arc::clone(&relay)),
        asked: api::Behind::Relay(relay),
        sources: settings.sources.clone(),
        new_token: None,
    })
}

fn is_kept([journal, state]: &[PathBuf; 2]) -> IsKept {
    let known = Known::new(journal.clone(), state.clone());
    IsKept(Box::new(move |source, body| known.has(source, body)))
}
