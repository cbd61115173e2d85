//! Adobe Journey Optimizer: feedback on messages, one event or an array of them in a body.
//!
//! Adobe documents neither retries nor order nor batching, and an event has no clock. So order is
//! taken from what an event can follow (the module `feedback`), never from when it came. No field
//! names the message in every payload; where `messageProfileID` is missing, the id is made of those
//! that together do.
//!
//! Promises: the elements of an array stand or fall alone; no address becomes part of an id, of a
//! reason or of `provider_response`; an event that moves no status is still a receipt.

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::feedback;
use super::json::{self, Object};
use super::{CALLBACK_EVENTS_MAX, Dialect, Reading, Reason};
use crate::callback::{Event, Fingerprint, Identity, Kind, News, Report};

/// Reads one body.
pub fn read(dialect: &Dialect, body: &[u8]) -> Reading {
    let raw = match json::document(body) {
        Ok(raw) => raw,
        Err(problem) => return Reading::unrecognised(problem),
    };
    match json::array(raw) {
        Some(elements) => read_array(dialect, &elements),
        None => match event(dialect, raw) {
            Ok(event) => Reading { events: vec![event], unrecognised: None },
            Err(reason) => Reading::unrecognised(reason),
        },
    }
}

/// Reads each element by itself. The reason names the first that was not understood: a body can
/// hold thousands, and one sentence must stay one.
fn read_array(dialect: &Dialect, elements: &[&RawValue]) -> Reading {
    if elements.is_empty() {
        return Reading::unrecognised("an empty array");
    }
    if elements.len() > CALLBACK_EVENTS_MAX {
        return Reading::unrecognised(format!("more than {CALLBACK_EVENTS_MAX} events"));
    }
    let mut reading = Reading::default();
    let mut problems = Vec::new();
    for (element, number) in elements.iter().zip(1..) {
        match event(dialect, element) {
            Ok(event) => reading.events.push(event),
            Err(reason) => problems.push((number, reason)),
        }
    }
    reading.unrecognised = problems.first().map(|(number, reason): &(usize, Reason)| {
        let more = match problems.len() - 1 {
            0 => String::new(),
            more => format!("; {more} more events were not understood"),
        };
        format!("event {number}: {reason}{more}").into()
    });
    reading
}

fn event(dialect: &Dialect, raw: &RawValue) -> Result<Event, Reason> {
    // Of the element alone, so that an event is the same by itself and within an array.
    let fingerprint = Fingerprint::of(raw.get().as_bytes());
    let object = Object::of(raw)?;
    check_tenant(dialect, &object)?;
    let delivery = object
        .object("messageDeliveryFeedback")
        .ok_or("messageDeliveryFeedback is missing or not an object")?;
    let destination = destination(&object);
    let channel = object.text("channel");
    let by_email = channel.as_deref().is_some_and(|word| word.eq_ignore_ascii_case("email"));
    let report = Report {
        kind: Kind::Receipt,
        id: message_id(&object, destination.as_deref())?,
        standing: feedback::standing(by_email, &delivery, fingerprint)?,
        identity: Identity {
            reference: object.text("requestId"),
            recipient: destination,
            notification_type: channel,
            ..Identity::default()
        },
        complained_at: None,
    };
    Ok(Event { fingerprint, news: News::Notification(Box::new(report)) })
}

/// Events of another tenant at our address are a mistake in somebody's set-up. They are kept, but
/// settle nothing here.
fn check_tenant(dialect: &Dialect, object: &Object<'_>) -> Result<(), Reason> {
    if dialect.ims_org.is_some() && object.text("imsOrg") != dialect.ims_org {
        return Err("imsOrg is not the one configured".into());
    }
    let sandbox = object.object("sandbox").unwrap_or_default();
    if dialect.sandbox.is_some() && sandbox.text("name") != dialect.sandbox {
        return Err("sandbox.name is not the one configured".into());
    }
    Ok(())
}

