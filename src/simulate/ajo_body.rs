//! A story of Adobe Journey Optimizer in bytes, and the truth of it.
//!
//! Keys and their order are those of Adobe's two samples: the shorter for email without
//! `messageProfileID`, the longer wherever that is. The truth is written from the story's last event
//! that moves a status, never from a body. Beside the status it holds what the receiver documents
//! of these messages: an id made of request, execution and the first eight bytes of the
//! destination's SHA-256 where there is no `messageProfileID`, and the cause as
//! `event category/type/code`.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::ajo::{Cause, Channel, Event, Story};
use super::json::{Object, Style, time_text, uuid_text};
use super::life::Truth;
use super::scenario::Telling;
use crate::callback::Kind;

/// Most bodies are shorter.
const BODY_BYTES: usize = 1_200;

impl Story {
    /// Everything called back, in the order in which it came about.
    pub fn tell(&self) -> Vec<Telling> {
        let in_array = if self.starts_as_array && self.events.len() > 1 { 2 } else { 0 };
        let (first, rest) = self.events.split_at(in_array);
        let mut told = Vec::with_capacity(self.events.len());
        if let Some(last) = first.last() {
            told.push(Telling {
                told_at: last.told_at,
                kind: Kind::Receipt,
                body: self.array(first),
            });
        }
        told.extend(rest.iter().map(|event| {
            let mut out = Vec::with_capacity(BODY_BYTES);
            self.event(event, &mut out);
            Telling { told_at: event.told_at, kind: Kind::Receipt, body: Bytes::from(out) }
        }));
        told
    }

    fn array(&self, events: &[Event]) -> Bytes {
        let mut out = Vec::with_capacity(BODY_BYTES * events.len());
        for (place, event) in events.iter().enumerate() {
            out.push(if place == 0 { b'[' } else { b',' });
            self.event(event, &mut out);
        }
        out.push(b']');
        Bytes::from(out)
    }

    fn event(&self, event: &Event, out: &mut Vec<u8>) {
        let mut object = Object::begin(out, Style::Compact);
        object.uuid("requestId", self.request);
        object.text("imsOrg", "ExampleOrg@AdobeOrg");
        object.object("sandbox", |sandbox| {
            sandbox.text("id", "068abf40-575e-11ea-8512-9b1bfdb82603");
            sandbox.text("name", "prod");
        });
        object.text("channel", self.channel_word());
        object.text("eventType", "message.feedback");
        if self.profile.is_some() {
            let is_email = self.channel == Channel::Email;
            object.object("channelContext", |context| {
                context.text("profileAddress", is_email.then_some(&*self.to));
                context.text("profileNumber", (!is_email).then_some(&*self.to));
            });
        }
        object.object("messageExecution", |execution| self.execution(execution));
        object.object("messageDeliveryFeedback", |feedback| self.feedback(event, feedback));
        object.object("identityMap", |identities| self.identities(identities));
        object.end();
    }

    fn execution(&self, execution: &mut Object<'_>) {
        execution.text("messageExecutionID", &*self.execution_id());
        execution.text("messageType", "transactional");
        execution.text("campaignID", "16f24a15-7e21-477c-848a-d5695ca7f137");
        execution.text("campaignVersionID", "2ca10c10-56dd-4505-87cd-fa5da84e7a5d");
        if let Some(profile) = self.profile {
            execution.uuid("messageID", self.message);
            execution.uuid("messageProfileID", profile);
        }
        execution.text("campaignType", "ApiTriggered");
    }

