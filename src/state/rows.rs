//! The rows people ask for, with the columns of the public views, in their order.

use rusqlite::Row;
use serde::Serialize;

use crate::clock::Timestamp;

use super::write::{UnrecognisedRow, some_time, time};

/// A row of the view `notification`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotificationRow {
    /// The label of its source.
    pub source: String,
    /// The provider's id.
    pub id: String,
    /// The normalised word; `None` when only a complaint or a returned letter is known.
    pub status: Option<String>,
    /// The provider's sentence for people.
    pub status_description: Option<String>,
    /// The provider's own words on the cause.
    pub provider_response: Option<String>,
    /// The app's own reference.
    pub reference: Option<String>,
    /// The address or number.
    pub recipient: Option<String>,
    /// `email`, `sms`, …
    pub notification_type: Option<String>,
    /// The provider's template.
    pub template_id: Option<String>,
    /// Its version.
    pub template_version: Option<i64>,
    /// When it was created at the provider.
    pub created_at: Option<Timestamp>,
    /// When it went out.
    pub sent_at: Option<Timestamp>,
    /// When the status was reached.
    pub completed_at: Option<Timestamp>,
    /// When the recipient complained.
    pub complained_at: Option<Timestamp>,
    /// When we heard that the letter came back.
    pub returned_at: Option<Timestamp>,
    /// Distinct receipts.
    pub receipts: i64,
    /// Repeated callbacks.
    pub duplicates: i64,
    /// When the first callback about it arrived.
    pub first_received_at: Timestamp,
    /// When the last one that was no duplicate arrived.
    pub last_received_at: Timestamp,
}

impl NotificationRow {
    /// Its columns, in order.
    pub const COLUMNS: [&str; 19] = [
        "source",
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
        "first_received_at",
        "last_received_at",
    ];

    /// Bytes of the texts that are as long as a sender makes them.
    pub(super) fn text_bytes(&self) -> usize {
        let Self { reference, recipient, status_description, provider_response, .. } = self;
        let texts = [reference, recipient, status_description, provider_response];
        texts.into_iter().flatten().map(String::len).sum()
    }

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            source: row.get(0)?,
            id: row.get(1)?,
            status: row.get(2)?,
            status_description: row.get(3)?,
            provider_response: row.get(4)?,
            reference: row.get(5)?,
            recipient: row.get(6)?,
            notification_type: row.get(7)?,
            template_id: row.get(8)?,
            template_version: row.get(9)?,
            created_at: time(row, 10)?,
            sent_at: time(row, 11)?,
            completed_at: time(row, 12)?,
            complained_at: time(row, 13)?,
            returned_at: time(row, 14)?,
            receipts: row.get(15)?,
            duplicates: row.get(16)?,
            first_received_at: some_time(row, 17)?,
            last_received_at: some_time(row, 18)?,
        })
    }
}

/// A row of the view `received_message`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MessageRow {
    /// The label of its source.
    pub source: String,
    /// The provider's id.
    pub id: String,
    /// Who sent it.
    pub source_number: Option<String>,
    /// The service's number.
    pub destination_number: Option<String>,
    /// The text.
    pub message: Option<String>,
    /// When the provider got it.
    pub date_received: Option<Timestamp>,
    /// When the first callback about it arrived.
    pub received_at: Timestamp,
}

impl MessageRow {
    /// Its columns, in order.
    pub const COLUMNS: [&str; 7] = [
        "source",
        "id",
        "source_number",
        "destination_number",
        "message",
        "date_received",
        "received_at",
    ];

    /// Bytes of the text that is as long as its sender makes it.
    pub(super) fn text_bytes(&self) -> usize {
        self.message.as_ref().map_or(0, String::len)
    }

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            source: row.get(0)?,
            id: row.get(1)?,
            source_number: row.get(2)?,
            destination_number: row.get(3)?,
            message: row.get(4)?,
            date_received: time(row, 5)?,
            received_at: some_time(row, 6)?,
        })
    }
}

