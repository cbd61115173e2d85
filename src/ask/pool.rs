//! A few read-only connections to the state, and a time for each question.
//!
//! A question runs on a thread that may block, on a connection nobody else uses meanwhile, in one
//! transaction, so that all of it is of one moment. SQLite itself looks at the clock every some
//! thousand steps and stops at the end of [`QUERY_MS_MAX`], whether or not anybody still waits for the
//! answer: no reader keeps the write-ahead log from being cut for longer than that.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::Semaphore;

use super::fault::Fault;
use crate::settle::Settled;
use crate::sqlite::{self, Access};
use crate::state::asked::ListError;
use crate::state::tables::SCHEMA;

/// How long one question may read.
pub(super) const QUERY_MS_MAX: Duration = Duration::from_millis(1_000);

/// How long one waits for a connection.
const PLACE_MS_MAX: Duration = Duration::from_millis(2_000);

/// Questions that are read at once. Each has a connection, with a cache of its own, and takes
/// processor time that callbacks may need.
const CONNECTIONS_MAX: usize = 4;

/// Steps of SQLite's machine between two looks at the clock: some tens of microseconds.
const STEPS: std::ffi::c_int = 4_000;

/// The connections.
pub(super) struct Pool {
    path: PathBuf,
    settled: Settled,
    places: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Idle>>>,
}

/// A connection nobody uses.
struct Idle {
    /// Of the file that it was opened on: a state that was damaged is replaced by another.
    generation: u64,
    connection: Connection,
}

impl Pool {
    /// Connections to the state at `path`, opened when they are needed.
    pub(super) fn new(path: PathBuf, settled: Settled) -> Self {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { path, settled, places, idle: Arc::default() }
    }

    /// Asks one question: `read` runs on another thread, in one transaction.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let place = Arc::clone(&self.places).acquire_owned();
        let place = match tokio::time::timeout(PLACE_MS_MAX, place).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(Fault::Stopping),
            Err(_) => return Err(Fault::Busy),
        };
        let (path, idle) = (self.path.clone(), Arc::clone(&self.idle));
        let places = Arc::clone(&self.places);
        let generation = self.settled.generation();
        let work = move || {
            // Given back when the reading has ended, not when somebody stops waiting for it.
            let _place = place;
            let mut connection = connection(&path, &idle, generation)?;
            let answer = in_time(&mut connection, read)?;
            // Under the lock, so that nothing is kept behind `close`.
            let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
            if !places.is_closed() {
                idle.push(Idle { generation, connection });
            }
            Ok(answer)
        };
        // A reading that panics is a bug of ours; its connection is not used again.
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(Fault::Failed))
    }

    /// Answers nothing more and closes every connection that is not in use. Whoever closes the state last
    /// should be its writer: only that can take the write-ahead log away.
    pub(super) fn close(&self) {
        self.places.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// One that nobody uses, or a new one.
fn connection(
    path: &std::path::Path,
    idle: &Mutex<Vec<Idle>>,
    generation: u64,
) -> Result<Connection, Fault> {
    let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
    idle.retain(|idle| idle.generation == generation);
    if let Some(found) = idle.pop() {
        return Ok(found.connection);
    }
    drop(idle);
    sqlite::open(path, &SCHEMA, Access::Read).map_err(|error| {
        tracing::error!(%error, "a reader could not open the state");
        Fault::Failed
    })
}

fn in_time<T>(
    connection: &mut Connection,
    read: impl FnOnce(&Connection) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let deadline = Instant::now() + QUERY_MS_MAX;
    connection.progress_handler(STEPS, Some(move || Instant::now() >= deadline))?;
    // Rolled back when it is dropped: there is nothing to commit.
    let transaction = connection.transaction()?;
    read(&transaction)
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let is_interrupted = error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted);
        if is_interrupted || sqlite::Fault::of(&error) == sqlite::Fault::Busy {
            return Self::TooSlow;
        }
        // SQLite's words name tables and columns, never what is in them.
        tracing::error!(%error, "a reader could not read the state");
        Self::Failed
    }
}

impl From<ListError> for Fault {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Sqlite(error) => error.into(),
            ListError::TooManyRanges => {
                tracing::error!(%error, "a list could not be read");
                Self::Failed
            }
        }
    }
}
