//! The outbox: changes owed to sinks, from the transaction that settles them until they are out.
//!
//! A change stands once in `change_row`, as long as any sink is owed it; who is owed what stands in
//! `outbox_row`, one row for each sink, in the order of commit. A row is
//!
//! - *fresh* until it is first taken, in order;
//! - *waiting* after an attempt that failed, until it is due again;
//! - *held* behind a waiting row of the same subject, so that changes of one notification stay in
//!   order;
//! - *parked* once given up, until somebody retries or discards it;
//! - gone once delivered, discarded or overtaken.
//!
//! The usual row is only ever added at the end of both tables and taken from their start. The
//! indexes hold none but the rows that something went wrong with, and those of sinks that want only
//! the latest. Queries name the index they need: without statistics SQLite prefers the primary key,
//! and looks at every row that is owed for each one that leaves.
//!
//! Here is what adds rows and what moves them on; `outbox_read` is what a dispatcher asks.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

pub use super::outbox_read::{
    count, due, first_owed, fresh, is_blocked, is_overtaken, next_due, oldest, sinks,
};
use crate::change::{Change, OwedTo};
use crate::clock::Timestamp;

/// The tables, for the state file.
macro_rules! outbox_tables {
    () => {
        "CREATE TABLE change_row (
            key INTEGER PRIMARY KEY,
            id BLOB NOT NULL,
            what TEXT NOT NULL,
            source TEXT NOT NULL,
            subject INTEGER NOT NULL,
            subject_id TEXT,
            status TEXT,
            version TEXT,
            rank INTEGER,
            fingerprint BLOB,
            received_at TEXT NOT NULL,
            data TEXT NOT NULL,
            body BLOB,
            owed INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE outbox_row (
            sink TEXT NOT NULL,
            key INTEGER NOT NULL,
            subject INTEGER NOT NULL,
            what TEXT NOT NULL,
            standing INTEGER NOT NULL,
            is_latest_only INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            due_at INTEGER,
            error TEXT,
            PRIMARY KEY (sink, key)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX outbox_blocking ON outbox_row (sink, subject, key) WHERE standing IN (1, 2);
        CREATE INDEX outbox_due ON outbox_row (sink, due_at) WHERE standing = 1;
        CREATE INDEX outbox_parked ON outbox_row (sink, key) WHERE standing = 3;
        CREATE INDEX outbox_latest ON outbox_row (sink, subject, what, key) WHERE is_latest_only = 1;"
    };
}
pub(crate) use outbox_tables;

/// What stands in the way of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Never taken yet.
    Fresh,
    /// Failed, and tried again when it is due.
    Waiting,
    /// Behind a waiting row of the same subject.
    Held,
    /// Given up, until somebody retries or discards it.
    Parked,
}

impl Standing {
    /// The number in the table.
    pub const fn number(self) -> i64 {
        match self {
            Self::Fresh => 0,
            Self::Waiting => 1,
            Self::Held => 2,
            Self::Parked => 3,
        }
    }

    pub(super) fn from_number(number: i64) -> Self {
        match number {
            1 => Self::Waiting,
            2 => Self::Held,
            3 => Self::Parked,
            _ => Self::Fresh,
        }
    }
}

/// A change that is owed to a sink. A clone shares what is large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    /// The change.
    pub change: Arc<Change>,
    /// The callback as it came, if a sink wants that.
    pub body: Option<Bytes>,
    /// How far it has got.
    pub standing: Standing,
    /// Attempts that failed.
    pub attempts: u32,
    /// Whether a newer change of the same kind and subject makes it needless.
    pub is_latest_only: bool,
}

impl Owed {
    /// What of it takes memory, in bytes: its data and the callback.
    pub fn bytes(&self) -> usize {
        self.change.data.len() + self.body.as_ref().map_or(0, Bytes::len)
    }
}

/// What became of an attempt, or of a row without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The sink has it.
    Delivered,
    /// A newer change of the same kind and subject is owed too.
    Overtaken,
    /// Tried again at that time.
    Waits {
        /// When.
        due_at: Timestamp,
        /// Why, without any value of the change.
        error: String,
    },
    /// A row of the same subject waits before it.
    Held,
    /// Given up.
    Parked {
        /// Why, without any value of the change.
        error: String,
    },
}

/// Adds what `change` owes to each of these sinks. Within the transaction that settles it.
pub fn owe(
    connection: &Connection,
    change: &Change,
    to: &[&OwedTo],
    body: Option<&[u8]>,
) -> rusqlite::Result<()> {
    let precedence = change.precedence.as_ref();
    connection
        .prepare_cached(
            "INSERT INTO change_row VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13,
                ?14)",
        )?
        .execute(params![
            change.key,
            change.id.0,
            change.what.as_str(),
            &*change.source,
            change.subject,
            change.subject_id,
            change.status,
            precedence.and_then(|precedence| precedence.version).map(|at| at.to_string()),
            precedence.map(|precedence| precedence.rank),
            precedence.map(|precedence| precedence.fingerprint.0),
            change.received_at.to_string(),
            change.data,
            body,
            i64::try_from(to.len()).unwrap_or(i64::MAX),
        ])?;
    let mut insert = connection
        .prepare_cached("INSERT INTO outbox_row VALUES (?1, ?2, ?3, ?4, 0, ?5, 0, NULL, NULL)")?;
    for owed in to {
        let what = change.what.as_str();
        insert.execute(params![
            &*owed.sink,
            change.key,
            change.subject,
            what,
            owed.is_latest_only
        ])?;
    }
    Ok(())
}

