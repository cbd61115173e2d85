//! Who is connected, and for how long they may be silent.
//!
//! hyper has one time limit for an idle connection and for a slow head; the senders need two:
//! GOV.UK Notify and NotifyNL keep a connection open between callbacks, and a caller that dribbles
//! its head must go soon. So each connection carries a [`Watch`] that knows what it is doing and
//! since when, and a sweep four times a second ends what is overdue.
//!
//! When every place is taken and somebody waits for one, the longest silent callers make room:
//! first those that never authenticated, several at once because in a flood of them the next is
//! near, then senders between two callbacks, one at a time. Never one that is
//! being served, and nobody within `GRACE`: a sender whose request is still on its way must not
//! be taken for a silent stranger. Whoever has to leave is never answered 4xx, because that would
//! make a sender drop its callback for good.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::admission::{GRACE, admit};
use crate::config::settings::Limits;

/// One stranger of so many leaves at once when room is made.
const STRANGERS_SHARE: usize = 32;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Between requests.
    Idle = 0,
    /// A head has begun, or the connection is new.
    Head = 1,
    /// A request is being served; it has time limits of its own.
    Serving = 2,
    /// The answer is on its way out.
    Answering = 3,
}

impl Phase {
    fn of(number: u8) -> Self {
        match number {
            0 => Self::Idle,
            1 => Self::Head,
            2 => Self::Serving,
            _ => Self::Answering,
        }
    }
}

/// One connection, as the sweep sees it.
#[derive(Debug)]
pub struct Watch {
    epoch: Instant,
    phase: AtomicU8,
    /// Since the epoch, in nanoseconds: fine enough to tell who became silent first.
    since_ns: AtomicU64,
    is_known: AtomicBool,
    is_evicted: AtomicBool,
    overdue: Notify,
}

impl Watch {
    fn new(epoch: Instant) -> Self {
        let watch = Self {
            epoch,
            phase: AtomicU8::new(0),
            since_ns: AtomicU64::new(0),
            is_known: AtomicBool::new(false),
            is_evicted: AtomicBool::new(false),
            overdue: Notify::new(),
        };
        watch.enter(Phase::Head);
        watch
    }

