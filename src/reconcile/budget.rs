//! No more requests in any minute than are allowed. Pure: the time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// When the requests of the last minute were sent.
#[derive(Debug)]
pub struct Budget {
    per_minute: usize,
    sent: VecDeque<Instant>,
}

impl Budget {
    /// So many in a minute; at least one.
    pub fn new(per_minute: u32) -> Self {
        let per_minute = usize::try_from(per_minute).unwrap_or(usize::MAX).max(1);
        Self { per_minute, sent: VecDeque::new() }
    }

    /// Spends one if there is one; else after which time there will be.
    ///
    /// # Errors
    /// The time to wait.
    pub fn spend(&mut self, now: Instant) -> Result<(), Duration> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
