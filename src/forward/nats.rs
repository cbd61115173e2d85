//! NATS JetStream: one message an event, to `<subject>.<source>.<kind>`.
//!
//! A message is a CloudEvents event in structured mode, as the NATS binding of CloudEvents has it:
//! the whole event as JSON, and the header `content-type`. Whoever takes messages out of a stream
//! with the tools at hand, which show bodies and seldom headers, then has all of it. The header
//! `Nats-Msg-Id` is the id of the change, so that the stream drops what it had within its
//! `duplicate_window` (two minutes unless its maker asked for more).
//!
//! `Ok` means that the server acknowledged: the stream has the message. A stream with file storage
//! and several replicas then survives the loss of a machine. With one replica it survives the end of
//! the server; whether it survives a power cut depends on `sync_interval` of the server (two minutes
//! unless it says `always`), and no client can ask for that.
//!
//! The client of NATS would reconnect by itself and send then what it still holds, long after we
//! have told the outbox that the attempt failed. So here a client is one connection: it never
//! reconnects, what is under way on it fails at once when it is lost, and the next send makes a new
//! one. An attempt that was abandoned leaves its connection in doubt (it may hang, and an answer that
//! never comes is never forgotten there), so what comes after goes over a new one, while others still
//! under way finish on the old.
//!
//! What is wrong with the streams (none takes the subject, another one than expected does, it is
//! full or sealed) and with our rights is no fault of the change and is mended by an operator: it
//! may pass. Only a message that is too large is refused.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::context::{
    GetStreamByNameErrorKind, GetStreamErrorKind, PublishError, PublishErrorKind,
};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::StorageType;
use async_nats::jetstream::{self, Context, ContextBuilder, ErrorCode};
use async_nats::{Auth, AuthError, ConnectErrorKind, ConnectOptions, ServerAddr};
use tokio::sync::{Mutex, watch};
use tokio_rustls::rustls::ClientConfig;

use super::event::Event;
use super::fault::Fault;
use super::tls;
use crate::config::settings::{Endpoint, NatsSink};

/// The media type of the binding; JSON needs no charset.
const STRUCTURED: &str = "application/cloudevents+json";

/// Until a server has answered; then the next one is tried.
const CONNECT_S_MAX: Duration = Duration::from_secs(5);

/// Silence after which the server is asked whether it is there; the third question without an answer
/// ends the connection.
const PING_S: Duration = Duration::from_secs(10);

/// Acknowledgements awaited on one connection. More than a dispatcher ever has under way.
const IN_FLIGHT_MAX: usize = 4096;

/// Commands between us and the task that writes them.
const QUEUE_MAX: usize = 256;

/// Until a message counts as not acknowledged, if its attempt has no shorter time.
const ACK_S_MAX: Duration = Duration::from_secs(120);

/// Until a question about a stream counts as not answered.
const ASK_S_MAX: Duration = Duration::from_secs(10);

/// The sink.
pub struct Nats {
    servers: Vec<ServerAddr>,
    subject: String,
    stream: Option<String>,
    auth: Auth,
    tls: Option<ClientConfig>,
    link: Mutex<Option<Arc<Link>>>,
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// One connection.
struct Link {
    jetstream: Context,
    /// Why it is lost, once it is.
    lost: watch::Receiver<Option<&'static str>>,
    /// An attempt on it was abandoned.
    is_in_doubt: AtomicBool,
}

/// Puts a connection in doubt unless the attempt on it came to its end.
struct Attempt<'a> {
    link: &'a Link,
    has_ended: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.link.is_in_doubt.store(true, Ordering::Relaxed);
        }
    }
}

impl Nats {
    /// Prepares it.
    ///
    /// # Errors
    /// If a file cannot be used or a host is no host.
    pub fn open(to: &NatsSink) -> Result<Self, String> {
        let servers = to.servers.iter().map(address).collect::<Result<Vec<_>, _>>()?;
        let is_tls = to.servers.iter().any(|server| server.is_tls);
        let tls = if is_tls { Some(tls::client_config(&to.tls)?) } else { None };
        let mut auth = Auth::new();
        if let Some(login) = &to.login {
            auth.username = Some(login.user.clone());
            auth.password = Some(text(&login.password.0, "password")?);
        }
        if let Some(token) = &to.token {
            auth.token = Some(text(&token.0, "token")?);
        }
        let (subject, stream) = (to.subject.clone(), to.stream.clone());
        Ok(Self { servers, subject, stream, auth, tls, link: Mutex::new(None) })
    }

