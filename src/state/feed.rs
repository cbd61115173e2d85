//! What has changed since a point in the journal, for those who follow it.
//!
//! A callback's place in the journal never changes, and places are settled in their order. So whoever
//! has seen everything up to a [`Position`] misses nothing by going on from there, however much is
//! written meanwhile. Repeats change nothing and are passed over.
//!
//! A number outlives what it stands for; a [`Point`] does not. It holds a mark of the line that stands
//! there too, and [`stands`] says whether that line still does, of this state as it is now. Points are
//! those of lines that were told, never of another source's: what others receive moves none.
//!
//! One look reads a bounded number of lines of history, whoever they are of: where one source is silent
//! among others that are not, a look may find nothing and only get further ([`Page::through`]).

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::asked::Bounds;
use super::epoch::Epoch;
pub use super::point::{Point, Position};
use super::rows::{MessageRow, NotificationRow};
use super::tables::{cursor, key};
use super::write::{some_time, time};
use crate::callback::{Fingerprint, Kind};
use crate::clock::Timestamp;

/// Lines of history that one look reads.
const LINES_MAX: usize = 2_000;

/// Lines of the same notifications that it reads beside, to find out what changed once more behind it. One
/// notification may have been repeated without an end, and a look that took too long would be taken again and
/// again. What is not looked at counts as no change: the notification is told where it stands, as it is now,
/// and once more where it changed last. Told twice does no harm.
const LATER_LINES_MAX: usize = 20_000;

/// What is told of notifications.
const HISTORY: &str = "history_row";

/// What is told of messages from the public.
const MESSAGE_HISTORY: &str = "message_history_row";

/// Some of what has changed, gathered look by look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// In the order of the journal.
    pub found: Vec<(Point, T)>,
    /// Whether there is another behind these.
    pub has_more: bool,
    through: Position,
    is_whole: bool,
    bytes: usize,
    bounds: Bounds,
}

impl<T> Page<T> {
    /// Of what stands behind `after`.
    pub fn begin(after: Position, bounds: Bounds) -> Self {
        let (found, bytes) = (Vec::new(), 0);
        Self { found, has_more: false, through: after, is_whole: false, bytes, bounds }
    }

    /// Whether it is full, or holds all there is; else the next look goes on.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// There is nothing up to here but what was found.
    pub fn through(&self) -> Position {
        self.through
    }

    /// Adds one with so many bytes of text; `false` if it was full without it.
    fn add(&mut self, at: Point, one: T, bytes: usize) -> bool {
        let is_full =
            self.found.len() >= self.bounds.rows_max || self.bytes >= self.bounds.bytes_max;
        if let (true, Some((last, _))) = (is_full, self.found.last()) {
            (self.has_more, self.is_whole, self.through) = (true, true, last.position);
            return false;
        }
        self.bytes += bytes;
        self.found.push((at, one));
        true
    }

    /// All of these lines are dealt with.
    fn looked_at(&mut self, lines: &[Line]) {
        self.through = lines.last().map_or(self.through, |line| line.at);
        self.is_whole = lines.len() < LINES_MAX;
    }
}

/// An event as it is told to those who follow: what it said, and what is known since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// What kind of news.
    pub kind: String,
    /// Of the notification or message.
    pub id: String,
    /// The status it told, if any.
    pub status: Option<String>,
    /// When that was reached, as the sender tells.
    pub completed_at: Option<Timestamp>,
    /// When the callback arrived.
    pub received_at: Timestamp,
    /// What is known of the notification now, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notification: Option<NotificationRow>,
    /// The message, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageRow>,
}

/// A line of either history.
struct Line {
    at: Position,
    subject: i64,
    kind: String,
    status: Option<String>,
    completed_at: Option<Timestamp>,
    received_at: Timestamp,
    duplicate: bool,
    fingerprint: Fingerprint,
}

