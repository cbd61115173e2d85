//! The whole service: started, waited for, asked, stopped. The one place that knows every room.
//!
//! [`Receiver`] is what `receiptd serve` runs, and what an integration test of an app can start in
//! a temporary folder:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use receiptd::{Provider, Receiver};
//!
//! let folder = tempfile::tempdir()?;
//! let receiver = Receiver::in_folder(folder.path(), "passport", Provider::GcNotify, "a-token").await?;
//! let receipt = br#"{"id": "740e5834", "status": "delivered", "notification_type": "sms"}"#;
//! assert_eq!(receiver.post("passport", "a-token", receipt).await?, 204);
//! receiver.settled().await;
//! let found = receiver.notification("passport", "740e5834")?.expect("it was settled");
//! assert_eq!(found.status.as_deref(), Some("delivered"));
//! receiver.stop().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Mutex, Notify, oneshot};
use tokio::task::JoinHandle;

use crate::api::control::ControlFile;
use crate::api::{self, Api, Waits};
use crate::ask::Ask;
use crate::clock::Clock;
use crate::config::settings::{Settings, Source, Store, StoreKind, To};
use crate::halves::{Halves, prepare_sources, remember_meanwhile};
use crate::journal::Refused;
use crate::lock::{Lock, LockError, check_file_system};
use crate::lookout::Lookout;
use crate::receive::keeper::{IsKept, Keeper};
use crate::receive::refusals::Refusals;
use crate::receive::request::FrontDoor;
use crate::receive::routes::Routes;
use crate::receive::server::{Server, TlsInForce};
use crate::receive::tls::{Refreshed, Reloader, TlsProblem};
use crate::reconcile::reconciler::Reconciler;
use crate::relay::{Problem, Relay};
use crate::settle::Known;
use crate::sqlite::OpenError;
use crate::telemetry::Metrics;

