//! Changes as they happen: server-sent events.
//!
//! Each event is one callback that told something new, with what is known since. Its id is its cursor, so
//! a client that comes back with `Last-Event-ID` goes on where it was, and misses nothing that is still
//! kept; one that is refused is told to begin again, as in the feed ([`super::changed`]), which has no received
//! texts: those it missed stand in the platforms' own list. Without one it
//! hears of what comes from now on, and is told at once where that is: by the cursor of the last event
//! before, which is the same however much others receive.
//!
//! Nothing else on the wire tells of others. The comment that shows a silent stream alive is sent by the
//! time since this client was last sent something, not by whether anything was settled meanwhile; and a
//! stream ends where the state is begun anew, because its cursors end there too.
//!
//! A stream reads the history in short steps, as every question does, and waits for what is settled
//! between them: it holds no transaction. Between two steps a silent stream is shown alive, however much of
//! others it passes over, and what one step passed over is not read again by whoever comes back. There are
//! [`STREAMS_MAX`] of them at most. One whose client takes nothing ends after [`TAKE_MS_MAX`], and one whose
//! client has left, or whose reader is not configured any more, at its next step.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body_util::Either;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};
use rusqlite::Connection;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};

use super::changed::{Feed, LOOK_MS_MAX};
use super::fault::Fault;
use super::readers::Reader;
use super::shares::Share;
use super::silence::Silences;
use super::v1::invalid;
use super::{Answer, Ask};
use crate::state::asked::Bounds;
use crate::state::epoch::Key;
use crate::state::feed::{self, Latest, Page, Point, Position, Told};

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

