//! Metrics of what callbacks said, by source; a relay counts the same.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::BySource;
use crate::callback::Kind;
use crate::settle::Tally;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    source: String,
    kind: &'static str,
}

/// The families.
#[derive(Debug, Default)]
pub(super) struct SettlingMetrics {
    events: Family<ByKind, Counter>,
    duplicates: Family<BySource, Counter>,
    unrecognised: Family<BySource, Counter>,
    unknown_statuses: Family<BySource, Counter>,
    panics: Counter,
}

impl SettlingMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("events", "Events settled, by source and kind", self.events.clone());
        r.register("duplicates", "Events identical to an earlier one", self.duplicates.clone());
        r.register(
            "unrecognised",
            "Callbacks kept that were not, or not wholly, understood",
            self.unrecognised.clone(),
        );
        r.register(
            "unknown_statuses",
            "Receipts with a status that is no known word; kept as sent",
            self.unknown_statuses.clone(),
        );
        r.register(
            "settle_panics",
            "Callbacks whose reading panicked: a bug, please report it",
            self.panics.clone(),
        );
    }

    /// Every count of that source is there from now on.
    pub(super) fn begin(&self, source: &str) {
        let by = BySource { source: source.to_owned() };
        for family in [&self.duplicates, &self.unrecognised, &self.unknown_statuses] {
            drop(family.get_or_create(&by));
        }
        for kind in Kind::ALL {
            let by = ByKind { source: source.to_owned(), kind: kind.as_str() };
            drop(self.events.get_or_create(&by));
        }
    }

    pub(super) fn recognised(&self, tally: &Tally) {
        for ((source, kind), count) in &tally.events {
            let by = ByKind { source: source.to_string(), kind: kind.as_str() };
            self.events.get_or_create(&by).inc_by(*count);
        }
        for (family, counts) in [
            (&self.duplicates, &tally.duplicates),
            (&self.unrecognised, &tally.unrecognised),
            (&self.unknown_statuses, &tally.unknown_statuses),
        ] {
            for (source, count) in counts {
                family.get_or_create(&BySource { source: source.to_string() }).inc_by(*count);
            }
        }
        self.panics.inc_by(tally.panics);
    }
}
