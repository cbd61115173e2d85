//! What someone who can read the receiver's control file may ask of it: to prune, to change what is
//! owed to sinks, to keep what a platform told, and to note how far it was asked.
//!
//! A running receiver holds the only writing connections of its files, so `receiptd prune`,
//! `receiptd outbox` and `receiptd reconcile` ask it to do the work. The key to ask with is made anew at each start and stands, with the address, in
//! a file beside the state that only the receiver's own user can read.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use subtle::ConstantTimeEq as _;

use super::{Answer, text};
use crate::ask::WAIT_MAX;
use crate::clock::{Clock, Timestamp};
use crate::journal::reader::Reader;
use crate::journal::{AskedThrough, Journal, Outcome};
use crate::reconcile::keep::{InJournal, Keep as _, Piece};
use crate::settle::prune::{Hands, Order, PruneError, Work, prune};
use crate::settle::{OnThread, Settled};
use crate::state::outbox_ask::{self, Touched, Verb, carry_out};
use crate::telemetry::Metrics;

/// Where to ask. Query: `before=<RFC 3339>` and optionally `&bodies_only`.
pub const PRUNE_PATH: &str = "/control/prune";

/// Where to ask for a change of the outbox. The body is an [`outbox_ask::Order`] as JSON.
pub const OUTBOX_PATH: &str = "/control/outbox";

/// Where to hand over what a platform told. The body is a [`Polled`] as JSON.
pub const POLLED_PATH: &str = "/control/polled";

/// Where to say what a round by hand came to. The body is an [`AskedByHand`] as JSON.
pub const ASKED_PATH: &str = "/control/asked";

/// All of them.
pub(super) const PATHS: [&str; 4] = [PRUNE_PATH, OUTBOX_PATH, POLLED_PATH, ASKED_PATH];

/// The longest order.
const ORDER_BYTES_MAX: usize = 64 << 10;

/// The most that is handed over at once, in bytes.
const POLLED_BYTES_MAX: usize = 16 << 20;

/// What a source's platform told and is news.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Polled {
    /// The source.
    pub source: String,
    /// What is to be kept.
    pub pieces: Vec<Piece>,
}

/// What a round by hand came to.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct AskedByHand {
    /// The source.
    pub source: String,
    /// What is to be noted.
    pub outcome: Outcome,
}

/// The key, and the hands to work with.
pub struct Control {
    /// Hexadecimal, as it stands in the control file.
    pub key: String,
    /// The journal's writing thread.
    pub journal: Journal,
    /// The settling thread.
    pub state: OnThread,
    /// The journal's file and the state's.
    pub files: [PathBuf; 2],
    /// Where it is counted what is owed.
    pub metrics: Arc<Metrics>,
    /// Held while somebody prunes: two at once would fold the same callbacks into the journal's tables.
    pub pruning: Arc<Mutex<()>>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("files", &self.files).finish_non_exhaustive()
    }
}

struct LiveHands {
    /// Of which state it is to be judged.
    beginnings: u64,
    settled: Settled,
    journal: Journal,
    state: OnThread,
    metrics: Arc<Metrics>,
}

impl Hands for LiveHands {
    fn on_journal(&mut self, work: Work) -> Result<i64, PruneError> {
        if self.settled.beginnings() != self.beginnings {
            return Err(PruneError::BegunAnew);
        }
        Ok(self.journal.on_writer(work).map_err(|_| PruneError::Stopped)??)
    }

    fn on_state(&mut self, work: Work) -> Result<i64, PruneError> {
        let of = (&self.settled, self.beginnings);
        let done = self.state.run_on(of, work).ok_or(PruneError::Stopped)?;
        Ok(done.ok_or(PruneError::BegunAnew)??)
    }

    fn discarded(&mut self, touched: &Touched) {
        count(&self.metrics, Verb::Discard, touched);
    }
}

impl Control {
    /// Answers a request for one of [`PATHS`].
    pub(super) async fn serve(
        &self,
        request: Request<Incoming>,
        settled: &Settled,
        clock: &Clock,
    ) -> Answer {
        if request.method() != Method::POST {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only POST\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return answer;
        }
        if !self.is_key(request.headers().get(AUTHORIZATION)) {
            return text(StatusCode::UNAUTHORIZED, "the key stands in the control file\n");
        }
        match request.uri().path() {
            OUTBOX_PATH => return self.change_outbox(request, clock.now()).await,
            POLLED_PATH => return self.keep(request, settled).await,
            ASKED_PATH => return self.note(request, settled).await,
            _ => {}
        }
        let Some(order) = request.uri().query().and_then(|query| parse_order(query, clock.now()))
        else {
            return text(StatusCode::BAD_REQUEST, "expected before=<RFC 3339>[&bodies_only]\n");
        };
        self.prune(order, settled).await
    }

