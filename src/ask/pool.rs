//! A few threads that read the state, each on a connection of its own, and a time for each question.
//!
//! A question is read in one transaction, so that all of it is of one moment. SQLite itself looks at the
//! clock every some thousand steps and stops at the end of [`QUERY_MS_MAX`], whether or not anybody
//! still waits for the answer: no reader keeps the write-ahead log from being cut for longer than that, and
//! of many that overlap a [`Gap`] lets it be cut. The readers of one source have half of the threads at
//! most, where another source has readers too ([`Turns`]).
//! The threads step back where receiving wants the processor, and are there from the first question on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{AcquireError, Semaphore, oneshot};

use super::fault::Fault;
use super::gap::Gap;
use super::shares::Turns;
use crate::background::step_back;
use crate::settle::Settled;
use crate::sqlite::checkpoint::Emptier;
use crate::sqlite::{self, Access};
use crate::state::asked::ListError;
use crate::state::tables::{SCHEMA, cursor};

/// How long one question may read.
pub(super) const QUERY_MS_MAX: Duration = Duration::from_millis(1_000);

/// How long one waits for a thread.
pub(super) const PLACE_MS_MAX: Duration = Duration::from_millis(2_000);

/// Questions that are read at once. Each connection has a cache of its own.
const THREADS_MAX: usize = 4;

/// The threads, and who may hand them a question.
pub(super) struct Pool {
    path: PathBuf,
    settled: Settled,
    /// As many as there are threads: a question that has a place is read at once.
    places: Arc<Semaphore>,
    turns: Turns,
    gap: Arc<Gap>,
    threads: Mutex<Threads>,
}

enum Threads {
    /// Nobody has asked yet.
    None,
    /// They end when the sender is dropped.
    Working(Sender<Question>, Vec<JoinHandle<()>>),
    /// Nothing is read any more.
    Ended,
}

/// A question in the line of its source.
pub(super) struct Asking<'p> {
    pool: &'p Pool,
    line: Arc<Semaphore>,
}

type Question = Box<dyn FnOnce(&mut Hand) + Send>;

/// What one thread reads with.
struct Hand {
    path: PathBuf,
    /// None before its first question, and after one that failed.
    open: Option<Open>,
}

struct Open {
    /// Of the file that it was opened on: a state that was damaged is replaced by another.
    generation: u64,
    connection: Connection,
}

impl Pool {
    /// Readers of the state at `path`, whose log `emptier` empties once it is longer than
    /// `wal_bytes_max`; it is opened when somebody asks.
    pub(super) fn new(
        path: PathBuf,
        settled: Settled,
        emptier: Emptier,
        wal_bytes_max: u64,
    ) -> Self {
        let (places, turns) = (Arc::new(Semaphore::new(THREADS_MAX)), Turns::new(THREADS_MAX));
        let gap = Arc::new(Gap::new(path.clone(), emptier, wal_bytes_max));
        Self { path, settled, places, turns, gap, threads: Mutex::new(Threads::None) }
    }

    /// From now on so many sources have readers.
    pub(super) fn share(&self, sources: usize) {
        self.turns.share(sources);
    }

    /// For a question of a reader of `source`.
    pub(super) fn of(&self, source: &Arc<str>) -> Asking<'_> {
        Asking { pool: self, line: self.turns.line(source) }
    }

    fn hand_over(&self, question: Question) -> Result<(), Fault> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*threads, Threads::None) {
            let (sender, all) = self.start();
            *threads = Threads::Working(sender, all);
        }
        match &*threads {
            Threads::Working(sender, _) => sender.send(question).map_err(|_| Fault::Failed),
            Threads::None | Threads::Ended => Err(Fault::Stopping),
        }
    }

    fn start(&self) -> (Sender<Question>, Vec<JoinHandle<()>>) {
        let (sender, questions) = channel();
        let questions = Arc::new(Mutex::new(questions));
        let start = |_| {
            let hand = Hand { path: self.path.clone(), open: None };
            let questions = Arc::clone(&questions);
            let thread = std::thread::Builder::new().name("read".to_owned());
            // With fewer threads a question waits a little longer; without any it fails.
            thread
                .spawn(move || hand.work(&questions))
                .inspect_err(|error| {
                    tracing::error!(%error, "a thread for readers could not be started");
                })
                .ok()
        };
        (sender, (0..THREADS_MAX).filter_map(start).collect())
    }

    /// Answers nothing more, and waits until what is being read is read: [`QUERY_MS_MAX`] at most. No
    /// connection is open then, so that the writer of the state closes it last: only that can take the
    /// write-ahead log away. Blocks.
    pub(super) fn close(&self) {
        self.places.close();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Threads::Working(sender, all) = std::mem::replace(&mut *threads, Threads::Ended) {
            drop(sender);
            for thread in all {
                let _ = thread.join();
            }
        }
    }
}

