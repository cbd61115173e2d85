//! Sends what is due, as the platform would, and counts what comes of it.
//!
//! One thread and one epoll drive every connection, so that the sender costs little beside the
//! receiver it tries. First attempts and retries share the workers, which is what reorders callbacks
//! at the platforms too. In an open loop a callback falls due by its schedule, however slow the
//! answers: latency counts from then, so that a stall shows in every callback it held up.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;
use rustix::io::Errno;

use super::connection::{Cause, SCRATCH_BYTES};
use super::http::Answer;
use super::life::Truth;
use super::report::Report;
use super::request::Request;
use super::schedule::{Attempt, Due, Lives, Pace, Schedule};
use super::worker::{Place, Progress, Worker};
use crate::callback::Kind;
use crate::sender::{Loss, Next, Outcome, Platform, Rules};

/// The longest sleep: so often time limits are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// So often it is told how far it has come.
const TELL: Duration = Duration::from_millis(100);

/// Events taken at once.
const EVENTS_MAX: usize = 1024;

/// No worker has this token.
const WAKER: Token = Token(usize::MAX);

/// What to simulate.
pub struct Plan<'l> {
    /// Who it is, for the report.
    pub platform: Platform,
    /// Its habits by kind, in the order of [`Kind::ALL`].
    pub rules: [Rules; 4],
    /// What happens to each message.
    pub lives: &'l dyn Lives,
    /// How many messages, at most.
    pub messages: u64,
    /// How first attempts come about.
    pub pace: Pace,
    /// How much faster than ours the platform's time runs: over 0.
    pub speed: f64,
    /// Workers, each with at most one connection: over 0.
    pub connections: usize,
    /// Where the chance in the waits between retries starts.
    pub seed: u64,
    /// Where to.
    pub place: Place,
    /// Everything of a request but its body.
    pub request: Request,
}

/// How far a simulation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Callbacks that were answered for good, or lost.
    pub done: u64,
    /// Of how many, where that is known beforehand.
    pub planned: Option<u64>,
    /// Requests so far.
    pub attempts: u64,
    /// Callbacks lost for good.
    pub lost: u64,
}

/// Why a simulation cannot go on: this machine's fault, never the receiver's.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Too many connections for this machine.
    #[error("this machine can open no more connections: {0}")]
    Exhausted(io::Error),
    /// Something else of the system's.
    #[error("the simulation cannot go on: {0}")]
    System(io::Error),
}

impl EngineError {
    /// Whether an error in connecting says something of this machine rather than of the receiver.
    pub(super) fn is_ours(error: &io::Error) -> bool {
        let ours = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
        ours.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
    }
}

impl From<io::Error> for EngineError {
    fn from(error: io::Error) -> Self {
        if Self::is_ours(&error) { Self::Exhausted(error) } else { Self::System(error) }
    }
}

/// Sends everything and waits for what comes of it, retries included.
///
/// # Errors
/// If this machine cannot.
pub fn run(plan: Plan<'_>, tell: &mut dyn FnMut(Status)) -> Result<Report, EngineError> {
    let mut engine = Engine::new(plan)?;
    let mut told = Instant::now();
    loop {
        let now = Instant::now();
        engine.schedule.release(now);
        engine.employ(now)?;
        if engine.busy == 0 {
            if engine.schedule.is_over(now) {
                break;
            }
            engine.schedule.skip_gap(now);
        }
        engine.turn(now)?;
        if told.elapsed() >= TELL {
            told = Instant::now();
            tell(engine.status());
        }
    }
    tell(engine.status());
    Ok(engine.into_report())
}

struct Engine<'l> {
    schedule: Schedule<'l>,
    lives: &'l dyn Lives,
    poll: Poll,
    events: Events,
    pacer: Pacer,
    place: Place,
    request: Request,
    workers: Vec<Worker>,
    /// Free workers, the longest free one first.
    idle: VecDeque<usize>,
    busy: usize,
    rules: [Rules; 4],
    chance: ChaCha8Rng,
    scratch: Box<[u8]>,
    started: Instant,
    last_answer: Instant,
    looked: Instant,
    /// Callbacks with nothing more to come.
    done: u64,
    report: Report,
}

