//! The nats sink against a real `nats-server` with JetStream.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use async_nats::jetstream::{self, Context, stream};
use receiptd::config::settings::{ClientTls, Endpoint, Login, NatsSink, Secret};
use receiptd::forward::fault::Fault;
use receiptd::forward::nats::Nats;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::event::{about, large};
use crate::proxy::{Proxy, Weather};
use crate::servers::{self, Missing, Server, free_port, is_listening, local, or_left_out};
use crate::suite::{self, Held, Kind, Rejection};
use crate::support::eventually;

#[test]
fn the_nats_sink_passes_the_suite() {
    suite::passes::<JetStream>();
}

/// A running server, and the stream that events are to land in.
struct JetStream {
    folder: TempDir,
    port: u16,
    options: Vec<String>,
    server: Server,
    runtime: Runtime,
    /// What the sink is configured with.
    subject: String,
    stream: String,
}

impl JetStream {
    fn start_with(options: &[&str]) -> Result<Self, Missing> {
        let folder = servers::folder();
        let port = free_port();
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let server = spawn(folder.path(), port, &options)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (subject, stream) = ("changes".to_owned(), "CHANGES".to_owned());
        Ok(Self { folder, port, options, server, runtime, subject, stream })
    }

    /// A client that is none of ours, for as long as `then` runs.
    fn with<T>(&self, then: impl AsyncFnOnce(Context) -> T) -> T {
        self.runtime.block_on(async {
            let client = async_nats::connect(format!("127.0.0.1:{}", self.port)).await.unwrap();
            then(jetstream::new(client)).await
        })
    }

    fn make_stream(&self, change: impl FnOnce(&mut stream::Config)) {
        let mut config = stream::Config {
            name: self.stream.clone(),
            subjects: vec![format!("{}.>", self.subject)],
            storage: stream::StorageType::File,
            ..Default::default()
        };
        change(&mut config);
        self.with(async |jetstream| jetstream.create_stream(config).await.map(drop)).unwrap();
    }

    fn delete_stream(&self) {
        self.with(async |jetstream| jetstream.delete_stream(&self.stream).await.map(drop)).unwrap();
    }

    /// Subjects, ids, content types and bodies of all messages.
    fn messages(&self) -> Vec<(String, String, String, Vec<u8>)> {
        self.with(async |jetstream| {
            let stream = jetstream.get_stream(&self.stream).await.unwrap();
            let state = &stream.cached_info().state;
            let (mut messages, messages_max) = (Vec::new(), state.messages);
            for sequence in state.first_sequence.max(1)..=state.last_sequence {
                let message = stream.get_raw_message(sequence).await.unwrap();
                let header = |name: &str| {
                    message.headers.get(name).map(ToString::to_string).unwrap_or_default()
                };
                let (id, content_type) = (header("Nats-Msg-Id"), header("content-type"));
                let payload = message.payload.to_vec();
                messages.push((message.subject.to_string(), id, content_type, payload));
            }
            assert_eq!(messages.len() as u64, messages_max);
            messages
        })
    }

    fn settings(&self) -> NatsSink {
        NatsSink {
            servers: vec![endpoint(self.port, false)],
            subject: self.subject.clone(),
            stream: None,
            login: None,
            token: None,
            tls: ClientTls::default(),
        }
    }

    fn sink(&self) -> Nats {
        Nats::open(&self.settings()).unwrap()
    }
}

fn endpoint(port: u16, is_tls: bool) -> Endpoint {
    Endpoint { is_tls, host: "127.0.0.1".to_owned(), port, path: String::new() }
}

fn spawn(folder: &Path, port: u16, options: &[String]) -> Result<Server, Missing> {
    let program = servers::find("nats-server", "apt-get install nats-server")?;
    let mut command = Command::new(program);
    command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(folder);
    let mut server = Server::start(
        {
            command.args(options);
            command
        },
        &folder.join("log"),
    );
    server.wait_for(local(port));
    Ok(server)
}

impl Kind for JetStream {
    const TYPE: &'static str = "nats";

    fn start() -> Result<Self, Missing> {
        Self::start_with(&[])
    }

    fn address(&self) -> Option<SocketAddr> {
        Some(local(self.port))
    }

    fn fresh(&mut self, case: &str) {
        (self.subject, self.stream) = (case.to_owned(), case.to_uppercase());
        self.make_stream(|_| {});
    }

    fn lines(&self, through: SocketAddr) -> String {
        format!(
            "url = [\"nats://{through}\"]\nsubject = \"{}\"\nstream = \"{}\"",
            self.subject, self.stream
        )
    }

    fn held(&mut self) -> Vec<Held> {
        let messages = self.messages();
        messages.iter().map(|(_, _, _, body)| Held::from_structured(body)).collect()
    }

    fn reject(&mut self) -> Rejection {
        self.delete_stream();
        Rejection::Waits
    }

    fn accept(&mut self) {
        self.make_stream(|_| {});
    }

    fn crash(&mut self) {
        self.server.kill();
    }

