//! One sink's dispatcher: takes what is owed, sends it, and has what became of it written down.
//!
//! A loop over events: more is settled, an attempt has ended, something is due, something was
//! recorded. What may be sent next is decided by [`Window`], whether the sink is worth trying by
//! [`Breaker`], and what a failure means by [`super::fate`]; none of them does I/O. What one attempt is,
//! and what follows from how it ended, stands in `attempt`.
//!
//! It reads through a connection of its own and writes nothing: what became of rows is handed to the
//! settling thread, in the order in which it happened, one hand-over at a time. A crash anywhere
//! sends again what was not recorded, in the same order and with the same ids.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::attempt::Attempt;
use super::backoff::{Backoff, Chance};
use super::breaker::{Breaker, Passage, RETRY_AFTER_MAX};
use super::fate::since;
use super::record::{PAUSE, Recorded, hand_over};
use super::sink::Sink;
use super::window::{Record, Window};
use crate::clock::{Clock, Timestamp};
use crate::config::settings::{self, Deliver};
use crate::journal::Journal;
use crate::settle::{OnThread, Settled};
use crate::sqlite;
use crate::state::outbox::{self, Outcome, Owed};
use crate::telemetry::{AttemptOutcome, BreakerState, SinkMetrics};

/// Rows in hand for each that may be under way: enough to find other subjects behind a busy one.
const WINDOW_ROWS_PER_PLACE: usize = 16;

/// Bytes in hand from which on no more is taken: what was read last comes on top.
const WINDOW_BYTES_MAX: usize = 16 << 20;

/// How long to wait before looking anyway.
const LOOK: Duration = Duration::from_secs(1);

/// Changes of one sink on their way.
pub struct Dispatcher {
    /// Its bounds.
    pub settings: settings::Sink,
    /// Where to.
    pub sink: Arc<Sink>,
    /// Read-only, to the state file.
    pub reader: Connection,
    /// To have it changed.
    pub on_thread: OnThread,
    /// How far it is settled.
    pub settled: Settled,
    /// How far it could be.
    pub journal: Journal,
    /// The time.
    pub clock: Clock,
    /// For pauses.
    pub chance: Chance,
    /// What is counted.
    pub metrics: SinkMetrics,
    /// Becomes true when no more is to be sent.
    pub stop: watch::Receiver<bool>,
}

/// What a dispatcher knows while it runs.
pub(super) struct Run {
    pub(super) window: Window,
    pub(super) breaker: Breaker,
    pub(super) attempts: JoinSet<Attempt>,
    recordings: JoinSet<(Record, Recorded)>,
    /// Fresh rows up to this key were taken.
    scanned: i64,
    /// Whether there may be fresh rows behind that.
    may_be_fresh: bool,
    generation: u64,
    /// The sink said that it is there no more.
    pub(super) is_gone: bool,
    /// Since when it is left alone, until it takes a change again.
    pub(super) left_alone: Option<Instant>,
    /// Nothing is sent before the journal is settled up to here.
    sends_from: i64,
    /// When it was last looked up what is owed longest.
    looked: Option<Instant>,
}

impl Dispatcher {
    /// Runs until told to stop; then what is under way is finished and recorded. The caller bounds
    /// how long that may take.
    pub async fn run(mut self) {
        let backoff = self.backoff();
        let mut run = Run {
            window: self.window(),
            breaker: Breaker::new(backoff),
            attempts: JoinSet::new(),
            recordings: JoinSet::new(),
            scanned: i64::MIN,
            may_be_fresh: true,
            generation: self.settled.generation(),
            is_gone: false,
            left_alone: None,
            sends_from: self.sends_from(),
            looked: None,
        };
        loop {
            let is_stopping = *self.stop.borrow();
            if is_stopping && run.attempts.is_empty() && run.window.is_recorded() {
                return;
            }
            self.start_over_if_the_file_is_another(&mut run);
            let is_behind = self.settled.seq() < run.sends_from;
            let wake = if is_stopping || run.is_gone || is_behind {
                LOOK
            } else {
                self.fill(&mut run).unwrap_or_else(|error| {
                    tracing::debug!(sink = &*self.settings.name, %error, "the outbox cannot be read");
                    PAUSE
                })
            };
            self.record(&mut run);
            tokio::select! {
                Some(ended) = run.attempts.join_next() => {
                    self.ended(&mut run, ended);
                    // All that have ended by now make room at once: the outbox is read for all of them.
                    while let Some(ended) = run.attempts.try_join_next() {
                        self.ended(&mut run, ended);
                    }
                }
                Some(recorded) = run.recordings.join_next() => {
                    if !self.recorded(&mut run, recorded) {
                        return;
                    }
                }
                more = self.settled.changes() => {
                    run.may_be_fresh = true;
                    if !more {
                        return;
                    }
                }
                _ = self.stop.changed(), if !is_stopping => {}
                () = tokio::time::sleep(wake) => run.may_be_fresh = true,
            }
        }
    }

