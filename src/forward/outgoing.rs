//! The HTTP/1.1 client of whoever sends to a host that the operator configured: the http sink, and
//! reconciling.
//!
//! It talks to the host it is asked for and to no other: no redirect is followed, no proxy is taken
//! from the environment, and an address at which nothing of ours may be (`address`) is not dialled. A
//! connection, with its name, TCP and TLS, is there in time or not at all.

use std::time::Duration;

use hyper::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::address::Resolver;
use super::connect::InTime;
use super::tls;
use crate::clock::Timestamp;
use crate::config::settings::ClientTls;

/// For a connection: name, TCP and TLS.
const CONNECT_MS_MAX: Duration = Duration::from_secs(10);

/// How long a connection waits for the next request. Shorter than servers usually wait for it (five
/// seconds and more), so that it is us who closes.
const IDLE_MS_MAX: Duration = Duration::from_secs(4);

/// The longest `Retry-After` that is believed, in seconds: a day.
const RETRY_AFTER_S_MAX: u64 = 24 * 60 * 60;

/// Keeps connections that wait for the next request.
pub type Client<B> = legacy::Client<InTime<HttpsConnector<HttpConnector<Resolver>>>, B>;

/// A client that speaks TLS in this way; in the runtime it is used from.
///
/// # Errors
/// If a file cannot be used; a sentence for the operator.
pub fn client<B>(tls: &ClientTls) -> Result<Client<B>, String>
where
    B: hyper::body::Body + Send,
    B::Data: Send,
{
    let mut tcp = HttpConnector::new_with_resolver(Resolver);
    // It is given https URLs too, by the connector around it.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let tls = HttpsConnectorBuilder::new().with_tls_config(tls::client_config(tls)?);
    let connector = tls.https_or_http().enable_http1().wrap_connector(tcp);
    let connector = InTime { connector, connect_ms_max: CONNECT_MS_MAX };
    // A request that was not written yet when its connection ended is sent on another one: that is
    // the client's default.
    Ok(legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_MS_MAX)
        .build(connector))
}

/// How long an answer asks to wait, if it does.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    headers.get(RETRY_AFTER).and_then(|value| wait(value, now))
}

/// How long `Retry-After` asks to wait: seconds, or a date. Nothing if it is neither.
fn wait(value: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let seconds = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than a number can hold is more than we believe.
        text.parse().unwrap_or(RETRY_AFTER_S_MAX)
    } else {
        let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        let micros = date.as_microsecond().saturating_sub(now.unix_micros());
        u64::try_from(micros).unwrap_or(0).div_ceil(1_000_000)
    };
    Some(Duration::from_secs(seconds.min(RETRY_AFTER_S_MAX)))
}
