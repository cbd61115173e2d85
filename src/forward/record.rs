//! What became of rows, written into the outbox: on the settling thread, in one transaction.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::window::Record;
use crate::clock::Timestamp;
use crate::settle::OnThread;
use crate::sqlite;
use crate::state::outbox::{self, Outcome};

/// The pause after the state file could not be read or written.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// What came of a hand-over.
pub(super) enum Recorded {
    /// It is written.
    Done(Written),
    /// The file could not be written; it may be later.
    Failed,
    /// The settling thread has ended.
    Ended,
}

/// Rows that are owed no more, and rows that were parked.
#[derive(Default)]
pub(super) struct Written {
    pub(super) gone: usize,
    pub(super) parked: usize,
}

/// Hands a record to the settling thread, and gives it back with what came of that: one that failed is
/// handed over again. After a failure it takes a pause.
pub(super) async fn hand_over(
    on_thread: OnThread,
    sink: Arc<str>,
    record: Record,
    now: Timestamp,
) -> (Record, Recorded) {
    let handed = Arc::new(record);
    let rows = Arc::clone(&handed);
    let done = on_thread.run_later(move |state| write(state, &sink, &rows, now)).await;
    let recorded = match done {
        Some(Ok(written)) => Recorded::Done(written),
        Some(Err(error)) => {
            tracing::debug!(%error, "the outbox cannot be written");
            tokio::time::sleep(PAUSE).await;
            Recorded::Failed
        }
        None => Recorded::Ended,
    };
    (Arc::unwrap_or_clone(handed), recorded)
}

/// Writes a record. What was discarded meanwhile is counted by whoever did that.
fn write(
    state: &mut Connection,
    sink: &str,
    record: &Record,
    now: Timestamp,
) -> rusqlite::Result<Written> {
    let mut written = Written::default();
    let transaction = sqlite::write_transaction(state)?;
    for (key, outcome) in record {
        if !outbox::record(&transaction, sink, *key, outcome, now)? {
            continue;
        }
        match outcome {
            Outcome::Delivered | Outcome::Overtaken => written.gone += 1,
            Outcome::Parked { .. } => written.parked += 1,
            Outcome::Waits { .. } | Outcome::Held => {}
        }
    }
    transaction.commit()?;
    Ok(written)
}