impl Asking<'_> {
    /// Asks it: `read` runs on another thread, in one transaction, of a state into which everything up to
    /// `committed` is settled. That somebody waited until it was is not enough: a state that is found damaged
    /// later is settled anew from nought.
    pub(super) async fn ask<T: Send + 'static>(
        self,
        committed: i64,
        read: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let Self { pool, line } = self;
        pool.gap.leave_if_long(&pool.places, THREADS_MAX);
        let places = Arc::clone(&pool.places);
        let place = async move {
            Ok::<_, AcquireError>((line.acquire_owned().await?, places.acquire_owned().await?))
        };
        let place = match tokio::time::timeout(PLACE_MS_MAX, place).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(Fault::Stopping),
            Err(_) => return Err(Fault::Busy),
        };
        let generation = pool.settled.generation();
        let (tell, told) = oneshot::channel();
        pool.hand_over(Box::new(move |hand| {
            let answer = hand.ask(generation, committed, read);
            // Given back when the reading has ended, not when somebody stops waiting for it.
            drop(place);
            let _ = tell.send(answer);
        }))?;
        // Nothing is told by a reading that panics: a bug of ours.
        told.await.unwrap_or(Err(Fault::Failed))
    }
}

impl Hand {
    fn work(mut self, questions: &Mutex<Receiver<Question>>) {
        step_back();
        loop {
            let next = questions.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(question) = next else { return };
            if catch_unwind(AssertUnwindSafe(|| question(&mut self))).is_err() {
                self.open = None;
            }
        }
    }

    fn ask<T>(
        &mut self,
        generation: u64,
        committed: i64,
        read: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let known = self.open.take().filter(|open| open.generation == generation);
        let mut connection = match known {
            Some(open) => open.connection,
            None => self.open_anew()?,
        };
        let answer = in_time(&mut connection, committed, read);
        // What is wrong with a question is no reason to open the state anew.
        if !matches!(answer, Err(Fault::Failed)) {
            self.open = Some(Open { generation, connection });
        }
        answer
    }

    fn open_anew(&self) -> Result<Connection, Fault> {
        sqlite::open(&self.path, &SCHEMA, Access::Read).map_err(|error| {
            if !self.path.exists() {
                // One that was damaged has just been set aside.
                return Fault::NotSettled;
            }
            tracing::error!(%error, "a reader could not open the state");
            Fault::Failed
        })
    }
}

