//! Metrics of what is not counted but asked for when somebody scrapes.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::Seconds;
use crate::clock::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFile {
    file: &'static str,
}

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

/// The gauges, as they were when last scraped.
#[derive(Debug, Default)]
pub(super) struct SnapshotMetrics {
    connections: Gauge,
    queue: Gauge,
    lag_callbacks: Gauge,
    lag_seconds: Seconds,
    wal_bytes: Family<ByFile, Gauge>,
    free_bytes: Gauge,
    ready: Gauge,
    settling_failing: Gauge,
}

impl SnapshotMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("connections", "Open connections", self.connections.clone());
        r.register("queue_callbacks", "Callbacks waiting for the writer", self.queue.clone());
        r.register(
            "settle_lag_callbacks",
            "Callbacks acknowledged but not settled",
            self.lag_callbacks.clone(),
        );
        r.register_with_unit(
            "settle_lag",
            "Age of the oldest",
            Unit::Seconds,
            self.lag_seconds.clone(),
        );
        r.register_with_unit(
            "wal",
            "Size of a write-ahead log",
            Unit::Bytes,
            self.wal_bytes.clone(),
        );
        r.register_with_unit(
            "free",
            "Free space at the journal",
            Unit::Bytes,
            self.free_bytes.clone(),
        );
        r.register("ready", "1 while /readyz says yes", self.ready.clone());
        r.register(
            "settling_failing",
            "1 while the state file cannot be written; receiving goes on",
            self.settling_failing.clone(),
        );
    }

    pub(super) fn scrape(&self, now: &Snapshot) {
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
    }
}