    fn window(&self) -> Window {
        Window::new(self.settings.in_flight_max * WINDOW_ROWS_PER_PLACE, WINDOW_BYTES_MAX)
    }

    fn backoff(&self) -> Backoff {
        Backoff { min: self.settings.backoff_ms_min, max: self.settings.backoff_ms_max }
    }

    /// A state that fell back, in a power cut or because it was lost, settles again what it had. A sink
    /// that wants only the latest is told nothing meanwhile: an older change, left out the first time,
    /// would reach it behind the newer one that it has.
    fn sends_from(&self) -> i64 {
        match self.settings.deliver {
            Deliver::EveryChange => i64::MIN,
            Deliver::Latest => self.journal.progress().committed(),
        }
    }

    /// A state file that was set aside took its outbox with it: what the new one owes is read from its
    /// start. What is under way is sent again.
    fn start_over_if_the_file_is_another(&mut self, run: &mut Run) {
        let generation = self.settled.generation();
        if generation == run.generation {
            return;
        }
        let path = self.reader.path().map(std::path::PathBuf::from);
        let opened = path.map(|path| open_reader(&path));
        let Some(Ok(reader)) = opened else { return };
        if let Ok((rows, parked)) = outbox::count(&reader, &self.settings.name) {
            self.metrics.found(rows, parked);
        }
        self.reader = reader;
        run.attempts.abort_all();
        run.recordings.abort_all();
        (run.attempts, run.recordings) = (JoinSet::new(), JoinSet::new());
        run.window = self.window();
        run.breaker.no_probe();
        run.sends_from = self.sends_from();
        (run.scanned, run.may_be_fresh, run.generation) = (i64::MIN, true, generation);
    }

    /// Takes and starts as much as may be. Returns after which time to look again.
    fn fill(&mut self, run: &mut Run) -> rusqlite::Result<Duration> {
        let (instant, now) = (Instant::now(), self.clock.now());
        let passage = run.breaker.passage(instant);
        self.metrics.breaker(match passage {
            _ if run.breaker.until().is_none() && passage == Passage::Free => BreakerState::Closed,
            Passage::Barred if run.breaker.until().is_some() => BreakerState::Open,
            _ => BreakerState::HalfOpen,
        });
        match passage {
            Passage::Barred => {}
            Passage::Probe if run.breaker.prefers_fresh() => {
                if !self.take_fresh(run, true)? {
                    self.take_due(run, now, true)?;
                }
            }
            Passage::Probe => {
                if !self.take_due(run, now, true)? {
                    self.take_fresh(run, true)?;
                }
            }
            Passage::Free => {
                self.take_due(run, now, false)?;
                self.take_fresh(run, false)?;
            }
        }
        // It steps over whatever is parked before it: not worth it more often.
        if run.looked.is_none_or(|looked| instant.duration_since(looked) >= LOOK) {
            run.looked = Some(instant);
            self.metrics.oldest(outbox::oldest(&self.reader, &self.settings.name)?);
        }
        self.wake(run, now)
    }

    /// When there is something to do even if nothing happens. `now`: what was due then is on its way,
    /// or there was no place for it, and is looked at when something has ended.
    fn wake(&self, run: &Run, now: Timestamp) -> rusqlite::Result<Duration> {
        // Once the pause is over and there was nothing to try it with, it is no reason to hurry.
        if let Some(until) = run.breaker.until().filter(|until| *until > Instant::now()) {
            return Ok(until.saturating_duration_since(Instant::now()).min(RETRY_AFTER_MAX));
        }
        let due = outbox::next_due(&self.reader, &self.settings.name, now)?;
        let wait = due.map_or(LOOK, |due| since(now, due));
        Ok(wait.clamp(Duration::from_millis(1), LOOK))
    }

