//! The Notify family: GOV.UK Notify, GC Notify, US Notify.gov, VA Notify, NotifyNL.
//!
//! All descend from one code base, so one parser reads them all. Nothing in a callback names its
//! kind: the keys it has do, whatever their values. Keys only some platforms send are read wherever
//! they appear, so a platform that adopts another's key needs no change here.
//!
//! Promises: a status is never refused and never translated; an unreadable order is never guessed.
//! Each platform's `completed_at` is its row's `updated_at` whatever the status, which makes it the
//! version of the snapshot; a ranking of statuses alone would be wrong, since moves between
//! terminal states go both ways.

use super::Reading;
use super::json::{self, Object, Problem};
use crate::callback::{
    Event, Fingerprint, Identity, Kind, News, Precedence, ReceivedMessage, Report, Standing,
};

pub use super::signature::{sign, signature_agrees};

/// A probe is 22 or 24 bytes as the senders write it; what is longer than this is kept.
const PROBE_BYTES_MAX: usize = 256;

/// Reads one body.
pub fn read(body: &[u8]) -> Reading {
    let fingerprint = Fingerprint::of(body);
    let news = json::document(body)
        .and_then(Object::of)
        .map_err(super::Reason::from)
        .and_then(|object| news(&object, fingerprint));
    match news {
        Ok(news) => Reading { events: vec![Event { fingerprint, news }], ..Reading::default() },
        Err(reason) => Reading::unrecognised(reason),
    }
}

/// Whether this is the reachability probe of the set-up form: one key, `health_check`, that is true
/// or, as the documentation has it, `"true"`. Anything beside it might be news, and is kept.
pub fn is_probe(body: &[u8]) -> bool {
    if body.len() > PROBE_BYTES_MAX {
        return false;
    }
    let Ok(object) = json::document(body).and_then(Object::of) else { return false };
    object.entries().count() == 1 && object.text("health_check").as_deref() == Some("true")
}

/// Tells the kinds apart. The order matters where a sender adds another kind's key one day: what
/// tells a status is a receipt first.
fn news(object: &Object<'_>, fingerprint: Fingerprint) -> Result<News, super::Reason> {
    let report = if object.has("status") && object.has("notification_type") {
        receipt(object, fingerprint)
    } else if object.has("source_number") {
        return Ok(News::Message(Box::new(received_message(object)?)));
    } else if object.has("complaint_id") {
        complaint(object)
    } else if object.has("date_sent") && object.has("template_name") {
        returned_letter(object)
    } else if object.has("health_check") {
        return Err("a reachability probe, not a callback".into());
    } else {
        return Err("the keys are those of no known kind of callback".into());
    };
    Ok(News::Notification(Box::new(report?)))
}

fn receipt(object: &Object<'_>, fingerprint: Fingerprint) -> Result<Report, Problem> {
    let id = object.required_word("id")?;
    let status = object.required_word("status")?;
    // The version decides which receipt wins. One that cannot be read must not count as none: an
    // old status could then stand for ever.
    let completed_at = object.timestamp("completed_at")?;
    let rank = rank(&status);
    Ok(Report {
        kind: Kind::Receipt,
        id,
        identity: identity(object),
        standing: Some(Standing {
            precedence: Precedence { version: completed_at, rank, fingerprint },
            status,
            status_description: first_text(object, ["status_description", "status_reason"]),
            provider_response: first_text(object, ["provider_response", "provider_payload"]),
            completed_at,
            sent_at: object.timestamp("sent_at").unwrap_or(None),
        }),
        complained_at: None,
    })
}

/// The order of statuses between receipts of one version. A word that is not listed ranks with
/// `sent`: above what is still under way, below every known end.
pub(super) fn rank(status: &str) -> u8 {
    known_rank(status).unwrap_or(SENT)
}

const SENT: u8 = 4;

fn known_rank(status: &str) -> Option<u8> {
    Some(match status {
        "created" => 0,
        "pending-virus-check" => 1,
        "sending" => 2,
        "pending" => 3,
        // The last two are words of the read API.
        "sent" | "accepted" | "received" => SENT,
        "temporary-failure" | "failed" => 5,
        "delivered" => 6,
        "technical-failure" | "provider-failure" | "validation-failure" | "validation-failed"
        | "virus-scan-failed" | "pii-check-failed" | "cancelled" => 7,
        "permanent-failure" => 8,
        "returned-letter" => 9,
        _ => return None,
    })
}

