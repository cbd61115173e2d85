//! A story of the Notify family in bytes, and the truth of it.
//!
//! The order of the keys is that of each platform's code. The truth is written from the story's last
//! row, never from a body.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::json::{Object, Style, time_text, uuid_text};
use super::life::Truth;
use super::notify::{Common, Complaint, Notification, Origin, ReceivedText, ReturnedLetter, Story};
use super::notify_row::Row;
use super::people;
use super::scenario::Telling;
use crate::callback::Kind;
use crate::sender::Platform;

/// Most bodies are shorter.
const BODY_BYTES: usize = 480;

impl Story {
    /// Everything called back, in the order in which it came about.
    pub fn tell(&self) -> Vec<Telling> {
        match self {
            Self::Notification(notification) => tell_notification(notification),
            Self::Text(text) => vec![Telling {
                told_at: text.told_at,
                kind: Kind::ReceivedMessage,
                body: written(&text.common, |object| received_text(text, object)),
            }],
            Self::Letter(letter) => vec![Telling {
                told_at: letter.told_at,
                kind: Kind::ReturnedLetter,
                body: written(&letter.common, |object| returned_letter(letter, object)),
            }],
            Self::Untold => Vec::new(),
        }
    }

    /// What it came to.
    pub fn truth(&self) -> Truth {
        match self {
            Self::Notification(notification) => truth_of_notification(notification),
            Self::Text(text) => Truth::Message(Map::from_iter([
                ("id".to_owned(), uuid_text(text.common.id).into()),
                ("source_number".to_owned(), text.source_number.as_str().into()),
                ("destination_number".to_owned(), service_number(&text.common).into()),
                ("message".to_owned(), text.message.into()),
                ("date_received".to_owned(), time_text(text.common.created_at).into()),
            ])),
            Self::Letter(letter) => truth_of_letter(letter),
            Self::Untold => Truth::Silent,
        }
    }
}

fn tell_notification(notification: &Notification) -> Vec<Telling> {
    let common = &notification.common;
    let mut told = Vec::with_capacity(notification.rows.len() + 1);
    told.extend(notification.rows.iter().map(|row| Telling {
        told_at: row.told_at,
        kind: Kind::Receipt,
        body: written(common, |object| receipt(notification, row, object)),
    }));
    told.extend(notification.complaint.iter().map(|complaint| Telling {
        told_at: complaint.told_at,
        kind: Kind::Complaint,
        body: written(common, |object| self::complaint(common, complaint, object)),
    }));
    told
}

fn written(common: &Common, fill: impl FnOnce(&mut Object<'_>)) -> Bytes {
    let mut out = Vec::with_capacity(BODY_BYTES);
    let mut object = Object::begin(&mut out, Style::Python);
    fill(&mut object);
    if let Some((key, json)) = common.unknown_key {
        object.raw(key, json);
    }
    object.end();
    Bytes::from(out)
}

fn receipt(notification: &Notification, row: &Row, object: &mut Object<'_>) {
    let common = &notification.common;
    object.uuid("id", common.id);
    object.text("reference", common.reference.as_deref());
    object.text("to", notification.to.as_deref());
    object.text("status", row.status);
    if matches!(common.platform, Platform::GcNotify | Platform::GcNotifyBefore202608) {
        object.text("status_description", row.cause.description);
        object.text("provider_response", row.cause.response);
    }
    object.time("created_at", common.created_at);
    object.time("completed_at", row.updated_at);
    object.time("sent_at", row.sent_at);
    object.text("notification_type", notification.kind);
    match common.platform {
        Platform::VaNotify | Platform::VaNotifySigned => {
            object.text("status_reason", row.cause.description);
            object.text("provider", row.cause.provider);
            if notification.with_payload {
                object.raw("provider_payload", row.cause.response.unwrap_or("null"));
            }
        }
        Platform::GovukNotify | Platform::UsNotify | Platform::NotifyNl => {
            object.uuid("template_id", common.template.0);
            object.number("template_version", common.template.1);
        }
        _ => {}
    }
}

fn complaint(common: &Common, complaint: &Complaint, object: &mut Object<'_>) {
    object.uuid("notification_id", common.id);
    object.uuid("complaint_id", complaint.id);
    object.text("reference", complaint.reference.as_deref());
    object.text("to", complaint.to.as_deref());
    object.time("complaint_date", complaint.complained_at);
}

fn received_text(text: &ReceivedText, object: &mut Object<'_>) {
    object.uuid("id", text.common.id);
    object.text("source_number", text.source_number.as_str());
    object.text("destination_number", service_number(&text.common));
    object.text("message", text.message);
    object.time("date_received", text.common.created_at);
    if text.common.platform == Platform::VaNotify {
        match text.sms_sender_id {
            Some(id) => object.uuid("sms_sender_id", id),
            None => object.null("sms_sender_id"),
        }
    }
}

fn service_number(common: &Common) -> &'static str {
    people::service_number(common.platform)
}

