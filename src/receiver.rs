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
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::api::Api;
use crate::api::control::ControlFile;
use crate::clock::Clock;
use crate::config::settings::{Settings, Source};
use crate::halves::{Halves, prepare_sources, remember};
use crate::journal::Refused;
use crate::lock::{Lock, LockError, check_file_system};
use crate::receive::refusals::Refusals;
use crate::receive::request::{FrontDoor, IsKept};
use crate::receive::routes::Routes;
use crate::receive::server::{Server, TlsInForce};
use crate::receive::tls::{Refreshed, Reloader, TlsProblem};
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
    halves: Halves,
    is_stopping: Arc<AtomicBool>,
    stop_server: oneshot::Sender<()>,
    server: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
    look_at_tls: Arc<Notify>,
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
        let store = settings.store.clone();
        check_file_system(&store.path, store.network_file_system)?;
        let lock = Arc::new(Lock::acquire(&store.path)?);
        let listener = bind(settings.listen)?;
        let admin_listener = bind(settings.admin_listen)?;
        let tls = settings.tls.clone().map(Reloader::open).transpose()?;
        let metrics = Arc::new(Metrics::new());
        let halves = Halves::start(&settings, &clock, &metrics, &lock)?;
        let (sources, new_token) = prepare_sources(&settings.sources, &halves.journal, &clock)?;
        let door = Arc::new(FrontDoor {
            routes: Routes::new(&sources, &metrics),
            journal: halves.journal.clone(),
            is_kept: is_kept(&halves.files),
            limits: settings.limits.clone(),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            refusals: Refusals::default(),
            is_draining: AtomicBool::new(false),
        });
        let in_force = tls.as_ref().map(|tls| Arc::new(RwLock::new(tls.current())));
        let server = Server::new(listener, Arc::clone(&door), in_force.clone());
        let callbacks = server.address()?;
        let admin = admin_listener.local_addr()?;
        let is_stopping = Arc::new(AtomicBool::new(false));
        let control_file = ControlFile::write(&store.path, admin)?;
        lock.describe(&format!("admin http://{admin}"))?;
        let api = Arc::new(Api {
            journal: halves.journal.clone(),
            settled: halves.settled.clone(),
            metrics,
            connections: server.connections(),
            clock,
            files: halves.files.clone(),
            is_stopping: Arc::clone(&is_stopping),
            control: halves.control(control_file.key()),
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
        let (stop_server, stop) = oneshot::channel();
        let server = tokio::spawn(server.run(async { drop(stop.await) }));
        Ok(Self {
            settings,
            callbacks,
            admin,
            new_token,
            door,
            halves,
            is_stopping,
            stop_server,
            server,
            background,
            look_at_tls,
            _control_file: control_file,
            _lock: lock,
        })
    }

    /// Where callbacks arrive.
    pub fn callbacks(&self) -> SocketAddr {
        self.callbacks
    }

    /// Where health and metrics are.
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

    /// The bearer made at this start because nothing was configured: told once, kept nowhere.
    pub fn new_token(&self) -> Option<&str> {
        self.new_token.as_deref()
    }

    /// Whether there is only the source that is made when nothing is configured.
    pub fn is_unconfigured(&self) -> bool {
        self.settings.sources.is_empty()
    }

    /// The journal's position: grows with every callback that is kept.
    pub fn committed(&self) -> i64 {
        self.halves.journal.progress().committed()
    }

    /// Waits until everything acknowledged before this call is settled.
    pub async fn settled(&self) {
        self.halves.settled.reaches(self.committed()).await;
    }

    /// Yields when an I/O error has stopped the journal: time to end, and be started anew.
    pub async fn failed(&self) {
        self.halves.journal.progress().latched().await;
    }

    /// Puts these sources in the place of the old and looks at the TLS files, without dropping a
    /// connection. Everything else needs a new start.
    ///
    /// # Errors
    /// If the journal cannot remember them; then the old ones stay.
    pub fn reload(&self, sources: &[Source]) -> Result<(), StartError> {
        remember(sources, &self.halves.journal)?;
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
        unchanging(settings) != unchanging(&self.settings)
    }

    /// Stops: not ready any more, what is in flight is finished, everything acknowledged is on the
    /// disk and, if there is time, settled. At most `drain_ms_max`.
    pub async fn stop(mut self) -> Ended {
        let deadline = Instant::now() + self.settings.limits.drain_ms_max;
        self.is_stopping.store(true, Ordering::Release);
        let _ = self.stop_server.send(());
        let progress = Arc::clone(self.halves.journal.progress());
        // A journal that accepts nothing has nothing in flight that could still succeed.
        let patience = if progress.is_latched() { GOODBYE } else { until(deadline) };
        if tokio::time::timeout(patience, &mut self.server).await.is_err() {
            tracing::warn!("stopped with connections still open");
            self.server.abort();
        }
        self.door.refusals.log();
        let halves = self.halves;
        let ending = tokio::task::spawn_blocking(move || halves.stop(deadline));
        // What is not done by then is done at the next start: everything acknowledged is committed.
        if tokio::time::timeout(until(deadline) + GRACE, ending).await.is_err() {
            tracing::warn!("stopped before the files could be tidied up");
        }
        self.background.iter().for_each(JoinHandle::abort);
        if progress.is_latched() { Ended::Failed } else { Ended::Stopped }
    }
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
