//! When settling gives way to those that answer callers.
//!
//! On two cores, settling at full speed takes the processor that a burst of callbacks needs: what
//! could be acknowledged at 50,000/s comes down to half of that. So while callbacks arrive fast, and
//! faster when settling rests, it works a tenth of the time; a burst is acknowledged at nearly the
//! speed of appending alone and settled afterwards. Giving way ends when the oldest callback has
//! waited [`WAIT_MAX`], or something has waited for so long, whatever became of the clock that callbacks are
//! stamped by: then settling runs at full speed until the burst is over.
//!
//! How fast callbacks arrive does not tell by itself whether settling is in their way: senders that
//! send so many a second send no more of them if it rests, and then resting only lets the state fall
//! behind. So it is tried: a short rest now and then, while callbacks arrive fast. The beginning of it
//! says nothing: what was settled last is still being checkpointed and sent to sinks. With many millions
//! stored that can take a second, in which a rest gains nothing whatever the next would gain; so a trial
//! begins once it is over. What gains nothing is tried less and less often. The sync of such a checkpoint can
//! hold up all callers, so what arrives meanwhile does not tell that a burst is over; and while there is one, a
//! batch is no larger than takes a moment ([`Pace::batch_max`]). That the checkpoints give way too is done by
//! whoever follows this.
//!
//! All speeds are measured, not configured, so a slow machine gives way sooner. Time comes in as an
//! argument.

use std::time::{Duration, Instant};

/// The longest a callback waits because settling gives way.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// Arrivals beyond this share of what settling manages are fast.
const FAST_SHARE: f64 = 0.4;

/// Arrivals that grow by this when settling rests were held up by it.
const GAIN_MIN: f64 = 1.2;

/// How long settling rests to find that out, at most, and how much of the beginning does not count, both
/// from when what was settled last is written back, or has been for so long.
const TRIAL: Duration = Duration::from_millis(250);
const LEAD_IN: Duration = Duration::from_millis(50);
const WRITING_BACK_MAX: Duration = Duration::from_secs(2);

/// How long what was found is believed; twice as long each time that nothing was gained, but no more
/// than so many times.
const BELIEVED: Duration = Duration::from_secs(1);
const DOUBLINGS_MAX: u32 = 4;

/// What settling takes at once during a burst, and how few that can be.
const BATCH: Duration = Duration::from_millis(250);
const BATCH_CALLBACKS_MIN: usize = 256;

/// Resting time for each working time during a burst.
const REST: u32 = 9;

/// Arrivals are counted over at least this time; while settling rests, over at least the second.
const WINDOW: Duration = Duration::from_millis(50);
const WINDOW_RESTING: Duration = Duration::from_millis(100);

/// Arrivals that fall to a fraction of this are a pause.
const PAUSE: f64 = 4.0;

/// Weight of the newest measurement.
const NEW: f64 = 0.3;

/// What settling does while callbacks arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It settles, or waits for something to settle.
    Working,
    /// It gives way.
    Resting,
}

/// A rest only to find out what that does.
#[derive(Clone, Copy, Debug)]
struct Trial {
    began: Instant,
    /// When what was settled last was written back.
    counts_from: Instant,
}

/// Follows the speeds and says when to rest.
#[derive(Debug)]
pub struct Pace {
    seen_at: Instant,
    seen: i64,
    /// Callbacks a second, whatever settling did.
    arriving: Arrivals,
    working: Arrivals,
    resting: Arrivals,
    /// When the last whole window of resting ended.
    rested: Option<Instant>,
    trial: Option<Trial>,
    /// Trials in a row that gained nothing.
    in_vain: u32,
    /// Callbacks a second while settling works; unknown until it has.
    settling: Option<f64>,
    /// Since when there has always been something that waits; `None` if there is not.
    behind_since: Option<Instant>,
    /// Set once giving way has lasted too long; until the burst is over.
    is_exhausted: bool,
}

/// Callbacks a second, counted over windows that need not be of one piece.
#[derive(Debug, Default)]
struct Arrivals {
    /// A mean that follows the newest window; `None` until there is one.
    rate: Option<f64>,
    callbacks: i64,
    time: Duration,
}

