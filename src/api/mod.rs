//! What can be asked: health, metrics, whether everything acknowledged is settled, and, by readers, what
//! is known of messages ([`crate::ask`]).
//!
//! On the admin listener only, which belongs on loopback or an inner network. Whatever readers hold there, an
//! operator is answered (`places`). Nothing here changes what is kept, with two exceptions. A running receiver
//! prunes, changes what is owed to sinks, keeps what a platform told and notes what a round came to when
//! [`control`] is asked to by someone who can read its control file; and it keeps what an app says it sent, when
//! a reader says so (`POST /v1/expected`).

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::ask::{self, Ask, parse_wait};
use crate::clock::Clock;
use crate::journal::Journal;
use crate::receive::connection::Connections;
use crate::relay::Relay;
use crate::settle::Settled;
use crate::sqlite::checkpoint::wal_bytes;
use crate::telemetry::{Metrics, Snapshot};

pub mod control;

mod impatient;

mod places;

use control::Control;
use impatient::{Impatient, Patience};
use places::{Place, Places};

/// Open connections on the admin listener: the apps that read, and a handful of probes and scrapers.
const CONNECTIONS_MAX: usize = ask::ASKING_MAX + 64;

/// How many may wait at `/settled`, which asks for no key: so few that with as many readers as there may
/// be there is always a connection that can make room for a probe.
const WAITS_MAX: usize = 32;

/// How long a request's head may take, and a connection be silent between two.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// Bytes of a head: a reference to filter by may be long.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// How long a caller may take to take its answer: the largest page, of 4 MiB, one minute and a half.
const PATIENCE: Patience = Patience {
    silent_ms_max: Duration::from_secs(10),
    answer_ms_max: Duration::from_secs(30),
    bytes_per_second_min: 64 << 10,
};

/// What the admin listener answers from.
#[derive(Debug)]
pub struct Api {
    /// What makes callbacks safe.
    pub behind: Behind,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Open connections on the callback listener.
    pub connections: Arc<Connections>,
    /// The time.
    pub clock: Clock,
    /// Set from the moment that stopping begins.
    pub is_stopping: Arc<AtomicBool>,
    /// Who waits for everything to be settled.
    pub waits: Waits,
}

/// The places of those who wait at `/settled`.
#[derive(Debug)]
pub struct Waits(Semaphore);

impl Default for Waits {
    fn default() -> Self {
        Self(Semaphore::new(WAITS_MAX))
    }
}

/// What makes callbacks safe, as far as it can be asked about.
#[derive(Debug)]
pub enum Behind {
    /// Both files.
    Files(Box<Files>),
    /// Sinks alone.
    Relay(Arc<Relay>),
}

/// Where callbacks are kept.
#[derive(Debug)]
pub struct Files {
    /// How far the journal has got, and whether it still accepts.
    pub journal: Journal,
    /// How far settling has got.
    pub settled: Settled,
    /// The journal's file and the state's, for their sizes.
    pub files: [std::path::PathBuf; 2],
    /// What someone with the control file may ask for.
    pub control: Control,
    /// What readers ask.
    pub ask: Arc<Ask>,
}

type Answer = Response<Full<Bytes>>;

impl Api {
    /// Whether callbacks are accepted: not while stopping, latched or low on space. A sink or the
    /// state file being in trouble does not count: receiving goes on. Where nothing is kept, a sink
    /// counts that has not shown that it keeps.
    pub fn is_ready(&self) -> bool {
        self.not_ready_because().is_none()
    }