/// How often the TLS files are looked at.
const TLS_LOOK: Duration = Duration::from_secs(5);

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`. The
/// library's own is 128: when strangers fill that, the kernel drops the first packet of a sender
/// too, and it comes again a second later.
const BACKLOG: u32 = 4096;

/// What stopping may take beyond its deadline, for the last checkpoint.
const GRACE: Duration = Duration::from_millis(500);

/// How long a receiver whose journal has failed still answers 503 to those that are connected.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why a receiver could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the database, or it stands where locks do not hold.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A database file.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A TLS file.
    #[error(transparent)]
    Tls(#[from] TlsProblem),
    /// An address.
    #[error("failed to listen on {address}: {error}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// The system's own words.
        #[source]
        error: io::Error,
    },
    /// The journal refused its first entries.
    #[error("failed to prepare the journal: {0}")]
    Journal(#[from] Refused),
    /// SQLite refused its first rows.
    #[error("failed to prepare the journal: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Sinks that cannot stand in for a store.
    #[error(transparent)]
    Relay(#[from] Problem),
    /// A sink could not be prepared; a whole sentence.
    #[error("{0}")]
    Sink(String),
    /// No randomness, no signals, no file.
    #[error("failed to start: {0}")]
    Io(#[from] io::Error),
}

/// How a receiver ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As asked; everything acknowledged is on the disk.
    Stopped,
    /// An I/O error stopped the journal. Everything acknowledged before it is on the disk; a new
    /// start finds out whether the disk is well.
    Failed,
}

/// A running receiver. Dropping it stops it without the courtesies of [`Receiver::stop`].
#[derive(Debug)]
pub struct Receiver {
    settings: Settings,
    callbacks: SocketAddr,
    admin: SocketAddr,
    new_token: Option<String>,
    pub(crate) door: Arc<FrontDoor>,
    behind: Behind,
    is_stopping: Arc<AtomicBool>,
    stop_server: oneshot::Sender<()>,
    server: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
    look_at_tls: Arc<Notify>,
    /// Held while sources are replaced: of two who do so, one is wholly the second.
    replacing: Mutex<()>,
}

/// What stands behind the front door.
#[derive(Debug)]
enum Behind {
    /// Two files of this machine.
    Files(Box<Kept>),
    /// Sinks alone: nothing is kept here.
    Relay(Arc<Relay>),
}

/// Both files, and what says that they are ours. Dropped in this order: the lock last.
#[derive(Debug)]
struct Kept {
    lookout: Lookout,
    reconciler: Reconciler,
    halves: Halves,
    ask: Arc<Ask>,
    _control_file: ControlFile,
    _lock: Arc<Lock>,
}

impl Receiver {
    /// Starts a receiver with these settings, on the runtime this is called on. When this returns,
    /// callbacks are accepted.
    ///
    /// # Errors
    /// If a file cannot be opened or locked, or an address cannot be bound; then nothing runs.
    pub async fn start(settings: Settings, clock: Clock) -> Result<Self, StartError> {
        let lock = match settings.store.kind {
            StoreKind::Sqlite => Some(lock(&settings.store)?),
            StoreKind::None => None,
        };
        let listener = bind(settings.listen)?;
        let admin_listener = bind(settings.admin_listen)?;
        let admin = admin_listener.local_addr()?;
        let tls = settings.tls.clone().map(Reloader::open).transpose()?;
        let metrics = Arc::new(Metrics::new());
        let Prepared { behind, keeper, asked, sources, new_token } = match lock {
            Some(lock) => prepare_files(&settings, &clock, &metrics, lock, admin)?,
            None => prepare_relay(&settings, &metrics)?,
        };
        let door = Arc::new(FrontDoor {
            routes: Routes::new(&sources, &metrics),
            keeper,
            limits: settings.limits.clone(),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            refusals: Refusals::default(),
            is_draining: AtomicBool::new(false),
        });
        let in_force = tls.as_ref().map(|tls| Arc::new(RwLock::new(tls.current())));
        let server = Server::new(listener, Arc::clone(&door), in_force.clone());
        let callbacks = server.address()?;
        let is_stopping = Arc::new(AtomicBool::new(false));
        let api = Arc::new(Api {
            behind: asked,
            metrics,
            connections: server.connections(),
            clock,
            is_stopping: Arc::clone(&is_stopping),
            waits: Waits::default(),
        });
        let mut background = vec![tokio::spawn(api.run(admin_listener))];
        background.push(tokio::spawn({
            let door = Arc::clone(&door);
            async move { door.refusals.log_for_ever().await }
        }));
        let look_at_tls = Arc::new(Notify::new());
        if let (Some(reloader), Some(in_force)) = (tls, in_force) {
            let (look, metrics) = (Arc::clone(&look_at_tls), Arc::clone(&door.metrics));
            background.push(tokio::spawn(follow_tls_files(reloader, in_force, look, metrics)));
        }
        if let Behind::Files(kept) = &behind {
            background.push(tokio::spawn(kept.lookout.clone().run()));
        }
        if let Behind::Relay(relay) = &behind {
            background.push(tokio::spawn(Arc::clone(relay).prove()));
            relay.proven().await;
        }
        let (stop_server, stop) = oneshot::channel();
        let server = tokio::spawn(server.run(async { drop(stop.await) }));
        Ok(Self {
            settings,
            callbacks,
            admin,
            new_token,
            door,
            behind,
            is_stopping,
            stop_server,
            server,
            background,
            look_at_tls,
            replacing: Mutex::default(),
        })
    }

    /// Where callbacks arrive.
    pub fn callbacks(&self) -> SocketAddr {
        self.callbacks
    }

    /// Where health, metrics and what readers ask are.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// `https` if callbacks arrive over TLS, else `http`.
    pub fn scheme(&self) -> &'static str {
        if self.settings.tls.is_some() { "https" } else { "http" }
    }

    /// The state file.
    pub fn state_path(&self) -> &Path {
        &self.settings.store.path
    }

    /// Whether changes are written to standard output.
    pub fn writes_to_stdout(&self) -> bool {
        self.settings.sinks.iter().any(|sink| matches!(sink.to, To::Stdout))
    }

    /// The bearer made at this start because nothing was configured: told once, kept nowhere.
    pub fn new_token(&self) -> Option<&str> {
        self.new_token.as_deref()
    }

    /// Whether there is only the source that is made when nothing is configured.
    pub fn is_unconfigured(&self) -> bool {
        self.settings.sources.is_empty()
    }

    /// The journal's position: grows with every callback that is kept. Stays 0 without a store.
    pub fn committed(&self) -> i64 {
        match &self.behind {
            Behind::Files(kept) => kept.halves.journal.progress().committed(),
            Behind::Relay(_) => 0,
        }
    }

    /// Waits until everything acknowledged before this call is settled. Without a store there is
    /// nothing to wait for.
    pub async fn settled(&self) {
        if let Behind::Files(kept) = &self.behind {
            kept.halves.settled.reaches(self.committed()).await;
        }
    }

    /// Yields when an I/O error has stopped the journal: time to end, and be started anew. Without a
    /// store it never does.
    pub async fn failed(&self) {
        match &self.behind {
            Behind::Files(kept) => kept.halves.journal.progress().latched().await,
            Behind::Relay(_) => std::future::pending().await,
        }
    }

    /// Puts these sources in the place of the old and looks at the TLS files, without dropping a
    /// connection. Everything else needs a new start. Callers are served meanwhile.
    ///
    /// # Errors
    /// If the journal cannot remember them, no thread can be had to ask their platforms, or no sink would
    /// keep what they bring; then the old ones stay, wholly.
    pub async fn reload(&self, sources: &[Source]) -> Result<(), StartError> {
        let _replacing = self.replacing.lock().await;
        match &self.behind {
            Behind::Files(kept) => {
                // What can fail comes first. Nothing of a source may reach the journal before that knows
                // how to read it.
                kept.reconciler.make_ready(sources)?;
                remember_meanwhile(sources, &kept.halves.journal).await?;
                kept.reconciler.replace(sources);
                kept.ask.replace(sources);
            }
            Behind::Relay(relay) => relay.replace_sources(sources)?,
        }
        self.door.routes.replace(sources);
        self.look_at_tls.notify_one();
        Ok(())
    }

    /// Whether these settings differ from those in force in anything that [`Receiver::reload`] does
    /// not touch.
    pub fn needs_restart_for(&self, settings: &Settings) -> bool {
        let unchanging = |s: &Settings| {
            (s.listen, s.admin_listen, s.store.clone(), s.limits.clone(), s.tls.clone(), s.log)
        };
        unchanging(settings) != unchanging(&self.settings) || settings.sinks != self.settings.sinks
    }

    /// Stops: not ready any more, what is in flight is finished, everything acknowledged is on the
    /// disk and, if there is time, settled. At most `drain_ms_max`.
    pub async fn stop(mut self) -> Ended {
        let deadline = Instant::now() + self.settings.limits.drain_ms_max;
        self.is_stopping.store(true, Ordering::Release);
        let _ = self.stop_server.send(());
        // A journal that accepts nothing has nothing in flight that could still succeed.
        let patience = if self.behind.is_latched() { GOODBYE } else { until(deadline) };
        if tokio::time::timeout(patience, &mut self.server).await.is_err() {
            tracing::warn!("stopped with connections still open");
            self.server.abort();
        }
        self.door.refusals.log();
        let ended = self.behind.stop(deadline).await;
        self.background.iter().for_each(JoinHandle::abort);
        ended
    }
}

impl Behind {
    fn is_latched(&self) -> bool {
        match self {
            Self::Files(kept) => kept.halves.journal.progress().is_latched(),
            Self::Relay(_) => false,
        }
    }

    /// Finishes what is done by `deadline`.
    async fn stop(self, deadline: Instant) -> Ended {
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

/// What a receiver is started with, by where callbacks are kept.
struct Prepared {
    behind: Behind,
    keeper: Keeper,
    asked: api::Behind,
    sources: Vec<Source>,
    new_token: Option<String>,
}

/// One process for each database.
fn lock(store: &Store) -> Result<Arc<Lock>, LockError> {
    check_file_system(&store.path, store.network_file_system)?;
    Lock::acquire(&store.path).map(Arc::new)
}

fn prepare_files(
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

fn prepare_relay(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Prepared, StartError> {
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

fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// In a runtime.
fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart must not wait for connections of the one before.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| StartError::Listen { address, error })
}

async fn follow_tls_files(
    mut reloader: Reloader,
    in_force: TlsInForce,
    look: Arc<Notify>,
    metrics: Arc<Metrics>,
) {
    loop {
        metrics.tls_ends(reloader.not_after());
        // Elapsed: time to look without having been asked.
        let _ = tokio::time::timeout(TLS_LOOK, look.notified()).await;
        match reloader.refresh() {
            Refreshed::Reloaded => {
                *in_force.write().unwrap_or_else(std::sync::PoisonError::into_inner) =
                    reloader.current();
                tracing::info!("the TLS files have changed and are in force");
            }
            Refreshed::Failed(problem) => {
                tracing::warn!(%problem, "the TLS files have changed; the old ones stay in force");
            }
            Refreshed::Unchanged | Refreshed::StillFailing => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::Provider;
    use crate::config::{Flags, Layers, load};
    use crate::journal::Journal;

    const NAME: &str = "passport";
    const RECEIPT: &[u8] = br#"{"id": "n", "status": "sent", "notification_type": "sms"}"#;

    async fn receiver(folder: &Path) -> Receiver {
        Receiver::in_folder(folder, NAME, Provider::GcNotify, "old").await.unwrap()
    }

    fn source(source: &str, token: &str) -> Source {
        use sha2::{Digest as _, Sha256};
        let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(token));
        let flags = Flags {
            sources: vec![source.to_owned()],
            token_sha256: vec![sha256],
            ..Flags::default()
        };
        let loaded = load(&Layers::new(None, Vec::new(), flags), Clock::system().now());
        loaded.unwrap().settings.sources.remove(0)
    }

    fn journal(receiver: &Receiver) -> &Journal {
        let Behind::Files(kept) = &receiver.behind else { panic!("it has files") };
        &kept.halves.journal
    }

    /// Holds up the writer until what is returned is dropped, or so long that a test has failed.
    fn hold_up(journal: &Journal) -> mpsc::Sender<()> {
        let ((release, held), (begin, begun)) = (mpsc::channel::<()>(), mpsc::channel());
        let journal = journal.clone();
        std::thread::spawn(move || {
            journal.on_writer(move |_| {
                begin.send(()).unwrap();
                let _ = held.recv_timeout(Duration::from_secs(10));
                Ok(())
            })
        });
        begun.recv().unwrap();
        release
    }

    #[tokio::test]
    async fn while_a_reload_waits_for_the_disk_callers_are_served_by_the_old_sources() {
        let folder = tempfile::tempdir().unwrap();
        let receiver = receiver(folder.path()).await;
        let release = hold_up(journal(&receiver));
        let new = [source("passport=gc-notify", "new")];
        let mut reloading = Box::pin(receiver.reload(&new));
        for token in ["new", "another"] {
            tokio::select! {
                biased;
                _ = &mut reloading => panic!("the journal is held up"),
                answer = receiver.post(NAME, token, RECEIPT) => assert_eq!(answer.unwrap(), 401),
            }
        }
        drop(release);
        reloading.await.unwrap();
        assert_eq!(receiver.post(NAME, "new", RECEIPT).await.unwrap(), 204);
        assert_eq!(receiver.post(NAME, "old", RECEIPT).await.unwrap(), 401);
        receiver.stop().await;
    }

    #[tokio::test]
    async fn a_reload_that_the_journal_does_not_remember_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let receiver = receiver(folder.path()).await;
        let refuse = "CREATE TEMP TRIGGER no BEFORE INSERT ON source WHEN new.name = 'permits'
            BEGIN SELECT RAISE(ABORT, 'no room'); END";
        journal(&receiver).on_writer(|journal| journal.execute_batch(refuse)).unwrap().unwrap();
        let new = ["passport=va-notify", "permits=gc-notify"].map(|name| source(name, "new"));
        assert!(matches!(receiver.reload(&new).await, Err(StartError::Sqlite(_))));
        let sql = "SELECT group_concat(name || ' ' || provider) FROM source";
        let remembered = journal(&receiver)
            .on_writer(|journal| journal.query_row(sql, [], |row| row.get::<_, String>(0)));
        assert_eq!(remembered.unwrap().unwrap(), "passport gc-notify");
        assert_eq!(receiver.post(NAME, "new", RECEIPT).await.unwrap(), 401);
        assert_eq!(receiver.post(NAME, "old", RECEIPT).await.unwrap(), 204);
        assert_eq!(receiver.callback_url("permits"), None);
        receiver.stop().await;
    }
}
