//! When callbacks fall due: the platform's time, first attempts, retries.
//!
//! The platform's time runs `Clock::speed` times as fast as ours, and skips what nobody waits for.
//! In an open loop a callback falls due when its life says, whatever became of those before it; in
//! a closed loop whenever a connection is free. Retries fall due by the platform's time in both.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use super::life::{Planned, Truth};

/// The messages of a simulation, by their numbers from 0: pure, so that nothing of them need be kept.
pub trait Lives {
    /// What is called back about the message, by [`Planned::after`].
    fn callbacks(&self, message: u64) -> Vec<Planned>;

    /// What it truly came to.
    fn truth(&self, message: u64) -> Truth;
}

/// One sending of one callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt {
    /// The number of the message.
    pub message: u64,
    /// Which of its callbacks, from 0.
    pub callback: usize,
    /// Counted from 1.
    pub attempt: u32,
}

/// An attempt whose time has come, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// What to send.
    pub attempt: Attempt,
    /// When it was to be sent.
    pub since: Instant,
}

/// The platform's time against ours.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    speed: f64,
    ours: Instant,
    theirs: Duration,
}

impl Clock {
    /// The platform's time begins now and runs `speed` times as fast as ours.
    pub fn new(speed: f64, now: Instant) -> Self {
        Self { speed, ours: now, theirs: Duration::ZERO }
    }

    /// The platform's time at this moment.
    pub fn at(&self, now: Instant) -> Duration {
        self.theirs + now.saturating_duration_since(self.ours).mul_f64(self.speed)
    }

    /// Our time at which the platform's is this; for what is long past, when the clock was set.
    pub fn when(&self, theirs: Duration) -> Instant {
        self.ours + theirs.saturating_sub(self.theirs).div_f64(self.speed)
    }

    /// It is this late at the platform.
    fn skip_to(&mut self, theirs: Duration, now: Instant) {
        *self = Self { speed: self.speed, ours: now, theirs };
    }
}

/// How first attempts come about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// By the platform's time.
    Open,
    /// As fast as connections are free, until no message is left or this has passed.
    Closed {
        /// No message begins after it.
        lasting: Option<Duration>,
    },
}

/// Everything that is to be sent.
pub struct Schedule<'l> {
    /// The platform's time.
    pub clock: Clock,
    lives: &'l dyn Lives,
    firsts: Firsts,
    retries: BinaryHeap<Reverse<(Duration, u64, Attempt)>>,
    /// Orders retries of the same moment by when they were asked for.
    asked: u64,
    due: VecDeque<Due>,
}

/// First attempts.
enum Firsts {
    /// All of them by time, and how many have fallen due.
    Open { planned: Vec<(Duration, Attempt)>, next: usize, messages: u64 },
    Closed {
        next_message: u64,
        messages: u64,
        until: Option<Instant>,
        /// The message whose callbacks are being sent.
        current: Option<(u64, Vec<Planned>, usize)>,
    },
}

/// Nothing happens at the platform for longer than this: the time until then is skipped.
const GAP_MAX: Duration = Duration::from_secs(60);

impl<'l> Schedule<'l> {
    /// All callbacks of that many messages, from now on.
    pub fn new(lives: &'l dyn Lives, messages: u64, pace: Pace, speed: f64, now: Instant) -> Self {
        let firsts = match pace {
            Pace::Open => Firsts::Open { planned: planned(lives, messages), next: 0, messages },
            Pace::Closed { lasting } => Firsts::Closed {
                next_message: 0,
                messages,
                until: lasting.map(|lasting| now + lasting),
                current: None,
            },
        };
        Self {
            clock: Clock::new(speed, now),
            lives,
            firsts,
            retries: BinaryHeap::new(),
            asked: 0,
            due: VecDeque::new(),
        }
    }

    /// The platform's time begins at this moment instead.
    pub fn begin(&mut self, now: Instant) {
        self.clock = Clock::new(self.clock.speed, now);
    }

