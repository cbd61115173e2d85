//! The thread that writes the state, from the inside: read a batch, settle it, commit, go on. Between two
//! batches it gives way as [`Pace`] says, and has the state's checkpointer give way with it; never while it
//! fails or stops.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::open::{Opened, copy_base, open_state, set_aside};
use super::pace::{Pace, Phase};
use super::settler::{Observer, Options, Report, Settled, Shared};
use crate::callback::Callback;
use crate::change::OwedTo;
use crate::journal::reader::Reader;
use crate::journal::{self, AbortOnPanic, Progress};
use crate::provider::Dialect;
use crate::sqlite::{Fault, write_transaction};
use crate::state::tables::set_cursor;

/// Bodies in one transaction, in bytes: bounds the memory of a batch.
pub(super) const BATCH_BYTES_MAX: usize = 8 << 20;

/// How long to wait for news before looking anyway.
const LOOK: Duration = Duration::from_millis(250);

/// How often a resting thread looks whether the burst is over.
const TICK: Duration = Duration::from_millis(10);

/// Why a state that cannot be read is set aside.
const DAMAGED: &str = "damaged";

/// How long to wait after an error of the state file.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Worker {
    /// `None` after an error, until the file is opened again.
    pub opened: Option<Opened>,
    pub journal_id: String,
    pub reader: Reader,
    pub options: Options,
    pub progress: Arc<Progress>,
    pub shared: Arc<Shared>,
    pub settled: Settled,
    pub tell: watch::Sender<i64>,
    pub observer: Observer,
    pub pace: Pace,
}

impl Worker {
    pub fn run(mut self) {
        let _panic = AbortOnPanic;
        let _end = RefuseWork(Arc::clone(&self.shared));
        while !self.shared.abandon.load(Ordering::Acquire) {
            self.run_work();
            let seq = self.opened.as_ref().map_or(0, |opened| opened.seq);
            let committed = self.progress.wait_beyond(seq, LOOK);
            self.see(committed, Phase::Working);
            let stopping = self.shared.stop.load(Ordering::Acquire);
            if stopping {
                self.options.hold.set(false);
            }
            if committed > seq {
                match self.step(committed) {
                    Ok(took) if !stopping => self.rest(took),
                    Ok(_) => {}
                    Err(_) if stopping => break,
                    Err(error) => self.recover(&error),
                }
            } else if stopping {
                break;
            } else {
                self.options.hold.set(false);
            }
        }
    }

    /// Tells the pace how far the journal is.
    fn see(&mut self, committed: i64, phase: Phase) {
        let is_writing_back = self.options.hold.is_busy();
        self.pace.committed(Instant::now(), committed, phase, is_writing_back);
    }

    fn run_work(&mut self) {
        // While the file is closed after an error, work waits for it as settling does.
        let Some(opened) = &mut self.opened else { return };
        let mut waiting = self.shared.work.lock().unwrap_or_else(PoisonError::into_inner);
        let work = waiting.as_mut().map(std::mem::take).unwrap_or_default();
        drop(waiting);
        for work in work {
            work(&mut opened.connection);
        }
    }

    /// Gives way to a burst, for as long as it lasts, and has what was settled written back behind it.
    fn rest(&mut self, took: Duration) {
        let began = Instant::now();
        self.see(self.progress.committed(), Phase::Working);
        loop {
            let waited = self.settled.owed_since().map(|since| {
                let now = self.options.clock.now();
                let micros = now.unix_micros().saturating_sub(since.unix_micros());
                Duration::from_micros(u64::try_from(micros).unwrap_or(0))
            });
            let rest = self.pace.rest(Instant::now(), took, waited);
            // Beyond the end of this rest: the next batch is soon done, and rested from again.
            self.options.hold.set(!rest.is_zero());
            if began.elapsed() >= rest || self.shared.stop.load(Ordering::Acquire) {
                return;
            }
            std::thread::sleep(TICK);
            self.run_work();
            self.see(self.progress.committed(), Phase::Resting);
        }
    }

