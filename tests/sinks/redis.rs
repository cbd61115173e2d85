//! The redis sink against a real `redis-server`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use receiptd::config::settings::{ClientTls, Endpoint, Login, RedisSink, Secret};
use receiptd::forward::fault::Fault;
use receiptd::forward::redis::Redis;
use redis::{Cmd, cmd};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::event::{Certificates, about, all};
use crate::proxy::{Proxy, Weather};
use crate::servers::{self, Missing, Server, free_port, local, or_left_out};
use crate::suite::{self, Held, Kind, Rejection};
use crate::support::eventually;

#[test]
fn the_redis_sink_passes_the_suite() {
    suite::passes::<RedisServer>();
}

/// What makes each entry durable before it is answered.
const DURABLE: [&str; 6] = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""];

/// A running server, and the stream that events are to land in.
struct RedisServer {
    folder: TempDir,
    port: u16,
    options: Vec<String>,
    server: Server,
    runtime: Runtime,
    stream: String,
}

/// An entry: its fields by name.
type Entry = BTreeMap<String, String>;

impl RedisServer {
    fn start_with(options: &[&str]) -> Result<Self, Missing> {
        let folder = servers::folder();
        let port = free_port();
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let server = spawn(folder.path(), port, &options)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Ok(Self { folder, port, options, server, runtime, stream: "changes".to_owned() })
    }

    /// What the server answers to a client that is none of ours.
    fn ask<T: redis::FromRedisValue>(&self, command: &Cmd) -> redis::RedisResult<T> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/0", self.port)).unwrap();
        command.query(&mut client.get_connection_with_timeout(Duration::from_secs(5))?)
    }

    fn entries(&self) -> Vec<Entry> {
        let entries: Vec<(String, Vec<String>)> =
            self.ask(cmd("XRANGE").arg(&self.stream).arg("-").arg("+")).unwrap();
        let by_name = |(_, fields): (String, Vec<String>)| {
            fields.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
        };
        entries.into_iter().map(by_name).collect()
    }

    fn settings(&self) -> RedisSink {
        RedisSink {
            at: endpoint(self.port, false),
            database: 0,
            stream: self.stream.clone(),
            entries_max: None,
            login: None,
            tls: ClientTls::default(),
        }
    }

    fn sink(&self) -> Redis {
        Redis::open(&self.settings()).unwrap()
    }

    fn send(&self, sink: &Redis, key: u32) -> Result<(), Fault> {
        self.runtime.block_on(sink.send(&about("n-1", key)))
    }
}

fn endpoint(port: u16, is_tls: bool) -> Endpoint {
    Endpoint { is_tls, host: "127.0.0.1".to_owned(), port, path: String::new() }
}

fn spawn(folder: &Path, port: u16, options: &[String]) -> Result<Server, Missing> {
    let program = servers::find("redis-server", "apt-get install redis-server")?;
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(folder);
    command.args(["--daemonize", "no"]).args(options);
    let log = folder.join("log");
    // The port answers before the append-only file is read, and the log goes on where the server before
    // ended.
    let times_ready = || {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        said.matches("Ready to accept connections").count()
    };
    let before = times_ready();
    let mut server = Server::start(command, &log);
    server.wait_for(local(port));
    eventually("redis has read its files", || times_ready() > before);
    Ok(server)
}

impl Kind for RedisServer {
    const TYPE: &'static str = "redis";

    fn start() -> Result<Self, Missing> {
        Self::start_with(&DURABLE)
    }

    fn address(&self) -> Option<SocketAddr> {
        Some(local(self.port))
    }

    fn fresh(&mut self, case: &str) {
        case.clone_into(&mut self.stream);
    }

    fn lines(&self, through: SocketAddr) -> String {
        format!("url = \"redis://{through}\"\nstream = \"{}\"", self.stream)
    }

    fn held(&mut self) -> Vec<Held> {
        let event = |mut entry: Entry| {
            let data: Value = serde_json::from_str(&entry.remove("data").unwrap()).unwrap();
            let mut event = json!(entry);
            event["data"] = data;
            Held::from_structured(event.to_string().as_bytes())
        };
        self.entries().into_iter().map(event).collect()
    }

    fn reject(&mut self) -> Rejection {
        let () = self.ask(cmd("SET").arg(&self.stream).arg("no stream")).unwrap();
        Rejection::Waits
    }

    fn accept(&mut self) {
        let () = self.ask(cmd("DEL").arg(&self.stream)).unwrap();
    }

