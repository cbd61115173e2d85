//! Checked settings: if one of these exists, it is right.
//!
//! Nothing here is ever checked again elsewhere. Times are in milliseconds, sizes in bytes, counts
//! in the noun before `_max`; why each exists and what it is by default stands in
//! `config/receiptd.toml`, the only home of defaults.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;

#[cfg(feature = "sink-amqp")]
pub use super::settings_sink::AmqpSink;
#[cfg(feature = "sink-nats")]
pub use super::settings_sink::NatsSink;
#[cfg(feature = "sink-postgres")]
pub use super::settings_sink::PostgresSink;
#[cfg(feature = "sink-redis")]
pub use super::settings_sink::RedisSink;
#[cfg(feature = "sink-sqs")]
pub use super::settings_sink::SqsSink;
pub use super::settings_sink::{
    ClientTls, Deliver, Endpoint, FileSink, HttpFormat, HttpSink, Login, Sink, To,
};
pub use super::upstream::{ApiKey, Upstream};
use crate::provider::Dialect;

/// Everything `receiptd serve` needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where callbacks arrive.
    pub listen: SocketAddr,
    /// Health, metrics, the settled barrier, what readers ask.
    pub admin_listen: SocketAddr,
    /// The two files.
    pub store: Store,
    /// Who may call; empty only when nothing was configured (then `serve` makes `default`).
    pub sources: Vec<Source>,
    /// Every bound.
    pub limits: Limits,
    /// TLS on `listen`, if configured.
    pub tls: Option<Tls>,
    /// What is logged and how.
    pub log: Log,
    /// Where changes are forwarded.
    pub sinks: Vec<Sink>,
}

/// Where callbacks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// In two SQLite files.
    Sqlite,
    /// Nowhere: a callback is answered 2xx once every matching sink has accepted it.
    None,
}

/// The two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Whether there are any.
    pub kind: StoreKind,
    /// The state file; the journal is this with `.db` replaced by `.callbacks.db`.
    pub path: PathBuf,
    /// Below this much free space callbacks are answered 503 before the disk is full.
    pub free_bytes_min: u64,
    /// Kept preallocated beside the journal, given back to get out of a full disk.
    pub reserve_bytes: u64,
    /// Start even where file locks may not hold.
    pub network_file_system: bool,
}

impl Store {
    /// The journal beside the state.
    pub fn journal_path(&self) -> PathBuf {
        crate::journal::path_beside(&self.path)
    }
}

/// A configured caller.
#[derive(Clone, Debug)]
pub struct Source {
    /// Label in the database, logs and metrics.
    pub name: Arc<str>,
    /// How its callbacks are understood.
    pub dialect: Dialect,
    /// The path it posts to, beginning with `/`.
    pub path: String,
    /// How it proves who it is: any one suffices.
    pub credentials: Credentials,
    /// Who may ask what is known of its messages.
    pub readers: Vec<Reader>,
    /// Where its platform is asked for what it never called back about.
    pub upstream: Option<Upstream>,
}

/// An app that may ask what is known of the messages of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// The service that the app's API key names: a UUID in lower case.
    pub service_id: String,
    /// The end of the app's API key: 36 characters.
    pub secret: Secret,
}

/// How a source may prove who it is. At least one is configured, and any one suffices.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Static bearers.
    pub tokens: Vec<Token>,
    /// A secret in a named header.
    pub header: Option<HeaderSecret>,
    /// Signed tokens.
    pub jwt: Option<Jwt>,
    /// VA Notify's `x-enp-signature` over the body.
    pub signature: Option<Secret>,
}

/// One static bearer, known only by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Names it in logs and metrics.
    pub label: String,
    /// SHA-256 of the bearer's bytes.
    pub sha256: [u8; 32],
    /// The last day, UTC, on which it is accepted.
    pub not_after: Option<Date>,
}

/// A token whose last day is so near, in days, is warned of.
const ENDS_SOON_DAYS: i32 = 14;

impl Token {
    /// Whether it has a last day that has not passed but will within two weeks.
    pub fn ends_soon(&self, today: Date) -> bool {
        let limit = today.saturating_add(jiff::Span::new().days(ENDS_SOON_DAYS));
        self.not_after.is_some_and(|last_day| (today..=limit).contains(&last_day))
    }
}

/// A static secret in a named header, known only by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderSecret {
    /// Lower case.
    pub name: String,
    /// SHA-256 of the value's bytes.
    pub sha256: [u8; 32],
}

/// How a JWT in `Authorization: Bearer` is verified. The algorithm is pinned here; what the token
/// says of itself only has to agree.
#[derive(Clone, Debug)]
pub struct Jwt {
    /// HS256, RS256 or ES256.
    pub algorithm: JwtAlgorithm,
    /// Read and parsed from the configured file at start and at reload; never empty.
    pub keys: Vec<JwtKey>,
    /// `iss` must be this, if set.
    pub issuer: Option<String>,
    /// `aud` must hold this, if set.
    pub audience: Option<String>,
    /// How far the clocks may differ.
    pub leeway_s: u64,
}

/// The algorithms a source may pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

/// A key that fits the pinned algorithm.
#[derive(Clone)]
pub struct JwtKey {
    /// The `kid` it has in its JSON Web Key Set, if it came from one and has one.
    pub kid: Option<String>,
    /// The key itself.
    pub key: jsonwebtoken::DecodingKey,
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Bytes that never print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// TLS on the callback listener. The files are read by `receive::tls`, again whenever they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM, leaf first.
    pub cert_file: PathBuf,
    /// PEM, PKCS#8, PKCS#1 or SEC1.
    pub key_file: PathBuf,
    /// PEM; when set, a caller must show a certificate that one of these issued.
    pub client_ca_file: Option<PathBuf>,
}

/// Every bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections on the callback listener.
    pub connections_max: usize,
    /// A request's head, in bytes; the answer beyond it is 431.
    pub header_bytes_max: usize,
    /// A request's body, in bytes; the answer beyond it is 413.
    pub body_bytes_max: usize,
    /// TLS handshake.
    pub handshake_ms_max: Duration,
    /// From a request's first byte (for a new connection: from its start) to the end of its head.
    pub header_ms_max: Duration,
    /// From the end of the head to the end of the body.
    pub body_ms_max: Duration,
    /// How long an authenticated connection may be silent between requests.
    pub idle_ms_max: Duration,
    /// Callbacks that may wait for the writer.
    pub queue_callbacks_max: usize,
    /// Bytes of callbacks that may wait for the writer.
    pub queue_bytes_max: usize,
    /// Callbacks in one commit of the journal.
    pub batch_callbacks_max: usize,
    /// How long a request waits for the writer before it is answered 503.
    pub ack_wait_ms_max: Duration,
    /// Callbacks in one transaction of settling.
    pub settle_callbacks_max: usize,
    /// How long stopping may take.
    pub drain_ms_max: Duration,
}

/// What is logged and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// The least important level that is still written.
    pub level: tracing::Level,
}

/// For people or for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text an event.
    Text,
    /// One JSON object an event.
    Json,
}