    /// Settles one batch, from what is committed. How long it took.
    fn step(&mut self, committed: i64) -> Result<Duration, StepError> {
        let started = Instant::now();
        let seq = self.ready_state()?;
        let callbacks_max = self.pace.batch_max(self.options.callbacks_max);
        let callbacks = self
            .reader
            .after(seq, committed, callbacks_max, BATCH_BYTES_MAX)
            .map_err(StepError::Journal)?;
        let dialects = self.reader.dialects().map_err(StepError::Journal)?;
        let oldest = callbacks.first().map(|callback| callback.received_at.unix_micros());
        self.settled.oldest_owed.store(oldest.unwrap_or(i64::MAX), Ordering::Relaxed);
        // After the callbacks were read: whoever prunes may be doing so.
        if self.reader.pruned_through().map_err(StepError::Journal)? > seq {
            return Err(StepError::Overtaken);
        }
        // Positions without a callback were pruned, or rolled back: there is nothing to settle.
        let reached = callbacks.last().map_or(committed, |callback| callback.seq);
        let count = callbacks.len();
        let tally = self.commit(&callbacks, &dialects, reached).map_err(StepError::State)?;
        if reached == committed {
            self.settled.oldest_owed.store(i64::MAX, Ordering::Relaxed);
        }
        if self.settled.is_failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the state file can be written again");
        }
        let took = started.elapsed();
        self.pace.settled(count, took);
        (self.observer)(&Report { tally, callbacks: count, took });
        self.tell.send_replace(reached);
        Ok(took)
    }

    /// Opens the state again after an error, and starts a new one from what pruned callbacks came
    /// to. Returns how far it has settled.
    fn ready_state(&mut self) -> Result<i64, StepError> {
        if self.opened.is_none() {
            let opened = open_state(&self.options.path, &self.options.clock).map_err(|error| {
                StepError::State(rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
            })?;
            // Who waits for what the old file had settled must wait for the new one.
            self.settled.generation.fetch_add(1, Ordering::Release);
            self.tell.send_replace(opened.seq);
            self.opened = Some(opened);
        }
        let opened = self.opened.as_mut().expect("it was opened just now");
        if opened.journal_id.is_none() {
            self.settled.beginnings.fetch_add(1, Ordering::Release);
            // Before the state knows its journal: an error leaves all of this to be done again.
            owe_what_came_since(&mut self.options.owed_to, &self.reader)?;
            opened.seq = copy_base(&mut opened.connection, &self.options.journal)
                .map_err(StepError::Either)?;
            opened.journal_id = Some(self.journal_id.clone());
        }
        Ok(opened.seq)
    }

    fn commit(
        &mut self,
        callbacks: &[Callback],
        dialects: &HashMap<Arc<str>, Dialect>,
        reached: i64,
    ) -> rusqlite::Result<super::Tally> {
        let opened = self.opened.as_mut().expect("the state is open while settling");
        let transaction = write_transaction(&mut opened.connection)?;
        let tally = super::settle(&transaction, callbacks, dialects, &self.options.owed_to)?;
        set_cursor(&transaction, &self.journal_id, reached)?;
        transaction.commit()?;
        // Pair assertion: a cursor that went back would count callbacks twice.
        assert!(reached >= opened.seq, "the cursor went from {} to {reached}", opened.seq);
        opened.seq = reached;
        Ok(tally)
    }

    /// After an error: a damaged state is set aside, a journal that cannot be read is not written
    /// any more either, anything else is tried again from the cursor.
    fn recover(&mut self, error: &StepError) {
        let seq = self.opened.take().map_or(0, |opened| opened.seq);
        // What fails for lack of space may have room once the log is moved.
        self.options.hold.set(false);
        if !self.settled.is_failing.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "settling failed; it is tried again");
        }
        match error {
            StepError::State(error) if Fault::of(error) == Fault::Damaged => {
                self.set_state_aside(DAMAGED);
            }
            StepError::Overtaken => self.set_state_aside("older-than-pruned"),
            StepError::Journal(error) if matches!(Fault::of(error), Fault::Damaged | Fault::Io) => {
                self.progress.fail();
            }
            _ => {}
        }
        if let Ok(owed) = self.reader.after(seq, i64::MAX, 1, 1) {
            let oldest = owed.first().map_or(i64::MAX, |owed| owed.received_at.unix_micros());
            self.settled.oldest_owed.store(oldest, Ordering::Relaxed);
        }
        std::thread::sleep(PAUSE);
    }

    fn set_state_aside(&self, why: &'static str) {
        match set_aside(&self.options.path, why, &self.options.clock) {
            Ok(aside) if why == DAMAGED => tracing::warn!(
                set_aside = %aside.display(),
                "the state file is damaged; it is settled again from the journal"
            ),
            Ok(aside) => tracing::warn!(
                set_aside = %aside.display(), why,
                "the state file does not fit its journal; it is settled again from the journal"
            ),
            Err(error) => tracing::error!(%error, why, "the state file cannot be set aside"),
        }
    }
}

/// A state that begins anew owes each sink what came after that which it is known to have had: the journal
/// has noted more of that than stood there at the start.
fn owe_what_came_since(owed_to: &mut [OwedTo], journal: &Reader) -> Result<(), StepError> {
    for to in owed_to {
        let since = journal::sink_since(journal.connection(), &to.sink);
        to.since = since.map_err(StepError::Journal)?.map_or(to.since, |had| had.max(to.since));
    }
    Ok(())
}

/// Why a batch was not settled, by the file that is to blame.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("failed to read the journal: {0}")]
    Journal(rusqlite::Error),
    #[error("failed to write the state: {0}")]
    State(rusqlite::Error),
    /// What comes next was pruned before it was settled: a pruning went on while the state began anew.
    /// Only the journal's own tables know what that came to.
    #[error("callbacks were pruned that this state has not settled")]
    Overtaken,
    /// Copying from one to the other: blaming the wrong one could throw a good file away.
    #[error("failed to copy from the journal into the state: {0}")]
    Either(rusqlite::Error),
}

/// Once the thread ends, however it does, nobody may wait for it any more.
struct RefuseWork(Arc<Shared>);

impl Drop for RefuseWork {
    fn drop(&mut self) {
        *self.0.work.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
