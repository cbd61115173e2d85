//! A few threads that read the state, each on a connection of its own, and a time for each question.
//!
//! A question is read in one transaction, so that all of it is of one moment. SQLite itself looks at the
//! clock every some thousand steps and stops at the end of [`QUERY_MS_MAX`], whether or not anybody
//! still waits for the answer: no reader keeps the write-ahead log from being cut for longer than that.
//! The threads step back where receiving wants the processor, and are there from the first question on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use super::fault::Fault;
use crate::background::step_back;
use crate::settle::Settled;
use crate::sqlite::{self, Access};
use crate::state::asked::ListError;
use crate::state::tables::SCHEMA;

/// How long one question may read.
pub(super) const QUERY_MS_MAX: Duration = Duration::from_millis(1_000);

/// How long one waits for a thread.
const PLACE_MS_MAX: Duration = Duration::from_millis(2_000);

/// Questions that are read at once. Each connection has a cache of its own.
const THREADS_MAX: usize = 4;

/// The threads, and who may hand them a question.
pub(super) struct Pool {
    path: PathBuf,
    settled: Settled,
    /// As many as there are threads: a question that has a place is read at once.
    places: Arc<Semaphore>,
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
    /// Readers of the state at `path`; it is opened when somebody asks.
    pub(super) fn new(path: PathBuf, settled: Settled) -> Self {
        let places = Arc::new(Semaphore::new(THREADS_MAX));
        Self { path, settled, places, threads: Mutex::new(Threads::None) }
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
        let generation = self.settled.generation();
        let (tell, told) = oneshot::channel();
        self.hand_over(Box::new(move |hand| {
            let answer = hand.ask(generation, read);
            // Given back when the reading has ended, not when somebody stops waiting for it.
            drop(place);
            let _ = tell.send(answer);
        }))?;
        // Nothing is told by a reading that panics: a bug of ours.
        told.await.unwrap_or(Err(Fault::Failed))
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
        read: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let known = self.open.take().filter(|open| open.generation == generation);
        let mut connection = match known {
            Some(open) => open.connection,
            None => sqlite::open(&self.path, &SCHEMA, Access::Read).map_err(|error| {
                tracing::error!(%error, "a reader could not open the state");
                Fault::Failed
            })?,
        };
        let answer = in_time(&mut connection, read);
        // What is wrong with a question is no reason to open the state anew.
        if !matches!(answer, Err(Fault::Failed)) {
            self.open = Some(Open { generation, connection });
        }
        answer
    }
}

fn in_time<T>(
    connection: &mut Connection,
    read: impl FnOnce(&Connection) -> Result<T, Fault>,
) -> Result<T, Fault> {
    sqlite::end_at(connection, Instant::now() + QUERY_MS_MAX)?;
    // Rolled back when it is dropped: there is nothing to commit.
    let transaction = connection.transaction()?;
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
