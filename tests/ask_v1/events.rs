//! Events as they happen.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{PATIENCE, eventually};
use crate::world::{Key, PASSPORT, VISA, World, id, receipt, text};

/// A client of server-sent events, as little of one as will do.
struct Following {
    body: BufReader<Chunks>,
    /// Of the last event.
    last_id: String,
}

/// The body of an answer that comes in chunks.
struct Chunks {
    stream: BufReader<TcpStream>,
    left: usize,
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            if line.trim().is_empty() {
                line.clear();
                self.stream.read_line(&mut line)?;
            }
            self.left = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            if self.left == 0 {
                return Ok(0);
            }
        }
        let most = buf.len().min(self.left);
        let count = self.stream.read(&mut buf[..most])?;
        self.left -= count;
        Ok(count)
    }
}

fn request(world: &World, key: Key, last: Option<&str>) -> (u16, BufReader<TcpStream>) {
    let stream = TcpStream::connect(world.receiver.admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let last = last.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
    let token = key.token();
    let request = format!(
        "GET /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n{last}\r\n"
    );
    (&stream).write_all(request.as_bytes()).unwrap();
    let mut stream = BufReader::new(stream);
    let mut status = String::new();
    stream.read_line(&mut status).unwrap();
    let status = status.split(' ').nth(1).unwrap().parse().unwrap();
    let mut line = String::from("head");
    while !line.trim().is_empty() {
        line.clear();
        stream.read_line(&mut line).unwrap();
    }
    (status, stream)
}

impl Following {
    fn start(world: &World, key: Key, last: Option<&str>) -> Self {
        let (status, stream) = request(world, key, last);
        assert_eq!(status, 200);
        let mut following =
            Self { body: BufReader::new(Chunks { stream, left: 0 }), last_id: String::new() };
        let first = following.block().unwrap();
        assert!(first.iter().any(|line| line.starts_with("retry: ")), "{first:?}");
        let begun = following.block().unwrap();
        assert!(begun.len() == 1 && begun[0].starts_with("id: "), "{begun:?}");
        following
    }

    /// The lines up to the next empty one; none at the end.
    fn block(&mut self) -> Option<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.body.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            match line.trim_end() {
                "" => return Some(lines),
                line => lines.push(line.to_owned()),
            }
            if let Some(id) = lines.last().and_then(|line| line.strip_prefix("id: ")) {
                self.last_id = id.to_owned();
            }
        }
    }

    /// The next event: its kind and its data. Comments are passed over.
    fn next(&mut self) -> (String, Value) {
        loop {
            let lines = self.block().expect("the stream has ended");
            let field = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name));
            if let Some(data) = field("data: ") {
                let kind = field("event: ").unwrap().to_owned();
                return (kind, serde_json::from_str(data).unwrap());
            }
        }
    }
}

#[test]
fn events_come_as_they_happen_and_only_those_of_the_source() {
    let world = World::start();
    world.hear("passport", &[receipt(1, "sending", "sms", 0)]);
    let mut following = Following::start(&world, PASSPORT, None);
    world.hear("visa", &[receipt(7, "delivered", "sms", 0)]);
    world.hear("passport", &[receipt(2, "delivered", "sms", 0), text(3, 0)]);
    let (kind, told) = following.next();
    assert_eq!((kind.as_str(), &told["id"]), ("receipt", &json!(id(2))));
    assert_eq!(
        (&told["status"], &told["notification"]["status"]),
        (&json!("delivered"), &json!("delivered"))
    );
    let (kind, told) = following.next();
    assert_eq!((kind.as_str(), &told["message"]["message"]), ("received-message", &json!("Hi")));
    let letter = json!({
        "notification_id": id(4), "complaint_id": id(8), "reference": null,
        "to": "someone@example.com", "complaint_date": null,
    });
    world.hear("passport", &[letter]);
    assert_eq!(following.next().0, "complaint");
}

#[test]
fn a_client_that_comes_back_goes_on_where_it_was() {
    let world = World::start();
    let mut following = Following::start(&world, PASSPORT, None);
    world.hear("passport", &[receipt(1, "delivered", "sms", 0)]);
    assert_eq!(following.next().1["id"], id(1));
    let last = following.last_id.clone();
    drop(following);
    let missed: Vec<Value> =
        (100..500).map(|number| receipt(number, "delivered", "sms", number)).collect();
    world.hear("passport", &missed);
    let mut following = Following::start(&world, PASSPORT, Some(&last));
    for number in 100..500 {
        assert_eq!(following.next().1["id"], id(number));
    }
    world.hear("passport", &[receipt(500, "delivered", "sms", 0)]);
    assert_eq!(following.next().1["id"], id(500));
    // The id of an event is a cursor of the feed too.
    let path = format!("/v1/notifications?updated_after={last}");
    assert_eq!(world.read(PASSPORT, &path)["notifications"].as_array().unwrap().len(), 250);
}

