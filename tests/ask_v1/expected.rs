//! What an app says it sent: kept before it is answered, whatever came first; bounded; its own source's.

use std::io::Write as _;
use std::net::TcpStream;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::{Answer, Client, TOKEN, metric, open, post as post_to, rows};
use crate::token::token;
use crate::world::{Key, PASSPORT, VISA, World, id, receipt, setup};

const PATH: &str = "/v1/expected";

fn post_with(world: &World, lines: &str, body: &str) -> Answer {
    let length = body.len();
    let request =
        format!("POST {PATH} HTTP/1.1\r\nhost: x\r\n{lines}content-length: {length}\r\n\r\n{body}");
    Client::connect(world.receiver.admin).ask(request)
}

fn post(world: &World, key: Key, body: &Value) -> Answer {
    post_with(world, &format!("authorization: Bearer {}\r\n", key.token()), &body.to_string())
}

#[track_caller]
fn say(world: &World, key: Key, body: &Value) {
    let answer = post(world, key, body);
    assert_eq!((answer.status, answer.body.len()), (204, 0), "{}", answer.text());
}

/// What is kept of it in the end: `source|id|reference|deadline`.
fn kept(world: &World) -> Vec<String> {
    world.receiver.settled();
    let sql = "SELECT source, id, reference, deadline FROM expected ORDER BY source, id";
    rows(&open(&world.setup.state()), sql)
}

/// What has had no end by its deadline, as the public tables have it.
fn open_ones(world: &World) -> Vec<String> {
    world.receiver.settled();
    let sql = "SELECT e.id, n.status FROM expected AS e
               LEFT JOIN notification AS n ON n.id = e.id AND n.source = e.source
               WHERE n.status IS NULL OR n.status NOT IN ('delivered', 'permanent-failure')
               ORDER BY e.id";
    rows(&open(&world.setup.state()), sql)
}

#[test]
fn what_is_said_is_matched_whichever_of_the_two_comes_first() {
    let world = World::start();
    world.hear("passport", &[receipt(1, "delivered", "sms", 0), receipt(2, "sending", "sms", 0)]);
    let all: Vec<Value> = (1..=4).map(|number| json!({"id": id(number)})).collect();
    say(&world, PASSPORT, &json!(all));
    assert_eq!(
        open_ones(&world),
        [format!("{}|sending", id(2)), format!("{}|null", id(3)), format!("{}|null", id(4))]
    );
    world.hear("passport", &[receipt(3, "permanent-failure", "sms", 0)]);
    assert_eq!(open_ones(&world), [format!("{}|sending", id(2)), format!("{}|null", id(4))]);
    assert_eq!(world.get(&format!("/v1/notifications/{}", id(4)), &PASSPORT.token()).status, 404);
}

#[test]
fn one_is_said_as_an_object_and_saying_it_again_changes_nothing() {
    let world = World::start();
    let deadline = "2026-11-22T12:00:00+01:00";
    let said = json!({"id": id(1).to_uppercase(), "reference": "mine", "deadline": deadline});
    say(&world, PASSPORT, &said);
    let first = kept(&world);
    assert_eq!(first, [format!("passport|{}|mine|2026-11-22T11:00:00.000000Z", id(1))]);
    say(&world, PASSPORT, &said);
    say(&world, PASSPORT, &json!([{"id": id(1), "reference": null}, said]));
    assert_eq!(kept(&world), first);
    let name = "receiptd_reads_total{route=\"/v1/expected\",code=\"204\"}";
    assert_eq!(metric(&world.receiver.metrics(), name), Some(3.0));
}

#[test]
fn a_reader_says_it_of_its_own_source() {
    let world = World::start();
    world.hear("passport", &[receipt(1, "delivered", "sms", 0)]);
    say(&world, VISA, &json!({"id": id(1)}));
    assert_eq!(kept(&world), [format!("visa|{}|null|null", id(1))]);
    assert_eq!(open_ones(&world), [format!("{}|null", id(1))], "another source's end is none");
    let key = format!("authorization: ApiKey-v1 {}\r\n", VISA.whole());
    assert_eq!(post_with(&world, &key, &json!({"id": id(2)}).to_string()).status, 204);
}

#[test]
fn what_was_answered_is_there_after_a_crash() {
    let mut world = World::start();
    let all: Vec<Value> = (0..200).map(|number| json!({"id": id(number)})).collect();
    say(&world, PASSPORT, &json!(all));
    world.receiver.kill();
    let World { setup, .. } = world;
    let world = World::of(setup, PASSPORT);
    assert_eq!(kept(&world).len(), 200);
}

