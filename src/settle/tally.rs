//! What settling came to, in numbers: for the metrics, and kept nowhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::callback::Kind;

/// What a batch came to, by source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events understood, by kind, duplicates among them.
    pub events: BTreeMap<(Arc<str>, Kind), u64>,
    /// Events that were identical to an earlier one.
    pub duplicates: BTreeMap<Arc<str>, u64>,
    /// Callbacks that were not, or not wholly, understood.
    pub unrecognised: BTreeMap<Arc<str>, u64>,
    /// Receipts whose status is no word we know; kept as sent.
    pub unknown_statuses: BTreeMap<Arc<str>, u64>,
    /// Changes owed, by sink.
    pub owed: BTreeMap<Arc<str>, u64>,
    /// Callbacks whose settling panicked; unrecognised too.
    pub panics: u64,
}

impl Tally {
    pub(super) fn count(&mut self, source: &Arc<str>, kind: Kind, duplicate: bool) {
        *self.events.entry((Arc::clone(source), kind)).or_default() += 1;
        if duplicate {
            *self.duplicates.entry(Arc::clone(source)).or_default() += 1;
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        for (key, count) in other.events {
            *self.events.entry(key).or_default() += count;
        }
        for (all, more) in [
            (&mut self.duplicates, other.duplicates),
            (&mut self.unrecognised, other.unrecognised),
            (&mut self.unknown_statuses, other.unknown_statuses),
            (&mut self.owed, other.owed),
        ] {
            for (source, count) in more {
                *all.entry(source).or_default() += count;
            }
        }
        self.panics += other.panics;
    }
}
