//! Puts renewed TLS files in force, without dropping a connection.
//!
//! [`follow`] has a [`Reloader`] look every few seconds, or at once when asked to. What it finds is
//! in force for the next connection; a problem is logged once, and the old files stay in force.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::server::TlsInForce;
use super::tls::{Refreshed, Reloader};
use crate::telemetry::Metrics;

/// How often the TLS files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Follows the files for ever. `look`: notified when somebody wants them looked at now.
pub async fn follow(
    mut reloader: Reloader,
    in_force: TlsInForce,
    look: Arc<Notify>,
    metrics: Arc<Metrics>,
) {
    loop {
        metrics.tls_ends(reloader.not_after());
        // Elapsed: time to look without having been asked.
        let _ = tokio::time::timeout(LOOK, look.notified()).await;
        match reloader.refresh() {
            Refreshed::Reloaded => {
                *in_force.write().unwrap_or_else(PoisonError::into_inner) = reloader.current();
                tracing::info!("the TLS files have changed and are in force");
            }
            Refreshed::Failed(problem) => {
                tracing::warn!(%problem, "the TLS files have changed; the old ones stay in force");
            }
            Refreshed::Unchanged | Refreshed::StillFailing => {}
        }
    }
}