impl Arrivals {
    /// Whether that ends a window of at least that length.
    fn count(&mut self, window: Duration, callbacks: i64, time: Duration) -> bool {
        self.callbacks += callbacks;
        self.time += time;
        if self.time < window {
            return false;
        }
        let rate = count(self.callbacks) / self.time.as_secs_f64();
        // A pause is believed at once: there is nothing left to give way to. A dip is not a pause.
        let before = self.rate.filter(|before| rate * PAUSE >= *before);
        let rate = before.map_or(rate, |before| mean(before, rate));
        *self = Self { rate: Some(rate), ..Self::default() };
        true
    }

    fn rate(&self) -> f64 {
        self.rate.unwrap_or(0.0)
    }
}

impl Pace {
    /// Nothing is known yet; the journal stands at `committed`.
    pub fn new(now: Instant, committed: i64) -> Self {
        Self {
            seen_at: now,
            seen: committed,
            arriving: Arrivals::default(),
            working: Arrivals::default(),
            resting: Arrivals::default(),
            rested: None,
            trial: None,
            in_vain: 0,
            settling: None,
            behind_since: None,
            is_exhausted: false,
        }
    }

    /// The journal stands at `committed`, and since the last call settling was in `phase`.
    /// `is_writing_back`: what it settled before is being checkpointed.
    pub fn committed(&mut self, now: Instant, committed: i64, phase: Phase, is_writing_back: bool) {
        let time = now.saturating_duration_since(self.seen_at);
        let callbacks = committed - self.seen;
        (self.seen_at, self.seen) = (now, committed);
        // The sync of a large checkpoint can hold up all callers: that is no pause of theirs.
        if !is_writing_back {
            self.arriving.count(WINDOW, callbacks, time);
        }
        match phase {
            Phase::Working => {
                self.working.count(WINDOW, callbacks, time);
            }
            Phase::Resting if is_writing_back && self.is_put_off(now) => {}
            Phase::Resting => self.rested(now, callbacks, time),
        }
        if !self.is_fast() {
            (self.is_exhausted, self.in_vain) = (false, 0);
        }
    }

    /// Whether a rest says nothing yet, because there is still something to write back: a trial then has
    /// yet to begin.
    fn is_put_off(&mut self, now: Instant) -> bool {
        let Some(trial) = &mut self.trial else { return true };
        let is_so = now.saturating_duration_since(trial.began) <= WRITING_BACK_MAX;
        if is_so {
            trial.counts_from = now;
        }
        is_so
    }

    fn rested(&mut self, now: Instant, callbacks: i64, time: Duration) {
        let is_lead_in = |trial: Trial| now.saturating_duration_since(trial.counts_from) <= LEAD_IN;
        if self.trial.is_some_and(is_lead_in)
            || !self.resting.count(WINDOW_RESTING, callbacks, time)
        {
            return;
        }
        self.rested = Some(now);
        if self.trial.take().is_some() {
            self.in_vain = if self.is_gain() { 0 } else { self.in_vain + 1 };
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

    /// How many callbacks to settle at once, at most `callbacks_max`: while others wait for it, no more than
    /// take a moment, however large the state.
    pub fn batch_max(&self, callbacks_max: usize) -> usize {
        if !self.is_fast() || self.is_exhausted {
            return callbacks_max;
        }
        let moment = self.settling.map_or(0.0, |settling| settling * BATCH.as_secs_f64());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count that is held between two others"
        )]
        let moment = moment as usize;
        callbacks_max.min(moment.max(BATCH_CALLBACKS_MIN))
    }

