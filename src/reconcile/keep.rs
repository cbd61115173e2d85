//! Having news appended to the journal, behind callbacks.
//!
//! [`Keep`] is what a round needs of whoever has the journal: the receiver itself ([`InJournal`]), or,
//! for a command beside a running receiver, a request to it. It promises that what it has kept is in
//! the state once it returns, so that the next look knows it. It also notes in the journal what a round
//! leaves behind for the next.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;
use tokio::time::{sleep, timeout};

use super::known::Heals;
use super::round::Ended;
use crate::callback::Origin;
use crate::clock::Timestamp;
use crate::journal::{Entry, Journal, Outcome, Refused};
use crate::settle::Settled;

/// Entries handed over at once: what they may add to the wait of a callback is one such commit.
pub const ENTRIES_MAX: usize = 64;

/// With more callbacks than this in its queue, the journal is busy.
const BUSY_CALLBACKS: usize = 64;

/// How long to wait before looking again whether it still is.
const LOOK: Duration = Duration::from_millis(20);

/// How long the state may be behind before a round is given up: what is known cannot be told then.
const SETTLED_MAX: Duration = Duration::from_secs(10);

/// What is to be kept of an answer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Piece {
    /// What it heals.
    pub heals: Heals,
    /// What [`polled::read`](crate::provider::polled::read) will read.
    #[serde(with = "text")]
    pub body: Vec<u8>,
    /// When the answer was there.
    pub at: Timestamp,
}

/// Bodies are JSON, so text.
mod text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(body: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(body))
    }

    pub fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        String::deserialize(deserializer).map(String::into_bytes)
    }
}

/// Whoever has the journal.
pub trait Keep {
    /// Waits until everything that was acknowledged is in the state.
    ///
    /// # Errors
    /// If that takes too long.
    fn ready(&mut self) -> impl Future<Output = Result<(), Ended>> + Send;

    /// Appends these, and waits until they are in the state.
    ///
    /// # Errors
    /// If the journal refuses them, or settling them takes too long.
    fn keep(
        &mut self,
        source: &Arc<str>,
        pieces: Vec<Piece>,
    ) -> impl Future<Output = Result<(), Ended>> + Send;

    /// Notes what a round came to.
    ///
    /// # Errors
    /// If it cannot be noted. Then more is asked for than need be.
    fn note(
        &mut self,
        source: &Arc<str>,
        outcome: Outcome,
    ) -> impl Future<Output = Result<(), Ended>> + Send;
}

/// The journal of this process.
#[derive(Clone, Debug)]
pub struct InJournal {
    /// To append to.
    pub journal: Journal,
    /// How far it is settled.
    pub settled: Settled,
}

impl Keep for InJournal {
    async fn ready(&mut self) -> Result<(), Ended> {
        let committed = self.journal.progress().committed();
        match timeout(SETTLED_MAX, self.settled.reaches(committed)).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Ended::Stopped),
            Err(_) => Err(Ended::Behind),
        }
    }

    async fn keep(&mut self, source: &Arc<str>, pieces: Vec<Piece>) -> Result<(), Ended> {
        let mut pieces = pieces.into_iter().peekable();
        while pieces.peek().is_some() {
            while self.journal.waiting() > BUSY_CALLBACKS {
                sleep(LOOK).await;
            }
            self.append(source, pieces.by_ref().take(ENTRIES_MAX)).await?;
        }
        self.ready().await
    }

    async fn note(&mut self, source: &Arc<str>, outcome: Outcome) -> Result<(), Ended> {
        let source = Arc::clone(source);
        self.write(move |journal| outcome.note(journal, &source)).await
    }
}

impl InJournal {
    /// Has that written on the journal's own thread.
    pub(super) async fn write(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), Ended> {
        let journal = self.journal.clone();
        let on_writer = move || journal.on_writer(move |journal| work(journal));
        match tokio::task::spawn_blocking(on_writer).await {
            Ok(Ok(written)) => written.map_err(|error| Ended::NotKept(error.to_string())),
            Ok(Err(refused)) => Err(Ended::Refused(refused)),
            Err(_) => Err(Ended::Stopped),
        }
    }

    /// Appends some, and waits until they are durable.
    async fn append(
        &self,
        source: &Arc<str>,
        pieces: impl Iterator<Item = Piece> + Send,
    ) -> Result<(), Ended> {
        let mut told = Vec::with_capacity(ENTRIES_MAX);
        for piece in pieces {
            told.push(self.push(source, piece).await?);
        }
        for told in told {
            told.await.unwrap_or(Err(Refused::Closed)).map_err(Ended::Refused)?;
        }
        Ok(())
    }

    async fn push(
        &self,
        source: &Arc<str>,
        Piece { body, at, .. }: Piece,
    ) -> Result<tokio::sync::oneshot::Receiver<crate::journal::Acknowledgement>, Ended> {
        let body = Bytes::from(body);
        loop {
            let (source, body) = (Arc::clone(source), body.clone());
            let entry = Entry { source, received_at: at, body, origin: Origin::Polled };
            match self.journal.append(entry) {
                Err(Refused::QueueFull) => sleep(LOOK).await,
                pushed => return pushed.map_err(Ended::Refused),
            }
        }
    }
}

/// Keeps nothing, for a round that only tells what it would heal.
#[derive(Clone, Copy, Debug)]
pub struct Nothing;

impl Keep for Nothing {
    async fn ready(&mut self) -> Result<(), Ended> {
        Ok(())
    }

    async fn keep(&mut self, _: &Arc<str>, _: Vec<Piece>) -> Result<(), Ended> {
        Ok(())
    }

    async fn note(&mut self, _: &Arc<str>, _: Outcome) -> Result<(), Ended> {
        Ok(())
    }
}
