//! One connection of the sender: plain or TLS, never blocking, at most one request in flight.
//!
//! Edge-triggered: what an event says is followed until the socket would block, or until a short
//! read shows that it would. An exchange over a kept plain connection costs two system calls.

use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection};

use super::http::{Answer, Reader};

/// Read at once.
pub const SCRATCH_BYTES: usize = 16 << 10;

/// Why an attempt had no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Nobody listens there, or the host cannot be reached.
    Refused,
    /// The TLS handshake failed: a certificate that is not trusted, say.
    Tls,
    /// Too slow, in connecting or in answering.
    TimedOut,
    /// The connection was reset.
    Reset,
    /// The connection was closed before the answer was whole.
    Closed,
    /// What came is no HTTP answer, or does not end.
    Unreadable,
}

impl Cause {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Tls => "tls",
            Self::TimedOut => "timed-out",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Unreadable => "unreadable",
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedEof => Self::Closed,
            ErrorKind::InvalidData => Self::Unreadable,
            _ => Self::Reset,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whom a certificate must name, and what it is checked with.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Roots and versions.
    pub config: Arc<ClientConfig>,
    /// The host.
    pub name: ServerName<'static>,
}

/// A connection, from the first moment of connecting.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Handshaking,
    Open,
}

/// A request on its way: its bytes, and how many the socket has taken.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The whole request.
    pub bytes: Vec<u8>,
    /// How much of it is written.
    pub written: usize,
}

/// What came of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing new.
    Still,
    /// Something came or went: the server is not silent.
    Moved,
    /// The whole answer is there.
    Answered(Answer),
}

