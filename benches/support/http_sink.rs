//! A sink for events as an app would have it, and as fast as one can be: reads a POST, hands its body
//! to whoever wants to know, answers.
//!
//! One thread, one epoll, no allocation for each request: it shares the machine with what is measured.
//! It trusts its client: heads that it does not understand end the connection.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

/// What the sink answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// 204.
    Taken,
    /// 503.
    Busy,
    /// Nothing: the connection ends.
    HangUp,
}

const LISTENER: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX);
/// Connections at the same time; what comes beyond that waits to be accepted for ever.
const CONNECTIONS_MAX: usize = 1024;
const READ_BYTES: usize = 16 << 10;
const HEADERS_MAX: usize = 64;

/// A sink that runs until it is dropped; then it is down.
pub struct HttpSink {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl HttpSink {
    /// Listens at that address, whose port may be 0, and asks `hear` what to answer to each body.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub fn start(
        address: SocketAddr,
        hear: impl FnMut(&[u8]) -> Reply + Send + 'static,
    ) -> io::Result<Self> {
        let mut listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let mut server = Server { poll, listener, connections: Vec::new(), hear };
        let thread = std::thread::Builder::new().name("sink".to_owned()).spawn(move || {
            while !over.load(Ordering::Relaxed) {
                server.turn().expect("epoll works");
            }
        })?;
        Ok(Self { address, is_over, waker, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HttpSink {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = self.waker.wake();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Server<H> {
    poll: Poll,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    hear: H,
}

struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl<H: FnMut(&[u8]) -> Reply> Server<H> {
    fn turn(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        match self.poll.poll(&mut events, Some(Duration::from_secs(1))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for token in events.iter().map(mio::event::Event::token) {
            match token {
                WAKER => {}
                LISTENER => self.accept()?,
                Token(at) => {
                    let place = self.connections.get_mut(at);
                    let Some(place) = place else { continue };
                    let mut serve = |connection: &mut Connection| connection.serve(&mut self.hear);
                    if !place.as_mut().is_some_and(|one| serve(one).unwrap_or(false)) {
                        *place = None;
                    }
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // It was gone before it was accepted.
                Err(_) => continue,
            };
            let free = self.connections.iter().position(Option::is_none);
            let at = free.unwrap_or(self.connections.len());
            if at == CONNECTIONS_MAX {
                continue;
            }
            stream.set_nodelay(true)?;
            self.poll.registry().register(&mut stream, Token(at), Interest::READABLE)?;
            let connection = Connection { stream, read: Vec::with_capacity(READ_BYTES) };
            if at == self.connections.len() {
                self.connections.push(None);
            }
            self.connections[at] = Some(connection);
        }
    }
}

impl Connection {
    /// Reads what there is and answers every whole request; whether the connection goes on.
    fn serve(&mut self, hear: &mut impl FnMut(&[u8]) -> Reply) -> io::Result<bool> {
        let mut some = [0; READ_BYTES];
        loop {
            match self.stream.read(&mut some) {
                Ok(0) => return Ok(false),
                Ok(bytes) => self.read.extend_from_slice(&some[..bytes]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            while let Some((head, whole)) = request_in(&self.read)? {
                let reply = hear(&self.read[head..whole]);
                self.read.drain(..whole);
                match reply {
                    // An answer is far smaller than what a socket takes at once.
                    Reply::Taken => self.stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?,
                    Reply::Busy => self.stream.write_all(
                        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
                    )?,
                    Reply::HangUp => return Ok(false),
                }
            }
        }
    }
}

/// Where the body of the request begins that `bytes` begin with, and where it ends; `None` while it
/// is incomplete.
fn request_in(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let unreadable = || io::Error::from(ErrorKind::InvalidData);
    let head = match request.parse(bytes).map_err(|_| unreadable())? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => return Ok(None),
    };
    let length = request
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
    let whole = head + length.ok_or_else(unreadable)?;
    Ok((bytes.len() >= whole).then_some((head, whole)))
}