    /// Lets fall due what does by now.
    pub fn release(&mut self, now: Instant) {
        let theirs = self.clock.at(now);
        loop {
            let retry = self.retries.peek().map(|Reverse((at, ..))| *at);
            let first = self.firsts.at();
            let (at, is_retry) = match (retry, first) {
                (Some(retry), Some(first)) if retry < first => (retry, true),
                (Some(retry), None) => (retry, true),
                (_, Some(first)) => (first, false),
                (None, None) => return,
            };
            if at > theirs {
                return;
            }
            let attempt = if is_retry {
                self.retries.pop().map(|Reverse((_, _, attempt))| attempt)
            } else {
                self.firsts.release()
            };
            let since = self.clock.when(at);
            self.due.extend(attempt.map(|attempt| Due { attempt, since }));
        }
    }

    /// What to send next, if anything is due.
    pub fn take(&mut self, now: Instant) -> Option<Due> {
        let due = self.due.pop_front();
        due.or_else(|| {
            let attempt = self.firsts.on_demand(self.lives, now)?;
            Some(Due { attempt, since: now })
        })
    }

    /// Sends a callback again after that much of the platform's time.
    pub fn again(&mut self, attempt: Attempt, wait: Duration, now: Instant) {
        self.asked += 1;
        self.retries.push(Reverse((self.clock.at(now) + wait, self.asked, attempt)));
    }

    /// Skips a gap in which nothing would happen; only while nothing is on its way.
    pub fn skip_gap(&mut self, now: Instant) {
        if !self.retries.is_empty() || !self.due.is_empty() {
            return;
        }
        if let Some(next) = self.firsts.at()
            && next > self.clock.at(now) + GAP_MAX
        {
            self.clock.skip_to(next, now);
        }
    }

    /// When the next attempt falls due, by our time; `None` if none is planned, or one is due.
    pub fn next(&self) -> Option<Instant> {
        let retry = self.retries.peek().map(|Reverse((at, ..))| *at);
        let next = retry.into_iter().chain(self.firsts.at()).min();
        next.filter(|_| self.due.is_empty()).map(|at| self.clock.when(at))
    }

    /// Whether nothing will ever fall due again.
    pub fn is_over(&self, now: Instant) -> bool {
        self.due.is_empty() && self.retries.is_empty() && self.firsts.is_over(now)
    }

    /// Calls off everything there is, telling each callback that will not be sent (again). Where
    /// only time bounds the messages, nobody can say which would still have begun: none does.
    pub fn call_off(&mut self, now: Instant, mut tell: impl FnMut(Attempt)) {
        self.firsts.begin_no_more();
        self.due.drain(..).for_each(|due| tell(due.attempt));
        self.retries.drain().for_each(|Reverse((_, _, attempt))| tell(attempt));
        while let Some(attempt) =
            self.firsts.release().or_else(|| self.firsts.on_demand(self.lives, now))
        {
            tell(attempt);
        }
    }

    /// The callback that an attempt sends.
    pub fn callback(&self, attempt: Attempt) -> Option<Planned> {
        self.firsts.current(attempt).cloned().or_else(|| {
            let callbacks = self.lives.callbacks(attempt.message);
            callbacks.into_iter().nth(attempt.callback)
        })
    }

    /// Messages that have begun, or will.
    pub fn messages(&self) -> u64 {
        match &self.firsts {
            Firsts::Open { messages, .. } => *messages,
            Firsts::Closed { next_message, .. } => *next_message,
        }
    }

    /// Callbacks planned, as far as that is known.
    pub fn planned(&self) -> Option<usize> {
        match &self.firsts {
            Firsts::Open { planned, .. } => Some(planned.len()),
            Firsts::Closed { .. } => None,
        }
    }
}

