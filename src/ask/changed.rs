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

#[cfg(test)]
pub(super) use tests::{feed, hear};

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

/// What a page holds, and whether there is more behind it, as far as that is known.
struct Found {
    notifications: Vec<Changed>,
    next: String,
    has_more: Option<bool>,
    /// The last of them, in the state of that epoch.
    last: Point,
    epoch: Key,
}

/// One page.
pub(super) async fn answer(
    ask: &Ask,
    reader: &Arc<Reader>,
    query: Option<&str>,
) -> Result<Response<Full<Bytes>>, Fault> {
    let cursor: Option<Arc<str>> = only(query, &["updated_after"])?.map(Arc::from);
    let committed = ask.current().await?;
    let deadline = Instant::now() + LOOKING_MS_MAX;
    let mut found: Option<Found> = None;
    loop {
        let (of, cursor) = (Arc::clone(reader), cursor.clone());
        let silences = Arc::clone(&ask.silences);
        let look = move |state: &Connection| {
            let feed = Feed::of(state, &of)?;
            match found {
                None => look(state, &feed, cursor.as_deref(), (&silences, LOOK_MS_MAX)),
                Some(found) => look_behind(state, &feed, found, (&silences, LOOK_MS_MAX)).map(Some),
            }
        };
        found = match ask.pool.of(&reader.source).ask(committed, look).await? {
            Some(Found { notifications, next, has_more: Some(has_more), .. }) => {
                return Ok(written(&Changes { notifications, next, has_more }));
            }
            _ if Instant::now() >= deadline => return Err(Fault::TooSlow),
            found => found,
        };
    }
}

/// A page, if there is something to put on it or nothing more to look at. It is noted how far the look has
/// got.
fn look(
    state: &Connection,
    feed: &Feed,
    cursor: Option<&str>,
    (silences, look_ms_max): (&Silences, Duration),
) -> Result<Option<Found>, Fault> {
    let after = match cursor {
        None => Point::default(),
        Some(text) => feed.point(state, text)?.ok_or_else(|| invalid(BEGIN_AGAIN.to_owned()))?,
    };
    let line = feed.line(false);
    let mut page = Page::begin(silences.end(&line, after), PAGE);
    gather(state, feed, &mut page, (usize::MAX, look_ms_max))?;
    let last = page.found.last().map_or(after, |(at, _)| *at);
    // Behind what is not told yet there is no silence.
    if !page.has_more {
        silences.note(line, last, page.through());
    }
    if page.found.is_empty() && !page.is_whole() {
        return Ok(None);
    }
    let has_more = page.is_whole().then_some(page.has_more);
    let changed = |(at, row)| Changed { row, cursor: feed.cursor(at) };
    let notifications = page.found.into_iter().map(changed).collect();
    Ok(Some(Found { notifications, next: feed.cursor(last), has_more, last, epoch: *feed.epoch() }))
}

/// Whether something of the source stands behind that page, where what was looked at so far behind it was of
/// others.
fn look_behind(
    state: &Connection,
    feed: &Feed,
    found: Found,
    (silences, look_ms_max): (&Silences, Duration),
) -> Result<Found, Fault> {
    if found.epoch != *feed.epoch() {
        // Another state has taken its place, and has other cursors.
        return Err(Fault::NotSettled);
    }
    let line = feed.line(false);
    let mut page = Page::begin(silences.end(&line, found.last), PAGE);
    gather(state, feed, &mut page, (1, look_ms_max))?;
    if !page.found.is_empty() {
        return Ok(Found { has_more: Some(true), ..found });
    }
    silences.note(line, found.last, page.through());
    Ok(Found { has_more: page.is_whole().then_some(false), ..found })
}

/// Looks until there are so many on the page, or all there are, or the time is over.
fn gather(
    state: &Connection,
    feed: &Feed,
    page: &mut Page<NotificationRow>,
    (enough, look_ms_max): (usize, Duration),
) -> Result<(), Fault> {
    let began = Instant::now();
    loop {
        feed::changed(state, feed.view(), page)?;
        let is_over = began.elapsed() >= look_ms_max;
        if is_over || page.is_whole() || page.found.len() >= enough {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;
    use crate::sqlite;
    use crate::state::epoch;
    use crate::state::tables::SCHEMA;

    /// Of that source, in a state that is begun here.
    pub(in super::super) fn feed(state: &Connection, source: &str) -> Feed {
        epoch::begin(state, [7; 32], "1.0.0").unwrap();
        let epoch = Epoch::of(state).unwrap().unwrap();
        let seal = Seal::new(epoch.key(), source);
        Feed { epoch, source: source.into(), seal }
    }

    /// At each of these places a new notification of that source.
    pub(in super::super) fn hear(state: &Connection, source: &str, places: RangeInclusive<i64>) {
        let rows = "WITH RECURSIVE n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)";
        let range = (places.start(), places.end());
        let heard = "INSERT INTO notification_row (key, id, source, status, receipts, duplicates,
                first_received_at, last_received_at)
            SELECT i, 'n' || i, ?3, 'sent', 1, 0, ?4, ?4 FROM n";
        let told = "INSERT INTO history_row SELECT
            i, 0, i, 'receipt', 'sent', NULL, ?3, 0, zeroblob(16) FROM n";
        let at = "2026-11-22T00:00:00.000000Z";
        let heard = state.execute(&format!("{rows} {heard}"), (range.0, range.1, source, at));
        heard.unwrap();
        state.execute(&format!("{rows} {told}"), (range.0, range.1, at)).unwrap();
    }

    #[test]
    fn that_there_is_more_is_said_of_the_readers_own_source_however_much_others_received() {
        let state = sqlite::open_in_memory(&SCHEMA).unwrap();
        let feed = feed(&state, "passport");
        hear(&state, "passport", 1..=1);
        hear(&state, "visa", 2..=9_000);
        // As if one look had time for one step.
        let silences = Silences::default();
        let in_steps = (&silences, Duration::ZERO);
        let page = || {
            let mut found = look(&state, &feed, None, in_steps).unwrap().unwrap();
            assert_eq!(found.has_more, None, "what was looked at is of others");
            for looks in 0.. {
                if let Some(has_more) = found.has_more {
                    return (found.notifications.len(), has_more, looks);
                }
                found = look_behind(&state, &feed, found, in_steps).unwrap();
            }
            unreachable!()
        };
        let (rows, has_more, looks) = page();
        assert_eq!((rows, has_more), (1, false));
        assert!(looks > 2, "{looks}");
        let (.., looks) = page();
        assert_eq!(looks, 1, "what others received is passed over once");
        hear(&state, "passport", 9_001..=9_001);
        assert_eq!(page(), (1, true, 1));
    }
}