fn returned_letter(letter: &ReturnedLetter, object: &mut Object<'_>) {
    let common = &letter.common;
    object.uuid("notification_id", common.id);
    object.text("reference", common.reference.as_deref());
    object.time("date_sent", common.created_at);
    object.text("sent_by", if letter.origin == Origin::Api { "API" } else { "sender@example.org" });
    if let Origin::Spreadsheet(row) = letter.origin {
        object.text("template_name", "Template name");
        object.uuid("template_id", common.template.0);
        object.number("template_version", common.template.1);
        object.text("spreadsheet_file_name", "contact_list.csv");
        object.number("spreadsheet_row_number", row);
    } else {
        object.null("template_name");
        // Python's `str` of nothing.
        object.text("template_id", "None");
        object.null("template_version");
        object.null("spreadsheet_file_name");
        object.null("spreadsheet_row_number");
    }
    let file = (letter.origin == Origin::Upload).then_some("uploaded_letter.pdf");
    object.text("upload_letter_file_name", file);
}

fn truth_of_notification(notification: &Notification) -> Truth {
    let (common, complaint) = (&notification.common, notification.complaint.as_ref());
    // A story has a row; without one it would be untold.
    let Some(last) = notification.rows.last() else { return Truth::Silent };
    let has_template =
        matches!(common.platform, Platform::GovukNotify | Platform::UsNotify | Platform::NotifyNl);
    // US Notify.gov tells an address in a complaint only: in receipts it is always "1".
    let to = match complaint.and_then(|complaint| complaint.to.as_ref()) {
        Some(address) if common.platform == Platform::UsNotify => Some(address),
        _ => notification.to.as_ref(),
    };
    let is_va = matches!(common.platform, Platform::VaNotify | Platform::VaNotifySigned);
    let response = last.cause.response.filter(|_| notification.with_payload || !is_va);
    Truth::Notification(Map::from_iter(
        [
            ("id", uuid_text(common.id).into()),
            ("status", last.status.into()),
            ("status_description", last.cause.description.into()),
            ("provider_response", response.into()),
            ("reference", common.reference.clone().into()),
            ("recipient", to.cloned().into()),
            ("notification_type", notification.kind.into()),
            ("template_id", has_template.then(|| uuid_text(common.template.0)).into()),
            ("template_version", has_template.then_some(common.template.1).into()),
            ("created_at", time_text(common.created_at).into()),
            ("sent_at", last.sent_at.map(time_text).into()),
            ("completed_at", last.updated_at.map(time_text).into()),
            ("complained_at", complaint.map(|it| time_text(it.complained_at)).into()),
        ]
        .map(|(key, value): (&str, Value)| (key.to_owned(), value)),
    ))
}

fn truth_of_letter(letter: &ReturnedLetter) -> Truth {
    let (template, version) = letter.common.template;
    let has_template = matches!(letter.origin, Origin::Spreadsheet(_));
    Truth::Notification(Map::from_iter(
        [
            ("id", uuid_text(letter.common.id).into()),
            ("status", Value::Null),
            ("reference", letter.common.reference.clone().into()),
            ("recipient", Value::Null),
            ("notification_type", "letter".into()),
            ("template_id", has_template.then(|| uuid_text(template)).into()),
            ("template_version", has_template.then_some(version).into()),
            ("created_at", Value::Null),
            ("complained_at", Value::Null),
        ]
        .map(|(key, value): (&str, Value)| (key.to_owned(), value)),
    ))
}
