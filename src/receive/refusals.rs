//! What was refused lately, as one line of the log now and then.
//!
//! A sender never repeats what was answered 4xx, so a refusal is worth acting on; a flood of them is
//! not worth a flood of lines. Only counts, names of sources and words of ours are kept: what the
//! caller sent, its path included, never reaches the log.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often what was refused is logged.
pub const PERIOD: Duration = Duration::from_secs(10);

/// Counts since the last line, by source and reason.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: Mutex<BTreeMap<(String, &'static str), u64>>,
}

impl Refusals {
    /// One more was refused. `source` is `None` where no source has the path.
    pub fn note(&self, source: Option<&str>, reason: &'static str) {
        let key = (source.unwrap_or_default().to_owned(), reason);
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }

    /// Logs what was refused since the last time.
    pub fn log(&self) {
        let counts =
            std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        for ((source, reason), count) in counts {
            if source.is_empty() {
                tracing::warn!(count, reason, "requests were refused that belong to no source");
            } else {
                tracing::warn!(source, count, reason, "requests were refused");
            }
        }
    }

    /// Logs for as long as it is run.
    pub async fn log_for_ever(&self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            self.log();
        }
    }
}
