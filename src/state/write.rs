//! Rows of the state: found, added, changed. Called by settling, inside its transaction.

use rusqlite::{Connection, Error, OptionalExtension, Row, params};
use serde::Serialize;

use crate::callback::{Fingerprint, Identity, Kind, Precedence, ReceivedMessage, Standing};
use crate::clock::Timestamp;
use crate::merge::Facts;

/// A notification as it is stored: what is known, and how often it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The join of everything reported.
    pub facts: Facts,
    /// Distinct receipts.
    pub receipts: i64,
    /// Repeated callbacks, of any kind.
    pub duplicates: i64,
    /// When the first callback about it arrived.
    pub first_received_at: Timestamp,
    /// When the last one that was no duplicate arrived.
    pub last_received_at: Timestamp,
}

/// A received message as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it says. Of two that share an id, the one with the greater fingerprint.
    pub message: ReceivedMessage,
    /// Of the bytes it was read from.
    pub fingerprint: Fingerprint,
    /// When the first callback about it arrived.
    pub received_at: Timestamp,
}

/// One line of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    /// The callback's position in the journal.
    pub seq: i64,
    /// The event's position in the callback.
    pub event: i64,
    /// The key of the notification or message.
    pub subject: i64,
    /// What kind of news.
    pub kind: Kind,
    /// The status it told, if any.
    pub status: Option<String>,
    /// When that was reached, as the sender tells.
    pub completed_at: Option<Timestamp>,
    /// When the callback arrived.
    pub received_at: Timestamp,
    /// Whether an identical one came before.
    pub duplicate: bool,
    /// Of the event's bytes.
    pub fingerprint: Fingerprint,
}

/// A callback that could not be understood, or not wholly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnrecognisedRow {
    /// The callback's position in the journal.
    pub seq: i64,
    /// Its source.
    pub source: String,
    /// When it arrived.
    pub received_at: Timestamp,
    /// Why, in words without any of its values.
    pub reason: String,
}

macro_rules! notification_columns {
    () => {
        "SELECT key, status, status_description, provider_response, reference, recipient,
                notification_type, template_id, template_version, created_at, sent_at,
                completed_at, complained_at, returned_at, receipts, duplicates,
                first_received_at, last_received_at, version, rank, fingerprint"
    };
}

/// The notification of that source and id, with its key.
pub fn find_notification(
    connection: &Connection,
    source: &str,
    id: &str,
) -> rusqlite::Result<Option<(i64, Notification)>> {
    connection
        .prepare_cached(concat!(
            notification_columns!(),
            " FROM notification_row WHERE id = ?1 AND source = ?2"
        ))?
        .query_row([id, source], |row| Ok((row.get(0)?, read_notification(row)?)))
        .optional()
}

/// What the tables of `schema`, an attached database, know of that notification.
pub(super) fn read_facts(
    connection: &Connection,
    schema: &str,
    source: &str,
    id: &str,
) -> rusqlite::Result<Option<Facts>> {
    let columns = notification_columns!();
    connection
        .prepare_cached(&format!(
            "{columns} FROM {schema}.notification_row WHERE id = ?1 AND source = ?2"
        ))?
        .query_row([id, source], |row| read_notification(row).map(|known| known.facts))
        .optional()
}

fn read_notification(row: &Row<'_>) -> rusqlite::Result<Notification> {
    let standing = match row.get::<_, Option<String>>(1)? {
        None => None,
        Some(status) => Some(Standing {
            precedence: Precedence {
                version: time(row, 18)?,
                rank: row.get(19)?,
                fingerprint: Fingerprint(row.get(20)?),
            },
            status,
            status_description: row.get(2)?,
            provider_response: row.get(3)?,
            completed_at: time(row, 11)?,
            sent_at: time(row, 10)?,
        }),
    };
    let identity = Identity {
        reference: row.get(4)?,
        recipient: row.get(5)?,
        notification_type: row.get(6)?,
        template_id: row.get(7)?,
        template_version: row.get(8)?,
        created_at: time(row, 9)?,
    };
    Ok(Notification {
        facts: Facts {
            standing,
            identity,
            complained_at: time(row, 12)?,
            returned_at: time(row, 13)?,
        },
        receipts: row.get(14)?,
        duplicates: row.get(15)?,
        first_received_at: some_time(row, 16)?,
        last_received_at: some_time(row, 17)?,
    })
}

