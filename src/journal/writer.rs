//! The one thread that writes the journal: take what waits, commit once, tell all.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use tokio::sync::mpsc;

use super::gather::gather;
use super::queue::{Queue, Taken, Waiting};
use super::space::{Reserve, Space, free_bytes};
use super::{Journal, Progress, Refused, SCHEMA, schema};
use crate::sqlite::checkpoint::{self, Mode};
use crate::sqlite::{self, Access, Durability, Fault, OpenError};

/// How often an idle writer looks at the free space.
const LOOK: Duration = Duration::from_millis(500);

/// The pause after the reserve could not be taken: some file systems cannot preallocate at all.
const RESERVE_RETRY: Duration = Duration::from_secs(30);

/// The bounds of one journal.
#[derive(Clone, Debug)]
pub struct Options {
    /// Callbacks that may wait.
    pub queue_callbacks_max: usize,
    /// Bytes of bodies that may wait.
    pub queue_bytes_max: usize,
    /// Callbacks in one commit.
    pub batch_callbacks_max: usize,
    /// Free space below which callbacks are refused; the free pages of the file count up to half of it.
    pub free_bytes_min: u64,
    /// Space kept preallocated.
    pub reserve_bytes: u64,
    /// `Full`, unless a control experiment wants to see receipts lost.
    pub durability: Durability,
}

/// What one commit was like.
#[derive(Clone, Copy, Debug)]
pub struct BatchReport {
    /// Callbacks in it.
    pub callbacks: usize,
    /// From the start of the transaction to the end of the commit.
    pub commit: Duration,
    /// The longest time one of them waited before.
    pub waited: Duration,
}

/// Told of every commit, on the writing thread: must not block.
pub type Observer = Box<dyn Fn(BatchReport) + Send>;

/// The writing thread; join it after [`Journal::close`]. Dropped, it closes the journal and lets the
/// thread end by itself.
#[derive(Debug)]
pub struct Writer {
    thread: Option<JoinHandle<()>>,
    queue: Arc<Queue>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Writer {
    /// Waits until everything that waited is committed and the file is closed.
    pub fn join(mut self) {
        // A panic there has already ended the process.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Opens the journal at `path` and starts its writing thread. The future tells the callers and must
/// be run on the runtime they wait on: one wake-up a commit, not one a callback.
///
/// # Errors
/// If the file cannot be opened, is not ours, or was written by a newer version.
pub fn start(
    path: &Path,
    options: Options,
    observer: Observer,
) -> Result<(Journal, Writer, impl Future<Output = ()> + Send + use<>), OpenError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).to_owned();
    // Space that cannot be asked for is not refused for: the commit itself will tell.
    let free = Box::new(move || free_bytes(&folder).unwrap_or(u64::MAX));
    start_on(free, path, options, observer)
}

/// Says how many bytes are free where the journal stands.
type Free = Box<dyn Fn() -> u64 + Send>;

fn start_on(
    free: Free,
    path: &Path,
    options: Options,
    observer: Observer,
) -> Result<(Journal, Writer, impl Future<Output = ()> + Send + use<>), OpenError> {
    let connection = sqlite::open(path, &SCHEMA, Access::Write(options.durability))?;
    let wrap = |error| OpenError::Sqlite { path: path.to_owned(), error };
    let last = schema::last_seq(&connection).map_err(wrap)?;
    let queue = Arc::new(Queue::new(options.queue_callbacks_max, options.queue_bytes_max));
    let progress = Arc::new(Progress::starting_at(last));
    let (tell, told) = mpsc::unbounded_channel();
    let keeper = Keeper {
        connection,
        free,
        reserve: Reserve::new(path, options.reserve_bytes),
        reserve_failed: None,
        made_room: None,
        last_commit: Duration::ZERO,
        options,
        queue: Arc::clone(&queue),
        progress: Arc::clone(&progress),
        tell,
        observer,
    };
    let thread = std::thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || keeper.run())
        .map_err(|error: io::Error| {
            wrap(rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
        })?;
    let writer = Writer { thread: Some(thread), queue: Arc::clone(&queue) };
    Ok((Journal { queue, progress }, writer, tell_callers(told)))
}

/// The outcome of one batch, on its way to the callers.
struct Told {
    /// Bodies and all: they are freed by the thread that allocated them, which costs the allocator
    /// no lock.
    callbacks: Vec<Waiting>,
    outcome: Result<i64, Refused>,
}

async fn tell_callers(mut told: mpsc::UnboundedReceiver<Told>) {
    while let Some(Told { callbacks, outcome }) = told.recv().await {
        let first = outcome.map(|last| last + 1 - i64::try_from(callbacks.len()).unwrap_or(0));
        for (offset, Waiting { entry, done, .. }) in (0_i64..).zip(callbacks) {
            // Before its connection asks for a buffer again.
            drop(entry);
            // A caller that hung up is not told; its callback is kept all the same.
            let _ = done.send(first.map(|first| first + offset));
        }
    }
}

/// Ends the process if a writer panics: going on without it would refuse everything, or settle
/// nothing, for ever, and what was acknowledged is safe.
pub(crate) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a writing thread panicked; ending the process");
            std::process::abort();
        }
    }
}

