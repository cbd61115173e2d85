//! Changes as they happen: server-sent events.
//!
//! Each event is one callback that told something new, with what is known since. Its id is its position,
//! so a client that comes back with `Last-Event-ID` goes on where it was, and misses nothing that is
//! still kept. Without one it hears of what comes from now on.
//!
//! A stream reads the history in short steps, as every question does, and waits for what is settled
//! between them: it holds no transaction. There are [`STREAMS_MAX`] of them at most. One whose client
//! takes nothing ends after [`TAKE_MS_MAX`], and one whose reader is not configured any more at its next
//! step.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body_util::Either;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{sleep_until, timeout};

use super::fault::Fault;
use super::readers::Reader;
use super::v1::{place, position};
use super::{Answer, Ask};
use crate::state::asked::Bounds;
use crate::state::feed::{self, Position, Step, Told};

/// Who may follow at once.
pub(super) const STREAMS_MAX: usize = 32;

/// Events, and bytes of text, of one step.
const STEP: Bounds = Bounds { rows_max: 100, bytes_max: 1 << 20 };

/// Steps that may wait to be taken.
const QUEUE_STEPS_MAX: usize = 2;

/// How long a client may take nothing.
const TAKE_MS_MAX: Duration = Duration::from_secs(10);

/// How often a stream looks, at most: news of others wakes it too.
const LOOK_MS_MIN: Duration = Duration::from_millis(100);

/// When to look again after a look that failed for want of time.
const RETRY_MS: Duration = Duration::from_millis(1_000);

/// After so long without an event a comment is sent, so that everybody on the way sees it alive, and we
/// see whether the client still is.
const SILENCE_MS_MAX: Duration = Duration::from_secs(15);

/// Where the client was.
const LAST_EVENT_ID: &str = "last-event-id";

/// The body of an answer whose events are yet to happen.
#[derive(Debug)]
pub struct Stream(mpsc::Receiver<Bytes>);

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Begins a stream.
pub(super) async fn answer(
    ask: &Arc<Ask>,
    reader: Arc<Reader>,
    request: &Request<Incoming>,
) -> Result<Answer, Fault> {
    super::v1::only(request.uri().query(), &[])?;
    let last = request.headers().get(LAST_EVENT_ID);
    let last = last.map(|id| position(id.to_str().unwrap_or_default(), "Last-Event-ID"));
    let last = last.transpose()?;
    let place = place(&ask.following)?;
    let from = match last {
        Some(last) => last,
        None => {
            ask.current().await?;
            ask.pool.ask(|state| Ok(feed::end(state)?)).await?
        }
    };
    let (tell, told) = mpsc::channel(QUEUE_STEPS_MAX);
    tokio::spawn(Following { ask: Arc::clone(ask), reader, at: from, tell, _place: place }.run());
    let mut answer = Response::new(Either::Right(Stream(told)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

/// One client that follows.
struct Following {
    ask: Arc<Ask>,
    reader: Arc<Reader>,
    /// It has been told everything up to here.
    at: Position,
    tell: mpsc::Sender<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Following {
    /// Until the client leaves, takes nothing, or nothing more can come.
    async fn run(mut self) {
        // The head goes out at once, and the client knows how soon to come back.
        let mut is_on = self.send(format!("retry: 1000\nid: {}\n\n", self.at)).await;
        let mut settled = self.ask.settled.clone();
        while is_on && self.ask.readers().has(&self.reader) {
            let looked_at = Instant::now();
            let (text, is_last) = match self.step().await {
                Ok(step) => step,
                Err(Fault::Busy | Fault::TooSlow) => {
                    sleep_until((looked_at + RETRY_MS).into()).await;
                    continue;
                }
                Err(_) => return,
            };
            is_on = text.is_empty() || self.send(text).await;
            if !is_last || !is_on {
                continue;
            }
            tokio::select! {
                more = settled.changes() => is_on = more,
                () = tokio::time::sleep(SILENCE_MS_MAX) => {
                    is_on = self.send(": nothing new\n\n".to_owned()).await;
                }
                () = self.tell.closed() => return,
            }
            sleep_until((looked_at + LOOK_MS_MIN).into()).await;
        }
    }

    /// What has happened since, as it is sent, and whether that was all.
    async fn step(&mut self) -> Result<(String, bool), Fault> {
        let (source, at) = (Arc::clone(&self.reader.source), self.at);
        let read = move |state: &rusqlite::Connection| {
            let Step { found, through, is_last } = feed::events(state, &source, at, STEP)?;
            let text: String = found.iter().map(|(at, told)| event(*at, told)).collect();
            Ok((text, through, is_last))
        };
        let (text, through, is_last) = self.ask.pool.ask(read).await?;
        self.at = through;
        Ok((text, is_last))
    }

    /// Whether the client has room for it in time.
    async fn send(&self, text: String) -> bool {
        matches!(timeout(TAKE_MS_MAX, self.tell.send(Bytes::from(text))).await, Ok(Ok(())))
    }
}

/// One event, as the standard has it: the JSON is one line.
fn event(at: Position, told: &Told) -> String {
    // Texts, numbers and times always serialize.
    let data = serde_json::to_string(told).unwrap_or_default();
    format!("id: {at}\nevent: {}\ndata: {data}\n\n", told.kind)
}
