//! How far the journal has got, for those who follow it.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// The last committed position, and whether the journal still accepts.
#[derive(Debug)]
pub struct Progress {
    committed: AtomicI64,
    latched: watch::Sender<bool>,
    low_on_space: AtomicBool,
    closed: Mutex<bool>,
    moved: Condvar,
}

impl Progress {
    pub(super) fn starting_at(seq: i64) -> Self {
        Self {
            committed: AtomicI64::new(seq),
            latched: watch::Sender::new(false),
            low_on_space: AtomicBool::new(false),
            closed: Mutex::new(false),
            moved: Condvar::new(),
        }
    }

    /// The position of the last committed callback; everything acknowledged is at or before it.
    pub fn committed(&self) -> i64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Whether an I/O error stopped the journal for good.
    pub fn is_latched(&self) -> bool {
        *self.latched.borrow()
    }

    /// Yields when [`Progress::is_latched`].
    pub async fn latched(&self) {
        // The sender lives as long as `self`, so this cannot end early.
        let _ = self.latched.subscribe().wait_for(|latched| *latched).await;
    }

    /// Whether callbacks are refused for lack of space.
    pub fn is_low_on_space(&self) -> bool {
        self.low_on_space.load(Ordering::Acquire)
    }

    /// Whether the writer has ended; nothing will be committed any more.
    pub fn is_closed(&self) -> bool {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, at most `time`, until something after `seq` is committed or [`Progress::nudge`] is
    /// called; returns the last committed position.
    pub fn wait_beyond(&self, seq: i64, time: Duration) -> i64 {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if self.committed() <= seq {
            drop(self.moved.wait_timeout(closed, time));
        }
        self.committed()
    }

    /// Wakes whoever waits, without news.
    pub fn nudge(&self) {
        let _closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        self.moved.notify_all();
    }

    pub(super) fn advance(&self, seq: i64) {
        // Pair assertion: a position is never used twice, or a follower would skip a callback.
        let before = self.committed.swap(seq, Ordering::AcqRel);
        assert!(seq > before, "the journal went from {before} to {seq}");
        self.nudge();
    }

    /// Latches: whoever finds the journal damaged or its disk failing says so here, and nothing more
    /// is accepted until a new start.
    pub fn fail(&self) {
        self.latched.send_replace(true);
    }

    pub(super) fn set_low_on_space(&self, low: bool) -> bool {
        self.low_on_space.swap(low, Ordering::AcqRel) != low
    }

    pub(super) fn close(&self) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.moved.notify_all();
    }
}
