//! What has changed since: nothing is skipped, however much is received meanwhile.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::world::{PASSPORT, VISA, World, id, receipt};

/// One page, and where to go on.
fn page(world: &World, cursor: Option<&str>) -> (Vec<Value>, String, bool) {
    let query = cursor.map_or(String::new(), |cursor| format!("?updated_after={cursor}"));
    let page = world.read(PASSPORT, &format!("/v1/notifications{query}"));
    let rows = page["notifications"].as_array().unwrap().clone();
    let next = page["next"].as_str().unwrap().to_owned();
    (rows, next, page["has_more"].as_bool().unwrap())
}

/// A later status of that notification.
fn later(number: u64, status: &str, second: u64) -> Value {
    let mut receipt = receipt(number, status, "sms", 0);
    receipt["completed_at"] = json!(crate::world::second(1_000 + second));
    receipt
}

#[test]
fn whoever_keeps_a_copy_has_all_of_it_though_more_is_received_between_two_pages() {
    let world = World::start();
    let first: Vec<Value> = (0..700).map(|number| receipt(number, "sending", "sms", 0)).collect();
    world.hear("passport", &first);
    world.hear("visa", &[receipt(9_000, "delivered", "sms", 0)]);
    let (mut copy, mut cursor, mut pages) = (BTreeMap::new(), None, 0);
    loop {
        let (rows, next, has_more) = page(&world, cursor.as_deref());
        assert!(rows.len() <= 250);
        for row in rows {
            copy.insert(row["id"].as_str().unwrap().to_owned(), row["status"].clone());
        }
        cursor = Some(next);
        pages += 1;
        if pages == 1 {
            // Some that were told, some that were not, and new ones.
            let more = [10, 240, 260, 690, 700, 701];
            let more = more.map(|number| later(number, "delivered", number));
            world.hear("passport", &more);
        }
        if !has_more {
            break;
        }
    }
    let expected: BTreeMap<String, Value> = (0..702)
        .map(|number| {
            let is_later = [10, 240, 260, 690, 700, 701].contains(&number);
            (id(number), json!(if is_later { "delivered" } else { "sending" }))
        })
        .collect();
    assert_eq!(copy, expected);
    assert!(pages >= 3, "{pages}");

    let (rows, again, has_more) = page(&world, cursor.as_deref());
    assert_eq!((rows, Some(again), has_more), (vec![], cursor.clone(), false));
    world.hear("passport", &[later(5, "delivered", 9_000)]);
    let (rows, ..) = page(&world, cursor.as_deref());
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["id"], &rows[0]["status"]), (&json!(id(5)), &json!("delivered")));
}

#[test]
fn a_repeat_changes_nothing() {
    let world = World::start();
    let receipt = receipt(1, "delivered", "sms", 0);
    world.hear("passport", std::slice::from_ref(&receipt));
    let (rows, next, _) = page(&world, None);
    assert_eq!(rows.len(), 1);
    world.hear("passport", &[receipt]);
    let (rows, ..) = page(&world, Some(&next));
    assert_eq!(rows, [Value::Null; 0]);
}

#[test]
fn a_cursor_holds_across_a_restart_and_a_state_that_is_settled_again() {
    let world = World::start();
    let receipts: Vec<Value> = (0..10).map(|number| receipt(number, "sending", "sms", 0)).collect();
    world.hear("passport", &receipts);
    let (rows, next, _) = page(&world, None);
    assert_eq!(rows.len(), 10);
    let World { setup, receiver } = world;
    receiver.stop();
    std::fs::remove_file(setup.state()).unwrap();
    let world = World::of(setup, PASSPORT);
    assert_eq!(page(&world, Some(&next)).0, [Value::Null; 0]);
    world.hear("passport", &[later(3, "delivered", 5)]);
    assert_eq!(page(&world, Some(&next)).0.len(), 1);
    assert!(world.read(VISA, "/v1/notifications")["notifications"].as_array().unwrap().is_empty());
}
