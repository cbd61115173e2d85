//! The read API: what apps ask about the messages they sent, with the client library they have.
//!
//! The paths under `/v2` answer as the platform does, so that an unmodified official client only needs
//! another base URL (`v2`). Those under `/v1` are our own, for what the platforms have no words for
//! (`v1`, `changed`, `events`, `expected`). All are answered on the admin listener. In the order in which a question
//! passes:
//!
//! - `readers`: who is asking, by `token`;
//! - `query`: what for; `words` are those that the platforms use;
//! - the barrier: what was acknowledged before the question is settled first;
//! - `pool`: a few read-only connections, each question within a time;
//! - `shape`: the answer's JSON;
//! - `fault`: the one table from what is wrong to the answer.
//!
//! Promises:
//!
//! - A reader sees its own source. Whoever shows no right key is answered by what it shows alone,
//!   whatever is configured: an unknown service, a wrong key and a receiver that nobody may read from are
//!   one and the same. Who follows changes does so by a sealed [`cursor`], which tells nothing of how much
//!   others receive.
//! - An answer is current: everything acknowledged before the question is in it, also if the state is found
//!   damaged in between and settled anew. Where that takes longer than [`SETTLED_MS_MAX`] the answer is 503, which the official clients tell apart as worth
//!   another try: an old status, told as if it were the last, would be a wrong one.
//! - Nothing that is asked holds up the writer of the state or keeps the write-ahead log from being
//!   cut: a question is one short read, interrupted after `pool::QUERY_MS_MAX`, and its answer is
//!   built before the first byte of it is sent. Many that overlap leave gaps (`gap`).
//! - Whatever the readers of one source ask, those of another are answered: each source has a share of
//!   every kind of place (`shares`).
//!
//! Never: a word of a message in a log or a metric; anything that sends, or changes what is kept, but
//! for the indexes that lists are read through (`indexes`) and what an app says it sent (`expected`),
//! which goes through the journal as all news does.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde::Serialize;

use crate::clock::Clock;
use crate::config::settings::Source;
use crate::journal::Journal;
use crate::settle::{OnThread, Settled};
use crate::sqlite::checkpoint::Emptier;
use crate::state::asked::Bounds;
use crate::telemetry::Metrics;

mod readers;
mod token;

mod query;
mod words;

mod gap;
mod indexes;
mod pool;
mod shares;

mod shape;
mod v2;

pub mod cursor;
mod silence;

mod changed;
mod events;
mod expected;
mod v1;

mod fault;

pub use events::Stream;
use fault::{Fault, Voice, json_answer};
use indexes::Indexes;
use pool::Pool;
pub use query::{WAIT_MAX, parse_wait};
use readers::{Reader, Readers};
use shares::{Share, Shares};
use silence::Silences;

/// How long a question waits for what was acknowledged before it to be settled.
pub const SETTLED_MS_MAX: Duration = Duration::from_millis(2_000);

/// As many rows as the platforms put on a page, and bytes of text after which a page ends early.
const PAGE: Bounds = Bounds { rows_max: 250, bytes_max: 4 << 20 };

/// Readers that are answered at once, from the question's head until the answer is out.
pub const ASKING_MAX: usize = 192;

