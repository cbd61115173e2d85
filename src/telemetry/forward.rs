//! Metrics of forwarding, by sink.
//!
//! What is owed is counted as it comes and goes, from what was found at the start, so that a scrape
//! never reads the outbox. Parked changes are counted by themselves: what is owed goes down to nought
//! where all is well, though somebody still has to look at what is parked.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::clock::Timestamp;

use super::Seconds;

/// Seconds of one attempt, from a loopback's to the longest that may be configured.
const ATTEMPT_SECONDS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Seconds from a callback's arrival to the sink, from a healthy one's to a day of outage.
const DELAY_SECONDS: [f64; 13] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0, 600.0, 7_200.0, 86_400.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySink {
    sink: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    sink: String,
    outcome: &'static str,
}

/// What became of a change when it was its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The sink has it.
    Delivered,
    /// It failed and is tried again.
    Passing,
    /// The sink will never take it.
    Refused,
    /// The sink says that it is there no more.
    Gone,
    /// Not sent: a newer change made it needless.
    Overtaken,
    /// Given up, beside how the attempt ended.
    Parked,
}

impl AttemptOutcome {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Delivered, Self::Passing, Self::Refused, Self::Gone, Self::Overtaken, Self::Parked];

    const fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Passing => "passing",
            Self::Refused => "refused",
            Self::Gone => "gone",
            Self::Overtaken => "overtaken",
            Self::Parked => "parked",
        }
    }
}

/// Whether a sink is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// It is.
    Closed,
    /// One change is sent, to see whether it takes it.
    HalfOpen,
    /// Not until a pause has passed.
    Open,
    /// Not until the next start: it said that it is gone.
    Stopped,
}

/// Makes the histograms of a family.
#[derive(Clone, Debug)]
pub(super) struct Buckets(pub(super) &'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

type Histograms = Family<BySink, Histogram, Buckets>;

/// The families, and what is known of each sink.
#[derive(Debug)]
pub(super) struct ForwardMetrics {
    depth: Family<BySink, Gauge>,
    parked: Family<BySink, Gauge>,
    oldest: Family<BySink, Seconds>,
    attempts: Family<ByOutcome, Counter>,
    attempt_seconds: Histograms,
    delay_seconds: Histograms,
    breaker: Family<BySink, Gauge>,
    sinks: std::sync::RwLock<Vec<SinkMetrics>>,
}

impl Default for ForwardMetrics {
    fn default() -> Self {
        Self {
            depth: Family::default(),
            parked: Family::default(),
            oldest: Family::default(),
            attempts: Family::default(),
            attempt_seconds: Family::new_with_constructor(Buckets(&ATTEMPT_SECONDS)),
            delay_seconds: Family::new_with_constructor(Buckets(&DELAY_SECONDS)),
            breaker: Family::default(),
            sinks: std::sync::RwLock::default(),
        }
    }
}

impl ForwardMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "outbox_depth",
            "Changes owed to a sink, but for the parked",
            self.depth.clone(),
        );
        r.register(
            "outbox_parked",
            "Changes given up, for somebody to see to",
            self.parked.clone(),
        );
        r.register_with_unit(
            "outbox_oldest",
            "Age of the oldest change owed to a sink, but for the parked; 0 if there is none",
            Unit::Seconds,
            self.oldest.clone(),
        );
        r.register(
            "forward_attempts",
            "Changes whose turn it was, by sink and what became of them",
            self.attempts.clone(),
        );
        r.register_with_unit(
            "forward",
            "One attempt to send a change",
            Unit::Seconds,
            self.attempt_seconds.clone(),
        );
        r.register_with_unit(
            "forward_delay",
            "From a callback's arrival until the sink had its change",
            Unit::Seconds,
            self.delay_seconds.clone(),
        );
        r.register(
            "forward_breaker",
            "Whether a sink is sent to: 0 it is, 1 one change is tried, 2 not until a pause has passed, 3 not until the next start",
            self.breaker.clone(),
        );
    }

    /// The handles of one sink. Every series of it is there from now on.
    pub(super) fn sink(&self, name: &str) -> SinkMetrics {
        let mut sinks = self.sinks.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = sinks.iter().find(|known| &*known.name == name) {
            return known.clone();
        }
        let by = BySink { sink: name.to_owned() };
        let outcome = |outcome: AttemptOutcome| {
            self.attempts
                .get_or_create_owned(&ByOutcome { sink: name.to_owned(), outcome: outcome.label() })
        };
        let sink = SinkMetrics {
            name: Arc::from(name),
            depth: self.depth.get_or_create_owned(&by),
            parked: self.parked.get_or_create_owned(&by),
            oldest: self.oldest.get_or_create_owned(&by),
            oldest_micros: Arc::new(AtomicI64::new(i64::MAX)),
            attempts: AttemptOutcome::ALL.map(outcome),
            attempt_seconds: self.attempt_seconds.get_or_create_owned(&by),
            delay_seconds: self.delay_seconds.get_or_create_owned(&by),
            breaker: self.breaker.get_or_create_owned(&by),
        };
        sinks.push(sink.clone());
        sink
    }

    /// The same of a sink that is not configured, of which only what it is owed is there.
    pub(super) fn other_sink(&self, name: &str) -> SinkMetrics {
        let by = BySink { sink: name.to_owned() };
        let unseen = |buckets: &'static [f64]| Buckets(buckets).new_metric();
        let sink = SinkMetrics {
            name: Arc::from(name),
            depth: self.depth.get_or_create_owned(&by),
            parked: self.parked.get_or_create_owned(&by),
            oldest: Seconds::default(),
            oldest_micros: Arc::new(AtomicI64::new(i64::MAX)),
            attempts: Default::default(),
            attempt_seconds: unseen(&ATTEMPT_SECONDS),
            delay_seconds: unseen(&DELAY_SECONDS),
            breaker: Gauge::default(),
        };
        self.sinks.write().unwrap_or_else(std::sync::PoisonError::into_inner).push(sink.clone());
        sink
    }

    /// The handles of one sink that is configured, or owed something.
    pub(super) fn known(&self, name: &str) -> Option<SinkMetrics> {
        let sinks = self.sinks.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        sinks.iter().find(|known| &*known.name == name).cloned()
    }

    /// Sets what depends on the time.
    pub(super) fn scrape(&self, now: Option<Timestamp>) {
        let sinks = self.sinks.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        for sink in &*sinks {
            let since = sink.oldest_micros.load(Ordering::Relaxed);
            let age = now.map_or(0, |now| now.unix_micros().saturating_sub(since).max(0));
            sink.oldest.set(Duration::from_micros(age.unsigned_abs()).as_secs_f64());
        }
    }
}

