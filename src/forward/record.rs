//! What became of rows, written into the outbox: on the settling thread, in one transaction.

use rusqlite::Connection;

use super::window::Record;
use crate::clock::Timestamp;
use crate::sqlite;
use crate::state::outbox::{self, Outcome};

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

/// Writes a record. What was discarded meanwhile is counted by whoever did that.
pub(super) fn write(
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