    fn crash(&mut self) {
        self.server.kill();
    }

    fn start_again(&mut self) {
        self.server = spawn(self.folder.path(), self.port, &self.options).unwrap();
    }
}

/// Starts a server, unless it is missing.
fn started(options: &[&str]) -> Option<RedisServer> {
    or_left_out("redis", RedisServer::start_with(options))
}

fn why(result: Result<(), Fault>) -> String {
    match result {
        Err(Fault::Passing { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_entry_is_the_event_and_a_repeat_makes_none() {
    let Some(server) = started(&DURABLE) else { return };
    let (sink, event) = (server.sink(), about("n-1", 1));
    server.runtime.block_on(async {
        sink.send(&event).await.unwrap();
        sink.send(&event).await.unwrap();
        Redis::open(&server.settings()).unwrap().send(&event).await.unwrap();
        sink.send(&about("n-1", 2)).await.unwrap();
    });
    let entries = server.entries();
    assert_eq!(entries.len(), 2, "those of another process make none either");
    let mut expected: Entry =
        event.attributes().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    expected.insert("datacontenttype".to_owned(), "application/json".to_owned());
    expected.insert("data".to_owned(), event.data().to_owned());
    assert_eq!(entries[0], expected);
    let ttl: i64 = server.ask(cmd("TTL").arg(format!("{{changes}}:{}", event.id()))).unwrap();
    assert!((3500..=3600).contains(&ttl), "forgotten after an hour: {ttl}");
}

#[test]
fn many_at_once_all_land_and_about_as_many_as_wanted_are_kept() {
    let Some(server) = started(&DURABLE) else { return };
    let events: Vec<_> = (0..2000).map(|key| about("n", key)).collect();
    let send_all = |sink: Redis| {
        let sent = server.runtime.block_on(all(events.iter().map(|event| sink.send(event))));
        sent.into_iter().for_each(|sent| sent.unwrap());
    };
    send_all(server.sink());
    assert_eq!(server.entries().len(), 2000);
    send_all(
        Redis::open(&RedisSink {
            stream: "short".into(),
            entries_max: Some(500),
            ..server.settings()
        })
        .unwrap(),
    );
    let kept: usize = server.ask(cmd("XLEN").arg("short")).unwrap();
    assert!((500..700).contains(&kept), "{kept}");
}

#[test]
fn a_key_of_another_type_is_waited_out_and_nothing_passes_for_a_repeat_after_it() {
    let Some(server) = started(&DURABLE) else { return };
    let sink = server.sink();
    let () = server.ask(cmd("SET").arg("changes").arg("text")).unwrap();
    assert_eq!(why(server.send(&sink, 1)), "WRONGTYPE: the key of the stream holds something else");
    let () = server.ask(cmd("DEL").arg("changes")).unwrap();
    server.send(&sink, 1).unwrap();
    assert_eq!(server.entries().len(), 1);
}

#[test]
fn a_full_server_and_a_replica_are_waited_out() {
    let Some(server) = started(&DURABLE) else { return };
    let sink = server.sink();
    server.send(&sink, 1).unwrap();
    let set = |value: &str| server.ask::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(value));
    set("1").unwrap();
    assert_eq!(why(server.send(&sink, 2)), "OOM: the server's memory is full");
    set("0").unwrap();
    let port = free_port().to_string();
    let () = server.ask(cmd("REPLICAOF").arg("127.0.0.1").arg(&port)).unwrap();
    assert_eq!(why(server.send(&sink, 2)), "the server answered READONLY");
    let () = server.ask(cmd("REPLICAOF").arg("NO").arg("ONE")).unwrap();
    server.send(&sink, 2).unwrap();
    assert_eq!(server.entries().len(), 2);
}

#[test]
fn a_server_that_comes_back_gets_what_it_missed() {
    let Some(mut server) = started(&DURABLE) else { return };
    let sink = server.sink();
    server.send(&sink, 1).unwrap();
    server.crash();
    for _ in 0..3 {
        assert!(why(server.send(&sink, 2)).starts_with("the connection failed"));
    }
    server.start_again();
    server.send(&sink, 2).unwrap();
    server.send(&sink, 1).unwrap();
    assert_eq!(server.entries().len(), 2, "what it had before is known after");
}

#[test]
fn what_is_under_way_fails_at_once_when_the_connection_is_lost() {
    let Some(server) = started(&DURABLE) else { return };
    let proxy = Proxy::to(local(server.port));
    let to = RedisSink { at: endpoint(proxy.address().port(), false), ..server.settings() };
    let sink = Redis::open(&to).unwrap();
    let event = about("n-1", 1);
    server.runtime.block_on(async {
        sink.send(&about("n-0", 0)).await.unwrap();
        proxy.cut_answers_to(&event.id(), 1);
        let sent = tokio::time::timeout(Duration::from_secs(5), sink.send(&event)).await;
        assert!(why(sent.expect("it waits for nothing")).starts_with("the connection failed"));
        sink.send(&event).await.unwrap();
    });
    assert_eq!(server.entries().len(), 2, "it was there, and the repeat made none");
}

#[test]
fn after_an_abandoned_attempt_the_next_goes_over_a_new_connection() {
    let Some(server) = started(&DURABLE) else { return };
    let proxy = Proxy::to(local(server.port));
    let to = RedisSink { at: endpoint(proxy.address().port(), false), ..server.settings() };
    let sink = Redis::open(&to).unwrap();
    server.runtime.block_on(async {
        sink.send(&about("n-0", 0)).await.unwrap();
        proxy.set(Weather::Stall);
        let event = about("n-1", 1);
        let sent = tokio::time::timeout(Duration::from_millis(200), sink.send(&event)).await;
        assert!(sent.is_err(), "it hangs");
        proxy.set(Weather::Pass);
        sink.send(&event).await.unwrap();
    });
    assert_eq!(proxy.connections(), 2);
    assert_eq!(server.entries().len(), 2);
}

#[test]
fn who_we_are_is_shown_and_the_database_is_the_one_configured() {
    let options = ["--user app on >right ~* +@all", "--user other on >right ~else* +@all"]
        .map(|user| user.split(' ').collect::<Vec<_>>())
        .concat();
    let Some(server) = started(&options) else { return };
    let sent_as = |user: &str, password: &str| {
        let login = Login { user: user.into(), password: Secret(password.into()) };
        let to = RedisSink { login: Some(login), database: 3, ..server.settings() };
        server.send(&Redis::open(&to).unwrap(), 1)
    };
    sent_as("app", "right").unwrap();
    assert_eq!(server.entries(), [], "nothing in database 0");
    assert_eq!(why(sent_as("app", "wrong")), "the server does not let us in");
    assert_eq!(why(sent_as("other", "right")), "the server answered NOPERM");
}

#[test]
fn tls_is_spoken_to_whom_the_authority_vouches_for_and_to_nobody_else() {
    let files = Certificates::make();
    let path = |name: &str| files.path(name).to_str().unwrap().to_owned();
    let (cert, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
    let port = free_port();
    let options = [
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "yes",
    ];
    let Some(server) = started(&options) else { return };
    let send_with = |tls: ClientTls| {
        let to = RedisSink { at: endpoint(port, true), tls, ..server.settings() };
        server.send(&Redis::open(&to).unwrap(), 1)
    };
    let identity = Some((files.path("client.pem"), files.path("client.key")));
    let trusting = ClientTls { ca_file: Some(files.path("ca.pem")), identity };
    send_with(trusting.clone()).unwrap();
    assert_eq!(server.entries().len(), 1);
    let nobody = ClientTls { identity: None, ..trusting.clone() };
    assert!(why(send_with(nobody)).starts_with("the connection failed"));
    let distrusting = ClientTls { ca_file: None, ..trusting };
    assert!(why(send_with(distrusting)).starts_with("the connection failed"));
}

#[test]
fn a_server_is_durable_if_it_syncs_before_it_answers() {
    let Some(server) = started(&DURABLE) else { return };
    let sink = server.sink();
    let check = || server.runtime.block_on(sink.check_durable());
    assert_eq!(check(), Ok(()));
    for (setting, value, wanted) in [
        ("no-appendfsync-on-rewrite", "yes", "no"),
        ("appendfsync", "everysec", "always"),
        ("appendonly", "no", "yes"),
    ] {
        let () = server.ask(cmd("CONFIG").arg("SET").arg(setting).arg(value)).unwrap();
        assert_eq!(check(), Err(format!("the server must have {setting} {wanted}, and has not")));
    }
    let acl = ["SETUSER", "default", "-config"];
    let () = server.ask(cmd("ACL").arg(&acl)).unwrap();
    let error = check().unwrap_err();
    assert_eq!(error, "it cannot be told what appendonly is: the server answered NOPERM");
}
