//! One notification, waited for, and what was told of it.

use std::time::{Duration, Instant};

use receiptd::state::read::NotificationRow;
use serde_json::{Value, json};

use crate::support::Client;
use crate::world::{Key, PASSPORT, VISA, World, came_back, id, receipt};

fn path(number: u64, wait: &str) -> String {
    let query = if wait.is_empty() { String::new() } else { format!("?wait={wait}") };
    format!("/v1/notifications/{}{query}", id(number))
}

/// A question that is asked, and not waited for.
fn asked(world: &World, key: Key, path: &str) -> Client {
    let mut client = Client::connect(world.receiver.admin);
    client.send(format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        key.token()
    ));
    client
}

#[test]
fn a_notification_has_the_columns_of_the_public_table() {
    let world = World::start();
    world.hear("passport", &[receipt(1, "delivered", "sms", 0)]);
    let found = world.read(PASSPORT, &path(1, ""));
    let columns = NotificationRow::COLUMNS;
    let keys: Vec<&String> = found.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), columns.len(), "{keys:?}");
    assert!(columns.iter().all(|column| found.get(column).is_some()), "{keys:?}");
    assert_eq!(found["completed_at"], "2026-11-22T00:00:05.000000Z");
}

#[test]
fn a_wait_ends_with_a_final_status_and_not_before() {
    let world = World::start();
    world.hear("passport", &[receipt(1, "sending", "sms", 0)]);
    let began = Instant::now();
    let mut waiting = asked(&world, PASSPORT, &path(1, "60s"));
    let mut unknown = asked(&world, PASSPORT, &path(2, "60s"));
    // News of others, and news that is not final.
    world.hear("passport", &[receipt(3, "delivered", "sms", 0)]);
    let mut pending = receipt(1, "pending", "sms", 0);
    pending["completed_at"] = json!("2026-11-22T00:00:06.000000Z");
    let mut delivered = receipt(1, "delivered", "sms", 0);
    delivered["completed_at"] = json!("2026-11-22T00:00:07.000000Z");
    world.hear("passport", &[pending]);
    world.hear("passport", &[delivered, receipt(2, "permanent-failure", "sms", 0)]);
    for (client, status) in [(&mut waiting, "delivered"), (&mut unknown, "permanent-failure")] {
        let answer = client.answer();
        assert_eq!(answer.status, 200);
        let found: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(found["status"], status);
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn a_wait_ends_with_a_text_that_is_sent_and_not_with_an_email() {
    let world = World::start();
    world.hear("passport", &[receipt(1, "sent", "sms", 0), receipt(2, "sent", "email", 0)]);
    let began = Instant::now();
    assert_eq!(world.read(PASSPORT, &path(1, "60s"))["status"], "sent");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let mut waiting = asked(&world, PASSPORT, &path(2, "60s"));
    let mut delivered = receipt(2, "delivered", "email", 0);
    delivered["completed_at"] = json!("2026-11-22T00:00:07.000000Z");
    world.hear("passport", &[delivered]);
    let found: Value = serde_json::from_slice(&waiting.answer().body).unwrap();
    assert_eq!(found["status"], "delivered");
}

#[test]
fn a_wait_ends_with_a_letter_that_came_back() {
    let world = World::start();
    let mut waiting = asked(&world, PASSPORT, &path(1, "60s"));
    let began = Instant::now();
    world.hear("passport", &[receipt(1, "sending", "letter", 0), came_back(1)]);
    let found: Value = serde_json::from_slice(&waiting.answer().body).unwrap();
    assert!(found["returned_at"].is_string(), "{found}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn a_wait_that_is_over_tells_what_is_known() {
    let world = World::start();
    world.hear("passport", &[receipt(1, "sending", "sms", 0)]);
    let began = Instant::now();
    let found = world.read(PASSPORT, &path(1, "300ms"));
    assert_eq!(found["status"], "sending");
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(world.get(&path(2, "50ms"), &PASSPORT.token()).status, 404);
    assert_eq!(world.get(&path(1, "50ms"), &VISA.token()).status, 404, "another's");
}

#[test]
fn so_many_of_a_source_may_wait_and_others_are_still_answered() {
    let world = World::start();
    // Half of the places: there is another source.
    let mut waiting: Vec<Client> =
        (0..32).map(|_| asked(&world, PASSPORT, &path(1, "20s"))).collect();
    // All of them have a place once one more has none.
    let refused = || world.get(&path(1, "0s"), &PASSPORT.token()).status == 503;
    crate::support::eventually("a refusal", refused);
    assert_eq!(world.get(&path(1, ""), &PASSPORT.token()).status, 404);
    assert_eq!(world.receiver.admin("/readyz").status, 200);
    world.hear("passport", &[receipt(1, "delivered", "sms", 0)]);
    for client in &mut waiting {
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn what_was_told_of_a_notification_is_listed_with_its_repeats() {
    let world = World::start();
    let (sending, delivered) = (receipt(1, "sending", "sms", 0), receipt(1, "delivered", "sms", 9));
    let complaint = json!({
        "notification_id": id(1), "complaint_id": id(8), "reference": null,
        "to": "someone@example.com", "complaint_date": "2026-11-22T10:00:00.000000Z",
    });
    world.hear("passport", &[sending.clone(), delivered]);
    world.hear("visa", &[receipt(2, "delivered", "sms", 0)]);
    world.hear("passport", &[sending, complaint]);
    let path = format!("/v1/notifications/{}/receipts", id(1));
    let told = world.read(PASSPORT, &path);
    assert_eq!(told["has_more"], false);
    let origins = told["receipts"].as_array().unwrap().iter().map(|line| &line["origin"]);
    assert_eq!(origins.collect::<Vec<_>>(), ["called-back"; 4]);
    let lines: Vec<(&str, &Value, bool)> = told["receipts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            let kind = line["kind"].as_str().unwrap();
            (kind, &line["status"], line["duplicate"].as_bool().unwrap())
        })
        .collect();
    assert_eq!(
        lines,
        [
            ("receipt", &json!("sending"), false),
            ("receipt", &json!("delivered"), false),
            ("receipt", &json!("sending"), true),
            ("complaint", &Value::Null, false),
        ]
    );
    let numbers: Vec<&Value> =
        told["receipts"].as_array().unwrap().iter().map(|line| &line["position"]).collect();
    assert_eq!(numbers, [1, 2, 3, 4], "of its own, whatever else is received");
    let behind = world.read(PASSPORT, &format!("{path}?after=2"));
    assert_eq!(behind["receipts"].as_array().unwrap(), &told["receipts"].as_array().unwrap()[2..]);
    let none = world.read(PASSPORT, &format!("{path}?after=9"));
    assert_eq!(none, json!({"receipts": [], "has_more": false}));
    assert_eq!(world.get(&format!("{path}?after=-1"), &PASSPORT.token()).status, 400);
    assert_eq!(world.get(&path, &VISA.token()).status, 404);
}

#[test]
fn what_makes_no_sense_and_who_has_no_key_is_answered_as_under_v2() {
    let world = World::start();
    let token = PASSPORT.token();
    let said = |path: &str, bearer: &str| {
        let answer = world.get(path, bearer);
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["status_code"], answer.status);
        (answer.status, body["errors"][0]["message"].as_str().unwrap().to_owned())
    };
    for (path, status, words) in [
        (path(1, "soon"), 400, "in wait=10s or wait=500ms"),
        (path(1, "61s"), 400, "wait is not a time of at most 60 seconds"),
        (path(1, "1s&wait=2s"), 400, "wait is given more than once; give it once"),
        (format!("{}?x=1", path(1, "")), 400, "x means nothing here; leave it out"),
        (format!("{}/receipts?x=1", path(1, "")), 400, "x means nothing here; leave it out"),
        ("/v1/notifications?updated_after=soon".to_owned(), 400, "begin again"),
        (path(9, ""), 404, "Nothing is known of a notification with this id"),
        ("/v1/notifications/".to_owned(), 404, "/v1/openapi.json"),
        ("/v1/notifications/1/2".to_owned(), 404, "/v1/openapi.json"),
        ("/v1".to_owned(), 404, "/v1/openapi.json"),
    ] {
        let (code, message) = said(&path, &token);
        assert_eq!(code, status, "{path}");
        assert!(message.contains(words), "{path}: {message}");
    }
    let wrong = Key { secret: VISA.secret, ..PASSPORT }.token();
    assert_eq!(said(&path(1, ""), &wrong), (403, "Invalid token: API key not found".to_owned()));
    let answer = world.ask("DELETE", &path(1, ""), &format!("authorization: Bearer {token}\r\n"));
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
}
