//! What has changed since a position in the journal, for those who follow it.
//!
//! A callback's place in the journal never changes, and places are settled in their order. So whoever
//! has seen everything up to a [`Position`] misses nothing by going on from there, however much is
//! written meanwhile. Repeats change nothing and are passed over.
//!
//! A step reads a bounded number of lines of history, whoever they are of: where one source is silent
//! among others that are not, a step may tell nothing and only get further.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;

use super::asked::Bounds;
use super::rows::{MessageRow, NotificationRow};
use super::tables::{cursor, key, seq_of};
use super::write::{some_time, time};
use crate::callback::{Fingerprint, Kind, Origin};
use crate::clock::Timestamp;

/// Lines of history that one step looks at.
const LINES_MAX: i64 = 2_000;

/// A place in the history: that of an event, in the order of the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(i64);

/// The most digits of a position's text: any number of so many is one.
const DIGITS_MAX: usize = 18;

impl Position {
    fn of(seq: i64, event: i64) -> Self {
        Self(key(seq, usize::try_from(event).unwrap_or_default()))
    }

    fn seq(self) -> i64 {
        seq_of(self.0)
    }

    fn event(self) -> i64 {
        self.0 - key(self.seq(), 0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for Position {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a position that was told before")]
pub struct NotAPosition;

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let is_number = text.len() <= DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_number.then(|| text.parse().ok()).flatten();
        number.map(Self).ok_or(NotAPosition)
    }
}

/// Some of what has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<T> {
    /// In the order of the journal.
    pub found: Vec<(Position, T)>,
    /// Where to go on.
    pub through: Position,
    /// Whether that was everything there is.
    pub is_last: bool,
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
}

/// Everything settled so far is at or before this.
pub fn end(connection: &Connection) -> rusqlite::Result<Position> {
    let (_, seq) = cursor(connection)?;
    Ok(Position(key(seq + 1, 0) - 1))
}

/// The notifications of a source that changed behind `after`, each once, where it changed last.
///
/// # Errors
/// Of SQLite only.
pub fn changed(
    connection: &Connection,
    source: &str,
    after: Position,
    bounds: Bounds,
) -> rusqlite::Result<Step<NotificationRow>> {
    let lines = lines(connection, "history_row", after)?;
    let mut step = Step::begun(after, &lines);
    let mut last_of: HashMap<i64, Position> = HashMap::new();
    for line in lines.iter().filter(|line| !line.duplicate) {
        last_of.insert(line.subject, line.at);
    }
    let mut bytes = 0;
    for line in lines.iter().filter(|line| last_of.get(&line.subject) == Some(&line.at)) {
        let Some(row) = notification(connection, source, line.subject)? else { continue };
        if changes_later(connection, line)? {
            continue;
        }
        bytes += row.text_bytes();
        step.found.push((line.at, row));
        if step.is_full(bytes, bounds) {
            step.cut(line.at, &lines);
            break;
        }
    }
    Ok(step)
}

/// The events of a source behind `after`, of every kind.
///
/// # Errors
/// Of SQLite only.
pub fn events(
    connection: &Connection,
    source: &str,
    after: Position,
    bounds: Bounds,
) -> rusqlite::Result<Step<Told>> {
    let mut all = lines(connection, "history_row", after)?;
    all.extend(lines(connection, "message_history_row", after)?);
    all.sort_unstable_by_key(|line| line.at);
    // Each table has told its first lines, so the first of both together are right.
    all.truncate(usize::try_from(LINES_MAX).unwrap_or(usize::MAX));
    let mut step = Step::begun(after, &all);
    let mut bytes = 0;
    for line in all.iter().filter(|line| !line.duplicate) {
        let Some(told) = told(connection, source, line)? else { continue };
        bytes += told.notification.as_ref().map_or(0, NotificationRow::text_bytes)
            + told.message.as_ref().map_or(0, MessageRow::text_bytes);
        step.found.push((line.at, told));
        if step.is_full(bytes, bounds) {
            step.cut(line.at, &all);
            break;
        }
    }
    Ok(step)
}

impl<T> Step<T> {
    /// Nothing found yet; it goes as far as the lines do.
    fn begun(after: Position, lines: &[Line]) -> Self {
        let through = lines.last().map_or(after, |line| line.at);
        let is_last = i64::try_from(lines.len()).is_ok_and(|count| count < LINES_MAX);
        Self { found: Vec::new(), through, is_last }
    }

    fn is_full(&self, bytes: usize, bounds: Bounds) -> bool {
        self.found.len() >= bounds.rows_max || bytes >= bounds.bytes_max
    }

