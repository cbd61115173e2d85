//! Chance that is the same on every machine, in every version: one stream for each message.
//!
//! Only whole words of the ChaCha8 stream are taken from the library; how they become numbers is
//! written here, because a library may change that between versions. No function of the C library
//! (`ln`, `exp`) has a part in it.

use rand::rngs::ChaCha8Rng;
use rand::{Rng as _, SeedableRng as _};

/// Sets the streams of lives apart from whatever else is drawn from the same seed.
const PURPOSE: [u8; 8] = *b"lives v1";

/// The chance of one message.
#[derive(Debug)]
pub struct Chance {
    stream: ChaCha8Rng,
}

impl Chance {
    /// That of the message with this number; `kind` sets platforms apart.
    pub fn of(seed: u64, kind: u64, number: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&number.to_le_bytes());
        key[16..24].copy_from_slice(&kind.to_le_bytes());
        key[24..].copy_from_slice(&PURPOSE);
        Self { stream: ChaCha8Rng::from_seed(key) }
    }

    /// From 0 to below `end`, which is at least 1.
    pub fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.stream.next_u64()) * u128::from(end);
        u64::try_from(wide >> 64).unwrap_or(u64::MAX)
    }

    /// From `min` to below `max`; `min` where nothing lies between.
    pub fn between(&mut self, min: i64, max: i64) -> i64 {
        let width = u64::try_from(max.saturating_sub(min)).unwrap_or(0).max(1);
        min.saturating_add_unsigned(self.below(width))
    }

    /// From 0 to below 1.
    pub fn fraction(&mut self) -> f64 {
        // 53 bits: as many as a fraction holds exactly.
        const STEP: f64 = 1.0 / 9_007_199_254_740_992.0;
        let bits = self.stream.next_u64() >> 11;
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let bits = bits as f64;
        bits * STEP
    }

    /// True with this probability.
    pub fn happens(&mut self, share: f64) -> bool {
        self.fraction() < share
    }

    /// One of them, each as likely; there is at least one.
    pub fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        let place = self.below(items.len() as u64);
        items[usize::try_from(place).unwrap_or(0)]
    }

    /// A random UUID of version 4, as a number.
    pub fn uuid(&mut self) -> u128 {
        let bits = (u128::from(self.stream.next_u64()) << 64) | u128::from(self.stream.next_u64());
        (bits & !(0xF << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_has_its_own_stream_and_always_the_same() {
        let first = |seed, kind, number| Chance::of(seed, kind, number).below(u64::MAX);
        assert_eq!(first(7, 1, 2), 11_695_867_639_754_516_399);
        for other in [first(8, 1, 2), first(7, 2, 2), first(7, 1, 3), first(2, 1, 7)] {
            assert_ne!(first(7, 1, 2), other);
        }
    }

    #[test]
    fn numbers_stay_within_their_bounds_and_reach_them() {
        let mut chance = Chance::of(1, 0, 0);
        let drawn: Vec<_> = (0..1_000).map(|_| chance.between(-2, 2)).collect();
        for value in -2..2 {
            assert!(drawn.contains(&value), "{value}");
        }
        assert!(drawn.iter().all(|value| (-2..2).contains(value)));
        assert_eq!(chance.between(5, 5), 5);
        assert!((0..1_000).map(|_| chance.fraction()).all(|f| (0.0..1.0).contains(&f)));
        assert!(!chance.happens(0.0) && chance.happens(1.0));
    }
}
