//! The smallest HTTP/1.1 client that a sender could be: posts over one plain connection and reads
//! the code of each answer.
//!
//! For [`Receiver::post`](crate::Receiver::post) and `receiptd demo`, which talk to a receiver in
//! their own process. It knows no TLS, follows no redirect and sends nothing twice. Every wait has a
//! limit, and what was sent never becomes part of an error.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long connecting may take, and each answer: as long as the platforms wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest body of an answer, in bytes; ours are a line.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// One connection; serves one request after another, as long as the other side keeps it open.
#[derive(Debug)]
pub struct Connection {
    requests: SendRequest<Full<Bytes>>,
    host: HeaderValue,
}

impl Connection {
    /// Connects, on the runtime this is called on.
    ///
    /// # Errors
    /// If nobody listens there, or not in time.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = in_time(TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        let (requests, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Ends when `requests` is dropped; its errors are told to whoever waits for the answer.
        tokio::spawn(async move { drop(connection.await) });
        let host = HeaderValue::from_str(&address.to_string()).map_err(io::Error::other)?;
        Ok(Self { requests, host })
    }

    /// Posts `body` with these headers, to which only `Host` and `Content-Length` are added.
    /// Returns the code of the answer.
    ///
    /// # Errors
    /// If `path` is none, or no whole answer comes in time.
    pub async fn post(
        &mut self,
        path: &str,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> io::Result<u16> {
        headers.insert(HOST, self.host.clone());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.parse().map_err(io::Error::other)?;
        *request.headers_mut() = headers;
        in_time(self.exchange(request)).await
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> io::Result<u16> {
        self.requests.ready().await.map_err(io::Error::other)?;
        let response = self.requests.send_request(request).await.map_err(io::Error::other)?;
        let code = response.status().as_u16();
        // To its end, so that the connection can be used again.
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        body.collect().await.map_err(io::Error::other)?;
        Ok(code)
    }
}

/// The value of `Authorization` for this token; it does not print.
///
/// # Errors
/// If the token holds what no header can.
pub fn bearer(token: &str) -> io::Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, "no header can hold this token")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

async fn in_time<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
