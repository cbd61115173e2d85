//! Tables in the app's PostgreSQL.
//!
//! The tables `notification` and `received_message` of the state file, kept where the app has its own
//! data, and `unrecognised` for what was not understood: an event that was taken and put nowhere
//! would be lost without a word. What a row holds is the join of all it was ever told
//! (`postgres_row`), so an older state never overwrites a newer one, whatever order events come in
//! and from how many receivers.
//!
//! One connection, made when first needed. Events go down it one behind the other without waiting for
//! each other's answers; each is one statement and one transaction, prepared once a connection. An
//! event counts once that is committed: where the server would not sync commits
//! (`synchronous_commit = off`), this session does.
//!
//! What is given up (an attempt that took too long) may still be written later, which harms nothing.
//! But its connection is not used again: the server may be gone, or hold it up for long. One row that
//! the app keeps locked holds up the others for `LOCK_MS_MAX` and no longer.
//!
//! Settings are made for the session, so between here and the server there must be no pooler that
//! deals out transactions to different sessions. Where the URL asks for TLS there is nothing without
//! it, and the certificate must be valid for the host.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, OnceCell};
use tokio::task::AbortHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{ChannelBinding, NoTls, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config, Error, Statement};
use tokio_rustls::rustls::{self, ClientConfig, pki_types::ServerName};
use tokio_rustls::{TlsConnector, client};

use super::address::lookup;
use super::event::Event;
use super::fault::Fault;
use super::postgres_row::{Row, TABLE_NAMES, TABLES, Table};
use super::tls::client_config;
use crate::config::settings::PostgresSink;

/// How long a statement waits for a row that somebody else has locked, in milliseconds.
const LOCK_MS_MAX: u32 = 1_000;

/// How long a statement may take, in milliseconds; an attempt is given up about then anyway.
const STATEMENT_MS_MAX: u32 = 10_000;

/// Only one receiver at a time makes tables: `IF NOT EXISTS` alone fails when two find none.
const TABLES_LOCK: i64 = 0x7263_7073;

/// What the session must be like. `$1` is the schema: our statements name tables without one.
const SESSION: &str = "SELECT
    pg_catalog.set_config('search_path', pg_catalog.quote_ident($1), false),
    pg_catalog.set_config('lock_timeout', $2, false),
    pg_catalog.set_config('statement_timeout', $3, false),
    pg_catalog.set_config('default_transaction_isolation', 'read committed', false),
    CASE pg_catalog.current_setting('synchronous_commit') WHEN 'off'
        THEN pg_catalog.set_config('synchronous_commit', 'on', false) END";

/// How many of the tables there are, and whether the schema is.
const FIND_TABLES: &str = "SELECT count(c.oid), count(n.oid) > 0
    FROM pg_catalog.pg_namespace AS n LEFT JOIN pg_catalog.pg_class AS c
        ON c.relnamespace = n.oid AND c.relname = ANY ($2)
    WHERE n.nspname = $1";

/// What commits are worth on the other side.
const DURABILITY: &str = "SELECT
    pg_catalog.current_setting('fsync') = 'on',
    pg_catalog.current_setting('full_page_writes') = 'on',
    pg_catalog.current_setting('synchronous_commit') <> 'off',
    NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relname = ANY ($2) AND c.relpersistence <> 'p')";

/// The sink.
#[derive(Debug)]
pub struct Postgres {
    to: Box<PostgresSink>,
    tls: Option<Tls>,
    slot: Mutex<Slot>,
}

/// The connection, if there is one, or how the last attempt to make one ended.
#[derive(Debug, Default)]
struct Slot {
    live: Option<Arc<Live>>,
    failed: Option<(Instant, Fault)>,
}

impl Postgres {
    /// Prepares it.
    ///
    /// # Errors
    /// If a file of `tls` cannot be used, or the host has no name that TLS knows.
    pub fn open(to: &PostgresSink) -> Result<Self, String> {
        let tls = to.at.is_tls.then(|| Tls::new(to)).transpose()?;
        Ok(Self { to: Box::new(to.clone()), tls, slot: Mutex::default() })
    }

    /// Sends one event; returns once its row is committed, at once where it has none.
    ///
    /// # Errors
    /// Whatever kept the other side from accepting it.
    pub async fn send(&self, event: &Event) -> Result<(), Fault> {
        if !Row::is_of(event) {
            return Ok(());
        }
        let refused = || Fault::refused("no row can hold it: not our data, or U+0000 in the id");
        let row = Row::of(event).ok_or_else(refused)?;
        let live = self.connected().await?;
        let use_of_it = UseOf(&live);
        let result = live.write(&row).await;
        // Not abandoned: it is for the error to say what the connection is still worth.
        std::mem::forget(use_of_it);
        result.map_err(|error| {
            if !leaves_connection_usable(&error) {
                live.close();
            }
            fault(&error)
        })
    }