struct Keeper {
    connection: Connection,
    free: Free,
    reserve: Reserve,
    reserve_failed: Option<Instant>,
    /// When room was last made, while space is low.
    made_room: Option<Instant>,
    /// How long the last commit took.
    last_commit: Duration,
    options: Options,
    queue: Arc<Queue>,
    progress: Arc<Progress>,
    tell: mpsc::UnboundedSender<Told>,
    observer: Observer,
}

impl Keeper {
    fn run(mut self) {
        let _guard = AbortOnPanic;
        self.look_at_space();
        let mut in_flight = 0;
        while let Some(taken) = self.take(in_flight) {
            let Taken { callbacks, work } = taken;
            for work in work {
                // After an I/O error the file is not touched any more; whoever waits is told.
                if !self.progress.is_latched() {
                    work(&mut self.connection);
                }
            }
            let has_space = self.look_at_space();
            let committed = callbacks.len();
            if !callbacks.is_empty() {
                self.handle(callbacks, has_space);
            }
            in_flight = committed + self.queue.waiting();
        }
        self.progress.close();
    }

    /// Takes what waits, after the pause in which others can join.
    fn take(&self, in_flight: usize) -> Option<Taken> {
        let gather = gather(in_flight, self.last_commit);
        self.queue.take(self.options.batch_callbacks_max, gather, LOOK)
    }

    fn handle(&mut self, callbacks: Vec<Waiting>, has_space: bool) {
        let count = callbacks.len();
        let outcome = if self.progress.is_latched() {
            Err(Refused::Latched)
        } else if has_space {
            self.commit(&callbacks)
        } else {
            Err(Refused::DiskFull)
        };
        if let Ok(last) = outcome {
            self.progress.advance(last);
        }
        self.queue.settle_owed(count);
        // The runtime has gone: nobody waits any more.
        let _ = self.tell.send(Told { callbacks, outcome });
    }

    fn commit(&mut self, callbacks: &[Waiting]) -> Result<i64, Refused> {
        let started = Instant::now();
        let waited = callbacks.first().map_or(Duration::ZERO, |first| started - first.since);
        match append(&self.connection, callbacks) {
            Ok(last) => {
                let commit = started.elapsed();
                self.last_commit = commit;
                (self.observer)(BatchReport { callbacks: callbacks.len(), commit, waited });
                Ok(last)
            }
            Err(error) => {
                if !self.connection.is_autocommit() {
                    let _ = self.connection.execute_batch("ROLLBACK");
                }
                Err(self.refuse(&error))
            }
        }
    }

    /// What a failed commit means. Whatever the class, the bytes may be on the disk or not: the
    /// callers are answered 503, send again, and an identical callback is counted once.
    fn refuse(&mut self, error: &rusqlite::Error) -> Refused {
        match Fault::of(error) {
            Fault::Full => {
                tracing::warn!(%error, "the disk is full; callbacks are answered 503");
                self.progress.set_low_on_space(true);
                self.make_room();
                Refused::DiskFull
            }
            Fault::Io | Fault::Damaged => {
                self.latch(error);
                Refused::CommitFailed
            }
            Fault::Busy | Fault::Other => {
                tracing::error!(%error, "a commit failed; its callers are answered 503");
                Refused::CommitFailed
            }
        }
    }

    /// Whether there is space for another commit; takes note of a change.
    fn look_at_space(&mut self) -> bool {
        let min = self.options.free_bytes_min;
        let was_low = self.progress.is_low_on_space();
        let reserve = if self.reserve.is_held() { 0 } else { self.options.reserve_bytes };
        // Coming back needs room for the reserve too, so that the next shortage can be got out of.
        let to_take = if was_low { reserve } else { 0 };
        let mut space = Space { free: (self.free)(), in_file: 0 };
        if !space.is_enough(min, to_take) {
            space.in_file = bytes_in_file(&self.connection);
        }
        let low = !space.is_enough(min, to_take);
        let Space { free, in_file } = space;
        if self.progress.set_low_on_space(low) {
            if low {
                tracing::warn!(free, in_file, min, "low on space; callbacks are answered 503");
            } else {
                tracing::info!(free, in_file, "there is space again; callbacks are accepted");
                self.made_room = None;
            }
        }
        // Not only once: whoever reads a file at that moment keeps its log from being cut.
        if low && self.made_room.is_none_or(|at| at.elapsed() >= LOOK) {
            self.make_room();
            self.made_room = Some(Instant::now());
        }
        let may_try = self.reserve_failed.is_none_or(|at| at.elapsed() > RESERVE_RETRY);
        if !low && reserve > 0 && may_try {
            self.reserve_failed = self.reserve.take().err().map(|error| {
                tracing::debug!(%error, "no reserve yet");
                Instant::now()
            });
        }
        !low
    }

    fn latch(&self, error: &rusqlite::Error) {
        tracing::error!(%error, "the journal failed; nothing more is accepted");
        self.progress.fail();
        self.queue.close_because(Refused::Latched);
    }

