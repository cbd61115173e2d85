//! The state as lines that files can hold: what `replay` prints and expectations are compared with.
//!
//! An exported notification says what a sender's callbacks came to, and nothing of when or through
//! which source they came, so that the same callbacks give the same lines on any day.

use rusqlite::{Connection, Row, params};
use serde::Serialize;

/// A settled notification. Its keys as JSON are these names in this order; both are stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SettledNotification {
    /// The provider's id.
    pub id: String,
    /// The normalised Notify word, or an unknown word as sent; `None` if no receipt told one.
    pub status: Option<String>,
    /// The provider's sentence for people.
    pub status_description: Option<String>,
    /// The provider's own words on the cause.
    pub provider_response: Option<String>,
    /// The app's own reference.
    pub reference: Option<String>,
    /// The address or number as the app typed it.
    pub recipient: Option<String>,
    /// `email`, `sms`, `letter`, …: an open set.
    pub notification_type: Option<String>,
    /// The provider's template.
    pub template_id: Option<String>,
    /// Its version.
    pub template_version: Option<i64>,
    /// When it was created at the provider.
    pub created_at: Option<String>,
    /// When it went out, as the sender tells.
    pub sent_at: Option<String>,
    /// When the status was reached, as the sender tells.
    pub completed_at: Option<String>,
    /// The first complaint: the sender's date or, where that is missing, when we heard of it.
    pub complained_at: Option<String>,
    /// When we first heard that the letter came back.
    pub returned_at: Option<String>,
    /// Distinct receipts.
    pub receipts: i64,
    /// Repeated callbacks, of any kind.
    pub duplicates: i64,
}

/// The keys of an exported notification, in their order.
pub const KEYS: [&str; 16] = [
    "id",
    "status",
    "status_description",
    "provider_response",
    "reference",
    "recipient",
    "notification_type",
    "template_id",
    "template_version",
    "created_at",
    "sent_at",
    "completed_at",
    "complained_at",
    "returned_at",
    "receipts",
    "duplicates",
];

/// Positions in the journal, and perhaps one source.
#[derive(Clone, Copy, Debug)]
pub struct Span<'s> {
    /// Callbacks after this position …
    pub after: i64,
    /// … up to and including this one.
    pub through: i64,
    /// Only those of this source, if set.
    pub source: Option<&'s str>,
}

impl Span<'static> {
    /// Everything there is.
    pub const ALL: Self = Self { after: 0, through: i64::MAX, source: None };
}

/// The notifications that callbacks of this span told about, by id and then by source; each as it
/// is now, whatever else was told about it.
pub fn notifications_told_of(
    connection: &Connection,
    span: Span<'_>,
) -> rusqlite::Result<Vec<SettledNotification>> {
    connection
        .prepare_cached(
            "SELECT id, status, status_description, provider_response, reference, recipient,
                    notification_type, template_id, template_version, created_at, sent_at,
                    completed_at, complained_at, returned_at, receipts, duplicates
             FROM notification_row
             WHERE key IN (SELECT subject FROM history_row WHERE seq > ?1 AND seq <= ?2)
               AND (?3 IS NULL OR source = ?3)
             ORDER BY id, source",
        )?
        .query_map(params![span.after, span.through, span.source], read)?
        .collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<SettledNotification> {
    Ok(SettledNotification {
        id: row.get(0)?,
        status: row.get(1)?,
        status_description: row.get(2)?,
        provider_response: row.get(3)?,
        reference: row.get(4)?,
        recipient: row.get(5)?,
        notification_type: row.get(6)?,
        template_id: row.get(7)?,
        template_version: row.get(8)?,
        created_at: row.get(9)?,
        sent_at: row.get(10)?,
        completed_at: row.get(11)?,
        complained_at: row.get(12)?,
        returned_at: row.get(13)?,
        receipts: row.get(14)?,
        duplicates: row.get(15)?,
    })
}

/// The callbacks of this span that could not be understood, or not wholly: position and reason.
pub fn unrecognised_in(
    connection: &Connection,
    span: Span<'_>,
) -> rusqlite::Result<Vec<(i64, String)>> {
    connection
        .prepare_cached(
            "SELECT seq, reason FROM unrecognised
             WHERE seq > ?1 AND seq <= ?2 AND (?3 IS NULL OR source = ?3) ORDER BY seq",
        )?
        .query_map(params![span.after, span.through, span.source], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect()
}

/// For each notification, in order of its id: the id, and the positions of the callbacks that told
/// about it.
pub fn callbacks_by_notification(
    connection: &Connection,
) -> rusqlite::Result<Vec<(String, Vec<i64>)>> {
    let mut statement = connection.prepare_cached(
        "SELECT DISTINCT n.key, n.id, h.seq
         FROM notification_row AS n JOIN history_row AS h ON h.subject = n.key
         ORDER BY n.id, n.key, h.seq",
    )?;
    let mut rows = statement.query([])?;
    let mut groups: Vec<(String, Vec<i64>)> = Vec::new();
    let mut last = None;
    while let Some(row) = rows.next()? {
        let key: i64 = row.get(0)?;
        if last != Some(key) {
            groups.push((row.get(1)?, Vec::new()));
            last = Some(key);
        }
        if let Some((_, callbacks)) = groups.last_mut() {
            callbacks.push(row.get(2)?);
        }
    }
    Ok(groups)
}
