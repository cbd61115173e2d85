//! The callback listener: accepts, bounds, serves, drains.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::connection::{Connections, Phase, Place, Watched};
use super::request::FrontDoor;

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`. The
/// library's own is 128: when strangers fill that, the kernel drops the first packet of a sender
/// too, and it comes again a second later.
const BACKLOG: u32 = 4096;

/// How often overdue connections are looked for.
const SWEEP: Duration = Duration::from_millis(250);

/// The first pause after `accept` failed (no file descriptor left, say); doubled up to a second.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// How long connections may go on while stopping before the idle ones are closed: long enough for
/// a request that is already on its way.
const LINGER: Duration = Duration::from_millis(500);

/// The answer to a head that did not arrive in time, which hyper never got to see.
const TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// The answer to a head that was on its way when its connection had to make room.
const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\
    retry-after: 5\r\ncontent-length: 0\r\n\r\n";

/// How long saying so may take.
const GOODBYE: Duration = Duration::from_millis(250);

/// The TLS settings in force; replaced when the files change.
pub type TlsInForce = Arc<RwLock<Arc<ServerConfig>>>;

/// The stages of stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drain {
    /// Serving.
    No,
    /// No new connections; every answer ends its connection.
    Closing,
    /// Idle connections are closed.
    Closed,
}

/// Listens on `address`. In a runtime.
///
/// # Errors
/// If it cannot be had: somebody else has it, or it is none of this machine's.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for connections of the one before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A bound listener and what it serves.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    door: Arc<FrontDoor>,
    connections: Arc<Connections>,
    tls: Option<TlsInForce>,
    drain: watch::Sender<Drain>,
}

impl Server {
    /// Serves `door` on `listener`, with TLS if there is any.
    pub fn new(listener: TcpListener, door: Arc<FrontDoor>, tls: Option<TlsInForce>) -> Self {
        let connections = Connections::new(door.limits.clone());
        Self { listener, door, connections, tls, drain: watch::Sender::new(Drain::No) }
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The open connections.
    pub fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.connections)
    }

    /// Serves until `stop` yields, then drains: takes who is already waiting to be accepted,
    /// answers what is in flight, and ends when the last connection has. The caller bounds the
    /// time: dropping this future drops what is left.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let sweeper = tokio::spawn(sweep(Arc::clone(&self.connections)));
        {
            // One future throughout: it may hold a connection that waits for a place.
            let mut accepting = pin!(self.accept());
            tokio::select! {
                () = &mut accepting => {}
                () = stop => {}
            }
            self.door.is_draining.store(true, Ordering::Relaxed);
            self.drain.send_replace(Drain::Closing);
            // Whoever has connected before this moment was promised to be heard.
            tokio::select! {
                () = &mut accepting => {}
                () = sleep(LINGER) => {}
            }
        }
        let Self { listener, connections, drain, .. } = self;
        drop(listener);
        drain.send_replace(Drain::Closed);
        connections.emptied().await;
        sweeper.abort();
    }

    async fn accept(&self) {
        let mut pause = ACCEPT_PAUSE;
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    pause = ACCEPT_PAUSE;
                    // Only now: nobody has to make room for a connection that never comes.
                    let place = self.connections.admit().await;
                    // Without it an answer could wait for the acknowledgement of another.
                    let _ = stream.set_nodelay(true);
                    self.spawn(stream, place);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            }
        }
    }

    fn spawn(&self, stream: TcpStream, place: Place) {
        let door = Arc::clone(&self.door);
        let drain = self.drain.subscribe();
        let tls = self.tls.as_ref().map(|tls| {
            TlsAcceptor::from(Arc::clone(&tls.read().unwrap_or_else(PoisonError::into_inner)))
        });
        tokio::spawn(async move {
            let Some(tls) = tls else { return serve(stream, place, door, drain).await };
            let handshake = timeout(door.limits.handshake_ms_max, tls.accept(stream));
            tokio::select! {
                // What has come by now counts, however late it is looked at.
                biased;
                shaken = handshake => match shaken {
                    Ok(Ok(stream)) => serve(stream, place, door, drain).await,
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                    Err(_) => tracing::debug!("TLS handshake took too long"),
                },
                () = place.watch.overdue() => {}
            }
        });
    }
}

async fn sweep(connections: Arc<Connections>) {
    let mut tick = tokio::time::interval(SWEEP);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        connections.sweep();
    }
}

async fn serve<S>(stream: S, place: Place, door: Arc<FrontDoor>, mut drain: watch::Receiver<Drain>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    place.watch.enter(Phase::Head);
    let watched = TokioIo::new(Watched::new(stream, Arc::clone(&place.watch)));
    let (door, watch) = (&*door, &*place.watch);
    let service = service_fn(move |request| async move {
        Ok::<_, std::convert::Infallible>(door.serve(request, watch).await)
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The sweep knows idle from slow; hyper's own limit does not.
        .header_read_timeout(None)
        // Whoever has sent all it has to send, and says so, is waiting for the answer; and what has
        // come whole is kept even if nobody waits any more.
        .half_close(true)
        .max_buf_size(door.limits.header_bytes_max)
        .serve_connection(watched, service);
    let mut is_closing = false;
    loop {
        tokio::select! {
            // First what has come: after a moment in which this thread was held up, a caller is not too
            // slow whose bytes have been waiting. What is answered 408 is never sent again.
            biased;
            result = &mut connection => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection ended early");
                    // hyper has answered already.
                    if let Some((code, reason)) = answered(&error) {
                        door.turned_away(code, reason);
                    }
                }
                return;
            }
            () = watch.overdue() => {
                let is_in_time = !watch.is_evicted() && !watch.is_overdue(&door.limits);
                if watch.is_spared() || is_in_time {
                    continue;
                }
                let last_words = match watch.phase() {
                    Phase::Head if watch.is_evicted() => {
                        door.turned_away(503, "every connection is taken");
                        NO_ROOM
                    }
                    Phase::Head => {
                        door.turned_away(408, "the head took too long");
                        TOO_SLOW
                    }
                    _ => b"",
                };
                return hang_up(connection.into_parts().io.into_inner(), last_words).await;
            }
            () = closed(&mut drain), if !is_closing => {
                Pin::new(&mut connection).graceful_shutdown();
                is_closing = true;
            }
        }
    }
}

/// What hyper has answered to a head that was no request, and why.
fn answered(error: &hyper::Error) -> Option<(u16, &'static str)> {
    match () {
        () if error.is_parse_too_large() => Some((431, "the head is too large")),
        () if error.is_parse() => Some((400, "the head is no request")),
        () => None,
    }
}

/// Yields when idle connections are to be closed.
async fn closed(drain: &mut watch::Receiver<Drain>) {
    // Its sender goes only after having said so.
    let _ = drain.wait_for(|drain| *drain == Drain::Closed).await;
}

/// Ends a connection whose time is up, with what it is told if it still listens.
async fn hang_up<S: AsyncWrite + Unpin>(mut stream: S, last_words: &[u8]) {
    let goodbye = async {
        stream.write_all(last_words).await?;
        stream.shutdown().await
    };
    let _ = timeout(GOODBYE, goodbye).await;
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::clock::Clock;
    use crate::config::settings::Limits;
    use crate::config::{self, Flags, Layers};
    use crate::journal::{self, Options};
    use crate::receive::keeper::{IsKept, Keeper};
    use crate::receive::refusals::Refusals;
    use crate::receive::routes::Routes;
    use crate::telemetry::Metrics;

    fn limits() -> Limits {
        let layers = Layers::new(None, Vec::new(), Flags::default());
        config::load(&layers, Clock::system().now()).unwrap().settings.limits
    }

    /// A door without any source, in front of a journal in `folder`.
    fn door(folder: &std::path::Path, limits: &Limits) -> Arc<FrontDoor> {
        let options = Options::small();
        let path = folder.join("receiptd.callbacks.db");
        let (journal, _, _) = journal::start(&path, options, Box::new(|_| {})).unwrap();
        let metrics = Arc::new(Metrics::new());
        Arc::new(FrontDoor {
            routes: Routes::new(&[], &metrics),
            keeper: Keeper::Journal {
                journal,
                is_kept: IsKept(Box::new(|_, _| false)),
                ack_wait_max: limits.ack_wait_ms_max,
            },
            limits: limits.clone(),
            clock: Clock::system(),
            metrics,
            refusals: Refusals::default(),
            is_draining: false.into(),
        })
    }

    #[tokio::test]
    async fn a_request_that_has_come_whole_is_served_even_if_its_time_was_up_before_it_was_read() {
        let folder = tempfile::tempdir().unwrap();
        // Every head is late.
        let limits = Limits { header_ms_max: Duration::ZERO, ..limits() };
        let door = door(folder.path(), &limits);
        let drain = watch::Sender::new(Drain::No);
        // Often enough that chance would show.
        for _ in 0..32 {
            let connections = Connections::new(limits.clone());
            let place = connections.admit().await;
            let (mut caller, stream) = tokio::io::duplex(4_096);
            caller.write_all(b"POST /elsewhere HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            caller.shutdown().await.unwrap();
            connections.sweep();
            let served = serve(stream, place, Arc::clone(&door), drain.subscribe());
            timeout(Duration::from_secs(10), served).await.expect("it is served");
            let mut answer = String::new();
            caller.read_to_string(&mut answer).await.unwrap();
            let expected = format!("HTTP/1.1 {}", StatusCode::NOT_FOUND.as_str());
            assert!(answer.starts_with(&expected), "{answer}");
        }
    }
}
