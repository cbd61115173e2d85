//! A connection that is what it is: never replaced by a new one behind our back, and fed as slowly
//! as we like. [`crate::client::Client`] hides both.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

use super::visit::{Exchange, Visit};
use crate::client::{self, Tls};

/// One connection to the receiver.
pub struct Wire {
    open: SendRequest<Pieces>,
}

/// What came of a request on a connection that may be closed.
pub enum Sent {
    /// An answer, or none.
    Exchange(Exchange),
    /// The receiver had closed the connection before anything was sent.
    Closed,
}

impl Wire {
    /// Connects, within the platform's limit.
    pub async fn open(visit: &Visit) -> io::Result<Self> {
        let limit = visit.rules.connect_max;
        timeout(limit, Self::connect(visit)).await.unwrap_or_else(|_| {
            Err(io::Error::other(format!("no connection within {} ms", limit.as_millis())))
        })
    }

    async fn connect(visit: &Visit) -> io::Result<Self> {
        let target = visit.target();
        let socket = TcpStream::connect((target.host.as_str(), target.port)).await?;
        socket.set_nodelay(true)?;
        let open = if target.is_https {
            let Tls { connector, name } =
                client::tls(target, &visit.options()).map_err(io::Error::other)?;
            handshake(connector.connect(name, socket).await?).await?
        } else {
            handshake(socket).await?
        };
        Ok(Self { open })
    }

    /// Posts to the target, and waits as long as the platform would.
    pub async fn post(&mut self, visit: &Visit, headers: HeaderMap, body: Pieces) -> Sent {
        // Sending may take as long as it takes; only then does the platform begin to wait.
        let limit = visit.rules.silence_max + body.takes();
        let started = Instant::now();
        if self.open.ready().await.is_err() {
            return Sent::Closed;
        }
        let request = match request(visit, headers, body) {
            Ok(request) => request,
            Err(problem) => return Sent::Exchange(visit.exchange(Err(problem), Duration::ZERO)),
        };
        let exchange = async {
            match self.open.try_send_request(request).await {
                Ok(response) => client::read(response).await.map(|(answer, _)| Some(answer)),
                Err(mut error) => match error.take_message() {
                    Some(_) => Ok(None),
                    None => Err(error.into_error()),
                },
            }
        };
        let answer = match timeout(limit, exchange).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => return Sent::Closed,
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("none within {} ms", limit.as_millis())),
        };
        Sent::Exchange(visit.exchange(answer, started.elapsed()))
    }

    /// Whether the receiver has closed it, as far as we have heard.
    pub fn is_closed(&self) -> bool {
        self.open.is_closed()
    }
}

fn request(visit: &Visit, headers: HeaderMap, body: Pieces) -> Result<Request<Pieces>, String> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    let path = visit.target().path.parse();
    *request.uri_mut() = path.map_err(|_| "the path has characters that none can have")?;
    *request.headers_mut() = headers;
    let host = HeaderValue::from_str(&visit.target().authority);
    request.headers_mut().insert(HOST, host.map_err(|_| "the host is not in ASCII")?);
    Ok(request)
}

async fn handshake<S>(stream: S) -> io::Result<SendRequest<Pieces>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (open, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Its errors are told to whoever waits for the answer.
    tokio::spawn(async move { drop(connection.await) });
    Ok(open)
}

/// A body in pieces, with a pause before each but the first.
pub struct Pieces {
    pieces: VecDeque<Bytes>,
    bytes_left: u64,
    pause: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Pieces {
    /// All of it at once.
    pub fn whole(body: &Bytes) -> Self {
        Self::slow(body, 1, Duration::ZERO)
    }

    /// In so many pieces.
    pub fn slow(body: &Bytes, pieces: usize, pause: Duration) -> Self {
        let length = body.len().div_ceil(pieces.max(1)).max(1);
        let starts = (0..body.len()).step_by(length);
        let pieces = starts.map(|at| body.slice(at..body.len().min(at + length))).collect();
        Self { pieces, bytes_left: body.len() as u64, pause, waiting: None }
    }

    /// How long it takes to send.
    pub fn takes(&self) -> Duration {
        let pauses = self.pieces.len().saturating_sub(1);
        self.pause * u32::try_from(pauses).unwrap_or(u32::MAX)
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(waiting) = &mut self.waiting {
            std::task::ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
        }
        let Some(piece) = self.pieces.pop_front() else { return Poll::Ready(None) };
        self.bytes_left -= piece.len() as u64;
        if !self.pieces.is_empty() && !self.pause.is_zero() {
            self.waiting = Some(Box::pin(sleep(self.pause)));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes_left)
    }
}