    fn not_ready_because(&self) -> Option<&'static str> {
        if self.is_stopping.load(Ordering::Acquire) {
            return Some("stopping\n");
        }
        match &self.behind {
            Behind::Files(files) => files.not_ready_because(),
            Behind::Relay(relay) => relay
                .not_ready_because()
                .map(|_| "a sink has not shown that it keeps what it accepts\n"),
        }
    }

    /// Serves `listener` until this future is dropped.
    pub async fn run(self: Arc<Self>, listener: TcpListener) {
        let places = Places::new(CONNECTIONS_MAX);
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            // Only now: nobody has to make room for a connection that never comes.
            let place = places.admit().await;
            tokio::spawn(Arc::clone(&self).serve_all(stream, place));
        }
    }

    /// Serves one connection until it ends, or has to make room.
    async fn serve_all(self: Arc<Self>, stream: TcpStream, place: Place) {
        let stream = Impatient::new(stream, PATIENCE, Arc::clone(&place.guest));
        let (api, guest) = (&*self, &*place.guest);
        let service = service_fn(move |request| async move {
            guest.serving();
            let mut answer = api.answer(request).await;
            let held = answer.extensions_mut().remove();
            guest.answering(matches!(answer.body(), Either::Left(_)), held);
            Ok::<_, Infallible>(answer)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%error, "an admin connection ended early");
            },
            () = guest.leaves() => {}
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<ask::Body> {
        if ask::is_asked(request.uri().path()) {
            return match &self.behind {
                Behind::Files(files) => files.ask.serve(request).await,
                Behind::Relay(_) => ask::nothing_kept(),
            };
        }
        self.serve(request).await.map(Either::Left)
    }

    async fn serve(&self, request: Request<Incoming>) -> Answer {
        if control::PATHS.contains(&request.uri().path()) {
            return match &self.behind {
                Behind::Files(files) => {
                    files.control.serve(request, &files.settled, &self.clock).await
                }
                Behind::Relay(_) => text(StatusCode::NOT_FOUND, "nothing is kept here\n"),
            };
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.not_ready_because() {
                None => text(StatusCode::OK, "ok\n"),
                Some(why) => unavailable(why),
            },
            "/settled" => self.settled(request.uri().query()).await,
            "/metrics" => self.metrics(),
            _ => text(StatusCode::NOT_FOUND, "try /livez, /readyz, /settled?wait=5s or /metrics\n"),
        }
    }

    /// 204 once everything acknowledged before this request is settled.
    async fn settled(&self, query: Option<&str>) -> Answer {
        let wait = match query.map(|query| query.strip_prefix("wait=").and_then(parse_wait)) {
            None => Duration::ZERO,
            Some(Some(wait)) => wait,
            Some(None) => {
                return text(
                    StatusCode::BAD_REQUEST,
                    "expected wait=5s or wait=500ms, up to 60s\n",
                );
            }
        };
        let Behind::Files(files) = &self.behind else {
            // Whatever was acknowledged is with the sinks.
            return text(StatusCode::NO_CONTENT, "");
        };
        let committed = files.journal.progress().committed();
        // Whoever finds no place is told how it is now.
        let place = self.waits.0.try_acquire();
        let wait = if place.is_ok() { wait } else { Duration::ZERO };
        match tokio::time::timeout(wait, files.settled.reaches(committed)).await {
            Ok(true) => text(StatusCode::NO_CONTENT, ""),
            Ok(false) | Err(_) => unavailable("not settled yet\n"),
        }
    }

    fn metrics(&self) -> Answer {
        let about = match &self.behind {
            Behind::Files(files) => files.snapshot(&self.clock),
            Behind::Relay(relay) => Snapshot { queue: relay.waiting(), ..Snapshot::default() },
        };
        let page = self.metrics.page(&Snapshot {
            connections: self.connections.count(),
            is_ready: self.is_ready(),
            ..about
        });
        let mut answer = Response::new(Full::new(Bytes::from(page)));
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        answer
    }
}

impl Files {
    fn not_ready_because(&self) -> Option<&'static str> {
        let progress = self.journal.progress();
        if progress.is_latched() || progress.is_closed() {
            Some("an I/O error stopped the journal\n")
        } else if progress.is_low_on_space() {
            Some("low on disk space\n")
        } else {
            None
        }
    }

    /// Everything that the files and their threads can tell.
    fn snapshot(&self, clock: &Clock) -> Snapshot {
        let now = clock.now();
        let lag = self
            .settled
            .owed_since()
            .map_or(0, |since| now.unix_micros().saturating_sub(since.unix_micros()).max(0));
        let folder = self.files[0].parent().filter(|folder| !folder.as_os_str().is_empty());
        Snapshot {
            queue: self.journal.waiting(),
            lag_callbacks: (self.journal.progress().committed() - self.settled.seq()).max(0),
            lag_seconds: Duration::from_micros(u64::try_from(lag).unwrap_or(0)).as_secs_f64(),
            wal_bytes: Some([wal_bytes(&self.files[0]), wal_bytes(&self.files[1])]),
            free_bytes: crate::journal::free_bytes(folder.unwrap_or(std::path::Path::new(".")))
                .ok(),
            is_settling_failing: self.settled.is_failing(),
            now: Some(now),
            ..Snapshot::default()
        }
    }
}

fn text(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    answer
}

fn unavailable(why: &'static str) -> Answer {
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, why);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}