const ADD_NOTIFICATION: &str = "INSERT INTO notification_row VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7,
    ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)";

const REPLACE_NOTIFICATION: &str = "UPDATE notification_row SET
    status = ?4, status_description = ?5, provider_response = ?6, reference = ?7, recipient = ?8,
    notification_type = ?9, template_id = ?10, template_version = ?11, created_at = ?12,
    sent_at = ?13, completed_at = ?14, complained_at = ?15, returned_at = ?16, receipts = ?17,
    duplicates = ?18, first_received_at = ?19, last_received_at = ?20, version = ?21, rank = ?22,
    fingerprint = ?23
    WHERE key = ?1 AND source = ?2 AND id = ?3";

/// Adds a notification, or replaces what `is_stored` under its key. Not by an upsert: beside the trigger
/// that follows changes ([`super::awaited`]), that would copy each page before it touches it, also for
/// those that are new.
pub fn put_notification(
    connection: &Connection,
    (key, is_stored): (i64, bool),
    source: &str,
    id: &str,
    notification: &Notification,
) -> rusqlite::Result<()> {
    let Notification { facts, receipts, duplicates, first_received_at, last_received_at } =
        notification;
    let Identity {
        reference,
        recipient,
        notification_type,
        template_id,
        template_version,
        created_at,
    } = &facts.identity;
    let standing = facts.standing.as_ref();
    let precedence = standing.map(|standing| &standing.precedence);
    connection
        .prepare_cached(if is_stored { REPLACE_NOTIFICATION } else { ADD_NOTIFICATION })?
        .execute(params![
            key,
            source,
            id,
            standing.map(|standing| &standing.status),
            standing.and_then(|standing| standing.status_description.as_ref()),
            standing.and_then(|standing| standing.provider_response.as_ref()),
            reference,
            recipient,
            notification_type,
            template_id,
            template_version,
            text(*created_at),
            text(standing.and_then(|standing| standing.sent_at)),
            text(standing.and_then(|standing| standing.completed_at)),
            text(facts.complained_at),
            text(facts.returned_at),
            receipts,
            duplicates,
            first_received_at.to_string(),
            last_received_at.to_string(),
            text(precedence.and_then(|precedence| precedence.version)),
            precedence.map(|precedence| precedence.rank),
            precedence.map(|precedence| precedence.fingerprint.0),
        ])
        .and_then(|rows| if rows == 1 { Ok(()) } else { Err(Error::StatementChangedRows(rows)) })
}

/// The message of that source and id, with its key.
pub fn find_message(
    connection: &Connection,
    source: &str,
    id: &str,
) -> rusqlite::Result<Option<(i64, Message)>> {
    connection
        .prepare_cached(
            "SELECT key, id, source_number, destination_number, message, date_received,
                    received_at, fingerprint
             FROM message_row WHERE id = ?1 AND source = ?2",
        )?
        .query_row([id, source], |row| {
            let message = ReceivedMessage {
                id: row.get(1)?,
                source_number: row.get(2)?,
                destination_number: row.get(3)?,
                message: row.get(4)?,
                date_received: time(row, 5)?,
            };
            let (received_at, fingerprint) = (some_time(row, 6)?, Fingerprint(row.get(7)?));
            Ok((row.get(0)?, Message { message, fingerprint, received_at }))
        })
        .optional()
}

