//! Who is connected to the admin listener, and who makes room.
//!
//! Probes, scrapers and the apps that read share a bounded number of connections. When all are taken and
//! somebody comes, whoever has been waiting longest makes room: between two requests, or with a head that
//! has not come whole. Never one that is being answered. The readers of [`crate::ask`] are answered on
//! fewer connections than there are, and fewer still may wait at `/settled`, so that there is always one
//! that can make room: an operator is let in whatever they hold.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::admission::{GRACE, admit};
use crate::ask::Held;

/// What a connection is doing.
#[derive(Debug)]
enum Phase {
    /// Nothing, since then.
    Waiting(Instant),
    /// Its request is being answered.
    Serving,
    /// The answer is whole, and on its way out.
    Answering,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Its place among those who ask, until the answer is out.
    #[expect(dead_code, reason = "it is held, and dropped")]
    held: Option<Held>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Guest {
    state: Mutex<State>,
    leave: Notify,
}

impl Guest {
    fn new() -> Self {
        let state = State { phase: Phase::Waiting(Instant::now()), held: None };
        Self { state: Mutex::new(state), leave: Notify::new() }
    }

    /// A request has come.
    pub(super) fn serving(&self) {
        *self.lock() = State { phase: Phase::Serving, held: None };
    }

    /// Its answer begins to go out. One that is not whole yet goes on until the connection ends.
    pub(super) fn answering(&self, is_whole: bool, held: Option<Held>) {
        let phase = if is_whole { Phase::Answering } else { Phase::Serving };
        *self.lock() = State { phase, held };
    }

    /// Everything there was to send is out.
    pub(super) fn sent(&self) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Answering) {
            *state = State { phase: Phase::Waiting(Instant::now()), held: None };
        }
    }

    /// Yields when it has to make room, and has not been sent another request in that moment.
    pub(super) async fn leaves(&self) {
        loop {
            self.leave.notified().await;
            if self.waiting_since().is_some() {
                return;
            }
        }
    }

    fn waiting_since(&self) -> Option<Instant> {
        match self.lock().phase {
            Phase::Waiting(since) => Some(since),
            Phase::Serving | Phase::Answering => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Places {
    places_max: usize,
    open: Mutex<Vec<Arc<Guest>>>,
    left: Notify,
}

/// A place for one connection; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    /// Who has it.
    pub(super) guest: Arc<Guest>,
    places: Arc<Places>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().retain(|guest| !Arc::ptr_eq(guest, &self.guest));
        self.places.left.notify_waiters();
    }
}

impl Places {
    /// So many.
    pub(super) fn new(places_max: usize) -> Arc<Self> {
        Arc::new(Self { places_max, open: Mutex::default(), left: Notify::new() })
    }

    /// A place for a connection that is there. If all are taken, asks one to make room, and waits for it.
    pub(super) async fn admit(self: &Arc<Self>) -> Place {
        admit(&self.left, || self.try_admit()).await
    }

    fn try_admit(self: &Arc<Self>) -> Option<Place> {
        let mut open = self.lock();
        if open.len() >= self.places_max {
            let waiting = open.iter().filter_map(|guest| Some((guest.waiting_since()?, guest)));
            let longest = waiting.min_by_key(|(since, _)| *since);
            if let Some((_, guest)) = longest.filter(|(since, _)| since.elapsed() >= GRACE) {
                guest.leave.notify_one();
            }
            return None;
        }
        let guest = Arc::new(Guest::new());
        open.push(Arc::clone(&guest));
        Some(Place { guest, places: Arc::clone(self) })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Guest>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use crate::admission::LOOK;

    use super::*;

    /// The connection of that place, which ends when it has to make room.
    fn live(place: Place) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            let guest = Arc::clone(&place.guest);
            guest.leaves().await;
        })
    }

    #[tokio::test]
    async fn whoever_has_waited_longest_makes_room_and_never_one_that_is_being_answered() {
        let places = Places::new(3);
        let [serving, older, newer] =
            [places.admit().await, places.admit().await, places.admit().await];
        let guests = [&serving, &older, &newer].map(|place| Arc::clone(&place.guest));
        guests[0].serving();
        guests[1].serving();
        guests[1].answering(true, None);
        let [serving, older, newer] = [live(serving), live(older), live(newer)];
        let first = places.admit().await;
        newer.await.unwrap();
        assert!(!serving.is_finished() && !older.is_finished());
        // Once its answer is out it waits like any other; a stream's never is.
        guests[0].answering(false, None);
        guests[0].sent();
        guests[1].sent();
        first.guest.serving();
        let _second = places.admit().await;
        older.await.unwrap();
        assert!(!serving.is_finished());
        serving.abort();
    }

    #[tokio::test]
    async fn one_whose_request_came_in_that_moment_stays() {
        let places = Places::new(1);
        let place = places.admit().await;
        let guest = Arc::clone(&place.guest);
        let connection = live(place);
        guest.leave.notify_one();
        guest.serving();
        let admitted = tokio::time::timeout(2 * LOOK, places.admit()).await;
        assert!(admitted.is_err() && !connection.is_finished());
        guest.answering(true, None);
        guest.sent();
        let _place = places.admit().await;
        connection.await.unwrap();
    }
}
