//! The rows of PostgreSQL: what an event says, and the statement that joins it with what is there.
//!
//! Each statement is one upsert of one row, and what a row holds is the join of everything it was
//! ever told, by the rules of [`crate::merge`]: commutative, associative and idempotent, so that
//! neither order nor repetition nor the number of receivers matters.
//!
//! - The status group moves as one unit, from the side that is greater by precedence; the columns
//!   `precedence_…` keep that of the side that won.
//! - Texts and numbers: the greater, by bytes (`COLLATE "C"`), a value before none.
//! - Times: the earlier, a value before none; `last_received_at`: the later.
//!
//! Under READ COMMITTED, `ON CONFLICT` locks the row and evaluates the join on its newest version, so
//! two receivers that write the same row at once lose nothing.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Deserializer};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::event::Event;
use crate::change::What;
use crate::clock::Timestamp;

/// The tables, as they are made where they are not there.
pub const TABLES: &str = include_str!("postgres.sql");

/// Their names.
pub const TABLE_NAMES: [&str; 3] = ["notification", "received_message", "unrecognised"];

/// From 1970, where Unix time begins, to 2000, where PostgreSQL's does, in microseconds.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

const NOTIFICATION: &str = r#"
    INSERT INTO notification AS n (
        source, id, status, status_description, provider_response, reference, recipient,
        notification_type, template_id, template_version, created_at, sent_at, completed_at,
        complained_at, returned_at, first_received_at, last_received_at,
        precedence_version, precedence_rank, precedence_fingerprint)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
    ON CONFLICT (id, source) DO UPDATE SET
        (status, status_description, provider_response, sent_at, completed_at,
         precedence_version, precedence_rank, precedence_fingerprint) = (
            SELECT * FROM (VALUES
                (n.status, n.status_description, n.provider_response, n.sent_at, n.completed_at,
                 n.precedence_version, n.precedence_rank, n.precedence_fingerprint),
                (excluded.status, excluded.status_description, excluded.provider_response,
                 excluded.sent_at, excluded.completed_at, excluded.precedence_version,
                 excluded.precedence_rank, excluded.precedence_fingerprint)
            ) AS standing (status, description, response, sent, completed, version, rank, fingerprint)
            ORDER BY status IS NULL, version DESC NULLS LAST, rank DESC, fingerprint DESC,
                status COLLATE "C" DESC, description COLLATE "C" DESC NULLS LAST,
                response COLLATE "C" DESC NULLS LAST, completed DESC NULLS LAST,
                sent DESC NULLS LAST
            LIMIT 1),
        reference = greatest(n.reference COLLATE "C", excluded.reference),
        recipient = greatest(n.recipient COLLATE "C", excluded.recipient),
        notification_type = greatest(n.notification_type COLLATE "C", excluded.notification_type),
        template_id = greatest(n.template_id COLLATE "C", excluded.template_id),
        template_version = greatest(n.template_version, excluded.template_version),
        created_at = least(n.created_at, excluded.created_at),
        complained_at = least(n.complained_at, excluded.complained_at),
        returned_at = least(n.returned_at, excluded.returned_at),
        first_received_at = least(n.first_received_at, excluded.first_received_at),
        last_received_at = greatest(n.last_received_at, excluded.last_received_at)"#;

const NOTIFICATION_TYPES: [Type; 20] = [
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::INT8,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::INT2,
    Type::BYTEA,
];

const MESSAGE: &str = r#"
    INSERT INTO received_message AS m (
        source, id, source_number, destination_number, message, date_received, received_at,
        precedence_fingerprint)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (id, source) DO UPDATE SET
        (source_number, destination_number, message, date_received, precedence_fingerprint) = (
            SELECT * FROM (VALUES
                (m.source_number, m.destination_number, m.message, m.date_received,
                 m.precedence_fingerprint),
                (excluded.source_number, excluded.destination_number, excluded.message,
                 excluded.date_received, excluded.precedence_fingerprint)
            ) AS said (number, own_number, text, date, fingerprint)
            ORDER BY fingerprint DESC, number COLLATE "C" DESC NULLS LAST,
                own_number COLLATE "C" DESC NULLS LAST, text COLLATE "C" DESC NULLS LAST,
                date DESC NULLS LAST
            LIMIT 1),
        received_at = least(m.received_at, excluded.received_at)"#;

const MESSAGE_TYPES: [Type; 8] = [
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::BYTEA,
];

const UNRECOGNISED: &str = "
    INSERT INTO unrecognised AS u (change_id, source, received_at, reason)
    VALUES ($1, $2, $3, $4)
    ON CONFLICT (change_id) DO UPDATE SET
        received_at = least(u.received_at, excluded.received_at)";

const UNRECOGNISED_TYPES: [Type; 4] = [Type::TEXT, Type::TEXT, Type::TIMESTAMPTZ, Type::TEXT];

/// Which table a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Notifications.
    Notification,
    /// Text messages from the public.
    Message,
    /// Callbacks that were not understood.
    Unrecognised,
}

impl Table {
    /// The statement that joins a row with the table, and the types of its parameters.
    pub fn statement(self) -> (&'static str, &'static [Type]) {
        match self {
            Self::Notification => (NOTIFICATION, &NOTIFICATION_TYPES),
            Self::Message => (MESSAGE, &MESSAGE_TYPES),
            Self::Unrecognised => (UNRECOGNISED, &UNRECOGNISED_TYPES),
        }
    }
}