/// Adds a message, or replaces what is stored under its key.
pub fn put_message(
    connection: &Connection,
    key: i64,
    source: &str,
    message: &Message,
) -> rusqlite::Result<()> {
    let Message { message: said, fingerprint, received_at } = message;
    connection
        .prepare_cached(
            "INSERT INTO message_row VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (key) DO UPDATE SET
                source_number = ?4, destination_number = ?5, message = ?6, date_received = ?7,
                received_at = ?8, fingerprint = ?9",
        )?
        .execute(params![
            key,
            source,
            said.id,
            said.source_number,
            said.destination_number,
            said.message,
            text(said.date_received),
            received_at.to_string(),
            fingerprint.0,
        ])
        .map(drop)
}

/// Whether an identical event about this subject is in the history; `kind` is any of its kinds.
pub fn has_seen(
    connection: &Connection,
    kind: Kind,
    subject: i64,
    fingerprint: Fingerprint,
) -> rusqlite::Result<bool> {
    let sql = match kind {
        Kind::ReceivedMessage => {
            "SELECT 1 FROM message_history_row WHERE subject = ?1 AND fingerprint = ?2"
        }
        Kind::Receipt | Kind::Complaint | Kind::ReturnedLetter => {
            "SELECT 1 FROM history_row WHERE subject = ?1 AND fingerprint = ?2"
        }
    };
    connection.prepare_cached(sql)?.exists(params![subject, fingerprint.0])
}

/// The same by the source and id of its subject; a repeat of a kept event is one of these.
pub fn has_event(
    connection: &Connection,
    kind: Kind,
    source: &str,
    id: &str,
    fingerprint: Fingerprint,
) -> rusqlite::Result<bool> {
    let sql = match kind {
        Kind::ReceivedMessage => "SELECT key FROM message_row WHERE id = ?1 AND source = ?2",
        Kind::Receipt | Kind::Complaint | Kind::ReturnedLetter => {
            "SELECT key FROM notification_row WHERE id = ?1 AND source = ?2"
        }
    };
    let mut find = connection.prepare_cached(sql)?;
    let subject = find.query_row([id, source], |row| row.get(0)).optional()?;
    subject.map_or(Ok(false), |subject| has_seen(connection, kind, subject, fingerprint))
}

/// Adds a line of history.
pub fn add_history(connection: &Connection, row: &HistoryRow) -> rusqlite::Result<()> {
    let sql = match row.kind {
        Kind::ReceivedMessage => {
            "INSERT INTO message_history_row VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
        }
        Kind::Receipt | Kind::Complaint | Kind::ReturnedLetter => {
            "INSERT INTO history_row VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
        }
    };
    connection
        .prepare_cached(sql)?
        .execute(params![
            row.seq,
            row.event,
            row.subject,
            row.kind.as_str(),
            row.status,
            text(row.completed_at),
            row.received_at.to_string(),
            row.duplicate,
            row.fingerprint.0,
        ])
        .map(drop)
}

/// Adds a callback that could not be understood.
pub fn add_unrecognised(connection: &Connection, row: &UnrecognisedRow) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO unrecognised VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![row.seq, row.source, row.received_at.to_string(), row.reason])
        .map(drop)
}

/// Copies what pruned callbacks came to from the tables of `from` into those of `to`; both are
/// schema names of attached databases. What stands there under the same key is replaced.
pub fn carry_over(connection: &Connection, from: &str, to: &str) -> rusqlite::Result<()> {
    let tables = [
        "notification_row",
        "message_row",
        "history_row",
        "message_history_row",
        "unrecognised",
        "expected_row",
    ];
    for table in tables {
        connection.execute_batch(&format!(
            "INSERT OR REPLACE INTO {to}.{table} SELECT * FROM {from}.{table}"
        ))?;
    }
    Ok(())
}

pub(super) fn text(time: Option<Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    match row.get_ref(column)?.as_str_or_null()? {
        None => Ok(None),
        Some(text) => parse(text, column).map(Some),
    }
}

pub(super) fn some_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    parse(row.get_ref(column)?.as_str()?, column)
}

fn parse(text: &str, column: usize) -> rusqlite::Result<Timestamp> {
    text.parse().map_err(|error| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
    })
}