fn in_time<T>(
    connection: &mut Connection,
    committed: i64,
    read: impl FnOnce(&Connection) -> Result<T, Fault>,
) -> Result<T, Fault> {
    sqlite::end_at(connection, Instant::now() + QUERY_MS_MAX)?;
    // Rolled back when it is dropped: there is nothing to commit.
    let transaction = connection.transaction()?;
    let (_, settled) = cursor(&transaction)?;
    if settled < committed {
        return Err(Fault::NotSettled);
    }
    read(&transaction)
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        if sqlite::is_out_of_time(&error) || sqlite::Fault::of(&error) == sqlite::Fault::Busy {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::clock::Clock;
    use crate::journal;
    use crate::settle::{self, OnThread, Settler};
    use crate::sqlite::Durability;
    use crate::sqlite::checkpoint::{Checkpointer, wal_bytes};
    use crate::state::tables::set_cursor;

    /// A state with the thread that writes it and the one that checkpoints it, and its readers.
    struct World {
        pool: Arc<Pool>,
        path: PathBuf,
        settler: Settler,
        _journal: (journal::Journal, journal::Writer),
        _checkpointer: Checkpointer,
        _folder: tempfile::TempDir,
    }

    impl World {
        fn new(wal_bytes_max: u64) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("receiptd.db");
            let journal_path = journal::path_beside(&path);
            let clock = Clock::system();
            let opened = settle::open_beside(&path, &journal_path, &clock).unwrap();
            let options = journal::Options {
                queue_callbacks_max: 8,
                queue_bytes_max: 1 << 20,
                batch_callbacks_max: 8,
                free_bytes_min: 0,
                reserve_bytes: 0,
                durability: Durability::Full,
            };
            let (journal, writer, _) =
                journal::start(&journal_path, options, Box::new(|_| {})).unwrap();
            let checkpointer = Checkpointer::start(&path, &SCHEMA, Box::new(|| {})).unwrap();
            let options = settle::Options {
                path: path.clone(),
                journal: journal_path,
                callbacks_max: 8,
                clock,
                owed_to: Vec::new(),
                hold: checkpointer.hold(),
            };
            let progress = Arc::clone(journal.progress());
            let (settler, settled) =
                settle::start(options, opened, progress, Box::new(|_| {})).unwrap();
            let pool = Pool::new(path.clone(), settled, checkpointer.emptier(), wal_bytes_max);
            let pool = Arc::new(pool);
            Self {
                pool,
                path,
                settler,
                _journal: (journal, writer),
                _checkpointer: checkpointer,
                _folder: folder,
            }
        }
    }

    /// What each question has written while it reads.
    const WRITTEN_BYTES: usize = 128 << 10;

    fn write(on_thread: &OnThread, key: i64) {
        let row = move |state: &mut Connection| {
            let reason = "r".repeat(WRITTEN_BYTES);
            state.execute("INSERT INTO unrecognised VALUES (?1, '', '', ?2)", (key, reason))
        };
        on_thread.run(row).unwrap().unwrap();
    }

    /// How long the log becomes while two readers overlap: none of them ends before the next has begun,
    /// or has had `patience` to.
    async fn longest_log(world: &World, questions: i64, patience: Duration) -> u64 {
        let begun = Arc::new((Mutex::new(0_i64), std::sync::Condvar::new()));
        let longest = Arc::new(AtomicU64::new(0));
        let read_for_long = || {
            let (begun, longest) = (Arc::clone(&begun), Arc::clone(&longest));
            let (path, on_thread) = (world.path.clone(), world.settler.on_thread());
            move |state: &Connection| {
                let count = "SELECT count(*) FROM unrecognised";
                let before: i64 = state.query_row(count, [], |row| row.get(0))?;
                let number = {
                    let mut number = begun.0.lock().unwrap();
                    *number += 1;
                    begun.1.notify_all();
                    *number
                };
                write(&on_thread, number);
                longest.fetch_max(wal_bytes(&path), Ordering::Relaxed);
                let is_last = |begun: &mut i64| *begun == number && number < questions;
                let waiting = begun.0.lock().unwrap();
                drop(begun.1.wait_timeout_while(waiting, patience, is_last).unwrap());
                // It has read all the time: what was written since is not there for it.
                let after: i64 = state.query_row(count, [], |row| row.get(0))?;
                assert_eq!(before, after);
                Ok::<_, Fault>(())
            }
        };
        let source: Arc<str> = Arc::from("a");
        let reader = || async {
            for _ in 0..questions / 2 {
                world.pool.of(&source).ask(0, read_for_long()).await.unwrap();
            }
        };
        tokio::join!(reader(), reader());
        longest.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn readers_that_overlap_without_an_end_keep_the_log_within_its_bound() {
        const WAL_BYTES_MAX: u64 = 1 << 20;
        let written = WRITTEN_BYTES as u64;
        let world = World::new(WAL_BYTES_MAX);
        let longest = longest_log(&world, 32, Duration::from_millis(200)).await;
        // What is under way when it has become long, and what follows before the gap is begun.
        assert!(longest < WAL_BYTES_MAX + 6 * written, "{longest}");
        world.pool.close();
        // The control: without gaps it holds all that was written.
        let world = World::new(u64::MAX);
        let longest = longest_log(&world, 32, Duration::from_secs(20)).await;
        assert!(longest > 31 * written, "{longest}");
        world.pool.close();
    }

    #[tokio::test]
    async fn a_reader_of_another_program_makes_gaps_vain_and_questions_are_answered() {
        let world = World::new(1 << 20);
        let mut other = sqlite::open(&world.path, &SCHEMA, Access::Read).unwrap();
        let reading = other.transaction().unwrap();
        let count = "SELECT count(*) FROM unrecognised";
        let _: i64 = reading.query_row(count, [], |row| row.get(0)).unwrap();
        (0..16).for_each(|key| write(&world.settler.on_thread(), key));
        assert!(wal_bytes(&world.path) > 1 << 20);
        let source: Arc<str> = Arc::from("a");
        for _ in 0..20 {
            let ask = |state: &Connection| Ok(state.query_row(count, [], |row| row.get(0))?);
            let rows: i64 = world.pool.of(&source).ask(0, ask).await.unwrap();
            assert_eq!(rows, 16);
        }
        world.pool.close();
    }

    #[tokio::test]
    async fn a_state_that_does_not_hold_what_was_acknowledged_answers_nothing() {
        let world = World::new(u64::MAX);
        let source: Arc<str> = Arc::from("a");
        let ask = |committed| world.pool.of(&source).ask(committed, |_| Ok(()));
        let settle = |seq| {
            let settled = move |state: &mut Connection| set_cursor(state, "journal", seq);
            world.settler.on_thread().run(settled).unwrap().unwrap();
        };
        settle(5);
        assert_eq!(ask(5).await, Ok(()));
        // One that was begun anew is at its start, whoever waited for the one before.
        settle(2);
        assert_eq!(ask(5).await, Err(Fault::NotSettled));
        assert_eq!(ask(2).await, Ok(()));
        world.pool.close();
    }

    #[tokio::test]
    async fn while_there_is_no_state_it_is_being_settled_anew() {
        let world = World::new(u64::MAX);
        std::fs::remove_file(&world.path).unwrap();
        let source: Arc<str> = Arc::from("a");
        assert_eq!(world.pool.of(&source).ask(0, |_| Ok(())).await, Err(Fault::NotSettled));
        world.pool.close();
    }

    #[tokio::test]
    async fn a_source_whose_questions_are_slow_leaves_threads_to_another() {
        let world = World::new(u64::MAX);
        world.pool.share(2);
        let [slow, other]: [Arc<str>; 2] = ["slow", "other"].map(Arc::from);
        let (closed, gate) = channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let (begin, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let all: Vec<_> = (0..2 * THREADS_MAX)
            .map(|_| {
                let (pool, source) = (Arc::clone(&world.pool), Arc::clone(&slow));
                let (begin, gate) = (begin.clone(), Arc::clone(&gate));
                tokio::spawn(async move {
                    let wait = move |_: &Connection| {
                        let _ = begin.send(());
                        let _ = gate.lock().unwrap().recv();
                        Ok(())
                    };
                    pool.of(&source).ask(0, wait).await
                })
            })
            .collect();
        for _ in 0..THREADS_MAX / 2 {
            begun.recv().await.unwrap();
        }
        // It is answered while half of the threads are taken, and many more questions wait for them.
        world.pool.of(&other).ask(0, |_| Ok(())).await.unwrap();
        assert!(begun.try_recv().is_err(), "no more than half are taken");
        drop(closed);
        for asked in all {
            asked.await.unwrap().unwrap();
        }
        world.pool.close();
    }
}