impl Connection {
    /// Begins to connect.
    ///
    /// # Errors
    /// What the system says at once.
    pub fn open(
        address: SocketAddr,
        tls: Option<&Tls>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let tls = tls.map(|Tls { config, name }| {
            let mut tls = ClientConnection::new(Arc::clone(config), name.clone())
                .map_err(io::Error::other)?;
            tls.set_buffer_limit(None);
            Ok::<_, io::Error>(Box::new(tls))
        });
        let tls = tls.transpose()?;
        let mut stream = TcpStream::connect(address)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, tls, phase: Phase::Connecting })
    }

    /// Whether requests can be sent: connected, and the TLS handshake done.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether the other side could be reached at all, whatever it made of TLS.
    pub fn is_connected(&self) -> bool {
        self.phase != Phase::Connecting
    }

    /// Whether the senders' library would drop this idle connection rather than use it: it looks
    /// whether anything can be read, which on an idle connection means that it was closed.
    pub fn is_dropped(&self) -> bool {
        !matches!(self.stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Writes what the socket takes of the request.
    ///
    /// # Errors
    /// If the connection is no more.
    pub fn send(&mut self, outbox: &mut Outbox) -> Result<(), Cause> {
        if !self.is_open() {
            return Ok(());
        }
        let Self { stream, tls, .. } = self;
        let Some(tls) = tls else {
            while outbox.written < outbox.bytes.len() {
                match stream.write(&outbox.bytes[outbox.written..]) {
                    Ok(bytes) => outbox.written += bytes,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(Cause::of(&error)),
                }
            }
            return Ok(());
        };
        if outbox.written < outbox.bytes.len() {
            let left = &outbox.bytes[outbox.written..];
            tls.writer().write_all(left).map_err(|error| Cause::of(&error))?;
            outbox.written = outbox.bytes.len();
        }
        self.write_tls().map_err(|error| Cause::of(&error))
    }

    /// Follows an event up: goes on connecting, writing, reading.
    ///
    /// # Errors
    /// Why there will be no answer.
    pub fn advance(
        &mut self,
        event: &Event,
        outbox: &mut Outbox,
        reader: &mut Reader,
        scratch: &mut [u8],
    ) -> Result<Step, Cause> {
        let before = self.phase;
        if self.phase == Phase::Connecting && !self.is_established()? {
            return Ok(Step::Still);
        }
        let is_over = event.is_read_closed() || event.is_error();
        if self.phase == Phase::Handshaking && !self.handshake()? {
            return Ok(if before == Phase::Connecting { Step::Moved } else { Step::Still });
        }
        // An answer may come before the request is through, and a reset right after it: what can
        // be read decides.
        let sent = self.send(outbox);
        let step = match (event.is_readable() || is_over, &mut self.tls) {
            (false, _) => Step::Still,
            (true, None) => self.read_plain(reader, scratch, is_over)?,
            (true, Some(_)) => self.read_tls(reader, scratch)?,
        };
        match step {
            Step::Answered(mut answer) => {
                answer.keep_alive &= !is_over && outbox.written == outbox.bytes.len();
                Ok(Step::Answered(answer))
            }
            step => {
                sent?;
                Ok(if self.phase == before { step } else { Step::Moved })
            }
        }
    }

    fn is_established(&mut self) -> Result<bool, Cause> {
        if let Ok(Some(_)) | Err(_) = self.stream.take_error() {
            return Err(Cause::Refused);
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                // Python's library sets it too.
                let _ = self.stream.set_nodelay(true);
                let has_tls = self.tls.is_some();
                self.phase = if has_tls { Phase::Handshaking } else { Phase::Open };
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {
                Ok(false)
            }
            Err(_) => Err(Cause::Refused),
        }
    }

    /// Whether the handshake is done.
    fn handshake(&mut self) -> Result<bool, Cause> {
        loop {
            self.write_tls().map_err(|_| Cause::Tls)?;
            let Some(tls) = &mut self.tls else { return Ok(true) };
            if !tls.is_handshaking() {
                self.phase = Phase::Open;
                return Ok(true);
            }
            match tls.read_tls(&mut self.stream) {
                Ok(0) => return Err(Cause::Tls),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Err(Cause::Tls),
            }
            if tls.process_new_packets().is_err() {
                // Tells the server why, as far as it still listens.
                let _ = self.write_tls();
                return Err(Cause::Tls);
            }
        }
    }

    fn write_tls(&mut self) -> io::Result<()> {
        let Self { stream, tls: Some(tls), .. } = self else { return Ok(()) };
        while tls.wants_write() {
            match tls.write_tls(stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_plain(
        &mut self,
        reader: &mut Reader,
        scratch: &mut [u8],
        is_over: bool,
    ) -> Result<Step, Cause> {
        let mut step = Step::Still;
        loop {
            let bytes = match self.stream.read(scratch) {
                Ok(0) => return reader.end().map(Step::Answered).ok_or(Cause::Closed),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(step),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Cause::of(&error)),
            };
            step = Step::Moved;
            if let Some(answer) = reader.feed(&scratch[..bytes]).map_err(|_| Cause::Unreadable)? {
                return Ok(Step::Answered(answer));
            }
            // Short of the buffer: there was no more, and what comes makes a new edge.
            if bytes < scratch.len() && !is_over {
                return Ok(step);
            }
        }
    }

    fn read_tls(&mut self, reader: &mut Reader, scratch: &mut [u8]) -> Result<Step, Cause> {
        let mut step = Step::Still;
        let Self { stream, tls: Some(tls), .. } = self else { return Ok(step) };
        loop {
            match tls.reader().read(scratch) {
                Ok(0) => return reader.end().map(Step::Answered).ok_or(Cause::Closed),
                Ok(bytes) => {
                    let fed = reader.feed(&scratch[..bytes]).map_err(|_| Cause::Unreadable)?;
                    if let Some(answer) = fed {
                        return Ok(Step::Answered(answer));
                    }
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(Cause::of(&error)),
            }
            match tls.read_tls(stream) {
                // The reader says what an end of the connection means.
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(step),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Cause::of(&error)),
            }
            step = Step::Moved;
            tls.process_new_packets().map_err(|_| Cause::Unreadable)?;
        }
    }
}
