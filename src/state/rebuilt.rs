//! A rebuilt state beside the old one, which is attached as `old`: what is different.

use rusqlite::{Connection, OptionalExtension};

use super::tables::{key, seq_of};
use super::write::read_facts;
use crate::merge::Facts;
use crate::provider::CALLBACK_EVENTS_MAX;

/// A notification or message that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differing {
    /// Its source.
    pub source: String,
    /// The platform's id.
    pub id: String,
    /// Whether it is a received message.
    pub is_message: bool,
}

/// Takes over what the old state owes. Subjects are found again by their ids: a callback that is
/// understood only now may have become the first news of one.
pub fn carry_outbox_over(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "INSERT OR REPLACE INTO main.change_row SELECT * FROM old.change_row;
         INSERT OR REPLACE INTO main.outbox_row SELECT * FROM old.outbox_row;
         UPDATE main.change_row AS c SET subject = n.key
            FROM main.notification_row AS n
            WHERE c.what IN ('status', 'complaint', 'returned-letter', 'overdue')
                AND n.id = c.subject_id AND n.source = c.source AND n.key != c.subject;
         UPDATE main.change_row AS c SET subject = m.key
            FROM main.message_row AS m
            WHERE c.what = 'message'
                AND m.id = c.subject_id AND m.source = c.source AND m.key != c.subject;
         UPDATE main.outbox_row AS o SET subject = c.subject
            FROM main.change_row AS c WHERE c.key = o.key AND c.subject != o.subject;",
    )
}

/// Everything that people read of a notification or message and that is different, in no order.
pub fn differing(connection: &Connection) -> rusqlite::Result<Vec<Differing>> {
    const NOTIFICATIONS: &str = "SELECT n.source, n.id, 0
        FROM main.notification_row AS n
        LEFT JOIN old.notification_row AS o ON o.id = n.id AND o.source = n.source
        WHERE o.key IS NULL OR (n.status, n.status_description, n.provider_response, n.reference,
            n.recipient, n.notification_type, n.template_id, n.template_version, n.created_at,
            n.sent_at, n.completed_at, n.complained_at, n.returned_at)
          IS NOT (o.status, o.status_description, o.provider_response, o.reference,
            o.recipient, o.notification_type, o.template_id, o.template_version, o.created_at,
            o.sent_at, o.completed_at, o.complained_at, o.returned_at)";
    const MESSAGES: &str = "SELECT m.source, m.id, 1
        FROM main.message_row AS m
        LEFT JOIN old.message_row AS o ON o.id = m.id AND o.source = m.source
        WHERE o.key IS NULL OR (m.source_number, m.destination_number, m.message, m.date_received)
          IS NOT (o.source_number, o.destination_number, o.message, o.date_received)";
    let mut all = Vec::new();
    for sql in [NOTIFICATIONS, MESSAGES] {
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| {
            Ok(Differing { source: row.get(0)?, id: row.get(1)?, is_message: row.get(2)? })
        })?;
        for row in rows {
            all.push(row?);
        }
    }
    Ok(all)
}

/// A key behind every change of this subject so far, and before any to come: at the far end of the
/// callback that held its newest event.
pub fn last_change_key(
    connection: &Connection,
    subject: i64,
    is_message: bool,
) -> rusqlite::Result<i64> {
    let table = if is_message { "message_history_row" } else { "history_row" };
    let newest: Option<(i64, i64)> = connection
        .prepare_cached(&format!(
            "SELECT seq, event FROM {table} WHERE subject = ?1 ORDER BY seq DESC, event DESC LIMIT 1"
        ))?
        .query_row([subject], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (seq, event) = newest.unwrap_or((seq_of(subject), 0));
    let event = usize::try_from(event).unwrap_or(0);
    Ok(key(seq, CALLBACK_EVENTS_MAX - 1 - event.min(CALLBACK_EVENTS_MAX / 2)))
}

/// What the old state knew of this notification.
pub fn old_facts(
    connection: &Connection,
    source: &str,
    id: &str,
) -> rusqlite::Result<Option<Facts>> {
    read_facts(connection, "old", source, id)
}
