//! When settling gives way to those that answer callers.
//!
//! On two cores, settling at full speed takes the processor that a burst of callbacks needs: what
//! could be acknowledged at 50,000/s comes down to half of that. So while callbacks arrive faster
//! than settling could comfortably follow, it works a tenth of the time; a burst is acknowledged at
//! nearly the speed of appending alone and settled afterwards. Giving way ends when the oldest
//! callback has waited [`WAIT_MAX`]: then settling runs at full speed until the burst is over.
//!
//! Both speeds are measured, not configured, so a slow machine gives way sooner. Time comes in as an
//! argument.

use std::time::{Duration, Instant};

/// The longest a callback waits because settling gives way.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// Arrivals beyond this share of what settling manages are a burst.
const BURST_SHARE: f64 = 0.4;

/// Resting time for each working time during a burst.
const REST: u32 = 9;

/// Arrivals are counted over at least this time.
const WINDOW: Duration = Duration::from_millis(50);

/// Arrivals that fall to a fraction of this are a pause.
const PAUSE: f64 = 4.0;

/// Weight of the newest measurement.
const NEW: f64 = 0.3;

/// Follows both speeds and says when to rest.
#[derive(Debug)]
pub struct Pace {
    window_began: Instant,
    window_seq: i64,
    /// Callbacks a second.
    arriving: f64,
    /// Callbacks a second while settling works; unknown until it has.
    settling: Option<f64>,
    /// Set once giving way has lasted too long; until the burst is over.
    is_exhausted: bool,
}

impl Pace {
    /// Nothing is known yet; the journal stands at `committed`.
    pub fn new(now: Instant, committed: i64) -> Self {
        Self {
            window_began: now,
            window_seq: committed,
            arriving: 0.0,
            settling: None,
            is_exhausted: false,
        }
    }

    /// The journal stands at `committed`.
    pub fn committed(&mut self, now: Instant, committed: i64) {
        let time = now.saturating_duration_since(self.window_began);
        if time < WINDOW {
            return;
        }
        let rate = count(committed - self.window_seq) / time.as_secs_f64();
        // A pause is believed at once: there is nothing left to give way to. A dip is not a pause.
        let is_pause = rate * PAUSE < self.arriving;
        self.arriving = if is_pause { rate } else { mean(self.arriving, rate) };
        (self.window_began, self.window_seq) = (now, committed);
        if !self.is_burst() {
            self.is_exhausted = false;
        }
    }

    /// Settling `callbacks` took `took`.
    pub fn settled(&mut self, callbacks: usize, took: Duration) {
        let rate =
            count(i64::try_from(callbacks).unwrap_or(i64::MAX)) / took.as_secs_f64().max(1e-6);
        // Small batches say little about what large ones would manage.
        if callbacks >= 64 {
            self.settling = Some(self.settling.map_or(rate, |before| mean(before, rate)));
        }
    }

    /// How long to rest in all after working for `took`, while the oldest callback has waited `waited`.
    pub fn rest(&mut self, took: Duration, waited: Duration) -> Duration {
        if !self.is_burst() {
            return Duration::ZERO;
        }
        self.is_exhausted |= waited > WAIT_MAX;
        if self.is_exhausted { Duration::ZERO } else { took * REST }
    }

    fn is_burst(&self) -> bool {
        self.settling.is_some_and(|settling| self.arriving > settling * BURST_SHARE)
    }
}

fn mean(before: f64, newest: f64) -> f64 {
    before * (1.0 - NEW) + newest * NEW
}