    /// Moves the WAL into the file and cuts it; with the reserve's help if that needs room. What fails for
    /// another reason than that latches as in a commit: what the log held may not be in the file, and a
    /// later success would not prove that it is.
    fn make_room(&mut self) {
        let empty = || checkpoint::run_without_waiting(&self.connection, Mode::Truncate);
        let mut emptied = empty();
        if emptied.as_ref().is_err_and(|error| !is_fatal(error)) {
            self.reserve.give_back();
            emptied = empty();
        }
        match emptied {
            Err(error) if is_fatal(&error) => self.latch(&error),
            Err(error) => {
                tracing::warn!(%error, "no checkpoint for lack of space; it will be tried again");
            }
            Ok(_) => {}
        }
    }
}

/// The bytes of the file's free pages; none if that cannot be told.
fn bytes_in_file(connection: &Connection) -> u64 {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
    let bytes = pragma("freelist_count")
        .and_then(|pages| Ok(u64::from(pages) * u64::from(pragma("page_size")?)));
    bytes.unwrap_or(0)
}

fn is_fatal(error: &rusqlite::Error) -> bool {
    matches!(Fault::of(error), Fault::Io | Fault::Damaged)
}

/// Appends all of them in one transaction; returns the position of the last.
fn append(connection: &Connection, callbacks: &[Waiting]) -> rusqlite::Result<i64> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    {
        let mut insert = connection.prepare_cached(
            "INSERT INTO callback (source, received_at, body, origin) VALUES (?1, ?2, ?3, ?4)",
        )?;
        for Waiting { entry, .. } in callbacks {
            insert.execute(params![
                &*entry.source,
                entry.received_at.to_string(),
                &*entry.body,
                entry.origin.number(),
            ])?;
        }
    }
    let last = connection.last_insert_rowid();
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(last)
}

#[cfg(test)]
impl Options {
    /// Of a test: it holds a few callbacks, on a disk that is never full.
    pub(crate) fn small() -> Self {
        Self {
            queue_callbacks_max: 8,
            queue_bytes_max: 1 << 20,
            batch_callbacks_max: 8,
            free_bytes_min: 0,
            reserve_bytes: 0,
            durability: Durability::Normal,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::clock::Timestamp;
    use crate::journal::Entry;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_was_pruned_makes_room_on_a_disk_that_stays_full() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { free_bytes_min: 64 * MIB, ..Options::small() };
        let path = folder.path().join("receiptd.callbacks.db");
        let free = Arc::new(AtomicU64::new(60 * MIB));
        let says = Arc::clone(&free);
        let says = Box::new(move || says.load(Ordering::Relaxed));
        let (journal, writer, telling) = start_on(says, &path, options, Box::new(|_| {})).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.spawn(telling);
        let append = |free_mib: u64| {
            free.store(free_mib * MIB, Ordering::Relaxed);
            let now = Timestamp::from_unix_micros(7);
            let entry = Entry::called_back(Arc::from("passport"), now, Bytes::from("{}"));
            runtime.block_on(journal.append(entry)?).unwrap_or(Err(Refused::Closed))
        };
        assert_eq!(append(60), Err(Refused::DiskFull));
        let insert = "INSERT INTO callback (source, received_at, body)
            VALUES ('a', 'b', zeroblob(?1))";
        let filled = journal.on_writer(move |connection| connection.execute(insert, [8 << 20]));
        filled.unwrap().unwrap();
        assert_eq!(append(60), Err(Refused::DiskFull), "nothing of it is free");
        let prune = |connection: &mut Connection| connection.execute("DELETE FROM callback", []);
        journal.on_writer(prune).unwrap().unwrap();
        assert!(append(60).is_ok());
        assert!(!journal.progress().is_low_on_space());
        assert_eq!(append(50), Err(Refused::DiskFull), "so much is not free in the file");
        assert!(append(57).is_ok());
        journal.close();
        writer.join();
    }

    #[test]
    fn a_checkpoint_that_fails_while_room_is_made_latches() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            queue_callbacks_max: 8,
            queue_bytes_max: 1 << 20,
            batch_callbacks_max: 8,
            // There is never so much.
            free_bytes_min: u64::MAX,
            reserve_bytes: 0,
            durability: Durability::Normal,
        };
        let path = folder.path().join("receiptd.callbacks.db");
        let (journal, writer, _) = start(&path, options, Box::new(|_| {})).unwrap();
        let damaged = journal.on_writer({
            let path = path.clone();
            move |connection| {
                let insert = "INSERT INTO callback (source, received_at, body)
                    VALUES ('a', 'b', zeroblob(?1))";
                connection.execute(insert, [1 << 20])?;
                checkpoint::run(connection, Mode::Truncate)?;
                // In the log, and then the file that it belongs to is cut behind its back.
                connection.execute(insert, [1])?;
                std::fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
                Ok(())
            }
        });
        damaged.unwrap().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let latched = runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(10), journal.progress().latched()).await
        });
        assert!(latched.is_ok(), "it goes on");
        writer.join();
        assert_eq!(journal.on_writer(|_| Ok(())).unwrap_err(), Refused::Latched);
    }
}