    fn feedback(&self, event: &Event, feedback: &mut Object<'_>) {
        if self.is_status_bare {
            feedback.text("feedbackStatus", event.word);
        } else {
            feedback.object("feedbackStatus", |status| status.text("value", event.word));
        }
        feedback.null("offers");
        match event.cause {
            Some(cause) if cause.is_exclusion => {
                feedback.object("messageExclusion", |exclusion| exclude(&cause, exclusion));
                feedback.null("messageFailure");
            }
            Some(cause) => {
                feedback.null("messageExclusion");
                feedback.object("messageFailure", |failure| fail(&cause, failure));
            }
            None => {
                feedback.null("messageExclusion");
                feedback.null("messageFailure");
            }
        }
        let is_email = self.channel == Channel::Email;
        feedback.number("retryCount", is_email.then_some(event.retries));
        if self.profile.is_some() {
            feedback.null("responseCode");
            feedback.null("responseDurationMillis");
        }
        feedback.text("encoding", event.delivered_at.map(|_| "GSM"));
        feedback.text("numberOfMessageParts", event.delivered_at.map(|_| "2"));
        feedback.text("deliveryTimestamp", event.delivered_at.map(millis_text).as_deref());
        if self.has_unknown_key {
            feedback.raw("carrier", r#"{"name":"Exempl\u00e9","code":null}"#);
        }
    }

    fn identities(&self, identities: &mut Object<'_>) {
        if self.is_identity_custom {
            identities.list_of_one("CrmId", |identity| {
                identity.text("id", "c-42");
                identity.raw("primary", "true");
            });
        } else if self.channel == Channel::Email {
            identities.list_of_one("email", |identity| {
                identity.text("id", &*self.to);
                identity.raw("primary", "true");
            });
        } else {
            identities.list_of_one("Phone", |identity| identity.text("id", &*self.to));
        }
    }

    fn channel_word(&self) -> &'static str {
        if self.channel == Channel::Email { "email" } else { "sms" }
    }

    fn execution_id(&self) -> String {
        let prefix = if self.channel == Channel::Email { "HUMA" } else { "UMA" };
        format!("{prefix}-{}", self.execution)
    }

    /// What it came to.
    pub fn truth(&self) -> Truth {
        let last = self.events.iter().rev().find(|event| event.status.is_some());
        let cause = last.and_then(|event| event.cause);
        Truth::Notification(Map::from_iter(
            [
                ("id", self.id().into()),
                ("status", last.and_then(|event| event.status).into()),
                ("status_description", cause.and_then(|cause| cause.reason).into()),
                ("provider_response", last.map(response).into()),
                ("reference", uuid_text(self.request).into()),
                ("recipient", self.to.as_str().into()),
                ("notification_type", self.channel_word().into()),
                ("template_id", Value::Null),
                ("template_version", Value::Null),
                ("created_at", Value::Null),
                ("sent_at", Value::Null),
                ("completed_at", last.and_then(|it| it.delivered_at).map(time_text).into()),
                ("complained_at", Value::Null),
            ]
            .map(|(key, value): (&str, Value)| (key.to_owned(), value)),
        ))
    }

    fn id(&self) -> String {
        if let Some(profile) = self.profile {
            return uuid_text(profile);
        }
        let digest = HEXLOWER.encode(&Sha256::digest(&self.to)[..8]);
        format!("{}:{}:{digest}", uuid_text(self.request), self.execution_id())
    }
}

fn exclude(cause: &Cause, exclusion: &mut Object<'_>) {
    exclusion.text("code", cause.code);
    exclusion.text("reason", cause.reason);
    if cause.reason == Some("personalizedDomainNotValid") {
        exclusion.object("details", |details| {
            details.text("invalidDomains", "example.com,test-domain.example");
        });
    }
}

fn fail(cause: &Cause, failure: &mut Object<'_>) {
    failure.text("category", cause.category);
    failure.text("type", cause.kind);
    failure.text("code", cause.code);
    failure.text("reason", cause.reason);
}

/// The cause as the receiver shows it.
fn response(event: &Event) -> String {
    let cause = event.cause.unwrap_or_default();
    let words: Vec<_> = [cause.category, cause.kind, cause.code].into_iter().flatten().collect();
    if words.is_empty() {
        event.word.to_owned()
    } else {
        format!("{} {}", event.word, words.join("/"))
    }
}

/// `YYYY-MM-DDTHH:MM:SS.mmmZ`.
fn millis_text(micros: i64) -> String {
    let mut text = time_text(micros);
    text.replace_range(text.len() - 4.., "Z");
    text
}
