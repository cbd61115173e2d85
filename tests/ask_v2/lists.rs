//! Lists: every filter, to the end, however many rows were created at once.

use serde_json::{Value, json};

use crate::world::{PASSPORT, VISA, World, id, receipt, text};

const STATUSES: [&str; 6] =
    ["sending", "delivered", "permanent-failure", "temporary-failure", "sent", "technical-failure"];

const TYPES: [&str; 3] = ["email", "sms", "letter"];

/// The notification of that number, of [`ROWS`]: thirty are created in each second.
fn row(number: u64) -> (&'static str, &'static str, u64) {
    let at = usize::try_from(number).unwrap();
    (STATUSES[at % 6], TYPES[at / 6 % 3], (number * 7_919 % ROWS) / 30)
}

const ROWS: u64 = 900;

fn filled() -> World {
    let world = World::start();
    let receipts: Vec<Value> = (0..ROWS)
        .map(|number| {
            let (status, kind, created) = row(number);
            receipt(number, status, kind, created)
        })
        .collect();
    world.hear("passport", &receipts);
    world.hear("visa", &[receipt(5_000, "delivered", "sms", 99)]);
    world
}

/// The ids that pass, newest first; those of one second in the order in which they came, last first.
fn expected(passes: impl Fn(u64, &str, &str) -> bool) -> Vec<String> {
    let mut numbers: Vec<(u64, u64)> = (0..ROWS)
        .filter(|number| {
            let (status, kind, _) = row(*number);
            passes(*number, status, kind)
        })
        .map(|number| (row(number).2, number))
        .collect();
    numbers.sort_unstable();
    numbers.into_iter().rev().map(|(_, number)| id(number)).collect()
}

#[test]
fn every_filter_is_followed_to_its_end_without_a_gap_or_a_repeat() {
    let world = filled();
    type Passes = fn(u64, &str, &str) -> bool;
    let cases: [(&str, Passes); 10] = [
        ("", |_, _, _| true),
        ("include_jobs=true", |_, _, _| true),
        ("status=delivered", |_, status, _| status == "delivered"),
        ("status=delivered&status=sent", |_, s, _| matches!(s, "delivered" | "sent")),
        ("status=failed", |_, status, _| status.ends_with("-failure")),
        ("template_type=sms", |_, _, kind| kind == "sms"),
        ("template_type=sms&template_type=letter", |_, _, kind| kind != "email"),
        ("status=failed&status=sending&template_type=email&template_type=sms", |_, s, kind| {
            (s.ends_with("-failure") || s == "sending") && kind != "letter"
        }),
        ("reference=reference-1", |number, _, _| number % 3 == 1),
        ("reference=reference-2&status=failed&template_type=email", |number, s, kind| {
            number % 3 == 2 && s.ends_with("-failure") && kind == "email"
        }),
    ];
    for (query, passes) in cases {
        let ids = world.ids(PASSPORT, &format!("/v2/notifications?{query}"));
        assert_eq!(ids, expected(passes), "{query}");
        assert!(!ids.is_empty(), "{query}");
    }
    for none in ["status=cancelled", "reference=nobody's", "template_type=push"] {
        assert_eq!(world.ids(PASSPORT, &format!("/v2/notifications?{none}")), [""; 0]);
    }
}

#[test]
fn rows_that_arrive_while_somebody_reads_are_neither_skipped_nor_repeated() {
    let world = filled();
    let first = world.read(PASSPORT, "/v2/notifications?template_type=sms");
    let next = first["links"]["next"].as_str().unwrap();
    let rows = first["notifications"].as_array().unwrap().clone();
    // Newer ones, and one that changes its status.
    world.hear("passport", &[receipt(ROWS, "delivered", "sms", 5_000)]);
    let (status, _, created) = row(6);
    assert_eq!(status, "sending");
    let mut changed = receipt(6, "delivered", "sms", created);
    changed["completed_at"] = json!("2026-11-23T00:00:00.000000Z");
    world.hear("passport", &[changed]);
    let mut ids: Vec<String> = rows.iter().map(|row| row["id"].as_str().unwrap().into()).collect();
    ids.extend(world.ids(PASSPORT, next.strip_prefix("http://receipts.example:9090").unwrap()));
    assert_eq!(ids, expected(|_, _, kind| kind == "sms"));
}

#[test]
fn behind_an_id_nobody_knows_there_is_nothing() {
    let world = filled();
    let page = world.read(PASSPORT, &format!("/v2/notifications?older_than={}", id(77_777)));
    assert_eq!(page["notifications"], json!([]));
    // That another source has it makes no difference.
    let of_another = id(5_000);
    let page = world.read(PASSPORT, &format!("/v2/notifications?older_than={of_another}"));
    assert_eq!((&page["notifications"], page["links"].get("next")), (&json!([]), None));
    assert_eq!(world.ids(VISA, "/v2/notifications"), [of_another]);
}

#[test]
fn an_id_is_found_in_any_form_of_a_uuid_and_one_that_is_none_if_it_is_kept() {
    let world = World::start();
    let mut odd = receipt(1, "delivered", "sms", 5);
    odd["id"] = json!("odd/id 1");
    world.hear("passport", &[odd, receipt(0xabc, "delivered", "sms", 3)]);
    let known = id(0xabc);
    for form in [known.to_uppercase(), known.replace('-', ""), known.clone()] {
        let found = world.read(PASSPORT, &format!("/v2/notifications/{form}"));
        assert_eq!(found["id"], known.as_str());
    }
    let found = world.read(PASSPORT, "/v2/notifications/odd%2Fid%201");
    assert_eq!(found["id"], "odd/id 1");
    assert_eq!(world.ids(PASSPORT, "/v2/notifications"), ["odd/id 1", known.as_str()]);
}

#[test]
fn texts_are_listed_newest_first_and_to_the_end() {
    let world = World::start();
    let texts: Vec<Value> = (0..600).map(|number| text(number, number % 40)).collect();
    world.hear("passport", &texts);
    let ids = world.ids(PASSPORT, "/v2/received-text-messages");
    let mut expected: Vec<(u64, u64)> = (0..600).map(|number| (number % 40, number)).collect();
    expected.sort_unstable();
    let expected: Vec<String> = expected.into_iter().rev().map(|(_, number)| id(number)).collect();
    assert_eq!(ids, expected);
    assert_eq!(world.ids(VISA, "/v2/received-text-messages"), [""; 0]);
    let path = format!("/v2/received-text-messages?older_than={}", id(99_999));
    assert_eq!(world.ids(PASSPORT, &path), [""; 0]);
}

#[test]
fn texts_that_would_make_a_page_too_long_make_it_short() {
    let world = World::start();
    let long: Vec<Value> = (0..8)
        .map(|number| {
            let mut text = text(number, number);
            text["message"] = json!("x".repeat(900_000));
            text
        })
        .collect();
    world.hear("passport", &long);
    let page = world.read(PASSPORT, "/v2/received-text-messages");
    assert_eq!(page["received_text_messages"].as_array().unwrap().len(), 5);
    assert_eq!(world.ids(PASSPORT, "/v2/received-text-messages").len(), 8);
}