    /// Whether what it accepts survives a power cut there.
    ///
    /// # Errors
    /// Why not, in a sentence.
    pub async fn check_durable(&self) -> Result<(), String> {
        let live = self.connected().await.map_err(|fault| fault.why().to_owned())?;
        let row = live
            .client
            .query_one(DURABILITY, &[&self.to.schema, &TABLE_NAMES.as_slice()])
            .await
            .map_err(|error| fault(&error).why().to_owned())?;
        let reasons = [
            "PostgreSQL runs with fsync = off",
            "PostgreSQL runs with full_page_writes = off",
            "PostgreSQL does not sync commits: synchronous_commit = off",
            "a table is UNLOGGED or temporary: a crash of PostgreSQL empties it",
        ];
        match (0..).zip(reasons).find(|(column, _)| !row.get::<usize, bool>(*column)) {
            Some((_, reason)) => Err(reason.to_owned()),
            None => Ok(()),
        }
    }

    /// The connection, made if there is none. Who waited for an attempt that failed does not make
    /// another one at once.
    async fn connected(&self) -> Result<Arc<Live>, Fault> {
        let since = Instant::now();
        let mut slot = self.slot.lock().await;
        if let Some(live) = slot.live.as_ref().filter(|live| !live.is_over()) {
            return Ok(Arc::clone(live));
        }
        slot.live = None;
        if let Some((at, fault)) = &slot.failed
            && *at >= since
        {
            return Err(fault.clone());
        }
        match self.connect().await {
            Ok(live) => {
                slot.failed = None;
                Ok(Arc::clone(slot.live.insert(Arc::new(live))))
            }
            Err(fault) => {
                slot.failed = Some((Instant::now(), fault.clone()));
                Err(fault)
            }
        }
    }

    /// Without the host: that is ours to connect to.
    fn config(&self) -> Config {
        let mut config = Config::new();
        config
            .user(&self.to.login.user)
            .password(&self.to.login.password.0)
            .dbname(&self.to.at.path)
            .application_name("receiptd")
            .ssl_mode(if self.tls.is_some() { SslMode::Require } else { SslMode::Disable });
        config
    }

    async fn connect(&self) -> Result<Live, Fault> {
        let at = &self.to.at;
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Fault::passing(format!("failed to {what} PostgreSQL: {error}"))
        };
        // The errors of our own lookup hold no more than the kinds of those of sockets do.
        let addresses = lookup(&at.host, at.port).await;
        let addresses = addresses.map_err(|error| failed("find", &error))?;
        let stream = TcpStream::connect(&addresses[..]).await;
        let stream = stream.map_err(|error| failed("connect to", &error.kind()))?;
        stream.set_nodelay(true).map_err(|error| failed("connect to", &error.kind()))?;
        let config = self.config();
        let live = match &self.tls {
            None => config.connect_raw(stream, NoTls).await.map(Live::start),
            Some(tls) => config.connect_raw(stream, tls.clone()).await.map(Live::start),
        };
        let live = live.map_err(|error| fault(&error))?;
        self.prepare(&live.client).await.map_err(|error| fault(&error))?;
        Ok(live)
    }

    /// Makes the session what it must be, and the tables if they are wanted and not there.
    async fn prepare(&self, client: &Client) -> Result<(), Error> {
        let schema = &self.to.schema;
        let (lock, statement) = (LOCK_MS_MAX.to_string(), STATEMENT_MS_MAX.to_string());
        client.query_one(SESSION, &[schema, &lock, &statement]).await?;
        if !self.to.create_tables {
            return Ok(());
        }
        // Asked first: the right to make what is there already need not be ours.
        let found = client.query_one(FIND_TABLES, &[schema, &TABLE_NAMES.as_slice()]).await?;
        let (tables, has_schema): (i64, bool) = (found.get(0), found.get(1));
        if usize::try_from(tables) == Ok(TABLE_NAMES.len()) {
            return Ok(());
        }
        let quoted = schema.replace('"', "\"\"");
        let schema = match has_schema {
            true => String::new(),
            false => format!("CREATE SCHEMA IF NOT EXISTS \"{quoted}\";\n"),
        };
        let lock = format!("SELECT pg_catalog.pg_advisory_xact_lock({TABLES_LOCK});\n");
        client.batch_execute(&format!("BEGIN;\n{lock}{schema}{TABLES}COMMIT;")).await
    }
}

/// A connection and the task that moves its bytes.
#[derive(Debug)]
struct Live {
    client: Client,
    task: AbortHandle,
    /// Set before the task ends, which happens a little later.
    is_closed: AtomicBool,
    notification: OnceCell<Statement>,
    message: OnceCell<Statement>,
    unrecognised: OnceCell<Statement>,
}

