//! The bytes of a callback, as its sender writes them: `json.dumps` of Python for the Notify family
//! (ASCII only, a space after each comma and colon), the documented fields of Adobe.

use super::demo_scenario::{Life, Says};
use crate::provider::Provider;

/// The day on which everything happens.
const DAY: &str = "2026-11-20";

const NULL: &str = "null";

/// The id of the message whose life has this number.
pub fn message_id(number: usize) -> String {
    format!("{number:08x}-3a29-46b4-9a6f-16142fde533a")
}

/// The app's own reference of that message.
pub fn reference(number: usize) -> String {
    format!("demo-{number}")
}

/// The body of a callback in the life with this number.
pub fn body(life: &Life, number: usize, says: Says) -> String {
    let (id, reference) = (message_id(number), reference(number));
    match says {
        Says::Receipt(status, at) => receipt(life.sender.provider, &id, &reference, status, at),
        Says::Event(event) => adobe(&id, &reference, event, NULL),
        Says::LateBounce => {
            let failure = r#"{"category": "async", "type": "Hard", "code": "10",
                "reason": "Invalid Recipient"}"#;
            adobe(&id, &reference, "bounce", failure)
        }
        Says::Complaint => complaint(&id, &reference),
        Says::ReturnedLetter => returned_letter(&id, &reference),
        Says::Text(message) => python(&[
            ("id", &text(id)),
            ("source_number", &text("447700900111")),
            ("destination_number", &text("07700900222")),
            ("message", &text(message)),
            ("date_received", &time("12:30:00.000000")),
        ]),
        Says::Probe => python(&[("health_check", "true")]),
        Says::HalfAReceipt => {
            let whole = receipt(life.sender.provider, &id, &reference, "delivered", "16:00:00Z");
            whole[..whole.len() / 2].to_owned()
        }
    }
}

fn receipt(provider: Provider, id: &str, reference: &str, status: &str, at: &str) -> String {
    let is_gc = provider == Provider::GcNotify;
    let (id, reference, word) = (text(id), text(reference), text(status));
    let to = text(if is_gc { "someone@example.ca" } else { "someone@example.co.uk" });
    let description = text(description(status));
    let (created, completed, sent) = (time("09:00:00.000000"), time(at), time("09:00:01.250000"));
    let template = text("f33517ff-2a88-4f6e-b855-c550268ce08a");
    let mut fields =
        vec![("id", &*id), ("reference", &*reference), ("to", &*to), ("status", &*word)];
    if is_gc {
        fields.extend([("status_description", &*description), ("provider_response", NULL)]);
    }
    fields.extend([
        ("created_at", &*created),
        ("completed_at", &*completed),
        ("sent_at", &*sent),
        ("notification_type", r#""email""#),
    ]);
    if !is_gc {
        fields.extend([("template_id", &*template), ("template_version", "3")]);
    }
    python(&fields)
}

/// GC Notify's sentence for people.
fn description(status: &str) -> &'static str {
    match status {
        "delivered" => "Delivered",
        "permanent-failure" => "No such address",
        _ => "Content or inbox issue",
    }
}

fn complaint(id: &str, reference: &str) -> String {
    python(&[
        ("notification_id", &text(id)),
        ("complaint_id", &text("26785a09-ab16-4eb0-8407-a37497a57506")),
        ("reference", &text(reference)),
        ("to", &text("someone@example.ca")),
        ("complaint_date", &time("15:20:41.000000")),
    ])
}

fn returned_letter(id: &str, reference: &str) -> String {
    python(&[
        ("notification_id", &text(id)),
        ("reference", &text(reference)),
        ("date_sent", &time("09:00:00.000000")),
        ("sent_by", &text("API")),
        ("template_name", NULL),
        ("template_id", &text("None")),
        ("template_version", NULL),
        ("spreadsheet_file_name", NULL),
        ("spreadsheet_row_number", NULL),
        ("upload_letter_file_name", NULL),
    ])
}

fn adobe(id: &str, request: &str, event: &str, failure: &str) -> String {
    format!(
        r#"{{
  "requestId": "{request}",
  "imsOrg": "ExampleOrg@AdobeOrg",
  "sandbox": {{"id": "068abf40-575e-11ea-8512-9b1bfdb82603", "name": "prod"}},
  "channel": "email",
  "eventType": "message.feedback",
  "messageExecution": {{
    "messageExecutionID": "HUMA-26362805",
    "messageProfileID": "{id}",
    "messageType": "transactional",
    "campaignType": "ApiTriggered"
  }},
  "messageDeliveryFeedback": {{
    "feedbackStatus": {{"value": "{event}"}},
    "offers": null,
    "messageExclusion": null,
    "messageFailure": {failure},
    "retryCount": 0,
    "deliveryTimestamp": null
  }},
  "identityMap": {{"email": [{{"id": "someone@example.gc.ca", "primary": true}}]}}
}}"#
    )
}

/// An object as Python's `json.dumps` writes it; the values are JSON already.
fn python(fields: &[(&str, &str)]) -> String {
    let fields: Vec<String> =
        fields.iter().map(|(key, value)| format!(r#""{key}": {value}"#)).collect();
    format!("{{{}}}", fields.join(", "))
}

/// A JSON string of what needs no escape, or has it.
fn text(value: impl AsRef<str>) -> String {
    format!(r#""{}""#, value.as_ref())
}

/// A timestamp of that day, as JSON.
fn time(of_day: &str) -> String {
    format!(r#""{DAY}T{of_day}Z""#)
}

#[cfg(test)]
mod tests {
    use super::super::demo_scenario::LIVES;
    use super::*;

    #[test]
    fn every_body_but_the_broken_one_is_json_in_ascii() {
        for (life, number) in LIVES.iter().zip(1..) {
            for post in life.callbacks {
                let body = body(life, number, post.says);
                assert!(body.is_ascii(), "{body}");
                let is_json = serde_json::from_str::<serde_json::Value>(&body).is_ok();
                assert_eq!(is_json, !matches!(post.says, Says::HalfAReceipt), "{body}");
            }
        }
    }

    #[test]
    fn a_receipt_has_the_keys_of_its_platform_in_their_order() {
        let of = |provider| receipt(provider, "i", "r", "delivered", "16:00:00.000000");
        assert_eq!(
            of(Provider::GcNotify),
            concat!(
                r#"{"id": "i", "reference": "r", "to": "someone@example.ca", "#,
                r#""status": "delivered", "status_description": "Delivered", "#,
                r#""provider_response": null, "created_at": "2026-11-20T09:00:00.000000Z", "#,
                r#""completed_at": "2026-11-20T16:00:00.000000Z", "#,
                r#""sent_at": "2026-11-20T09:00:01.250000Z", "notification_type": "email"}"#
            )
        );
        assert!(of(Provider::GovukNotify).ends_with(
            r#""template_id": "f33517ff-2a88-4f6e-b855-c550268ce08a", "template_version": 3}"#
        ));
    }
}
