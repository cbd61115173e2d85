//! The JSON: the keys and the types of the platforms, and null where nobody knows.

use std::path::Path;

use serde_json::{Value, json};

use crate::world::{PASSPORT, VISA, World, came_back, id, receipt, text};

/// An answer of a platform, from its documentation and its code.
fn example(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ask_v2/examples");
    serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
}

/// Both have the same keys, and values of the same types or null.
fn assert_same_shape(ours: &Value, theirs: &Value, path: &str) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let keys = |object: &serde_json::Map<String, Value>| {
                let mut keys: Vec<String> = object.keys().cloned().collect();
                keys.sort();
                keys
            };
            assert_eq!(keys(ours), keys(theirs), "{path}");
            for (key, value) in ours {
                assert_same_shape(value, &theirs[key], &format!("{path}.{key}"));
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            for value in ours {
                assert_same_shape(value, &theirs[0], path);
            }
        }
        (Value::Null, _) | (_, Value::Null) => {}
        (ours, theirs) => {
            let same = std::mem::discriminant(ours) == std::mem::discriminant(theirs);
            assert!(same, "{path}: {ours} is not like {theirs}");
        }
    }
}

#[test]
fn a_notification_has_the_keys_and_types_of_its_platform() {
    let world = World::start();
    world.hear("passport", &[receipt(1, "delivered", "sms", 0)]);
    let mut bounce = receipt(2, "permanent-failure", "email", 0);
    bounce["status_description"] = json!("Blocked");
    bounce["provider_response"] = json!("The email address is on the suppression list");
    world.hear("visa", &[bounce]);

    let govuk = world.read(PASSPORT, &format!("/v2/notifications/{}", id(1)));
    assert_same_shape(&govuk, &example("govuk.get_notification.json"), "");
    assert_eq!(
        govuk,
        json!({
            "id": id(1), "reference": "reference-1", "email_address": null,
            "phone_number": "07700900111", "line_1": null, "line_2": null, "line_3": null,
            "line_4": null, "line_5": null, "line_6": null, "postcode": null, "postage": null,
            "type": "sms", "status": "delivered",
            "template": {
                "id": "f33517ff-2a88-4f6e-b855-c550268ce08a", "version": 1,
                "uri": "https://api.notifications.service.gov.uk/v2/template/\
                    f33517ff-2a88-4f6e-b855-c550268ce08a/version/1",
            },
            "body": null, "subject": null, "created_at": "2026-11-22T00:00:00.000000Z",
            "created_by_name": null, "sent_at": "2026-11-22T00:00:01.000000Z",
            "completed_at": "2026-11-22T00:00:05.000000Z", "scheduled_for": null,
            "is_cost_data_ready": false, "cost_in_pounds": null, "cost_details": {},
            "one_click_unsubscribe_url": null,
        })
    );
    let gc = world.read(VISA, &format!("/v2/notifications/{}", id(2)));
    assert_same_shape(&gc, &example("gcnotify.get_notification.json"), "");
    assert_eq!(gc["status_description"], "Blocked");
    assert_eq!(gc["email_address"], "someone@example.com");
    assert_eq!(gc["phone_number"], Value::Null);
}

#[test]
fn lists_have_the_keys_and_types_of_the_platform_and_an_empty_page_has_no_next() {
    let world = World::start();
    world.hear("passport", &[receipt(1, "delivered", "sms", 0), text(9, 3)]);
    let filters = "/v2/notifications?template_type=sms&status=delivered";
    let page = world.read(PASSPORT, filters);
    assert_same_shape(&page, &example("govuk.get_notifications.json"), "");
    let base = "http://receipts.example:9090/v2";
    assert_eq!(
        page["links"]["current"],
        format!("{base}/notifications?template_type=sms&status=delivered")
    );
    assert_eq!(
        page["links"]["next"],
        format!("{base}/notifications?older_than={}&template_type=sms&status=delivered", id(1))
    );
    let last = format!("/v2/notifications?older_than={}", id(1));
    assert_eq!(
        world.read(PASSPORT, &last),
        json!({"notifications": [], "links": {"current": format!("{base}/notifications?older_than={}", id(1))}})
    );
    let texts = world.read(PASSPORT, "/v2/received-text-messages");
    assert_same_shape(&texts, &example("govuk.received_text_messages.json"), "");
    assert_eq!(
        texts["received_text_messages"][0],
        json!({
            "id": id(9), "created_at": "2026-11-22T00:00:03.000000Z",
            "service_id": PASSPORT.service, "notify_number": "07900900002",
            "user_number": "447700900111", "content": "Hi",
        })
    );
    let next = format!("{base}/received-text-messages?older_than={}", id(9));
    assert_eq!(texts["links"]["next"], next);
}

