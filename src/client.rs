//! A small HTTP/1.1 client, as patient as the senders are: for `replay --to`, `demo`,
//! `healthcheck` and [`Receiver::post`](crate::Receiver::post).
//!
//! It talks to the host it was asked for and to no other: no redirect is followed, no proxy taken
//! from the environment. Connecting and answering each have a time limit, what is kept of an answer
//! has a size limit, and what is sent never becomes part of an error.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// What is kept of an answer's body; the rest is dropped, and the connection with it.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What is shown of an answer's body.
const LINE_CHARS_MAX: usize = 200;

/// How a client behaves. By default as the senders do.
#[derive(Clone, Debug)]
pub struct Options {
    /// For looking up the name, connecting and the TLS handshake together.
    pub connect_ms_max: Duration,
    /// From the first byte sent to the last byte of the answer.
    pub answer_ms_max: Duration,
    /// Whether one connection serves several requests.
    pub keep_alive: bool,
    /// PEM: authorities to be trusted beside those of this machine.
    pub ca_file: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        let (connect_ms_max, answer_ms_max) = (Duration::from_secs(5), Duration::from_secs(5));
        Self { connect_ms_max, answer_ms_max, keep_alive: true, ca_file: None }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It is no URL we can ask.
    #[error("{0}")]
    Url(String),
    /// Nothing to check the server's certificate against.
    #[error("{0}")]
    Trust(String),
    /// Nobody there, or nobody to be trusted.
    #[error("failed to connect to {authority}: {problem}")]
    Connect {
        /// Host and port.
        authority: String,
        /// The system's own words.
        problem: String,
    },
    /// The answer was broken off or is no HTTP.
    #[error("failed to get an answer from {authority}: {problem}")]
    Answer {
        /// Host and port.
        authority: String,
        /// The library's own words.
        problem: String,
    },
}

/// Where to connect to, and what to ask for there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whether to speak TLS.
    pub is_https: bool,
    /// Name or address, without the brackets of an IPv6 address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Host and port as the `Host` header wants them.
    pub authority: String,
    /// Path and query; at least `/`.
    pub path: String,
}

/// The port of a URL is no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAPort;

/// The port of a URL; `None` if it names none.
///
/// # Errors
/// [`NotAPort`]: the URL library takes one beyond 65535 for none, which would call somebody else.
pub fn port(authority: &Authority) -> Result<Option<u16>, NotAPort> {
    let after_host =
        authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, rest)| rest);
    let rest = after_host.strip_prefix(authority.host()).unwrap_or("");
    if rest.is_empty() {
        return Ok(None);
    }
    let port = rest.strip_prefix(':').and_then(|port| port.parse::<u16>().ok());
    port.filter(|port| *port != 0).map(Some).ok_or(NotAPort)
}

impl Target {
    /// Reads an absolute `http` or `https` URL. One with a user name or a password is refused: it
    /// would end up in the process list and in logs.
    ///
    /// # Errors
    /// [`ClientError::Url`].
    pub fn parse(url: &str) -> Result<Self, ClientError> {
        let wrong = |problem: &str| ClientError::Url(format!("expected a URL {problem}"));
        let uri: Uri = url
            .parse()
            .map_err(|_| wrong("such as https://receiptd.example/callbacks/passport"))?;
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("that begins with http:// or https://")),
        };
        let authority = uri.authority().cloned().ok_or_else(|| wrong("with a host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("without a user name or password"));
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(wrong("with a host"));
        }
        let port = port(&authority).map_err(|NotAPort| wrong("with a port from 1 to 65535"))?;
        Ok(Self {
            is_https,
            host: host.to_owned(),
            port: port.unwrap_or(if is_https { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    /// Whom the certificate must name.
    ///
    /// # Errors
    /// [`ClientError::Url`].
    pub fn server_name(&self) -> Result<ServerName<'static>, ClientError> {
        ServerName::try_from(self.host.clone())
            .map_err(|_| ClientError::Url("expected a host that a certificate can name".to_owned()))
    }
}

/// What the server said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The first [`ANSWER_BYTES_MAX`] bytes of the body.
    pub body: Bytes,
}

impl Answer {
    /// The first line of the body, for people: without control characters, and not endless.
    pub fn first_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let line = text.lines().next().unwrap_or("").trim();
        line.chars().filter(|c| !c.is_control()).take(LINE_CHARS_MAX).collect()
    }
}

/// The value of `Authorization` that shows this token; it does not print. `None` if the token holds
/// what no header can.
pub fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A client of one host.
#[derive(Debug)]
pub struct Client {
    target: Target,
    options: Options,
    tls: Option<Tls>,
    open: Option<SendRequest<Full<Bytes>>>,
}

/// What a TLS handshake with the target takes.
pub(crate) struct Tls {
    /// Trusts the machine's authorities and those of the file.
    pub connector: TlsConnector,
    /// Whom the certificate must name.
    pub name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tls").field(&self.name).finish()
    }
}

impl Client {
    /// A client of the target's host; connects when first asked.
    ///
    /// # Errors
    /// If the target is https and there is nothing to check its certificate against.
    pub fn new(target: Target, options: Options) -> Result<Self, ClientError> {
        let tls = target.is_https.then(|| tls(&target, &options)).transpose()?;
        Ok(Self { target, options, tls, open: None })
    }

    /// Asks for the target's own path.
    ///
    /// # Errors
    /// If there is no answer in time.
    pub async fn get(&mut self) -> Result<Answer, ClientError> {
        let path = self.target.path.clone();
        self.request(Method::GET, &path, HeaderMap::new(), Bytes::new()).await
    }

