//! The thread that writes the state, as others see it: started, waited for, asked, stopped.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::open::Opened;
use super::pace::Pace;
use super::tally::Tally;
use super::worker::Worker;
use crate::change::OwedTo;
use crate::clock::{Clock, Timestamp};
use crate::journal::Progress;
use crate::journal::reader::Reader;
use crate::sqlite::OpenError;
use crate::sqlite::checkpoint::Hold;

/// What settling needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state file.
    pub path: PathBuf,
    /// The journal's file.
    pub journal: PathBuf,
    /// Callbacks in one transaction.
    pub callbacks_max: usize,
    /// For the names of files set aside.
    pub clock: Clock,
    /// The sinks that changes are owed to.
    pub owed_to: Vec<OwedTo>,
    /// Of the state's checkpointer: where settling gives way, it does.
    pub hold: Hold,
}

/// What one transaction of settling was like.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the batch came to.
    pub tally: Tally,
    /// Callbacks in it.
    pub callbacks: usize,
    /// How long it took, from the first read to the end of the commit.
    pub took: Duration,
}

/// Told of every batch, on the settling thread.
pub type Observer = Box<dyn Fn(&Report) + Send>;

/// How far settling has got, for those who wait for it.
#[derive(Clone, Debug)]
pub struct Settled {
    seq: watch::Receiver<i64>,
    pub(super) oldest_owed: Arc<AtomicI64>,
    pub(super) is_failing: Arc<AtomicBool>,
    pub(super) generation: Arc<AtomicU64>,
    pub(super) beginnings: Arc<AtomicU64>,
}

impl Settled {
    /// Everything up to and including this position is settled.
    pub fn seq(&self) -> i64 {
        *self.seq.borrow()
    }

    /// Waits until everything up to and including `seq` is settled; `false` if settling has ended
    /// before that.
    pub async fn reaches(&self, seq: i64) -> bool {
        self.seq.clone().wait_for(|settled| *settled >= seq).await.is_ok()
    }

    /// When the callbacks now being settled arrived; `None` if none are.
    pub fn owed_since(&self) -> Option<Timestamp> {
        let micros = self.oldest_owed.load(Ordering::Relaxed);
        (micros != i64::MAX).then(|| Timestamp::from_unix_micros(micros))
    }

    /// Waits until more is settled, or another state file is begun; `false` if settling has ended.
    pub async fn changes(&mut self) -> bool {
        self.seq.changed().await.is_ok()
    }

    /// Grows whenever the state file was opened anew: what was read from it before may be of another.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Grows whenever settling begins anew, into a state that knows nothing but what was pruned: what was
    /// judged by the one before it no longer holds.
    pub fn beginnings(&self) -> u64 {
        self.beginnings.load(Ordering::Acquire)
    }

    /// Whether the state file could not be written when last tried.
    pub fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }
}

/// The settling thread; stop it with [`Settler::stop`]. Dropped, it ends after its batch.
#[derive(Debug)]
pub struct Settler {
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    progress: Arc<Progress>,
}

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

#[derive(Default)]
pub(super) struct Shared {
    /// Settle what is committed, then end.
    pub stop: AtomicBool,
    /// End after this batch.
    pub abandon: AtomicBool,
    /// `None` once the thread has ended: nobody may wait for it then.
    pub work: Mutex<Option<Vec<Work>>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("stop", &self.stop).finish_non_exhaustive()
    }
}

impl Settler {
    /// Settles what is committed, if that is done by `deadline`, and ends the thread. What is left
    /// is settled at the next start.
    pub fn stop(mut self, deadline: Instant) {
        self.shared.stop.store(true, Ordering::Release);
        self.progress.nudge();
        let Some(thread) = self.thread.take() else { return };
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            let _ = thread.join();
        }
    }

    /// A handle to run work on the settling thread between two batches: the one way to change the
    /// file other than by settling.
    pub fn on_thread(&self) -> OnThread {
        OnThread { shared: Arc::clone(&self.shared), progress: Arc::clone(&self.progress) }
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.abandon.store(true, Ordering::Release);
        self.progress.nudge();
    }
}

/// Runs work on the settling thread.
#[derive(Clone, Debug)]
pub struct OnThread {
    shared: Arc<Shared>,
    progress: Arc<Progress>,
}

