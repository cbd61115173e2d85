//! How often something happened lately: in this minute and the four before it.

use std::sync::{Mutex, PoisonError};

use crate::clock::Timestamp;

/// Minutes that are remembered.
const MINUTES: usize = 5;

/// Counts by minute.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Which minute each slot counts, and how much.
    minutes: Mutex<[(i64, u64); MINUTES]>,
}

impl Recent {
    /// It happened.
    pub fn note(&self, at: Timestamp) {
        let minute = minute(at);
        let mut minutes = self.minutes.lock().unwrap_or_else(PoisonError::into_inner);
        let place = usize::try_from(minute.rem_euclid(MINUTES as i64)).unwrap_or(0);
        let slot = &mut minutes[place];
        if slot.0 != minute {
            *slot = (minute, 0);
        }
        slot.1 += 1;
    }

    /// How often in this minute, which may have just begun, and the four before it.
    pub fn count(&self, now: Timestamp) -> u64 {
        let (last, minutes) = (minute(now), self.minutes.lock());
        let minutes = minutes.unwrap_or_else(PoisonError::into_inner);
        let recent = (last - MINUTES as i64 + 1)..=last;
        minutes.iter().filter(|(minute, _)| recent.contains(minute)).map(|(_, count)| count).sum()
    }
}

fn minute(at: Timestamp) -> i64 {
    at.unix_micros().div_euclid(60_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_more_than_five_minutes_ago_is_forgotten() {
        let start: Timestamp = "2026-11-22T10:00:30Z".parse().unwrap();
        let recent = Recent::default();
        recent.note(start);
        recent.note(start.plus_seconds(60));
        recent.note(start.plus_seconds(61));
        for (second, expected) in [(61, 3), (240, 3), (300, 2), (329, 2), (330, 0), (9_999, 0)] {
            assert_eq!(recent.count(start.plus_seconds(second)), expected, "{second}");
        }
        recent.note(start.plus_seconds(300));
        assert_eq!(recent.count(start.plus_seconds(301)), 3, "the first slot is used again");
    }
}