    async fn prune(&self, order: Order, settled: &Settled) -> Answer {
        // What is acknowledged but not settled yet is never pruned; give it a moment.
        let committed = self.journal.progress().committed();
        let _ = tokio::time::timeout(WAIT_MAX, settled.reaches(committed)).await;
        let (journal, state) = (self.journal.clone(), self.state.clone());
        let (beginnings, settled) = (settled.beginnings(), settled.clone());
        let metrics = Arc::clone(&self.metrics);
        let mut hands = LiveHands { beginnings, settled, journal, state, metrics };
        let [journal, state] = self.files.clone();
        let pruning = Arc::clone(&self.pruning);
        let work = move || {
            // Here, not in the request: whoever hangs up does not end the work.
            let _alone = match pruning.try_lock() {
                Ok(alone) => alone,
                Err(TryLockError::Poisoned(left)) => PoisonError::into_inner(left),
                Err(TryLockError::WouldBlock) => return None,
            };
            Some(prune(order, (&journal, &state), &mut hands, |_, _| {}))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(None) => {
                let said = "it is pruning already; ask again when that is done\n";
                text(StatusCode::CONFLICT, said)
            }
            Ok(Some(Ok(pruned))) => {
                tracing::info!(
                    callbacks = pruned.callbacks,
                    subjects = pruned.subjects,
                    held_back_by_sinks = pruned.held_back_by_sinks,
                    "pruned"
                );
                json(&pruned)
            }
            Ok(Some(Err(error))) => {
                tracing::error!(%error, "pruning failed");
                text(StatusCode::INTERNAL_SERVER_ERROR, "pruning failed; see the receiver's log\n")
            }
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "pruning panicked\n"),
        }
    }

    async fn change_outbox(&self, request: Request<Incoming>, now: Timestamp) -> Answer {
        let body = Limited::new(request.into_body(), ORDER_BYTES_MAX).collect().await;
        let order = body
            .ok()
            .and_then(|body| serde_json::from_slice::<outbox_ask::Order>(&body.to_bytes()).ok());
        let Some(order) = order else {
            return text(StatusCode::BAD_REQUEST, "expected an order as JSON\n");
        };
        let (state, metrics, verb) = (self.state.clone(), Arc::clone(&self.metrics), order.verb);
        let work = move || {
            carry_out(&order, now, |step| {
                let done = state.run(step).ok_or(PruneError::Stopped)??;
                count(&metrics, verb, &done.0);
                Ok::<_, PruneError>(done)
            })
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(touched)) => {
                tell(verb, &touched);
                json(&touched)
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "changing the outbox failed");
                let said = "changing the outbox failed; see the receiver's log\n";
                text(StatusCode::INTERNAL_SERVER_ERROR, said)
            }
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "changing the outbox panicked\n"),
        }
    }

    /// Appends what a round by hand found to be news, and answers once it is settled.
    async fn keep(&self, request: Request<Incoming>, settled: &Settled) -> Answer {
        let body = Limited::new(request.into_body(), POLLED_BYTES_MAX).collect().await;
        let polled =
            body.ok().and_then(|body| serde_json::from_slice::<Polled>(&body.to_bytes()).ok());
        let Some(Polled { source, pieces }) = polled else {
            return text(StatusCode::BAD_REQUEST, "expected what was polled as JSON\n");
        };
        if !self.knows(&source).await {
            return text(StatusCode::BAD_REQUEST, "the receiver has no such source\n");
        }
        let heals: Vec<_> = pieces.iter().map(|piece| piece.heals).collect();
        let mut journal = InJournal { journal: self.journal.clone(), settled: settled.clone() };
        match journal.keep(&Arc::from(source.as_str()), pieces).await {
            Ok(()) => {
                let metrics = self.metrics.upstream(&source);
                heals.into_iter().for_each(|heals| metrics.healed(heals as usize));
                text(StatusCode::NO_CONTENT, "")
            }
            Err(error) => {
                tracing::warn!(%error, "what a platform told by hand was not kept");
                text(StatusCode::SERVICE_UNAVAILABLE, "it was not kept; see the receiver's log\n")
            }
        }
    }

    /// Notes what a round by hand came to, for the next round and for the metrics.
    async fn note(&self, request: Request<Incoming>, settled: &Settled) -> Answer {
        let body = Limited::new(request.into_body(), ORDER_BYTES_MAX).collect().await;
        let asked =
            body.ok().and_then(|body| serde_json::from_slice::<AskedByHand>(&body.to_bytes()).ok());
        let Some(AskedByHand { source, outcome }) = asked else {
            return text(StatusCode::BAD_REQUEST, "expected what a round came to as JSON\n");
        };
        if !self.knows(&source).await {
            return text(StatusCode::BAD_REQUEST, "the receiver has no such source\n");
        }
        let mut journal = InJournal { journal: self.journal.clone(), settled: settled.clone() };
        if let Err(error) = journal.note(&Arc::from(source.as_str()), outcome).await {
            tracing::warn!(%error, "what a round by hand came to was not noted");
            let said = "it was not noted; see the receiver's log\n";
            return text(StatusCode::SERVICE_UNAVAILABLE, said);
        }
        let metrics = self.metrics.upstream(&source);
        if let Some(point) = AskedThrough::all(outcome.through) {
            metrics.asked_through(point);
        }
        if let Some(succeeded_at) = outcome.succeeded_at {
            metrics.succeeded(succeeded_at);
        }
        text(StatusCode::NO_CONTENT, "")
    }

    /// Whether the journal has such a source. It is read on a thread that may wait for a disk: the one here
    /// serves all callers.
    async fn knows(&self, source: &str) -> bool {
        let (journal, source) = (self.files[0].clone(), source.to_owned());
        let look = move || {
            let known = Reader::open(&journal).ok().and_then(|reader| reader.dialects().ok());
            known.is_some_and(|known| known.contains_key(&*source))
        };
        tokio::task::spawn_blocking(look).await.unwrap_or(false)
    }

    fn is_key(&self, shown: Option<&HeaderValue>) -> bool {
        let expected = format!("Bearer {}", self.key);
        shown.is_some_and(|shown| shown.as_bytes().ct_eq(expected.as_bytes()).into())
    }
}

