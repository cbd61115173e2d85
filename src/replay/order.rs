//! The orders callbacks may arrive in. Chance comes from a seed, and the same seed gives the same
//! order on every machine and in every version.

/// In which order callbacks arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they stand.
    AsIs,
    /// The last one first.
    Reversed,
    /// Any order, by chance.
    Shuffled {
        /// Where chance starts.
        seed: u64,
    },
}

impl Order {
    /// `items` `repeat` times over, in this order. As it stands, the whole sequence comes again;
    /// shuffled, the repetitions are mixed among each other.
    pub fn arrange<T: Clone>(self, items: &[T], repeat: usize) -> Vec<T> {
        let mut arranged = Vec::with_capacity(items.len().saturating_mul(repeat));
        for _ in 0..repeat {
            arranged.extend_from_slice(items);
        }
        match self {
            Self::AsIs => {}
            Self::Reversed => arranged.reverse(),
            Self::Shuffled { seed } => Chance::new(seed).shuffle(&mut arranged),
        }
        arranged
    }
}

/// Numbers that look random: SplitMix64, which is all that shuffling fixtures asks for.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Starting from this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Any order, after Fisher and Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let below = last as u64 + 1;
            // No larger than `last`, which is a usize; the bias of the remainder is below 2^-40.
            let other = usize::try_from(self.next() % below).unwrap_or(last);
            items.swap(last, other);
        }
    }
}

/// The next order of `items` by the alphabet of orders; `false`, and the first one again, after the
/// last. Starting from the sorted one it visits each order once.
pub fn next_permutation<T: Ord>(items: &mut [T]) -> bool {
    let Some(pivot) = items.windows(2).rposition(|pair| pair[0] < pair[1]) else {
        items.reverse();
        return false;
    };
    let successor = items.iter().rposition(|item| *item > items[pivot]).unwrap_or(pivot);
    items.swap(pivot, successor);
    items[pivot + 1..].reverse();
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_order_of_seven_is_visited_once() {
        let mut items = [0, 1, 2, 3, 4, 5, 6];
        let mut seen = BTreeSet::from([items]);
        while next_permutation(&mut items) {
            assert!(seen.insert(items), "{items:?} came twice");
        }
        assert_eq!(seen.len(), 5_040);
        assert_eq!(items, [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn nothing_and_one_thing_have_one_order() {
        assert!(!next_permutation::<u8>(&mut []));
        assert!(!next_permutation(&mut [1]));
    }

    #[test]
    fn the_same_seed_shuffles_alike_in_every_version() {
        let items: Vec<u8> = (0..8).collect();
        let shuffled = |seed| Order::Shuffled { seed }.arrange(&items, 1);
        assert_eq!(shuffled(1), [4, 3, 2, 7, 5, 6, 0, 1]);
        assert_ne!(shuffled(1), shuffled(2));
    }

    #[test]
    fn repeating_keeps_every_item_as_often() {
        for order in [Order::AsIs, Order::Reversed, Order::Shuffled { seed: 3 }] {
            let mut arranged = order.arrange(&['a', 'b'], 3);
            arranged.sort_unstable();
            assert_eq!(arranged, ['a', 'a', 'a', 'b', 'b', 'b'], "{order:?}");
        }
        assert_eq!(Order::AsIs.arrange(&[1, 2], 2), [1, 2, 1, 2]);
        assert_eq!(Order::Reversed.arrange(&[1, 2], 2), [2, 1, 2, 1]);
    }
}
