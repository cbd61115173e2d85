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

mod behind;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{Mutex, Notify, oneshot};
use tokio::task::JoinHandle;

use self::behind::{Behind, Prepared, lock, prepare_files, prepare_relay};
use crate::api::{Api, Waits};
use crate::clock::Clock;
use crate::config::settings::{Settings, Source, StoreKind, To};
use crate::journal::Refused;
use crate::lock::LockError;
use crate::receive::refusals::Refusals;
use crate::receive::renewal;
use crate::receive::request::FrontDoor;
use crate::receive::routes::Routes;
use crate::receive::server::{Server, listen};
use crate::receive::tls::{Reloader, TlsProblem};
use crate::relay::Problem;
use crate::sqlite::OpenError;
use crate::telemetry::Metrics;

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
            background.push(tokio::spawn(renewal::follow(reloader, in_force, look, metrics)));
        }
        background.push(behind.run().await);
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
        self.behind.committed()
    }

    /// Waits until everything acknowledged before this call is settled. Without a store there is
    /// nothing to wait for.
    pub async fn settled(&self) {
        self.behind.settled().await;
    }

    /// Yields when an I/O error has stopped the journal: time to end, and be started anew. Without a
    /// store it never does.
    pub async fn failed(&self) {
        self.behind.failed().await;
    }

    /// Puts these sources in the place of the old and looks at the TLS files, without dropping a
    /// connection. Everything else needs a new start. Callers are served meanwhile.
    ///
    /// # Errors
    /// If the journal cannot remember them, no thread can be had to ask their platforms, or no sink would
    /// keep what they bring; then the old ones stay, wholly.
    pub async fn reload(&self, sources: &[Source]) -> Result<(), StartError> {
        let _replacing = self.replacing.lock().await;
        self.behind.replace(sources).await?;
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

fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    listen(address).map_err(|error| StartError::Listen { address, error })
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
