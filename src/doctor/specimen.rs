//! The bodies that are sent: as a platform writes them, then changed by a key or a value.
//!
//! The Notify family's as Python's `json.dumps` writes them (ASCII, a space after each comma and
//! colon, keys in the senders' order), Adobe's with its documented fields.

use bytes::Bytes;
use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;

use crate::clock::Timestamp;
use crate::provider::Provider;

/// What every id begins with, so that it can be told from a real one and removed.
pub const ID_PREFIX: &str = "d0c70000-";

/// An address nobody has (RFC 2606).
const RECIPIENT: &str = "receiptd-doctor@example.com";

/// A UUID of ours.
pub fn id(chance: &mut ChaCha8Rng) -> String {
    let (high, low) = (chance.random::<u32>(), chance.random::<u64>());
    let (one, two) = (high >> 16, high & 0xfff);
    let (three, node) = (low >> 48 & 0xfff, low & 0xffff_ffff_ffff);
    format!("{ID_PREFIX}{one:04x}-4{two:03x}-8{three:03x}-{node:012x}")
}

/// What a callback tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// On its way.
    Sending,
    /// Arrived.
    Delivered,
    /// Came back for good, after it had arrived.
    Bounced,
    /// A word that no platform uses today.
    Unheard,
}

impl News {
    /// The status a right receiver settles on if it is the last word.
    pub fn status(self, provider: Provider) -> &'static str {
        match (self, provider) {
            (Self::Sending, Provider::Ajo) => "sent",
            (Self::Sending, _) => "sending",
            (Self::Delivered, _) => "delivered",
            (Self::Bounced, _) => "permanent-failure",
            // An event that is not known tells nothing of how the message stands.
            (Self::Unheard, Provider::Ajo) => "none",
            (Self::Unheard, _) => UNHEARD,
        }
    }

    /// When it became true, in seconds from now: of two, the later one holds.
    pub fn version(self) -> i64 {
        match self {
            Self::Sending => -30,
            Self::Delivered | Self::Unheard => -20,
            Self::Bounced => -10,
        }
    }
}

/// The status that no platform uses today.
const UNHEARD: &str = "receiptd-doctor-unheard-of";

/// A JSON object whose keys keep their order; the values are JSON already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Specimen {
    fields: Vec<(&'static str, String)>,
}