#[test]
fn behind_a_proxy_that_speaks_tls_links_begin_with_https() {
    let world = World::start();
    let lines =
        format!("authorization: Bearer {}\r\nx-forwarded-proto: https\r\n", PASSPORT.token());
    let answer = world.ask("GET", "/v2/notifications", &lines);
    assert!(answer.text().contains("\"https://receipts.example:9090/v2/notifications\""));
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[test]
fn completed_at_is_null_until_a_message_was_sent_as_on_the_platforms() {
    let world = World::start();
    let statuses = ["created", "sending", "pending", "sent", "delivered", "temporary-failure"];
    let receipts: Vec<Value> =
        (0..).zip(statuses).map(|(at, status)| receipt(at, status, "email", at)).collect();
    world.hear("passport", &receipts);
    for (at, status) in (0..).zip(statuses) {
        let found = world.read(PASSPORT, &format!("/v2/notifications/{}", id(at)));
        assert_eq!(found["status"], status);
        assert_eq!(found["completed_at"].is_null(), at < 3, "{status}");
    }
}

#[test]
fn a_letter_is_shown_and_found_by_the_platforms_words_for_letters() {
    let world = World::start();
    let of = [
        ("created", "letter"),
        ("sending", "letter"),
        ("delivered", "letter"),
        // As the platform shows them when it is asked.
        ("accepted", "letter"),
        ("received", "letter"),
        ("returned-letter", "letter"),
        ("sending", "email"),
        ("delivered", "email"),
    ];
    let receipts: Vec<Value> =
        (0..).zip(of).map(|(at, (status, kind))| receipt(at, status, kind, at)).collect();
    world.hear("passport", &receipts);
    let shown = ["accepted", "accepted", "received", "accepted", "received", "returned-letter"];
    for (at, word) in (0..).zip(shown.into_iter().chain(["sending", "delivered"])) {
        let found = world.read(PASSPORT, &format!("/v2/notifications/{}", id(at)));
        assert_eq!(found["status"], word, "{at}");
        let has_ended = !["accepted", "sending"].contains(&word);
        assert_eq!(!found["completed_at"].is_null(), has_ended, "{at}");
    }
    for (asked, rows) in [
        ("accepted", &[6, 3, 1, 0][..]),
        ("created", &[3, 0]),
        ("sending", &[6, 3, 1]),
        ("delivered", &[7, 4, 2]),
        ("received", &[7, 4, 2]),
        ("received&template_type=letter", &[4, 2]),
        ("returned-letter", &[5]),
        ("failed", &[5]),
    ] {
        let ids = world.ids(PASSPORT, &format!("/v2/notifications?status={asked}"));
        assert_eq!(ids, rows.iter().map(|at| id(*at)).collect::<Vec<_>>(), "{asked}");
    }
}

#[test]
fn a_recipient_stands_where_its_type_belongs() {
    let world = World::start();
    let mut push = receipt(4, "delivered", "push", 0);
    push["to"] = json!("a device");
    world.hear(
        "passport",
        &[
            receipt(1, "delivered", "email", 0),
            receipt(2, "delivered", "sms", 0),
            receipt(3, "delivered", "letter", 0),
            push,
        ],
    );
    let filled = |number| {
        let found = world.read(PASSPORT, &format!("/v2/notifications/{}", id(number)));
        let keys = ["email_address", "phone_number", "line_1"];
        keys.into_iter().filter(|key| !found[*key].is_null()).collect::<Vec<_>>()
    };
    assert_eq!(
        [filled(1), filled(2), filled(3), filled(4)].concat(),
        ["email_address", "phone_number", "line_1"]
    );
}

/// What no receipt was ever heard of: it is there, with what is known.
#[test]
fn a_notification_known_only_by_a_complaint_or_a_returned_letter_is_answered() {
    let world = World::start();
    world.hear(
        "passport",
        &[
            json!({
                "notification_id": id(1), "complaint_id": id(8), "reference": null,
                "to": "someone@example.com", "complaint_date": "2026-11-22T10:00:00.000000Z",
            }),
            came_back(2),
        ],
    );
    let complaint = world.read(PASSPORT, &format!("/v2/notifications/{}", id(1)));
    let told = ["status", "type", "email_address", "completed_at", "template"];
    assert_eq!(
        told.map(|key| complaint[key].clone()),
        [
            json!("created"),
            json!("email"),
            json!("someone@example.com"),
            Value::Null,
            json!({"id": null, "version": null, "uri": null})
        ]
    );
    assert!(complaint["created_at"].is_string());
    let letter = world.read(PASSPORT, &format!("/v2/notifications/{}", id(2)));
    assert_eq!([&letter["status"], &letter["type"]], ["returned-letter", "letter"]);
    assert_eq!(world.ids(PASSPORT, "/v2/notifications?status=created"), [id(1)]);
    assert_eq!(world.ids(PASSPORT, "/v2/notifications?template_type=email"), [id(1)]);
    assert_eq!(world.ids(PASSPORT, "/v2/notifications?status=failed"), [id(2)]);
}

/// What is told of it afterwards, late or out of order, is lower than that.
#[test]
fn a_letter_that_came_back_stays_a_returned_letter() {
    let world = World::start();
    world.hear("passport", &[came_back(1), came_back(2)]);
    world.hear("passport", &[receipt(1, "received", "letter", 0)]);
    world.hear("passport", &[receipt(2, "sending", "letter", 0)]);
    let found = |number| {
        let letter = world.read(PASSPORT, &format!("/v2/notifications/{}", id(number)));
        (letter["status"].clone(), letter["completed_at"].clone())
    };
    assert_eq!(found(1), (json!("returned-letter"), json!("2026-11-22T00:00:05.000000Z")));
    assert_eq!(
        found(2),
        (json!("returned-letter"), Value::Null),
        "it was not done when it was sent"
    );
    let listed = |status| {
        let mut ids = world.ids(PASSPORT, &format!("/v2/notifications?status={status}"));
        ids.sort();
        ids
    };
    assert_eq!(listed("returned-letter"), [id(1), id(2)]);
    assert_eq!(listed("received"), [""; 0]);
}
