//! The load generator: one thread, one epoll, every connection with at most one request in flight.
//!
//! *Closed loop* finds the capacity: each connection sends as soon as its answer is there. *Open
//! loop* finds the latency at a given rate: requests fall due on a schedule that does not wait for
//! slow answers, and latency counts from when a request was due, not from when it could be sent.
//!
//! It must be much cheaper than what it measures: two system calls a request beside a shared
//! `epoll_wait`, no allocation, no lock.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};

use super::connection::{Answer, Connection};
use super::histogram::Histogram;
use super::receipt::{Id, Ids, Reference, Request};

/// How long answers may take after the last request; what is not answered then is given up.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// So many connections may break before the run is given up: the server is not serving.
const BROKEN_MAX: u64 = 1_000;
/// The longest sleep, so that the clock is looked at even when nothing comes.
const TURN_MAX: Duration = Duration::from_millis(50);
/// The open loop looks for what has fallen due at most this often.
const WAKE_GAP_MIN: Duration = Duration::from_micros(500);

/// Whom to call and how.
#[derive(Clone, Copy)]
pub struct Target {
    /// Where the server listens.
    pub server: SocketAddr,
    /// Connections to keep open.
    pub connections: usize,
    /// Whether receipts have references.
    pub reference: Reference,
}

/// What became of the requests.
pub struct Outcome {
    /// Answered 204, warm-up and drain included: what the server has promised to keep.
    pub acknowledged: u64,
    /// Answered otherwise.
    pub refused: u64,
    /// Connections that broke with a request in flight.
    pub broken: u64,
    /// Given up without an answer.
    pub unanswered: u64,
    /// Latency of the 204s within the measured time.
    pub latency: Histogram,
    /// How long was measured.
    pub measured: Duration,
    /// When the last request was sent, or a moment later.
    pub sending_ended: Instant,
    /// When the last 204 came, drain included.
    pub last_acknowledged_at: Instant,
}

impl Outcome {
    /// Nothing yet, now.
    pub fn new(now: Instant) -> Self {
        Self {
            acknowledged: 0,
            refused: 0,
            broken: 0,
            unanswered: 0,
            latency: Histogram::new(),
            measured: Duration::ZERO,
            sending_ended: now,
            last_acknowledged_at: now,
        }
    }

    /// 204s a second within the measured time.
    pub fn per_second(&self) -> f64 {
        self.latency.count() as f64 / self.measured.as_secs_f64().max(f64::EPSILON)
    }

    /// Requests of which nobody knows whether the server kept them.
    pub fn uncertain(&self) -> u64 {
        self.refused + self.broken + self.unanswered
    }

    fn count(&mut self, answer: Answer, now: Instant, in_measure: bool) {
        if answer.status != 204 {
            self.refused += 1;
            return;
        }
        self.acknowledged += 1;
        self.last_acknowledged_at = now;
        if in_measure {
            self.latency.record(now.saturating_duration_since(answer.since));
        }
    }
}

/// Sends as fast as the answers come, first unmeasured for `warm_up`, then for `measured`.
pub fn closed_loop(
    target: Target,
    ids: &mut Ids,
    warm_up: Duration,
    measured: Duration,
) -> io::Result<Outcome> {
    let mut crew = Crew::open(target)?;
    let mut outcome = Outcome::new(Instant::now());
    let from = Instant::now() + warm_up;
    let until = from + measured;
    crew.start(ids)?;
    let mut now = Instant::now();
    while now < until {
        crew.turn(TURN_MAX, |connection, event| {
            now = Instant::now();
            match event {
                Event::Answered(answer) => outcome.count(answer, now, from <= now && now < until),
                Event::Broke { in_flight } => outcome.broken += u64::from(in_flight),
            }
            if now < until { connection.send(ids, now) } else { Ok(()) }
        })?;
        now = Instant::now();
    }
    outcome.measured = measured;
    outcome.sending_ended = now;
    crew.drain(&mut outcome)?;
    Ok(outcome)
}

/// Sends `per_second` for `lasting`, evenly, and tells `acknowledged` of every 204 with its id.
pub fn open_loop(
    target: Target,
    ids: &mut Ids,
    per_second: u32,
    lasting: Duration,
    mut acknowledged: impl FnMut(Id, Instant),
) -> io::Result<Outcome> {
    let mut crew = Crew::open(target)?;
    let waker = Waker::new(crew.poll.registry(), WAKER)?;
    let mut schedule = Schedule::new(per_second, lasting);
    let mut outcome = Outcome { measured: lasting, ..Outcome::new(Instant::now()) };
    let over = AtomicBool::new(false);
    thread::scope(|threads| {
        let pace = schedule.clone();
        threads.spawn(|| pace.keep(&waker, &over));
        let mut run = || {
            while !schedule.is_over() || crew.in_flight() > 0 {
                schedule.advance(Instant::now());
                crew.send_due(ids, &mut schedule.due)?;
                crew.turn(TURN_MAX, |connection, event| {
                    match event {
                        Event::Answered(answer) => {
                            let now = Instant::now();
                            outcome.count(answer, now, true);
                            if answer.status == 204 {
                                acknowledged(connection.id(), now);
                            }
                        }
                        Event::Broke { in_flight } => outcome.broken += u64::from(in_flight),
                    }
                    let due = schedule.due.pop_front();
                    due.map_or(Ok(()), |due| connection.send(ids, due))
                })?;
                if Instant::now() > schedule.ends + DRAIN_MAX {
                    break;
                }
            }
            Ok(())
        };
        let result = run();
        over.store(true, Ordering::Relaxed);
        result
    })
    .map(|()| {
        outcome.unanswered = crew.in_flight() + schedule.due.len() as u64;
        outcome.sending_ended = schedule.ends;
        outcome
    })
}

