//! The indexes that lists are read through: made when somebody may read, dropped at a start at which nobody
//! may. A reload that removes the last reader drops none.
//!
//! They are made on the settling thread, which alone writes the state, one at a time between two
//! batches; callbacks are received meanwhile, and lists answered 503. A look-up by id needs none of them, but
//! is answered 503 too where something was acknowledged meanwhile and is settled behind the index only.
//! A state that is begun anew, because the old one was damaged, gets them anew.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::fault::Fault;
use crate::settle::{OnThread, Settled};
use crate::state::asked::{self, Index};

/// How long to leave it at that after they could not be made: the disk may be full.
const PAUSE: Duration = Duration::from_secs(10);

/// Of no state file.
const NONE: u64 = u64::MAX;

/// Whether the indexes are there.
pub(super) struct Indexes {
    on_thread: OnThread,
    settled: Settled,
    /// The generation of the state file that has them.
    made_for: AtomicU64,
    is_making: AtomicBool,
    failed_at: Mutex<Option<Instant>>,
}

impl Indexes {
    /// Nothing is known of them yet.
    pub(super) fn new(on_thread: OnThread, settled: Settled) -> Self {
        let (made_for, is_making) = (AtomicU64::new(NONE), AtomicBool::new(false));
        Self { on_thread, settled, made_for, is_making, failed_at: Mutex::default() }
    }

    /// Says no while they are not there, and sees to it that they will be.
    pub(super) fn are_there(self: &Arc<Self>) -> Result<(), Fault> {
        if self.made_for.load(Ordering::Acquire) == self.settled.generation() {
            return Ok(());
        }
        let failed_at = *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        if failed_at.is_none_or(|failed_at| failed_at.elapsed() >= PAUSE) {
            self.make_later();
        }
        Err(Fault::NotIndexed)
    }

    /// Makes those that are missing, behind the caller. In a runtime.
    pub(super) fn make_later(self: &Arc<Self>) {
        if self.is_making.swap(true, Ordering::AcqRel) {
            return;
        }
        let indexes = Arc::clone(self);
        tokio::spawn(async move {
            let generation = indexes.settled.generation();
            let failed_at = if indexes.make().await {
                indexes.made_for.store(generation, Ordering::Release);
                None
            } else {
                Some(Instant::now())
            };
            *indexes.failed_at.lock().unwrap_or_else(PoisonError::into_inner) = failed_at;
            indexes.is_making.store(false, Ordering::Release);
        });
    }

    async fn make(&self) -> bool {
        for index in Index::ALL {
            let began = Instant::now();
            let made = self.on_thread.run_later(move |state| asked::make_index(state, index)).await;
            match made {
                Some(Ok(true)) => tracing::info!(
                    index = index.name(),
                    seconds = began.elapsed().as_secs_f64(),
                    "made an index for readers"
                ),
                Some(Ok(false)) => {}
                Some(Err(error)) => {
                    tracing::error!(%error, index = index.name(), "an index for readers failed");
                    return false;
                }
                // Stopping.
                None => return false,
            }
        }
        true
    }

    /// Drops them, behind the caller, so that settling does not pay for what nobody reads. In a runtime.
    pub(super) fn drop_later(&self) {
        let on_thread = self.on_thread.clone();
        tokio::spawn(async move {
            match on_thread.run_later(|state| asked::drop_indexes(state)).await {
                Some(Ok(true)) => tracing::info!("nobody reads: dropped the indexes for readers"),
                Some(Err(error)) => {
                    tracing::warn!(%error, "the indexes for readers could not be dropped");
                }
                Some(Ok(false)) | None => {}
            }
        });
    }
}