    /// Sends one event.
    ///
    /// # Errors
    /// Whatever kept the stream from acknowledging it.
    pub async fn send(&self, event: &Event) -> Result<(), Fault> {
        let subject = format!("{}.{}.{}", self.subject, event.change.source, event.change.what);
        let mut message = PublishMessage::build()
            .payload(event.structured().into())
            .header("content-type", STRUCTURED)
            .message_id(event.id());
        if let Some(stream) = &self.stream {
            message = message.expected_stream(stream);
        }
        self.link().await?.publish(subject, message).await
    }

    /// Whether what it accepts survives the end of the server: whether one stream takes every event
    /// and keeps it in files. How soon the server syncs these cannot be asked.
    ///
    /// # Errors
    /// Why not, in a sentence.
    pub async fn check_durable(&self) -> Result<(), String> {
        let asked = async {
            let link = self.link().await.map_err(|fault| fault.to_string())?;
            self.check_stream(&link.jetstream).await
        };
        tokio::time::timeout(ASK_S_MAX, asked).await.unwrap_or_else(|_| {
            Err("the server did not say in time which stream it has".to_owned())
        })
    }

    async fn check_stream(&self, jetstream: &Context) -> Result<(), String> {
        let ours = format!("{}.*.*", self.subject);
        let name = match &self.stream {
            Some(name) => name.clone(),
            None => {
                let found = jetstream.stream_by_subject(&ours).await;
                found.map_err(|error| match error.kind() {
                    GetStreamByNameErrorKind::NotFound => format!("no stream takes {ours}"),
                    _ => format!("it cannot be told which stream takes {ours}"),
                })?
            }
        };
        let stream = jetstream.get_stream(&name).await.map_err(|error| match error.kind() {
            GetStreamErrorKind::JetStream(error)
                if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                format!("there is no stream {name}")
            }
            _ => format!("it cannot be told what the stream {name} is like"),
        })?;
        let config = &stream.cached_info().config;
        if !config.subjects.iter().any(|pattern| takes(pattern, &ours)) {
            return Err(format!("the stream {name} does not take all of {ours}"));
        }
        if config.no_ack {
            return Err(format!("the stream {name} acknowledges nothing (no_ack)"));
        }
        if config.storage != StorageType::File {
            return Err(format!("the stream {name} keeps messages in memory, not in files"));
        }
        Ok(())
    }

    /// The connection, a new one if there is none or none to rely on.
    async fn link(&self) -> Result<Arc<Link>, Fault> {
        let mut current = self.link.lock().await;
        if let Some(link) = current.as_ref().filter(|link| link.is_well()) {
            return Ok(Arc::clone(link));
        }
        *current = None;
        let link = Arc::new(self.connect().await?);
        *current = Some(Arc::clone(&link));
        Ok(link)
    }

    /// A client that connects once. It asks for our credentials with every connection it makes and
    /// gets none for a second, which ends it.
    async fn connect(&self) -> Result<Link, Fault> {
        let was_connected = Arc::new(AtomicBool::new(false));
        let (auth, was) = (self.auth.clone(), Arc::clone(&was_connected));
        let (lose, lost) = watch::channel(None);
        let mut options =
            ConnectOptions::with_auth_callback(move |_nonce| {
                let auth = auth.clone();
                let is_again = was.load(Ordering::Relaxed);
                async move {
                    if is_again { Err(AuthError::new("one connection each")) } else { Ok(auth) }
                }
            })
            .name("receiptd")
            .connection_timeout(CONNECT_S_MAX)
            .ping_interval(PING_S)
            .client_capacity(QUEUE_MAX)
            .ignore_discovered_servers()
            .max_reconnects(self.servers.len())
            .event_callback(move |event| {
                if let Some(why) = loss(&event) {
                    lose.send_if_modified(|before| before.is_none() && before.insert(why) == &why);
                }
                async {}
            });
        if let Some(tls) = &self.tls {
            options = options.tls_client_config(tls.clone());
        }
        let client = options.connect(&self.servers[..]).await.map_err(|error| {
            Fault::passing(match (error.kind(), io_kind(&error)) {
                (ConnectErrorKind::Io, Some(kind)) => format!("failed to connect: {kind}"),
                (kind, _) => format!("failed to connect: {kind}"),
            })
        })?;
        was_connected.store(true, Ordering::Relaxed);
        let jetstream = ContextBuilder::new()
            .timeout(ACK_S_MAX)
            .ack_timeout(ACK_S_MAX)
            .max_ack_inflight(IN_FLIGHT_MAX)
            .backpressure_on_inflight(true)
            .build(client);
        Ok(Link { jetstream, lost, is_in_doubt: AtomicBool::new(false) })
    }
}

