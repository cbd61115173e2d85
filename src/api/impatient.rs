//! A stream whose other side must keep reading: an answer that is not taken is given up.
//!
//! What readers ask for is longer than what a socket holds by itself. An answer is in memory as a whole
//! before it is sent, so whoever stops reading costs that memory, and a place, for as long as we let
//! them. So does whoever reads a byte now and then: beside the time without any progress there is one for
//! the whole answer, that grows with what was taken of it. It begins anew once everything there was to
//! send is out: events that are taken as they come may come for ever.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::places::Guest;

/// How long the other side may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Taking nothing at all.
    pub silent_ms_max: Duration,
    /// Taking an answer, however short,
    pub answer_ms_max: Duration,
    /// and one second more for so many bytes of it that were taken.
    pub bytes_per_second_min: u64,
}

/// Ends in an error when the other side takes too long.
#[derive(Debug)]
pub struct Impatient<S> {
    stream: S,
    patience: Patience,
    guest: Arc<Guest>,
    /// Set while an answer is on its way out.
    answer: Option<Answer>,
    /// Set while the other side takes nothing.
    waiting: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    began: Instant,
    taken_bytes: u64,
}

impl Answer {
    fn deadline(&self, patience: &Patience) -> Instant {
        let micros = self.taken_bytes.saturating_mul(1_000_000) / patience.bytes_per_second_min;
        self.began + patience.answer_ms_max + Duration::from_micros(micros)
    }
}

impl<S> Impatient<S> {
    /// `stream`, whose other side may take so long. `guest` is told when everything is out.
    pub fn new(stream: S, patience: Patience, guest: Arc<Guest>) -> Self {
        Self { stream, patience, guest, answer: None, waiting: None }
    }

    fn unless_late(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let now = Instant::now();
        let answer = self.answer.get_or_insert(Answer { began: now, taken_bytes: 0 });
        if let Poll::Ready(Ok(bytes)) = polled {
            answer.taken_bytes += bytes as u64;
        }
        let deadline = answer.deadline(&self.patience);
        if polled.is_ready() {
            self.waiting = None;
            return if now < deadline { polled } else { late() };
        }
        let deadline = deadline.min(now + self.patience.silent_ms_max);
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        match waiting.as_mut().poll(cx) {
            Poll::Ready(()) => late(),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn late() -> Poll<io::Result<usize>> {
    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.unless_late(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.unless_late(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper asks for this once it has written all that it has.
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(polled, Poll::Ready(Ok(()))) {
            self.answer = None;
            self.guest.sent();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::super::places::Places;
    use super::*;

    /// Our side of a pipe that holds 16 bytes, and theirs.
    async fn pipe(patience: Patience) -> (Impatient<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(16);
        let place = Places::new(1).admit().await;
        (Impatient::new(ours, patience, Arc::clone(&place.guest)), theirs)
    }

    const PATIENCE: Patience = Patience {
        silent_ms_max: Duration::from_millis(50),
        answer_ms_max: Duration::from_millis(50),
        bytes_per_second_min: 1,
    };

    #[tokio::test]
    async fn who_reads_gets_everything_and_who_does_not_is_given_up() {
        let (mut stream, mut theirs) = pipe(PATIENCE).await;
        let reading = tokio::spawn(async move {
            theirs.read_exact(&mut [0; 4_800]).await.unwrap();
            theirs
        });
        stream.write_all(&[0; 4_800]).await.unwrap();
        let _still_open = reading.await.unwrap();
        let error = stream.write_all(&[0; 48]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    /// Reads a byte at a time for ever.
    fn drip(mut theirs: DuplexStream) {
        tokio::spawn(async move { while theirs.read_exact(&mut [0]).await.is_ok() {} });
    }

    #[tokio::test]
    async fn who_never_stops_reading_and_is_too_slow_is_given_up() {
        let patience = Patience { bytes_per_second_min: u64::MAX, ..PATIENCE };
        let (mut stream, theirs) = pipe(patience).await;
        drip(theirs);
        let began = Instant::now();
        let error = loop {
            if let Err(error) = stream.write_all(&[0; 48]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= patience.answer_ms_max);
    }

    #[tokio::test]
    async fn what_was_taken_is_time_for_the_rest() {
        // A byte is a second: after the first no deadline is near.
        let (mut stream, theirs) = pipe(PATIENCE).await;
        drip(theirs);
        let began = Instant::now();
        while began.elapsed() < 3 * PATIENCE.answer_ms_max {
            stream.write_all(&[0; 48]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn events_that_are_taken_as_they_come_may_come_for_ever() {
        let patience = Patience { bytes_per_second_min: u64::MAX, ..PATIENCE };
        let (mut stream, theirs) = pipe(patience).await;
        drip(theirs);
        let began = Instant::now();
        while began.elapsed() < 3 * PATIENCE.answer_ms_max {
            stream.write_all(&[0; 48]).await.unwrap();
            stream.flush().await.unwrap();
        }
    }
}