#[test]
fn as_many_as_may_be_said_at_once_are_kept_by_a_short_queue_too() {
    let setup = setup().limits("queue_callbacks_max = 2\nbatch_callbacks_max = 2");
    let world = World::of(setup, PASSPORT);
    let all = |count| json!((0..count).map(|number| json!({"id": id(number)})).collect::<Vec<_>>());
    say(&world, PASSPORT, &all(1_000));
    assert_eq!(kept(&world).len(), 1_000);
    let answer = post(&world, PASSPORT, &all(1_001));
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("the body has more than 1000 items"), "{}", answer.text());
    let long = json!({"id": "x", "reference": "y".repeat(600 << 10)});
    let answer = post(&world, PASSPORT, &long);
    assert_eq!(answer.status, 413);
    assert!(answer.text().contains("PayloadTooLarge"), "{}", answer.text());
}

#[test]
fn a_wrong_body_is_told_by_the_field_and_nothing_of_it_is_kept() {
    let world = World::start();
    let bearer = format!("authorization: Bearer {}\r\n", PASSPORT.token());
    for (body, message) in [
        ("", "the body is not JSON"),
        ("secret-value", "the body is not JSON"),
        (r#"{"reference": "secret-value"}"#, "id is a required property"),
        (r#"[{"id": "fine"}, {"id": 5}]"#, "[1].id is not of type string"),
        (
            r#"{"id": "fine", "deadline": "secret-value"}"#,
            "deadline is not a date-time like 2026-11-22T10:00:00Z",
        ),
        (
            r#"{"id": "fine", "secret-value": 1}"#,
            "the body has a key other than id, reference and deadline",
        ),
    ] {
        let answer = post_with(&world, &bearer, body);
        let told: Value = serde_json::from_slice(&answer.body).unwrap();
        let error = json!({"error": "ValidationError", "message": message});
        assert_eq!(answer.status, 400, "{body}");
        assert_eq!(told, json!({"status_code": 400, "errors": [error]}), "{body}");
    }
    assert!(kept(&world).is_empty());
    assert!(!world.receiver.stderr().contains("secret-value"));
}

#[test]
fn it_is_posted_by_a_reader_and_by_nobody_else() {
    let world = World::start();
    let body = json!({"id": id(1)}).to_string();
    assert_eq!(post_with(&world, "", &body).status, 401);
    let wrong = token(PASSPORT.service, VISA.secret);
    assert_eq!(post_with(&world, &format!("authorization: Bearer {wrong}\r\n"), &body).status, 403);
    for method in ["GET", "PUT", "DELETE"] {
        let lines = format!("authorization: Bearer {}\r\n", PASSPORT.token());
        let answer = world.ask(method, PATH, &lines);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{method}");
    }
    let lines = format!("authorization: Bearer {}\r\ncontent-length: 0\r\n", PASSPORT.token());
    let answer = world.ask("POST", "/v1/notifications", &lines);
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
    assert!(kept(&world).is_empty());
}

#[test]
fn without_room_in_the_journal_it_is_refused_and_may_be_said_again() {
    let world = World::of(setup().free_bytes_min(1 << 50), PASSPORT);
    let answer = post(&world, PASSPORT, &json!({"id": id(1)}));
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(answer.text().contains("ServiceUnavailable"), "{}", answer.text());
}

/// Somebody else holds the lock of the journal, so its writer waits and the queue fills up.
#[test]
fn with_a_full_queue_it_is_refused_and_may_be_said_again() {
    let setup = setup().limits("queue_callbacks_max = 1\nbatch_callbacks_max = 1");
    let world = World::of(setup, PASSPORT);
    world.receiver.settled();
    let other = Connection::open(world.setup.journal()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let callback = post_to("/callbacks/passport", TOKEN, receipt(1, "sent", "sms", 0).to_string());
    // One is being committed, one waits, and for the others there is no place.
    let _waiting: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = world.receiver.connect();
            client.send(&callback);
            client
        })
        .collect();
    let answer = post(&world, PASSPORT, &json!({"id": id(1)}));
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(answer.text().contains("Not all of it could be kept; say it again"));
    other.execute_batch("ROLLBACK").unwrap();
    crate::support::eventually("room", || {
        post(&world, PASSPORT, &json!({"id": id(1)})).status == 204
    });
    assert_eq!(kept(&world), [format!("passport|{}|null|null", id(1))]);
}

#[test]
fn so_many_of_a_source_may_say_it_at_once_and_others_are_still_heard() {
    let world = World::start();
    // Half of the places: there is another source. Heads whose bodies are yet to come hold the places.
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 50\r\n\r\n",
        PASSPORT.token()
    );
    let _slow: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut stream = TcpStream::connect(world.receiver.admin).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    let refused = || post(&world, PASSPORT, &json!({"id": id(1)})).status == 503;
    crate::support::eventually("a refusal", refused);
    assert_eq!(world.get("/v1/notifications", &PASSPORT.token()).status, 200);
    assert_eq!(post(&world, VISA, &json!({"id": id(1)})).status, 204);
}