    /// Ends it there.
    fn cut(&mut self, at: Position, lines: &[Line]) {
        self.is_last &= lines.last().is_none_or(|last| last.at == at);
        self.through = at;
    }
}

fn lines(connection: &Connection, table: &str, after: Position) -> rusqlite::Result<Vec<Line>> {
    connection
        .prepare_cached(&lines_sql(table))?
        .query_map([after.seq(), after.event(), LINES_MAX], |row| {
            Ok(Line {
                at: Position::of(row.get(0)?, row.get(1)?),
                subject: row.get(2)?,
                kind: row.get(3)?,
                status: row.get(4)?,
                completed_at: time(row, 5)?,
                received_at: some_time(row, 6)?,
                duplicate: row.get(7)?,
            })
        })?
        .collect()
}

fn lines_sql(table: &str) -> String {
    format!(
        "SELECT seq, event, subject, kind, status, completed_at, received_at, duplicate
         FROM {table} WHERE (seq, event) > (?1, ?2) ORDER BY seq, event LIMIT ?3"
    )
}

/// Whether there is news of that subject behind the line.
fn changes_later(connection: &Connection, line: &Line) -> rusqlite::Result<bool> {
    connection.prepare_cached(LATER)?.exists([line.subject, line.at.seq(), line.at.event()])
}

const LATER: &str = "SELECT 1 FROM history_row INDEXED BY history_by_subject
    WHERE subject = ?1 AND (seq, event) > (?2, ?3) AND NOT duplicate LIMIT 1";

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
    let id = if line.kind == Kind::ReceivedMessage.as_str() {
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

/// One line of what is known of a notification, in the order of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TimeLine {
    /// Its place.
    pub position: Position,
    /// What kind of news.
    pub kind: String,
    /// The status it told, if any.
    pub status: Option<String>,
    /// When that was reached, as the sender tells.
    pub completed_at: Option<Timestamp>,
    /// When the callback arrived.
    pub received_at: Timestamp,
    /// Whether an identical one came before.
    pub duplicate: bool,
    /// How it came.
    pub origin: Origin,
}

/// Up to `lines_max` callbacks about a notification, the first ones first; `None` if it is not known.
///
/// # Errors
/// Of SQLite only.
pub fn time_line(
    connection: &Connection,
    source: &str,
    id: &str,
    lines_max: usize,
) -> rusqlite::Result<Option<Vec<TimeLine>>> {
    let subject: Option<i64> = connection
        .prepare_cached("SELECT key FROM notification_row WHERE id = ?1 AND source = ?2")?
        .query_row([id, source], |row| row.get(0))
        .optional()?;
    let Some(subject) = subject else { return Ok(None) };
    connection
        .prepare_cached(
            "SELECT seq, event, kind, status, completed_at, received_at, duplicate, fingerprint
             FROM history_row INDEXED BY history_by_subject WHERE subject = ?1
             ORDER BY seq, event LIMIT ?2",
        )?
        .query_map([subject, i64::try_from(lines_max).unwrap_or(i64::MAX)], read_time_line)?
        .collect::<rusqlite::Result<Vec<_>>>()
        .map(Some)
}

fn read_time_line(row: &Row<'_>) -> rusqlite::Result<TimeLine> {
    Ok(TimeLine {
        position: Position::of(row.get(0)?, row.get(1)?),
        kind: row.get(2)?,
        status: row.get(3)?,
        completed_at: time(row, 4)?,
        received_at: some_time(row, 5)?,
        duplicate: row.get(6)?,
        origin: Fingerprint(row.get(7)?).origin(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callback::ReceivedMessage;
    use crate::sqlite;
    use crate::state::tables::{SCHEMA, set_cursor};
    use crate::state::write::{
        HistoryRow, Message, Notification, add_history, put_message, put_notification,
    };

    const BOUNDS: Bounds = Bounds { rows_max: 3, bytes_max: usize::MAX };

    fn at(seq: i64) -> Timestamp {
        "2026-11-22T00:00:00Z".parse::<Timestamp>().unwrap().plus_seconds(seq)
    }

    fn state() -> Connection {
        sqlite::open_in_memory(&SCHEMA).unwrap()
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
        put_notification(state, key(subject, 0), source, &id, &notification).unwrap();
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

    /// Each change as its position in the journal and its id, step by step from `after`.
    fn follow(state: &Connection, mut after: Position) -> (Vec<(i64, String)>, Position) {
        let mut seen = Vec::new();
        loop {
            let step = changed(state, "a", after, BOUNDS).unwrap();
            assert!(step.found.len() <= BOUNDS.rows_max);
            assert!(step.through >= after);
            seen.extend(step.found.iter().map(|(at, row)| (at.seq(), row.id.clone())));
            after = step.through.to_string().parse().unwrap();
            if step.is_last {
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

    #[test]
    fn nothing_is_skipped_while_more_is_written_between_two_steps() {
        let state = state();
        for seq in 1..=5 {
            hear(&state, "a", seq, seq, false);
        }
        let first = changed(&state, "a", Position::default(), BOUNDS).unwrap();
        assert!(!first.is_last);
        // One that was told, one that was not, and a new one.
        for (seq, subject) in [(6, 2), (7, 5), (8, 8)] {
            hear(&state, "a", seq, subject, false);
        }
        let (seen, end) = follow(&state, first.through);
        let expected = [(4, "n4"), (6, "n2"), (7, "n5"), (8, "n8")];
        assert_eq!(seen, expected.map(|(seq, id)| (seq, id.to_owned())));
        assert_eq!(follow(&state, end), (vec![], end));
        hear(&state, "a", 9, 1, false);
        assert_eq!(follow(&state, end).0, [(9, "n1".to_owned())]);
    }

    #[test]
    fn a_step_among_many_of_others_tells_nothing_and_gets_further() {
        let state = state();
        for seq in 1..=LINES_MAX {
            hear(&state, "b", seq, seq, false);
        }
        hear(&state, "a", LINES_MAX + 1, LINES_MAX + 1, false);
        let step = changed(&state, "a", Position::default(), BOUNDS).unwrap();
        assert!(step.found.is_empty() && !step.is_last);
        assert_eq!(step.through.seq(), LINES_MAX);
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
        let (mut after, mut seen) = (Position::default(), Vec::new());
        loop {
            let step = events(&state, "a", after, BOUNDS).unwrap();
            seen.extend(step.found.into_iter().map(|(at, told)| (at.seq(), told.kind, told.id)));
            after = step.through;
            if step.is_last {
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
        assert_eq!(events(&state, "a", end(&state).unwrap(), BOUNDS).unwrap().found, []);
    }

    #[test]
    fn a_time_line_holds_every_callback_up_to_a_bound() {
        let state = state();
        for (seq, duplicate) in [(1, false), (3, true), (5, false)] {
            hear(&state, "a", seq, 1, duplicate);
        }
        let of = |source: &str, id: &str, lines_max| {
            let lines = time_line(&state, source, id, lines_max).unwrap();
            lines.map(|lines| {
                lines.iter().map(|line| (line.position.seq(), line.duplicate)).collect::<Vec<_>>()
            })
        };
        assert_eq!(of("a", "n1", 9), Some(vec![(1, false), (3, true), (5, false)]));
        assert_eq!(of("a", "n1", 2), Some(vec![(1, false), (3, true)]));
        assert_eq!((of("b", "n1", 9), of("a", "n2", 9)), (None, None));
    }

    #[test]
    fn a_time_line_tells_how_each_came() {
        let state = state();
        hear(&state, "a", 1, 1, false);
        hear(&state, "a", 2, 1, false);
        let polled = Fingerprint::of_polled(b"asked for").0;
        state.execute("UPDATE history_row SET fingerprint = ?1 WHERE seq = 2", [polled]).unwrap();
        let lines = time_line(&state, "a", "n1", 9).unwrap().unwrap();
        let origins: Vec<Origin> = lines.iter().map(|line| line.origin).collect();
        assert_eq!(origins, [Origin::CalledBack, Origin::Polled]);
    }

    #[test]
    fn a_position_survives_its_text_and_nothing_else_is_one() {
        let position = Position::of(7, 3);
        assert_eq!((position.seq(), position.event()), (7, 3));
        assert_eq!(position.to_string().parse(), Ok(position));
        assert!(Position::of(7, 3) < Position::of(8, 0));
        assert_eq!("9".repeat(DIGITS_MAX).parse::<Position>().map(|p| p > position), Ok(true));
        for text in ["", "-1", "+1", " 1", "1.0", "0x1", &"1".repeat(DIGITS_MAX + 1)] {
            assert_eq!(text.parse::<Position>(), Err(NotAPosition), "{text}");
        }
    }

    #[test]
    fn following_neither_scans_nor_sorts() {
        let state = state();
        let mut statements = vec![LATER.to_owned()];
        statements.extend(["history_row", "message_history_row"].map(lines_sql));
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