impl Line {
    const COLUMNS: &str =
        "seq, event, subject, kind, status, completed_at, received_at, duplicate, fingerprint";

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            at: Position::of(row.get(0)?, row.get(1)?),
            subject: row.get(2)?,
            kind: row.get(3)?,
            status: row.get(4)?,
            completed_at: time(row, 5)?,
            received_at: some_time(row, 6)?,
            duplicate: row.get(7)?,
            fingerprint: Fingerprint(row.get(8)?),
        })
    }

    fn is_message(&self) -> bool {
        self.kind == Kind::ReceivedMessage.as_str()
    }

    /// What ties its number down: no other callback has both its bytes and its moment, and a version
    /// that reads the same bytes otherwise is another.
    fn point(&self, epoch: &Epoch) -> Point {
        let (since, version) = epoch.settled_by(self.at.seq());
        let mut digest = Sha256::new();
        digest.update(since.to_be_bytes());
        digest.update(self.received_at.unix_micros().to_be_bytes());
        digest.update(self.fingerprint.0);
        digest.update(self.kind.as_bytes());
        digest.update([0]);
        digest.update(version.as_bytes());
        let mut mark = [0; 8];
        mark.copy_from_slice(&digest.finalize()[..8]);
        Point { position: self.at, mark }
    }
}

/// Everything settled so far is at or before this.
pub fn end(connection: &Connection) -> rusqlite::Result<Position> {
    let (_, seq) = cursor(connection)?;
    Ok(Position(key(seq + 1, 0)).before())
}

