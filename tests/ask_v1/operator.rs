//! Whatever readers hold of the admin listener, an operator is answered.

use std::time::{Duration, Instant};

use crate::support::Client;
use crate::world::{Key, PASSPORT, VISA, World, id};

/// More connections than the listener has.
const CONNECTIONS: usize = 400;

fn send(world: &World, key: Key, path: &str) -> Client {
    let mut client = Client::connect(world.receiver.admin);
    client.send(format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        key.token()
    ));
    client
}

/// Every route of an operator, on connections of their own, well before any connection of a reader ends
/// by itself: one that is silent does after ten seconds.
#[track_caller]
fn an_operator_is_answered(world: &World) {
    let began = Instant::now();
    for (path, status) in [("/livez", 200), ("/readyz", 200), ("/settled", 204), ("/metrics", 200)]
    {
        assert_eq!(world.receiver.admin(path).status, status, "{path}");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn an_operator_is_answered_whatever_connections_readers_keep() {
    let world = World::start();
    let wait = format!("/v1/notifications/{}?wait=60s", id(1));
    let mut held = Vec::new();
    for key in [PASSPORT, VISA] {
        held.extend((0..16).map(|_| send(&world, key, "/v1/events")));
        held.extend((0..32).map(|_| send(&world, key, &wait)));
    }
    // The rest between two questions, and one that never asked.
    let began = Instant::now();
    while held.len() < CONNECTIONS {
        let mut idle = send(&world, PASSPORT, "/v1/notifications");
        assert_eq!(idle.answer().status, 200);
        held.push(idle);
        held.push(Client::connect(world.receiver.admin));
        assert!(began.elapsed() < Duration::from_secs(8), "{} are held", held.len());
    }
    an_operator_is_answered(&world);
    // Who waits and who follows was not asked to make room.
    for waiting in &mut held[16..48] {
        assert!(!waiting.ends_within(Duration::from_millis(1)));
        assert!(waiting.try_send("x").is_ok());
    }
}
