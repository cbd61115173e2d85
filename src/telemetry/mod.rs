//! What can be seen: logs and metrics.
//!
//! Metrics are Prometheus text. Their labels are closed sets (sources, sinks, kinds, reasons,
//! answer codes) and never hold anything a caller sent. The handles used for every callback are resolved
//! once per source; everything that can be asked for at scrape time is not counted at all.

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
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::clock::Timestamp;
use crate::config::settings::{Log, LogFormat};
use crate::journal::BatchReport;
use crate::settle::{Report, Tally};

mod expectation;
mod forward;
mod reads;
mod recent;
mod reconcile;
mod source;

pub use expectation::Expectation;
pub use forward::{AttemptOutcome, BreakerState, SinkMetrics};
pub use reconcile::{Asked, HEALED, UNREADABLE, UpstreamMetrics};
pub use source::SourceMetrics;

/// Seconds, from a tenth of a millisecond to the time after which senders give up.
const SECONDS: [f64; 13] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Callbacks in one commit.
const BATCH: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Writes logs to standard error, as configured; of the libraries we use, warnings at most: what they
/// say below that may hold what was sent. Does nothing if a subscriber is set already.
pub fn start_logging(log: Log) {
    let libraries = LevelFilter::from_level(log.level).min(LevelFilter::WARN);
    let levels = Targets::new().with_default(libraries).with_target("receiptd", log.level);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry();
    let result = match log.format {
        LogFormat::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(layer.with_ansi(is_terminal).with_filter(levels)).try_init()
        }
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_filter(levels)).try_init()
        }
    };
    // A test or an embedding program may have set one already: theirs stays.
    drop(result);
}

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
struct ByKind {
    source: String,
    kind: &'static str,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySinkOutcome {
    sink: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFile {
    file: &'static str,
}

type Seconds = Gauge<f64, AtomicU64>;

/// What is asked for when metrics are scraped.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Open connections on the callback listener.
    pub connections: usize,
    /// Callbacks waiting for the writer.
    pub queue: usize,
    /// Callbacks committed but not settled.
    pub lag_callbacks: i64,
    /// Age of the oldest of them.
    pub lag_seconds: f64,
    /// Bytes of the journal's WAL and of the state's, where there are files.
    pub wal_bytes: Option<[u64; 2]>,
    /// Free bytes where the journal stands.
    pub free_bytes: Option<u64>,
    /// Whether `/readyz` says yes.
    pub is_ready: bool,
    /// Whether the state file could not be written when last tried.
    pub is_settling_failing: bool,
    /// The time, for the age of what is owed to sinks.
    pub now: Option<Timestamp>,
}

