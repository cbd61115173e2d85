//! No more requests in any minute than are allowed, and none while the platform wants to be left alone.
//! Pure: the time is an argument.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::order::between;
use crate::clock::Timestamp;
use crate::forward::breaker::RETRY_AFTER_MAX;
use crate::journal::Rounds;

const MINUTE: Duration = Duration::from_secs(60);

/// When the requests of the last minute were sent.
#[derive(Debug)]
pub struct Budget {
    per_minute: usize,
    sent: VecDeque<Instant>,
    /// The platform asked to be left alone until then.
    rests_until: Option<Instant>,
}

impl Budget {
    /// So many in a minute; at least one.
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute: at_least_one(per_minute), sent: VecDeque::new(), rests_until: None }
    }

    /// So many in a minute from now on; what was sent stays sent.
    pub fn allow(&mut self, per_minute: u32) {
        self.per_minute = at_least_one(per_minute);
    }

    /// Nothing is sent until then.
    pub fn rest(&mut self, until: Instant) {
        self.rests_until = self.rests_until.max(Some(until));
    }

    /// The same, as the journal notes it; at most as long as a platform can ask for.
    pub fn rest_as_noted(&mut self, rounds: &Rounds, now: Timestamp, instant: Instant) {
        let rest = rounds.rests_until.map_or(Duration::ZERO, |until| between(now, until));
        self.rest(instant + rest.min(RETRY_AFTER_MAX));
    }

    /// Until when, as it is to be noted; `None` if it does not rest.
    pub fn rests_until(&self, now: Timestamp, instant: Instant) -> Option<Timestamp> {
        let rest = i64::try_from(self.rests_for(instant).as_micros()).unwrap_or(i64::MAX);
        (rest > 0).then(|| Timestamp::from_unix_micros(now.unix_micros().saturating_add(rest)))
    }

    /// How long nothing is sent from now on because the platform asked for that.
    pub fn rests_for(&self, now: Instant) -> Duration {
        self.rests_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Spends one if there is one; else after which time there will be.
    ///
    /// # Errors
    /// The time to wait.
    pub fn spend(&mut self, now: Instant) -> Result<(), Duration> {
        let rests_for = self.rests_for(now);
        if rests_for > Duration::ZERO {
            return Err(rests_for);
        }
        while self.sent.front().is_some_and(|first| now.duration_since(*first) >= MINUTE) {
            self.sent.pop_front();
        }
        if self.sent.len() < self.per_minute {
            self.sent.push_back(now);
            return Ok(());
        }
        let first = self.sent.front().map_or(Duration::ZERO, |first| now.duration_since(*first));
        Err(MINUTE.saturating_sub(first))
    }
}

/// The budget of each source at each host, whatever else about the source is different.
#[derive(Debug, Default)]
pub struct Budgets {
    /// By source and host.
    all: Mutex<HashMap<Place, Arc<Mutex<Budget>>>>,
}

/// A source, and a host with its port.
type Place = (Arc<str>, String);

impl Budgets {
    /// The one of that source at that host, with so many in a minute from now on.
    pub fn of(&self, source: &Arc<str>, host: &str, per_minute: u32) -> Arc<Mutex<Budget>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Mutex::new(Budget::new(per_minute)));
        let key = (Arc::clone(source), host.to_owned());
        let budget = Arc::clone(all.entry(key).or_insert_with(new));
        budget.lock().unwrap_or_else(PoisonError::into_inner).allow(per_minute);
        budget
    }
}

fn at_least_one(per_minute: u32) -> usize {
    usize::try_from(per_minute).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_the_platform_wants_to_be_left_alone_nothing_is_sent() {
        let (mut budget, start) = (Budget::new(7), Instant::now());
        budget.rest(start + MINUTE * 3);
        budget.rest(start + MINUTE * 2);
        assert_eq!(budget.spend(start + MINUTE), Err(MINUTE * 2), "the longer holds");
        assert_eq!(budget.rests_for(start + MINUTE), MINUTE * 2);
        assert_eq!(budget.spend(start + MINUTE * 3), Ok(()));
        assert_eq!(budget.rests_for(start + MINUTE * 3), Duration::ZERO);
    }

    #[test]
    fn what_was_sent_to_a_host_counts_for_the_same_source_and_host_alone() {
        let (budgets, start) = (Budgets::default(), Instant::now());
        let spend = |source: &str, host: &str| {
            let budget = budgets.of(&Arc::from(source), host, 1);
            budget.lock().unwrap().spend(start)
        };
        assert_eq!(spend("a", "one"), Ok(()));
        assert_eq!(spend("a", "one"), Err(MINUTE));
        assert_eq!((spend("a", "other"), spend("b", "one")), (Ok(()), Ok(())));
    }

    #[test]
    fn another_allowance_does_not_forget_what_was_sent() {
        let (mut budget, start) = (Budget::new(3), Instant::now());
        (0..3).for_each(|_| assert_eq!(budget.spend(start), Ok(())));
        budget.allow(4);
        assert_eq!(budget.spend(start), Ok(()));
        budget.allow(2);
        assert_eq!(budget.spend(start), Err(MINUTE));
    }

    #[test]
    fn no_minute_has_more_than_are_allowed_and_all_of_them_can_be_spent() {
        let (mut budget, start) = (Budget::new(7), Instant::now());
        let (mut now, mut sent) = (start, Vec::new());
        while sent.len() < 100 {
            match budget.spend(now) {
                Ok(()) => sent.push(now),
                Err(wait) => now += wait,
            }
            now += Duration::from_millis(sent.len() as u64 * 37);
        }
        for window in sent.windows(8) {
            assert!(window[7] - window[0] >= MINUTE);
        }
        let mut budget = Budget::new(3);
        (0..3).for_each(|_| assert_eq!(budget.spend(start), Ok(())));
        assert_eq!(budget.spend(start), Err(MINUTE));
        assert_eq!(budget.spend(start + MINUTE), Ok(()));
    }
}