/// What the probe is sent as on the wire (`true`), or as the documentation has it (`"true"`).
pub fn probe(value: &str) -> Bytes {
    Bytes::from(format!(r#"{{"health_check": {value}}}"#))
}

/// A receipt about the message with that id, as this platform writes it. `now` is when it is sent.
pub fn receipt(provider: Provider, id: &str, news: News, now: Timestamp) -> Specimen {
    match provider {
        Provider::Ajo => adobe(id, news),
        _ => notify(provider, id, news, now),
    }
}

fn notify(provider: Provider, id: &str, news: News, now: Timestamp) -> Specimen {
    let completed_at = now.plus_seconds(news.version());
    let to = if provider == Provider::UsNotify { "1" } else { RECIPIENT };
    let mut fields = vec![
        ("id", text(id)),
        ("reference", text(id)),
        ("to", text(to)),
        ("status", text(news.status(provider))),
    ];
    if provider == Provider::GcNotify {
        fields.push(("status_description", text(description(news))));
        fields.push(("provider_response", "null".to_owned()));
    }
    fields.extend([
        ("created_at", text(&now.plus_seconds(-60).to_string())),
        ("completed_at", text(&completed_at.to_string())),
        ("sent_at", text(&now.plus_seconds(-50).to_string())),
        ("notification_type", text("email")),
    ]);
    match provider {
        Provider::GcNotify => {}
        Provider::VaNotify => {
            fields.extend([("status_reason", "null".to_owned()), ("provider", text("ses"))]);
        }
        _ => fields.extend([
            ("template_id", text("f33517ff-2a88-4f6e-b855-c550268ce08a")),
            ("template_version", "3".to_owned()),
        ]),
    }
    Specimen { fields }
}

/// GC Notify's sentence for people.
fn description(news: News) -> &'static str {
    match news {
        News::Sending | News::Unheard => "In transit",
        News::Delivered => "Delivered",
        News::Bounced => "No such address",
    }
}

fn adobe(id: &str, news: News) -> Specimen {
    let (event, failure) = match news {
        News::Sending => ("sent", "null"),
        News::Delivered => ("delivered", "null"),
        News::Bounced => (
            "bounce",
            r#"{"category": "async", "type": "Hard", "code": "10", "reason": "Invalid Recipient"}"#,
        ),
        News::Unheard => (UNHEARD, "null"),
    };
    let fields = vec![
        ("requestId", text(id)),
        ("imsOrg", text("receiptd-doctor@AdobeOrg")),
        ("sandbox", r#"{"id": "068abf40-575e-11ea-8512-9b1bfdb82603", "name": "prod"}"#.to_owned()),
        ("channel", text("email")),
        ("eventType", text("message.feedback")),
        (
            "messageExecution",
            format!(
                r#"{{"messageExecutionID": "HUMA-1", "messageProfileID": "{id}", "messageType": "transactional", "campaignID": null, "campaignVersionID": null, "campaignType": "ApiTriggered"}}"#
            ),
        ),
        (
            "messageDeliveryFeedback",
            format!(
                r#"{{"feedbackStatus": {{"value": "{event}"}}, "offers": null, "messageExclusion": null, "messageFailure": {failure}, "retryCount": 0, "deliveryTimestamp": null}}"#
            ),
        ),
        ("identityMap", format!(r#"{{"email": [{{"id": "{RECIPIENT}", "primary": true}}]}}"#)),
    ];
    Specimen { fields }
}

impl Specimen {
    /// The same with null wherever the platform may have it.
    pub fn with_nulls(mut self) -> Self {
        let may_be_null = [
            "reference",
            "to",
            "completed_at",
            "sent_at",
            "status_description",
            "provider_response",
            "status_reason",
            "provider",
            "imsOrg",
            "sandbox",
            "identityMap",
        ];
        for (key, value) in &mut self.fields {
            if may_be_null.contains(key) {
                "null".clone_into(value);
            }
        }
        self
    }

    /// The same with keys that nobody sends today: a text, a number and an object.
    pub fn with_unknown_keys(mut self) -> Self {
        self.fields.push(("receiptd_doctor_text", text("added one day")));
        self.fields.push(("receiptd_doctor_number", "1".to_owned()));
        self.fields.push(("receiptd_doctor_object", r#"{"nested": [1, null]}"#.to_owned()));
        self
    }

    /// The same, `bytes` long, by a long text in a field that the platforms do not bound.
    pub fn of_length(mut self, bytes: usize) -> Self {
        let key = if self.fields.iter().any(|(key, _)| *key == "reference") {
            "reference"
        } else {
            "requestId"
        };
        let more = bytes.saturating_sub(self.bytes().len());
        if let Some((_, value)) = self.fields.iter_mut().find(|(found, _)| *found == key) {
            value.truncate(value.len() - 1);
            value.push_str(&"x".repeat(more));
            value.push('"');
        }
        self
    }

    /// The first half of it: no JSON.
    pub fn cut(&self) -> Bytes {
        let whole = self.bytes();
        whole.slice(..whole.len() / 2)
    }

    /// The body.
    pub fn bytes(&self) -> Bytes {
        let fields: Vec<String> =
            self.fields.iter().map(|(key, value)| format!(r#""{key}": {value}"#)).collect();
        Bytes::from(format!("{{{}}}", fields.join(", ")))
    }
}

/// A JSON string of what needs no escape.
fn text(value: &str) -> String {
    format!(r#""{value}""#)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use serde_json::Value;

    use super::*;
    use crate::provider;

    const PROVIDERS: [Provider; 6] = [
        Provider::GcNotify,
        Provider::GovukNotify,
        Provider::UsNotify,
        Provider::VaNotify,
        Provider::NotifyNl,
        Provider::Ajo,
    ];

    fn now() -> Timestamp {
        "2026-11-22T10:01:00Z".parse().unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_ids_and_each_is_a_uuid_of_ours() {
        let ids = |seed| {
            let mut chance = ChaCha8Rng::seed_from_u64(seed);
            [id(&mut chance), id(&mut chance)]
        };
        assert_eq!(ids(7), ids(7));
        assert_ne!(ids(7), ids(8));
        for id in ids(7) {
            let lengths: Vec<usize> = id.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
            assert!(id.starts_with(ID_PREFIX) && id.as_bytes()[14] == b'4', "{id}");
        }
    }

    #[test]
    fn a_gc_notify_receipt_is_byte_for_byte_as_the_platform_writes_it() {
        let body = receipt(Provider::GcNotify, "i", News::Delivered, now()).bytes();
        assert_eq!(
            body,
            concat!(
                r#"{"id": "i", "reference": "i", "to": "receiptd-doctor@example.com", "#,
                r#""status": "delivered", "status_description": "Delivered", "#,
                r#""provider_response": null, "created_at": "2026-11-22T10:00:00.000000Z", "#,
                r#""completed_at": "2026-11-22T10:00:40.000000Z", "#,
                r#""sent_at": "2026-11-22T10:00:10.000000Z", "notification_type": "email"}"#
            )
        );
    }

    /// What we recognise ourselves is what the platform means.
    #[test]
    fn every_whole_specimen_is_understood_as_its_status() {
        for of in PROVIDERS {
            for news in [News::Sending, News::Delivered, News::Bounced] {
                let whole = receipt(of, "d0c70000-1", news, now());
                for specimen in [
                    whole.clone(),
                    whole.clone().with_nulls(),
                    whole.clone().with_unknown_keys(),
                    whole.clone().of_length(64 << 10),
                ] {
                    let reading = provider::read(&of.into(), &specimen.bytes());
                    let told = format!("{:?}", reading.events);
                    assert!(told.contains(news.status(of)), "{of} {news:?}: {reading:?}");
                }
            }
        }
    }

    #[test]
    fn a_specimen_is_as_long_as_was_asked_for_and_half_of_one_is_no_json() {
        for of in PROVIDERS {
            let whole = receipt(of, "i", News::Delivered, now());
            let long = whole.clone().of_length(64 << 10).bytes();
            assert_eq!(long.len(), 64 << 10);
            assert!(serde_json::from_slice::<Value>(&long).is_ok());
            assert!(serde_json::from_slice::<Value>(&whole.cut()).is_err());
        }
    }
}