/// Logs what somebody had done to the outbox.
fn tell(verb: Verb, touched: &Touched) {
    let changes = touched.rows();
    match verb {
        Verb::Retry => tracing::info!(changes, "changes are tried again as asked"),
        Verb::Discard => tracing::info!(changes, "changes were discarded as asked"),
    }
}

/// Counts what was done to rows of sinks that are configured.
fn count(metrics: &Metrics, verb: Verb, touched: &Touched) {
    for (sink, rows) in &touched.sinks {
        let Some(sink) = metrics.known_sink(sink) else { continue };
        match verb {
            Verb::Retry => sink.unparked(rows.parked),
            Verb::Discard => sink.discarded(rows.parked, rows.others),
        }
    }
}

fn parse_order(query: &str, now: Timestamp) -> Option<Order> {
    let (before, bodies_only) = match query.split_once('&') {
        None => (query, false),
        Some((before, "bodies_only")) => (before, true),
        Some(_) => return None,
    };
    let before: Timestamp = before.strip_prefix("before=")?.parse().ok()?;
    Some(Order { before, bodies_only, now })
}

fn json(value: &impl serde::Serialize) -> Answer {
    // Numbers, booleans and names always serialize.
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut answer = Response::new(http_body_util::Full::new(bytes::Bytes::from(body)));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// The file beside the state that tells the receiver's own user how to ask; removed when the
/// receiver stops.
#[derive(Debug)]
pub struct ControlFile {
    path: PathBuf,
    key: String,
}

impl ControlFile {
    /// Makes a key and writes it with the admin listener's address, for the owner's eyes only.
    ///
    /// # Errors
    /// Of the file system, or if there is no randomness.
    pub fn write(state: &Path, admin: SocketAddr) -> io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::from)?;
        let key = data_encoding::HEXLOWER.encode(&bytes);
        let path = control_path(state);
        // A new file, so that the mode is ours whatever stood there.
        let _ = std::fs::remove_file(&path);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        write!(file, "http://{admin}{PRUNE_PATH}\n{key}\n")?;
        Ok(Self { path, key })
    }

    /// What a caller must show.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Where to ask, without a path, and the key to show, as a running receiver has left them at
    /// `state`.
    ///
    /// # Errors
    /// If there is no such file, it cannot be read or is not what a receiver writes.
    pub fn read(state: &Path) -> io::Result<(String, String)> {
        let text = std::fs::read_to_string(control_path(state))?;
        let mut lines = text.lines().map(str::to_owned);
        match (lines.next(), lines.next()) {
            (Some(url), Some(key)) => {
                let base = url.strip_suffix(PRUNE_PATH).unwrap_or(&url).to_owned();
                Ok((base, key))
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the control file is cut short")),
        }
    }
}

impl Drop for ControlFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Beside the real file, as the lock is: through a symbolic link it is the same receiver.
fn control_path(state: &Path) -> PathBuf {
    crate::lock::lock_path(state).with_extension("control")
}