fn planned(lives: &dyn Lives, messages: u64) -> Vec<(Duration, Attempt)> {
    let mut planned: Vec<_> = (0..messages)
        .flat_map(|message| {
            let callbacks = lives.callbacks(message).into_iter().enumerate();
            callbacks
                .map(move |(callback, it)| (it.after, Attempt { message, callback, attempt: 1 }))
        })
        .collect();
    planned.sort_unstable();
    planned
}

impl Firsts {
    /// When the next one falls due, where time says.
    fn at(&self) -> Option<Duration> {
        match self {
            Self::Open { planned, next, .. } => planned.get(*next).map(|(at, _)| *at),
            Self::Closed { .. } => None,
        }
    }

    /// The next one where time says.
    fn release(&mut self) -> Option<Attempt> {
        let Self::Open { planned, next, .. } = self else { return None };
        let (_, attempt) = planned.get(*next)?;
        *next += 1;
        Some(*attempt)
    }

    /// The next one where free connections say.
    fn on_demand(&mut self, lives: &dyn Lives, now: Instant) -> Option<Attempt> {
        let Self::Closed { next_message, messages, until, current } = self else { return None };
        loop {
            if let Some((message, callbacks, next)) = current
                && *next < callbacks.len()
            {
                *next += 1;
                return Some(Attempt { message: *message, callback: *next - 1, attempt: 1 });
            }
            if *next_message >= *messages || until.is_some_and(|until| now >= until) {
                return None;
            }
            *current = Some((*next_message, lives.callbacks(*next_message), 0));
            *next_message += 1;
        }
    }

