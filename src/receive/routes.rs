//! Which source a path belongs to, and who may post there. Replaced whole on reload.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::authenticate::{Doorkeeper, Granted};
use crate::clock::Timestamp;
use crate::config::settings::Source;
use crate::provider::Provider;
use crate::telemetry::{Metrics, SourceMetrics};

/// A retiring token that is still in use is logged this often, in microseconds.
const REMIND_MICROS: i64 = 6 * 3600 * 1_000_000;

/// One source at the front door.
#[derive(Debug)]
pub struct Route {
    /// Its name.
    pub source: Arc<str>,
    /// Whose wire format it is; only the probe depends on it here.
    pub provider: Provider,
    /// Judges its callers.
    pub doorkeeper: Doorkeeper,
    /// Its counters.
    pub metrics: SourceMetrics,
    reminded_at: AtomicI64,
}

impl Route {
    /// Takes note of what a caller proved itself by: a retiring token that is still in use must be
    /// seen before its last day, or callbacks are lost after it.
    pub fn used(&self, granted: Granted<'_>, now: Timestamp) {
        let Granted::Token { label, not_after: Some(not_after) } = granted else { return };
        self.metrics.retiring_token_used(label, now);
        let last = self.reminded_at.load(Ordering::Relaxed);
        if now.unix_micros().saturating_sub(last) > REMIND_MICROS {
            self.reminded_at.store(now.unix_micros(), Ordering::Relaxed);
            tracing::warn!(
                source = &*self.source, token = label, %not_after,
                "a token with a last day is still in use"
            );
        }
    }
}

type Table = Arc<HashMap<String, Arc<Route>>>;

/// All sources, by path. Clones share the table, so that a reload is seen by every connection.
#[derive(Clone, Debug)]
pub struct Routes {
    by_path: Arc<RwLock<Table>>,
    metrics: Arc<Metrics>,
}

impl Routes {
    /// The routes of these sources.
    pub fn new(sources: &[Source], metrics: &Arc<Metrics>) -> Self {
        let routes = Self { by_path: Arc::default(), metrics: Arc::clone(metrics) };
        routes.replace(sources);
        routes
    }

    /// Puts these sources in the place of the old; a request in flight keeps the one it has.
    pub fn replace(&self, sources: &[Source]) {
        let table = sources
            .iter()
            .map(|source| (source.path.clone(), Arc::new(route(source, &self.metrics))))
            .collect();
        *self.by_path.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    /// The path that source posts to.
    pub fn path_of(&self, source: &str) -> Option<String> {
        let by_path = self.by_path.read().unwrap_or_else(PoisonError::into_inner);
        let found = by_path.iter().find(|(_, route)| &*route.source == source);
        found.map(|(path, _)| path.clone())
    }

    /// The source at that path.
    pub fn at(&self, path: &str) -> Option<Arc<Route>> {
        self.by_path.read().unwrap_or_else(PoisonError::into_inner).get(path).map(Arc::clone)
    }
}

fn route(source: &Source, metrics: &Arc<Metrics>) -> Route {
    for token in &source.credentials.tokens {
        if let Some(end) = token.not_after.and_then(Timestamp::end_of) {
            metrics.token_ends(&source.name, &token.label, end);
        }
    }
    Route {
        source: Arc::clone(&source.name),
        provider: source.dialect.provider,
        doorkeeper: Doorkeeper::new(&source.credentials, source.dialect.provider),
        metrics: metrics.source(&source.name),
        reminded_at: AtomicI64::new(i64::MIN / 2),
    }
}
