//! A Redis stream: one entry an event, by `XADD`.
//!
//! An entry's fields are the attributes of the CloudEvents event (`specversion`, `id`, `source`,
//! `type`, `time`, `subject` where there is one, `datacontenttype`) and `data`, JSON.
//!
//! `Ok` means that the server answered, with the entry in the stream. What that is worth depends on
//! its configuration: with `appendonly yes` and `appendfsync always` the entry was synced before the
//! answer; with `everysec` a power cut takes up to a second of them, and without `appendonly`
//! whatever came after the last snapshot.
//!
//! A repeat is dropped within an hour. Redis has no such thing of its own: an entry's id must be
//! larger than the one before, and changes of different notifications come in any order. So one
//! script, which Redis runs alone, looks for a key that names the change, adds the entry and leaves
//! the key there for an hour. In this order: if `XADD` fails the script ends without a trace, whereas
//! a key left first would make the next attempt pass for a repeat and lose the change. The key is
//! `{<stream>}:<id>`, in the same slot of a cluster as the stream.
//!
//! One connection carries all that is under way, one command after the other. When it is lost, all of
//! them fail at once and the next send connects anew. An attempt that was abandoned leaves it in
//! doubt, so what comes after goes over a new one, while others still under way finish on the old.
//!
//! Nothing is refused for good: no error that Redis has for this script is the fault of a change. A
//! key of another type where the stream should be, a full memory, a replica in the place of its
//! primary, missing rights: an operator mends it, and the changes wait.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError, RedisResult};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::event::{self, Event};
use super::fault::Fault;
use super::tls;
use crate::config::settings::RedisSink;

/// How long a repeat is known for. The attempts at a change are at most one longest pause apart, so
/// this leaves room for a restart and for an outage between two of them. Each change takes about a
/// hundred bytes of the server's memory for as long.
const REPEATS_S: u64 = 3600;

/// Adds an entry unless its change is known. `KEYS`: the stream, the key of the change. `ARGV`: for
/// how many seconds to remember it, how many entries to keep about (0: all), then names and values.
const ADD: &str = "\
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local add = {'XADD', KEYS[1]}
if ARGV[2] ~= '0' then add[3] = 'MAXLEN'; add[4] = '~'; add[5] = ARGV[2] end
add[#add + 1] = '*'
for i = 3, #ARGV do add[#add + 1] = ARGV[i] end
redis.call(unpack(add))
redis.call('SET', KEYS[2], 1, 'EX', ARGV[1])
return 1";

/// Until the server has taken a connection, TLS and our name included.
const CONNECT_S_MAX: Duration = Duration::from_secs(5);

/// Until a question about the configuration counts as not answered.
const ASK_S_MAX: Duration = Duration::from_secs(10);

/// Commands between us and the task that writes them; whoever has more to send waits.
const QUEUE_MAX: usize = 256;

/// The sink.
pub struct Redis {
    host: String,
    port: u16,
    stream: String,
    entries_max: u64,
    info: RedisConnectionInfo,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    link: Mutex<Option<Arc<Link>>>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// One connection and the task that serves it.
struct Link {
    connection: MultiplexedConnection,
    task: AbortHandle,
    /// It is lost, or an attempt on it was abandoned.
    is_in_doubt: AtomicBool,
}

impl Drop for Link {
    fn drop(&mut self) {
        // It may hang on a server that says nothing, for as long as the system keeps the connection.
        self.task.abort();
    }
}

/// Puts a connection in doubt unless it answered.
struct Attempt<'a> {
    link: &'a Link,
    has_answer: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.has_answer {
            self.link.is_in_doubt.store(true, Ordering::Relaxed);
        }
    }
}

impl Redis {
    /// Prepares it.
    ///
    /// # Errors
    /// If a file cannot be used or the host is no host.
    pub fn open(to: &RedisSink) -> Result<Self, String> {
        let host = to.at.host.clone();
        let tls = if to.at.is_tls {
            let config = tls::client_config(&to.tls)?;
            let name =
                ServerName::try_from(host.clone()).map_err(|_| format!("{host} is no host"))?;
            Some((TlsConnector::from(Arc::new(config)), name))
        } else {
            None
        };
        let mut info = RedisConnectionInfo::default().set_db(to.database).set_skip_set_lib_name();
        if let Some(login) = &to.login {
            let password = std::str::from_utf8(&login.password.0)
                .map_err(|_| "the password is no text".to_owned())?;
            info = info.set_username(&login.user).set_password(password);
        }
        Ok(Self {
            host,
            port: to.at.port,
            stream: to.stream.clone(),
            entries_max: to.entries_max.unwrap_or(0),
            info,
            tls,
            link: Mutex::new(None),
        })
    }

    /// Sends one event.
    ///
    /// # Errors
    /// Whatever kept the stream from taking it.
    pub async fn send(&self, event: &Event) -> Result<(), Fault> {
        let mut add = redis::cmd("EVAL");
        add.arg(ADD).arg(2).arg(&self.stream).arg(key_of(&self.stream, &event.id()));
        add.arg(REPEATS_S).arg(self.entries_max);
        for (name, value) in event.attributes() {
            add.arg(name).arg(value);
        }
        add.arg("datacontenttype").arg(event::DATA).arg("data").arg(event.data());
        let link = self.link().await.map_err(|error| fault(&error))?;
        let added: RedisResult<i64> = link.ask(&add).await;
        added.map(drop).map_err(|error| fault(&error))
    }