    fn places(&self, run: &Run, is_probe: bool) -> usize {
        let free = self.settings.in_flight_max.saturating_sub(run.window.under_way());
        if is_probe { free.min(1) } else { free }
    }

    /// Takes waiting rows that are due. Whether any was sent.
    fn take_due(
        &mut self,
        run: &mut Run,
        now: Timestamp,
        is_probe: bool,
    ) -> rusqlite::Result<bool> {
        let places = self.places(run, is_probe).min(run.window.room());
        if places == 0 {
            return Ok(false);
        }
        // Those in hand are due too, until it is recorded what became of them.
        let rows_max = places + run.window.rows();
        let rows = outbox::due(&self.reader, &self.settings.name, now, rows_max)?;
        let rows: Vec<Owed> =
            rows.into_iter().filter(|owed| !run.window.has(owed.change.key)).take(places).collect();
        let mut has_sent = false;
        for owed in rows {
            if let Some(owed) = run.window.take_due(owed) {
                has_sent |= self.send(run, owed, is_probe);
            }
        }
        Ok(has_sent)
    }

    /// Takes fresh rows, in order. Whether any was sent.
    fn take_fresh(&mut self, run: &mut Run, is_probe: bool) -> rusqlite::Result<bool> {
        let mut has_sent = false;
        while run.may_be_fresh
            && run.window.room() > 0
            && self.places(run, is_probe) > 0
            && !(is_probe && has_sent)
        {
            // No more than can be sent now: what is read beyond that is read again after each attempt.
            let rows_max = self.places(run, is_probe).min(run.window.room());
            let sink = &self.settings.name;
            let rows = outbox::fresh(&self.reader, sink, run.scanned, rows_max)?;
            run.may_be_fresh = !rows.is_empty();
            for owed in rows {
                if !is_probe && self.places(run, false) == 0 {
                    // The rest is read again when there is a place.
                    return Ok(has_sent);
                }
                let (subject, key) = (owed.change.subject, owed.change.key);
                let is_blocked = outbox::is_blocked(&self.reader, sink, subject, key)?;
                run.scanned = key;
                if let Some(owed) = run.window.take_fresh(owed, is_blocked) {
                    has_sent |= self.send(run, owed, is_probe);
                }
            }
        }
        Ok(has_sent)
    }

    /// Starts an attempt, unless a newer change makes it needless. Whether it was started.
    pub(super) fn send(&self, run: &mut Run, owed: Owed, is_probe: bool) -> bool {
        let sink = &self.settings.name;
        let mut next = Some(owed);
        while let Some(owed) = next {
            // If that cannot be told, it is sent: once too often does no harm.
            let is_overtaken = owed.is_latest_only
                && outbox::is_overtaken(&self.reader, sink, &owed.change).unwrap_or(false);
            if !is_overtaken {
                if is_probe {
                    run.breaker.probe();
                }
                self.attempt(run, owed, is_probe);
                return true;
            }
            self.metrics.attempt(AttemptOutcome::Overtaken, None);
            next = run.window.done(owed.change.subject, Outcome::Overtaken);
        }
        false
    }

    /// Hands over what became of rows, one hand-over at a time.
    fn record(&self, run: &mut Run) {
        let Some(record) = run.window.to_record() else { return };
        let (sink, on_thread) = (Arc::clone(&self.settings.name), self.on_thread.clone());
        let now = self.clock.now();
        run.recordings.spawn(hand_over(on_thread, sink, record, now));
    }

    /// Whether to go on.
    fn recorded(
        &self,
        run: &mut Run,
        recorded: Result<(Record, Recorded), tokio::task::JoinError>,
    ) -> bool {
        match recorded {
            Ok((_, Recorded::Done(written))) => {
                self.metrics.gone(written.gone);
                self.metrics.parked(written.parked);
                run.window.recorded();
                true
            }
            Ok((record, Recorded::Failed)) => {
                run.window.not_recorded(record);
                true
            }
            // What was not recorded is sent again at the next start.
            Ok((_, Recorded::Ended)) => false,
            Err(_) => true,
        }
    }
}

/// A connection to the state for reading the outbox.
///
/// # Errors
/// If the file cannot be opened.
pub fn open_reader(state: &std::path::Path) -> Result<Connection, sqlite::OpenError> {
    sqlite::open(state, &crate::state::tables::SCHEMA, sqlite::Access::Read)
}
