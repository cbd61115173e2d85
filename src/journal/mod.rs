//! The journal: every authentic callback, as it came, in the order of commit, and between them what
//! platforms said when asked, what apps said they sent, and what we found overdue. The truth.
//!
//! One append-only table, one writing thread on the file's only read-write connection. The thread
//! takes whatever waits (bounded), commits once with `synchronous=FULL`, and only then are all of
//! them told. It promises:
//!
//! - `Ok(seq)` is given only after the transaction that holds the bytes is committed;
//! - the queue is bounded: what does not fit is refused at once ([`Refused::QueueFull`]);
//! - a caller that goes away cancels nothing: the queue owns the bytes;
//! - a full disk is noticed before it is full and refused until there is space again;
//! - after an I/O error or damage nothing more is accepted ([`Refused::Latched`]), because SQLite
//!   would report success for pages that are gone.
//!
//! It knows no provider's words: what the bytes mean is settled behind it, from here.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::callback::Origin;
use crate::clock::Timestamp;
use crate::sqlite::Fault;

mod gather;
mod progress;
mod queue;
mod rounds;
mod schema;
mod space;
mod writer;

pub mod reader;

pub use progress::Progress;
pub use rounds::{AskedThrough, Outcome, PerList, Rounds};
pub use schema::{
    SCHEMA, SourceRow, adopt, count_between, forget, forget_sinks_but, journal_id, keep_credential,
    last_seq, lost_sources, note_pruned_before, old_prefix, pruned_before, pruned_through,
    received_at, remember_sink, sink_had, sink_since,
};
pub use space::{free_bytes, reserve_path};
pub(crate) use writer::AbortOnPanic;
pub use writer::{BatchReport, Observer, Options, Writer, start};

use queue::Queue;

/// A callback on its way into the journal.
#[derive(Debug)]
pub struct Entry {
    /// The source whose credentials it carried, or whose platform was asked.
    pub source: Arc<str>,
    /// When its body had arrived.
    pub received_at: Timestamp,
    /// The bytes of the body.
    pub body: Bytes,
    /// How it came to us.
    pub origin: Origin,
}

impl Entry {
    /// An authentic POST.
    pub fn called_back(source: Arc<str>, received_at: Timestamp, body: Bytes) -> Self {
        Self { source, received_at, body, origin: Origin::CalledBack }
    }
}

/// Why a callback was not kept. All of them are answered 503: the sender has it and tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// More callbacks, or bytes of them, wait than are allowed to.
    #[error("the queue is full")]
    QueueFull,
    /// Free space is below its minimum, or the disk was full.
    #[error("the disk is nearly full")]
    DiskFull,
    /// The commit failed; the bytes may or may not be on the disk.
    #[error("the commit failed")]
    CommitFailed,
    /// An earlier I/O error: nothing is accepted until a new start.
    #[error("an earlier I/O error stopped the journal")]
    Latched,
    /// The process is stopping.
    #[error("the journal is closed")]
    Closed,
}

/// What the journal says of one callback: its place, once it is durable.
pub type Acknowledgement = Result<i64, Refused>;

/// A handle to append with; clones share the queue.
#[derive(Clone, Debug)]
pub struct Journal {
    queue: Arc<Queue>,
    progress: Arc<Progress>,
}

impl Journal {
    /// Hands a callback to the writer. The receiver yields once its commit is done.
    ///
    /// # Errors
    /// At once, if the queue is full, closed or latched.
    pub fn append(&self, entry: Entry) -> Result<oneshot::Receiver<Acknowledgement>, Refused> {
        let (done, told) = oneshot::channel();
        self.queue.push(queue::Waiting { entry, done, since: Instant::now() })?;
        Ok(told)
    }

    /// How far the journal has got.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Callbacks waiting for the writer, or being committed.
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Runs `work` on the writing thread between two commits and returns what it returns: the one
    /// way to change the file other than by appending. An I/O error or damage that it meets latches
    /// as one of a commit does, before the next.
    ///
    /// # Errors
    /// [`Refused::Closed`] if the writer has stopped.
    pub fn on_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<rusqlite::Result<T>, Refused> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let progress = Arc::clone(&self.progress);
        self.queue.push_work(Box::new(move |connection| {
            let done = work(connection);
            if let Err(error) = &done
                && matches!(Fault::of(error), Fault::Io | Fault::Damaged)
            {
                tracing::error!(%error, "the journal failed; nothing more is accepted");
                progress.fail();
            }
            let _ = tell.send(done);
        }))?;
        told.recv().map_err(|_| Refused::Closed)
    }

    /// Accepts nothing more; what waits is still committed.
    pub fn close(&self) {
        self.queue.close();
    }
}

/// The journal beside a state file: its path with `.db` replaced by `.callbacks.db`.
pub fn path_beside(state: &Path) -> std::path::PathBuf {
    state.with_extension("callbacks.db")
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn after_an_io_error_of_other_work_on_the_journal_nothing_more_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options::small();
        let path = folder.path().join("receiptd.callbacks.db");
        let (journal, writer, telling) = start(&path, options, Box::new(|_| {})).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.spawn(telling);
        let fails_with = |code| {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            journal.on_writer(move |_| Err::<(), _>(error)).unwrap().unwrap_err();
        };
        let append = || {
            let now = Timestamp::from_unix_micros(7);
            let entry = Entry::called_back(Arc::from("passport"), now, Bytes::from("{}"));
            runtime.block_on(journal.append(entry)?).unwrap_or(Err(Refused::Closed))
        };
        for passing in [ffi::SQLITE_BUSY, ffi::SQLITE_FULL, ffi::SQLITE_CONSTRAINT] {
            fails_with(passing);
            append().unwrap();
        }
        fails_with(ffi::SQLITE_IOERR_FSYNC);
        assert_eq!(append(), Err(Refused::Latched));
        assert!(journal.progress().is_latched());
        journal.close();
        writer.join();
    }
}
