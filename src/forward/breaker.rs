//! Whether a sink is worth trying: a circuit breaker.
//!
//! Closed, everything is sent. After `FAILURES_MAX` failures in a row that say something of the
//! sink and nothing of a change, it opens: nothing is sent, and what is owed stays in the file. After
//! a pause, which doubles from failure to failure, it is half open: one change is sent to see. A pause
//! that the sink asked for counts too, but only then: asked for because of one change, it must not
//! hold up the others. Pure: time and chance are arguments.

use std::time::{Duration, Instant};

use super::backoff::{Backoff, Chance};

/// Failures in a row that open it.
const FAILURES_MAX: u32 = 5;

/// The longest pause before the sink is tried again, whatever is configured for one change: a sink
/// that came back must not be left waiting.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The longest time a sink may ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What the breaker lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Everything.
    Free,
    /// One change, to see.
    Probe,
    /// Nothing.
    Barred,
}

/// Follows successes and failures.
#[derive(Debug)]
pub struct Breaker {
    backoff: Backoff,
    /// In a row.
    failures: u32,
    /// How often it has opened in a row.
    openings: u32,
    /// Set while it is open or half open: when it may be tried.
    until: Option<Instant>,
    is_probing: bool,
}

impl Breaker {
    /// Closed.
    pub fn new(backoff: Backoff) -> Self {
        let backoff = Backoff { max: backoff.max.min(PAUSE_MAX), ..backoff };
        Self { backoff, failures: 0, openings: 0, until: None, is_probing: false }
    }

    /// What may be sent now.
    pub fn passage(&self, now: Instant) -> Passage {
        match self.until {
            None => Passage::Free,
            Some(until) if now >= until && !self.is_probing => Passage::Probe,
            Some(_) => Passage::Barred,
        }
    }

    /// Whether a change that never failed is to be tried before one that did: in turns, since each kind
    /// may be what the sink cannot take.
    pub fn prefers_fresh(&self) -> bool {
        self.openings % 2 == 1
    }

    /// When it is to be tried next; `None` if it is closed or being tried.
    pub fn until(&self) -> Option<Instant> {
        self.until.filter(|_| !self.is_probing)
    }

    /// The one change that is let pass is on its way.
    pub fn probe(&mut self) {
        self.is_probing = true;
    }

    /// The probe came to nothing, for want of anything to send or because it was given up.
    pub fn no_probe(&mut self) {
        self.is_probing = false;
    }

    /// The sink took a change, or said of one that it never will: it is there.
    pub fn succeeded(&mut self) {
        (self.failures, self.openings, self.until, self.is_probing) = (0, 0, None, false);
    }

    /// It did not. `is_probe`: this was the one change that was let pass. `retry_after`: what the sink
    /// asked for itself.
    pub fn failed(
        &mut self,
        now: Instant,
        is_probe: bool,
        retry_after: Option<Duration>,
        chance: &mut Chance,
    ) {
        self.failures = self.failures.saturating_add(1);
        self.is_probing &= !is_probe;
        if self.until.is_some() && !is_probe {
            // What was under way when it opened says nothing new.
            return;
        }
        if self.failures >= FAILURES_MAX || is_probe {
            let pause = self.backoff.pause(self.openings, chance);
            let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
            self.until = Some(now + pause.max(asked));
            self.openings = self.openings.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> (Breaker, Instant, Chance) {
        let backoff = Backoff { min: SECOND, max: SECOND * 60 };
        (Breaker::new(backoff), Instant::now(), Chance::seeded(1))
    }

    #[test]
    fn a_few_failures_between_successes_do_not_open_it() {
        let (mut breaker, now, mut chance) = breaker();
        for _ in 0..3 {
            (1..FAILURES_MAX).for_each(|_| breaker.failed(now, false, None, &mut chance));
            assert_eq!(breaker.passage(now), Passage::Free);
            breaker.succeeded();
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_after_a_pause_one_change_is_let_pass() {
        let (mut breaker, now, mut chance) = breaker();
        (0..FAILURES_MAX).for_each(|_| breaker.failed(now, false, None, &mut chance));
        let until = breaker.until().unwrap();
        assert!(until <= now + SECOND);
        assert_eq!(breaker.passage(now + SECOND), Passage::Probe);
        breaker.probe();
        assert_eq!(breaker.passage(now + SECOND), Passage::Barred, "one is enough");
        breaker.failed(now + SECOND, true, None, &mut chance);
        assert_eq!(breaker.passage(now + SECOND * 40), Passage::Probe);
        breaker.probe();
        breaker.succeeded();
        assert_eq!(breaker.passage(now), Passage::Free);
    }

    #[test]
    fn a_pause_that_the_sink_asks_for_is_kept_up_to_an_hour() {
        let (mut breaker, now, mut chance) = breaker();
        let mut fail = |breaker: &mut Breaker, asked| {
            (0..FAILURES_MAX).for_each(|_| breaker.failed(now, false, Some(asked), &mut chance));
        };
        breaker.failed(now, false, Some(SECOND * 90), &mut Chance::seeded(1));
        assert_eq!(breaker.passage(now), Passage::Free, "one change is not the sink");
        fail(&mut breaker, SECOND * 90);
        assert_eq!(breaker.passage(now + SECOND * 89), Passage::Barred);
        assert_eq!(breaker.passage(now + SECOND * 90), Passage::Probe);
        breaker.succeeded();
        fail(&mut breaker, SECOND * 100_000);
        assert_eq!(breaker.passage(now + RETRY_AFTER_MAX), Passage::Probe);
    }

    #[test]
    fn what_was_under_way_when_it_opened_does_not_make_the_pause_longer() {
        let (mut breaker, now, mut chance) = breaker();
        (0..FAILURES_MAX).for_each(|_| breaker.failed(now, false, None, &mut chance));
        let until = breaker.until();
        (0..64).for_each(|_| breaker.failed(now + SECOND, false, None, &mut chance));
        assert_eq!(breaker.until(), until);
        let probed = until.unwrap();
        assert_eq!(breaker.passage(probed), Passage::Probe);
        breaker.probe();
        breaker.failed(probed, false, None, &mut chance);
        assert_eq!(breaker.passage(probed), Passage::Barred, "the probe is still under way");
    }

    #[test]
    fn a_sink_that_was_away_for_long_is_tried_at_least_twice_a_minute() {
        let (mut breaker, mut now, mut chance) = breaker();
        (0..FAILURES_MAX).for_each(|_| breaker.failed(now, false, None, &mut chance));
        for _ in 0..100 {
            now += PAUSE_MAX;
            assert_eq!(breaker.passage(now), Passage::Probe);
            breaker.probe();
            breaker.failed(now, true, None, &mut chance);
        }
    }
}