impl OnThread {
    /// Runs `work` between two batches and returns what it returns; `None` if the thread has ended.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        self.push(Box::new(move |connection| drop(tell.send(work(connection)))))?;
        told.recv().ok()
    }

    /// The same, if that is still the state of so many [`Settled::beginnings`]; `None` within if it is not.
    pub fn run_on<T: Send + 'static>(
        &self,
        (settled, beginnings): (&Settled, u64),
        work: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Option<Option<T>> {
        // On the thread that begins anew, because work waits while a file is closed.
        let settled = settled.clone();
        self.run(move |state| (settled.beginnings() == beginnings).then(|| work(state)))
    }

    /// The same for whoever must not block: hands `work` over and waits without a thread.
    pub async fn run_later<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = oneshot::channel();
        self.push(Box::new(move |connection| drop(tell.send(work(connection)))))?;
        told.await.ok()
    }

    fn push(&self, work: Work) -> Option<()> {
        self.shared.work.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.push(work);
        self.progress.nudge();
        Some(())
    }
}

/// Starts settling into `opened`, following `progress`.
///
/// # Errors
/// If the journal cannot be read or the thread not be started.
pub fn start(
    options: Options,
    opened: Opened,
    progress: Arc<Progress>,
    observer: Observer,
) -> Result<(Settler, Settled), OpenError> {
    let wrap = |error| OpenError::Sqlite { path: options.journal.clone(), error };
    let reader = Reader::open(&options.journal)?;
    let journal_id = reader.journal_id().map_err(wrap)?;
    let (tell, told) = watch::channel(opened.seq);
    let shared = Arc::new(Shared { work: Mutex::new(Some(Vec::new())), ..Shared::default() });
    let settled = Settled {
        seq: told,
        oldest_owed: Arc::new(AtomicI64::new(i64::MAX)),
        is_failing: Arc::default(),
        generation: Arc::default(),
        beginnings: Arc::default(),
    };
    let worker = Worker {
        pace: Pace::new(Instant::now(), progress.committed()),
        opened: Some(opened),
        journal_id,
        reader,
        options,
        progress: Arc::clone(&progress),
        shared: Arc::clone(&shared),
        settled: settled.clone(),
        tell,
        observer,
    };
    let thread = std::thread::Builder::new()
        .name("settle".to_owned())
        .spawn(move || worker.run())
        .map_err(|error| OpenError::Sqlite {
            path: PathBuf::from("settle"),
            error: rusqlite::Error::ToSqlConversionFailure(Box::new(error)),
        })?;
    Ok((Settler { thread: Some(thread), shared, progress }, settled))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::files::{Files, at, known};
    use super::*;
    use crate::change::{Filter, OwedTo};
    use crate::journal;
    use crate::state::tables;

    /// Far more than any of this takes.
    const PATIENCE: Duration = Duration::from_secs(15);

    struct Running {
        settler: Settler,
        settled: Settled,
        batches: mpsc::Receiver<usize>,
    }

    /// How far the journal of these files has got.
    fn progress(files: &Files) -> Arc<Progress> {
        let options = journal::Options {
            queue_callbacks_max: 1,
            queue_bytes_max: 1,
            batch_callbacks_max: 1,
            ..journal::Options::small()
        };
        let (journal, writer, _) =
            journal::start(&files.journal, options, Box::new(|_| {})).unwrap();
        let progress = Arc::clone(journal.progress());
        journal.close();
        writer.join();
        progress
    }

    fn run(files: &Files, callbacks_max: usize) -> Running {
        run_opened(files, files.open(), callbacks_max, &[])
    }

    fn run_opened(
        files: &Files,
        opened: Opened,
        callbacks_max: usize,
        owed_to: &[OwedTo],
    ) -> Running {
        run_with(files, opened, progress(files), callbacks_max, owed_to)
    }

    fn run_with(
        files: &Files,
        opened: Opened,
        progress: Arc<Progress>,
        callbacks_max: usize,
        owed_to: &[OwedTo],
    ) -> Running {
        let (path, journal) = (files.state.clone(), files.journal.clone());
        let (clock, owed_to) = (Clock::by_hand(at(0)), owed_to.to_vec());
        let hold = Hold::default();
        let options = Options { path, journal, callbacks_max, clock, owed_to, hold };
        let (tell, batches) = mpsc::channel();
        let observer = Box::new(move |report: &Report| {
            let _ = tell.send(report.callbacks);
        });
        let (settler, settled) = start(options, opened, progress, observer).unwrap();
        Running { settler, settled, batches }
    }

    /// What `work` returns; `None` if it takes longer than any patience.
    fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || drop(tell.send(work())));
        told.recv_timeout(PATIENCE).ok()
    }

    fn reaches(settled: &Settled, seq: i64) -> Option<bool> {
        let settled = settled.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        in_time(move || runtime.block_on(settled.reaches(seq)))
    }

    fn eventually(mut is_so: impl FnMut() -> bool) -> bool {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if is_so() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }

    fn state_of(files: &Files) -> Vec<String> {
        known(&files.open().connection)
    }

    #[test]
    fn settling_goes_on_behind_its_cursor_in_batches_as_large_as_allowed() {
        let files = Files::settled(&["a", "b"]);
        files.append(3, &["c", "d", "e"]);
        let Running { settler, settled, batches } = run(&files, 2);
        assert_eq!(reaches(&settled, 5), Some(true));
        assert_eq!((settled.seq(), settled.owed_since()), (5, None));
        assert_eq!(settled.generation(), 0, "it is the file that was opened at the start");
        assert!(!settled.is_failing());
        settler.stop(Instant::now() + PATIENCE);
        assert_eq!(batches.iter().collect::<Vec<_>>(), [2, 1]);
        assert_eq!(state_of(&files), ["a 1 0", "b 1 0", "c 1 0", "d 1 0", "e 1 0"]);
    }

    #[test]
    fn stopping_settles_what_is_committed_and_then_takes_no_longer() {
        let files = Files::settled(&["a"]);
        files.append(2, &["b"; 50]);
        let Running { settler, settled, .. } = run(&files, 1);
        let began = Instant::now();
        settler.stop(began + PATIENCE);
        assert!(began.elapsed() < PATIENCE, "it waits for nothing once all is settled");
        assert_eq!(settled.seq(), 51);
        assert_eq!(state_of(&files), ["a 1 0", "b 1 49"]);
    }

    #[test]
    fn once_settling_has_ended_nobody_waits_for_it() {
        let files = Files::settled(&["a", "b"]);
        let Running { settler, settled, .. } = run(&files, 1);
        let on_thread = settler.on_thread();
        let ran = on_thread.clone();
        assert_eq!(in_time(move || ran.run(|_| 7)), Some(Some(7)));
        let later = |on_thread: &OnThread| {
            let on_thread = on_thread.clone();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            in_time(move || runtime.block_on(on_thread.run_later(|_| 7)))
        };
        assert_eq!(later(&on_thread), Some(Some(7)));
        drop(settler);
        assert_eq!(reaches(&settled, 3), Some(false));
        assert_eq!(reaches(&settled, 2), Some(true));
        assert_eq!(later(&on_thread), Some(None));
        assert_eq!(in_time(move || on_thread.run(|_| 7)), Some(None));
    }

    #[test]
    fn whoever_follows_is_told_that_more_is_settled_and_that_no_more_will_be() {
        let files = Files::settled(&["a"]);
        files.append(2, &["b"]);
        let Running { settler, mut settled, .. } = run(&files, 1);
        let followed = in_time(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let is_more = runtime.block_on(settled.changes());
            let seq = settled.seq();
            settler.stop(Instant::now() + PATIENCE);
            let is_more_then = runtime.block_on(settled.changes());
            (is_more, seq, is_more_then)
        });
        assert_eq!(followed, Some((true, 2, false)));
    }

    #[test]
    fn a_state_that_cannot_be_written_is_tried_again_and_set_aside_by_nobody() {
        let files = Files::settled(&["a"]);
        files.append(2, &["b"]);
        let other = Connection::open(&files.state).unwrap();
        let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON notification_row
                      BEGIN SELECT raise(ABORT, 'refused'); END";
        other.execute_batch(refuse).unwrap();
        let Running { settler, settled, .. } = run(&files, 1);
        assert!(eventually(|| settled.is_failing()));
        assert!(eventually(|| settled.owed_since() == Some(at(2))), "it says since when");
        other.execute_batch("DROP TRIGGER refuse").unwrap();
        assert_eq!(reaches(&settled, 2), Some(true));
        assert_eq!((settled.is_failing(), settled.owed_since()), (false, None));
        assert!(settled.generation() > 0);
        assert_eq!(settled.beginnings(), 0, "it is the same state");
        settler.stop(Instant::now() + PATIENCE);
        assert_eq!(state_of(&files), ["a 1 0", "b 1 0"]);
        assert_eq!(files.aside(), [""; 0]);
    }

    #[test]
    fn a_state_that_is_found_damaged_is_set_aside_and_settled_again() {
        let files = Files::settled(&["a"]);
        files.damage(&files.state, "notification_row", 0);
        files.append(2, &["b"]);
        let opened = files.open();
        assert_eq!(files.aside(), [""; 0], "opening does not see it");
        let Running { settler, settled, .. } = run_opened(&files, opened, 9, &[]);
        assert!(eventually(|| settled.seq() == 2 && settled.beginnings() == 1));
        assert!(!settler.progress.is_latched(), "the journal is sound");
        settler.stop(Instant::now() + PATIENCE);
        assert_eq!(state_of(&files), ["a 1 0", "b 1 0"]);
        let aside = files.aside();
        assert!(aside.iter().any(|name| name.contains("damaged")), "{aside:?}");
    }

    #[test]
    fn a_journal_that_is_found_damaged_is_written_no_more_and_its_state_stays() {
        let files = Files::settled(&["a"]);
        files.append(2, &["b"; 400]);
        files.damage(&files.journal, "callback", 1);
        let Running { settler, settled, .. } = run(&files, 1000);
        assert!(eventually(|| settler.progress.is_latched()));
        assert!(settled.is_failing());
        settler.stop(Instant::now() + PATIENCE);
        assert_eq!(state_of(&files), ["a 1 0"]);
        assert_eq!(files.aside(), [""; 0]);
    }

    #[test]
    fn a_journal_that_cannot_be_read_for_now_is_read_again_and_not_given_up() {
        let files = Files::settled(&["a"]);
        files.append(2, &["b"]);
        let (opened, progress) = (files.open(), progress(&files));
        let other = files.journal_writer();
        other.execute_batch("ALTER TABLE callback RENAME TO elsewhere").unwrap();
        let Running { settler, settled, .. } = run_with(&files, opened, progress, 9, &[]);
        assert!(eventually(|| settled.is_failing()));
        other.execute_batch("ALTER TABLE elsewhere RENAME TO callback").unwrap();
        assert_eq!(reaches(&settled, 2), Some(true));
        assert!(!settler.progress.is_latched());
        settler.stop(Instant::now() + PATIENCE);
        assert_eq!(state_of(&files), ["a 1 0", "b 1 0"]);
    }

    #[test]
    fn a_state_that_began_anew_while_callbacks_were_pruned_lacks_none_of_them() {
        let files = Files::settled(&["a", "b"]);
        let opened = files.open();
        files.append(3, &["c", "d"]);
        files.prune_bodies(4);
        files.append(5, &["e"]);
        let Running { settler, settled, .. } = run_opened(&files, opened, 9, &[]);
        assert_eq!(reaches(&settled, 5), Some(true));
        assert_eq!(settled.beginnings(), 1);
        let (on_thread, of) = (settler.on_thread(), settled.clone());
        let ran =
            in_time(move || [0, 1].map(|known| on_thread.run_on((&of, known), move |_| known)));
        assert_eq!(ran, Some([Some(None), Some(Some(1))]), "not what the one before was judged by");
        settler.stop(Instant::now() + PATIENCE);
        assert_eq!(state_of(&files), ["a 1 0", "b 1 0", "c 1 0", "d 1 0", "e 1 0"]);
        let aside = files.aside();
        assert!(aside.len() == 1 && aside[0].contains("older-than-pruned"), "{aside:?}");
    }

    #[test]
    fn a_state_that_begins_anew_owes_a_sink_nothing_that_it_has_had_meanwhile() {
        let files = Files::settled(&["a", "b", "c"]);
        let to = OwedTo {
            sink: "app".into(),
            since: 0,
            filter: Filter::default(),
            is_latest_only: false,
            wants_body: false,
        };
        let writer = files.journal_writer();
        journal::remember_sink(&writer, "app").unwrap();
        writer.execute("UPDATE sink SET since = 2", []).unwrap();
        drop(writer);
        std::fs::remove_file(&files.state).unwrap();
        let Running { settler, settled, .. } = run_opened(&files, files.open(), 9, &[to]);
        assert_eq!(reaches(&settled, 3), Some(true));
        settler.stop(Instant::now() + PATIENCE);
        let state = files.open().connection;
        let mut owed = state.prepare("SELECT key FROM change_row ORDER BY key").unwrap();
        let owed = owed.query_map([], |row| row.get(0).map(tables::seq_of)).unwrap();
        assert_eq!(owed.map(Result::unwrap).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn stopping_does_not_wait_for_a_state_that_cannot_be_written() {
        let files = Files::settled(&["a"]);
        files.append(2, &["b"]);
        let other = Connection::open(&files.state).unwrap();
        let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON notification_row
                      BEGIN SELECT raise(ABORT, 'refused'); END";
        other.execute_batch(refuse).unwrap();
        let Running { settler, settled, .. } = run(&files, 1);
        assert!(eventually(|| settled.is_failing()));
        let began = Instant::now();
        settler.stop(began + PATIENCE);
        assert!(began.elapsed() < PATIENCE);
        assert_eq!(settled.seq(), 1);
    }
}
