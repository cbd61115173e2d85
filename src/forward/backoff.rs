//! How long to wait before trying again: exponential, with full jitter and a cap.
//!
//! The pause is any time between nought and a bound that doubles from attempt to attempt, so that
//! what failed together does not come back together. Pure: chance is an argument.

use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

/// Where chance comes from: seeded anew in each process, by hand in tests.
#[derive(Debug)]
pub struct Chance(ChaCha8Rng);

impl Chance {
    /// The same sequence for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Another one in each process.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn new() -> std::io::Result<Self> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(std::io::Error::from)?;
        Ok(Self::seeded(u64::from_ne_bytes(seed)))
    }

    fn up_to(&mut self, bound: Duration) -> Duration {
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.0.random_range(0..=micros))
    }
}

/// The bounds of a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The bound after the first failure.
    pub min: Duration,
    /// The bound after many.
    pub max: Duration,
}

impl Backoff {
    /// The pause after a failure that so many came before.
    pub fn pause(self, failures: u32, chance: &mut Chance) -> Duration {
        let doubled = 2_u32.checked_pow(failures).and_then(|times| self.min.checked_mul(times));
        chance.up_to(doubled.unwrap_or(self.max).min(self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_spread_between_nought_and_a_bound_that_doubles_up_to_its_cap() {
        let backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(10) };
        let mut chance = Chance::seeded(7);
        for (failures, bound) in [(0, 1), (1, 2), (2, 4), (3, 8), (4, 10), (40, 10), (u32::MAX, 10)]
        {
            let pauses: Vec<_> = (0..1_000).map(|_| backoff.pause(failures, &mut chance)).collect();
            let bound = Duration::from_secs(bound);
            assert!(pauses.iter().all(|pause| *pause <= bound));
            assert!(pauses.iter().any(|pause| *pause > bound * 9 / 10), "all of it is used");
            assert!(pauses.iter().any(|pause| *pause < bound / 10));
        }
    }
}
