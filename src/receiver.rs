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

use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::api::Api;
use crate::api::control::{Control, ControlFile};
use crate::clock::Clock;
use crate::config::settings::{Credentials, Settings, Source, Token};
use crate::journal::{self, Journal, Refused, SourceRow};
use crate::lock::{Lock, LockError, check_file_system};
use crate::provider::Provider;
use crate::receive::request::FrontDoor;
use crate::receive::routes::Routes;
use crate::receive::server::{Server, TlsInForce};
use crate::receive::tls::{Refreshed, Reloader, TlsProblem};
use crate::settle::{self, Settled, Settler};
use crate::sqlite::checkpoint::Checkpointer;
use crate::sqlite::{Durability, OpenError};
use crate::state;
use crate::telemetry::Metrics;

/// How often the TLS files are looked at.
const TLS_LOOK: Duration = Duration::from_secs(5);

/// The name of the source that exists when nothing is configured.
pub const DEFAULT_SOURCE: &str = "default";

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
    journal: Journal,
    writer: journal::Writer,
    settled: Settled,
    settler: Settler,
    checkpointers: Vec<Checkpointer>,
    is_stopping: Arc<AtomicBool>,
    stop_server: oneshot::Sender<()>,
    server: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
    look_at_tls: Arc<Notify>,
    _control_file: ControlFile,
    _lock: Lock,
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
        let mut lock = Lock::acquire(&store.path)?;
        let listener = bind(settings.listen).await?;
        let admin_listener = bind(settings.admin_listen).await?;
        let tls = settings.tls.clone().map(Reloader::open).transpose()?;
        let metrics = Arc::new(Metrics::new());
        let files = [store.journal_path(), store.path.clone()];

        let opened = settle::open_beside(&files[1], &files[0], &clock)?;
        let (journal, writer, tell_callers) = start_journal(&settings, &files[0], &metrics)?;
        let mut background = vec![tokio::spawn(tell_callers)];
        let (sources, new_token) = prepare_sources(&settings.sources, &journal, &clock)?;
        let checkpointers = vec![
            Checkpointer::start(&files[0], &journal::SCHEMA)?,
            Checkpointer::start(&files[1], &state::tables::SCHEMA)?,
        ];
        let (settler, settled) =
            start_settling(&settings, &files, opened, &journal, &clock, &metrics)?;

        let door = Arc::new(FrontDoor {
            routes: Routes::new(&sources, &metrics),
            journal: journal.clone(),
            limits: settings.limits.clone(),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
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
            journal: journal.clone(),
            settled: settled.clone(),
            metrics,
            connections: server.connections(),
            clock,
            files: files.clone(),
            is_stopping: Arc::clone(&is_stopping),
            control: Control {
                key: control_file.key().to_owned(),
                journal: journal.clone(),
                state: settler.on_thread(),
                files,
            },
        });
        background.push(tokio::spawn(api.run(admin_listener)));
        let look_at_tls = Arc::new(Notify::new());
        if let (Some(reloader), Some(in_force)) = (tls, in_force) {
            let look = Arc::clone(&look_at_tls);
            background.push(tokio::spawn(follow_tls_files(reloader, in_force, look)));
        }
        let (stop_server, stop) = oneshot::channel();
        let server = tokio::spawn(server.run(async { drop(stop.await) }));
        Ok(Self {
            settings,
            callbacks,
            admin,
            new_token,
            door,
            journal,
            writer,
            settled,
            settler,
            checkpointers,
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

    /// The journal's position: grows with every callback that is kept.
    pub fn committed(&self) -> i64 {
        self.journal.progress().committed()
    }

    /// Waits until everything acknowledged before this call is settled.
    pub async fn settled(&self) {
        self.settled.reaches(self.committed()).await;
    }

    /// Yields when an I/O error has stopped the journal: time to end, and be started anew.
    pub async fn failed(&self) {
        self.journal.progress().latched().await;
    }

    /// Puts these sources in the place of the old and looks at the TLS files, without dropping a
    /// connection. Everything else needs a new start.
    ///
    /// # Errors
    /// If the journal cannot remember them; then the old ones stay.
    pub fn reload(&self, sources: &[Source]) -> Result<(), StartError> {
        remember(sources, &self.journal)?;
        self.door.routes.replace(sources);
        self.look_at_tls.notify_one();
        Ok(())
    }

    /// Stops: not ready any more, what is in flight is finished, everything acknowledged is on the
    /// disk and, if there is time, settled. At most `drain_ms_max`.
    pub async fn stop(mut self) -> Ended {
        let deadline = Instant::now() + self.settings.limits.drain_ms_max;
        self.is_stopping.store(true, Ordering::Release);
        let _ = self.stop_server.send(());
        let failed = self.journal.progress().is_latched();
        // A journal that accepts nothing has nothing in flight that could still succeed.
        let patience = if failed { Duration::from_secs(1) } else { until(deadline) };
        if tokio::time::timeout(patience, &mut self.server).await.is_err() {
            tracing::warn!("stopped with connections still open");
            self.server.abort();
        }
        self.journal.close();
        let (writer, settler) = (self.writer, self.settler);
        let checkpointers = std::mem::take(&mut self.checkpointers);
        let ending = tokio::task::spawn_blocking(move || {
            writer.join();
            settler.stop(deadline);
            drop(checkpointers);
        });
        if ending.await.is_err() {
            tracing::error!("a thread panicked while stopping");
        }
        self.background.iter().for_each(JoinHandle::abort);
        if failed { Ended::Failed } else { Ended::Stopped }
    }
}

fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Listen { address, error })
}

