//! What a failed attempt means for its change: tried again, and when, or given up. Pure: time and chance
//! are arguments.

use std::time::Duration;

use super::backoff::{Backoff, Chance};
use super::breaker::RETRY_AFTER_MAX;
use super::fault::Fault;
use crate::clock::Timestamp;
use crate::config::settings;
use crate::state::outbox::{Outcome, Owed};

/// What a failed attempt means for its row. Where the sink is gone the row waits like any other, so that
/// its error is seen; that nothing is sent is the dispatcher's affair.
pub fn fate(
    owed: &Owed,
    fault: &Fault,
    settings: &settings::Sink,
    now: Timestamp,
    chance: &mut Chance,
) -> Outcome {
    let error = match fault {
        Fault::Gone { why } => format!("{why}; nothing is sent to this sink until the next start"),
        Fault::Passing { why, .. } | Fault::Refused { why } => why.clone(),
    };
    let is_given_up = match fault {
        Fault::Refused { .. } => true,
        Fault::Gone { .. } => false,
        Fault::Passing { .. } => {
            let attempts = owed.attempts.saturating_add(1);
            settings.attempts_max.is_some_and(|max| attempts >= max)
                || since(owed.change.received_at, now) >= settings.age_s_max
        }
    };
    if is_given_up {
        return Outcome::Parked { error };
    }
    let asked = match fault {
        Fault::Passing { retry_after, .. } => retry_after.unwrap_or_default().min(RETRY_AFTER_MAX),
        Fault::Refused { .. } | Fault::Gone { .. } => Duration::ZERO,
    };
    let backoff = Backoff { min: settings.backoff_ms_min, max: settings.backoff_ms_max };
    let pause = backoff.pause(owed.attempts, chance).max(asked);
    let micros = i64::try_from(pause.as_micros()).unwrap_or(i64::MAX);
    let due_at = Timestamp::from_unix_micros(now.unix_micros().saturating_add(micros));
    Outcome::Waits { due_at, error }
}

/// The time from one instant to a later one; nought if it is not later.
pub(super) fn since(from: Timestamp, to: Timestamp) -> Duration {
    let micros = to.unix_micros().saturating_sub(from.unix_micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
