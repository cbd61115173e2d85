//! An app, by POST over HTTP/1.1.
//!
//! One request a change. What the app answers decides:
//!
//! | answer | is |
//! |---|---|
//! | 2xx | taken |
//! | 408, 425, 429, 5xx, none | sent again, not before `Retry-After` has passed |
//! | 410 | the app is gone |
//! | any other | refused; a redirect too, because following one would send a change where nobody configured it |
//!
//! It talks to the host of its URL and to no other: no proxy is taken from the environment, and an
//! address at which no sink may be (`address`) is not dialled. Connections are kept as long
//! as the dispatcher has changes, as many as it sends at once; each serves one request at a time. Of
//! an answer's body nothing is kept.
//!
//! A request carries `webhook-id`, the change's id, in any format. With secrets it is signed by
//! `signature`.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use tokio::time::timeout;

use super::address;
use super::connect;
use super::event::{DATA, Event, STRUCTURED};
use super::fault::Fault;
use super::outgoing::{self, Client};
use super::signature::Signer;
use crate::client;
use crate::clock::{Clock, Timestamp};
use crate::config::settings::{HttpFormat, HttpSink};

/// What is read of an answer's body so that its connection can be used again; a longer one costs the
/// connection.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How long that may take. The answer is known by then.
const ANSWER_MS_MAX: Duration = Duration::from_millis(500);

/// The change's id.
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");

/// When it is sent, in seconds of Unix time.
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");

/// The signatures.
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Headers that nobody may configure, because they belong to the message or the connection.
const OURS: [&str; 8] = [
    "connection",
    "content-length",
    "content-type",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The sink.
pub struct Http {
    client: Client<Full<Bytes>>,
    uri: Uri,
    format: HttpFormat,
    signer: Signer,
    /// Of every request.
    headers: HeaderMap,
    clock: Clock,
}

impl fmt::Debug for Http {
    /// Without path and query, in which apps like to hide secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.uri.authority();
        f.debug_struct("Http").field("host", &host).field("format", &self.format).finish()
    }
}

impl Http {
    /// Prepares it.
    ///
    /// # Errors
    /// If a file cannot be used, the host is an address at which no sink may be, or a header is one
    /// that cannot be set.
    pub fn open(to: &HttpSink) -> Result<Self, String> {
        Self::open_at(to, Clock::system())
    }

    /// The same; signatures tell the time of that clock.
    ///
    /// # Errors
    /// As [`Http::open`].
    pub fn open_at(to: &HttpSink, clock: Clock) -> Result<Self, String> {
        if address::is_forbidden_literal(&to.url.host) {
            return Err(format!("no sink may be at {}", to.url.host));
        }
        Ok(Self {
            client: outgoing::client(&to.tls)?,
            uri: uri(to)?,
            format: to.format,
            signer: Signer::new(&to.secrets),
            headers: headers(to)?,
            clock,
        })
    }

    /// Sends one event.
    ///
    /// # Errors
    /// Whatever kept the app from accepting it.
    pub async fn send(&self, event: &Event) -> Result<(), Fault> {
        let request = self.request(event)?;
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| Fault::passing(connect::describe(&error)))?;
        let judged = judge(answer.status(), answer.headers(), self.clock.now());
        drain(answer).await;
        judged
    }

    fn request(&self, event: &Event) -> Result<Request<Full<Bytes>>, Fault> {
        let mut headers = self.headers.clone();
        let (media_type, body) = match self.format {
            HttpFormat::CloudEvents => (STRUCTURED, Bytes::from(event.structured())),
            HttpFormat::CloudEventsBinary => {
                for (name, value) in event.attributes() {
                    let name = HeaderName::try_from(format!("ce-{name}")).expect("a plain name");
                    headers.insert(name, attribute(&value));
                }
                (DATA, Bytes::copy_from_slice(event.data().as_bytes()))
            }
            HttpFormat::Raw => {
                let body = event.body.clone();
                (DATA, body.ok_or_else(|| Fault::refused("its callback is not kept here"))?)
            }
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        let id = event.id();
        headers.insert(WEBHOOK_ID, plain(&id));
        if self.signer.has_keys() {
            let seconds = self.clock.now().unix_micros().div_euclid(1_000_000);
            headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(seconds));
            headers.insert(WEBHOOK_SIGNATURE, plain(&self.signer.sign(&id, seconds, &body)));
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        Ok(request)
    }
}

fn uri(to: &HttpSink) -> Result<Uri, String> {
    let scheme = if to.url.is_https { "https" } else { "http" };
    let built = Uri::builder()
        .scheme(scheme)
        .authority(&*to.url.authority)
        .path_and_query(&*to.url.path)
        .build();
    built.map_err(|_| "the URL cannot be asked for".to_owned())
}

fn headers(to: &HttpSink) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let agent = concat!("receiptd/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    for (name, value) in &to.headers {
        let wrong = |problem: &str| format!("the header {name} {problem}");
        let key = HeaderName::try_from(name.as_str()).map_err(|_| wrong("is no header name"))?;
        let is_ours = OURS.contains(&key.as_str())
            || ["ce-", "webhook-"].iter().any(|prefix| key.as_str().starts_with(prefix));
        if is_ours {
            return Err(wrong("is set by receiptd"));
        }
        let mut value = HeaderValue::from_bytes(&value.0)
            .map_err(|_| wrong("has a value that no header can hold"))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    if let Some(token) = &to.bearer {
        let token = std::str::from_utf8(&token.0).ok();
        let value = token.and_then(client::bearer);
        let value = value.ok_or("the bearer holds what no header can")?;
        if headers.insert(AUTHORIZATION, value).is_some() {
            return Err("there is a bearer and a header authorization".to_owned());
        }
    }
    Ok(headers)
}

/// The value of an attribute as the HTTP binding of CloudEvents wants it (3.1.3.2): spaces, `"`, `%`
/// and whatever is not printable ASCII are percent-encoded.
fn attribute(value: &str) -> HeaderValue {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && byte != b'"' && byte != b'%' {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    plain(&text)
}

fn plain(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("printable ASCII")
}

/// What an answer means.
fn judge(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Result<(), Fault> {
    let why = format!("answered {}", status.as_u16());
    match status.as_u16() {
        200..=299 => Ok(()),
        408 | 425 | 429 | 500..=599 => {
            let retry_after = outgoing::retry_after(headers, now);
            Err(Fault::Passing { why, retry_after })
        }
        410 => Err(Fault::Gone { why }),
        300..=399 => Err(Fault::Refused { why: format!("{why}: redirects are not followed") }),
        _ => Err(Fault::Refused { why }),
    }
}

/// Reads a body to its end, so that the connection can be used again, if that is near.
async fn drain(answer: Response<Incoming>) {
    let mut body = answer.into_body();
    let mut left = ANSWER_BYTES_MAX;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(length) else { return };
            left = rest;
        }
    };
    // Whatever comes of it, the app has answered.
    let _ = timeout(ANSWER_MS_MAX, reading).await;
}