    /// How long to rest in all after working for `took`, while the oldest callback has waited `waited` by
    /// the time it is stamped with, which may be set back meanwhile; `None` if none waits.
    pub fn rest(&mut self, now: Instant, took: Duration, waited: Option<Duration>) -> Duration {
        let behind = waited.map(|waited| {
            let since = *self.behind_since.get_or_insert(now);
            waited.max(now.saturating_duration_since(since))
        });
        if behind.is_none() {
            self.behind_since = None;
        }
        self.is_exhausted |= self.is_fast() && behind.is_some_and(|behind| behind > WAIT_MAX);
        if self.is_exhausted || !self.is_fast() {
            // What is left of a trial says nothing of the next burst.
            self.trial = None;
            return Duration::ZERO;
        }
        let believed = BELIEVED * (1 << self.in_vain.saturating_sub(1).min(DOUBLINGS_MAX));
        let is_known = self.rested.is_some_and(|at| now.saturating_duration_since(at) < believed);
        if !is_known && self.trial.is_none() {
            // What was found long ago has no weight beside what is found now.
            let trial = Trial { began: now, counts_from: now };
            (self.resting, self.trial) = (Arrivals::default(), Some(trial));
        }
        if let Some(trial) = self.trial {
            TRIAL + (trial.counts_from - trial.began)
        } else if self.is_gain() {
            took * REST
        } else {
            Duration::ZERO
        }
    }

    fn is_gain(&self) -> bool {
        self.resting.rate() > self.working.rate() * GAIN_MIN
    }

