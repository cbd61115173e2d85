//! The tables, and why they are as they are.
//!
//! The cost of settling is the number of random pages it touches, not the rows. So every table
//! grows at its end: a notification's `key` is the position of its first event in the journal, its
//! history is keyed by position too, and `(id, source)` is the only index whose order is random
//! (`reference` is another where references are used). Two more rules:
//!
//! - keys come from the journal alone ([`key`]), so a rebuild gives the same keys in the same order;
//! - `history_row (subject, fingerprint)` finds a duplicate and reads one notification's history;
//!   because subjects are given in order and news of one message comes close together, it grows
//!   near its end.
//!
//! The history of received messages stands in a table of its own. In a shared one, whoever follows
//! the public `history` by `seq > ?` would read all that is left of it at every look, in search of
//! the next row of the rarer kind: each arm of the view must show its first row before the view can
//! tell which of them comes first.

use rusqlite::{Connection, OptionalExtension};

use crate::provider::CALLBACK_EVENTS_MAX;
use crate::sqlite::Schema;

/// The state file.
pub const SCHEMA: Schema = Schema {
    what: "state",
    application_id: 0x7263_7073, // "rcps"
    migrations: &[
        concat!(
            state_tables!(),
            "CREATE TABLE cursor (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            journal_id TEXT,
            seq INTEGER NOT NULL
        ) STRICT;
        INSERT INTO cursor VALUES (1, NULL, 0);
        CREATE INDEX notification_by_reference ON notification_row (reference)
            WHERE reference IS NOT NULL;
        CREATE VIEW notification AS SELECT
            source, id, status, status_description, provider_response, reference, recipient,
            notification_type, template_id, template_version, created_at, sent_at, completed_at,
            complained_at, returned_at, receipts, duplicates, first_received_at, last_received_at
            FROM notification_row;
        CREATE VIEW received_message AS SELECT
            source, id, source_number, destination_number, message, date_received, received_at
            FROM message_row;
        CREATE VIEW history AS
            SELECT seq, source, id, kind, h.status AS status, h.completed_at AS completed_at,
                   h.received_at AS received_at, duplicate
            FROM history_row AS h JOIN notification_row AS n ON n.key = h.subject
            UNION ALL
            SELECT seq, source, id, kind, h.status, h.completed_at, h.received_at, duplicate
            FROM message_history_row AS h JOIN message_row AS m ON m.key = h.subject;"
        ),
        super::outbox::outbox_tables!(),
        concat!(
            super::expected::expected_table!(),
            "CREATE VIEW expected AS
            SELECT source, id, reference, deadline, since FROM expected_row;"
        ),
        super::expected::expected_overdue!(),
        // How an event came is told by its fingerprint (`Fingerprint::origin`), so that no line of
        // history is longer for it, and those of earlier versions tell it too.
        "DROP VIEW history;
        CREATE VIEW history AS
            SELECT seq, source, id, kind, h.status AS status, h.completed_at AS completed_at,
                   h.received_at AS received_at, duplicate,
                   CAST(CASE substr(h.fingerprint, 1, 8) WHEN x'0000000000000000' THEN 'polled'
                        ELSE 'called-back' END AS TEXT) AS origin
            FROM history_row AS h JOIN notification_row AS n ON n.key = h.subject
            UNION ALL
            SELECT seq, source, id, kind, h.status, h.completed_at, h.received_at, duplicate,
                   CAST(CASE substr(h.fingerprint, 1, 8) WHEN x'0000000000000000' THEN 'polled'
                        ELSE 'called-back' END AS TEXT)
            FROM message_history_row AS h JOIN message_row AS m ON m.key = h.subject;",
        super::epoch::epoch_tables!(),
        super::awaited::awaited_table!(),
    ],
};

