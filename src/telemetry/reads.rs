//! Metrics of the read API, by what was asked for. Who asked is no label: readers come and go.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::forward::Buckets;

/// Seconds of one answer, from a look-up by id to the longest wait.
const READ_SECONDS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRouteAndCode {
    route: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRoute {
    route: &'static str,
}

/// The families.
#[derive(Debug)]
pub struct ReadMetrics {
    answers: Family<ByRouteAndCode, Counter>,
    seconds: Family<ByRoute, Histogram, Buckets>,
}

impl Default for ReadMetrics {
    fn default() -> Self {
        let seconds = Family::new_with_constructor(Buckets(&READ_SECONDS));
        Self { answers: Family::default(), seconds }
    }
}

impl ReadMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("reads", "Questions answered, by route and answer", self.answers.clone());
        r.register_with_unit(
            "read",
            "From a question's head to its answer",
            Unit::Seconds,
            self.seconds.clone(),
        );
    }

    /// One question was answered. `route` is one of ours, never what was asked for.
    pub fn answered(&self, route: &'static str, code: u16, took: Duration) {
        self.answers.get_or_create(&ByRouteAndCode { route, code }).inc();
        self.seconds.get_or_create(&ByRoute { route }).observe(took.as_secs_f64());
    }
}
