//! Reading beside receiving: what is acknowledged is seen, what is asked is bounded, and who does not
//! read pays nothing.

use std::time::Duration;

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Client, Receiptd, Setup, eventually, metric, open, rows};
use crate::world::{PASSPORT, VISA, World, id, receipt, setup, write_secret};

#[test]
fn a_read_sees_everything_acknowledged_before_it() {
    let world = World::start();
    let mut reading = Client::connect(world.receiver.admin);
    for number in 0..300 {
        world.hear("passport", &[receipt(number, "delivered", "sms", number)]);
        let request = format!(
            "GET /v2/notifications/{} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
            id(number),
            PASSPORT.token()
        );
        let answer = reading.ask(request);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// Locks the state, so that nothing more is settled.
fn hold_up(world: &World) -> Connection {
    let other = Connection::open(world.setup.state()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

#[test]
fn an_answer_that_would_be_out_of_date_is_none_and_says_when_to_ask_again() {
    let world = World::start();
    world.hear("passport", &[receipt(1, "sending", "sms", 0)]);
    world.read(PASSPORT, &format!("/v2/notifications/{}", id(1)));
    let lock = hold_up(&world);
    world.hear("passport", &[receipt(1, "delivered", "sms", 0)]);
    let answer = world.get(&format!("/v2/notifications/{}", id(1)), &PASSPORT.token());
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["errors"][0]["error"], "ServiceUnavailable");
    drop(lock);
    let settled = || {
        let answer = world.get(&format!("/v2/notifications/{}", id(1)), &PASSPORT.token());
        answer.status == 200 && answer.text().contains("delivered")
    };
    eventually("the newer status", settled);
}

fn indexes(setup: &Setup) -> Vec<String> {
    let sql = "SELECT name FROM sqlite_schema WHERE name LIKE 'asked%' ORDER BY name";
    rows(&open(&setup.state()), sql)
}

fn lists(receiver: &Receiptd, token: &str) -> u16 {
    let line = format!("authorization: Bearer {token}\r\n");
    let request = format!("GET /v2/notifications HTTP/1.1\r\nhost: x\r\n{line}\r\n");
    Client::connect(receiver.admin).ask(request).status
}

#[test]
fn indexes_are_there_only_while_somebody_may_read() {
    let mut setup = setup();
    let with_readers = setup.sources.clone();
    let without: Vec<&str> = with_readers.split("[[source.reader]]").collect();
    let without = without
        .iter()
        .map(|part| part.find("[[source]]").filter(|at| *at > 0).map_or(*part, |at| &part[at..]));
    setup.sources = without.collect();
    let receiver = setup.start();
    assert_eq!(indexes(&setup), [""; 0]);

    // Readers that are configured while it runs are let in, and the indexes made.
    setup.sources.clone_from(&with_readers);
    setup.write();
    receiver.signal(Signal::HUP);
    eventually("a reader", || lists(&receiver, &PASSPORT.token()) == 200);
    assert_eq!(
        indexes(&setup),
        ["asked_by_creation", "asked_by_reference", "asked_by_status", "asked_messages"]
    );

    // One whose secret changed is not let in with the old one.
    write_secret(&setup, "visa", PASSPORT.service);
    receiver.signal(Signal::HUP);
    eventually("the log", || {
        receiver.stderr().contains("not reloaded") || lists(&receiver, &VISA.token()) == 403
    });
    receiver.stop();

    write_secret(&setup, "visa", VISA.secret);
    let at = setup.sources.find("[[source.reader]]").unwrap();
    setup.sources.truncate(at);
    let receiver = setup.start();
    eventually("no indexes", || indexes(&setup).is_empty());
    receiver.stop();
}

#[test]
fn a_state_that_is_settled_again_gets_its_indexes_again() {
    let world = World::start();
    let receipts: Vec<Value> =
        (0..20).map(|number| receipt(number, "delivered", "sms", number)).collect();
    world.hear("passport", &receipts);
    assert_eq!(world.ids(PASSPORT, "/v2/notifications").len(), 20);
    let World { setup, receiver } = world;
    receiver.stop();
    assert!(!setup.path("receiptd.db-wal").exists(), "readers keep the log from being taken away");
    std::fs::remove_file(setup.state()).unwrap();
    let world = World::of(setup, PASSPORT);
    assert_eq!(world.ids(PASSPORT, "/v2/notifications?status=delivered").len(), 20);
}

#[test]
fn readers_are_counted_by_what_they_ask_and_what_they_hear() {
    let world = World::start();
    world.read(PASSPORT, "/v2/notifications");
    world.get(&format!("/v2/notifications/{}", id(1)), &PASSPORT.token());
    world.ask("POST", "/v2/notifications/sms", "");
    let page = world.receiver.metrics();
    let count = |route: &str, code: u16| {
        metric(&page, &format!("receiptd_reads_total{{route=\"{route}\",code=\"{code}\"}}"))
    };
    assert!(count("/v2/notifications", 200) >= Some(1.0), "{page}");
    assert_eq!(count("/v2/notifications/{id}", 404), Some(1.0));
    assert_eq!(count("/v2", 404), Some(1.0));
    let series = "receiptd_read_seconds_count{route=\"/v2/notifications/{id}\"}";
    assert_eq!(metric(&page, series), Some(1.0), "{page}");
}

/// A page is larger than what sockets hold, and nobody takes it: the connection ends, and nothing of it
/// stands in the way of the write-ahead log.
#[test]
fn whoever_stops_reading_is_cut_off_and_holds_no_log() {
    let world = World::start();
    let receipts: Vec<Value> = (0..250)
        .map(|number| {
            let mut receipt = receipt(number, "delivered", "sms", number);
            receipt["reference"] = Value::from("r".repeat(15_000));
            receipt
        })
        .collect();
    world.hear("passport", &receipts);
    let request = format!(
        "GET /v2/notifications HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        PASSPORT.token()
    );
    let mut stalled: Vec<Client> = (0..8).map(|_| Client::connect(world.receiver.admin)).collect();
    // Three pages on each: more than a socket and its other end hold.
    stalled.iter_mut().for_each(|client| client.send(request.repeat(3)));
    // Everybody else is answered meanwhile, and the log is cut while they stall.
    world.hear("passport", &[receipt(999, "delivered", "sms", 999)]);
    world.read(PASSPORT, &format!("/v2/notifications/{}", id(999)));
    let wal = world.setup.path("receiptd.db-wal");
    let is_checkpointed = || {
        let other = Connection::open(world.setup.state()).unwrap();
        other.busy_timeout(Duration::from_millis(100)).unwrap();
        let busy: i64 =
            other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
        busy == 0 && std::fs::metadata(&wal).is_ok_and(|wal| wal.len() == 0)
    };
    eventually("a checkpoint", is_checkpointed);
    for client in &mut stalled {
        eventually("the end of the connection", || client.try_send("x").is_err());
    }
}