/// The handles of one sink, resolved once.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    name: Arc<str>,
    depth: Gauge,
    parked: Gauge,
    oldest: Seconds,
    /// When the cause of the oldest arrived; `i64::MAX` if nothing is owed.
    oldest_micros: Arc<AtomicI64>,
    attempts: [Counter; AttemptOutcome::ALL.len()],
    attempt_seconds: Histogram,
    delay_seconds: Histogram,
    breaker: Gauge,
}

impl SinkMetrics {
    /// What was owed at the start: so many rows, so many of them parked. Before anything else is
    /// counted.
    pub fn found(&self, rows: i64, parked: i64) {
        self.depth.set(rows - parked);
        self.parked.set(parked);
    }

    /// So many more are owed.
    pub fn owed(&self, rows: u64) {
        self.depth.inc_by(whole(rows));
    }

    /// So many that were not parked are owed no more: delivered, overtaken or discarded.
    pub fn gone(&self, rows: usize) {
        self.depth.dec_by(whole(rows as u64));
    }

    /// So many were given up.
    pub fn parked(&self, rows: usize) {
        self.depth.dec_by(whole(rows as u64));
        self.parked.inc_by(whole(rows as u64));
    }

    /// So many that were parked are tried again.
    pub fn unparked(&self, rows: i64) {
        self.parked.dec_by(rows);
        self.depth.inc_by(rows);
    }

    /// Somebody removed so many that were parked, and so many that were not.
    pub fn discarded(&self, parked: i64, others: i64) {
        self.parked.dec_by(parked);
        self.depth.dec_by(others);
    }

    /// What became of a change, and how long the attempt took if there was one.
    pub fn attempt(&self, outcome: AttemptOutcome, took: Option<Duration>) {
        self.attempts[outcome as usize].inc();
        if let Some(took) = took {
            self.attempt_seconds.observe(took.as_secs_f64());
        }
    }