    fn is_fast(&self) -> bool {
        self.settling.is_some_and(|settling| self.arriving.rate() > settling * FAST_SHARE)
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
    const NEVER: Option<Duration> = None;

    /// A pace that settles at 40,000/s, with the clock and the journal it follows.
    struct Scene {
        pace: Pace,
        now: Instant,
        seq: i64,
        is_writing_back: bool,
    }

    impl Scene {
        /// After a second at `working` callbacks a second, and a trial in which they came at `resting`.
        fn after_a_trial(working: i64, resting: i64) -> Self {
            let now = Instant::now();
            let pace = Pace::new(now, 0);
            let mut scene = Self { pace, now, seq: 0, is_writing_back: false };
            scene.pace.settled(400, TOOK);
            scene.pass(Phase::Working, working, 20);
            if scene.rest(NEVER) == TRIAL {
                scene.pass(Phase::Resting, resting, 3);
            }
            scene
        }

        /// So many windows at `rate` callbacks a second.
        fn pass(&mut self, phase: Phase, rate: i64, windows: u32) {
            for _ in 0..windows {
                self.now += WINDOW;
                self.seq += rate / 20;
                self.pace.committed(self.now, self.seq, phase, self.is_writing_back);
            }
        }

        fn rest(&mut self, waited: Option<Duration>) -> Duration {
            self.pace.rest(self.now, TOOK, waited)
        }
    }

    #[test]
    fn a_steady_trickle_never_waits() {
        let mut scene = Scene::after_a_trial(1_000, 50_000);
        assert_eq!(scene.rest(NEVER), Duration::ZERO);
    }

    #[test]
    fn a_burst_that_gains_by_it_leaves_settling_a_tenth_of_the_time() {
        let mut scene = Scene::after_a_trial(30_000, 50_000);
        assert_eq!(scene.rest(NEVER), TOOK * 9);
    }

    #[test]
    fn arrivals_that_gain_nothing_by_it_are_not_waited_for_until_the_next_trial() {
        let mut scene = Scene::after_a_trial(30_000, 31_000);
        assert_eq!(scene.rest(NEVER), Duration::ZERO);
        scene.pass(Phase::Working, 30_000, 19);
        assert_eq!(scene.rest(NEVER), Duration::ZERO);
        scene.pass(Phase::Working, 30_000, 1);
        assert_eq!(scene.rest(NEVER), TRIAL, "what was found is believed for a second");
        scene.pass(Phase::Resting, 31_000, 1);
        assert_eq!(scene.rest(NEVER), TRIAL, "the beginning does not count");
        scene.pass(Phase::Resting, 50_000, 1);
        assert_eq!(scene.rest(NEVER), TRIAL, "until a whole window has passed");
        scene.pass(Phase::Resting, 50_000, 1);
        assert_eq!(scene.rest(NEVER), TOOK * 9, "what was found before has no weight");
    }

    #[test]
    fn what_gains_nothing_is_tried_less_and_less_often_until_the_burst_is_over() {
        let mut scene = Scene::after_a_trial(30_000, 31_000);
        for seconds in [1, 2, 4, 8, 16, 16] {
            scene.pass(Phase::Working, 30_000, 20 * seconds - 1);
            assert_eq!(scene.rest(NEVER), Duration::ZERO, "{seconds} s are not over");
            scene.pass(Phase::Working, 30_000, 1);
            assert_eq!(scene.rest(NEVER), TRIAL);
            scene.pass(Phase::Resting, 31_000, 3);
        }
        scene.pass(Phase::Working, 0, 1);
        scene.pass(Phase::Working, 30_000, 20);
        assert_eq!(scene.rest(NEVER), TRIAL);
    }

    /// One in whose second trial there are still so many windows of writing back.
    fn writing_back(windows: u32) -> Scene {
        let mut scene = Scene::after_a_trial(30_000, 31_000);
        scene.pass(Phase::Working, 30_000, 20);
        assert_eq!(scene.rest(NEVER), TRIAL);
        scene.is_writing_back = true;
        scene.pass(Phase::Resting, 31_000, windows);
        scene
    }

    #[test]
    fn a_trial_begins_once_what_was_settled_is_written_back() {
        let mut scene = writing_back(10);
        assert_eq!(scene.rest(NEVER), TRIAL + WINDOW * 10);
        scene.is_writing_back = false;
        scene.pass(Phase::Resting, 50_000, 3);
        assert_eq!(scene.rest(NEVER), TOOK * 9);
    }

    #[test]
    fn a_trial_waits_for_what_is_written_back_no_longer_than_for_so_long() {
        let mut scene = writing_back(42);
        assert_eq!(scene.rest(NEVER), TRIAL + WRITING_BACK_MAX);
        scene.pass(Phase::Resting, 31_000, 1);
        assert_eq!(scene.rest(NEVER), Duration::ZERO, "it gained nothing");
    }

    #[test]
    fn what_is_left_of_a_trial_when_a_burst_ends_says_nothing_of_the_next() {
        let mut scene = writing_back(10);
        scene.is_writing_back = false;
        scene.pass(Phase::Working, 0, 1);
        assert_eq!(scene.rest(NEVER), Duration::ZERO);
        scene.pass(Phase::Working, 30_000, 40);
        assert_eq!(scene.rest(NEVER), TRIAL, "one that begins now");
    }

    #[test]
    fn what_a_checkpoint_holds_up_is_no_pause() {
        let mut scene = Scene::after_a_trial(30_000, 50_000);
        scene.is_writing_back = true;
        scene.pass(Phase::Working, 0, 5);
        scene.pass(Phase::Resting, 0, 10);
        assert_eq!(scene.rest(NEVER), TOOK * 9);
        scene.is_writing_back = false;
        scene.pass(Phase::Working, 0, 1);
        assert_eq!(scene.rest(NEVER), Duration::ZERO);
    }

    #[test]
    fn a_batch_takes_no_more_than_a_moment_while_callbacks_come_fast() {
        let mut scene = Scene::after_a_trial(30_000, 50_000);
        assert_eq!(scene.pace.batch_max(20_000), 10_000, "a quarter of 40,000");
        assert_eq!(scene.pace.batch_max(8_192), 8_192);
        assert_eq!(scene.pace.batch_max(100), 100);
        (0..20).for_each(|_| scene.pace.settled(100, Duration::from_secs(1)));
        assert_eq!(scene.pace.batch_max(8_192), BATCH_CALLBACKS_MIN);
        scene.rest(Some(WAIT_MAX + TOOK));
        assert_eq!(scene.pace.batch_max(8_192), 8_192, "it has given way for too long");
        let slow = Scene::after_a_trial(1_000, 1_000);
        assert_eq!(slow.pace.batch_max(20_000), 20_000);
    }

    #[test]
    fn a_gain_counts_from_its_least_share_on() {
        let mut scene = Scene::after_a_trial(30_000, 36_000);
        assert_eq!(scene.rest(NEVER), Duration::ZERO);
        let mut scene = Scene::after_a_trial(30_000, 36_040);
        assert_eq!(scene.rest(NEVER), TOOK * 9);
    }

    #[test]
    fn giving_way_ends_when_it_helps_no_more() {
        let mut scene = Scene::after_a_trial(30_000, 50_000);
        scene.pass(Phase::Resting, 30_000, 20);
        assert_eq!(scene.rest(NEVER), Duration::ZERO);
    }

    #[test]
    fn a_pause_ends_giving_way_at_once() {
        let mut scene = Scene::after_a_trial(30_000, 50_000);
        scene.pass(Phase::Resting, 0, 2);
        assert_eq!(scene.rest(NEVER), Duration::ZERO);
    }

    #[test]
    fn giving_way_ends_after_the_longest_wait_and_comes_back_after_the_burst() {
        let mut scene = Scene::after_a_trial(30_000, 50_000);
        assert_eq!(scene.rest(Some(WAIT_MAX)), TOOK * 9);
        assert_eq!(scene.rest(Some(WAIT_MAX + TOOK)), Duration::ZERO);
        scene.pass(Phase::Working, 30_000, 1);
        assert_eq!(scene.rest(NEVER), Duration::ZERO, "until the burst is over");
        scene.pass(Phase::Working, 0, 1);
        scene.pass(Phase::Working, 30_000, 20);
        assert_ne!(scene.rest(NEVER), Duration::ZERO);
    }

    #[test]
    fn giving_way_ends_after_the_longest_wait_however_the_clock_is_set_back() {
        let set_back = Some(Duration::ZERO);
        let mut scene = Scene::after_a_trial(30_000, 50_000);
        assert_eq!(scene.rest(set_back), TOOK * 9);
        // The trials that come due on the way gain as much.
        scene.pass(Phase::Resting, 50_000, 300);
        assert_eq!(scene.rest(set_back), TOOK * 9, "that was the longest wait");
        scene.pass(Phase::Resting, 50_000, 1);
        assert_eq!(scene.rest(set_back), Duration::ZERO);
    }

    #[test]
    fn what_was_behind_before_all_was_settled_does_not_count() {
        let mut scene = Scene::after_a_trial(30_000, 50_000);
        for waited in [Some(TOOK), NEVER, Some(TOOK), Some(TOOK)] {
            assert_eq!(scene.rest(waited), TOOK * 9);
            scene.pass(Phase::Resting, 50_000, 150);
        }
    }

    #[test]
    fn fast_is_what_comes_at_more_than_a_share_of_what_settling_manages() {
        let mut scene = Scene::after_a_trial(16_000, 40_000);
        assert_eq!(scene.rest(NEVER), Duration::ZERO);
        scene.pass(Phase::Working, 16_200, 1);
        assert_eq!(scene.rest(NEVER), TRIAL);
    }

    #[test]
    fn less_than_a_window_says_nothing_and_pieces_of_one_add_up() {
        let mut scene = Scene::after_a_trial(30_000, 50_000);
        for piece in [2, 3] {
            assert_eq!(scene.rest(NEVER), TOOK * 9);
            scene.now += WINDOW_RESTING * piece / 5;
            scene.pace.committed(scene.now, scene.seq, Phase::Resting, false);
        }
        assert_eq!(scene.rest(NEVER), Duration::ZERO);
    }

    #[test]
    fn a_dip_is_no_pause_and_giving_way_goes_on() {
        let mut scene = Scene::after_a_trial(30_000, 60_000);
        scene.pass(Phase::Resting, 16_000, 2);
        assert_eq!(scene.rest(NEVER), TOOK * 9);
    }

    #[test]
    fn a_mean_follows_the_newest_measurement_by_its_weight() {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(mean(0.0, 100.0), 100.0 * NEW));
        assert!(close(mean(100.0, 0.0), 100.0 - 100.0 * NEW));
        assert!(close(mean(100.0, 100.0), 100.0));
    }

    #[test]
    fn before_settling_was_measured_nothing_is_fast() {
        let now = Instant::now();
        let mut pace = Pace::new(now, 0);
        pace.committed(now + WINDOW, 50_000, Phase::Working, false);
        pace.settled(63, TOOK);
        assert_eq!(pace.rest(now + WINDOW, TOOK, NEVER), Duration::ZERO);
        pace.settled(64, TOOK);
        assert_eq!(pace.rest(now + WINDOW, TOOK, NEVER), TRIAL);
    }
}
