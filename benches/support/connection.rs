//! One keep-alive connection of the generator: at most one request in flight, no allocation.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::receipt::{Id, Ids, Request};

/// An answer longer than this breaks the connection: ours are a head and at most a sentence.
const ANSWER_BYTES_MAX: usize = 4096;

/// A connection, the request it sends over and over, and what of the answer has come.
pub struct Connection {
    stream: TcpStream,
    request: Request,
    written: usize,
    inbox: Box<[u8; ANSWER_BYTES_MAX]>,
    received: usize,
    in_flight_since: Option<Instant>,
}

/// One whole answer.
#[derive(Clone, Copy)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// What its latency counts from: as given to [`Connection::send`].
    pub since: Instant,
}

impl Connection {
    /// Connects, waiting for it, and registers for edges of both kinds under `token`.
    pub fn open(
        server: SocketAddr,
        request: Request,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        Ok(Self {
            stream: connect(server, registry, token)?,
            request,
            written: 0,
            inbox: Box::new([0; ANSWER_BYTES_MAX]),
            received: 0,
            in_flight_since: None,
        })
    }

    /// Connects again after an error; true if a request went down with the old connection.
    pub fn reopen(
        &mut self,
        server: SocketAddr,
        registry: &Registry,
        token: Token,
    ) -> io::Result<bool> {
        self.stream = connect(server, registry, token)?;
        self.received = 0;
        Ok(self.in_flight_since.take().is_some())
    }

    /// Whether an answer is owed.
    pub fn in_flight(&self) -> bool {
        self.in_flight_since.is_some()
    }

    /// The id of the last request sent.
    pub fn id(&self) -> Id {
        self.request.id()
    }

    /// Sends a receipt with the next id. Its latency counts from `since`.
    pub fn send(&mut self, ids: &mut Ids, since: Instant) -> io::Result<()> {
        debug_assert!(!self.in_flight(), "one request in flight");
        self.request.renew(ids);
        self.written = 0;
        self.in_flight_since = Some(since);
        self.write()
    }

    /// After an event: writes what is left of the request, reads what has come of the answer.
    ///
    /// One read is enough for an edge, unless it fills the inbox, which is an error: what comes
    /// later makes a new edge. An error, the server's end of the connection included, calls for
    /// [`Connection::reopen`].
    pub fn advance(&mut self) -> io::Result<Option<Answer>> {
        if self.in_flight() && self.written < self.request.bytes().len() {
            self.write()?;
        }
        match self.stream.read(&mut self.inbox[self.received..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => self.received += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => return self.advance(),
            Err(error) => return Err(error),
        }
        let Some((status, bytes)) = answer_in(&self.inbox[..self.received])? else {
            return Ok(None);
        };
        let since = self.in_flight_since.take().ok_or(ErrorKind::InvalidData)?;
        if bytes != self.received {
            return Err(ErrorKind::InvalidData.into());
        }
        self.received = 0;
        Ok(Some(Answer { status, since }))
    }

    fn write(&mut self) -> io::Result<()> {
        while self.written < self.request.bytes().len() {
            match self.stream.write(&self.request.bytes()[self.written..]) {
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn connect(server: SocketAddr, registry: &Registry, token: Token) -> io::Result<TcpStream> {
    let stream = std::net::TcpStream::connect(server)?;
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let mut stream = TcpStream::from_std(stream);
    registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok(stream)
}

/// The status and length of the answer that `bytes` begin with; `None` while it is incomplete.
fn answer_in(bytes: &[u8]) -> io::Result<Option<(u16, usize)>> {
    let Some(head_bytes) = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
    else {
        return if bytes.len() < ANSWER_BYTES_MAX { Ok(None) } else { Err(unreadable()) };
    };
    if bytes.starts_with(b"HTTP/1.1 204 ") {
        return Ok(Some((204, head_bytes)));
    }
    let head = std::str::from_utf8(&bytes[..head_bytes]).map_err(|_| unreadable())?;
    let (status, body_bytes) = status_and_length(head).ok_or_else(unreadable)?;
    let whole = head_bytes + body_bytes;
    if whole > ANSWER_BYTES_MAX {
        return Err(unreadable());
    }
    Ok((bytes.len() >= whole).then_some((status, whole)))
}

/// What the head of an answer other than 204 says; chunked bodies are not understood.
fn status_and_length(head: &str) -> Option<(u16, usize)> {
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or("0", |(_, value)| value.trim());
    Some((status, length.parse().ok()?))
}

fn unreadable() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "an answer the generator does not understand")
}
