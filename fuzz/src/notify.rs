//! Bodies of the Notify family.
//!
//! The input is a body. Whatever it is:
//! - it gives one event or a reason, alike for every platform and every time;
//! - kind, id and status are those that serde_json's own tree of the body shows, and a body is
//!   unrecognised exactly where the tree lacks what decides;
//! - an id is never empty, instants are written in one form, the version is `completed_at`;
//! - white space around the body changes nothing but the fingerprint;
//! - a reason is one of a known few, so no value can be part of it;
//! - only a probe is a probe, and a probe is never news.

use receiptd::callback::{Event, Fingerprint, Kind, News};
use receiptd::clock::Timestamp;
use receiptd::merge::Facts;
use receiptd::provider::{self, Dialect, Provider, notify};
use serde_json::Value;

use super::oracle;

/// Whatever does not name a key.
const REASONS: [&str; 6] = [
    "the body is not UTF-8",
    "the body is not JSON",
    "not a JSON object",
    "the keys are those of no known kind of callback",
    "a reachability probe, not a callback",
    "completed_at is not a timestamp",
];

/// Checks one body.
pub fn check(body: &[u8]) {
    let reading = notify::read(body);
    for provider in Provider::ALL.into_iter().filter(|provider| *provider != Provider::Ajo) {
        assert_eq!(provider::read(&Dialect::from(provider), body), reading, "{provider}");
    }
    match (reading.events.as_slice(), reading.unrecognised.as_deref()) {
        ([event], None) => check_event(event, body),
        ([], Some(reason)) => assert!(is_known(reason), "{reason}"),
        _ => panic!("neither one event nor a reason: {reading:?}"),
    }
    if let Some(tree) = oracle::tree(body) {
        let read = reading.events.first().map(|event| (event.kind(), event.id().to_owned()));
        assert_eq!(read, expected(&tree), "{tree}");
    }
    let padded = [body, b" \r\n\t".as_slice()].concat();
    let same = oracle::without_fingerprints(reading.clone());
    assert_eq!(oracle::without_fingerprints(notify::read(&padded)), same);
    if notify::is_probe(body) {
        assert_eq!(reading.events, []);
        let tree = oracle::tree(body);
        let probes = [r#"{"health_check":true}"#, r#"{"health_check":"true"}"#];
        assert!(tree.is_none_or(|tree| probes.contains(&tree.to_string().as_str())));
    }
}

fn is_known(reason: &str) -> bool {
    let about = |key: &str| reason.strip_prefix(key).and_then(|rest| rest.strip_prefix(' '));
    let words = ["is missing or empty", "is not a string", "is not valid Unicode"];
    REASONS.contains(&reason)
        || ["id", "status", "notification_id"]
            .into_iter()
            .any(|key| about(key).is_some_and(|rest| words.contains(&rest)))
}

fn check_event(event: &Event, body: &[u8]) {
    assert!(!event.id().is_empty());
    assert_eq!(event.fingerprint, Fingerprint::of(body));
    oracle::assert_instants(event);
    let News::Notification(report) = &event.news else { return };
    assert_eq!(report.kind == Kind::Receipt, report.standing.is_some());
    if let Some(standing) = &report.standing {
        assert!(!standing.status.is_empty());
        assert_eq!(standing.precedence.version, standing.completed_at);
        assert_eq!(standing.precedence.fingerprint, event.fingerprint);
        if let Some(tree) = oracle::tree(body) {
            assert_eq!(oracle::text(&tree, "status"), Ok(Some(standing.status.as_str())));
        }
    }
    let facts = Facts::of((**report).clone(), oracle::now());
    assert_eq!(facts.clone().join(facts.clone()), facts);
    assert_eq!(facts.clone().join(Facts::default()), facts);
    assert_eq!(Facts::default().join(facts.clone()), facts);
}

/// Kind and id by the tree, if it holds all that decides.
fn expected(tree: &Value) -> Option<(Kind, String)> {
    let has = |key: &str| tree.get(key).is_some();
    let (kind, key) = if has("status") && has("notification_type") {
        (Kind::Receipt, "id")
    } else if has("source_number") {
        (Kind::ReceivedMessage, "id")
    } else if has("complaint_id") {
        (Kind::Complaint, "notification_id")
    } else if has("date_sent") && has("template_name") {
        (Kind::ReturnedLetter, "notification_id")
    } else {
        return None;
    };
    let word = |key| oracle::text(tree, key).ok().flatten().filter(|word| !word.is_empty());
    if kind == Kind::Receipt {
        word("status")?;
        let version = oracle::text(tree, "completed_at").ok()?;
        version.is_none_or(|text| text.parse::<Timestamp>().is_ok()).then_some(())?;
    }
    Some((kind, word(key)?.to_owned()))
}