/// What `failed` stands for where it is asked for: what GOV.UK Notify's read API lists under that word,
/// and the words of its relatives that say the same.
pub const FAILURES: [&str; 10] = [
    "failed",
    "temporary-failure",
    "permanent-failure",
    "technical-failure",
    "provider-failure",
    "validation-failure",
    "validation-failed",
    "virus-scan-failed",
    "pii-check-failed",
    "returned-letter",
];

/// Whether this is a status word that some platform of the family is known to use. The others are
/// kept as sent, and counted, because somebody should look at them.
pub fn is_known_status(word: &str) -> bool {
    known_rank(word).is_some()
}

fn complaint(object: &Object<'_>) -> Result<Report, Problem> {
    Ok(Report {
        kind: Kind::Complaint,
        id: object.required_word("notification_id")?,
        identity: identity(object),
        standing: None,
        complained_at: object.timestamp("complaint_date").unwrap_or(None),
    })
}

fn returned_letter(object: &Object<'_>) -> Result<Report, Problem> {
    Ok(Report {
        kind: Kind::ReturnedLetter,
        id: object.required_word("notification_id")?,
        identity: Identity { notification_type: Some("letter".into()), ..identity(object) },
        standing: None,
        complained_at: None,
    })
}

fn received_message(object: &Object<'_>) -> Result<ReceivedMessage, Problem> {
    Ok(ReceivedMessage {
        id: object.required_word("id")?,
        source_number: object.text("source_number"),
        destination_number: object.text("destination_number"),
        message: object.text("message"),
        date_received: object.timestamp("date_received").unwrap_or(None),
    })
}

/// The fields every kind about a notification may have. None is essential, so a value that cannot
/// be read counts as missing.
fn identity(object: &Object<'_>) -> Identity {
    Identity {
        reference: object.text("reference"),
        recipient: object.text("to"),
        notification_type: object.text("notification_type"),
        // Returned letters without a template carry Python's `str(None)`.
        template_id: object.text("template_id").filter(|id| id != "None"),
        template_version: object.integer("template_version"),
        created_at: object.timestamp("created_at").unwrap_or(None),
    }
}

