//! A gap between questions, once the write-ahead log has become long.
//!
//! Each question is short, but where they overlap without an end somebody always reads, and as long as
//! somebody reads the log cannot be written again from its start: it would grow for as long as that goes
//! on. So once it is longer than [`WAL_BYTES_MAX`] what is asked next waits, behind the questions that are
//! being read, until the log has been emptied. That takes as long as the longest of these
//! ([`super::pool::QUERY_MS_MAX`]) and a checkpoint, to which [`EMPTY_MS_MAX`] is given: together less than
//! a question waits for a place ([`super::pool::PLACE_MS_MAX`]).
//!
//! Others may read the file, and for as long as they like: a person at a prompt, or this process itself, which
//! counts what is overdue. And a disk may be slow. A gap that came to nothing is not tried again for
//! [`PAUSE`], so that all that costs those who ask little.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::pool::{PLACE_MS_MAX, QUERY_MS_MAX};
use crate::sqlite::checkpoint::{Emptier, wal_bytes};

/// How long the log may become before a gap is left: twice what a checkpoint leaves uncut or settling keeps
/// it to in a burst, so that only who reads without an end comes to it.
pub(super) const WAL_BYTES_MAX: u64 = 128 << 20;

/// How long the log may take to be emptied.
const EMPTY_MS_MAX: Duration = Duration::from_millis(700);

// Who comes when a gap is begun is answered behind it, not refused because of it.
const _: () = assert!(
    QUERY_MS_MAX.as_millis() + EMPTY_MS_MAX.as_millis() < PLACE_MS_MAX.as_millis(),
    "a gap is over before a question gives up"
);

/// After a gap in which it could not be.
const PAUSE: Duration = Duration::from_secs(10);

/// Leaves gaps.
pub(super) struct Gap {
    /// The state file.
    path: PathBuf,
    emptier: Emptier,
    wal_bytes_max: u64,
    is_under_way: AtomicBool,
    in_vain_at: Mutex<Option<Instant>>,
}

impl Gap {
    /// For those who read the state at `path`, whose log `emptier` empties.
    pub(super) fn new(path: PathBuf, emptier: Emptier, wal_bytes_max: u64) -> Self {
        let (is_under_way, in_vain_at) = (AtomicBool::new(false), Mutex::default());
        Self { path, emptier, wal_bytes_max, is_under_way, in_vain_at }
    }

    /// Leaves a gap if it is time for one: takes all `places`, of which there are `places_max`, and gives
    /// them back once the log is empty. Behind the caller, in a runtime.
    pub(super) fn leave_if_long(self: &Arc<Self>, places: &Arc<Semaphore>, places_max: usize) {
        if !self.is_long() || self.was_in_vain() || self.is_under_way.swap(true, Ordering::AcqRel) {
            return;
        }
        let (gap, places) = (Arc::clone(self), Arc::clone(places));
        tokio::spawn(async move {
            let places_max = u32::try_from(places_max).unwrap_or(u32::MAX);
            // Who asks after this waits behind it. Closed: nothing is read any more.
            if let Ok(all) = places.acquire_many_owned(places_max).await {
                gap.empty().await;
                drop(all);
            }
            gap.is_under_way.store(false, Ordering::Release);
        });
    }

    async fn empty(&self) {
        let (tell, told) = oneshot::channel();
        self.emptier.empty(move |is_empty| {
            let _ = tell.send(is_empty);
        });
        let emptied = timeout(EMPTY_MS_MAX, told).await;
        let in_vain = !matches!(emptied, Ok(Ok(true))) || self.is_long();
        let wal_bytes = wal_bytes(&self.path);
        match emptied {
            _ if !in_vain => {}
            Ok(_) => tracing::warn!(
                wal_bytes,
                "the state's write-ahead log is long and cannot be cut: somebody else reads the file"
            ),
            Err(_) => tracing::warn!(
                wal_bytes,
                "the state's write-ahead log is long and could not be cut in time: the disk is slow, or \
                 somebody else reads the file"
            ),
        }
        *self.in_vain() = in_vain.then(Instant::now);
    }

    fn is_long(&self) -> bool {
        wal_bytes(&self.path) > self.wal_bytes_max
    }

    fn was_in_vain(&self) -> bool {
        self.in_vain().is_some_and(|at| at.elapsed() < PAUSE)
    }

    fn in_vain(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.in_vain_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
