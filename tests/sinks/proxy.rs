//! The network between the receiver and a sink, for whatever goes wrong on it.
//!
//! One TCP proxy, the same for every kind of sink: it knows no protocol. What it does is set at any
//! time and holds for open connections as well as for new ones:
//!
//! | weather | is |
//! |---|---|
//! | [`Weather::Pass`] | bytes go through at once |
//! | [`Weather::Slow`] | each piece of bytes, either way, is late by that much |
//! | [`Weather::Stall`] | connections are taken and nothing goes through; once it passes, what was held is lost and those connections are closed |
//! | [`Weather::Refuse`] | nobody listens, and open connections are closed |
//!
//! Apart from that, [`Proxy::cut_answers_to`] loses answers: the request goes through, and the
//! connection ends where its answer should have come.

#![allow(dead_code, reason = "which kinds there are depends on the features")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often the listening thread looks whether it may listen.
const LOOK: Duration = Duration::from_millis(2);

/// From the first lost byte of an answer to the end of its connection: time enough for the other
/// side to take in a request of which it answers an earlier one first.
const CUT_AFTER: Duration = Duration::from_millis(200);

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// They go through.
    Pass,
    /// They go through, late.
    Slow(Duration),
    /// They do not, and nobody is told.
    Stall,
    /// There is no connection.
    Refuse,
}

/// A proxy on a port of its own; ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    weather: Weather,
    /// Grows with each change of the weather, so that whoever was held up knows that it passed.
    changes: u64,
    is_over: bool,
    /// Every stream that is open, by connection.
    open: Vec<(u64, TcpStream)>,
    connections: u64,
    /// The answer to a request that holds these bytes is lost, so many times.
    cut: Option<(Vec<u8>, usize)>,
}

impl Proxy {
    /// In front of that address, on a free port of 127.0.0.1.
    pub fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            weather: Weather::Pass,
            changes: 0,
            is_over: false,
            open: Vec::new(),
            connections: 0,
            cut: None,
        };
        let shared =
            Arc::new(Shared { upstream, state: Mutex::new(state), changed: Condvar::new() });
        let listening = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.listen(address, listener)
        });
        Self { address, shared, listening: Some(listening) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on.
    pub fn set(&self, weather: Weather) {
        let mut state = self.shared.lock();
        let was = std::mem::replace(&mut state.weather, weather);
        state.changes += 1;
        if weather == Weather::Refuse || (was == Weather::Stall && weather != was) {
            state.close_all();
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// The next `times` answers to a request that holds `needle` are lost. It must be sent as it is:
    /// not compressed, not encrypted.
    pub fn cut_answers_to(&self, needle: &str, times: usize) {
        self.shared.lock().cut = Some((needle.as_bytes().to_vec(), times));
    }

    /// How many answers are still to be lost.
    pub fn cuts_left(&self) -> usize {
        self.shared.lock().cut.as_ref().map_or(0, |(_, times)| *times)
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.lock().connections
    }

    /// Closes every connection, as a server does that has tired of idle ones.
    pub fn close_all(&self) {
        self.shared.lock().close_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        state.close_all();
        drop(state);
        self.shared.changed.notify_all();
        self.listening.take().map(JoinHandle::join);
    }
}

impl State {
    fn close_all(&mut self) {
        for (_, stream) in self.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn close(&mut self, connection: u64) {
        for (_, stream) in self.open.extract_if(.., |(of, _)| *of == connection) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn listen(self: &Arc<Self>, address: SocketAddr, listener: TcpListener) {
        let mut listener = Some(listener);
        loop {
            let state = self.lock();
            let (is_over, weather) = (state.is_over, state.weather);
            drop(state);
            if is_over {
                return;
            }
            if weather == Weather::Refuse {
                listener = None;
            } else if listener.is_none() {
                listener = TcpListener::bind(address).ok();
            }
            let accepted = listener.as_ref().and_then(|listener| {
                listener.set_nonblocking(true).unwrap();
                listener.accept().ok()
            });
            match accepted {
                Some((client, _)) => self.connect(client),
                None => thread::sleep(LOOK),
            }
        }
    }

    /// Both ways of a new connection, on a thread each. If the server is not there, neither is the
    /// connection.
    fn connect(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.upstream) else { return };
        client.set_nonblocking(false).unwrap();
        let both = || Some((client.try_clone().ok()?, server.try_clone().ok()?));
        let (Some(registered), Some(other)) = (both(), both()) else { return };
        let mut state = self.lock();
        state.connections += 1;
        let connection = state.connections;
        state.open.push((connection, registered.0));
        state.open.push((connection, registered.1));
        drop(state);
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
        }
        let is_cut = Arc::new(Mutex::new(false));
        for (from, to, is_request) in [(client, server, true), (other.1, other.0, false)] {
            let (shared, is_cut) = (Arc::clone(self), Arc::clone(&is_cut));
            thread::spawn(move || {
                shared.copy(from, to, is_request, &is_cut);
                shared.lock().close(connection);
            });
        }
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, is_request: bool, is_cut: &Mutex<bool>) {
        let mut bytes = vec![0; 64 << 10];
        let mut before = Vec::new();
        let mut cut_at = None;
        loop {
            let count = match from.read(&mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            };
            if !self.may_pass() {
                return;
            }
            if is_request {
                before.extend_from_slice(&bytes[..count]);
                if self.is_to_cut(&mut before) {
                    *is_cut.lock().unwrap() = true;
                }
            } else if *is_cut.lock().unwrap() {
                let at = *cut_at.get_or_insert_with(|| Instant::now() + CUT_AFTER);
                let left = at.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return;
                }
                let _ = from.set_read_timeout(Some(left));
                continue;
            }
            if to.write_all(&bytes[..count]).is_err() {
                return;
            }
        }
    }

    /// Waits for better weather; whether the bytes that waited go through at all.
    fn may_pass(&self) -> bool {
        let state = self.lock();
        match state.weather {
            Weather::Pass => true,
            Weather::Refuse => false,
            Weather::Slow(late) => {
                drop(state);
                thread::sleep(late);
                true
            }
            Weather::Stall => {
                let changes = state.changes;
                let waited = self
                    .changed
                    .wait_while(state, |state| state.changes == changes && !state.is_over);
                drop(waited.unwrap());
                false
            }
        }
    }

    /// Whether the answer to what was sent last is to be lost. Forgets of `sent` what can hold the
    /// start of the needle no more.
    fn is_to_cut(&self, sent: &mut Vec<u8>) -> bool {
        let mut state = self.lock();
        let Some((needle, times)) = state.cut.as_mut().filter(|(_, times)| *times > 0) else {
            sent.clear();
            return false;
        };
        let is_there = sent.windows(needle.len()).any(|window| window == &needle[..]);
        if is_there {
            *times -= 1;
            sent.clear();
        } else {
            let keep = sent.len().min(needle.len() - 1);
            sent.drain(..sent.len() - keep);
        }
        is_there
    }
}