    /// It does something else from now on.
    pub fn enter(&self, phase: Phase) {
        self.since_ns.store(self.now_ns(), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        Phase::of(self.phase.load(Ordering::Relaxed))
    }

    /// It has proved who it is.
    pub fn authenticated(&self) {
        self.is_known.store(true, Ordering::Relaxed);
    }

    /// Yields when its time is up.
    pub async fn overdue(&self) {
        self.overdue.notified().await;
    }

    /// Whether it has to leave to make room, and not because its time is up.
    pub fn is_evicted(&self) -> bool {
        self.is_evicted.load(Ordering::Relaxed)
    }

    /// Whether it may stay after all: it was asked to make room, but its request has arrived since.
    pub fn is_spared(&self) -> bool {
        let is_spared = self.is_evicted() && self.dispensable().is_none();
        if is_spared {
            self.is_evicted.store(false, Ordering::Relaxed);
        }
        is_spared
    }

    fn evict(&self) {
        self.is_evicted.store(true, Ordering::Relaxed);
        self.overdue.notify_one();
    }

    /// Whom to ask first to make room; nothing if it must not be asked.
    fn dispensable(&self) -> Option<u8> {
        match (self.is_known.load(Ordering::Relaxed), self.phase()) {
            (false, Phase::Idle | Phase::Head) => Some(0),
            // Refused already, or owing a signature over a body that does not come.
            (false, Phase::Serving) => Some(1),
            (true, Phase::Idle) => Some(2),
            (true, _) | (false, Phase::Answering) => None,
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn silent_for(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(now_ns.saturating_sub(self.since_ns.load(Ordering::Relaxed)))
    }

    /// Whether its time is still up: a request may have begun since the sweep looked.
    pub fn is_overdue(&self, limits: &Limits) -> bool {
        self.silent_for(self.now_ns()) > self.time_allowed(limits)
    }

    fn time_allowed(&self, limits: &Limits) -> Duration {
        match self.phase() {
            Phase::Idle if self.is_known.load(Ordering::Relaxed) => limits.idle_ms_max,
            Phase::Idle | Phase::Head => limits.header_ms_max,
            // The body and the commit have limits of their own; this one only backs them up.
            Phase::Serving => limits.body_ms_max * 2 + limits.ack_wait_ms_max,
            Phase::Answering => limits.body_ms_max,
        }
    }
}

/// Every open connection of a listener.
#[derive(Debug)]
pub struct Connections {
    epoch: Instant,
    limits: Limits,
    open: Mutex<Open>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    watches: HashMap<u64, Arc<Watch>>,
}

impl Open {
    /// Asks the most dispensable to leave, unless somebody is leaving already: one sender, or of
    /// strangers `strangers_max`. In a flood of them the next will need a place at once, and
    /// looking for one takes as long as looking for many.
    fn make_room(&self, strangers_max: usize) {
        let Some(now_ns) = self.watches.values().next().map(|watch| watch.now_ns()) else { return };
        if self.watches.values().any(|watch| watch.is_evicted()) {
            return;
        }
        let silent = self.watches.values().filter(|watch| watch.silent_for(now_ns) >= GRACE);
        let mut leaving: Vec<_> = silent
            .filter_map(|watch| {
                Some(((watch.dispensable()?, watch.since_ns.load(Ordering::Relaxed)), watch))
            })
            .collect();
        leaving.sort_unstable_by_key(|(order, _)| *order);
        let strangers = leaving.iter().take_while(|((rank, _), _)| *rank == 0).count();
        for (_, watch) in leaving.iter().take(strangers.min(strangers_max).max(1)) {
            watch.evict();
        }
    }
}

/// A place among the connections; given back when dropped.
#[derive(Debug)]
pub struct Place {
    number: u64,
    /// What the connection is doing.
    pub watch: Arc<Watch>,
    connections: Arc<Connections>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().watches.remove(&self.number);
        self.connections.left.notify_waiters();
    }
}

impl Connections {
    /// None yet.
    pub fn new(limits: Limits) -> Arc<Self> {
        let (epoch, open) = (Instant::now(), Mutex::default());
        Arc::new(Self { epoch, limits, open, left: Notify::new() })
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.lock().watches.len()
    }

    /// A place for a connection that is already there. If all are taken, asks somebody to leave,
    /// and waits until somebody has.
    pub async fn admit(self: &Arc<Self>) -> Place {
        admit(&self.left, || self.try_admit()).await
    }

    fn try_admit(self: &Arc<Self>) -> Option<Place> {
        let mut open = self.lock();
        if open.watches.len() >= self.limits.connections_max {
            open.make_room(self.limits.connections_max / STRANGERS_SHARE);
            return None;
        }
        let number = open.next;
        open.next += 1;
        let watch = Arc::new(Watch::new(self.epoch));
        open.watches.insert(number, Arc::clone(&watch));
        Some(Place { number, watch, connections: Arc::clone(self) })
    }

    /// Ends what is overdue; to be called a few times a second.
    pub fn sweep(&self) {
        let open = self.lock();
        let Some(now_ns) = open.watches.values().next().map(|watch| watch.now_ns()) else { return };
        for watch in open.watches.values() {
            if watch.silent_for(now_ns) > watch.time_allowed(&self.limits) {
                watch.overdue.notify_one();
            }
        }
    }

    /// Yields when none is open.
    pub async fn emptied(&self) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            left.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that tells its watch when a head begins and when an answer is out.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    watch: Arc<Watch>,
}

impl<S> Watched<S> {
    /// Watches `stream`.
    pub fn new(stream: S, watch: Arc<Watch>) -> Self {
        Self { stream, watch }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before && self.watch.phase() == Phase::Idle {
            self.watch.enter(Phase::Head);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(polled, Poll::Ready(Ok(()))) && self.watch.phase() == Phase::Answering {
            self.watch.enter(Phase::Idle);
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_senders_that_fell_silent_in_the_same_moment_the_first_makes_room() {
        let epoch = Instant::now();
        let watches: Vec<_> = (0..8).map(|_| Arc::new(Watch::new(epoch))).collect();
        for watch in &watches {
            watch.authenticated();
            watch.enter(Phase::Idle);
        }
        let watches_by_number = (0..8).zip(watches.iter().cloned()).collect();
        let open = Open { next: 8, watches: watches_by_number };
        std::thread::sleep(GRACE);
        open.make_room(1);
        let leaving: Vec<_> = watches.iter().map(|watch| watch.is_evicted()).collect();
        assert_eq!(leaving, [true, false, false, false, false, false, false, false]);
    }
}