    /// Whether what it accepts survives a power cut there: whether the server syncs each entry to its
    /// append-only file before it answers.
    ///
    /// # Errors
    /// Why not, or why it cannot be told, in a sentence.
    pub async fn check_durable(&self) -> Result<(), String> {
        let asked = async {
            for (setting, wanted) in [
                ("appendonly", "yes"),
                ("appendfsync", "always"),
                ("no-appendfsync-on-rewrite", "no"),
            ] {
                self.check_setting(setting, wanted).await?;
            }
            Ok(())
        };
        tokio::time::timeout(ASK_S_MAX, asked)
            .await
            .unwrap_or_else(|_| Err("the server did not say in time what it syncs".to_owned()))
    }

    async fn check_setting(&self, setting: &str, wanted: &str) -> Result<(), String> {
        let mut get = redis::cmd("CONFIG");
        get.arg("GET").arg(setting);
        let answer: RedisResult<Vec<String>> = match self.link().await {
            Ok(link) => link.ask(&get).await,
            Err(error) => Err(error),
        };
        match answer.map_err(|error| fault(&error)) {
            // Hosted servers often forbid it.
            Err(fault) => Err(format!("it cannot be told what {setting} is: {fault}")),
            Ok(found) => match found.get(1) {
                Some(value) if value == wanted => Ok(()),
                Some(_) => Err(format!("the server must have {setting} {wanted}, and has not")),
                None => Err(format!("the server has no setting {setting}")),
            },
        }
    }

    /// The connection, a new one if there is none or none to rely on.
    async fn link(&self) -> RedisResult<Arc<Link>> {
        let mut current = self.link.lock().await;
        if let Some(link) = current.as_ref()
            && !link.is_in_doubt.load(Ordering::Relaxed)
        {
            return Ok(Arc::clone(link));
        }
        *current = None;
        let late = |_| RedisError::from(io::Error::from(io::ErrorKind::TimedOut));
        let link = tokio::time::timeout(CONNECT_S_MAX, self.connect()).await.map_err(late)??;
        let link = Arc::new(link);
        *current = Some(Arc::clone(&link));
        Ok(link)
    }

    async fn connect(&self) -> RedisResult<Link> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => self.greet(stream).await,
            Some((connector, name)) => {
                self.greet(connector.connect(name.clone(), stream).await?).await
            }
        }
    }

    /// Says who we are and which database we mean.
    async fn greet<S>(&self, stream: S) -> RedisResult<Link>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // The dispatcher bounds an attempt.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(QUEUE_MAX);
        let (connection, served) =
            MultiplexedConnection::new_with_config(&self.info, stream, config).await?;
        let task = tokio::spawn(served).abort_handle();
        Ok(Link { connection, task, is_in_doubt: AtomicBool::new(false) })
    }
}

impl Link {
    /// Sends a command and waits for its answer.
    async fn ask<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> RedisResult<T> {
        let mut attempt = Attempt { link: self, has_answer: false };
        let answer = command.query_async(&mut self.connection.clone()).await;
        // A server that answers so is another one than we want, or does not know us any more: its
        // name may lead to the right one by now.
        attempt.has_answer = match &answer {
            Ok(_) => true,
            Err(error) => {
                !error.is_unrecoverable_error()
                    && !matches!(
                        error.code(),
                        Some("READONLY" | "MASTERDOWN" | "LOADING" | "MOVED" | "NOAUTH")
                    )
            }
        };
        answer
    }
}

/// Names a change at the server, in the slot of the stream: a cluster looks only at what stands
/// between the first braces, if anything does.
fn key_of(stream: &str, id: &str) -> String {
    let has_tag = stream
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .is_some_and(|(tag, _)| !tag.is_empty());
    if has_tag { format!("{stream}:{id}") } else { format!("{{{stream}}}:{id}") }
}

/// What to call what kept an entry from being added. All of it may pass.
fn fault(error: &RedisError) -> Fault {
    let io_kind = |error: &RedisError| {
        let source = std::error::Error::source(error);
        source.and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind)
    };
    Fault::passing(match error.kind() {
        ErrorKind::Io => match io_kind(error) {
            Some(kind) => format!("the connection failed: {kind}"),
            None => "the connection failed".to_owned(),
        },
        ErrorKind::AuthenticationFailed => "the server does not let us in".to_owned(),
        _ => match error.code().filter(|code| is_code(code)) {
            Some("WRONGTYPE") => "WRONGTYPE: the key of the stream holds something else".to_owned(),
            Some("OOM") => "OOM: the server's memory is full".to_owned(),
            Some(code) => format!("the server answered {code}"),
            None => "the server answered with an error".to_owned(),
        },
    })
}

/// Whether it is the word that an error of Redis begins with, and no value of anything.
fn is_code(word: &str) -> bool {
    (2..=24).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::key_of;

    #[test]
    fn the_key_of_a_change_is_in_the_slot_of_the_stream() {
        assert_eq!(key_of("changes", "1f"), "{changes}:1f");
        assert_eq!(key_of("{app}changes", "1f"), "{app}changes:1f");
        // An empty tag is none, so all of this name counts, braces and all: there is no other key of
        // its slot that could be made from it, and a cluster refuses the script.
        assert_eq!(key_of("{}changes", "1f"), "{{}changes}:1f");
    }
}
