//! Checkpoints away from the commit.
//!
//! A thread with a connection of its own looks ten times a second whether the WAL was written, and if
//! so moves it into the database; PASSIVE, so that neither the writer nor a reader waits. Only when
//! the WAL file has grown past `WAL_BYTES_LARGE` does it RESTART, which holds the writer up for
//! the little that PASSIVE left over; the file keeps its size, because writing over it is cheaper
//! than making it grow. A checkpoint that somebody holds up is tried again: it moves bytes that are
//! already durable in the WAL. One that fails for the disk's sake is not: whoever started it is told,
//! because a later success would prove nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::{Access, BUSY_MS_MAX, Fault, OpenError, Schema, open};

/// Seldom is worse: the more a checkpoint writes at once, the longer its sync holds up the syncs of
/// commits on the same disk. At half a second the slowest hundredth of answers under a steady load
/// took twice as long.
const LOOK: Duration = Duration::from_millis(100);
const WAL_BYTES_LARGE: u64 = 16 << 20;

/// How much a checkpoint may hold others up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Not at all.
    Passive,
    /// Until all of the WAL is moved, so that its file is written again from the start.
    Restart,
    /// The same, and the file is cut to nothing.
    Truncate,
}

/// The bytes in the WAL file beside `path`, whether moved already or not.
pub fn wal_bytes(path: &Path) -> u64 {
    std::fs::metadata(wal_path(path)).map_or(0, |metadata| metadata.len())
}

/// The WAL file beside `path`.
pub fn wal_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// Runs one checkpoint; `Ok(false)` means that somebody held it up and some of the log is left.
pub fn run(connection: &Connection, mode: Mode) -> rusqlite::Result<bool> {
    let sql = match mode {
        Mode::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
        Mode::Restart => "PRAGMA wal_checkpoint(RESTART)",
        Mode::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
    };
    connection.query_row(sql, [], |row| {
        let (busy, log, moved): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && log == moved)
    })
}

/// The same, but gives up at once if a reader or another checkpoint stands in the way.
pub fn run_without_waiting(connection: &Connection, mode: Mode) -> rusqlite::Result<bool> {
    connection.busy_timeout(Duration::ZERO)?;
    let result = match run(connection, mode) {
        Err(error) if Fault::of(&error) == Fault::Busy => Ok(false),
        result => result,
    };
    connection.busy_timeout(BUSY_MS_MAX)?;
    result
}

/// Told that a checkpoint failed for good, on the checkpointing thread.
pub type Failed = Box<dyn Fn() + Send>;

/// The thread that checkpoints one file; stops, after a last checkpoint, when dropped.
#[derive(Debug)]
pub struct Checkpointer {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts checkpointing `path`, which its writer has already created. `failed` is told of an I/O
    /// error or damage: what the log held may not be in the file, and a later success proves nothing.
    pub fn start(path: &Path, schema: &'static Schema, failed: Failed) -> Result<Self, OpenError> {
        let connection = open(path, schema, Access::Checkpoint)?;
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let thread = std::thread::Builder::new()
            .name(format!("{}-checkpoint", schema.what))
            .spawn({
                let (stop, path) = (Arc::clone(&stop), path.to_owned());
                move || work(&connection, &path, &stop, &failed)
            })
            .map_err(|error| OpenError::Sqlite {
                path: path.to_owned(),
                error: rusqlite::Error::ToSqlConversionFailure(Box::new(error)),
            })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(connection: &Connection, path: &Path, stop: &(Mutex<bool>, Condvar), failed: &Failed) {
    // Holding up the writer is bounded; what could not be moved now is moved next time.
    let _ = connection.busy_timeout(Duration::from_millis(200));
    let mut last = None;
    let mut stopping = false;
    while !stopping {
        stopping = wait(stop, LOOK);
        let Ok(wal) = std::fs::metadata(wal_path(path)) else { continue };
        // The size alone does not tell: a WAL that was moved whole is written again from its start.
        let written = (wal.len(), wal.modified().ok());
        if wal.len() > 0 && last != Some(written) {
            checkpoint(connection, wal.len(), failed);
            last =
                std::fs::metadata(wal_path(path)).ok().map(|wal| (wal.len(), wal.modified().ok()));
        }
    }
}

fn checkpoint(connection: &Connection, wal_bytes: u64, failed: &Failed) {
    let mut result = run(connection, Mode::Passive);
    // While a reader holds up PASSIVE, RESTART would only hold up the writer as well.
    if matches!(result, Ok(true)) && wal_bytes > WAL_BYTES_LARGE {
        result = run(connection, Mode::Restart);
    }
    match result {
        Err(error) if matches!(Fault::of(&error), Fault::Io | Fault::Damaged) => {
            tracing::error!(%error, "a checkpoint failed");
            failed();
        }
        Err(error) => tracing::warn!(%error, "a checkpoint failed; it will be tried again"),
        Ok(_) => {}
    }
}

fn wait(stop: &(Mutex<bool>, Condvar), time: Duration) -> bool {
    let guard = stop.0.lock().unwrap_or_else(PoisonError::into_inner);
    let (guard, _) = stop
        .1
        .wait_timeout_while(guard, time, |stopped| !*stopped)
        .unwrap_or_else(PoisonError::into_inner);
    *guard
}