/// Whether the line of that point stands there, so that what is behind it is what its holder has not
/// seen. Before the first there is nothing to see.
///
/// # Errors
/// Of SQLite only.
pub fn stands(connection: &Connection, epoch: &Epoch, point: Point) -> rusqlite::Result<bool> {
    if point == Point::default() {
        return Ok(true);
    }
    for table in [HISTORY, MESSAGE_HISTORY] {
        let at = [point.position.seq(), point.position.event()];
        let line = connection.prepare_cached(&line_sql(table))?.query_row(at, Line::read);
        if line.optional()?.is_some_and(|line| line.point(epoch) == point) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn line_sql(table: &str) -> String {
    format!("SELECT {} FROM {table} WHERE seq = ?1 AND event = ?2", Line::COLUMNS)
}

/// The notifications of a source that changed behind what the page has gone through, each once, where
/// it changed last, as far as `LATER_LINES_MAX` goes: one look. Looks of one page belong into one
/// transaction, so that each stays once.
///
/// # Errors
/// Of SQLite only.
pub fn changed(
    connection: &Connection,
    (epoch, source): (&Epoch, &str),
    page: &mut Page<NotificationRow>,
) -> rusqlite::Result<()> {
    let lines = lines(connection, HISTORY, page.through)?;
    let mut last_of: HashMap<i64, Position> = HashMap::new();
    for line in lines.iter().filter(|line| !line.duplicate) {
        last_of.insert(line.subject, line.at);
    }
    let mut lines_left = LATER_LINES_MAX;
    for line in lines.iter().filter(|line| last_of.get(&line.subject) == Some(&line.at)) {
        let Some(row) = notification(connection, source, line.subject)? else { continue };
        if changes_later(connection, line, &mut lines_left)? {
            continue;
        }
        let bytes = row.text_bytes();
        if !page.add(line.point(epoch), row, bytes) {
            return Ok(());
        }
    }
    page.looked_at(&lines);
    Ok(())
}

/// The events of a source behind what the page has gone through, of every kind: one look.
///
/// # Errors
/// Of SQLite only.
pub fn events(
    connection: &Connection,
    (epoch, source): (&Epoch, &str),
    page: &mut Page<Told>,
) -> rusqlite::Result<()> {
    let mut all = lines(connection, HISTORY, page.through)?;
    all.extend(lines(connection, MESSAGE_HISTORY, page.through)?);
    all.sort_unstable_by_key(|line| line.at);
    // Each table has told its first lines, so the first of both together are right.
    all.truncate(LINES_MAX);
    for line in all.iter().filter(|line| !line.duplicate) {
        let Some(told) = told(connection, source, line)? else { continue };
        let bytes = told.notification.as_ref().map_or(0, NotificationRow::text_bytes)
            + told.message.as_ref().map_or(0, MessageRow::text_bytes);
        if !page.add(line.point(epoch), told, bytes) {
            return Ok(());
        }
    }
    page.looked_at(&all);
    Ok(())
}

/// How far a look back for the newest event of a source has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latest {
    /// It is that one.
    Found(Point),
    /// It is at or before this.
    Through(Position),
    /// There is none behind where the look was to end.
    None,
}

/// The newest event of a source behind `behind` and not behind `through`, of every kind: one look back.
///
/// # Errors
/// Of SQLite only.
pub fn latest(
    connection: &Connection,
    (epoch, source): (&Epoch, &str),
    (behind, through): (Position, Position),
) -> rusqlite::Result<Latest> {
    let mut all = Vec::new();
    for table in [HISTORY, MESSAGE_HISTORY] {
        let range = [behind.seq(), behind.event(), through.seq(), through.event()];
        let mut statement = connection.prepare_cached(&lines_back_sql(table))?;
        let lines = statement.query_map(range, Line::read)?;
        all.extend(lines.collect::<rusqlite::Result<Vec<_>>>()?);
    }
    all.sort_unstable_by_key(|line| std::cmp::Reverse(line.at));
    all.truncate(LINES_MAX);
    for line in all.iter().filter(|line| !line.duplicate) {
        if is_of(connection, source, line)? {
            return Ok(Latest::Found(line.point(epoch)));
        }
    }
    let first = all.last().filter(|_| all.len() == LINES_MAX);
    Ok(first.map_or(Latest::None, |line| Latest::Through(line.at.before())))
}

fn lines(connection: &Connection, table: &str, after: Position) -> rusqlite::Result<Vec<Line>> {
    connection
        .prepare_cached(&lines_sql(table))?
        .query_map([after.seq(), after.event()], Line::read)?
        .collect()
}

fn lines_sql(table: &str) -> String {
    format!(
        "SELECT {} FROM {table} WHERE (seq, event) > (?1, ?2)
         ORDER BY seq, event LIMIT {LINES_MAX}",
        Line::COLUMNS
    )
}

fn lines_back_sql(table: &str) -> String {
    format!(
        "SELECT {} FROM {table} WHERE (seq, event) > (?1, ?2) AND (seq, event) <= (?3, ?4)
         ORDER BY seq DESC, event DESC LIMIT {LINES_MAX}",
        Line::COLUMNS
    )
}

/// Whether it is told to that source.
fn is_of(connection: &Connection, source: &str, line: &Line) -> rusqlite::Result<bool> {
    let table = if line.is_message() { "message_row" } else { "notification_row" };
    connection
        .prepare_cached(&format!("SELECT 1 FROM {table} WHERE key = ?1 AND source = ?2"))?
        .exists((line.subject, source))
}

/// Whether there is news of that subject behind the line, as far as may be looked; what was read is taken off.
fn changes_later(
    connection: &Connection,
    line: &Line,
    lines_left: &mut usize,
) -> rusqlite::Result<bool> {
    let limit = i64::try_from(*lines_left).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(LATER)?;
    let mut rows = statement.query([line.subject, line.at.seq(), line.at.event(), limit])?;
    while let Some(row) = rows.next()? {
        *lines_left -= 1;
        if row.get(0)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// In the order of the index, so that nothing is sorted; the table itself is read of what is behind alone.
const LATER: &str = "SELECT CASE WHEN (seq, event) > (?2, ?3) THEN NOT duplicate ELSE 0 END
    FROM history_row INDEXED BY history_by_subject WHERE subject = ?1 LIMIT ?4";

fn notification(
    connection: &Connection,
    source: &str,
    key: i64,
) -> rusqlite::Result<Option<NotificationRow>> {
    let columns = NotificationRow::COLUMNS.join(", ");
    let sql = format!("SELECT {columns} FROM notification_row WHERE key = ?1 AND source = ?2");
    connection.prepare_cached(&sql)?.query_row((key, source), NotificationRow::read).optional()
}

fn message(
    connection: &Connection,
    source: &str,
    key: i64,
) -> rusqlite::Result<Option<MessageRow>> {
    let columns = MessageRow::COLUMNS.join(", ");
    let sql = format!("SELECT {columns} FROM message_row WHERE key = ?1 AND source = ?2");
    connection.prepare_cached(&sql)?.query_row((key, source), MessageRow::read).optional()
}

fn told(connection: &Connection, source: &str, line: &Line) -> rusqlite::Result<Option<Told>> {
    let (mut notification_row, mut message_row) = (None, None);
    let id = if line.is_message() {
        message_row = message(connection, source, line.subject)?;
        message_row.as_ref().map(|row| row.id.clone())
    } else {
        notification_row = notification(connection, source, line.subject)?;
        notification_row.as_ref().map(|row| row.id.clone())
    };
    Ok(id.map(|id| Told {
        kind: line.kind.clone(),
        id,
        status: line.status.clone(),
        completed_at: line.completed_at,
        received_at: line.received_at,
        notification: notification_row,
        message: message_row,
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::callback::{Origin, ReceivedMessage};
    use crate::sqlite;
    use crate::state::epoch;
    use crate::state::tables::{SCHEMA, set_cursor};
    use crate::state::time_line::time_line;
    use crate::state::write::{
        HistoryRow, Message, Notification, add_history, find_notification, put_message,
        put_notification,
    };

    const BOUNDS: Bounds = Bounds { rows_max: 3, bytes_max: usize::MAX };

    fn at(seq: i64) -> Timestamp {
        "2026-11-22T00:00:00Z".parse::<Timestamp>().unwrap().plus_seconds(seq)
    }

    fn state() -> Connection {
        let state = sqlite::open_in_memory(&SCHEMA).unwrap();
        epoch::begin(&state, [7; 32], "1.0.0").unwrap();
        state
    }

    fn epoch_of(state: &Connection) -> Epoch {
        Epoch::of(state).unwrap().unwrap()
    }

    fn line(state: &Connection, seq: i64, subject: i64, kind: Kind, duplicate: bool) {
        let row = HistoryRow {
            seq,
            event: 0,
            subject: key(subject, 0),
            kind,
            status: Some("sent".to_owned()),
            completed_at: None,
            received_at: at(seq),
            duplicate,
            fingerprint: Fingerprint::of(&seq.to_be_bytes()),
        };
        add_history(state, &row).unwrap();
        set_cursor(state, "journal", seq).unwrap();
    }

    /// A receipt at `seq` about the notification that was first heard of at `subject`.
    fn hear(state: &Connection, source: &str, seq: i64, subject: i64, duplicate: bool) {
        let notification = Notification {
            facts: crate::merge::Facts::default(),
            receipts: 1,
            duplicates: 0,
            first_received_at: at(subject),
            last_received_at: at(seq),
        };
        let id = format!("n{subject}");
        let key = key(subject, 0);
        let is_stored = find_notification(state, source, &id).unwrap().is_some();
        put_notification(state, (key, is_stored), source, &id, &notification).unwrap();
        line(state, seq, subject, Kind::Receipt, duplicate);
    }

    fn text(state: &Connection, seq: i64) {
        let message = ReceivedMessage {
            id: format!("m{seq}"),
            source_number: None,
            destination_number: None,
            message: Some("hello".to_owned()),
            date_received: None,
        };
        let fingerprint = Fingerprint::of(&seq.to_be_bytes());
        let message = Message { message, fingerprint, received_at: at(seq) };
        put_message(state, key(seq, 0), "a", &message).unwrap();
        line(state, seq, seq, Kind::ReceivedMessage, false);
    }

    /// A page, and how many looks it took.
    fn page(state: &Connection, after: Position) -> (Page<NotificationRow>, usize) {
        let (epoch, mut page, mut looks) = (epoch_of(state), Page::begin(after, BOUNDS), 0);
        while !page.is_whole() {
            changed(state, (&epoch, "a"), &mut page).unwrap();
            looks += 1;
        }
        assert!(page.found.len() <= BOUNDS.rows_max && page.through() >= after);
        (page, looks)
    }

    /// Each change as its position in the journal and its id, page by page from `after`.
    fn follow(state: &Connection, mut after: Position) -> (Vec<(i64, String)>, Position) {
        let mut seen = Vec::new();
        loop {
            let (page, _) = page(state, after);
            seen.extend(page.found.iter().map(|(at, row)| (at.position.seq(), row.id.clone())));
            after = page.found.last().map_or(after, |(at, _)| at.position);
            if !page.has_more {
                return (seen, after);
            }
        }
    }

    #[test]
    fn each_notification_is_told_once_where_it_changed_last() {
        let state = state();
        for (seq, subject) in [(1, 1), (2, 2), (3, 1), (4, 4), (5, 5), (6, 2), (7, 7)] {
            hear(&state, "a", seq, subject, false);
        }
        hear(&state, "b", 8, 8, false);
        hear(&state, "a", 9, 1, true);
        let expected = [(3, "n1"), (4, "n4"), (5, "n5"), (6, "n2"), (7, "n7")];
        let (seen, _) = follow(&state, Position::default());
        assert_eq!(seen, expected.map(|(seq, id)| (seq, id.to_owned())));
    }

    /// So many repeats of the notification that was first heard of at 1, behind the first.
    fn repeat(state: &Connection, times: i64) {
        let sql = "WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i <= ?1)
            INSERT INTO history_row SELECT i, 0, ?2, 'receipt', 'sent', NULL, ?3, 1, zeroblob(16) FROM n";
        state.execute(sql, (times, key(1, 0), at(2).to_string())).unwrap();
    }

    #[test]
    fn however_often_one_is_repeated_no_look_takes_longer_for_it() {
        let steps = |times| {
            let mut state = state();
            hear(&state, "a", 1, 1, false);
            repeat(&state, times);
            let hundreds = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&hundreds);
            let count = move || counted.fetch_add(1, Ordering::Relaxed) == usize::MAX;
            state.progress_handler(100, Some(count)).unwrap();
            let mut page = Page::begin(Position::default(), BOUNDS);
            changed(&state, (&epoch_of(&state), "a"), &mut page).unwrap();
            assert_eq!(page.found.len(), 1);
            hundreds.load(Ordering::Relaxed)
        };
        let of_many = i64::try_from(LATER_LINES_MAX).unwrap() + 2_000;
        assert_eq!(steps(of_many), steps(4 * of_many));
    }

    #[test]
    fn what_changed_again_behind_more_repeats_than_are_looked_at_is_told_twice_and_not_missed() {
        let state = state();
        hear(&state, "a", 1, 1, false);
        let times = i64::try_from(LATER_LINES_MAX).unwrap() + 2_000;
        repeat(&state, times);
        hear(&state, "a", times + 2, 1, false);
        let (seen, _) = follow(&state, Position::default());
        assert_eq!(seen, [(1, "n1".to_owned()), (times + 2, "n1".to_owned())]);
    }

    #[test]
    fn nothing_is_skipped_while_more_is_written_between_two_pages() {
        let state = state();
        for seq in 1..=5 {
            hear(&state, "a", seq, seq, false);
        }
        let (first, _) = page(&state, Position::default());
        assert!(first.has_more);
        // One that was told, one that was not, and a new one.
        for (seq, subject) in [(6, 2), (7, 5), (8, 8)] {
            hear(&state, "a", seq, subject, false);
        }
        let (seen, end) = follow(&state, first.found[2].0.position);
        let expected = [(4, "n4"), (6, "n2"), (7, "n5"), (8, "n8")];
        assert_eq!(seen, expected.map(|(seq, id)| (seq, id.to_owned())));
        assert_eq!(follow(&state, end), (vec![], end));
        hear(&state, "a", 9, 1, false);
        assert_eq!(follow(&state, end).0, [(9, "n1".to_owned())]);
    }

    /// Of a page that is just full, and of lines beyond it that are another's: that there is more is
    /// said of the source's own alone.
    #[test]
    fn that_there_is_more_is_said_only_of_what_is_the_sources_own() {
        let state = state();
        for seq in 1..=3 {
            hear(&state, "a", seq, seq, false);
        }
        let others = i64::try_from(LINES_MAX).unwrap() + 9;
        for seq in 4..=others {
            hear(&state, "b", seq, seq, false);
        }
        let (full, looks) = page(&state, Position::default());
        assert_eq!((full.found.len(), full.has_more, looks), (3, false, 2));
        hear(&state, "a", others + 1, 1, true);
        assert!(!page(&state, Position::default()).0.has_more, "a repeat is no change");
        hear(&state, "a", others + 2, others + 2, false);
        assert!(page(&state, Position::default()).0.has_more);
    }

    #[test]
    fn a_look_among_many_of_others_tells_nothing_and_gets_further() {
        let (state, others) = (state(), i64::try_from(LINES_MAX).unwrap());
        for seq in 1..=others {
            hear(&state, "b", seq, seq, false);
        }
        hear(&state, "a", others + 1, others + 1, false);
        let mut page = Page::begin(Position::default(), BOUNDS);
        changed(&state, (&epoch_of(&state), "a"), &mut page).unwrap();
        assert!(page.found.is_empty() && !page.is_whole());
        assert_eq!(page.through().seq(), others);
        assert_eq!(follow(&state, Position::default()).0.len(), 1);
    }

    #[test]
    fn events_of_both_histories_come_in_one_order_and_repeats_do_not() {
        let state = state();
        hear(&state, "a", 1, 1, false);
        text(&state, 2);
        hear(&state, "a", 3, 1, true);
        hear(&state, "a", 4, 1, false);
        text(&state, 5);
        hear(&state, "b", 6, 6, false);
        let (epoch, mut after, mut seen) = (epoch_of(&state), Position::default(), Vec::new());
        loop {
            let mut page = Page::begin(after, BOUNDS);
            events(&state, (&epoch, "a"), &mut page).unwrap();
            let told = page.found.iter();
            seen.extend(
                told.map(|(at, told)| (at.position.seq(), told.kind.clone(), told.id.clone())),
            );
            after = page.through();
            if page.is_whole() && !page.has_more {
                break;
            }
        }
        let expected = [
            (1, "receipt", "n1"),
            (2, "received-message", "m2"),
            (4, "receipt", "n1"),
            (5, "received-message", "m5"),
        ];
        assert_eq!(seen, expected.map(|(seq, kind, id)| (seq, kind.to_owned(), id.to_owned())));
        assert!(end(&state).unwrap() >= after);
    }

    #[test]
    fn the_newest_event_of_a_source_is_found_behind_those_of_others() {
        let state = state();
        let latest = |behind: Position| {
            let (epoch, mut through) = (epoch_of(&state), end(&state).unwrap());
            for looks in 1.. {
                match latest(&state, (&epoch, "a"), (behind, through)).unwrap() {
                    Latest::Found(point) => return Some((point.position.seq(), looks)),
                    Latest::Through(at) => through = at,
                    Latest::None => return None,
                }
            }
            unreachable!()
        };
        assert_eq!(latest(Position::default()), None);
        hear(&state, "a", 1, 1, false);
        text(&state, 2);
        assert_eq!(latest(Position::default()), Some((2, 1)));
        hear(&state, "a", 3, 1, true);
        for seq in 4..=i64::try_from(LINES_MAX).unwrap() + 9 {
            hear(&state, "b", seq, seq, false);
        }
        assert_eq!(latest(Position::default()), Some((2, 2)));
        assert_eq!(latest(Position::of(1, 0)), Some((2, 2)));
        assert_eq!(latest(Position::of(2, 0)), None, "it ends where it was to");
    }

    #[test]
    fn a_point_stands_as_long_as_its_own_line_does() {
        let state = state();
        hear(&state, "a", 1, 1, false);
        text(&state, 2);
        let told = |state: &Connection| {
            let mut page = Page::begin(Position::default(), BOUNDS);
            events(state, (&epoch_of(state), "a"), &mut page).unwrap();
            page.found.into_iter().map(|(at, _)| at).collect::<Vec<_>>()
        };
        let points = told(&state);
        let stands = |point| stands(&state, &epoch_of(&state), point).unwrap();
        assert!(points.iter().all(|point| stands(*point)));
        assert!(stands(Point::default()));
        // Another callback at the same place, the same bytes at another moment, and none at all.
        let change = |sql: &str| state.execute_batch(sql).unwrap();
        for what in [
            "fingerprint = x'00112233445566778899aabbccddeeff'",
            "received_at = '2026-11-22T00:00:01.000001Z'",
            "kind = 'complaint'",
        ] {
            change(&format!("SAVEPOINT was; UPDATE history_row SET {what}"));
            assert!(!stands(points[0]) && stands(points[1]), "{what}");
            change("ROLLBACK TO was");
        }
        change("DELETE FROM message_history_row");
        assert!(stands(points[0]) && !stands(points[1]));
    }

    /// A copy of the state alone was put back, and a version that understands more settled again what
    /// is behind it: what it found there was never told.
    #[test]
    fn a_point_does_not_stand_where_another_version_settled_its_line() {
        let (before, after) = (state(), state());
        for state in [&before, &after] {
            hear(state, "a", 1, 1, false);
        }
        epoch::begin(&after, [7; 32], "1.1.0").unwrap();
        for state in [&before, &after] {
            hear(state, "a", 2, 2, false);
        }
        let mut page = Page::begin(Position::default(), BOUNDS);
        changed(&before, (&epoch_of(&before), "a"), &mut page).unwrap();
        let stand =
            page.found.iter().map(|(at, _)| stands(&after, &epoch_of(&after), *at).unwrap());
        assert_eq!(stand.collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn a_time_line_tells_how_each_came() {
        let state = state();
        hear(&state, "a", 1, 1, false);
        hear(&state, "a", 2, 1, false);
        let polled = Fingerprint::of_polled(b"asked for").0;
        state.execute("UPDATE history_row SET fingerprint = ?1 WHERE seq = 2", [polled]).unwrap();
        let lines = time_line(&state, "a", "n1", (0, 9)).unwrap().unwrap();
        let origins: Vec<Origin> = lines.iter().map(|line| line.origin).collect();
        assert_eq!(origins, [Origin::CalledBack, Origin::Polled]);
    }

    #[test]
    fn a_time_line_holds_every_callback_up_to_a_bound_by_its_number() {
        let state = state();
        for (seq, duplicate) in [(1, false), (3, true), (5, false)] {
            hear(&state, "a", seq, 1, duplicate);
        }
        let of = |source: &str, id: &str, lines_max| {
            let lines = time_line(&state, source, id, (0, lines_max)).unwrap();
            lines.map(|lines| {
                lines.iter().map(|line| (line.position, line.duplicate)).collect::<Vec<_>>()
            })
        };
        assert_eq!(of("a", "n1", 9), Some(vec![(1, false), (2, true), (3, false)]));
        assert_eq!(of("a", "n1", 2), Some(vec![(1, false), (2, true)]));
        assert_eq!((of("b", "n1", 9), of("a", "n2", 9)), (None, None));
    }

    #[test]
    fn following_neither_scans_nor_sorts() {
        let state = state();
        let mut statements = vec![LATER.to_owned()];
        for table in [HISTORY, MESSAGE_HISTORY] {
            statements.extend([lines_sql(table), lines_back_sql(table), line_sql(table)]);
        }
        for sql in statements {
            let mut statement = state.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let unbound = vec![rusqlite::types::Value::Null; statement.parameter_count()];
            let plan: Vec<String> = statement
                .query_map(rusqlite::params_from_iter(unbound), |row| row.get(3))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            assert_eq!(plan.len(), 1, "{sql}\n{plan:?}");
            assert!(plan[0].starts_with("SEARCH"), "{sql}\n{plan:?}");
        }
    }
}
