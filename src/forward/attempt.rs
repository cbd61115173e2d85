//! One attempt to send a change: what it is, and what follows from how it ended.
//!
//! It has its time and no more, and always ends in one of two ways: the sink has the change, or there is a
//! [`Fault`]. Which tells the breaker, the metrics and, where somebody has to look, the log; what becomes of
//! the row is for [`fate`] to say. What was held behind it goes next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::breaker::Passage;
use super::dispatcher::{Dispatcher, Run};
use super::event::Event;
use super::fate::{fate, since};
use super::fault::Fault;
use crate::state::outbox::{Outcome, Owed};
use crate::telemetry::{AttemptOutcome, BreakerState};

/// An attempt that has ended.
pub(super) struct Attempt {
    owed: Owed,
    is_probe: bool,
    result: Result<(), Fault>,
    took: Duration,
}

impl Dispatcher {
    /// Starts an attempt, without asking whether it is still needed.
    pub(super) fn attempt(&self, run: &mut Run, owed: Owed, is_probe: bool) {
        let (sink, limit) = (Arc::clone(&self.sink), self.settings.attempt_ms_max);
        let include_raw = self.settings.include_raw;
        run.attempts.spawn(async move {
            let began = Instant::now();
            let event = Event::new(&owed, include_raw);
            let result = tokio::time::timeout(limit, sink.send(&event)).await;
            let result = result.unwrap_or_else(|_| Err(Fault::passing("no answer in time")));
            Attempt { owed, is_probe, result, took: began.elapsed() }
        });
    }

    /// What follows from how an attempt ended: for its row, for the sink, and for what was behind it.
    pub(super) fn ended(&mut self, run: &mut Run, ended: Result<Attempt, tokio::task::JoinError>) {
        // A sink that panics is a bug of ours; there is no telling which row it was about, and to go
        // on without it would stop its subject for ever.
        let attempt = match ended {
            Ok(attempt) => attempt,
            Err(error) if error.is_cancelled() => return,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let (owed, took) = (&attempt.owed, attempt.took);
        let outcome = match &attempt.result {
            Ok(()) => {
                run.breaker.succeeded();
                self.recovered(run);
                self.metrics.attempt(AttemptOutcome::Delivered, Some(took));
                self.metrics.delivered(since(owed.change.received_at, self.clock.now()));
                Outcome::Delivered
            }
            Err(fault) => self.failed(run, &attempt, fault),
        };
        if let Some(next) = run.window.done(owed.change.subject, outcome)
            && !run.is_gone
            && !*self.stop.borrow()
        {
            self.send(run, next, false);
        }
    }

    /// Says that a sink that was left alone is there again.
    fn recovered(&self, run: &mut Run) {
        if let Some(since) = run.left_alone.take() {
            let (sink, after_s) = (&*self.settings.name, since.elapsed().as_secs());
            tracing::info!(sink, after_s, "the sink takes changes again");
        }
    }

    fn failed(&mut self, run: &mut Run, attempt: &Attempt, fault: &Fault) -> Outcome {
        let name = &*self.settings.name;
        let (owed, took) = (&attempt.owed, attempt.took);
        match fault {
            Fault::Passing { retry_after, .. } => {
                self.metrics.attempt(AttemptOutcome::Passing, Some(took));
                let was_free = run.breaker.passage(Instant::now()) == Passage::Free;
                let now = Instant::now();
                run.breaker.failed(now, attempt.is_probe, *retry_after, &mut self.chance);
                if was_free && run.breaker.until().is_some() {
                    run.left_alone.get_or_insert(now);
                    tracing::warn!(
                        sink = name,
                        error = fault.why(),
                        "the sink is failing and left alone; one change is tried now and then"
                    );
                }
            }
            Fault::Refused { .. } => {
                run.breaker.succeeded();
                self.metrics.attempt(AttemptOutcome::Refused, Some(took));
            }
            Fault::Gone { why } => {
                self.metrics.attempt(AttemptOutcome::Gone, Some(took));
                self.metrics.breaker(BreakerState::Stopped);
                if !std::mem::replace(&mut run.is_gone, true) {
                    tracing::error!(
                        sink = name,
                        error = why.as_str(),
                        "the sink is gone for good; nothing is sent to it until the next start"
                    );
                }
            }
        }
        let outcome = fate(owed, fault, &self.settings, self.clock.now(), &mut self.chance);
        if let Outcome::Parked { error } = &outcome {
            self.metrics.attempt(AttemptOutcome::Parked, None);
            tracing::warn!(
                sink = name, change = %owed.change.id, error = error.as_str(),
                "a change is parked: `receiptd outbox retry` sends it again"
            );
        }
        outcome
    }
}
