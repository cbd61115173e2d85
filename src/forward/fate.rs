//! What a failed attempt means for its change: tried again, and when, or given up. Pure: time and chance
//! are arguments.

use std::time::Duration;

use super::backoff::{Backoff, Chance};
use super::breaker::RETRY_AFTER_MAX;
use super::fault::Fault;
use crate::clock::Timestamp;
use crate::config::settings;
use crate::state::outbox::{Outcome, Owed};

/// What a failed attempt means for its row; `None` if the sink is gone and the row stays as it is.
pub fn fate(
    owed: &Owed,
    fault: &Fault,
    settings: &settings::Sink,
    now: Timestamp,
    chance: &mut Chance,
) -> Option<Outcome> {
    let error = fault.why().to_owned();
    let Fault::Passing { retry_after, .. } = fault else {
        return matches!(fault, Fault::Refused { .. }).then_some(Outcome::Parked { error });
    };
    let attempts = owed.attempts.saturating_add(1);
    let is_too_often = settings.attempts_max.is_some_and(|max| attempts >= max);
    let is_too_old = since(owed.change.received_at, now) >= settings.age_s_max;
    if is_too_often || is_too_old {
        return Some(Outcome::Parked { error });
    }
    let backoff = Backoff { min: settings.backoff_ms_min, max: settings.backoff_ms_max };
    let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
    let pause = backoff.pause(owed.attempts, chance).max(asked);
    let micros = i64::try_from(pause.as_micros()).unwrap_or(i64::MAX);
    let due_at = Timestamp::from_unix_micros(now.unix_micros().saturating_add(micros));
    Some(Outcome::Waits { due_at, error })
}

/// The time from one instant to a later one; nought if it is not later.
pub(super) fn since(from: Timestamp, to: Timestamp) -> Duration {
    let micros = to.unix_micros().saturating_sub(from.unix_micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
