//! What waits for the writer: bounded in callbacks and in bytes.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::gather::Gather;
use super::{Acknowledgement, Entry, Refused};

/// A callback and whom to tell.
#[derive(Debug)]
pub(super) struct Waiting {
    pub entry: Entry,
    pub done: oneshot::Sender<Acknowledgement>,
    pub since: Instant,
}

pub(super) type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// What the writer takes: callbacks for one commit, and work to do between commits.
#[derive(Default)]
pub(super) struct Taken {
    pub callbacks: Vec<Waiting>,
    pub work: Vec<Work>,
}

#[derive(Default)]
struct Inner {
    callbacks: Vec<Waiting>,
    bytes: usize,
    work: Vec<Work>,
    closed: Option<Refused>,
    /// The writer sleeps until so many callbacks wait; 0 while it is awake.
    wake_at: usize,
}

pub(super) struct Queue {
    inner: Mutex<Inner>,
    filled: Condvar,
    /// Waiting or being committed.
    owed: AtomicUsize,
    callbacks_max: usize,
    bytes_max: usize,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("owed", &self.owed).finish_non_exhaustive()
    }
}

impl Queue {
    pub fn new(callbacks_max: usize, bytes_max: usize) -> Self {
        Self {
            inner: Mutex::new(Inner::default()),
            filled: Condvar::new(),
            owed: AtomicUsize::new(0),
            callbacks_max,
            bytes_max,
        }
    }

    pub fn push(&self, waiting: Waiting) -> Result<(), Refused> {
        let mut inner = self.lock();
        if let Some(why) = inner.closed {
            return Err(why);
        }
        let bytes = inner.bytes.saturating_add(waiting.entry.body.len());
        // A single callback larger than the bound of the queue must still be able to pass.
        let too_many_bytes = bytes > self.bytes_max && !inner.callbacks.is_empty();
        if inner.callbacks.len() >= self.callbacks_max || too_many_bytes {
            return Err(Refused::QueueFull);
        }
        inner.bytes = bytes;
        inner.callbacks.push(waiting);
        self.owed.fetch_add(1, Ordering::Relaxed);
        self.wake(inner);
        Ok(())
    }

    pub fn push_work(&self, work: Work) -> Result<(), Refused> {
        let mut inner = self.lock();
        if let Some(why) = inner.closed {
            return Err(why);
        }
        inner.work.push(work);
        self.wake(inner);
        Ok(())
    }

    /// Waits for something to do, at most `time`, and before that for what `gather` says. `None` once
    /// closed and empty.
    pub fn take(
        &self,
        callbacks_max: usize,
        gather: Option<Gather>,
        time: Duration,
    ) -> Option<Taken> {
        let mut inner = self.lock();
        if let Some(Gather { callbacks, time }) = gather {
            inner = self.sleep(inner, callbacks.min(callbacks_max), time);
        }
        if inner.is_empty() {
            inner = self.sleep(inner, 1, time);
        }
        if inner.is_empty() && inner.closed.is_some() {
            return None;
        }
        let work = std::mem::take(&mut inner.work);
        let callbacks = if inner.callbacks.len() <= callbacks_max {
            inner.bytes = 0;
            let room = Vec::with_capacity(inner.callbacks.len());
            std::mem::replace(&mut inner.callbacks, room)
        } else {
            let rest = inner.callbacks.split_off(callbacks_max);
            let taken = std::mem::replace(&mut inner.callbacks, rest);
            inner.bytes -= taken.iter().map(|waiting| waiting.entry.body.len()).sum::<usize>();
            taken
        };
        Some(Taken { callbacks, work })
    }

    /// Waits until so many callbacks wait, or there is other work, or the time is over.
    fn sleep<'q>(
        &'q self,
        mut inner: MutexGuard<'q, Inner>,
        enough: usize,
        time: Duration,
    ) -> MutexGuard<'q, Inner> {
        inner.wake_at = enough;
        let is_needless = |inner: &mut Inner| {
            inner.callbacks.len() < enough && inner.work.is_empty() && inner.closed.is_none()
        };
        let slept = self.filled.wait_timeout_while(inner, time, is_needless);
        let mut inner = slept.unwrap_or_else(PoisonError::into_inner).0;
        inner.wake_at = 0;
        inner
    }

    /// The writer has answered for that many.
    pub fn settle_owed(&self, callbacks: usize) {
        self.owed.fetch_sub(callbacks, Ordering::Relaxed);
    }

    pub fn waiting(&self) -> usize {
        self.owed.load(Ordering::Relaxed)
    }

    pub fn close(&self) {
        self.close_because(Refused::Closed);
    }

    /// Accepts nothing more, for the first reason given.
    pub fn close_because(&self, why: Refused) {
        let mut inner = self.lock();
        inner.closed.get_or_insert(why);
        self.filled.notify_all();
    }

    fn wake(&self, inner: MutexGuard<'_, Inner>) {
        let has_enough = inner.callbacks.len() >= inner.wake_at || !inner.work.is_empty();
        let is_asleep = inner.wake_at > 0;
        drop(inner);
        if is_asleep && has_enough {
            self.filled.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_empty(&self) -> bool {
        self.callbacks.is_empty() && self.work.is_empty()
    }
}