type Value = Box<dyn ToSql + Sync + Send>;

/// What one event says.
pub struct Row {
    /// Where it belongs.
    pub table: Table,
    values: Vec<Value>,
}

impl Row {
    /// Whether the tables hold what such an event says.
    pub fn is_of(event: &Event) -> bool {
        event.change.what != What::Overdue
    }

    /// Of an event. `None` if its data is not what this version writes, or if its id holds U+0000:
    /// PostgreSQL cannot hold that, and whatever stood in its place might be another's id.
    pub fn of(event: &Event) -> Option<Self> {
        let change = &event.change;
        let source: Value = Box::new(change.source.to_string());
        let id = change.subject_id.clone();
        let (table, values) = match change.what {
            What::Status | What::Complaint | What::ReturnedLetter => {
                let id = id.filter(|id| !id.contains('\0'))?;
                (Table::Notification, notification(event, source, id)?)
            }
            What::Message => {
                let id = id.filter(|id| !id.contains('\0'))?;
                (Table::Message, message(event, source, id)?)
            }
            // The tables hold states, and that time has passed is none: see `Row::is_of`.
            What::Overdue => return None,
            What::Unrecognised => {
                let data: Unrecognised = serde_json::from_str(&change.data).ok()?;
                let values: [Value; 4] = [
                    Box::new(event.id()),
                    source,
                    Box::new(data.received_at),
                    Box::new(without_nul(data.reason)),
                ];
                (Table::Unrecognised, values.into())
            }
        };
        Some(Self { table, values })
    }

    /// The parameters of its statement.
    pub fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect()
    }
}

/// As `change::NotificationData` writes it.
#[derive(Deserialize)]
struct Notification {
    #[serde(deserialize_with = "text")]
    status: Option<String>,
    #[serde(deserialize_with = "text")]
    status_description: Option<String>,
    #[serde(deserialize_with = "text")]
    provider_response: Option<String>,
    #[serde(deserialize_with = "text")]
    reference: Option<String>,
    #[serde(deserialize_with = "text")]
    recipient: Option<String>,
    #[serde(deserialize_with = "text")]
    notification_type: Option<String>,
    #[serde(deserialize_with = "text")]
    template_id: Option<String>,
    template_version: Option<i64>,
    created_at: Option<Instant>,
    sent_at: Option<Instant>,
    completed_at: Option<Instant>,
    complained_at: Option<Instant>,
    returned_at: Option<Instant>,
    first_received_at: Instant,
    last_received_at: Instant,
}

fn notification(event: &Event, source: Value, id: String) -> Option<Vec<Value>> {
    let data: Notification = serde_json::from_str(&event.change.data).ok()?;
    let precedence = event.change.precedence.as_ref();
    let values: [Value; 20] = [
        source,
        Box::new(id),
        Box::new(data.status),
        Box::new(data.status_description),
        Box::new(data.provider_response),
        Box::new(data.reference),
        Box::new(data.recipient),
        Box::new(data.notification_type),
        Box::new(data.template_id),
        Box::new(data.template_version),
        Box::new(data.created_at),
        Box::new(data.sent_at),
        Box::new(data.completed_at),
        Box::new(data.complained_at),
        Box::new(data.returned_at),
        Box::new(data.first_received_at),
        Box::new(data.last_received_at),
        Box::new(precedence.and_then(|precedence| precedence.version).map(Instant)),
        Box::new(precedence.map(|precedence| i16::from(precedence.rank))),
        Box::new(precedence.map(|precedence| precedence.fingerprint.0.to_vec())),
    ];
    Some(values.into())
}

/// As `change::MessageData` writes it.
#[derive(Deserialize)]
struct Message {
    #[serde(deserialize_with = "text")]
    source_number: Option<String>,
    #[serde(deserialize_with = "text")]
    destination_number: Option<String>,
    #[serde(deserialize_with = "text")]
    message: Option<String>,
    date_received: Option<Instant>,
    received_at: Instant,
}

fn message(event: &Event, source: Value, id: String) -> Option<Vec<Value>> {
    let data: Message = serde_json::from_str(&event.change.data).ok()?;
    // Of two texts with one id any choice will do that every receiver makes alike.
    let fingerprint = event.change.precedence.map_or(event.change.id.0, |of| of.fingerprint.0);
    let values: [Value; 8] = [
        source,
        Box::new(id),
        Box::new(data.source_number),
        Box::new(data.destination_number),
        Box::new(data.message),
        Box::new(data.date_received),
        Box::new(data.received_at),
        Box::new(fingerprint.to_vec()),
    ];
    Some(values.into())
}

/// As `change::UnrecognisedData` writes it.
#[derive(Deserialize)]
struct Unrecognised {
    reason: String,
    received_at: Instant,
}

/// A text that PostgreSQL can hold.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(without_nul))
}

/// With U+FFFD, which stands for what cannot be shown, in place of each U+0000: whoever puts one into
/// a text must not thereby keep a status from the app.
fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// An instant as PostgreSQL keeps it: to the microsecond, and from long before to long after ours.
#[derive(Clone, Copy, Debug)]
struct Instant(Timestamp);

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

impl ToSql for Instant {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_i64(self.0.unix_micros() - EPOCH_MICROS);
        Ok(IsNull::No)
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}