/// Waiting for what has been, or skipping it, it would tell of nothing for ever.
#[test]
fn an_id_that_names_nothing_here_is_refused_and_beginning_again_is_told() {
    let world = World::start();
    world.hear("passport", &[receipt(1, "delivered", "sms", 0)]);
    let last = Following::start(&world, PASSPORT, None).last_id;
    let refused = |world: &World, key: Key, last: &str| {
        let lines = format!("authorization: Bearer {}\r\nlast-event-id: {last}\r\n", key.token());
        let answer = world.ask("GET", "/v1/events", &lines);
        let told: Value = serde_json::from_slice(&answer.body).unwrap();
        let message = told["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("begin again: leave out Last-Event-ID"), "{message}");
        assert!(message.contains("GET /v2/received-text-messages"), "no other feed has texts");
        answer.status
    };
    for wrong in ["nowhere", "1048576", "é"] {
        assert_eq!(refused(&world, PASSPORT, wrong), 400, "{wrong}");
    }
    assert_eq!(refused(&world, VISA, &last), 400, "another's");
    let World { setup, receiver } = world;
    receiver.stop();
    std::fs::remove_file(setup.state()).unwrap();
    let world = World::of(setup, PASSPORT);
    assert_eq!(refused(&world, PASSPORT, &last), 400, "of the state before");
}

#[test]
fn where_a_stream_begins_is_told_at_once_and_does_not_move_with_what_others_receive() {
    let world = World::start();
    let begin = |key| Following::start(&world, key, None).last_id;
    let nowhere = begin(PASSPORT);
    let receipts: Vec<Value> = (0..30).map(|n| receipt(n, "delivered", "sms", 0)).collect();
    world.hear("visa", &receipts);
    assert_eq!(begin(PASSPORT), nowhere);
    world.hear("passport", &[receipt(1, "delivered", "sms", 0), text(2, 0)]);
    let last = begin(PASSPORT);
    assert!(last != nowhere && last != begin(VISA));
    world.hear("visa", &receipts);
    world.hear("passport", &[receipt(1, "delivered", "sms", 0)]);
    assert_eq!(begin(PASSPORT), last, "a repeat is no news");
    // Whoever is cut off before the first event comes back with it, and misses nothing.
    world.hear("passport", &[receipt(3, "delivered", "sms", 0)]);
    let mut following = Following::start(&world, PASSPORT, Some(&last));
    assert_eq!(following.next().1["id"], id(3));
    let mut following = Following::start(&world, PASSPORT, Some(&nowhere));
    assert_eq!(following.next().1["id"], id(1));
}

#[test]
fn so_many_of_a_source_may_follow_and_a_place_is_free_once_one_leaves() {
    let world = World::start();
    // Half of the places: there is another source.
    let mut all: Vec<Following> =
        (0..16).map(|_| Following::start(&world, PASSPORT, None)).collect();
    assert_eq!(request(&world, PASSPORT, None).0, 503);
    let _other = Following::start(&world, VISA, None);
    world.hear("passport", &[receipt(1, "delivered", "sms", 0)]);
    for following in &mut all {
        assert_eq!(following.next().1["id"], id(1));
    }
    all.pop();
    eventually("a place", || request(&world, PASSPORT, None).0 == 200);
}

#[test]
fn a_stream_ends_when_its_reader_is_not_configured_any_more() {
    let mut world = World::start();
    let mut following = Following::start(&world, VISA, None);
    let mut staying = Following::start(&world, PASSPORT, None);
    let at = world.setup.sources.find(VISA.service).unwrap();
    let start = world.setup.sources[..at].rfind("[[source.reader]]").unwrap();
    let end = world.setup.sources[at..].find("[[source]]").unwrap() + at;
    world.setup.sources.replace_range(start..end, "");
    world.setup.write();
    world.receiver.signal(Signal::HUP);
    let is_out = || world.get("/v2/notifications", &VISA.token()).status == 403;
    eventually("the reload", is_out);
    world.hear("visa", &[receipt(1, "delivered", "sms", 0)]);
    world.hear("passport", &[receipt(2, "delivered", "sms", 0)]);
    assert_eq!(following.block(), None);
    assert_eq!(staying.next().1["id"], id(2));
}

/// What is told is more than sockets hold.
#[test]
fn a_client_that_stops_reading_is_cut_off_and_one_that_reads_is_not() {
    let world = World::start();
    let mut reading = Following::start(&world, PASSPORT, None);
    let (status, stalled) = request(&world, PASSPORT, None);
    assert_eq!(status, 200);
    let told: Vec<Value> = (0..800)
        .map(|number| {
            let mut told = receipt(number, "delivered", "sms", number);
            told["reference"] = Value::from("r".repeat(15_000));
            told
        })
        .collect();
    world.hear("passport", &told);
    for number in 0..800 {
        assert_eq!(reading.next().1["id"], id(number));
    }
    let mut stream = stalled.into_inner();
    eventually("the end of the connection", || stream.write_all(b"x").is_err());
    world.hear("passport", &[receipt(900, "delivered", "sms", 0)]);
    assert_eq!(reading.next().1["id"], id(900));
}

/// A comment that came whenever nothing was settled for long would tell who else is silent; and where
/// others never are, none would come.
#[test]
fn a_silent_stream_is_shown_alive_in_time_however_much_others_receive() {
    let world = World::start();
    let mut following = Following::start(&world, PASSPORT, None);
    let began = Instant::now();
    let (stop, stopped) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let world = &world;
        scope.spawn(move || {
            let mut number = 0;
            while stopped.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout)
            {
                world.hear("visa", &[receipt(number, "delivered", "sms", 0)]);
                number += 1;
            }
        });
        assert_eq!(following.block(), Some(vec![": nothing new".to_owned()]));
        drop(stop);
    });
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

/// A stopping receiver does not wait for who follows.
#[test]
fn stopping_ends_every_stream() {
    let world = World::start();
    let _following: Vec<Following> =
        (0..3).map(|_| Following::start(&world, PASSPORT, None)).collect();
    world.receiver.stop();
}