    /// Posts to the target's own path.
    ///
    /// # Errors
    /// If there is no answer in time.
    pub async fn post(&mut self, headers: HeaderMap, body: Bytes) -> Result<Answer, ClientError> {
        let path = self.target.path.clone();
        self.request(Method::POST, &path, headers, body).await
    }

    /// Sends one request to any path of the host and waits for the answer. Nothing is sent twice,
    /// but for a request that never left because a kept connection had been closed meanwhile.
    ///
    /// # Errors
    /// If there is no answer in time.
    pub async fn request(
        &mut self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| {
            ClientError::Url("expected a path that begins with / and has no spaces".to_owned())
        })?;
        *request.headers_mut() = headers;
        let host = HeaderValue::from_str(&self.target.authority)
            .map_err(|_| ClientError::Url("expected a host in ASCII".to_owned()))?;
        request.headers_mut().insert(HOST, host);
        if !self.options.keep_alive {
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let kept = self.open.take().filter(|open| !open.is_closed());
        let request = match kept {
            None => request,
            Some(open) => match self.exchange(open, request).await? {
                Sent::Answer(answer) => return Ok(answer),
                Sent::NotAtAll(request) => *request,
            },
        };
        let open = self.connect().await?;
        match self.exchange(open, request).await? {
            Sent::Answer(answer) => Ok(answer),
            Sent::NotAtAll(_) => Err(self.no_answer("the connection was closed at once")),
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let refused = |problem: String| ClientError::Connect {
            authority: self.target.authority.clone(),
            problem,
        };
        let limit = self.options.connect_ms_max;
        match timeout(limit, self.try_connect()).await {
            Ok(result) => result.map_err(|error| refused(error.to_string())),
            Err(_) => Err(refused(format!("no connection within {} ms", limit.as_millis()))),
        }
    }

    async fn try_connect(&self) -> std::io::Result<SendRequest<Full<Bytes>>> {
        let socket = TcpStream::connect((self.target.host.as_str(), self.target.port)).await?;
        socket.set_nodelay(true)?;
        match &self.tls {
            None => handshake(socket).await,
            Some(Tls { connector, name }) => {
                handshake(connector.connect(name.clone(), socket).await?).await
            }
        }
    }

    async fn exchange(
        &mut self,
        mut open: SendRequest<Full<Bytes>>,
        request: Request<Full<Bytes>>,
    ) -> Result<Sent, ClientError> {
        let limit = self.options.answer_ms_max;
        let exchange = async {
            let response = match open.try_send_request(request).await {
                Ok(response) => response,
                Err(mut error) => {
                    return match error.take_message() {
                        Some(request) => Ok((Sent::NotAtAll(Box::new(request)), false)),
                        None => Err(error.into_error()),
                    };
                }
            };
            read(response).await.map(|(answer, is_whole)| (Sent::Answer(answer), is_whole))
        };
        match timeout(limit, exchange).await {
            Ok(Ok((sent, is_whole))) => {
                self.open = (is_whole && self.options.keep_alive).then_some(open);
                Ok(sent)
            }
            Ok(Err(error)) => Err(self.no_answer(&error.to_string())),
            Err(_) => Err(self.no_answer(&format!("none within {} ms", limit.as_millis()))),
        }
    }

    fn no_answer(&self, problem: &str) -> ClientError {
        ClientError::Answer {
            authority: self.target.authority.clone(),
            problem: problem.to_owned(),
        }
    }
}

enum Sent {
    Answer(Answer),
    /// The connection was closed before the first byte; here is the request again.
    NotAtAll(Box<Request<Full<Bytes>>>),
}

async fn handshake<S>(stream: S) -> std::io::Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (open, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
    // Its errors are told to whoever waits for the answer.
    tokio::spawn(async move { drop(connection.await) });
    Ok(open)
}

/// The answer, and whether it was read to its end.
pub(crate) async fn read(response: Response<Incoming>) -> Result<(Answer, bool), hyper::Error> {
    let (head, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    let mut is_whole = true;
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = ANSWER_BYTES_MAX - body.len();
        body.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            is_whole = false;
            break;
        }
    }
    let answer = Answer { code: head.status.as_u16(), headers: head.headers, body: body.into() };
    Ok((answer, is_whole))
}

pub(crate) fn tls(target: &Target, options: &Options) -> Result<Tls, ClientError> {
    let config = tls_config(options.ca_file.as_deref())?;
    Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name: target.server_name()? })
}

/// What to check a server's certificate with: the authorities of this machine and of `ca_file`.
///
/// # Errors
/// [`ClientError::Trust`] if that file cannot be used, or there is nothing to check with.
pub fn tls_config(ca_file: Option<&Path>) -> Result<ClientConfig, ClientError> {
    Ok(ClientConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Trust(error.to_string()))?
        .with_root_certificates(roots(ca_file)?)
        .with_no_client_auth())
}

/// The machine's authorities and those of the file.
pub(crate) fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    // What cannot be read there is not trusted; only if nothing is left is that an error.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let wrong = |problem: &dyn std::fmt::Display| {
            ClientError::Trust(format!("failed to read {}: {problem}", path.display()))
        };
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        if roots.len() == before {
            return Err(wrong(&"it holds no certificate"));
        }
    }
    if roots.is_empty() {
        return Err(ClientError::Trust(
            "this machine has no root certificates: name some with --ca-file".to_owned(),
        ));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_none_is_refused_and_not_taken_for_the_default() {
        let port = |url: &str| Target::parse(url).map(|target| target.port).ok();
        assert_eq!(port("http://h/"), Some(80));
        assert_eq!(port("https://[::1]/"), Some(443));
        assert_eq!(port("http://[::1]:8080/x"), Some(8080));
        for wrong in ["http://h:65536/", "http://h:99999/", "http://h:0/", "http://h:/"] {
            assert_eq!(port(wrong), None, "{wrong}");
        }
    }
}
