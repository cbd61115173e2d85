//! The feed: what has changed since a cursor, page by page; and what pages and events have in common.
//!
//! Promises:
//!
//! - Nothing is skipped. A cursor is taken only if what it names still stands where it stood, in the
//!   state that told it; any other is refused, and the refusal says to begin again, which misses nothing
//!   either: whoever reads from the start, and puts each notification in the place of what it has under
//!   that id, comes to the same as if it had followed all along.
//! - Nothing of other sources is told. A cursor is that of the last change the reader was told, so it
//!   stays the same while only others receive; that there is more is said of the reader's own source.
//!   What others received is passed over here, in looks of [`LOOK_MS_MAX`], and noted in
//!   [`super::silence`] so that it is passed over once. Two things a reader may yet notice: an answer
//!   takes longer where there is much to pass over, and where that is more than [`LOOKING_MS_MAX`]
//!   allows it is 503 and goes on from there when it is asked again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use rusqlite::Connection;
use serde::Serialize;

use super::cursor::Seal;
use super::fault::Fault;
use super::readers::Reader;
use super::silence::{Line, Silences};
use super::v1::{invalid, only};
use super::{Ask, PAGE, written};
use crate::state::epoch::{Epoch, Key};
use crate::state::feed::{self, Page, Point};
use crate::state::read::NotificationRow;

/// How long one look takes, give or take two thousand lines of history: less than a question may read.
pub(super) const LOOK_MS_MAX: Duration = Duration::from_millis(300);

/// How long one page is looked for.
const LOOKING_MS_MAX: Duration = Duration::from_millis(2_000);

/// What to do with a cursor that is refused.
const BEGIN_AGAIN: &str = "updated_after is not a cursor of this feed as it is now; begin again: leave \
    out updated_after, and put what you read in the place of what you have under the same id";

/// What a reader's source has to tell, of the state as it is now.
pub(super) struct Feed {
    epoch: Epoch,
    source: Arc<str>,
    seal: Seal,
}

impl Feed {
    /// Of this reader's source.
    pub(super) fn of(state: &Connection, reader: &Reader) -> Result<Self, Fault> {
        // A state that was only just made is settled into in a moment.
        let epoch = Epoch::of(state)?.ok_or(Fault::NotSettled)?;
        let seal = Seal::new(epoch.key(), &reader.source);
        Ok(Self { epoch, source: Arc::clone(&reader.source), seal })
    }

    /// Which state it is of.
    pub(super) fn epoch(&self) -> &Key {
        self.epoch.key()
    }

    /// As the state asks for it.
    pub(super) fn view(&self) -> (&Epoch, &str) {
        (&self.epoch, &self.source)
    }

    /// Whose silences to look up.
    pub(super) fn line(&self, is_of_events: bool) -> Line {
        Line { epoch: *self.epoch.key(), source: Arc::clone(&self.source), is_of_events }
    }

    /// The text of that point.
    pub(super) fn cursor(&self, point: Point) -> String {
        self.seal.close(point)
    }

    /// The point of a text that was told here, if it still stands.
    pub(super) fn point(&self, state: &Connection, text: &str) -> Result<Option<Point>, Fault> {
        let Some(point) = self.seal.open(text) else { return Ok(None) };
        Ok(self.stands(state, point)?.then_some(point))
    }

    /// Whether what that point names is still there.
    pub(super) fn stands(&self, state: &Connection, point: Point) -> Result<bool, Fault> {
        Ok(feed::stands(state, &self.epoch, point)?)
    }
}

/// A notification in the feed, with where it changed last.
#[derive(Serialize)]
struct Changed {
    #[serde(flatten)]
    row: NotificationRow,
    cursor: String,
}

/// Some of what has changed.
#[derive(Serialize)]
struct Changes {
    notifications: Vec<Changed>,
    /// To be asked for next.
    next: String,
    /// Whether there is more already.
    has_more: bool,
}

/// One page.
pub(super) async fn answer(
    ask: &Ask,
    reader: &Arc<Reader>,
    query: Option<&str>,
) -> Result<Response<Full<Bytes>>, Fault> {
    let cursor: Option<Arc<str>> = only(query, &["updated_after"])?.map(Arc::from);
    ask.current().await?;
    let deadline = Instant::now() + LOOKING_MS_MAX;
    loop {
        let (of, cursor) = (Arc::clone(reader), cursor.clone());
        let silences = Arc::clone(&ask.silences);
        let look = move |state: &Connection| look(state, &of, cursor.as_deref(), &silences);
        match ask.pool.of(&reader.source).ask(look).await? {
            Some(answer) => return Ok(answer),
            None if Instant::now() >= deadline => return Err(Fault::TooSlow),
            None => {}
        }
    }
}

/// A page, if there is something to put on it or nothing more to look at; else it is noted how far the
/// look has got.
fn look(
    state: &Connection,
    reader: &Reader,
    cursor: Option<&str>,
    silences: &Silences,
) -> Result<Option<Response<Full<Bytes>>>, Fault> {
    let feed = Feed::of(state, reader)?;
    let after = match cursor {
        None => Point::default(),
        Some(text) => feed.point(state, text)?.ok_or_else(|| invalid(BEGIN_AGAIN.to_owned()))?,
    };
    let (line, began) = (feed.line(false), Instant::now());
    let mut page = Page::begin(silences.end(&line, after), PAGE);
    while !page.is_whole() && began.elapsed() < LOOK_MS_MAX {
        feed::changed(state, feed.view(), &mut page)?;
    }
    let next = page.found.last().map_or(after, |(at, _)| *at);
    // Behind what is not told yet there is no silence.
    if page.found.is_empty() || (page.is_whole() && !page.has_more) {
        silences.note(line, next, page.through());
    }
    if page.found.is_empty() && !page.is_whole() {
        return Ok(None);
    }
    let has_more = page.has_more || !page.is_whole();
    let changed = |(at, row)| Changed { row, cursor: feed.cursor(at) };
    let notifications = page.found.into_iter().map(changed).collect();
    Ok(Some(written(&Changes { notifications, next: feed.cursor(next), has_more })))
}
