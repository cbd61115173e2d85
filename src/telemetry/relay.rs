//! Metrics of a relay, by sink: what became of events where nothing is kept.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySinkOutcome {
    sink: String,
    outcome: &'static str,
}

/// The family.
#[derive(Debug, Default)]
pub(super) struct Relayed(Family<BySinkOutcome, Counter>);

impl Relayed {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "relayed",
            "Events offered to a sink before their callback was answered, where nothing is kept here",
            self.0.clone(),
        );
    }

    pub(super) fn sink(&self, sink: &str) -> RelayMetrics {
        let with =
            |outcome| self.0.get_or_create_owned(&BySinkOutcome { sink: sink.to_owned(), outcome });
        RelayMetrics {
            accepted: with("accepted"),
            failed: with("failed"),
            refused: with("refused"),
        }
    }
}

/// The handles of one sink of a relay, resolved once: what became of events.
#[derive(Clone, Debug)]
pub struct RelayMetrics {
    /// The sink has it.
    pub accepted: Counter,
    /// It has not, and may have it later; or did not say in time.
    pub failed: Counter,
    /// It never will.
    pub refused: Counter,
}