    /// No other message begins, if it is a time that ends them.
    fn begin_no_more(&mut self) {
        if let Self::Closed { next_message, messages, until: Some(_), .. } = self {
            *messages = *next_message;
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        match self {
            Self::Open { planned, next, .. } => *next >= planned.len(),
            Self::Closed { next_message, messages, until, current } => {
                let is_last = current.as_ref().is_none_or(|(_, all, next)| *next >= all.len());
                let is_time = until.is_some_and(|until| now >= until);
                is_last && (*next_message >= *messages || is_time)
            }
        }
    }

    /// The callback, if it is one of the message being sent.
    fn current(&self, attempt: Attempt) -> Option<&Planned> {
        match self {
            Self::Closed { current: Some((message, callbacks, _)), .. }
                if *message == attempt.message =>
            {
                callbacks.get(attempt.callback)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::callback::Kind;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Message n has a callback at n seconds and one an hour later.
    struct TwoEach;

    impl Lives for TwoEach {
        fn callbacks(&self, message: u64) -> Vec<Planned> {
            let planned = |after| Planned { after, kind: Kind::Receipt, body: Bytes::new() };
            vec![planned(seconds(message)), planned(seconds(message + 3_600))]
        }

        fn truth(&self, _: u64) -> Truth {
            Truth::Silent
        }
    }

    fn attempt(message: u64, callback: usize) -> Attempt {
        Attempt { message, callback, attempt: 1 }
    }

    fn all_due(schedule: &mut Schedule<'_>, now: Instant) -> Vec<Attempt> {
        schedule.release(now);
        std::iter::from_fn(|| schedule.take(now)).map(|due| due.attempt).collect()
    }

    #[test]
    fn callbacks_fall_due_by_the_platforms_time_however_late_we_look() {
        let start = Instant::now();
        let mut schedule = Schedule::new(&TwoEach, 3, Pace::Open, 10.0, start);
        assert_eq!(all_due(&mut schedule, start), [attempt(0, 0)]);
        assert_eq!(schedule.next(), Some(start + Duration::from_millis(100)));
        let late = start + Duration::from_millis(500);
        schedule.release(late);
        let due = Due { attempt: attempt(1, 0), since: start + Duration::from_millis(100) };
        assert_eq!(schedule.take(late), Some(due));
        let due = Due { attempt: attempt(2, 0), since: start + Duration::from_millis(200) };
        assert_eq!(schedule.take(late), Some(due));
        assert_eq!(schedule.take(late), None);
    }

    #[test]
    fn a_gap_is_skipped_unless_a_retry_is_pending() {
        let start = Instant::now();
        let mut schedule = Schedule::new(&TwoEach, 1, Pace::Open, 1.0, start);
        assert_eq!(all_due(&mut schedule, start), [attempt(0, 0)]);
        schedule.again(Attempt { attempt: 2, ..attempt(0, 0) }, seconds(300), start);
        schedule.skip_gap(start);
        assert_eq!(schedule.next(), Some(start + seconds(300)));
        let later = start + seconds(300);
        assert_eq!(all_due(&mut schedule, later), [Attempt { attempt: 2, ..attempt(0, 0) }]);
        assert!(!schedule.is_over(later));
        schedule.skip_gap(later);
        assert_eq!(all_due(&mut schedule, later), [attempt(0, 1)]);
        assert!(schedule.is_over(later));
    }

    #[test]
    fn retries_and_first_attempts_fall_due_in_the_order_of_time() {
        let start = Instant::now();
        let mut schedule = Schedule::new(&TwoEach, 4, Pace::Open, 1.0, start);
        assert_eq!(all_due(&mut schedule, start), [attempt(0, 0)]);
        schedule.again(attempt(0, 0), Duration::from_millis(1_500), start);
        let due = all_due(&mut schedule, start + seconds(2));
        assert_eq!(due, [attempt(1, 0), attempt(0, 0), attempt(2, 0)]);
    }

    #[test]
    fn in_a_closed_loop_messages_come_one_after_another_until_their_number_or_the_time_is_up() {
        let start = Instant::now();
        let pace = Pace::Closed { lasting: None };
        let mut schedule = Schedule::new(&TwoEach, 2, pace, 1.0, start);
        let all = [attempt(0, 0), attempt(0, 1), attempt(1, 0), attempt(1, 1)];
        assert_eq!(all_due(&mut schedule, start), all);
        assert!(schedule.is_over(start));
        assert_eq!(schedule.messages(), 2);

        let pace = Pace::Closed { lasting: Some(seconds(1)) };
        let mut schedule = Schedule::new(&TwoEach, u64::MAX, pace, 1.0, start);
        assert_eq!(schedule.take(start).map(|due| due.attempt), Some(attempt(0, 0)));
        let late = start + seconds(1);
        assert!(!schedule.is_over(late));
        assert_eq!(schedule.take(late).map(|due| due.attempt), Some(attempt(0, 1)));
        assert_eq!(schedule.take(late), None);
        assert!(schedule.is_over(late));
        assert_eq!(schedule.messages(), 1);
    }

    #[test]
    fn what_is_called_off_is_told_once_each() {
        let start = Instant::now();
        for pace in [Pace::Open, Pace::Closed { lasting: None }] {
            let mut schedule = Schedule::new(&TwoEach, 2, pace, 1.0, start);
            schedule.release(start);
            let first = schedule.take(start).unwrap().attempt;
            schedule.again(Attempt { attempt: 2, ..first }, seconds(1), start);
            let mut told = Vec::new();
            schedule.call_off(start, |attempt| told.push((attempt.message, attempt.callback)));
            told.sort_unstable();
            assert_eq!(told, [(0, 0), (0, 1), (1, 0), (1, 1)], "{pace:?}");
            assert!(schedule.is_over(start));
        }
    }

    #[test]
    fn calling_off_ends_though_only_time_bounds_the_messages() {
        let start = Instant::now();
        let pace = Pace::Closed { lasting: Some(seconds(10)) };
        let mut schedule = Schedule::new(&TwoEach, u64::MAX, pace, 1.0, start);
        assert_eq!(schedule.take(start).map(|due| due.attempt), Some(attempt(0, 0)));
        let mut told = Vec::new();
        schedule.call_off(start, |attempt| told.push(attempt));
        assert_eq!(told, [attempt(0, 1)]);
        assert!(schedule.is_over(start));
        assert_eq!(schedule.messages(), 1);
    }
}