/// A row of the view `expected`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExpectationRow {
    /// The label of its source.
    pub source: String,
    /// The provider's id.
    pub id: String,
    /// The app's own reference.
    pub reference: Option<String>,
    /// Until when the app wants to hear of its end.
    pub deadline: Option<Timestamp>,
    /// When the app first said that it was sent.
    pub since: Timestamp,
}

impl ExpectationRow {
    /// Its columns, in order.
    pub const COLUMNS: [&str; 5] = ["source", "id", "reference", "deadline", "since"];

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            source: row.get(0)?,
            id: row.get(1)?,
            reference: row.get(2)?,
            deadline: time(row, 3)?,
            since: some_time(row, 4)?,
        })
    }
}

/// A row of the view `history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HistoryLine {
    /// The callback's position in the journal.
    pub seq: i64,
    /// The label of its source.
    pub source: String,
    /// The notification's or message's id.
    pub id: String,
    /// The word of its [`Kind`](crate::callback::Kind).
    pub kind: String,
    /// The status it told.
    pub status: Option<String>,
    /// When that was reached.
    pub completed_at: Option<Timestamp>,
    /// When the callback arrived.
    pub received_at: Timestamp,
    /// Whether an identical one came before.
    pub duplicate: bool,
    /// How it came: the word of its [`Origin`](crate::callback::Origin).
    pub origin: String,
}

impl HistoryLine {
    /// Its columns, in order.
    pub const COLUMNS: [&str; 9] = [
        "seq",
        "source",
        "id",
        "kind",
        "status",
        "completed_at",
        "received_at",
        "duplicate",
        "origin",
    ];

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: row.get(0)?,
            source: row.get(1)?,
            id: row.get(2)?,
            kind: row.get(3)?,
            status: row.get(4)?,
            completed_at: time(row, 5)?,
            received_at: some_time(row, 6)?,
            duplicate: row.get(7)?,
            origin: row.get(8)?,
        })
    }
}

/// How many notifications of a source have a status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatusCount {
    /// The label of the source.
    pub source: String,
    /// The status.
    pub status: Option<String>,
    /// Notifications.
    pub notifications: i64,
    /// Distinct receipts about them.
    pub receipts: i64,
    /// Repeated callbacks about them.
    pub duplicates: i64,
}

impl StatusCount {
    /// Its columns, in order.
    pub const COLUMNS: [&str; 5] = ["source", "status", "notifications", "receipts", "duplicates"];

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            source: row.get(0)?,
            status: row.get(1)?,
            notifications: row.get(2)?,
            receipts: row.get(3)?,
            duplicates: row.get(4)?,
        })
    }
}

/// What a source has sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceCount {
    /// The label of the source.
    pub source: String,
    /// Notifications.
    pub notifications: i64,
    /// Distinct receipts about them.
    pub receipts: i64,
    /// Repeated callbacks about them.
    pub duplicates: i64,
    /// Received messages.
    pub messages: i64,
    /// Callbacks that were not understood.
    pub unrecognised: i64,
    /// When the last callback that told something new arrived.
    pub last_received_at: Option<Timestamp>,
}

impl SourceCount {
    /// Its columns, in order.
    pub const COLUMNS: [&str; 7] = [
        "source",
        "notifications",
        "receipts",
        "duplicates",
        "messages",
        "unrecognised",
        "last_received_at",
    ];

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            source: row.get(0)?,
            notifications: row.get(1)?,
            receipts: row.get(2)?,
            duplicates: row.get(3)?,
            messages: row.get(4)?,
            unrecognised: row.get(5)?,
            last_received_at: time(row, 6)?,
        })
    }
}

impl UnrecognisedRow {
    /// Its columns, in order.
    pub const COLUMNS: [&str; 4] = ["seq", "source", "received_at", "reason"];

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: row.get(0)?,
            source: row.get(1)?,
            received_at: some_time(row, 2)?,
            reason: row.get(3)?,
        })
    }
}