/// The first of these that is there: platforms name the same thing differently.
pub(super) fn first_text(object: &Object<'_>, keys: [&str; 2]) -> Option<String> {
    keys.into_iter().find_map(|key| object.text(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(body: &str) -> Report {
        match read(body.as_bytes()).events.pop().map(|event| event.news) {
            Some(News::Notification(report)) => *report,
            other => panic!("expected a report, got {other:?}"),
        }
    }

    fn reason(body: &str) -> String {
        let reading = read(body.as_bytes());
        assert_eq!(reading.events, []);
        reading.unrecognised.unwrap().into_owned()
    }

    fn standing(extra: &str) -> Standing {
        let body = format!(r#"{{"id":"n","status":"sent","notification_type":"sms"{extra}}}"#);
        report(&body).standing.unwrap()
    }

    #[test]
    fn the_kind_is_told_by_the_keys_even_if_their_values_are_null() {
        let letter = r#"{"notification_id":"n","date_sent":null,"template_name":null}"#;
        assert_eq!(report(letter).kind, Kind::ReturnedLetter);
        let complaint = r#"{"notification_id":"n","complaint_id":null}"#;
        assert_eq!(report(complaint).kind, Kind::Complaint);
        let receipt = r#"{"id":"n","status":"new-word","notification_type":null}"#;
        assert_eq!(report(receipt).kind, Kind::Receipt);
        let message = read(br#"{"id":"m","source_number":null}"#);
        assert_eq!(message.events[0].kind(), Kind::ReceivedMessage);
    }

    #[test]
    fn a_status_makes_a_receipt_whatever_other_keys_come_with_it() {
        let body = r#"{"id":"n","status":"sent","notification_type":"sms","source_number":"1",
            "complaint_id":"c","date_sent":"","template_name":"","health_check":true}"#;
        assert_eq!(report(body).kind, Kind::Receipt);
    }

    #[test]
    fn a_received_message_keeps_every_character() {
        let body = br#"{"id": "m", "source_number": "447700900111", "destination_number":
            "07700987654", "message": "caf\u00e9 \ud83d\ude00", "date_received":
            "2017-06-20T12:30:00.000000Z"}"#;
        let expected = ReceivedMessage {
            id: "m".into(),
            source_number: Some("447700900111".into()),
            destination_number: Some("07700987654".into()),
            message: Some("café 😀".into()),
            date_received: Some("2017-06-20T12:30:00Z".parse().unwrap()),
        };
        assert_eq!(read(body).events[0].news, News::Message(Box::new(expected)));
    }

    #[test]
    fn a_received_message_may_come_from_a_name() {
        let reading = read(br#"{"id":"m","source_number":"TAXOFFICE","date_received":"soon"}"#);
        let News::Message(message) = &reading.events[0].news else { panic!("{reading:?}") };
        assert_eq!(message.source_number.as_deref(), Some("TAXOFFICE"));
        assert_eq!(message.date_received, None);
    }

    #[test]
    fn an_unreadable_version_is_not_guessed() {
        for value in [r#""soon""#, "1494764133", "true", r#""""#, "{}", r#""2017-05-14""#] {
            let body = format!(
                r#"{{"id":"n","status":"sent","notification_type":"sms","completed_at":{value}}}"#
            );
            assert_eq!(reason(&body), "completed_at is not a timestamp", "{value}");
        }
        assert_eq!(standing(r#","completed_at":null"#).precedence.version, None);
    }

    #[test]
    fn other_unreadable_fields_count_as_missing() {
        let standing = standing(r#","sent_at":"soon","created_at":12,"template_version":"v1""#);
        assert_eq!(standing.sent_at, None);
        let complaint = report(r#"{"notification_id":"n","complaint_id":1,"complaint_date":"x"}"#);
        assert_eq!(complaint.complained_at, None);
    }

    #[test]
    fn the_platforms_names_for_the_cause_are_read_alike() {
        let gc = standing(r#","status_description":"Blocked","provider_response":"listed""#);
        assert_eq!(gc.status_description.as_deref(), Some("Blocked"));
        assert_eq!(gc.provider_response.as_deref(), Some("listed"));
        let va = standing(r#","status_reason":"Blocked","provider_payload":{"key": "value"}"#);
        assert_eq!(va.status_description.as_deref(), Some("Blocked"));
        assert_eq!(va.provider_response.as_deref(), Some(r#"{"key": "value"}"#));
        assert_eq!(standing(r#","provider_payload":null"#).provider_response, None);
    }

    #[test]
    fn what_decides_must_be_there() {
        for (body, expected) in [
            (r#"{"status":"sent","notification_type":"sms"}"#, "id is missing or empty"),
            (r#"{"id":"","status":"s","notification_type":"sms"}"#, "id is missing or empty"),
            (r#"{"id":7,"status":"s","notification_type":"sms"}"#, "id is not a string"),
            (r#"{"id":"n","status":null,"notification_type":""}"#, "status is missing or empty"),
            (r#"{"id":"n","complaint_id":"c"}"#, "notification_id is missing or empty"),
            (r#"{"source_number":"1"}"#, "id is missing or empty"),
            (r#"{"id":"n","status":"sent"}"#, "the keys are those of no known kind of callback"),
            (r#"{"health_check": true}"#, "a reachability probe, not a callback"),
            ("[]", "not a JSON object"),
            ("", "the body is not JSON"),
        ] {
            assert_eq!(reason(body), expected, "{body}");
        }
    }

    #[test]
    fn template_none_is_no_template() {
        let letter = r#"{"notification_id":"n","date_sent":"","template_name":null,
            "template_id":"None","template_version":"3"}"#;
        let identity = report(letter).identity;
        assert_eq!((identity.template_id, identity.template_version), (None, Some(3)));
        assert_eq!(identity.notification_type.as_deref(), Some("letter"));
    }

    #[test]
    fn only_a_probe_is_a_probe() {
        for body in [r#"{"health_check": true}"#, r#" {"health_check":"true"} "#] {
            assert!(is_probe(body.as_bytes()), "{body}");
        }
        let padded = format!(r#"{{"health_check": true}}{}"#, " ".repeat(PROBE_BYTES_MAX));
        for body in [
            "",
            "{}",
            "true",
            r#"["health_check"]"#,
            r#"{"health_check": false}"#,
            r#"{"health_check": null}"#,
            r#"{"health_check": 1}"#,
            r#"{"health_check": "True"}"#,
            r#"{"health_check": true, "id": "n"}"#,
            r#"[{"health_check": true}]"#,
            &padded,
        ] {
            assert!(!is_probe(body.as_bytes()), "{body}");
        }
    }
}