fn count(callbacks: i64) -> f64 {
    // A rate does not need the last digit of an enormous number.
    f64::from(i32::try_from(callbacks).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_millis(10);

    /// A pace that has settled at 40,000/s while callbacks arrived at `rate` for a second.
    fn after_a_second_at(rate: i64) -> (Pace, Instant, i64) {
        let start = Instant::now();
        let mut pace = Pace::new(start, 0);
        pace.settled(400, TOOK);
        for tick in 1..=20 {
            pace.committed(start + WINDOW * tick, rate * i64::from(tick) / 20);
        }
        (pace, start + WINDOW * 20, rate)
    }

    #[test]
    fn a_steady_trickle_never_waits() {
        let (mut pace, ..) = after_a_second_at(1_000);
        assert_eq!(pace.rest(TOOK, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_burst_leaves_settling_a_tenth_of_the_time() {
        let (mut pace, ..) = after_a_second_at(50_000);
        assert_eq!(pace.rest(TOOK, Duration::ZERO), TOOK * 9);
    }

    #[test]
    fn a_pause_ends_giving_way_at_once() {
        let (mut pace, now, seq) = after_a_second_at(50_000);
        pace.committed(now + WINDOW, seq);
        assert_eq!(pace.rest(TOOK, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn giving_way_has_an_end_and_comes_back_after_the_burst() {
        let (mut pace, now, seq) = after_a_second_at(50_000);
        assert_eq!(pace.rest(TOOK, WAIT_MAX + TOOK), Duration::ZERO);
        assert_eq!(pace.rest(TOOK, Duration::ZERO), Duration::ZERO, "until the burst is over");
        pace.committed(now + WINDOW, seq);
        for tick in 2..20 {
            pace.committed(now + WINDOW * tick, seq + 2_500 * i64::from(tick));
        }
        assert_ne!(pace.rest(TOOK, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn arrivals_that_settling_could_follow_only_at_full_speed_are_a_burst() {
        let (mut pace, ..) = after_a_second_at(20_000);
        assert_ne!(pace.rest(TOOK, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn what_settling_comfortably_follows_is_no_burst_up_to_the_share_itself() {
        let (mut pace, ..) = after_a_second_at(50_000);
        pace.settling = Some(40_000.0);
        pace.arriving = 40_000.0 * BURST_SHARE;
        assert_eq!(pace.rest(TOOK, Duration::ZERO), Duration::ZERO);
        pace.arriving += 1.0;
        assert_ne!(pace.rest(TOOK, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn less_than_a_window_says_nothing_about_arrivals_and_more_than_one_does() {
        let (mut pace, now, seq) = after_a_second_at(50_000);
        pace.committed(now + WINDOW / 2, seq);
        assert_ne!(pace.rest(TOOK, Duration::ZERO), Duration::ZERO);
        pace.committed(now + WINDOW * 3, seq);
        assert_eq!(pace.rest(TOOK, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_dip_is_no_pause_and_giving_way_goes_on() {
        let (mut pace, now, seq) = after_a_second_at(50_000);
        // 15,000/s, which alone would not be a burst.
        pace.committed(now + WINDOW, seq + 750);
        assert_ne!(pace.rest(TOOK, Duration::ZERO), Duration::ZERO);
        // Exactly the fraction that tells the two apart is still a dip.
        pace.arriving = 10_000.0 * PAUSE;
        pace.committed(now + WINDOW * 2, seq + 750 + 500);
        assert_ne!(pace.rest(TOOK, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn giving_way_ends_after_the_longest_wait_and_not_before_while_the_burst_lasts() {
        let (mut pace, now, seq) = after_a_second_at(50_000);
        assert_ne!(pace.rest(TOOK, WAIT_MAX), Duration::ZERO);
        assert_eq!(pace.rest(TOOK, WAIT_MAX + TOOK), Duration::ZERO);
        pace.committed(now + WINDOW, seq + 2_500);
        assert_eq!(pace.rest(TOOK, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_mean_follows_the_newest_measurement_by_its_weight() {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(mean(0.0, 100.0), 100.0 * NEW));
        assert!(close(mean(100.0, 0.0), 100.0 - 100.0 * NEW));
        assert!(close(mean(100.0, 100.0), 100.0));
    }
}
