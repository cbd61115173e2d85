//! One of the platform's workers: sends one callback at a time, on a connection of its own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Registry, Token};

use super::connection::{Cause, Connection, Outbox, Step, Tls};
use super::engine::EngineError;
use super::http::{Answer, Reader};
use super::schedule::Due;
use crate::callback::Kind;
use crate::sender::Rules;

/// A connection that answered this recently is used again without a look whether it was closed:
/// an event would have told, and the look is a system call.
const FRESH: Duration = Duration::from_millis(1);

/// Where the receiver is.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its addresses, in the order in which they are tried.
    pub addresses: Vec<SocketAddr>,
    /// Set if it is to be spoken to through TLS.
    pub tls: Option<Tls>,
}

/// A worker and its connection.
#[derive(Debug)]
pub struct Worker {
    token: Token,
    connection: Option<Connection>,
    outbox: Outbox,
    reader: Reader,
    task: Option<Task>,
    /// When its last answer came.
    idle_since: Instant,
}

/// What a worker is at.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// What it sends.
    pub due: Due,
    /// Its kind.
    pub kind: Kind,
    /// When it began.
    pub started: Instant,
    /// When the platform gives the attempt up unless something comes.
    deadline: Instant,
    /// Place of the address that it connects to.
    address: usize,
}

/// What came of an event.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// Nothing to be done.
    Busy,
    /// The attempt is over.
    Over(Result<Answer, Cause>),
}

impl Worker {
    /// Has nothing to do.
    pub fn new(token: Token, now: Instant) -> Self {
        Self {
            token,
            connection: None,
            outbox: Outbox::default(),
            reader: Reader::default(),
            task: None,
            idle_since: now,
        }
    }

    /// Whether it is at something.
    pub fn is_busy(&self) -> bool {
        self.task.is_some()
    }

    /// Where the next request is to be written.
    pub fn request(&mut self) -> &mut Vec<u8> {
        &mut self.outbox.bytes
    }

    /// Begins to send what stands in [`Worker::request`].
    ///
    /// # Errors
    /// If this machine can open no more connections.
    pub fn start(
        &mut self,
        due: Due,
        kind: Kind,
        rules: &Rules,
        place: &Place,
        registry: &Registry,
        now: Instant,
    ) -> Result<Progress, EngineError> {
        self.outbox.written = 0;
        self.reader.reset();
        let is_fresh = now.saturating_duration_since(self.idle_since) < FRESH;
        self.connection = self.connection.take().filter(|kept| is_fresh || !kept.is_dropped());
        let mut task = Task { due, kind, started: now, deadline: now, address: 0 };
        let progress = match &mut self.connection {
            Some(connection) => {
                task.deadline = now + rules.silence_max;
                match connection.send(&mut self.outbox) {
                    Ok(()) => Progress::Busy,
                    Err(cause) => Progress::Over(Err(cause)),
                }
            }
            None => {
                task.deadline = now + rules.connect_max;
                self.connect(&mut task, place, registry)?
            }
        };
        self.task = Some(task);
        Ok(progress)
    }

    /// Connects to the address at `task.address`, or to one after it.
    fn connect(
        &mut self,
        task: &mut Task,
        place: &Place,
        registry: &Registry,
    ) -> Result<Progress, EngineError> {
        while let Some(address) = place.addresses.get(task.address) {
            match Connection::open(*address, place.tls.as_ref(), registry, self.token) {
                Ok(connection) => {
                    self.connection = Some(connection);
                    return Ok(Progress::Busy);
                }
                Err(error) if EngineError::is_ours(&error) => return Err(error.into()),
                Err(_) => task.address += 1,
            }
        }
        Ok(Progress::Over(Err(Cause::Refused)))
    }

    /// Follows an event up.
    ///
    /// # Errors
    /// If this machine can open no more connections.
    pub fn advance(
        &mut self,
        event: &Event,
        rules: impl FnOnce(Kind) -> Rules,
        place: &Place,
        registry: &Registry,
        scratch: &mut [u8],
        now: Instant,
    ) -> Result<Progress, EngineError> {
        let Some(connection) = &mut self.connection else { return Ok(Progress::Busy) };
        let Some(mut task) = self.task else {
            // Nothing is owed: whatever comes on an idle connection ends it.
            if event.is_read_closed() || event.is_error() || connection.is_dropped() {
                self.connection = None;
            }
            return Ok(Progress::Busy);
        };
        let was_connected = connection.is_connected();
        match connection.advance(event, &mut self.outbox, &mut self.reader, scratch) {
            Ok(Step::Answered(answer)) => Ok(Progress::Over(Ok(answer))),
            Ok(Step::Still) => Ok(Progress::Busy),
            Ok(Step::Moved) => {
                // Connecting has one limit for all of it; then each silence has one.
                if connection.is_open() {
                    task.deadline = now + rules(task.kind).silence_max;
                    self.task = Some(task);
                }
                Ok(Progress::Busy)
            }
            Err(Cause::Refused) if !was_connected => {
                task.address += 1;
                let progress = self.connect(&mut task, place, registry);
                self.task = Some(task);
                progress
            }
            Err(cause) => Ok(Progress::Over(Err(cause))),
        }
    }

    /// Whether its attempt has taken longer than the platform waits.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.task.is_some_and(|task| now >= task.deadline)
    }

    /// Whether its connection came about.
    pub fn is_connected(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_connected)
    }

    /// Ends what it is at; the connection stays if it may serve another request.
    pub fn finish(&mut self, is_kept: bool, now: Instant) -> Option<Task> {
        if !is_kept {
            self.connection = None;
        }
        self.idle_since = now;
        self.task.take()
    }
}