/// When requests fall due, and those that have and are not sent.
#[derive(Clone)]
struct Schedule {
    next: Instant,
    gap: Duration,
    ends: Instant,
    due: VecDeque<Instant>,
}

impl Schedule {
    fn new(per_second: u32, lasting: Duration) -> Self {
        // A little ahead, so that the first is not already late.
        let next = Instant::now() + Duration::from_millis(10);
        let gap = Duration::from_secs(1) / per_second;
        Self { next, gap, ends: next + lasting, due: VecDeque::new() }
    }

    fn advance(&mut self, now: Instant) {
        while self.next <= now && self.next < self.ends {
            self.due.push_back(self.next);
            self.next += self.gap;
        }
    }

    fn is_over(&self) -> bool {
        self.next >= self.ends && self.due.is_empty()
    }

    /// Wakes the generator whenever one falls due: `epoll_wait` counts in milliseconds, a
    /// thread's sleep is exact to some 50 µs. At high rates several fall due together, so that
    /// waking does not cost as much as serving.
    fn keep(mut self, waker: &Waker, over: &AtomicBool) {
        let gap = self.gap.max(WAKE_GAP_MIN);
        while self.next < self.ends && !over.load(Ordering::Relaxed) {
            thread::sleep(self.next.saturating_duration_since(Instant::now()));
            self.next += gap;
            if waker.wake().is_err() {
                return;
            }
        }
    }
}

/// No connection has this token.
const WAKER: Token = Token(usize::MAX);

/// What a turn found out about a connection, which can take a request now.
enum Event {
    Answered(Answer),
    /// Its connection was lost and is open again.
    Broke {
        in_flight: bool,
    },
}

/// All connections and what wakes us.
struct Crew {
    server: SocketAddr,
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    broken: u64,
}

impl Crew {
    fn open(target: Target) -> io::Result<Self> {
        let poll = Poll::new()?;
        let request = Request::new(target.server, target.reference);
        let connections = (0..target.connections)
            .map(|n| Connection::open(target.server, request.clone(), poll.registry(), Token(n)))
            .collect::<io::Result<_>>()?;
        let events = Events::with_capacity(1024);
        Ok(Self { server: target.server, poll, events, connections, broken: 0 })
    }

    /// The first request of every connection.
    fn start(&mut self, ids: &mut Ids) -> io::Result<()> {
        self.connections.iter_mut().try_for_each(|connection| connection.send(ids, Instant::now()))
    }

    /// Sends what is due on connections that are free; the rest waits for the next answer.
    fn send_due(&mut self, ids: &mut Ids, due: &mut VecDeque<Instant>) -> io::Result<()> {
        for connection in self.connections.iter_mut().filter(|one| !one.in_flight()) {
            let Some(since) = due.pop_front() else { break };
            connection.send(ids, since)?;
        }
        Ok(())
    }

    fn in_flight(&self) -> u64 {
        self.connections.iter().filter(|one| one.in_flight()).count() as u64
    }

    /// Waits for events and hands each to `handle`, which may send the next request; a connection
    /// on which that fails is opened again once.
    fn turn(
        &mut self,
        timeout: Duration,
        mut handle: impl FnMut(&mut Connection, Event) -> io::Result<()>,
    ) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for token in self.events.iter().map(mio::event::Event::token).filter(|one| *one != WAKER) {
            let connection = &mut self.connections[token.0];
            let went = match connection.advance() {
                Ok(None) => Ok(()),
                Ok(Some(answer)) => handle(connection, Event::Answered(answer)),
                Err(error) => Err(error),
            };
            if let Err(error) = went {
                self.broken += 1;
                if self.broken > BROKEN_MAX {
                    let all = format!("{BROKEN_MAX} connections broke, the last: {error}");
                    return Err(io::Error::other(all));
                }
                let in_flight = connection.reopen(self.server, self.poll.registry(), token)?;
                handle(connection, Event::Broke { in_flight })?;
            }
        }
        Ok(())
    }

    /// Waits for the answers still owed, counting but not measuring them.
    fn drain(&mut self, outcome: &mut Outcome) -> io::Result<()> {
        let until = Instant::now() + DRAIN_MAX;
        while self.in_flight() > 0 && Instant::now() < until {
            self.turn(TURN_MAX, |_, event| {
                match event {
                    Event::Answered(answer) => outcome.count(answer, Instant::now(), false),
                    Event::Broke { in_flight } => outcome.broken += u64::from(in_flight),
                }
                Ok(())
            })?;
        }
        outcome.unanswered = self.in_flight();
        Ok(())
    }
}