/// The same for a change without a cause of its own, in the place of one with its key that is owed
/// already: of a rebuild before this one. `sinks`: all that anything was owed to before. What that
/// one held up is due at once.
pub fn owe_instead(
    connection: &Connection,
    change: &Change,
    to: &[&OwedTo],
    sinks: &[String],
) -> rusqlite::Result<()> {
    for sink in sinks {
        remove(connection, sink, change.key, change.received_at)?;
    }
    owe(connection, change, to, None)
}

/// Writes down what became of a row. `now`: when whatever it held up is due. A row that is not there
/// any more, because somebody discarded it meanwhile, stays so: then this returns `false`. Within the
/// caller's transaction, on the settling thread.
///
/// A row that failed waits, or is held if an earlier one of its subject waits: somebody may have
/// retried one that was parked, and it goes first.
pub fn record(
    connection: &Connection,
    sink: &str,
    key: i64,
    outcome: &Outcome,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    match outcome {
        Outcome::Delivered | Outcome::Overtaken => remove(connection, sink, key, now),
        Outcome::Waits { due_at, error } => connection
            .prepare_cached(
                "UPDATE outbox_row AS o SET attempts = attempts + 1, due_at = ?3, error = ?4,
                    standing = 1 + EXISTS (
                        SELECT 1 FROM outbox_row AS b INDEXED BY outbox_blocking
                        WHERE b.sink = ?1 AND b.subject = o.subject AND b.key < ?2
                            AND b.standing IN (1, 2)
                    ) WHERE sink = ?1 AND key = ?2",
            )?
            .execute(params![sink, key, due_at.unix_micros(), error])
            .map(|rows| rows > 0),
        Outcome::Held => hold(connection, sink, key, now),
        Outcome::Parked { error } => {
            let rows = connection
                .prepare_cached(
                    "UPDATE outbox_row SET standing = 3, attempts = attempts + 1, due_at = NULL,
                        error = ?3 WHERE sink = ?1 AND key = ?2",
                )?
                .execute(params![sink, key, error])?;
            release(connection, sink, key, now)?;
            Ok(rows > 0)
        }
    }
}

/// Holds a fresh row behind the waiting one that it was found behind. If that is gone by now nobody
/// would let it go, so it waits for nothing.
fn hold(connection: &Connection, sink: &str, key: i64, now: Timestamp) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "UPDATE outbox_row AS o SET due_at = ?3, standing = 1 + EXISTS (
                SELECT 1 FROM outbox_row AS b INDEXED BY outbox_blocking
                WHERE b.sink = ?1 AND b.subject = o.subject AND b.key < ?2 AND b.standing IN (1, 2)
             ) WHERE sink = ?1 AND key = ?2 AND standing = 0",
        )?
        .execute(params![sink, key, now.unix_micros()])
        .map(|rows| rows > 0)
}

/// Removes a row, and the change with the last of its rows. Whether it was there.
pub(super) fn remove(
    connection: &Connection,
    sink: &str,
    key: i64,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    release(connection, sink, key, now)?;
    let removed = connection
        .prepare_cached("DELETE FROM outbox_row WHERE sink = ?1 AND key = ?2")?
        .execute(params![sink, key])?;
    if removed == 0 {
        return Ok(false);
    }
    let was_last = connection
        .prepare_cached("DELETE FROM change_row WHERE key = ?1 AND owed <= 1")?
        .execute([key])?;
    if was_last == 0 {
        connection
            .prepare_cached("UPDATE change_row SET owed = owed - 1 WHERE key = ?1")?
            .execute([key])?;
    }
    Ok(true)
}

/// Lets the next row of the same subject go, unless another still waits before it.
fn release(connection: &Connection, sink: &str, key: i64, now: Timestamp) -> rusqlite::Result<()> {
    let subject: Option<i64> = connection
        .prepare_cached("SELECT subject FROM outbox_row WHERE sink = ?1 AND key = ?2")?
        .query_row(params![sink, key], |row| row.get(0))
        .optional()?;
    let Some(subject) = subject else { return Ok(()) };
    let next: Option<(i64, i64)> = connection
        .prepare_cached(
            "SELECT key, standing FROM outbox_row INDEXED BY outbox_blocking
             WHERE sink = ?1 AND subject = ?2 AND key != ?3 AND standing IN (1, 2)
             ORDER BY key LIMIT 1",
        )?
        .query_row(params![sink, subject, key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((next, standing)) = next
        && standing == Standing::Held.number()
    {
        connection
            .prepare_cached(
                "UPDATE outbox_row SET standing = 1, due_at = ?3 WHERE sink = ?1 AND key = ?2",
            )?
            .execute(params![sink, next, now.unix_micros()])?;
    }
    Ok(())
}
