//! An app of a few lines, byte for byte: what it was sent, and whatever answer a test wants.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::servers::local;

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Method, path and version.
    pub line: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The bytes after the head.
    pub body: Vec<u8>,
}

impl Received {
    /// The one header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let first = found.next();
        assert_eq!(found.next(), None, "{name} stands there twice");
        first
    }
}

/// What the app does with a request, having read it.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Sends these bytes and reads on.
    Bytes(Vec<u8>),
    /// Sends these bytes and closes.
    Last(Vec<u8>),
    /// Sends these bytes again and again until the other side has had enough.
    Endless(Vec<u8>),
    /// Says nothing, and keeps the connection.
    Nothing,
}

impl Reply {
    /// A status and nothing else.
    pub fn status(status: u16) -> Self {
        Self::with(status, "")
    }

    /// A status with these header lines.
    pub fn with(status: u16, lines: &str) -> Self {
        Self::Bytes(Self::head(status, lines))
    }

    fn head(status: u16, lines: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status} Any\r\n{lines}content-length: 0\r\n\r\n").into_bytes()
    }

    /// A status, and the end of the connection without a word about it.
    pub fn last(status: u16) -> Self {
        Self::Last(Self::head(status, ""))
    }
}

/// An app that listens until the test process ends.
pub struct App {
    pub address: SocketAddr,
    reply: Arc<Mutex<Reply>>,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
}

impl App {
    /// One that answers so.
    pub fn start(reply: Reply) -> Self {
        Self::start_with(reply, None)
    }

    /// One that speaks TLS.
    pub fn start_tls(reply: Reply, tls: ServerConfig) -> Self {
        Self::start_with(reply, Some(Arc::new(tls)))
    }

    fn start_with(reply: Reply, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(local(0)).unwrap();
        let address = listener.local_addr().unwrap();
        let app = Self {
            address,
            reply: Arc::new(Mutex::new(reply)),
            received: Arc::default(),
            connections: Arc::default(),
        };
        let (reply, received) = (Arc::clone(&app.reply), Arc::clone(&app.received));
        let connections = Arc::clone(&app.connections);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                connections.fetch_add(1, Ordering::Relaxed);
                let (reply, received) = (Arc::clone(&reply), Arc::clone(&received));
                let tls = tls.clone();
                thread::spawn(move || match tls {
                    None => serve(stream, &reply, &received),
                    Some(tls) => {
                        let tls = ServerConnection::new(tls).unwrap();
                        serve(StreamOwned::new(tls, stream), &reply, &received)
                    }
                });
            }
        });
        app
    }

    /// From now on.
    pub fn set(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    /// Everything so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The one request there was.
    pub fn only(&self) -> Received {
        let all = self.received();
        assert_eq!(all.len(), 1);
        all.into_iter().next().unwrap()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Until the other side, or the reply, ends it.
fn serve<S: Read + Write>(
    stream: S,
    reply: &Mutex<Reply>,
    received: &Mutex<Vec<Received>>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream)? {
        received.lock().unwrap().push(request);
        let reply = reply.lock().unwrap().clone();
        match reply {
            Reply::Bytes(bytes) => stream.get_mut().write_all(&bytes)?,
            Reply::Last(bytes) => return stream.get_mut().write_all(&bytes),
            Reply::Endless(bytes) => loop {
                stream.get_mut().write_all(&bytes)?;
                stream.get_mut().flush()?;
            },
            Reply::Nothing => {}
        }
        stream.get_mut().flush()?;
    }
    Ok(())
}

fn read(stream: &mut impl BufRead) -> io::Result<Option<Received>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").unwrap();
    let mut body = vec![0; length.1.parse().unwrap()];
    stream.read_exact(&mut body)?;
    Ok(Some(Received { line: lines[0].clone(), headers, body }))
}

/// Nobody listens there.
pub fn nobody() -> SocketAddr {
    let listener = TcpListener::bind(local(0)).unwrap();
    listener.local_addr().unwrap()
}