    fn start_again(&mut self) {
        self.server = spawn(self.folder.path(), self.port, &self.options).unwrap();
        // The port answers before JetStream does.
        let is_there =
            || self.with(async |jetstream| jetstream.get_stream(&self.stream).await.is_ok());
        eventually("the stream is there again", is_there);
    }
}

/// Starts a server with the stream `CHANGES`, unless it is missing.
fn started(options: &[&str]) -> Option<JetStream> {
    let server = or_left_out("nats", JetStream::start_with(options))?;
    server.make_stream(|_| {});
    Some(server)
}

fn why(result: Result<(), Fault>) -> String {
    match result {
        Err(Fault::Passing { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_is_the_event_under_the_subject_of_its_source_and_kind() {
    let Some(server) = started(&[]) else { return };
    let (sink, event) = (server.sink(), about("n-1", 1));
    server.runtime.block_on(async {
        sink.send(&event).await.unwrap();
        sink.send(&event).await.unwrap();
        Nats::open(&server.settings()).unwrap().send(&event).await.unwrap();
        sink.send(&about("n-1", 2)).await.unwrap();
    });
    let messages = server.messages();
    assert_eq!(messages.len(), 2, "repeats are dropped, those of another process too");
    let (subject, id, content_type, body) = &messages[0];
    assert_eq!(subject, "changes.passport.status");
    assert_eq!(*id, event.id());
    assert_eq!(content_type, "application/cloudevents+json");
    assert_eq!(*body, event.structured());
}

#[test]
fn many_at_once_all_land() {
    let Some(server) = started(&[]) else { return };
    let sink = server.sink();
    let events: Vec<_> = (0..500).map(|key| about("n", key)).collect();
    server
        .runtime
        .block_on(crate::event::all(events.iter().map(|event| sink.send(event))))
        .into_iter()
        .for_each(|sent| sent.unwrap());
    assert_eq!(server.messages().len(), 500);
}

#[test]
fn without_a_stream_a_change_waits_for_one() {
    let Some(server) = started(&[]) else { return };
    server.delete_stream();
    let (sink, event) = (server.sink(), about("n-1", 1));
    let sent = server.runtime.block_on(sink.send(&event));
    assert_eq!(why(sent), "no stream takes the subject, or JetStream is not there");
    server.make_stream(|_| {});
    server.runtime.block_on(sink.send(&event)).unwrap();
    assert_eq!(server.messages().len(), 1);
}

#[test]
fn what_would_land_in_another_stream_waits() {
    let Some(server) = started(&[]) else { return };
    let sink = Nats::open(&NatsSink { stream: Some("OTHER".into()), ..server.settings() }).unwrap();
    let sent = server.runtime.block_on(sink.send(&about("n-1", 1)));
    assert_eq!(why(sent), "another stream than the configured one takes the subject");
    assert!(server.messages().is_empty());
}

#[test]
fn what_is_too_large_is_refused_and_what_finds_no_room_waits() {
    let Some(server) = started(&[]) else { return };
    let sink = server.sink();
    let refused =
        |sent: Result<(), Fault>| assert!(matches!(sent, Err(Fault::Refused { .. })), "{sent:?}");
    refused(server.runtime.block_on(sink.send(&large(2 << 20))));
    server.delete_stream();
    server.make_stream(|config| config.max_message_size = 1000);
    refused(server.runtime.block_on(sink.send(&large(2000))));
    server.delete_stream();
    server.make_stream(|config| {
        config.max_messages = 1;
        config.discard = stream::DiscardPolicy::New;
    });
    server.runtime.block_on(sink.send(&about("n-1", 1))).unwrap();
    let sent = server.runtime.block_on(sink.send(&about("n-1", 2)));
    assert_eq!(why(sent), "the stream answered with error 10077");
}

#[test]
fn a_server_that_comes_back_gets_what_it_missed() {
    let Some(mut server) = started(&[]) else { return };
    let sink = server.sink();
    server.runtime.block_on(sink.send(&about("n-1", 1))).unwrap();
    server.crash();
    for _ in 0..3 {
        let sent = server.runtime.block_on(sink.send(&about("n-1", 2)));
        assert!(
            ["the connection was lost", "failed to connect: connection refused"]
                .contains(&&*why(sent))
        );
    }
    server.start_again();
    server.runtime.block_on(async {
        sink.send(&about("n-1", 2)).await.unwrap();
        sink.send(&about("n-1", 1)).await.unwrap();
    });
    assert_eq!(server.messages().len(), 2, "what it had before is known after");
}

#[test]
fn what_is_under_way_fails_at_once_when_the_connection_is_lost() {
    let Some(server) = started(&[]) else { return };
    let proxy = Proxy::to(local(server.port));
    let to =
        NatsSink { servers: vec![endpoint(proxy.address().port(), false)], ..server.settings() };
    let sink = Nats::open(&to).unwrap();
    let event = about("n-1", 1);
    server.runtime.block_on(async {
        sink.send(&about("n-0", 0)).await.unwrap();
        proxy.cut_answers_to(&event.id(), 1);
        let sent = tokio::time::timeout(Duration::from_secs(5), sink.send(&event)).await;
        assert_eq!(why(sent.expect("it waits for nothing")), "the connection was lost");
        sink.send(&event).await.unwrap();
    });
    assert_eq!(server.messages().len(), 2, "the stream had it and dropped the repeat");
}

#[test]
fn after_an_abandoned_attempt_the_next_goes_over_a_new_connection() {
    let Some(server) = started(&[]) else { return };
    let proxy = Proxy::to(local(server.port));
    let to =
        NatsSink { servers: vec![endpoint(proxy.address().port(), false)], ..server.settings() };
    let sink = Nats::open(&to).unwrap();
    server.runtime.block_on(async {
        sink.send(&about("n-0", 0)).await.unwrap();
        proxy.set(Weather::Stall);
        let event = about("n-1", 1);
        let sent = tokio::time::timeout(Duration::from_millis(200), sink.send(&event)).await;
        assert!(sent.is_err(), "it hangs");
        // The same connection would hang on; the network is well but for what it holds.
        proxy.set(Weather::Pass);
        sink.send(&event).await.unwrap();
    });
    assert_eq!(proxy.connections(), 2);
    assert_eq!(server.messages().len(), 2);
}

#[test]
fn who_we_are_is_shown_and_wrong_passwords_and_missing_rights_pass() {
    let folder = servers::folder();
    let conf = folder.path().join("nats.conf");
    let users = "authorization { users = [
        { user: app, password: right, permissions: { publish: [\"changes.>\", \"$JS.API.>\"] } }
        { user: other, password: right, permissions: { publish: [\"elsewhere.>\"] } } ] }";
    std::fs::write(&conf, users).unwrap();
    let options = ["-c", conf.to_str().unwrap()];
    let Some(server) = or_left_out("nats", JetStream::start_with(&options)) else { return };
    let sent_as = |user: &str, password: &str| {
        let login = Login { user: user.into(), password: Secret(password.into()) };
        let sink = Nats::open(&NatsSink { login: Some(login), ..server.settings() }).unwrap();
        let sent = sink_send(&server, &sink);
        why(sent)
    };
    // There is no stream: who gets in hears that.
    assert_eq!(sent_as("app", "right"), "no stream takes the subject, or JetStream is not there");
    assert_eq!(sent_as("app", "wrong"), "failed to connect: authorization violation");
    assert_eq!(sent_as("other", "right"), "the server denies us the subject, or the answers to it");
}

fn sink_send(server: &JetStream, sink: &Nats) -> Result<(), Fault> {
    server.runtime.block_on(sink.send(&about("n-1", 1)))
}

#[test]
fn tls_is_spoken_to_whom_the_authority_vouches_for_and_to_nobody_else() {
    let files = crate::event::Certificates::make();
    let path = |name: &str| files.path(name).to_str().unwrap().to_owned();
    let (cert, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
    let options =
        ["--tls", "--tlscert", &cert, "--tlskey", &key, "--tlscacert", &ca, "--tlsverify"];
    let Some(server) = or_left_out("nats", JetStream::start_with(&options)) else { return };
    let sent_with = |tls: ClientTls| {
        let servers = vec![endpoint(server.port, true)];
        let sink = Nats::open(&NatsSink { servers, tls, ..server.settings() }).unwrap();
        why(sink_send(&server, &sink))
    };
    let identity = Some((files.path("client.pem"), files.path("client.key")));
    let trusting = ClientTls { ca_file: Some(files.path("ca.pem")), identity };
    assert_eq!(
        sent_with(trusting.clone()),
        "no stream takes the subject, or JetStream is not there"
    );
    let nobody = ClientTls { identity: None, ..trusting.clone() };
    assert!(sent_with(nobody).starts_with("failed to connect"));
    let distrusting = ClientTls { ca_file: None, ..trusting };
    assert!(sent_with(distrusting).starts_with("failed to connect"));
}

#[test]
fn a_stream_is_durable_if_it_takes_all_and_keeps_it_in_files() {
    let Some(server) = started(&[]) else { return };
    let check = |stream: Option<&str>| {
        let stream = stream.map(str::to_owned);
        let sink = Nats::open(&NatsSink { stream, ..server.settings() }).unwrap();
        server.runtime.block_on(sink.check_durable())
    };
    assert_eq!(check(None), Ok(()));
    assert_eq!(check(Some("CHANGES")), Ok(()));
    assert_eq!(check(Some("OTHER")), Err("there is no stream OTHER".to_owned()));
    let remade = |change: fn(&mut stream::Config)| {
        server.delete_stream();
        server.make_stream(change);
        check(None).unwrap_err()
    };
    assert!(remade(|config| config.storage = stream::StorageType::Memory).contains("in memory"));
    assert!(remade(|config| config.no_ack = true).contains("acknowledges nothing"));
    assert!(remade(|config| config.subjects = vec!["changes.a.>".into()]).contains("changes.*.*"));
    server.delete_stream();
    assert_eq!(check(None), Err("no stream takes changes.*.*".to_owned()));
    assert!(is_listening(local(server.port)));
}
