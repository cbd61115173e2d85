//! What reached a sink: which changes, when, and in which order for each notification.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::http_sink::{HttpSink, Reply};
use super::program::Done;
use super::receipt::Id;

/// A sink at work, or one that was: dropping [`Sink::http`] takes it down, what arrived stays.
pub struct Sink {
    http: Option<HttpSink>,
    arrivals: Arc<Mutex<Arrivals>>,
}

/// What arrived.
#[derive(Default)]
pub struct Arrivals {
    /// Events, repeats included.
    pub events: u64,
    /// Events that could not be read; there must be none.
    pub unreadable: u64,
    /// Changes that arrived first after a later one of their notification.
    pub inversions: u64,
    /// When the first and the last of the changes arrived.
    pub span: Option<(Instant, Instant)>,
    changes: HashSet<u128>,
    notifications: HashMap<u128, Notification>,
}

struct Notification {
    first_at: Instant,
    /// `completed_at` of the newest change, its digits as a number.
    newest: u128,
}

impl Sink {
    /// One that is down, at an address that was free a moment ago.
    pub fn down() -> Done<(Self, SocketAddr)> {
        let free = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = free.local_addr()?;
        Ok((Self { http: None, arrivals: Arc::default() }, address))
    }

    /// It comes up there.
    pub fn come_up(&mut self, address: SocketAddr) -> Done {
        let arrivals = Arc::clone(&self.arrivals);
        let hear = move |body: &[u8]| {
            lock(&arrivals).hear(body, Instant::now());
            Reply::Taken
        };
        self.http = Some(HttpSink::start(address, hear)?);
        Ok(())
    }

    /// What has arrived so far.
    pub fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        lock(&self.arrivals)
    }
}

fn lock(arrivals: &Mutex<Arrivals>) -> MutexGuard<'_, Arrivals> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arrivals {
    fn hear(&mut self, body: &[u8], now: Instant) {
        self.events += 1;
        let Some((change, notification, moment)) = read(body) else {
            self.unreadable += 1;
            return;
        };
        if !self.changes.insert(change) {
            return;
        }
        let first = self.span.map_or(now, |(first, _)| first);
        self.span = Some((first, now));
        let known = self.notifications.entry(notification);
        let known = known.or_insert(Notification { first_at: now, newest: moment });
        self.inversions += u64::from(moment < known.newest);
        known.newest = known.newest.max(moment);
    }

    /// How many different changes arrived.
    pub fn changes(&self) -> u64 {
        self.changes.len() as u64
    }

    /// Of how many notifications.
    pub fn notifications(&self) -> u64 {
        self.notifications.len() as u64
    }

    /// When the first change of a notification arrived.
    pub fn first_at(&self, id: Id) -> Option<Instant> {
        let key = hex(id.as_str().as_bytes())?;
        self.notifications.get(&key).map(|notification| notification.first_at)
    }

    /// How many of these changes never arrived.
    pub fn missing(&self, owed: &[u128]) -> u64 {
        owed.iter().filter(|id| !self.changes.contains(id)).count() as u64
    }
}

/// The id of the change, that of the notification, and `completed_at`. As receiptd writes an event and
/// nobody else need: to parse the JSON would cost more than to serve it.
fn read(body: &[u8]) -> Option<(u128, u128, u128)> {
    let change = hex(text_after(body, b"\"id\":\"")?)?;
    let notification = hex(text_after(body, b"\"subject\":\"")?)?;
    let moment = text_after(body, b"\"completed_at\":\"")?;
    let digits = moment.iter().filter(|byte| byte.is_ascii_digit());
    let moment = digits.fold(0_u128, |sum, byte| sum * 10 + u128::from(byte - b'0'));
    Some((change, notification, moment))
}

/// The text from behind the first `key` up to its quotation mark.
fn text_after<'a>(body: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let at = body.windows(key.len()).position(|bytes| bytes == key)? + key.len();
    let length = body[at..].iter().position(|byte| *byte == b'"')?;
    Some(&body[at..at + length])
}

/// 32 hexadecimal digits, hyphens between them or not.
fn hex(text: &[u8]) -> Option<u128> {
    let digits = text.iter().filter(|byte| **byte != b'-');
    let mut sum = (0_u128, 0);
    for digit in digits {
        let value = char::from(*digit).to_digit(16)?;
        sum = ((sum.0 << 4) | u128::from(value), sum.1 + 1);
    }
    (sum.1 == 32).then_some(sum.0)
}
