//! How long a commit waits for more callbacks to share it.
//!
//! Without a pause the callers fall apart into small groups that wait for each other's commits. What
//! to wait for depends on what a commit costs:
//!
//! - Where it is quick, the processors are what is short. Half of those that were just in flight are
//!   enough: while these are committed the others are answered and come back.
//! - Where it is slow, the disk is. A caller that misses a commit waits for two, so the commit waits
//!   for all that were in flight, but never for more than a part of what the last one took.
//!
//! Pure: the sizes and times are arguments.

use std::time::Duration;

/// Of so few callers each is better off alone.
const FEW: usize = 3;

/// The pause where a commit is quick.
const QUICK: Duration = Duration::from_micros(200);

/// A commit that takes this long is slow.
const SLOW: Duration = Duration::from_millis(2);

/// The pause where it is slow: this part of what the last one took.
const PART: u32 = 4;

/// The longest pause however slow the disk is.
const MAX: Duration = Duration::from_millis(10);

/// What to wait for before a commit: so many callbacks, but no longer than this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gather {
    pub callbacks: usize,
    pub time: Duration,
}

/// What to wait for after a commit that took `last`, when `in_flight` callbacks were committed in it
/// or came meanwhile. `None`: for nothing.
pub(super) fn gather(in_flight: usize, last: Duration) -> Option<Gather> {
    if in_flight <= FEW {
        return None;
    }
    Some(if last < SLOW {
        Gather { callbacks: in_flight / 2, time: QUICK }
    } else {
        Gather { callbacks: in_flight, time: (last / PART).min(MAX) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUST_QUICK: Duration = SLOW.saturating_sub(Duration::from_nanos(1));

    #[test]
    fn a_few_callers_never_wait_for_each_other() {
        for last in [Duration::ZERO, SLOW, MAX * PART] {
            assert_eq!(gather(0, last), None);
            assert_eq!(gather(FEW, last), None);
            assert!(gather(FEW + 1, last).is_some());
        }
    }

    #[test]
    fn a_quick_commit_waits_for_half_and_not_for_long() {
        for last in [Duration::ZERO, JUST_QUICK] {
            assert_eq!(gather(64, last), Some(Gather { callbacks: 32, time: QUICK }));
        }
    }

    #[test]
    fn a_slow_commit_waits_for_all_for_a_part_of_its_own_time() {
        let waits = |last| gather(64, last).unwrap();
        assert_eq!(waits(SLOW), Gather { callbacks: 64, time: SLOW / PART });
        assert_eq!(waits(SLOW * 3), Gather { callbacks: 64, time: SLOW * 3 / PART });
        assert_eq!(waits(Duration::from_secs(60)), Gather { callbacks: 64, time: MAX });
    }
}