    /// A change was delivered that long after its cause arrived.
    pub fn delivered(&self, delay: Duration) {
        self.delay_seconds.observe(delay.as_secs_f64());
    }

    /// Whether it is sent to.
    pub fn breaker(&self, state: BreakerState) {
        self.breaker.set(match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
            BreakerState::Stopped => 3,
        });
    }

    /// When the cause of the oldest change arrived that is owed and not parked.
    pub fn oldest(&self, received_at: Option<Timestamp>) {
        let micros = received_at.map_or(i64::MAX, Timestamp::unix_micros);
        self.oldest_micros.store(micros, Ordering::Relaxed);
    }
}

fn whole(rows: u64) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{Metrics, Snapshot};
    use super::*;

    fn value(page: &str, series: &str) -> f64 {
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series}\n{page}")).parse().unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_micros(0).plus_seconds(second)
    }

    #[test]
    fn every_series_of_a_sink_is_there_from_the_start() {
        let metrics = Metrics::new();
        drop(metrics.sink("app"));
        let page = metrics.page(&Snapshot { now: Some(at(9)), ..Snapshot::default() });
        for outcome in AttemptOutcome::ALL {
            let label = outcome.label();
            let series =
                format!("receiptd_forward_attempts_total{{sink=\"app\",outcome=\"{label}\"}}");
            assert!(value(&page, &series).abs() < 0.1);
        }
        for name in [
            "outbox_depth",
            "outbox_parked",
            "outbox_oldest_seconds",
            "forward_breaker",
            "forward_seconds_count",
            "forward_delay_seconds_count",
        ] {
            assert!(value(&page, &format!("receiptd_{name}{{sink=\"app\"}}")).abs() < 0.1);
        }
    }

    #[test]
    fn of_a_sink_that_is_not_configured_only_what_it_is_owed_is_there() {
        let metrics = Metrics::new();
        metrics.other_sink("old").found(3, 2);
        let page = metrics.page(&Snapshot { now: Some(at(9)), ..Snapshot::default() });
        assert!((value(&page, r#"receiptd_outbox_depth{sink="old"}"#) - 1.0).abs() < 0.1);
        assert!((value(&page, r#"receiptd_outbox_parked{sink="old"}"#) - 2.0).abs() < 0.1);
        assert!(!page.contains("forward_breaker{sink") && !page.contains("oldest_seconds{sink"));
        assert!(metrics.known_sink("old").is_some(), "what is discarded is counted");
    }

    #[test]
    fn what_comes_and_goes_is_counted_from_what_was_found() {
        let metrics = Metrics::new();
        let sink = metrics.sink("app");
        sink.found(10, 3);
        metrics.sink("app").owed(5);
        sink.gone(4);
        sink.parked(2);
        sink.unparked(1);
        sink.discarded(2, 1);
        sink.oldest(Some(at(100)));
        for outcome in AttemptOutcome::ALL {
            sink.attempt(outcome, Some(Duration::from_millis(1)));
        }
        sink.attempt(AttemptOutcome::Parked, None);
        sink.breaker(BreakerState::Open);
        let page = metrics.page(&Snapshot { now: Some(at(160)), ..Snapshot::default() });
        for (series, expected) in [
            (r#"outbox_depth{sink="app"}"#, 6.0),
            (r#"outbox_parked{sink="app"}"#, 2.0),
            (r#"outbox_oldest_seconds{sink="app"}"#, 60.0),
            (r#"forward_attempts_total{sink="app",outcome="delivered"}"#, 1.0),
            (r#"forward_attempts_total{sink="app",outcome="parked"}"#, 2.0),
            (r#"forward_seconds_count{sink="app"}"#, 6.0),
            (r#"forward_breaker{sink="app"}"#, 2.0),
        ] {
            let found = value(&page, &format!("receiptd_{series}"));
            assert!((found - expected).abs() < 1e-9, "{series}: {found}");
        }
        sink.oldest(None);
        let page = metrics.page(&Snapshot { now: Some(at(160)), ..Snapshot::default() });
        assert!(value(&page, r#"receiptd_outbox_oldest_seconds{sink="app"}"#).abs() < 1e-9);
    }
}
