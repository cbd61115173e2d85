//! What can be seen: logs and metrics.
//!
//! Metrics are Prometheus text. Their labels are closed sets (sources, sinks, kinds, reasons,
//! answer codes) and never hold anything a caller sent. The handles used for every callback are resolved
//! once per source; everything that can be asked for at scrape time is not counted at all.
//!
//! [`Metrics`] has what the front door and the journal count, and asks a file of each other room to
//! register and count its own. A page shows all of them in the order in which they were registered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::RwLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::clock::Timestamp;
use crate::journal::BatchReport;
use crate::settle::{Report, Tally};

mod expectation;
mod forward;
mod logging;
mod reads;
mod recent;
mod reconcile;
mod relay;
mod settling;
mod snapshot;
mod source;

pub use expectation::Expectation;
pub use forward::{AttemptOutcome, BreakerState, SinkMetrics};
pub use logging::start_logging;
pub use reconcile::{Asked, HEALED, UNREADABLE, UpstreamMetrics};
pub use relay::RelayMetrics;
pub use snapshot::Snapshot;
pub use source::SourceMetrics;

/// Seconds, from a tenth of a millisecond to the time after which senders give up.
const SECONDS: [f64; 13] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Callbacks in one commit.
const BATCH: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySource {
    source: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByAnswer {
    source: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    source: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByToken {
    source: String,
    token: String,
}

type Seconds = Gauge<f64, AtomicU64>;

/// Every metric, and the registry that prints them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    answers: Family<ByAnswer, Counter>,
    probes: Family<BySource, Counter>,
    refusals: Family<ByReason, Counter>,
    settling: settling::SettlingMetrics,
    last_callback: Family<BySource, Seconds>,
    configured: RwLock<BTreeSet<String>>,
    /// When those that are no longer configured last called back.
    gone: RwLock<BTreeMap<String, f64>>,
    token_used: Family<ByToken, Seconds>,
    token_ends: Family<ByToken, Seconds>,
    tls_ends: Seconds,
    relayed: relay::Relayed,
    answer_seconds: Histogram,
    commit_seconds: Histogram,
    commit_wait_seconds: Histogram,
    batch_callbacks: Histogram,
    settle_seconds: Histogram,
    forward: forward::ForwardMetrics,
    reconcile: reconcile::ReconcileMetrics,
    expectation: expectation::ExpectationMetrics,
    reads: reads::ReadMetrics,
    snapshot: snapshot::SnapshotMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at nought.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("receiptd");
        let mut metrics = Self {
            answers: Family::default(),
            probes: Family::default(),
            refusals: Family::default(),
            settling: settling::SettlingMetrics::default(),
            last_callback: Family::default(),
            configured: RwLock::default(),
            gone: RwLock::default(),
            token_used: Family::default(),
            token_ends: Family::default(),
            tls_ends: Gauge::default(),
            relayed: relay::Relayed::default(),
            answer_seconds: Histogram::new(SECONDS),
            commit_seconds: Histogram::new(SECONDS),
            commit_wait_seconds: Histogram::new(SECONDS),
            batch_callbacks: Histogram::new(BATCH),
            settle_seconds: Histogram::new(SECONDS),
            forward: forward::ForwardMetrics::default(),
            reconcile: reconcile::ReconcileMetrics::default(),
            expectation: expectation::ExpectationMetrics::default(),
            reads: reads::ReadMetrics::default(),
            snapshot: snapshot::SnapshotMetrics::default(),
            registry: Registry::default(),
        };
        metrics.begin_strangers();
        metrics.register_counters(&mut registry);
        metrics.settling.register(&mut registry);
        metrics.relayed.register(&mut registry);
        metrics.register_rest(&mut registry);
        metrics.snapshot.register(&mut registry);
        metrics.forward.register(&mut registry);
        metrics.reconcile.register(&mut registry);
        metrics.expectation.register(&mut registry);
        metrics.reads.register(&mut registry);
        metrics.registry = registry;
        metrics
    }

    fn register_counters(&self, r: &mut Registry) {
        r.register(
            "callbacks",
            "Requests answered, by source and answer; without probes that were answered 204",
            self.answers.clone(),
        );
        r.register("probes", "Reachability probes answered 204", self.probes.clone());
        r.register(
            "authentication_refusals",
            "Requests answered 401, by source and reason",
            self.refusals.clone(),
        );
    }

    fn register_rest(&self, r: &mut Registry) {
        let time = |r: &mut Registry, name: &str, help: &str, histogram: &Histogram| {
            r.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        };
        time(r, "answer", "From the end of the head to the answer", &self.answer_seconds);
        time(r, "commit", "One commit of the journal", &self.commit_seconds);
        time(
            r,
            "commit_wait",
            "Longest wait of a batch before its commit",
            &self.commit_wait_seconds,
        );
        time(r, "settle", "One transaction of settling", &self.settle_seconds);
        r.register("batch_callbacks", "Callbacks in a commit", self.batch_callbacks.clone());
        r.register_with_unit(
            "last_callback_timestamp",
            "When the source's last callback was kept",
            Unit::Seconds,
            self.last_callback.clone(),
        );
        r.register_with_unit(
            "token_last_used_timestamp",
            "When a token that has a last day was last presented",
            Unit::Seconds,
            self.token_used.clone(),
        );
        r.register_with_unit(
            "token_not_after_timestamp",
            "End of the last day on which the token is accepted",
            Unit::Seconds,
            self.token_ends.clone(),
        );
        r.register_with_unit(
            "tls_certificate_not_after_timestamp",
            "When the certificate on the callback listener ends; 0 without TLS",
            Unit::Seconds,
            self.tls_ends.clone(),
        );
    }

    /// The handles of one sink; the same however often it is asked for.
    pub fn sink(&self, name: &str) -> SinkMetrics {
        self.forward.sink(name)
    }

    /// The handles of a sink that is not configured, to which something is owed all the same.
    pub fn other_sink(&self, name: &str) -> SinkMetrics {
        self.forward.other_sink(name)
    }

    /// The handles of one sink, if [`Metrics::sink`] or [`Metrics::other_sink`] was asked for it.
    pub fn known_sink(&self, name: &str) -> Option<SinkMetrics> {
        self.forward.known(name)
    }

    /// The platforms of these sources are asked from now on, and of no others.
    pub fn asks(&self, sources: &[&str]) {
        self.reconcile.asks(sources);
    }

    /// The handles of one source whose platform was asked, by us or by hand.
    pub fn upstream(&self, source: &str) -> UpstreamMetrics {
        self.reconcile.source(source)
    }

    /// What that source should have called back about and has not.
    pub fn expects(&self, source: &str, expectation: &Expectation) {
        self.expectation.set(source, expectation);
    }

    /// What sources should have called back about is not known.
    pub fn expects_unknown(&self) {
        self.expectation.clear();
    }

    /// When that source last called back, also before this start; `None` if that is not known.
    pub fn last_callback(&self, source: &str) -> Option<Timestamp> {
        let last = self.last_callback.get(&BySource { source: source.to_owned() })?.get();
        #[expect(clippy::cast_possible_truncation, reason = "microseconds since 1970 fit")]
        let micros = (last * 1e6).round() as i64;
        (micros > 0).then(|| Timestamp::from_unix_micros(micros))
    }

    /// What readers ask.
    pub fn reads(&self) -> &reads::ReadMetrics {
        &self.reads
    }

    /// The handles of one sink of a relay.
    pub fn relay(&self, sink: &str) -> RelayMetrics {
        self.relayed.sink(sink)
    }

    /// A request that belongs to no source.
    pub fn stranger(&self, code: u16) {
        self.answers.get_or_create(&ByAnswer { source: String::new(), code }).inc();
    }

    /// How long an answer took.
    pub fn answered(&self, took: Duration) {
        self.answer_seconds.observe(took.as_secs_f64());
    }

    /// One commit of the journal.
    pub fn committed(&self, report: BatchReport) {
        self.commit_seconds.observe(report.commit.as_secs_f64());
        self.commit_wait_seconds.observe(report.waited.as_secs_f64());
        self.batch_callbacks
            .observe(f64::from(u32::try_from(report.callbacks).unwrap_or(u32::MAX)));
    }

    /// One transaction of settling.
    pub fn settled(&self, report: &Report) {
        self.settle_seconds.observe(report.took.as_secs_f64());
        self.recognised(&report.tally);
    }

    /// What callbacks said.
    pub fn recognised(&self, tally: &Tally) {
        self.settling.recognised(tally);
        for (sink, rows) in &tally.owed {
            if let Some(sink) = self.forward.known(sink) {
                sink.owed(*rows);
            }
        }
    }

    /// The end of the last day on which a token is accepted.
    pub fn token_ends(&self, source: &str, token: &str, end: Timestamp) {
        let by = ByToken { source: source.to_owned(), token: token.to_owned() };
        self.token_ends.get_or_create(&by).set(seconds(end));
    }

    /// A token with a last day is not configured any more.
    pub fn token_gone(&self, source: &str, token: &str) {
        let by = ByToken { source: source.to_owned(), token: token.to_owned() };
        self.token_ends.remove(&by);
        self.token_used.remove(&by);
    }

    /// The end of the certificate in force on the callback listener, if it could be read.
    pub fn tls_ends(&self, end: Option<Timestamp>) {
        self.tls_ends.set(end.map_or(0.0, seconds));
    }

    /// The page `/metrics` shows.
    pub fn page(&self, now: &Snapshot) -> String {
        self.snapshot.scrape(now);
        self.forward.scrape(now.now);
        self.reconcile.scrape(now.now);
        self.expectation.scrape(now.now);
        let mut page = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut page, &self.registry);
        page
    }
}

fn seconds(at: Timestamp) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a microsecond in a gauge of seconds is enough")]
    let micros = at.unix_micros() as f64;
    micros / 1e6
}
