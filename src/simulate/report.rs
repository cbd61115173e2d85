//! What came of a simulation, as figures. No I/O, and nothing of what callbacks say but ids.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::connection::Cause;
use crate::sender::{Loss, Platform};

/// Ids named for each reason, at most.
pub const IDS_MAX: usize = 5;

/// The longest latency told apart, in microseconds: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// What came of sending everything.
#[derive(Clone, Debug)]
pub struct Report {
    /// Who sent.
    pub platform: Platform,
    /// Messages that began.
    pub messages: u64,
    /// Callbacks that were to be sent.
    pub callbacks: u64,
    /// Requests sent, retries among them.
    pub attempts: u64,
    /// Requests that were retries.
    pub retries: u64,
    /// Whether anybody could be reached, ever.
    pub is_reached: bool,
    /// Answers by code.
    pub answers: BTreeMap<u16, u64>,
    /// Attempts without an answer, by cause.
    pub no_answers: BTreeMap<Cause, u64>,
    /// Of answered attempts, in microseconds, from when they were due.
    pub latency_us: Histogram<u64>,
    /// Answers slower than the platform asks for, from when they were sent.
    pub slower_than_asked: u64,
    /// Callbacks lost for good, by reason.
    pub lost: BTreeMap<Loss, Lost>,
    /// When the platform suspended the service's callbacks, by our time since the start.
    pub suspended_after: Option<Duration>,
    /// From the first attempt to the last answer, by our time.
    pub elapsed: Duration,
    /// The same by the platform's time, skipped gaps included.
    pub platform_elapsed: Duration,
}

/// Callbacks lost for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// How many.
    pub callbacks: u64,
    /// The messages of the first of them, at most [`IDS_MAX`].
    pub ids: Vec<String>,
}

impl Report {
    /// Nothing sent yet.
    pub fn new(platform: Platform) -> Self {
        // Three figures, from a microsecond up: the bounds are right, so this cannot fail.
        let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
            .unwrap_or_else(|error| unreachable!("the bounds of the histogram: {error:?}"));
        Self {
            platform,
            messages: 0,
            callbacks: 0,
            attempts: 0,
            retries: 0,
            is_reached: false,
            answers: BTreeMap::new(),
            no_answers: BTreeMap::new(),
            latency_us,
            slower_than_asked: 0,
            lost: BTreeMap::new(),
            suspended_after: None,
            elapsed: Duration::ZERO,
            platform_elapsed: Duration::ZERO,
        }
    }

    /// Counts an answer with the time it took since it was due.
    pub fn add_answer(&mut self, code: u16, latency: Duration) {
        *self.answers.entry(code).or_default() += 1;
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_us.saturating_record(us.max(1));
    }

    /// Counts an attempt without an answer.
    pub fn add_no_answer(&mut self, cause: Cause) {
        *self.no_answers.entry(cause).or_default() += 1;
    }

    /// Counts a callback that is gone; `id` is asked for only while there is room for it.
    pub fn add_loss(&mut self, loss: Loss, id: impl FnOnce() -> Option<String>) {
        let lost = self.lost.entry(loss).or_default();
        lost.callbacks += 1;
        if lost.ids.len() < IDS_MAX
            && let Some(id) = id()
            && !lost.ids.contains(&id)
        {
            lost.ids.push(id);
        }
    }

    /// Callbacks gone for good.
    pub fn lost_callbacks(&self) -> u64 {
        self.lost.values().map(|lost| lost.callbacks).sum()
    }

    /// Whether the receiver said no to the token.
    pub fn is_token_refused(&self) -> bool {
        [401, 403].iter().any(|code| self.lost.contains_key(&Loss::Refused(*code)))
    }

    /// Answers a second, over the whole of it.
    pub fn answers_per_second(&self) -> f64 {
        let answers = self.latency_us.len();
        #[expect(clippy::cast_precision_loss, reason = "a rate to be read by people")]
        let answers = answers as f64;
        answers / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// The latency that this share of the answers, in percent, did not exceed; `None` without one.
    pub fn latency(&self, percent: f64) -> Option<Duration> {
        let is_any = !self.latency_us.is_empty();
        is_any.then(|| Duration::from_micros(self.latency_us.value_at_percentile(percent)))
    }

    /// The longest latency.
    pub fn latency_max(&self) -> Option<Duration> {
        (!self.latency_us.is_empty()).then(|| Duration::from_micros(self.latency_us.max()))
    }
}
