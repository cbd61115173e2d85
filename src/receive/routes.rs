//! Which source a path belongs to, and who may post there. Replaced whole on reload.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::authenticate::{Doorkeeper, Granted};
use crate::clock::Timestamp;
use crate::config::settings::{Source, Token};
use crate::provider::Provider;
use crate::telemetry::{Metrics, SourceMetrics};

/// A used token that ends soon, or retires, is logged this often, in microseconds.
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
    ending: Vec<Ending>,
}

/// A token that has a last day.
#[derive(Debug)]
struct Ending {
    token: Token,
    /// Another token of the source outlives it: its use should have ended.
    is_retiring: bool,
    /// In microseconds since 1970; long ago if it was not logged since the last reload.
    reminded_at: AtomicI64,
}

impl Ending {
    fn among(tokens: &[Token]) -> Vec<Self> {
        let outlives = |last_day| {
            tokens.iter().any(|other| other.not_after.is_none_or(|other| other > last_day))
        };
        let ending = tokens.iter().filter_map(|token| {
            let is_retiring = outlives(token.not_after?);
            let reminded_at = AtomicI64::new(i64::MIN / 2);
            Some(Self { token: token.clone(), is_retiring, reminded_at })
        });
        ending.collect()
    }

    /// What to log now that it was used, if anything.
    fn reminder(&self, now: Timestamp) -> Option<&'static str> {
        let message = if self.token.ends_soon(now.date()) {
            "a token near its last day is in use: after it, callbacks with it are lost"
        } else if self.is_retiring {
            "a retiring token is still in use"
        } else {
            return None;
        };
        let last = self.reminded_at.load(Ordering::Relaxed);
        if now.unix_micros().saturating_sub(last) <= REMIND_MICROS {
            return None;
        }
        self.reminded_at.store(now.unix_micros(), Ordering::Relaxed);
        Some(message)
    }
}

impl Route {
    /// Takes note of what a caller proved itself by: a token that is still in use must be seen
    /// before its last day, or callbacks are lost after it.
    pub fn used(&self, granted: Granted<'_>, now: Timestamp) {
        let Granted::Token { label, not_after: Some(not_after) } = granted else { return };
        self.metrics.retiring_token_used(label, now);
        let ending = self.ending.iter().find(|ending| ending.token.label == label);
        if let Some(message) = ending.and_then(|ending| ending.reminder(now)) {
            tracing::warn!(source = &*self.source, token = label, %not_after, "{message}");
        }
    }

    /// Whether its tokens with a last day hold that one.
    fn has_ending(&self, source: &str, label: &str) -> bool {
        *self.source == *source && self.ending.iter().any(|ending| ending.token.label == label)
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

    /// Puts these sources in the place of the old; a request in flight keeps the one it has. What
    /// the metrics said of tokens and sources that are not there any more is gone with them.
    pub fn replace(&self, sources: &[Source]) {
        let table: Table = Arc::new(
            sources
                .iter()
                .map(|source| (source.path.clone(), Arc::new(route(source, &self.metrics))))
                .collect(),
        );
        let mut by_path = self.by_path.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *by_path, Arc::clone(&table));
        for (path, route) in old.iter() {
            if !table.contains_key(path) {
                tracing::warn!(
                    source = &*route.source,
                    path,
                    "no source has this path any more; what is posted there is answered 404"
                );
            }
            if !table.values().any(|new| new.source == route.source) {
                self.metrics.source_gone(&route.source);
            }
            for Ending { token, .. } in &route.ending {
                if !table.values().any(|new| new.has_ending(&route.source, &token.label)) {
                    self.metrics.token_gone(&route.source, &token.label);
                }
            }
        }
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
        ending: Ending::among(&source.credentials.tokens),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(label: &str, last_day: Option<&str>) -> Token {
        let not_after = last_day.map(|day| day.parse().unwrap());
        Token { label: label.to_owned(), sha256: [0; 32], not_after }
    }

    #[test]
    fn each_token_is_reminded_of_by_itself_and_again_after_six_hours() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let near = Some("2026-12-06");
        let ending = Ending::among(&[token("a", near), token("b", near), token("live", None)]);
        assert_eq!(ending.len(), 2);
        for hours in [0, 7] {
            for one in &ending {
                let now = now.plus_seconds(hours * 3600);
                assert!(one.reminder(now).is_some(), "{one:?}");
                assert_eq!(one.reminder(now.plus_seconds(6 * 3600)), None, "{one:?}");
            }
        }
    }

    #[test]
    fn only_what_ends_soon_or_is_outlived_is_worth_a_reminder() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let reminds = |tokens: &[Token]| Ending::among(tokens)[0].reminder(now).is_some();
        let late = token("late", Some("2030-01-31"));
        assert!(!reminds(std::slice::from_ref(&late)));
        assert!(!reminds(&[late.clone(), token("earlier", Some("2029-01-31"))]));
        assert!(!reminds(&[late.clone(), token("same", Some("2030-01-31"))]));
        assert!(reminds(&[late.clone(), token("later", Some("2030-02-01"))]));
        assert!(reminds(&[late, token("never", None)]));
        assert!(reminds(&[token("today", Some("2026-11-22"))]));
        assert!(!reminds(&[token("in fifteen days", Some("2026-12-07"))]));
    }
}
