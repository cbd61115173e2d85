//! Second opinions: the simplest other way to know what several checks ask.

use std::collections::HashMap;
use std::fmt;

use receiptd::callback::{Event, Fingerprint, News};
use receiptd::clock::Timestamp;
use receiptd::provider::Reading;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// The moment of every check: 2026-11-22T10:00:00Z.
pub const NOW_S: i64 = 1_795_341_600;

/// The moment of every check.
pub fn now() -> Timestamp {
    Timestamp::from_unix_micros(NOW_S * 1_000_000)
}

/// The body as serde_json's tree has it; `None` if it is no JSON, and for JSON that the tree cannot
/// hold (halves of surrogate pairs, numbers beyond a double, deep nesting), which the receiver reads.
pub fn tree(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)).ok()
}

/// The text of a member that is a string; `Err` if it is something else, `Ok(None)` if it is
/// missing or null.
pub fn text<'v>(object: &'v Value, key: &str) -> Result<Option<&'v str>, ()> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(()),
    }
}

/// The object's members in the order of the keys' first appearance, each with its last value.
pub struct Members(pub Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members: Vec<(String, Value)> = Vec::new();
                let mut places: HashMap<String, usize> = HashMap::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    let place = *places.entry(key.clone()).or_insert(members.len());
                    if place == members.len() {
                        members.push((key, value));
                    } else {
                        members[place].1 = value;
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// The same reading without what depends on bytes that say nothing.
pub fn without_fingerprints(mut reading: Reading) -> Reading {
    for event in &mut reading.events {
        event.fingerprint = Fingerprint::default();
        if let News::Notification(report) = &mut event.news
            && let Some(standing) = &mut report.standing
        {
            standing.precedence.fingerprint = Fingerprint::default();
        }
    }
    reading
}

/// Every instant of an event is written in the one form, and read back as itself.
pub fn assert_instants(event: &Event) {
    let instants = match &event.news {
        News::Message(message) => vec![message.date_received],
        News::Notification(report) => {
            let standing = report.standing.as_ref();
            vec![
                report.complained_at,
                report.identity.created_at,
                standing.and_then(|standing| standing.completed_at),
                standing.and_then(|standing| standing.sent_at),
                standing.and_then(|standing| standing.precedence.version),
            ]
        }
    };
    instants.into_iter().flatten().for_each(assert_instant);
}

/// The instant is written in 27 characters, and read back as itself.
pub fn assert_instant(instant: Timestamp) {
    let text = instant.to_string();
    assert_eq!(text.len(), "2026-11-22T10:00:00.000000Z".len(), "{text}");
    assert_eq!(text.parse(), Ok(instant), "{text}");
}
