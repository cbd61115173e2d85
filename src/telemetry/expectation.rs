//! Metrics of what should have come and has not, and of what gets callbacks suspended, by source.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::BySource;
use super::recent::Recent;
use crate::clock::Timestamp;

/// What a source should have called back about and has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expectation {
    /// What the app said it sent and has had no end by its deadline.
    pub overdue: i64,
    /// Notifications that have had no end for longer than the platforms take.
    pub stuck: i64,
    /// Something was sent since the source last called back, and long enough ago.
    pub is_silent: bool,
}

#[derive(Debug, Default)]
pub(super) struct ExpectationMetrics {
    overdue: Family<BySource, Gauge>,
    stuck: Family<BySource, Gauge>,
    silent: Family<BySource, Gauge>,
    unwell: Family<BySource, Gauge>,
    failures: Counter,
    recent: std::sync::RwLock<Vec<(String, Arc<Recent>)>>,
}

impl ExpectationMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "expected_overdue",
            "What the app said it sent through a source and has had no end by its deadline",
            self.overdue.clone(),
        );
        r.register(
            "stuck",
            "Notifications of a source that have had no end for 72 hours",
            self.stuck.clone(),
        );
        r.register(
            "expected_silent",
            "1 if something was sent half an hour ago, has had no end, and the source was silent since",
            self.silent.clone(),
        );
        r.register(
            "unwell_answers",
            "Answers of this minute and the four before it that were 5xx or took more than a second: such as get callbacks suspended",
            self.unwell.clone(),
        );
        r.register(
            "lookout_failures",
            "Looks at what is overdue, stuck or silent that failed or took too long; what it tells is gone until one does not",
            self.failures.clone(),
        );
    }

    /// What is known of that source now.
    pub(super) fn set(&self, source: &str, expectation: &Expectation) {
        let by = BySource { source: source.to_owned() };
        let Expectation { overdue, stuck, is_silent } = expectation;
        self.overdue.get_or_create(&by).set(*overdue);
        self.stuck.get_or_create(&by).set(*stuck);
        self.silent.get_or_create(&by).set(i64::from(*is_silent));
    }

    /// Nothing is known any more: no number is better than one of before.
    pub(super) fn clear(&self) {
        for gauges in [&self.overdue, &self.stuck, &self.silent] {
            gauges.clear();
        }
        self.failures.inc();
    }

    /// Where unwell answers of a source are noted; the same however often it is asked for.
    pub(super) fn recent(&self, source: &str) -> Arc<Recent> {
        let mut all = self.recent.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, known)) = all.iter().find(|(name, _)| name == source) {
            return Arc::clone(known);
        }
        drop(self.unwell.get_or_create(&BySource { source: source.to_owned() }));
        let recent = Arc::<Recent>::default();
        all.push((source.to_owned(), Arc::clone(&recent)));
        recent
    }

    /// Sets what depends on the time.
    pub(super) fn scrape(&self, now: Option<Timestamp>) {
        let Some(now) = now else { return };
        let all = self.recent.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (source, recent) in &*all {
            let count = i64::try_from(recent.count(now)).unwrap_or(i64::MAX);
            self.unwell.get_or_create(&BySource { source: source.clone() }).set(count);
        }
    }
}