impl Link {
    fn is_well(&self) -> bool {
        let is_lost = self.lost.borrow().is_some() || self.lost.has_changed().is_err();
        !is_lost && !self.is_in_doubt.load(Ordering::Relaxed)
    }

    /// Publishes, and waits for the stream to say that it has it.
    async fn publish(&self, subject: String, message: PublishMessage) -> Result<(), Fault> {
        let mut attempt = Attempt { link: self, has_ended: false };
        let mut lost = self.lost.clone();
        let acknowledged = async { self.jetstream.send_publish(subject, message).await?.await };
        let outcome = tokio::select! {
            biased;
            outcome = acknowledged => outcome.map(drop).map_err(|error| fault(&error)),
            why = lost.wait_for(Option::is_some) => {
                let why = why.ok().and_then(|why| *why).unwrap_or("the connection ended");
                Err(Fault::passing(why))
            }
        };
        attempt.has_ended = true;
        outcome
    }
}

/// Why nothing more can be expected of a connection after that event.
fn loss(event: &async_nats::Event) -> Option<&'static str> {
    use async_nats::Event::{Closed, Disconnected, ServerError};
    match event {
        Disconnected | Closed => Some("the connection was lost"),
        // There is no other answer to what we have no right to publish. It says for which subject,
        // and so is not passed on.
        ServerError(error)
            if error.to_string().to_lowercase().contains("permissions violation") =>
        {
            Some("the server denies us the subject, or the answers to it")
        }
        _ => None,
    }
}

/// Whether the message could ever be taken, and what to call what kept it from being.
fn fault(error: &PublishError) -> Fault {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => {
            return Fault::refused("it is larger than max_payload of the server");
        }
        PublishErrorKind::StreamNotFound => {
            return Fault::passing("no stream takes the subject, or JetStream is not there");
        }
        PublishErrorKind::BrokenPipe => return Fault::passing("the connection was lost"),
        PublishErrorKind::TimedOut => return Fault::passing("not acknowledged in time"),
        _ => {}
    }
    let answer = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
    let Some(code) = answer.map(jetstream::Error::error_code) else {
        return Fault::passing("failed to publish");
    };
    match code {
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => {
            Fault::refused("it is larger than max_msg_size of the stream")
        }
        ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            Fault::refused("its headers are larger than the stream takes")
        }
        ErrorCode::STREAM_NOT_MATCH => {
            Fault::passing("another stream than the configured one takes the subject")
        }
        ErrorCode(code) => Fault::passing(format!("the stream answered with error {code}")),
    }
}

/// The kind of the first I/O error among the causes.
fn io_kind(error: &(dyn Error + 'static)) -> Option<std::io::ErrorKind> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}

fn address(server: &Endpoint) -> Result<ServerAddr, String> {
    let scheme = if server.is_tls { "tls" } else { "nats" };
    let Endpoint { host, port, .. } = server;
    let url = if host.contains(':') {
        format!("{scheme}://[{host}]:{port}")
    } else {
        format!("{scheme}://{host}:{port}")
    };
    url.parse().map_err(|_| format!("{host} is no host"))
}

fn text(secret: &[u8], what: &str) -> Result<String, String> {
    let text = std::str::from_utf8(secret).map_err(|_| format!("the {what} is no text"))?;
    Ok(text.to_owned())
}

/// Whether a stream with the subject `pattern` takes everything that `subject`, which may have
/// wildcards itself, stands for.
fn takes(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(wanted), Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::takes;

    #[test]
    fn a_stream_takes_all_of_a_subject_or_not() {
        for pattern in ["changes.*.*", "changes.>", "*.*.*", ">", "*.>"] {
            assert!(takes(pattern, "changes.*.*"), "{pattern}");
        }
        for pattern in
            ["changes.*", "changes", "changes.a.*", "changes.*.*.*", "other.>", "changes.*.status"]
        {
            assert!(!takes(pattern, "changes.*.*"), "{pattern}");
        }
        assert!(takes("a.b.*.*", "a.b.*.*"), "of more tokens");
    }
}