impl<'l> Engine<'l> {
    fn new(plan: Plan<'l>) -> Result<Self, EngineError> {
        let Plan { platform, rules, lives, messages, pace, speed, .. } = plan;
        let Plan { connections, seed, place, request, .. } = plan;
        let poll = Poll::new()?;
        let pacer = Pacer::new(Waker::new(poll.registry(), WAKER)?);
        // The schedule last: making it takes time, and its clock runs from when it is made.
        let mut schedule = Schedule::new(lives, messages, pace, speed, Instant::now());
        let now = Instant::now();
        schedule.begin(now);
        Ok(Self {
            schedule,
            lives,
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            pacer,
            place,
            request,
            workers: (0..connections).map(|n| Worker::new(Token(n), now)).collect(),
            idle: (0..connections).collect(),
            busy: 0,
            rules,
            chance: ChaCha8Rng::seed_from_u64(seed),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            started: now,
            last_answer: now,
            looked: now,
            done: 0,
            report: Report::new(platform),
        })
    }

    /// Gives free workers what is due.
    fn employ(&mut self, now: Instant) -> Result<(), EngineError> {
        while !self.idle.is_empty() {
            let Some(due) = self.schedule.take(now) else { break };
            if let Some(worker) = self.idle.pop_front() {
                self.begin(worker, due, now)?;
            }
        }
        Ok(())
    }

    /// Lets a worker send this and, should that be over at once, whatever is due next.
    fn begin(&mut self, worker: usize, due: Due, now: Instant) -> Result<(), EngineError> {
        self.busy += 1;
        let mut next = Some(due);
        while let Some(due) = next.take() {
            let Some(callback) = self.schedule.callback(due.attempt) else { break };
            self.report.attempts += 1;
            self.report.retries += u64::from(due.attempt.attempt > 1);
            let rules = &self.rules[callback.kind as usize];
            let at = &mut self.workers[worker];
            self.request.write(&callback.body, at.request());
            match at.start(due, callback.kind, rules, &self.place, self.poll.registry(), now)? {
                Progress::Busy => return Ok(()),
                Progress::Over(result) => self.conclude(worker, result, now),
            }
            next = self.schedule.take(now);
        }
        self.busy -= 1;
        self.idle.push_back(worker);
        Ok(())
    }

    /// Waits for events, and follows them up; gives up what has taken too long.
    fn turn(&mut self, now: Instant) -> Result<(), EngineError> {
        let wait = self.schedule.next().map(|next| next.saturating_duration_since(now));
        if let Some(next) = self.schedule.next()
            && wait.is_some_and(|wait| wait < LOOK)
        {
            self.pacer.wake_at(next, now);
        }
        let wait = wait.unwrap_or(LOOK).min(LOOK);
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in events.iter().filter(|event| event.token() != WAKER) {
            self.follow(event)?;
        }
        self.events = events;
        if self.looked.elapsed() >= LOOK {
            self.give_up()?;
        }
        Ok(())
    }

    fn follow(&mut self, event: &mio::event::Event) -> Result<(), EngineError> {
        let worker = event.token().0;
        let Some(at) = self.workers.get_mut(worker) else { return Ok(()) };
        let rules = &self.rules;
        let now = Instant::now();
        let progress = at.advance(
            event,
            |kind| rules[kind as usize],
            &self.place,
            self.poll.registry(),
            &mut self.scratch,
            now,
        )?;
        match progress {
            Progress::Busy => Ok(()),
            Progress::Over(result) => self.over(worker, result, now),
        }
    }

    /// An attempt is over, and its worker free for the next.
    fn over(
        &mut self,
        worker: usize,
        result: Result<Answer, Cause>,
        now: Instant,
    ) -> Result<(), EngineError> {
        self.conclude(worker, result, now);
        self.busy -= 1;
        match self.schedule.take(now) {
            Some(due) => self.begin(worker, due, now),
            None => {
                self.idle.push_back(worker);
                Ok(())
            }
        }
    }

    fn give_up(&mut self) -> Result<(), EngineError> {
        let now = Instant::now();
        self.looked = now;
        for worker in 0..self.workers.len() {
            if self.workers[worker].is_overdue(now) {
                self.over(worker, Err(Cause::TimedOut), now)?;
            }
        }
        Ok(())
    }