impl Live {
    fn start<S>((client, connection): (Client, tokio_postgres::Connection<TcpStream, S>)) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Its error comes to those who wait on the connection, too.
        let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        let (notification, message, unrecognised) = Default::default();
        let is_closed = AtomicBool::new(false);
        Self { client, task, is_closed, notification, message, unrecognised }
    }

    /// Prepared when first needed, so that a table nobody writes to need not be there.
    async fn write(&self, row: &Row) -> Result<(), Error> {
        let cell = match row.table {
            Table::Notification => &self.notification,
            Table::Message => &self.message,
            Table::Unrecognised => &self.unrecognised,
        };
        let (sql, types) = row.table.statement();
        let statement = cell.get_or_try_init(|| self.client.prepare_typed(sql, types)).await?;
        self.client.execute(statement, &row.values()).await.map(drop)
    }

    fn is_over(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed) || self.client.is_closed()
    }

    /// Whoever waits on it hears that it is closed.
    fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.task.abort();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.close();
    }
}

/// Somebody waits for an answer of it. Dropped before that has come, it ends the connection.
struct UseOf<'l>(&'l Live);

impl Drop for UseOf<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What an error means, by its SQLSTATE (PostgreSQL's Appendix A). Never the server's sentence: it
/// may hold values.
fn fault(error: &Error) -> Fault {
    let Some(code) = error.code().map(SqlState::code) else { return fault_between(error) };
    let (class, _) = code.split_at_checked(2).unwrap_or((code, ""));
    let what = match class {
        "22" | "23" | "54" => {
            return Fault::refused(format!("PostgreSQL cannot hold it (SQLSTATE {code})"));
        }
        "28" => "refuses the login",
        "3D" => "has no such database",
        "3F" => "has no such schema",
        "42" => match code {
            "42P01" => "has no such table",
            "42501" => "does not let this user write",
            _ => "has a table that is none of ours",
        },
        "40" => "undid it because of another transaction",
        "55" | "57" => "could not do it now",
        "53" => "has no resources left",
        "25" => "takes no changes here",
        _ => "failed",
    };
    Fault::passing(format!("PostgreSQL {what} (SQLSTATE {code})"))
}

/// The same of one that the server did not tell.
fn fault_between(error: &Error) -> Fault {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            let what = match error {
                rustls::Error::InvalidCertificate(_) => "its certificate is not trusted",
                rustls::Error::AlertReceived(_) => "it refused",
                _ => "failed",
            };
            return Fault::passing(format!("TLS with PostgreSQL: {what}"));
        }
        let inner = cause.downcast_ref::<io::Error>().map(|error| (error.kind(), error.get_ref()));
        source = match inner {
            Some((_, Some(inner))) => Some(inner),
            Some((kind, None)) => {
                return Fault::passing(format!("the connection to PostgreSQL failed: {kind}"));
            }
            None => cause.source(),
        };
    }
    let what = match error.is_closed() {
        true => "was closed",
        // Among these: a server without TLS, a way to log in that we do not speak.
        false => "could not be used: no TLS, no login, or another protocol",
    };
    Fault::passing(format!("the connection to PostgreSQL {what}"))
}

/// Whether the next statement may go down the same connection: the server has answered, and what it
/// did not like was the statement's values or the moment, not the session or the tables.
fn leaves_connection_usable(error: &Error) -> bool {
    let code = error.code().map_or("", SqlState::code);
    // Of class 57 all but a cancelled statement end the session.
    code == "57014" || matches!(code.get(..2), Some("22" | "23" | "40" | "53" | "54" | "55"))
}

/// TLS with one host.
#[derive(Clone, Debug)]
struct Tls {
    config: Arc<ClientConfig>,
    host: ServerName<'static>,
}

impl Tls {
    fn new(to: &PostgresSink) -> Result<Self, String> {
        let host = ServerName::try_from(to.at.host.clone());
        let host = host.map_err(|_| format!("{} is no name for TLS", to.at.host))?;
        Ok(Self { config: Arc::new(client_config(&to.tls)?), host })
    }
}

impl TlsConnect<TcpStream> for Tls {
    type Stream = Secured;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Secured>> + Send>>;

    fn connect(self, stream: TcpStream) -> Self::Future {
        let connecting = TlsConnector::from(self.config).connect(self.host, stream);
        Box::pin(async move { connecting.await.map(|stream| Secured(Box::new(stream))) })
    }
}

/// A stream of ours, as the client wants it.
struct Secured(Box<client::TlsStream<TcpStream>>);

impl TlsStream for Secured {
    /// Not told: the certificate has been verified, for that host.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
