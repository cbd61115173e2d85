//! What has changed since: nothing is skipped, however much is received meanwhile.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{receiptd, run};
use crate::world::{Key, PASSPORT, VISA, World, id, receipt};

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

/// That many receipts of new notifications, from that number on.
fn new_ones(numbers: std::ops::Range<u64>) -> Vec<Value> {
    numbers.map(|number| receipt(number, "sending", "sms", 0)).collect()
}

/// The numbers of a page that is asked for with that cursor.
fn numbers(world: &World, cursor: Option<&str>) -> Vec<u64> {
    let (rows, ..) = page(world, cursor);
    let number = |row: &Value| {
        let id = row["id"].as_str().unwrap();
        u64::from_str_radix(id.rsplit_once('-').unwrap().1, 16).unwrap()
    };
    rows.iter().map(number).collect()
}

/// A cursor that is refused, and what is said of it.
#[track_caller]
fn assert_refused(world: &World, key: Key, cursor: &str) {
    let path = format!("/v1/notifications?updated_after={cursor}");
    let answer = world.get(&path, &key.token());
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    let message = "updated_after is not a cursor of this feed as it is now; begin again: leave out \
        updated_after, and put what you read in the place of what you have under the same id";
    let error = json!({"error": "ValidationError", "message": message});
    assert_eq!((answer.status, told), (400, json!({"status_code": 400, "errors": [error]})));
}

#[test]
fn a_cursor_holds_across_a_restart_and_a_crash() {
    let world = World::start();
    world.hear("passport", &new_ones(0..10));
    let (rows, next, _) = page(&world, None);
    assert_eq!(rows.len(), 10);
    let World { setup, receiver } = world;
    receiver.stop();
    let mut world = World::of(setup, PASSPORT);
    assert_eq!(numbers(&world, Some(&next)), [0; 0]);
    world.hear("passport", &[later(3, "delivered", 5)]);
    world.receiver.kill();
    let world = World::of(world.setup, PASSPORT);
    assert_eq!(numbers(&world, Some(&next)), [3]);
    assert_eq!(page(&world, Some(&next)).0[0]["status"], "delivered");
}

/// By another version it may be settled otherwise, and tell what was not told at its place before.
#[test]
fn a_cursor_of_a_state_that_was_begun_anew_is_refused_and_beginning_again_is_told() {
    let world = World::start();
    world.hear("passport", &new_ones(0..10));
    let (_, next, _) = page(&world, None);
    let World { setup, receiver } = world;
    receiver.stop();
    std::fs::remove_file(setup.state()).unwrap();
    let world = World::of(setup, PASSPORT);
    assert_refused(&world, PASSPORT, &next);
    let (rows, next, _) = page(&world, None);
    assert_eq!(rows.len(), 10);
    let World { setup, receiver } = world;
    receiver.stop();
    let rebuilt = run(&mut receiptd(
        setup.folder.path(),
        &["rebuild", "--db", setup.state().to_str().unwrap()],
    ));
    assert_eq!(rebuilt.code, Some(0), "{rebuilt:?}");
    let world = World::of(setup, PASSPORT);
    assert_refused(&world, PASSPORT, &next);
    assert_eq!(numbers(&world, None).len(), 10);
}

/// Its places behind the backup are given anew, to other callbacks; those up to it are as they were.
#[test]
fn of_a_backup_that_was_put_back_those_cursors_hold_that_were_told_before_it() {
    let world = World::start();
    world.hear("passport", &new_ones(0..5));
    let (_, before, _) = page(&world, None);
    let World { setup, receiver } = world;
    receiver.stop();
    let (state, journal) = (setup.state(), setup.journal());
    let copy = |path: &Path| std::fs::read(path).unwrap();
    let backup = (copy(&state), copy(&journal));
    let world = World::of(setup, PASSPORT);
    world.hear("passport", &new_ones(5..8));
    let (rows, after, _) = page(&world, Some(&before));
    assert_eq!(rows.len(), 3);
    let cursors: Vec<String> =
        rows.iter().map(|row| row["cursor"].as_str().unwrap().to_owned()).collect();
    assert_eq!(cursors[2], after);
    let World { setup, receiver } = world;
    receiver.stop();
    std::fs::write(&state, backup.0).unwrap();
    std::fs::write(&journal, backup.1).unwrap();
    let world = World::of(setup, PASSPORT);
    // Ahead of everything there is: it would wait for what has been.
    assert_refused(&world, PASSPORT, &after);
    // The same places, some by the same words, and more behind them.
    world.hear("passport", &new_ones(5..6));
    world.hear("visa", &new_ones(7..8));
    world.hear("passport", &new_ones(20..24));
    for cursor in &cursors {
        assert_refused(&world, PASSPORT, cursor);
    }
    assert_eq!(numbers(&world, Some(&before)), [5, 20, 21, 22, 23]);
}

/// What the state knows is as it was, and the journal goes on behind it.
#[test]
fn a_cursor_holds_where_a_lost_journal_takes_over_what_the_state_knows() {
    let world = World::start();
    world.hear("passport", &new_ones(0..5));
    let (_, next, _) = page(&world, None);
    let World { setup, receiver } = world;
    receiver.stop();
    std::fs::remove_file(setup.journal()).unwrap();
    let world = World::of(setup, PASSPORT);
    world.hear("passport", &[later(1, "delivered", 5), receipt(9, "sending", "sms", 0)]);
    assert_eq!(numbers(&world, Some(&next)), [1, 9]);
}

#[test]
fn a_cursor_of_another_source_or_of_nobody_is_refused() {
    let world = World::start();
    world.hear("passport", &new_ones(0..2));
    world.hear("visa", &new_ones(0..2));
    let (_, next, _) = page(&world, None);
    assert_refused(&world, VISA, &next);
    let swapped: String = next.chars().rev().collect();
    for cursor in ["", "1", "1048576", "soon", &swapped, &format!("{next}="), &"A".repeat(43)] {
        assert_refused(&world, PASSPORT, cursor);
    }
    assert_eq!(numbers(&world, Some(&next)), [0; 0]);
}

/// Neither the cursor, nor whether there is more, nor how long either is, tells how much others receive.
#[test]
fn a_feed_in_which_nothing_changed_is_answered_to_the_byte_as_before_whatever_others_receive() {
    let world = World::start();
    let whole = |query: &str| {
        let answer = world.get(&format!("/v1/notifications{query}"), &PASSPORT.token());
        assert_eq!(answer.status, 200);
        let headers = answer.headers.into_iter().filter(|(name, _)| name != "date");
        (headers.collect::<Vec<_>>(), String::from_utf8(answer.body).unwrap())
    };
    let at_first = whole("");
    world.hear("visa", &new_ones(0..30));
    assert_eq!(whole(""), at_first);
    let (_, begin, _) = page(&world, None);
    let again = format!("?updated_after={begin}");
    assert_eq!(whole(&again), at_first);
    // A page that is just full, and others behind it.
    world.hear("passport", &new_ones(0..250));
    let full = whole("");
    assert!(full.1.ends_with("\"has_more\":false}"), "{}", full.1);
    let (_, next, _) = page(&world, None);
    let empty = whole(&format!("?updated_after={next}"));
    world.hear("visa", &new_ones(30..60));
    world.hear("silent", &new_ones(0..30));
    assert_eq!(whole(""), full);
    assert_eq!(whole(&format!("?updated_after={next}")), empty);
    // A repeat is a callback, and no change.
    world.hear("passport", &new_ones(7..8));
    assert_eq!(whole(&format!("?updated_after={next}")), empty);
    assert_eq!([begin.len(), next.len()], [43, 43]);
}