fn start_journal(
    settings: &Settings,
    path: &Path,
    metrics: &Arc<Metrics>,
) -> Result<(Journal, journal::Writer, impl Future<Output = ()> + Send + use<>), OpenError> {
    let (limits, store) = (&settings.limits, &settings.store);
    let options = journal::Options {
        queue_callbacks_max: limits.queue_callbacks_max,
        queue_bytes_max: limits.queue_bytes_max,
        batch_callbacks_max: limits.batch_callbacks_max,
        free_bytes_min: store.free_bytes_min,
        reserve_bytes: store.reserve_bytes,
        durability: Durability::Full,
    };
    let metrics = Arc::clone(metrics);
    journal::start(path, options, Box::new(move |report| metrics.committed(report)))
}

fn start_settling(
    settings: &Settings,
    [journal_path, state_path]: &[PathBuf; 2],
    opened: settle::Opened,
    journal: &Journal,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Result<(Settler, Settled), OpenError> {
    let options = settle::Options {
        path: state_path.clone(),
        journal: journal_path.clone(),
        callbacks_max: settings.limits.settle_callbacks_max,
        clock: clock.clone(),
    };
    let metrics = Arc::clone(metrics);
    let observer = Box::new(move |report: &settle::Report| metrics.settled(report));
    settle::start(options, opened, Arc::clone(journal.progress()), observer)
}

/// The configured sources; without any, the source `default` with the token the journal knows, or a
/// new one, which is returned to be shown once.
fn prepare_sources(
    configured: &[Source],
    journal: &Journal,
    clock: &Clock,
) -> Result<(Vec<Source>, Option<String>), StartError> {
    if !configured.is_empty() {
        remember(configured, journal)?;
        return Ok((configured.to_vec(), None));
    }
    let fresh = random_bearer()?;
    let sha256: [u8; 32] = Sha256::digest(fresh.as_bytes()).into();
    let now = clock.now();
    let known: [u8; 32] = journal.on_writer(move |connection| {
        journal::keep_credential(connection, DEFAULT_SOURCE, sha256, now)
    })??;
    let token = Token { label: "generated".to_owned(), sha256: known, not_after: None };
    let sources = vec![Source {
        name: Arc::from(DEFAULT_SOURCE),
        dialect: Provider::Notify.into(),
        path: format!("/callbacks/{DEFAULT_SOURCE}"),
        credentials: Credentials { tokens: vec![token], ..Credentials::default() },
    }];
    remember(&sources, journal)?;
    Ok((sources, (known == sha256).then_some(fresh)))
}

/// Writes into the journal how these sources' callbacks are read, so that it can be settled by
/// itself.
fn remember(sources: &[Source], journal: &Journal) -> Result<(), StartError> {
    let rows: Vec<SourceRow> = sources
        .iter()
        .map(|source| SourceRow { name: source.name.to_string(), dialect: source.dialect.clone() })
        .collect();
    journal
        .on_writer(move |connection| rows.iter().try_for_each(|row| row.remember(connection)))??;
    Ok(())
}

/// 32 random bytes as base64url without padding: 43 characters that every form field takes.
pub fn random_bearer() -> io::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::from)?;
    Ok(data_encoding::BASE64URL_NOPAD.encode(&bytes))
}

async fn follow_tls_files(mut reloader: Reloader, in_force: TlsInForce, look: Arc<Notify>) {
    loop {
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