    /// Counts what came of an attempt, and does what the platform does next.
    fn conclude(&mut self, worker: usize, result: Result<Answer, Cause>, now: Instant) {
        let at = &mut self.workers[worker];
        self.report.is_reached |= at.is_connected();
        let is_kept = result.is_ok_and(|answer| answer.keep_alive);
        let keeps = |kind: Kind| self.rules[kind as usize].keep_alive;
        let Some(task) = at.finish(is_kept && keeps(Kind::Receipt), now) else { return };
        let rules = self.rules[task.kind as usize];
        let outcome = match result {
            Ok(answer) => {
                self.last_answer = now;
                self.report.add_answer(answer.code, now.saturating_duration_since(task.due.since));
                let took = now.saturating_duration_since(task.started);
                let is_slow = rules.answer_asked.is_some_and(|asked| took > asked);
                self.report.slower_than_asked += u64::from(is_slow);
                Outcome::Answered(answer.code)
            }
            Err(cause) => {
                self.report.add_no_answer(cause);
                Outcome::NoAnswer
            }
        };
        let attempt = task.due.attempt;
        match rules.next(attempt.attempt, outcome, &mut self.chance) {
            Next::Done => self.done += 1,
            Next::Again(_) if self.report.suspended_after.is_some() => {
                self.lose(attempt, Loss::Suspended);
            }
            Next::Again(wait) => {
                let again = Attempt { attempt: attempt.attempt + 1, ..attempt };
                self.schedule.again(again, wait, now);
            }
            Next::Lost(loss) => {
                self.lose(attempt, loss);
                if rules.suspends && loss == Loss::RetriesExhausted {
                    self.suspend(now);
                }
            }
        }
    }

    fn lose(&mut self, attempt: Attempt, loss: Loss) {
        self.done += 1;
        let lives = self.lives;
        self.report.add_loss(loss, || id_of(lives, attempt.message));
    }

    /// From now on nothing of this service is sent; what waits for a retry is dropped.
    fn suspend(&mut self, now: Instant) {
        if self.report.suspended_after.is_some() {
            return;
        }
        self.report.suspended_after = Some(now.saturating_duration_since(self.started));
        let Self { schedule, report, lives, done, .. } = self;
        schedule.call_off(now, |attempt| {
            *done += 1;
            report.add_loss(Loss::Suspended, || id_of(*lives, attempt.message));
        });
    }

    fn status(&self) -> Status {
        Status {
            done: self.done,
            planned: self.schedule.planned().map(|planned| planned as u64),
            attempts: self.report.attempts,
            lost: self.report.lost_callbacks(),
        }
    }

    fn into_report(mut self) -> Report {
        self.report.messages = self.schedule.messages();
        self.report.callbacks = self.done;
        self.report.elapsed = self.last_answer.saturating_duration_since(self.started);
        self.report.platform_elapsed = self.schedule.clock.at(self.last_answer);
        self.report
    }
}

/// The id that callbacks about this message carry.
fn id_of(lives: &dyn Lives, message: u64) -> Option<String> {
    match lives.truth(message) {
        Truth::Notification(keys) | Truth::Message(keys) => {
            keys.get("id").and_then(|id| id.as_str()).map(str::to_owned)
        }
        Truth::Silent => None,
    }
}

/// Wakes the engine when something falls due: `epoll_wait` counts in milliseconds, a thread's sleep
/// is exact to some 50 µs, and latency counts from the moment that was due.
struct Pacer {
    wake: Sender<Instant>,
    /// The moment it waits for.
    until: Option<Instant>,
}

impl Pacer {
    fn new(waker: Waker) -> Self {
        let (wake, woken) = mpsc::channel::<Instant>();
        thread::spawn(move || {
            while let Ok(at) = woken.recv() {
                thread::sleep(at.saturating_duration_since(Instant::now()));
                if waker.wake().is_err() {
                    return;
                }
            }
        });
        Self { wake, until: None }
    }

    fn wake_at(&mut self, at: Instant, now: Instant) {
        if self.until.is_none_or(|until| until <= now) {
            self.until = Some(at);
            // Without the thread the engine is late by a millisecond at most.
            let _ = self.wake.send(at);
        }
    }
}