/// A place among them. It stands in the extensions of an answer, for whoever sends it to hold.
#[derive(Clone, Debug)]
pub struct Held(#[expect(dead_code, reason = "it is held, and dropped")] Arc<Share>);

/// What an answer's body is made of: bytes that are there, or events as they happen.
pub type Body = Either<Full<Bytes>, Stream>;

type Answer = Response<Body>;

/// What is asked from.
pub struct Parts {
    /// The state file.
    pub state: PathBuf,
    /// Where callbacks are acknowledged.
    pub journal: Journal,
    /// How far they are settled.
    pub settled: Settled,
    /// To make and drop indexes.
    pub on_thread: OnThread,
    /// Has the state's write-ahead log emptied.
    pub emptier: Emptier,
    /// The time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Answers questions.
pub struct Ask {
    readers: RwLock<Arc<Readers>>,
    journal: Journal,
    settled: Settled,
    indexes: Arc<Indexes>,
    pool: Pool,
    /// What those who follow need not look at again.
    silences: Arc<Silences>,
    /// Places of all questions.
    asking: Arc<Shares>,
    /// Places of questions that wait for news.
    waiting: Arc<Shares>,
    /// Places of those who follow events.
    following: Arc<Shares>,
    /// Places of those who say what they sent.
    saying: Arc<Shares>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask").field("readers", &self.readers()).finish_non_exhaustive()
    }
}

/// Whether it is for this room to answer what is asked there.
pub fn is_asked(path: &str) -> bool {
    let is_under = |root: &str| {
        path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    is_under("/v2") || is_under("/v1")
}

/// The answer where nothing is kept.
pub fn nothing_kept() -> Answer {
    v1::whole(Fault::NothingKept.answer(Voice::Govuk))
}

impl Ask {
    /// Ready for the readers of these sources. In a runtime.
    pub fn new(sources: &[Source], parts: Parts) -> Self {
        let Parts { state, journal, settled, on_thread, emptier, clock, metrics } = parts;
        let indexes = Indexes::new(on_thread, settled.clone());
        let ask = Self {
            readers: RwLock::default(),
            indexes: Arc::new(indexes),
            pool: Pool::new(state, settled.clone(), emptier, gap::WAL_BYTES_MAX),
            silences: Arc::default(),
            asking: Shares::new(ASKING_MAX),
            waiting: Shares::new(v1::WAITING_MAX),
            following: Shares::new(events::STREAMS_MAX),
            saying: Shares::new(expected::SAYING_MAX),
            journal,
            settled,
            clock,
            metrics,
        };
        if sources.iter().all(|source| source.readers.is_empty()) {
            ask.indexes.drop_later();
        }
        ask.replace(sources);
        ask
    }

    /// Puts the readers of these sources in the place of the old. Without any, the indexes stay until a start
    /// without one: readers may come back with the next reload. In a runtime.
    pub fn replace(&self, sources: &[Source]) {
        let readers = Arc::new(Readers::new(sources));
        if !readers.is_empty() {
            self.indexes.make_later();
        }
        self.pool.share(readers.sources());
        *self.readers.write().unwrap_or_else(PoisonError::into_inner) = readers;
    }

    /// Answers nothing more, and lets go of the state. Blocks.
    pub fn close(&self) {
        self.pool.close();
    }

    /// Answers a request for which [`is_asked`].
    pub async fn serve(self: &Arc<Self>, request: Request<Incoming>) -> Answer {
        let began = Instant::now();
        let (route, answer) = if request.uri().path().starts_with("/v2") {
            let (route, answer) = v2::answer(self, &request).await;
            (route, v1::whole(answer))
        } else {
            v1::answer(self, request).await
        };
        self.metrics.reads().answered(route, answer.status().as_u16(), began.elapsed());
        answer
    }

    fn readers(&self) -> Arc<Readers> {
        Arc::clone(&self.readers.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who is asking; else what is wrong, and in whose words to say it.
    fn reader(&self, request: &Request<Incoming>) -> Result<Arc<Reader>, (Fault, Voice)> {
        let known = self.readers().authenticate(request.headers(), self.clock.now());
        known.map_err(|fault| (fault, token::voice(request.headers())))
    }

    /// A place for that reader among those who wait, follow or say; given back when it is dropped.
    fn place(&self, shares: &Arc<Shares>, reader: &Reader) -> Result<Share, Fault> {
        shares.take(&reader.source, self.readers().sources()).ok_or(Fault::Busy)
    }

    /// The same among all who ask, for the answer to hold.
    fn hold(&self, reader: &Reader) -> Result<Held, Fault> {
        self.place(&self.asking, reader).map(|share| Held(Arc::new(share)))
    }

    /// Waits until everything acknowledged so far is settled. Up to where that is: what is read then must
    /// hold as much ([`pool::Asking::ask`]).
    async fn current(&self) -> Result<i64, Fault> {
        let committed = self.journal.progress().committed();
        match tokio::time::timeout(SETTLED_MS_MAX, self.settled.reaches(committed)).await {
            Ok(true) => Ok(committed),
            Ok(false) | Err(_) => Err(Fault::NotSettled),
        }
    }
}

/// That answer, with the place of who asked.
fn holding<B>(mut answer: Response<B>, held: Held) -> Response<B> {
    answer.extensions_mut().insert(held);
    answer
}

/// An answer of that, as JSON.
fn written(value: &impl Serialize) -> Response<Full<Bytes>> {
    // Texts, numbers and times always serialize.
    json_answer(StatusCode::OK, serde_json::to_vec(value).unwrap_or_default())
}
