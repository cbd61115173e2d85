//! What a dispatcher asks of the outbox: what is owed next, and what stands in its way.
//!
//! Only reads. A look takes no more rows than it is asked for, and fewer if they are large, so that the
//! memory of a dispatcher has a bound however much is owed. [`count`] reads everything that a sink is owed,
//! and [`sinks`] all of the outbox: they are for a start.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, Rows, params};

use super::outbox::{Owed, Standing};
use super::write::{some_time, time};
use crate::callback::{Fingerprint, Precedence};
use crate::change::{Change, ChangeId, What};
use crate::clock::Timestamp;

/// The start of every query for rows with their changes; [`read_owed`] reads what it finds.
pub(super) const OWED: &str =
    "SELECT c.key, c.id, c.what, c.source, c.subject, c.subject_id, c.status, c.version,
        c.rank, c.fingerprint, c.received_at, c.data, c.body, o.standing, o.attempts,
        o.is_latest_only
     FROM outbox_row AS o JOIN change_row AS c ON c.key = o.key";

pub(super) fn read_owed(row: &Row<'_>) -> rusqlite::Result<Owed> {
    let what: String = row.get(2)?;
    let source: String = row.get(3)?;
    let precedence = match row.get::<_, Option<u8>>(8)? {
        None => None,
        Some(rank) => {
            Some(Precedence { version: time(row, 7)?, rank, fingerprint: Fingerprint(row.get(9)?) })
        }
    };
    let change = Change {
        key: row.get(0)?,
        id: ChangeId(row.get(1)?),
        // A word this version does not know was written by a newer one, which does not open here.
        what: What::from_word(&what).unwrap_or(What::Unrecognised),
        source: source.into(),
        subject: row.get(4)?,
        subject_id: row.get(5)?,
        status: row.get(6)?,
        precedence,
        received_at: some_time(row, 10)?,
        data: row.get(11)?,
    };
    Ok(Owed {
        change: Arc::new(change),
        body: row.get::<_, Option<Vec<u8>>>(12)?.map(Bytes::from),
        standing: Standing::from_number(row.get(13)?),
        attempts: row.get(14)?,
        is_latest_only: row.get(15)?,
    })
}

fn limit(rows_max: usize) -> i64 {
    i64::try_from(rows_max).unwrap_or(i64::MAX)
}

/// Bytes of bodies and data that are read at once, or little more: bounds the memory of a dispatcher.
const READ_BYTES_MAX: usize = 4 << 20;

fn read_bounded(mut rows: Rows<'_>) -> rusqlite::Result<Vec<Owed>> {
    let (mut all, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let owed = read_owed(row)?;
        bytes += owed.bytes();
        all.push(owed);
        if bytes >= READ_BYTES_MAX {
            break;
        }
    }
    Ok(all)
}

/// The first fresh rows of a sink behind `after`, in the order of commit; fewer than `rows_max` if
/// they are large.
pub fn fresh(
    connection: &Connection,
    sink: &str,
    after: i64,
    rows_max: usize,
) -> rusqlite::Result<Vec<Owed>> {
    let mut statement = connection.prepare_cached(&format!(
        "{OWED} WHERE o.sink = ?1 AND o.key > ?2 AND o.standing = 0 ORDER BY o.key LIMIT ?3"
    ))?;
    read_bounded(statement.query(params![sink, after, limit(rows_max)])?)
}

/// The waiting rows of a sink that are due at `now`, the longest due first.
pub fn due(
    connection: &Connection,
    sink: &str,
    now: Timestamp,
    rows_max: usize,
) -> rusqlite::Result<Vec<Owed>> {
    let mut statement = connection.prepare_cached(&format!(
        "{OWED} WHERE o.sink = ?1 AND o.standing = 1 AND o.due_at <= ?2
         ORDER BY o.due_at, o.key LIMIT ?3"
    ))?;
    read_bounded(statement.query(params![sink, now.unix_micros(), limit(rows_max)])?)
}

/// Where a sink stands: how many rows are owed to it and how many of them are parked. Reads all of
/// them.
pub fn count(connection: &Connection, sink: &str) -> rusqlite::Result<(i64, i64)> {
    connection.query_row(
        "SELECT count(*), count(*) FILTER (WHERE standing = 3) FROM outbox_row WHERE sink = ?1",
        [sink],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// When the cause of the oldest row arrived that is owed to a sink and not parked.
pub fn oldest(connection: &Connection, sink: &str) -> rusqlite::Result<Option<Timestamp>> {
    connection
        .prepare_cached(
            "SELECT c.received_at FROM outbox_row AS o JOIN change_row AS c ON c.key = o.key
             WHERE o.sink = ?1 AND o.standing != 3 ORDER BY o.key LIMIT 1",
        )?
        .query_row([sink], |row| some_time(row, 0))
        .optional()
}

/// The key of the first row that is owed to a sink, parked or not.
pub fn first_owed(connection: &Connection, sink: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT min(key) FROM outbox_row WHERE sink = ?1")?
        .query_row([sink], |row| row.get(0))
}

/// The sinks that anything is owed to.
pub fn sinks(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare("SELECT DISTINCT sink FROM outbox_row ORDER BY sink")?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// When the next waiting row of a sink is due that is not due at `now` yet.
pub fn next_due(
    connection: &Connection,
    sink: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<Timestamp>> {
    let micros: Option<i64> = connection
        .prepare_cached(
            "SELECT min(due_at) FROM outbox_row
             WHERE sink = ?1 AND standing = 1 AND due_at > ?2",
        )?
        .query_row(params![sink, now.unix_micros()], |row| row.get(0))?;
    Ok(micros.map(Timestamp::from_unix_micros))
}

/// Whether a row of this subject waits, or is held, for this sink before `key`.
pub fn is_blocked(
    connection: &Connection,
    sink: &str,
    subject: i64,
    key: i64,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM outbox_row INDEXED BY outbox_blocking
             WHERE sink = ?1 AND subject = ?2 AND key < ?3 AND standing IN (1, 2)",
        )?
        .exists(params![sink, subject, key])
}

/// Whether a newer change of the same kind and subject is owed to this sink.
pub fn is_overtaken(connection: &Connection, sink: &str, owed: &Change) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM outbox_row INDEXED BY outbox_latest
             WHERE sink = ?1 AND subject = ?2 AND what = ?3 AND key > ?4 AND is_latest_only = 1
                AND standing != 3",
        )?
        .exists(params![sink, owed.subject, owed.what.as_str(), owed.key])
}