/// What to do with one that is refused.
const BEGIN_AGAIN: &str = "Last-Event-ID is not a cursor of these events as they are now; begin again: \
    leave out Last-Event-ID, and read what was missed with GET /v1/notifications, from its start, and \
    received texts with GET /v2/received-text-messages";

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
    let last = last.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    let place = ask.place(&ask.following, &reader)?;
    // A power cut may have taken the state back behind what was told of it.
    let committed = ask.current().await?;
    let (of, silences) = (Arc::clone(&reader), Arc::clone(&ask.silences));
    let began = ask.pool.of(&reader.source).ask(committed, move |state| {
        let feed = Feed::of(state, &of)?;
        let Some(last) = last else { return Ok((*feed.epoch(), None, feed::end(state)?)) };
        let last = feed.point(state, &last)?;
        let last = last.ok_or_else(|| invalid(BEGIN_AGAIN.to_owned()))?;
        Ok((*feed.epoch(), Some(last), silences.end(&feed.line(true), last)))
    });
    let (epoch, seen, at) = began.await?;
    let (tell, told) = mpsc::channel(QUEUE_STEPS_MAX);
    let (ask, sent_at) = (Arc::clone(ask), Instant::now());
    let client = Client { tell, sent_at };
    tokio::spawn(Following { ask, reader, epoch, at, client, _place: place }.run(seen));
    let mut answer = Response::new(Either::Right(Stream(told)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

/// Where events are sent.
struct Client {
    tell: mpsc::Sender<Bytes>,
    /// When it was last sent anything.
    sent_at: Instant,
}

impl Client {
    /// Whether it has room for it in time.
    async fn send(&mut self, text: String) -> bool {
        self.sent_at = Instant::now();
        matches!(timeout(TAKE_MS_MAX, self.tell.send(Bytes::from(text))).await, Ok(Ok(())))
    }

    /// Whether it is still there. It is sent a comment if it was sent nothing for long.
    async fn is_there(&mut self) -> bool {
        if self.sent_at.elapsed() < SILENCE_MS_MAX {
            return !self.tell.is_closed();
        }
        self.send(": nothing new\n\n".to_owned()).await
    }
}

/// One client that follows.
struct Following {
    ask: Arc<Ask>,
    reader: Arc<Reader>,
    /// Of the state that its positions are of.
    epoch: Key,
    /// It has been told everything up to here.
    at: Position,
    client: Client,
    _place: Share,
}

impl Following {
    /// Until the client leaves, takes nothing, or nothing more can come. `seen`: the last event that the
    /// client was told, if it says so.
    async fn run(mut self, seen: Option<Point>) {
        // The head goes out at once, and the client knows how soon to come back.
        let mut is_on = self.client.send("retry: 1000\n\n".to_owned()).await;
        let seen = match seen {
            Some(seen) => Ok(seen),
            None => self.newest().await,
        };
        let Ok(mut seen) = seen else { return };
        let id = move |feed: &Feed, _: &Connection| Ok(format!("id: {}\n\n", feed.cursor(seen)));
        let Ok(id) = self.look(id).await else { return };
        is_on = is_on && self.client.send(id).await;
        let mut settled = self.ask.settled.clone();
        while is_on {
            let looked_at = Instant::now();
            let Ok((text, last, is_last)) = self.step(seen).await else { return };
            seen = last;
            is_on = text.is_empty() || self.client.send(text).await;
            if !is_last || !is_on {
                continue;
            }
            tokio::select! {
                biased;
                // The next look begins with a comment.
                () = sleep_until((self.client.sent_at + SILENCE_MS_MAX).into()) => {}
                () = self.client.tell.closed() => return,
                more = settled.changes() => is_on = more,
            }
            sleep_until((looked_at + LOOK_MS_MIN).into()).await;
        }
    }

    /// Reads the feed that this is of, while there is somebody to tell it; once more if it failed for want
    /// of time.
    async fn look<T: Send + 'static>(
        &mut self,
        read: impl Fn(&Feed, &Connection) -> Result<T, Fault> + Clone + Send + 'static,
    ) -> Result<T, Fault> {
        loop {
            if !self.client.is_there().await || !self.ask.readers().has(&self.reader) {
                return Err(Fault::Stopping);
            }
            let looked_at = Instant::now();
            let (reader, epoch, read) = (Arc::clone(&self.reader), self.epoch, read.clone());
            let read = move |state: &Connection| {
                let feed = Feed::of(state, &reader)?;
                // Nothing more is told of a state that is no more.
                if *feed.epoch() == epoch { read(&feed, state) } else { Err(Fault::Stopping) }
            };
            // Nothing is waited for: what holds less than was told here is of another epoch.
            match self.ask.pool.of(&self.reader.source).ask(0, read).await {
                Err(Fault::Busy | Fault::TooSlow) => {
                    sleep_until((looked_at + RETRY_MS).into()).await;
                }
                looked => return looked,
            }
        }
    }

    /// The last event up to where this begins; none is before the first.
    async fn newest(&mut self) -> Result<Point, Fault> {
        let (end, mut through) = (self.at, self.at);
        loop {
            let silences = Arc::clone(&self.ask.silences);
            let look = move |feed: &Feed, state: &Connection| {
                newest(state, feed, &silences, (end, through))
            };
            match self.look(look).await? {
                Ok(newest) => return Ok(newest),
                Err(looked_through) => through = looked_through,
            }
        }
    }

    /// What has happened since, as it is sent; the last event told then, and whether that was all.
    async fn step(&mut self, seen: Point) -> Result<(String, Point, bool), Fault> {
        let (at, silences) = (self.at, Arc::clone(&self.ask.silences));
        let read = move |feed: &Feed, state: &Connection| step(state, feed, &silences, (at, seen));
        let Step { text, seen, through, is_last } = self.look(read).await?;
        self.at = through;
        Ok((text, seen, is_last))
    }
}

/// What one look found.
struct Step {
    /// As it is sent.
    text: String,
    /// The last event told then.
    seen: Point,
    /// How far it got.
    through: Position,
    /// Whether that was all.
    is_last: bool,
}

/// What stands behind `at`, for a client that was told `seen` last. It is noted how far the look has got.
fn step(
    state: &Connection,
    feed: &Feed,
    silences: &Silences,
    (at, seen): (Position, Point),
) -> Result<Step, Fault> {
    let mut page = Page::begin(at, STEP);
    feed::events(state, feed.view(), &mut page)?;
    let told = page.found.iter();
    let text = told.map(|(at, told)| event(&feed.cursor(*at), told)).collect();
    let seen = page.found.last().map_or(seen, |(at, _)| *at);
    // Behind what is not told yet there is no silence.
    if !page.has_more {
        silences.note(feed.line(true), seen, page.through());
    }
    let is_last = page.is_whole() && !page.has_more;
    Ok(Step { text, seen, through: page.through(), is_last })
}

/// The last event of the feed up to `end`, looked for from `through` back; or how far back there is none.
fn newest(
    state: &Connection,
    feed: &Feed,
    silences: &Silences,
    (end, mut through): (Position, Position),
) -> Result<Result<Point, Position>, Fault> {
    let (line, began) = (feed.line(true), Instant::now());
    let (mut known, mut behind) = silences.latest(&line);
    // It may have been pruned since, or come after this client.
    if known.position > end || !feed.stands(state, known)? {
        (known, behind) = Default::default();
    }
    while began.elapsed() < LOOK_MS_MAX {
        let newest = match feed::latest(state, feed.view(), (behind, through))? {
            Latest::Found(point) => point,
            Latest::None => known,
            Latest::Through(at) => {
                through = at;
                continue;
            }
        };
        silences.note(line, newest, end);
        return Ok(Ok(newest));
    }
    Ok(Err(through))
}

/// One event, as the standard has it: the JSON is one line.
fn event(at: &str, told: &Told) -> String {
    // Texts, numbers and times always serialize.
    let data = serde_json::to_string(told).unwrap_or_default();
    format!("id: {at}\nevent: {}\ndata: {data}\n\n", told.kind)
}

#[cfg(test)]
mod tests {
    use super::super::changed::{feed, hear};
    use super::*;
    use crate::sqlite;
    use crate::state::tables::SCHEMA;

    #[test]
    fn what_one_step_passed_over_is_not_read_by_whoever_comes_back_before_the_last() {
        let state = sqlite::open_in_memory(&SCHEMA).unwrap();
        let (feed, silences) = (feed(&state, "passport"), Silences::default());
        hear(&state, "passport", 1..=1);
        hear(&state, "visa", 2..=9_000);
        let first = step(&state, &feed, &silences, Default::default()).unwrap();
        assert!(first.text.contains("\"n1\"") && !first.is_last);
        let (mut at, mut steps) = (first.through, 1);
        loop {
            // As one that comes back with the id of the last event begins.
            assert_eq!(silences.end(&feed.line(true), first.seen), at);
            let next = step(&state, &feed, &silences, (at, first.seen)).unwrap();
            assert!(next.text.is_empty() && next.through > at);
            (at, steps) = (next.through, steps + 1);
            if next.is_last {
                break;
            }
        }
        assert!(steps > 3, "{steps}");
    }

    #[tokio::test]
    async fn a_client_that_was_sent_nothing_for_long_is_sent_a_comment_and_one_that_left_is_noticed()
     {
        let (tell, mut told) = mpsc::channel(1);
        let sent_at = Instant::now().checked_sub(SILENCE_MS_MAX).unwrap();
        let mut client = Client { tell, sent_at };
        assert!(client.is_there().await);
        assert_eq!(told.recv().await.unwrap(), ": nothing new\n\n");
        assert!(client.is_there().await);
        assert!(told.try_recv().is_err(), "not again so soon");
        drop(told);
        assert!(!client.is_there().await);
    }
}
