//! Lines that many write at once and one thread puts where they belong.
//!
//! Writing to a file blocks, and making it durable blocks for longer, so neither happens in the
//! runtime. One thread takes whatever lines have gathered, hands them over in one piece and tells
//! each of those who wait what became of theirs: a commit of many costs what a commit of one does.
//! The queue is bounded; who finds it full waits. A line whose sender has given up before its turn is
//! not written: it will come again.

use std::thread;

use tokio::sync::{mpsc, oneshot};

use super::fault::Fault;

/// Lines that wait for the thread, and lines of one piece.
const LINES_MAX: usize = 256;

/// How far a piece got: after how many of its lines, all of them where they belong, and why.
pub type Torn = (usize, Fault);

/// The way to the thread, which ends with the last of these.
#[derive(Debug)]
pub struct Lines {
    queue: mpsc::Sender<Line>,
}

#[derive(Debug)]
struct Line {
    bytes: Vec<u8>,
    written: oneshot::Sender<Result<(), Fault>>,
}

impl Lines {
    /// Starts the thread. `write` puts lines, each with its end, where they belong and returns once
    /// they are.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(
        thread: &str,
        write: impl FnMut(&[Vec<u8>]) -> Result<(), Torn> + Send + 'static,
    ) -> Result<Self, String> {
        let (queue, waiting) = mpsc::channel(LINES_MAX);
        thread::Builder::new()
            .name(thread.to_owned())
            .spawn(move || run(waiting, write))
            .map_err(|error| format!("failed to start a thread: {error}"))?;
        Ok(Self { queue })
    }

    /// Returns once the line is where it belongs. Abandoned, it may be written or not.
    ///
    /// # Errors
    /// What `write` said.
    pub async fn append(&self, bytes: Vec<u8>) -> Result<(), Fault> {
        let gone = || Fault::passing("the thread that writes has ended");
        let (written, outcome) = oneshot::channel();
        self.queue.send(Line { bytes, written }).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }
}

fn run(mut waiting: mpsc::Receiver<Line>, mut write: impl FnMut(&[Vec<u8>]) -> Result<(), Torn>) {
    let mut lines = Vec::new();
    while waiting.blocking_recv_many(&mut lines, LINES_MAX) > 0 {
        let (bytes, waiters): (Vec<_>, Vec<_>) = lines
            .drain(..)
            .filter(|line| !line.written.is_closed())
            .map(|line| (line.bytes, line.written))
            .unzip();
        let outcome = write(&bytes);
        for (place, waiter) in waiters.into_iter().enumerate() {
            let of_it = match &outcome {
                Err((written, fault)) if place >= *written => Err(fault.clone()),
                _ => Ok(()),
            };
            // Who has given up meanwhile does not hear of it, and sends it again.
            let _ = waiter.send(of_it);
        }
    }
}
