//! One sink of a relay.
//!
//! Before it is sent anything it must have shown that it keeps what it accepts: it is asked at the
//! start, and if it cannot be reached or says no, every two seconds until it says yes. Until then its
//! callbacks are answered 503 and the receiver is not ready, but it runs: receivers and brokers
//! are started together, in any order, and a sender repeats what was answered 503 as it repeats
//! what nobody answered at all.
//!
//! Once it has, an outage does not make the receiver unready. Every receiver in front of a broker
//! would be unready at that moment, and what a load balancer answers without any is its own affair;
//! where that is a 404, the sender never comes again. A 503 of ours is right in any case. That holds for
//! a sink that says it is gone, too: nothing waits here that it could be spared, and one slip of an app
//! must not take down what catches its receipts. The log says it as an error.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{NotPassedOn, Problem};
use crate::change::{Change, Filter};
use crate::config::settings::Sink as Settings;
use crate::forward::event::Event;
use crate::forward::fault::Fault;
use crate::forward::sink::Sink;
use crate::telemetry::{Metrics, RelayMetrics};

/// Between two questions whether a sink keeps what it accepts.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// How long it may take over its answer.
const ASK_MAX: Duration = Duration::from_secs(10);

/// An answer that stays the same, and a sink that goes on failing, are logged this often.
const REMIND: Duration = Duration::from_secs(60);

/// A sink, and what has been heard from it.
#[derive(Debug)]
pub(super) struct Target {
    pub name: Arc<str>,
    pub filter: Filter,
    sink: Sink,
    wants_body: bool,
    include_raw: bool,
    attempt_max: Duration,
    slots: Semaphore,
    is_proven: watch::Sender<bool>,
    is_failing: AtomicBool,
    failures: Mutex<Failures>,
    metrics: RelayMetrics,
}

/// What went wrong since the log last said so.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    logged_at: Option<Instant>,
}

impl Target {
    pub fn open(settings: &Settings, metrics: &Metrics) -> Result<Self, Problem> {
        let unusable = |why| Problem::Unusable { sink: Arc::clone(&settings.name), why };
        Ok(Self {
            name: Arc::clone(&settings.name),
            filter: settings.filter.clone(),
            sink: Sink::open(settings).map_err(unusable)?,
            wants_body: settings.wants_body(),
            include_raw: settings.include_raw,
            attempt_max: settings.attempt_ms_max,
            slots: Semaphore::new(settings.in_flight_max.clamp(1, Semaphore::MAX_PERMITS)),
            is_proven: watch::Sender::new(false),
            is_failing: AtomicBool::new(false),
            failures: Mutex::default(),
            metrics: metrics.relay(&settings.name),
        })
    }

    /// Asks until the sink has said that it keeps what it accepts.
    pub async fn prove(&self) {
        let mut said: Option<(String, Instant)> = None;
        loop {
            let answer = timeout(ASK_MAX, self.sink.check_durable()).await;
            let Err(why) = answer.unwrap_or_else(|_| Err("no answer in time".to_owned())) else {
                tracing::info!(sink = &*self.name, "the sink keeps what it accepts");
                self.is_proven.send_replace(true);
                return;
            };
            let is_known =
                said.as_ref().is_some_and(|(old, at)| *old == why && at.elapsed() < REMIND);
            if !is_known {
                tracing::error!(
                    sink = &*self.name,
                    why,
                    "the sink has not shown that it keeps what it accepts; until then its \
                     callbacks are answered 503"
                );
                said = Some((why, Instant::now()));
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// Yields once it has said so.
    pub async fn proven(&self) {
        // The sender lives as long as `self`, so this cannot end early.
        let _ = self.is_proven.subscribe().wait_for(|is_proven| *is_proven).await;
    }

    /// Whether anything may be sent to it.
    pub fn usable(&self) -> Result<(), NotPassedOn> {
        if *self.is_proven.borrow() { Ok(()) } else { Err(NotPassedOn::Unproven) }
    }

    /// Returns once the sink has accepted the change.
    pub async fn send(
        &self,
        change: Change,
        body: &Bytes,
        deadline: Instant,
    ) -> Result<(), NotPassedOn> {
        self.usable()?;
        let body = self.wants_body.then(|| body.clone());
        let sending = timeout_at(deadline, async {
            let _slot = self.slots.acquire().await;
            // Only now: the callback, if it is included, is copied.
            let event = Event::of(change, body, self.include_raw);
            // An attempt that may take longer than the answer is bounded by that.
            if Instant::now() + self.attempt_max < deadline {
                let late = |_| Err(Fault::passing("no answer in time"));
                timeout(self.attempt_max, self.sink.send(&event)).await.unwrap_or_else(late)
            } else {
                self.sink.send(&event).await
            }
        });
        match sending.await {
            Ok(Ok(())) => {
                self.accepted();
                Ok(())
            }
            Ok(Err(fault)) => Err(self.failed(&fault)),
            Err(_) => {
                self.metrics.failed.inc();
                self.note("no answer in time", false);
                Err(NotPassedOn::Late)
            }
        }
    }

    fn accepted(&self) {
        self.metrics.accepted.inc();
        // Looked at before it is written: it is false for nearly every event.
        if self.is_failing.load(Ordering::Relaxed) && self.is_failing.swap(false, Ordering::Relaxed)
        {
            tracing::info!(sink = &*self.name, "the sink accepts events again");
        }
    }

    fn failed(&self, fault: &Fault) -> NotPassedOn {
        match fault {
            Fault::Passing { why, .. } => {
                self.metrics.failed.inc();
                self.note(why, false);
                NotPassedOn::Failed
            }
            Fault::Refused { why } => {
                self.metrics.refused.inc();
                self.note(why, false);
                NotPassedOn::Refused
            }
            Fault::Gone { why } => {
                self.metrics.failed.inc();
                self.note(why, true);
                NotPassedOn::Failed
            }
        }
    }

    /// Logs the first failure at once, and then how many there were now and then.
    fn note(&self, why: &str, is_gone: bool) {
        let is_first = !self.is_failing.swap(true, Ordering::Relaxed);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.count += 1;
        let is_due = failures.logged_at.is_none_or(|at| at.elapsed() >= REMIND);
        // A sink that fails every other time must not fill the log.
        let is_quiet = failures.logged_at.is_none_or(|at| at.elapsed() >= ASK_AGAIN);
        if is_due || (is_first && is_quiet) {
            let count = std::mem::take(&mut failures.count);
            failures.logged_at = Some(Instant::now());
            let sink = &*self.name;
            if is_gone {
                tracing::error!(
                    sink,
                    count,
                    why,
                    "the sink says that it is gone; it is tried again"
                );
            } else {
                tracing::warn!(sink, count, why, "the sink did not accept events");
            }
        }
    }
}