/// The id of the message: `messageProfileID` where there is one, else request, execution and a
/// digest of the destination, so that no address is readable in an id. Without a destination the
/// recipients of one request could not be told apart, and the bounce of one would become the status
/// of another: such an event settles nothing. A missing execution leaves its place empty.
fn message_id(object: &Object<'_>, destination: Option<&str>) -> Result<String, Reason> {
    let execution = object.object("messageExecution").unwrap_or_default();
    if let Some(profile) = execution.word("messageProfileID")? {
        return Ok(profile);
    }
    let request =
        object.word("requestId")?.ok_or("neither messageProfileID nor requestId is there")?;
    let destination = destination.ok_or("neither messageProfileID nor a destination is there")?;
    let execution = execution.word("messageExecutionID")?.unwrap_or_default();
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(destination)[..8]);
    Ok(format!("{request}:{execution}:{digest}"))
}

/// The address or number the message went to, else the primary identity of the profile.
fn destination(object: &Object<'_>) -> Option<String> {
    let context = object.object("channelContext").unwrap_or_default();
    ["profileAddress", "profileNumber"]
        .into_iter()
        .find_map(|key| context.text(key).filter(|text| !text.is_empty()))
        .or_else(|| primary_identity(&object.object("identityMap")?))
}

/// The identity marked primary in any namespace, else the first of all. The namespaces themselves
/// are not looked at: their letter case varies, and there may be custom ones.
fn primary_identity(namespaces: &Object<'_>) -> Option<String> {
    let mut first = None;
    for (_, raw) in namespaces.entries() {
        let entries = json::array(raw).unwrap_or_default();
        for entry in entries.into_iter().filter_map(|entry| Object::of(entry).ok()) {
            let Some(id) = entry.text("id").filter(|id| !id.is_empty()) else { continue };
            if entry.text("primary").as_deref() == Some("true") {
                return Some(id);
            }
            first.get_or_insert(id);
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Provider;

    const ADDRESS: &str = "someone@example.gc.ca";

    fn dialect() -> Dialect {
        Provider::Ajo.into()
    }

    /// An event with these members beside its feedback.
    fn body(members: &str) -> String {
        format!(
            r#"{{"messageDeliveryFeedback":{{"feedbackStatus":{{"value":"sent"}}}},{members}}}"#
        )
    }

    fn report(body: &str) -> Report {
        match read(&dialect(), body.as_bytes()).events.pop().map(|event| event.news) {
            Some(News::Notification(report)) => *report,
            other => panic!("expected a report, got {other:?}"),
        }
    }

    fn reason(dialect: &Dialect, body: &str) -> String {
        let reading = read(dialect, body.as_bytes());
        assert_eq!(reading.events, [], "{body}");
        reading.unrecognised.unwrap().into_owned()
    }

    #[test]
    fn the_profile_id_is_the_id_where_there_is_one() {
        let members = r#""requestId":"r","messageExecution":{"messageProfileID":"p"}"#;
        assert_eq!(report(&body(members)).id, "p");
    }

    #[test]
    fn without_a_profile_id_the_destination_tells_recipients_apart_and_cannot_be_read() {
        let with = |address: &str| {
            report(&body(&format!(
                r#""requestId":"r","messageExecution":{{"messageExecutionID":"H-1",
                "messageProfileID":null}},"channelContext":{{"profileAddress":"{address}"}}"#
            )))
        };
        // The first 16 digits of `printf someone@example.gc.ca | sha256sum`.
        assert_eq!(with(ADDRESS).id, "r:H-1:26d4be865e167513");
        assert_ne!(with(ADDRESS).id, with("another@example.gc.ca").id);
        assert_eq!(with(ADDRESS).identity.recipient.as_deref(), Some(ADDRESS));
    }

    #[test]
    fn an_event_that_names_no_message_is_unrecognised() {
        for (members, expected) in [
            (r#""requestId":null"#, "neither messageProfileID nor requestId is there"),
            (r#""requestId":"r""#, "neither messageProfileID nor a destination is there"),
            (
                r#""requestId":5,"channelContext":{"profileNumber":"1"}"#,
                "requestId is not a string",
            ),
            (r#""messageExecution":{"messageProfileID":{}}"#, "messageProfileID is not a string"),
        ] {
            assert_eq!(reason(&dialect(), &body(members)), expected);
        }
    }

    #[test]
    fn the_destination_is_the_first_that_is_not_empty_of_context_and_primary_identity() {
        let recipient = |members: &str| {
            report(&body(&format!(r#""messageExecution":{{"messageProfileID":"p"}},{members}"#)))
                .identity
                .recipient
        };
        for (members, expected) in [
            (r#""channelContext":{"profileAddress":"a","profileNumber":"n"}"#, Some("a")),
            (r#""channelContext":{"profileAddress":"","profileNumber":"n"}"#, Some("n")),
            (r#""channelContext":null,"identityMap":{"Phone":[{"id":"i"}]}"#, Some("i")),
            (
                r#""identityMap":{"ECID":[{"id":"x","primary":false}],
                "EMAIL":[{"id":"y"},{"id":"z","primary":true}]}"#,
                Some("z"),
            ),
            (r#""identityMap":{"a":[{"id":null},{"id":""},3],"b":7,"c":[{"id":"i"}]}"#, Some("i")),
            (r#""identityMap":[]"#, None),
        ] {
            assert_eq!(recipient(members).as_deref(), expected, "{members}");
        }
    }

    #[test]
    fn an_event_of_another_tenant_is_unrecognised() {
        let members = r#""imsOrg":"ours","sandbox":{"name":"prod"},
            "messageExecution":{"messageProfileID":"p"}"#;
        let of = |org: &str, sandbox: &str| Dialect {
            ims_org: Some(org.into()),
            sandbox: Some(sandbox.into()),
            ..dialect()
        };
        assert_eq!(read(&of("ours", "prod"), body(members).as_bytes()).unrecognised, None);
        assert_eq!(
            reason(&of("theirs", "prod"), &body(members)),
            "imsOrg is not the one configured"
        );
        assert_eq!(
            reason(&of("ours", "dev"), &body(members)),
            "sandbox.name is not the one configured"
        );
        let untold = body(r#""messageExecution":{"messageProfileID":"p"}"#);
        assert_eq!(reason(&of("ours", "prod"), &untold), "imsOrg is not the one configured");
    }

    #[test]
    fn elements_of_an_array_stand_or_fall_alone() {
        let good = body(r#""messageExecution":{"messageProfileID":"p"}"#);
        let array = format!(r#"[{good}, {{}}, {good}, [{good}], null]"#);
        let reading = read(&dialect(), array.as_bytes());
        assert_eq!(reading.events.len(), 2);
        assert_eq!(
            reading.unrecognised.as_deref(),
            Some(
                "event 2: messageDeliveryFeedback is missing or not an object; \
                 2 more events were not understood"
            )
        );
        assert_eq!(reading.events[0], read(&dialect(), good.as_bytes()).events[0]);
    }

    #[test]
    fn the_number_of_events_is_bounded() {
        let good = body(r#""messageExecution":{"messageProfileID":"p"}"#);
        let array = |events| format!("[{}]", vec![good.as_str(); events].join(","));
        let full = read(&dialect(), array(CALLBACK_EVENTS_MAX).as_bytes());
        assert_eq!((full.events.len(), full.unrecognised), (CALLBACK_EVENTS_MAX, None));
        let over = reason(&dialect(), &array(CALLBACK_EVENTS_MAX + 1));
        assert_eq!(over, "more than 16384 events");
        assert_eq!(reason(&dialect(), "[]"), "an empty array");
    }

    #[test]
    fn what_is_no_feedback_is_unrecognised() {
        for body in [
            r#"{"type":"mo_text","body":"STOP"}"#,
            r#"{"requestId":"r","messageDeliveryFeedback":null}"#,
            r#"{"requestId":"r","messageDeliveryFeedback":"sent"}"#,
        ] {
            let expected = "messageDeliveryFeedback is missing or not an object";
            assert_eq!(reason(&dialect(), body), expected);
        }
        assert_eq!(reason(&dialect(), "7"), "not a JSON object");
        assert_eq!(reason(&dialect(), "[{}"), "the body is not JSON");
    }
}
