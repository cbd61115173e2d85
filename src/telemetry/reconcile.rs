//! Metrics of reconciling, by source.
//!
//! How far a source was asked is told of those that are asked now, and of no other: of one that is asked no
//! more it would grow for ever, and so would an alert. What is counted stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use super::{ByReason, BySource, Seconds, seconds};
use crate::clock::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    source: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    source: String,
    kind: &'static str,
}

/// How a platform answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// So that it could be understood.
    Answered,
    /// That it knows no such notification.
    NotFound,
    /// Not, or with an error that may pass.
    Failed,
    /// That we ask too much.
    Limited,
    /// That it does not let us in.
    Denied,
    /// In a way that asking again does not help.
    Wrong,
}

impl Asked {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Answered, Self::NotFound, Self::Failed, Self::Limited, Self::Denied, Self::Wrong];

    const fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NotFound => "not-found",
            Self::Failed => "failed",
            Self::Limited => "limited",
            Self::Denied => "denied",
            Self::Wrong => "wrong",
        }
    }
}

/// What can be healed.
pub const HEALED: [&str; 4] = ["status", "notification", "message", "version"];

/// Why what a platform told could not be understood: what is wrong with an element of a page, or with the
/// answer about one notification.
pub const UNREADABLE: [&str; 7] =
    ["shape", "kind", "id", "status", "completed_at", "updated_at", "answer"];

/// The families, and what is known of each source.
#[derive(Debug, Default)]
pub(super) struct ReconcileMetrics {
    requests: Family<ByOutcome, Counter>,
    healed: Family<ByKind, Counter>,
    unreadable: Family<ByReason, Counter>,
    last_success: Family<BySource, Seconds>,
    behind: Family<BySource, Seconds>,
    sources: std::sync::RwLock<Vec<UpstreamMetrics>>,
}

impl ReconcileMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "reconcile_requests",
            "Requests to a source's platform, by how it answered",
            self.requests.clone(),
        );
        r.register(
            "reconcile_healed",
            "What a source's platform told when it was asked and had not called back",
            self.healed.clone(),
        );
        r.register(
            "reconcile_unreadable",
            "What a source's platform told and could not be understood, by what is wrong with it",
            self.unreadable.clone(),
        );
        r.register_with_unit(
            "reconcile_last_success_timestamp",
            "When a source's platform last told everything, and all could be understood; 0 before that",
            Unit::Seconds,
            self.last_success.clone(),
        );
        r.register_with_unit(
            "reconcile_behind",
            "How long ago the point lies down to which a source's platform was asked for everything",
            Unit::Seconds,
            self.behind.clone(),
        );
    }

    /// The handles of one source. Every count of it is there from now on.
    pub(super) fn source(&self, name: &str) -> UpstreamMetrics {
        let mut sources = self.sources.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = sources.iter().find(|known| &*known.name == name) {
            return known.clone();
        }
        let requests = |outcome: Asked| {
            let outcome = outcome.label();
            self.requests.get_or_create_owned(&ByOutcome { source: name.to_owned(), outcome })
        };
        let healed =
            |kind| self.healed.get_or_create_owned(&ByKind { source: name.to_owned(), kind });
        let unreadable = |reason| {
            let source = name.to_owned();
            self.unreadable.get_or_create_owned(&ByReason { source, reason })
        };
        let source = UpstreamMetrics {
            name: Arc::from(name),
            requests: Asked::ALL.map(requests),
            healed: HEALED.map(healed),
            unreadable: UNREADABLE.map(unreadable),
            is_asked: Arc::default(),
            succeeded_micros: Arc::default(),
            through_micros: Arc::new(AtomicI64::new(i64::MAX)),
        };
        sources.push(source.clone());
        source
    }

    /// These sources are asked from now on, and no others.
    pub(super) fn asks(&self, names: &[&str]) {
        names.iter().for_each(|name| drop(self.source(name)));
        let sources = self.sources.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        for source in &*sources {
            source.is_asked.store(names.contains(&&*source.name), Ordering::Relaxed);
        }
    }

    /// Sets what depends on the time, and on who is asked.
    pub(super) fn scrape(&self, now: Option<Timestamp>) {
        let sources = self.sources.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        for source in &*sources {
            let by = BySource { source: source.name.to_string() };
            if !source.is_asked.load(Ordering::Relaxed) {
                self.last_success.remove(&by);
                self.behind.remove(&by);
                continue;
            }
            let succeeded = source.succeeded_micros.load(Ordering::Relaxed);
            let succeeded = seconds(Timestamp::from_unix_micros(succeeded));
            self.last_success.get_or_create(&by).set(succeeded);
            let through = source.through_micros.load(Ordering::Relaxed);
            let age = now.map_or(0, |now| now.unix_micros().saturating_sub(through).max(0));
            let behind = Duration::from_micros(age.unsigned_abs()).as_secs_f64();
            self.behind.get_or_create(&by).set(behind);
        }
    }
}

/// The handles of one source, resolved once.
#[derive(Clone, Debug)]
pub struct UpstreamMetrics {
    name: Arc<str>,
    requests: [Counter; Asked::ALL.len()],
    healed: [Counter; HEALED.len()],
    unreadable: [Counter; UNREADABLE.len()],
    /// Whether it is asked now. Without that the following two are kept, and not told.
    is_asked: Arc<AtomicBool>,
    /// When everything was last asked for, and understood; 0 before that.
    succeeded_micros: Arc<AtomicI64>,
    /// Down to here everything was asked for; `i64::MAX` while that is not known.
    through_micros: Arc<AtomicI64>,
}

impl UpstreamMetrics {
    /// A request was answered so.
    pub fn asked(&self, outcome: Asked) {
        self.requests[outcome as usize].inc();
    }

    /// One of [`HEALED`] was healed.
    pub fn healed(&self, kind: usize) {
        self.healed[kind].inc();
    }

    /// Something could not be understood for one of [`UNREADABLE`].
    pub fn unreadable(&self, reason: &str) {
        let place = UNREADABLE.iter().position(|known| *known == reason).unwrap_or_default();
        self.unreadable[place].inc();
    }

    /// Everything was asked for, and understood.
    pub fn succeeded(&self, at: Timestamp) {
        self.succeeded_micros.store(at.unix_micros(), Ordering::Relaxed);
    }

    /// What was created before this was asked for.
    pub fn asked_through(&self, point: Timestamp) {
        self.through_micros.store(point.unix_micros(), Ordering::Relaxed);
    }
}