/// Every metric, and the registry that prints them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    answers: Family<ByAnswer, Counter>,
    probes: Family<BySource, Counter>,
    refusals: Family<ByReason, Counter>,
    events: Family<ByKind, Counter>,
    duplicates: Family<BySource, Counter>,
    unrecognised: Family<BySource, Counter>,
    unknown_statuses: Family<BySource, Counter>,
    settle_panics: Counter,
    last_callback: Family<BySource, Seconds>,
    configured: RwLock<BTreeSet<String>>,
    /// When those that are no longer configured last called back.
    gone: RwLock<BTreeMap<String, f64>>,
    token_used: Family<ByToken, Seconds>,
    token_ends: Family<ByToken, Seconds>,
    tls_ends: Seconds,
    relayed: Family<BySinkOutcome, Counter>,
    answer_seconds: Histogram,
    commit_seconds: Histogram,
    commit_wait_seconds: Histogram,
    batch_callbacks: Histogram,
    settle_seconds: Histogram,
    connections: Gauge,
    queue: Gauge,
    lag_callbacks: Gauge,
    lag_seconds: Seconds,
    wal_bytes: Family<ByFile, Gauge>,
    free_bytes: Gauge,
    ready: Gauge,
    settling_failing: Gauge,
    forward: forward::ForwardMetrics,
    reconcile: reconcile::ReconcileMetrics,
    expectation: expectation::ExpectationMetrics,
    reads: reads::ReadMetrics,
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
            events: Family::default(),
            duplicates: Family::default(),
            unrecognised: Family::default(),
            unknown_statuses: Family::default(),
            settle_panics: Counter::default(),
            last_callback: Family::default(),
            configured: RwLock::default(),
            gone: RwLock::default(),
            token_used: Family::default(),
            token_ends: Family::default(),
            tls_ends: Gauge::default(),
            relayed: Family::default(),
            answer_seconds: Histogram::new(SECONDS),
            commit_seconds: Histogram::new(SECONDS),
            commit_wait_seconds: Histogram::new(SECONDS),
            batch_callbacks: Histogram::new(BATCH),
            settle_seconds: Histogram::new(SECONDS),
            connections: Gauge::default(),
            queue: Gauge::default(),
            lag_callbacks: Gauge::default(),
            lag_seconds: Gauge::default(),
            wal_bytes: Family::default(),
            free_bytes: Gauge::default(),
            ready: Gauge::default(),
            settling_failing: Gauge::default(),
            forward: forward::ForwardMetrics::default(),
            reconcile: reconcile::ReconcileMetrics::default(),
            expectation: expectation::ExpectationMetrics::default(),
            reads: reads::ReadMetrics::default(),
            registry: Registry::default(),
        };
        metrics.begin_strangers();
        metrics.register_counters(&mut registry);
        metrics.register_rest(&mut registry);
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
            self.settle_panics.clone(),
        );
        r.register(
            "relayed",
            "Events offered to a sink before their callback was answered, where nothing is kept here",
            self.relayed.clone(),
        );
    }

    fn register_rest(&self, r: &mut Registry) {
        let (s, b) = (Unit::Seconds, Unit::Bytes);
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
            s.clone(),
            self.last_callback.clone(),
        );
        r.register_with_unit(
            "token_last_used_timestamp",
            "When a token that has a last day was last presented",
            s.clone(),
            self.token_used.clone(),
        );
        r.register_with_unit(
            "token_not_after_timestamp",
            "End of the last day on which the token is accepted",
            s.clone(),
            self.token_ends.clone(),
        );
        r.register_with_unit(
            "tls_certificate_not_after_timestamp",
            "When the certificate on the callback listener ends; 0 without TLS",
            s.clone(),
            self.tls_ends.clone(),
        );
        r.register("connections", "Open connections", self.connections.clone());
        r.register("queue_callbacks", "Callbacks waiting for the writer", self.queue.clone());
        r.register(
            "settle_lag_callbacks",
            "Callbacks acknowledged but not settled",
            self.lag_callbacks.clone(),
        );
        r.register_with_unit("settle_lag", "Age of the oldest", s, self.lag_seconds.clone());
        r.register_with_unit("wal", "Size of a write-ahead log", b.clone(), self.wal_bytes.clone());
        r.register_with_unit("free", "Free space at the journal", b, self.free_bytes.clone());
        r.register("ready", "1 while /readyz says yes", self.ready.clone());
        r.register(
            "settling_failing",
            "1 while the state file cannot be written; receiving goes on",
            self.settling_failing.clone(),
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
        let with = |outcome| {
            self.relayed.get_or_create_owned(&BySinkOutcome { sink: sink.to_owned(), outcome })
        };
        RelayMetrics {
            accepted: with("accepted"),
            failed: with("failed"),
            refused: with("refused"),
        }
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
        for (sink, rows) in &tally.owed {
            if let Some(sink) = self.forward.known(sink) {
                sink.owed(*rows);
            }
        }
        self.settle_panics.inc_by(tally.panics);
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
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.connections.set(whole(now.connections as u64));
        self.queue.set(whole(now.queue as u64));
        self.lag_callbacks.set(now.lag_callbacks);
        self.lag_seconds.set(now.lag_seconds);
        for (file, bytes) in
            ["journal", "state"].into_iter().zip(now.wal_bytes.into_iter().flatten())
        {
            self.wal_bytes.get_or_create(&ByFile { file }).set(whole(bytes));
        }
        self.free_bytes.set(now.free_bytes.map_or(-1, whole));
        self.ready.set(i64::from(now.is_ready));
        self.settling_failing.set(i64::from(now.is_settling_failing));
        self.forward.scrape(now.now);
        self.reconcile.scrape(now.now);
        self.expectation.scrape(now.now);
        let mut page = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut page, &self.registry);
        page
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

fn seconds(at: Timestamp) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a microsecond in a gauge of seconds is enough")]
    let micros = at.unix_micros() as f64;
    micros / 1e6
}
