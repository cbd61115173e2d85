//! Bodies of Adobe Journey Optimizer.
//!
//! The input is a body. Whatever it is:
//! - it gives events, a reason, or both, and the same every time;
//! - an array is read as its elements are by themselves, in their order;
//! - an id is never empty, a status is one we know, and there is no version;
//! - the provider's words hold nothing that could be an address or a number;
//! - with a tenant configured, exactly the events of that tenant are left;
//! - a reason is one of a known few, so no value can be part of it.

use receiptd::callback::{Event, Kind, News};
use receiptd::provider::notify::is_known_status;
use receiptd::provider::{self, Dialect, Provider, Reading};
use serde_json::value::RawValue;

use super::oracle;

/// Ranks there are: stages times severities.
const RANKS: u8 = 6 * 4;

/// Whatever does not end in what is wrong with a word.
const REASONS: [&str; 11] = [
    "the body is not UTF-8",
    "the body is not JSON",
    "not a JSON object",
    "an empty array",
    "more than 16384 events",
    "messageDeliveryFeedback is missing or not an object",
    "imsOrg is not the one configured",
    "sandbox.name is not the one configured",
    "neither messageProfileID nor requestId is there",
    "neither messageProfileID nor a destination is there",
    "feedbackStatus.value is missing or empty",
];

/// Checks one body.
pub fn check(body: &[u8]) {
    let open = Dialect::from(Provider::Ajo);
    let reading = provider::read(&open, body);
    assert_eq!(provider::read(&open, body), reading);
    assert!(!reading.events.is_empty() || reading.unrecognised.is_some());
    if let Some(reason) = &reading.unrecognised {
        assert!(is_known(reason), "{reason}");
    }
    reading.events.iter().for_each(check_event);
    let padded = [body, b" \r\n\t".as_slice()].concat();
    assert_eq!(provider::read(&open, &padded), reading, "padded");
    check_array(&open, body, &reading);
    check_tenant(body, &reading);
}

fn is_known(reason: &str) -> bool {
    let reason = match reason.strip_prefix("event ").and_then(|rest| rest.split_once(": ")) {
        Some((number, reason)) if number.parse::<u16>().is_ok() => reason,
        _ => reason,
    };
    let reason = match reason.split_once("; ") {
        Some((reason, more)) => {
            let number = more.strip_suffix(" more events were not understood");
            assert!(number.is_some_and(|number| number.parse::<u16>().is_ok()), "{more}");
            reason
        }
        None => reason,
    };
    let words = ["is missing or empty", "is not a string", "is not valid Unicode"];
    let keys = ["messageProfileID", "requestId", "messageExecutionID", "feedbackStatus"];
    let is_about = |key: &&str| {
        let rest = reason.strip_prefix(*key).and_then(|rest| rest.strip_prefix(' '));
        rest.is_some_and(|rest| words.contains(&rest))
    };
    REASONS.contains(&reason) || keys.iter().any(is_about)
}

fn check_event(event: &Event) {
    assert!(!event.id().is_empty());
    assert_eq!(event.kind(), Kind::Receipt);
    oracle::assert_instants(event);
    let News::Notification(report) = &event.news else { panic!("not a receipt: {event:?}") };
    let Some(standing) = &report.standing else { return };
    assert!(is_known_status(&standing.status), "{}", standing.status);
    assert_eq!(standing.precedence.version, None);
    assert!(standing.precedence.rank < RANKS);
    assert_eq!(standing.precedence.fingerprint, event.fingerprint);
    let words = standing.provider_response.as_deref().expect("the event is always told");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-. /?".contains(c);
    assert!(words.chars().all(is_plain), "{words}");
    for part in words.split('/') {
        assert!(part.chars().filter(char::is_ascii_digit).count() <= 6, "{words}");
    }
}

/// The elements by themselves come to the same. An array within the array is no event, though by
/// itself it would be an array of events.
fn check_array(open: &Dialect, body: &[u8], reading: &Reading) {
    let Ok(text) = std::str::from_utf8(body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)) else {
        return;
    };
    if !text.trim_ascii_start().starts_with('[') {
        return;
    }
    let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(text) else { return };
    let alone: Vec<Event> = elements
        .iter()
        .filter(|element| !element.get().starts_with('['))
        .flat_map(|element| provider::read(open, element.get().as_bytes()).events)
        .collect();
    assert_eq!(reading.events, alone);
}

fn check_tenant(body: &[u8], reading: &Reading) {
    let tenant = Dialect {
        provider: Provider::Ajo,
        ims_org: Some("ours".to_owned()),
        sandbox: Some("prod".to_owned()),
    };
    let ours = provider::read(&tenant, body);
    let mut all = reading.events.iter();
    assert!(ours.events.iter().all(|event| all.any(|other| other == event)));
    let Some(tree) = oracle::tree(body).filter(serde_json::Value::is_object) else { return };
    let is_ours = tree["imsOrg"] == "ours" && tree["sandbox"]["name"] == "prod";
    assert_eq!(ours.events.len(), if is_ours { reading.events.len() } else { 0 });
}