/// What state and journal have in common, as one literal for `concat!`.
macro_rules! state_tables {
    () => {
        "CREATE TABLE notification_row (
            key INTEGER PRIMARY KEY,
            source TEXT NOT NULL,
            id TEXT NOT NULL,
            status TEXT,
            status_description TEXT,
            provider_response TEXT,
            reference TEXT,
            recipient TEXT,
            notification_type TEXT,
            template_id TEXT,
            template_version INTEGER,
            created_at TEXT,
            sent_at TEXT,
            completed_at TEXT,
            complained_at TEXT,
            returned_at TEXT,
            receipts INTEGER NOT NULL,
            duplicates INTEGER NOT NULL,
            first_received_at TEXT NOT NULL,
            last_received_at TEXT NOT NULL,
            version TEXT,
            rank INTEGER,
            fingerprint BLOB,
            UNIQUE (id, source)
        ) STRICT;
        CREATE TABLE message_row (
            key INTEGER PRIMARY KEY,
            source TEXT NOT NULL,
            id TEXT NOT NULL,
            source_number TEXT,
            destination_number TEXT,
            message TEXT,
            date_received TEXT,
            received_at TEXT NOT NULL,
            fingerprint BLOB NOT NULL,
            UNIQUE (id, source)
        ) STRICT;
        CREATE TABLE history_row (
            seq INTEGER NOT NULL,
            event INTEGER NOT NULL,
            subject INTEGER NOT NULL,
            kind TEXT NOT NULL,
            status TEXT,
            completed_at TEXT,
            received_at TEXT NOT NULL,
            duplicate INTEGER NOT NULL,
            fingerprint BLOB NOT NULL,
            PRIMARY KEY (seq, event)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX history_by_subject ON history_row (subject, fingerprint);
        CREATE TABLE message_history_row (
            seq INTEGER NOT NULL,
            event INTEGER NOT NULL,
            subject INTEGER NOT NULL,
            kind TEXT NOT NULL,
            status TEXT,
            completed_at TEXT,
            received_at TEXT NOT NULL,
            duplicate INTEGER NOT NULL,
            fingerprint BLOB NOT NULL,
            PRIMARY KEY (seq, event)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX message_history_by_subject ON message_history_row (subject, fingerprint);
        CREATE TABLE unrecognised (
            seq INTEGER PRIMARY KEY,
            source TEXT NOT NULL,
            received_at TEXT NOT NULL,
            reason TEXT NOT NULL
        ) STRICT;"
    };
}
pub(crate) use state_tables;

/// The key of whatever the `event`th event of the callback at `seq` is the first news of.
pub fn key(seq: i64, event: usize) -> i64 {
    let events_max = i64::try_from(CALLBACK_EVENTS_MAX).unwrap_or(i64::MAX);
    let event = i64::try_from(event).unwrap_or(i64::MAX);
    assert!(event < events_max, "event {event} of callback {seq} has no key");
    seq * events_max + event
}

/// The position of the callback that this key was made from.
pub fn seq_of(key: i64) -> i64 {
    key.div_euclid(i64::try_from(CALLBACK_EVENTS_MAX).unwrap_or(i64::MAX))
}

/// How far this state has settled, and which journal: `None` for a state that has seen none.
pub fn cursor(connection: &Connection) -> rusqlite::Result<(Option<String>, i64)> {
    connection
        .query_row("SELECT journal_id, seq FROM cursor", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map(|cursor| cursor.unwrap_or((None, 0)))
}

/// Position and arrival, as they stand there, of the newest callback up to `through` that this state has a
/// line about; `None` if there is none.
pub fn newest_line(
    connection: &Connection,
    through: i64,
) -> rusqlite::Result<Option<(i64, String)>> {
    newest_between(connection, i64::MIN, through)
}

/// The arrival of the callback at that position, if there is a line about it.
pub fn arrival(connection: &Connection, seq: i64) -> rusqlite::Result<Option<String>> {
    Ok(newest_between(connection, seq, seq)?.map(|(_, received_at)| received_at))
}

fn newest_between(
    connection: &Connection,
    first: i64,
    last: i64,
) -> rusqlite::Result<Option<(i64, String)>> {
    let newest = |table: &str| {
        connection
            .prepare_cached(&format!(
                "SELECT seq, received_at FROM {table} WHERE seq BETWEEN ?1 AND ?2
                 ORDER BY seq DESC LIMIT 1"
            ))?
            .query_row([first, last], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
    };
    let lines = [newest("history_row")?, newest("message_history_row")?, newest("unrecognised")?];
    Ok(lines.into_iter().flatten().max())
}

/// Sets it, in the transaction of what it stands for.
pub fn set_cursor(connection: &Connection, journal_id: &str, seq: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE cursor SET journal_id = ?1, seq = ?2")?
        .execute((journal_id, seq))
        .map(drop)
}
