//! What was told of one notification, callback by callback.
//!
//! Lines are found through the index of their notification, which is not in the order of the journal: a
//! question sorts their places, all of them, and reads those that it tells. That is a matter of milliseconds
//! for what platforms send. Its bound is the time that a question has: behind some hundred thousand callbacks
//! about one notification there is no telling.

use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;

use super::write::{some_time, time};
use crate::callback::{Fingerprint, Origin};
use crate::clock::Timestamp;

/// One line of what is known of a notification, in the order of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TimeLine {
    /// Its number in the order of arrival: one for the first.
    pub position: usize,
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

/// Up to `lines_max` callbacks about a notification behind that position, the first ones first; `None` if
/// it is not known.
///
/// # Errors
/// Of SQLite only.
pub fn time_line(
    connection: &Connection,
    source: &str,
    id: &str,
    (behind, lines_max): (usize, usize),
) -> rusqlite::Result<Option<Vec<TimeLine>>> {
    let subject: Option<i64> = connection
        .prepare_cached("SELECT key FROM notification_row WHERE id = ?1 AND source = ?2")?
        .query_row([id, source], |row| row.get(0))
        .optional()?;
    let Some(subject) = subject else { return Ok(None) };
    connection
        .prepare_cached(
            "SELECT kind, status, completed_at, received_at, duplicate, fingerprint FROM (
                SELECT seq, event FROM history_row INDEXED BY history_by_subject WHERE subject = ?1
                ORDER BY seq, event LIMIT ?2 OFFSET ?3
             ) AS place CROSS JOIN history_row AS line
                ON (line.seq, line.event) = (place.seq, place.event)
             ORDER BY place.seq, place.event",
        )?
        .query_map([subject, count(lines_max), count(behind)], read_time_line)?
        .zip(behind + 1..)
        .map(|(line, position)| line.map(|line| TimeLine { position, ..line }))
        .collect::<rusqlite::Result<Vec<_>>>()
        .map(Some)
}

fn count(lines: usize) -> i64 {
    i64::try_from(lines).unwrap_or(i64::MAX)
}

fn read_time_line(row: &Row<'_>) -> rusqlite::Result<TimeLine> {
    Ok(TimeLine {
        position: 0,
        kind: row.get(0)?,
        status: row.get(1)?,
        completed_at: time(row, 2)?,
        received_at: some_time(row, 3)?,
        duplicate: row.get(4)?,
        origin: Fingerprint(row.get(5)?).origin(),
    })
}
