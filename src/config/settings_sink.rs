//! Checked settings of sinks: what all have in common ([`Sink`]), and then each kind ([`To`]).
//!
//! As all of [`super::settings`], which shows these too: if one exists, it is right. A kind that this
//! program was built without is not here.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::settings::Secret;
use crate::change::Filter;

/// Where changes are forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    /// Label in the database, logs and metrics.
    pub name: Arc<str>,
    /// What it wants to hear of.
    pub filter: Filter,
    /// Whether every change is owed to it, or only the latest of each notification and kind.
    pub deliver: Deliver,
    /// Whether the data holds the callback as it came.
    pub include_raw: bool,
    /// How long one attempt may take.
    pub attempt_ms_max: Duration,
    /// Attempts after which a change is parked; `None`: the age alone decides.
    pub attempts_max: Option<u32>,
    /// Age at which a change that fails is parked.
    pub age_s_max: Duration,
    /// The first pause after a failure; it doubles from there.
    pub backoff_ms_min: Duration,
    /// The longest pause.
    pub backoff_ms_max: Duration,
    /// Changes under way at once.
    pub in_flight_max: usize,
    /// What it is, and where.
    pub to: To,
}

impl Sink {
    /// Whether it needs the callback as it came.
    pub fn wants_body(&self) -> bool {
        self.include_raw || matches!(&self.to, To::Http(http) if http.format == HttpFormat::Raw)
    }
}

/// What is owed to a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deliver {
    /// Each change, in order for each notification.
    EveryChange,
    /// The newest of each notification and kind; what a newer one has overtaken is skipped.
    Latest,
}

/// The kinds of sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// POST to an app.
    Http(HttpSink),
    /// JSON lines in a file.
    File(FileSink),
    /// JSON lines on standard output.
    Stdout,
    /// NATS JetStream.
    #[cfg(feature = "sink-nats")]
    Nats(NatsSink),
    /// RabbitMQ.
    #[cfg(feature = "sink-amqp")]
    Amqp(AmqpSink),
    /// A Redis stream.
    #[cfg(feature = "sink-redis")]
    Redis(RedisSink),
    /// An SQS queue.
    #[cfg(feature = "sink-sqs")]
    Sqs(SqsSink),
    /// Tables in PostgreSQL.
    #[cfg(feature = "sink-postgres")]
    Postgres(PostgresSink),
}

impl To {
    /// The word of `type` in the configuration.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::File(_) => "file",
            Self::Stdout => "stdout",
            #[cfg(feature = "sink-nats")]
            Self::Nats(_) => "nats",
            #[cfg(feature = "sink-amqp")]
            Self::Amqp(_) => "amqp",
            #[cfg(feature = "sink-redis")]
            Self::Redis(_) => "redis",
            #[cfg(feature = "sink-sqs")]
            Self::Sqs(_) => "sqs",
            #[cfg(feature = "sink-postgres")]
            Self::Postgres(_) => "postgres",
        }
    }
}

/// How to speak TLS to a sink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// PEM: authorities trusted beside those of this machine.
    pub ca_file: Option<PathBuf>,
    /// PEM: the certificate shown to the sink, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A user at a sink. The password comes from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// A host to connect to, from a URL without user, password, query or fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether to speak TLS.
    pub is_tls: bool,
    /// Name or address, without the brackets of an IPv6 address.
    pub host: String,
    /// The port, the usual one if the URL has none.
    pub port: u16,
    /// The path without its first `/`; empty if there is none.
    pub path: String,
}

/// How an event is written into a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpFormat {
    /// CloudEvents, structured: one JSON object.
    CloudEvents,
    /// CloudEvents, binary: the data as the body, the attributes as headers.
    CloudEventsBinary,
    /// The provider's bytes as they came.
    Raw,
}

/// POST to an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSink {
    /// Where to.
    pub url: crate::client::Target,
    /// In which form.
    pub format: HttpFormat,
    /// Keys of Standard Webhooks, decoded; the first signs first. Empty: not signed.
    pub secrets: Vec<Secret>,
    /// Sent as `Authorization: Bearer`.
    pub bearer: Option<Secret>,
    /// Sent with every request.
    pub headers: Vec<(String, Secret)>,
    /// Of https.
    pub tls: ClientTls,
}

/// JSON lines in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSink {
    /// The file that is appended to.
    pub path: PathBuf,
    /// Beyond this size it is renamed and a new one begun.
    pub file_bytes_max: u64,
    /// Renamed files that are kept; older ones are removed. `None`: all.
    pub files_max: Option<u32>,
}

/// NATS JetStream.
#[cfg(feature = "sink-nats")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsSink {
    /// The servers of one cluster; never empty.
    pub servers: Vec<Endpoint>,
    /// Events go to `<subject>.<source>.<kind>`.
    pub subject: String,
    /// The stream that must take them; an event that lands in another is an error.
    pub stream: Option<String>,
    /// Who we are.
    pub login: Option<Login>,
    /// Who we are, by a token.
    pub token: Option<Secret>,
    /// Of `tls://`.
    pub tls: ClientTls,
}

/// RabbitMQ.
#[cfg(feature = "sink-amqp")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmqpSink {
    /// Where; its path is the virtual host, `/` if empty.
    pub at: Endpoint,
    /// The exchange; empty for the default one.
    pub exchange: String,
    /// The routing key; `None`: `<source>.<kind>`.
    pub routing_key: Option<String>,
    /// Who we are.
    pub login: Login,
    /// Of `amqps://`.
    pub tls: ClientTls,
}

/// A Redis stream.
#[cfg(feature = "sink-redis")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSink {
    /// Where; its path is the number of the database, 0 if empty.
    pub at: Endpoint,
    /// The database.
    pub database: i64,
    /// The key of the stream.
    pub stream: String,
    /// About so many entries are kept; `None`: all.
    pub entries_max: Option<u64>,
    /// Who we are; the user is `default` where only a password is configured.
    pub login: Option<Login>,
    /// Of `rediss://`.
    pub tls: ClientTls,
}

/// An SQS queue.
#[cfg(feature = "sink-sqs")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqsSink {
    /// The queue; one that ends in `.fifo` is a FIFO queue.
    pub queue_url: String,
    /// Its region.
    pub region: String,
    /// Another endpoint than the region's own.
    pub endpoint_url: Option<String>,
    /// The access key and its secret; `None`: what the AWS environment of this machine offers.
    pub login: Option<Login>,
}

/// Tables in PostgreSQL.
#[cfg(feature = "sink-postgres")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresSink {
    /// Where; its path is the database.
    pub at: Endpoint,
    /// The schema of the tables.
    pub schema: String,
    /// Whether the tables are made if they are not there.
    pub create_tables: bool,
    /// Who we are.
    pub login: Login,
    /// Where the URL asks for TLS.
    pub tls: ClientTls,
}
