//! Places that sources share: who asks a lot takes nothing away from the readers of another source.
//!
//! Where several sources have readers, one of them holds half of the places at most, and none may take a
//! further place if that would leave too few for those who hold none: one for each. So however many of them
//! are greedy, each has at least one place, as long as there are no more sources than places. Where only
//! one source has readers, all places are its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

type Source = Arc<str>;

/// What one of several sources may hold of so many places.
fn half(places_max: usize, sources: usize) -> usize {
    if sources > 1 { (places_max / 2).max(1) } else { places_max }
}

/// Places of one kind. Who finds none is refused.
#[derive(Debug)]
pub(super) struct Shares {
    places_max: usize,
    /// By source that holds any.
    taken: Mutex<HashMap<Source, usize>>,
}

/// A place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    source: Source,
    shares: Arc<Shares>,
}

impl Shares {
    /// So many places.
    pub(super) fn new(places_max: usize) -> Arc<Self> {
        Arc::new(Self { places_max, taken: Mutex::default() })
    }

    /// A place for a reader of `source`, which is one of so many that have readers.
    pub(super) fn take(self: &Arc<Self>, source: &Source, sources: usize) -> Option<Share> {
        let mut taken = self.lock();
        let held = taken.get(source).copied().unwrap_or(0);
        let free = self.places_max.saturating_sub(taken.values().sum());
        let holding = taken.len() + usize::from(held == 0);
        let without = sources.saturating_sub(holding);
        let is_first = held == 0 && free > 0;
        let is_within = held < half(self.places_max, sources) && free > without;
        if !is_first && !is_within {
            return None;
        }
        *taken.entry(Arc::clone(source)).or_default() += 1;
        Some(Share { source: Arc::clone(source), shares: Arc::clone(self) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Source, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.lock();
        if let Some(held) = taken.get_mut(&self.source) {
            *held -= 1;
            if *held == 0 {
                taken.remove(&self.source);
            }
        }
    }
}

/// Turns at places that are waited for: a source has half of them under way at most, and the rest of what
/// its readers ask waits in a line of its own.
pub(super) struct Turns {
    places_max: usize,
    lines: Mutex<Lines>,
}

struct Lines {
    sources: usize,
    by_source: HashMap<Source, Arc<Semaphore>>,
}

impl Turns {
    /// At so many places.
    pub(super) fn new(places_max: usize) -> Self {
        Self { places_max, lines: Mutex::new(Lines { sources: 1, by_source: HashMap::new() }) }
    }

    /// From now on so many sources have readers. Who waits already goes on as it was.
    pub(super) fn share(&self, sources: usize) {
        let by_source = HashMap::new();
        *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = Lines { sources, by_source };
    }

    /// The line of that source.
    pub(super) fn line(&self, source: &Source) -> Arc<Semaphore> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = half(self.places_max, lines.sources);
        let line = lines.by_source.entry(Arc::clone(source));
        Arc::clone(line.or_insert_with(|| Arc::new(Semaphore::new(turns))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many as that source gets.
    fn take_all(shares: &Arc<Shares>, source: &str, sources: usize) -> Vec<Share> {
        std::iter::from_fn(|| shares.take(&Arc::from(source), sources)).collect()
    }

    #[test]
    fn a_source_that_is_alone_has_all_places_and_one_of_two_has_half() {
        let shares = Shares::new(8);
        let alone = take_all(&shares, "a", 1);
        assert_eq!(alone.len(), 8);
        drop(alone);
        let [a, b] = ["a", "b"].map(|source| take_all(&shares, source, 2));
        assert_eq!([a.len(), b.len()], [4, 4]);
    }

    #[test]
    fn however_many_take_what_they_get_each_source_has_a_place() {
        for sources in 2..=8 {
            let shares = Shares::new(8);
            let names: Vec<String> = (0..sources).map(|name| name.to_string()).collect();
            let greedy: Vec<Vec<Share>> =
                names.iter().map(|name| take_all(&shares, name, sources)).collect();
            assert!(greedy.iter().all(|held| (1..=4).contains(&held.len())), "{sources}");
        }
        // More sources than places: first come, first served, and one each.
        let shares = Shares::new(2);
        let held = ["a", "b", "c"].map(|source| take_all(&shares, source, 3));
        let held = held.each_ref().map(Vec::len);
        assert_eq!(held, [1, 1, 0]);
    }

    #[test]
    fn a_place_that_is_given_back_can_be_taken_again() {
        let shares = Shares::new(2);
        let [a, b] = ["a", "b"].map(|source| take_all(&shares, source, 2));
        assert_eq!([a.len(), b.len()], [1, 1]);
        drop(a);
        assert_eq!(take_all(&shares, "b", 2).len(), 0, "it is kept for who holds none");
        assert_eq!(take_all(&shares, "a", 2).len(), 1);
        drop(b);
        assert_eq!(take_all(&shares, "b", 2).len(), 1);
    }

    #[test]
    fn a_line_has_half_of_the_turns_where_several_sources_have_readers() {
        let turns = Turns::new(4);
        let at = |source: &str| turns.line(&Arc::from(source)).available_permits();
        assert_eq!(at("a"), 4);
        turns.share(2);
        assert_eq!([at("a"), at("b")], [2, 2]);
    }
}
