//! The amqp sink, and RabbitMQ.
//!
//! The broker is started without the scripts that Debian puts around it, which would run it as a
//! service of the machine, and with a port mapper of its own, which would otherwise outlive it.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use amqprs::channel::{
    BasicGetArguments, Channel, ExchangeDeclareArguments, QueueBindArguments,
    QueueDeclareArguments, QueueUnbindArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::{BasicProperties, FieldTable, FieldValue};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use receiptd::config::settings::{AmqpSink, ClientTls, Endpoint, Login, Secret};
use receiptd::forward::amqp::Amqp;
use receiptd::forward::event::Event;
use receiptd::forward::fault::Fault;
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::event::with_data;
use crate::proxy::{Proxy, Weather};
use crate::servers::{
    Missing, Server, as_user, find, folder, free_port, give_to, local, or_left_out,
};
use crate::suite::{self, Held, Kind, Rejection};
use crate::support::{PATIENCE, holds_within};

const INSTALL: &str = "apt-get install rabbitmq-server";

/// The user that Debian's broker runs as.
const USER: &str = "rabbitmq";

/// Of everything that is asked of a broker here.
const ATTEMPT: Duration = Duration::from_secs(20);

#[test]
fn the_amqp_sink_passes_the_suite() {
    suite::passes::<Broker>();
}

/// A broker on this machine, with one exchange and one queue a case.
struct Broker {
    folder: TempDir,
    secrets: TempDir,
    port: u16,
    tls_port: u16,
    /// Of the Erlang nodes among themselves.
    node_port: u16,
    mapper_port: u16,
    program: PathBuf,
    server: Server,
    _mapper: Server,
    runtime: Runtime,
    name: String,
    taken: Vec<Held>,
}

impl Broker {
    fn try_start() -> Result<Self, Missing> {
        let (program, mapper) = (broker_program()?, find("epmd", INSTALL)?);
        let folder = folder();
        let [port, tls_port, node_port, mapper_port] = [(); 4].map(|()| free_port());
        write_files(folder.path(), port, tls_port);
        give_to(USER, folder.path());
        let mut mapping = Command::new(mapper);
        mapping.args(["-address", "127.0.0.1", "-port", &mapper_port.to_string()]);
        let mut mapper = Server::start(mapping, &folder.path().join("mapper.log"));
        mapper.wait_for(local(mapper_port));
        let command = command(&program, folder.path(), (port, node_port, mapper_port));
        let server = Server::start(command, &folder.path().join("server.log"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut broker = Self {
            folder,
            secrets: tempfile::tempdir().unwrap(),
            port,
            tls_port,
            node_port,
            mapper_port,
            program,
            server,
            _mapper: mapper,
            runtime,
            name: String::new(),
            taken: Vec::new(),
        };
        broker.wait();
        Ok(broker)
    }

    /// It listens before it serves.
    fn wait(&mut self) {
        let arguments = OpenConnectionArguments::new("127.0.0.1", self.port, "guest", "guest");
        let Self { server, runtime, .. } = self;
        server.wait_until("serving", || {
            runtime.block_on(async {
                let opened = timeout(ATTEMPT, Connection::open(&arguments)).await;
                let Ok(Ok(connection)) = opened else { return false };
                connection.close().await.is_ok()
            })
        });
    }

    /// Does something with a channel of its own.
    fn on_channel<T>(&self, work: impl AsyncFnOnce(&Channel) -> T) -> T {
        let arguments = OpenConnectionArguments::new("127.0.0.1", self.port, "guest", "guest");
        self.runtime.block_on(async {
            let done = timeout(ATTEMPT, async {
                let connection = Connection::open(&arguments).await.unwrap();
                let channel = connection.open_channel(None).await.unwrap();
                let done = work(&channel).await;
                channel.close().await.unwrap();
                connection.close().await.unwrap();
                done
            });
            done.await.expect("the broker answers")
        })
    }

    /// A durable exchange and queue of that name, not bound to each other.
    fn declare(&self, name: &str) {
        self.on_channel(async |channel| {
            let mut exchange = ExchangeDeclareArguments::new(name, "topic");
            channel.exchange_declare(exchange.durable(true).finish()).await.unwrap();
            let queue = QueueDeclareArguments::durable_client_named(name);
            channel.queue_declare(queue).await.unwrap();
        });
    }

    fn bind(&self, queue: &str, exchange: &str) {
        let arguments = QueueBindArguments::new(queue, exchange, "#");
        self.on_channel(async |channel| channel.queue_bind(arguments).await.unwrap());
    }

    fn unbind(&self, queue: &str, exchange: &str) {
        let arguments = QueueUnbindArguments::new(queue, exchange, "#");
        self.on_channel(async |channel| channel.queue_unbind(arguments).await.unwrap());
    }

    /// Takes every message out of a queue.
    fn take(&self, queue: &str) -> Vec<(BasicProperties, Vec<u8>)> {
        let arguments = BasicGetArguments::new(queue).no_ack(true).finish();
        self.on_channel(async |channel| {
            let mut all = Vec::new();
            while let Some((_, properties, body)) =
                channel.basic_get(arguments.clone()).await.unwrap()
            {
                all.push((properties, body));
            }
            all
        })
    }

    fn settings(&self, exchange: &str) -> AmqpSink {
        let at = Endpoint {
            is_tls: false,
            host: "127.0.0.1".to_owned(),
            port: self.port,
            path: String::new(),
        };
        AmqpSink {
            at,
            exchange: exchange.to_owned(),
            routing_key: None,
            login: Login { user: "guest".to_owned(), password: Secret(b"guest".to_vec()) },
            tls: ClientTls::default(),
        }
    }

    fn sink(&self, exchange: &str) -> Amqp {
        Amqp::open(&self.settings(exchange)).unwrap()
    }

    fn send(&self, sink: &Amqp, event: &Event) -> Result<(), Fault> {
        self.runtime
            .block_on(async { timeout(ATTEMPT, sink.send(event)).await.expect("an answer") })
    }

    fn check_durable(&self, sink: &Amqp) -> Result<(), String> {
        self.runtime.block_on(async { timeout(ATTEMPT, sink.check_durable()).await.unwrap() })
    }
}

impl Kind for Broker {
    const TYPE: &'static str = "amqp";

    fn start() -> Result<Self, Missing> {
        Self::try_start()
    }

    fn address(&self) -> Option<SocketAddr> {
        Some(local(self.port))
    }

    fn fresh(&mut self, case: &str) {
        self.name = case.to_owned();
        self.taken.clear();
        self.declare(case);
        self.bind(case, case);
        // Takes nothing and says so; bound to nothing yet.
        let full = format!("{case}-full");
        self.on_channel(async |channel| {
            let mut arguments = FieldTable::new();
            arguments.insert("x-max-length".try_into().unwrap(), FieldValue::I(0));
            arguments.insert("x-overflow".try_into().unwrap(), "reject-publish".into());
            let mut queue = QueueDeclareArguments::durable_client_named(&full);
            channel.queue_declare(queue.arguments(arguments).finish()).await.unwrap();
        });
    }

    fn lines(&self, through: SocketAddr) -> String {
        let password = self.secrets.path().join("password");
        fs::write(&password, "guest").unwrap();
        fs::set_permissions(&password, Permissions::from_mode(0o600)).unwrap();
        format!(
            "url = \"amqp://{through}\"\nexchange = \"{}\"\nuser = \"guest\"\npassword_file = \"{}\"",
            self.name,
            password.display()
        )
    }

    fn held(&mut self) -> Vec<Held> {
        for (properties, body) in self.take(&self.name) {
            let held = Held::from_structured(&body);
            assert_eq!(properties.message_id(), Some(&held.id));
            self.taken.push(held);
        }
        self.taken.clone()
    }

    fn reject(&mut self) -> Rejection {
        self.bind(&format!("{}-full", self.name), &self.name);
        self.unbind(&self.name, &self.name);
        Rejection::Waits
    }

    fn accept(&mut self) {
        self.bind(&self.name, &self.name);
        self.unbind(&format!("{}-full", self.name), &self.name);
    }

    fn crash(&mut self) {
        self.server.kill();
    }

    fn start_again(&mut self) {
        let ports = (self.port, self.node_port, self.mapper_port);
        let command = command(&self.program, self.folder.path(), ports);
        self.server = Server::start(command, &self.folder.path().join("server.log"));
        self.wait();
    }
}

/// The script that starts the broker as whoever calls it; the one on `PATH` insists on its service.
fn broker_program() -> Result<PathBuf, Missing> {
    let installed = find("rabbitmq-server", INSTALL)?;
    let versions = fs::read_dir("/usr/lib/rabbitmq/lib").into_iter().flatten().flatten();
    let programs = versions.map(|version| version.path().join("sbin/rabbitmq-server"));
    Ok(programs.filter(|program| program.exists()).max().unwrap_or(installed))
}

fn write_files(folder: &Path, port: u16, tls_port: u16) {
    let issuer_key = KeyPair::generate().unwrap();
    let mut issuer = CertificateParams::new(Vec::new()).unwrap();
    issuer.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(issuer, issuer_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let of_server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = of_server.signed_by(&key, &issuer).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    let configuration = format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\nlisteners.ssl.1 = 127.0.0.1:{tls_port}\n\
         ssl_options.certfile = {}\nssl_options.keyfile = {}\nlog.console = true\nlog.file = false\n\
         disk_free_limit.absolute = 50MB\nmax_message_size = 65536\n",
        path("cert.pem"),
        path("key.pem"),
    );
    let files = [
        ("ca.pem", issuer.pem()),
        ("cert.pem", certificate.pem()),
        ("key.pem", key.serialize_pem()),
        ("rabbitmq.conf", configuration),
        ("enabled_plugins", "[].".to_owned()),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
}

fn command(
    program: &Path,
    folder: &Path,
    (port, node_port, mapper_port): (u16, u16, u16),
) -> Command {
    let mut command = as_user(USER, program);
    let path = |name: &str| folder.join(name);
    for (name, value) in [
        ("HOME", folder.to_owned()),
        ("RABBITMQ_BASE", folder.to_owned()),
        ("RABBITMQ_MNESIA_BASE", path("mnesia")),
        ("RABBITMQ_LOG_BASE", path("log")),
        ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
        ("RABBITMQ_CONF_ENV_FILE", path("none")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", path("none2")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")),
        ("RABBITMQ_PID_FILE", path("pid")),
    ] {
        command.env(name, value);
    }
    command
        .env("ERL_EPMD_PORT", mapper_port.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODENAME", format!("t{port}@localhost"))
        .env("RABBITMQ_DIST_PORT", node_port.to_string())
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
        );
    command
}

/// The `number`th change of a notification.
fn event(subject: &str, number: u8) -> Event {
    event_with(subject, number, "")
}

/// One that holds a text as well.
fn event_with(subject: &str, number: u8, text: &str) -> Event {
    let data = json!({ "id": subject, "number": number, "text": text });
    with_data(subject, number.into(), data.to_string())
}

fn why(outcome: Result<(), Fault>) -> (bool, String) {
    match outcome {
        Ok(()) => panic!("it was accepted"),
        Err(Fault::Passing { why, .. }) => (true, why),
        Err(fault) => (false, fault.why().to_owned()),
    }
}

#[test]
fn what_rabbitmq_says_decides_what_becomes_of_a_message() {
    let Some(broker) = or_left_out("amqp", Broker::try_start()) else { return };
    an_unroutable_message_waits_for_a_queue(&broker);
    a_message_is_described_for_its_consumer(&broker);
    a_message_that_is_too_large_is_refused_and_takes_no_other_with_it(&broker);
    a_missing_exchange_may_come(&broker);
    a_login_that_fails_says_so(&broker);
    tls_is_checked(&broker);
}

fn an_unroutable_message_waits_for_a_queue(broker: &Broker) {
    broker.declare("lonely");
    let sink = broker.sink("lonely");
    let (may_pass, text) = why(broker.send(&sink, &event("a", 1)));
    assert!(may_pass && text.contains("no queue is bound") && text.contains("312"), "{text}");
    broker.bind("lonely", "lonely");
    broker.send(&sink, &event("a", 1)).unwrap();
    assert_eq!(broker.take("lonely").len(), 1);
}

fn a_message_is_described_for_its_consumer(broker: &Broker) {
    broker.declare("plain");
    broker.bind("plain", "plain");
    let sink = broker.sink("plain");
    let sent = event("a", 1);
    broker.send(&sink, &sent).unwrap();
    let taken = broker.take("plain");
    let [(properties, body)] = &taken[..] else { panic!("{taken:?}") };
    assert_eq!(*body, sent.structured());
    let id = sent.id();
    let text = |property: Option<&String>| property.unwrap().clone();
    assert!(text(properties.content_type()).starts_with("application/cloudevents+json"));
    assert_eq!(text(properties.message_id()), id);
    assert_eq!(text(properties.message_type()), "receiptd.status");
    assert_eq!(properties.delivery_mode(), Some(2), "it is persistent");
    assert_eq!(properties.timestamp(), Some(1_795_000_000));
}

fn a_message_that_is_too_large_is_refused_and_takes_no_other_with_it(broker: &Broker) {
    broker.declare("small");
    broker.bind("small", "small");
    let sink = broker.sink("small");
    let large = event_with("large", 1, &"x".repeat(70_000));
    let (small, other) = (event("small", 1), event("other", 1));
    let outcomes = broker.runtime.block_on(async {
        let all = async { tokio::join!(sink.send(&small), sink.send(&large), sink.send(&other)) };
        timeout(ATTEMPT, all).await.unwrap()
    });
    let (may_pass, text) = why(outcomes.1);
    assert!(!may_pass && text.contains("max_message_size"), "{text}");
    for outcome in [outcomes.0, outcomes.2] {
        assert!(!matches!(outcome, Err(Fault::Refused { .. } | Fault::Gone { .. })), "{outcome:?}");
    }
    broker.send(&sink, &small).unwrap();
    broker.send(&sink, &other).unwrap();
}

fn a_missing_exchange_may_come(broker: &Broker) {
    let sink = broker.sink("later");
    let (may_pass, text) = why(broker.send(&sink, &event("a", 1)));
    assert!(may_pass && text.contains("404"), "{text}");
    let refused = broker.check_durable(&sink).unwrap_err();
    assert!(refused.contains("404"), "{refused}");
    broker.declare("later");
    broker.bind("later", "later");
    broker.send(&sink, &event("a", 1)).unwrap();
    broker.check_durable(&sink).unwrap();
    // The default exchange routes to the queue of that name.
    let mut settings = broker.settings("");
    settings.routing_key = Some("later".to_owned());
    let sink = Amqp::open(&settings).unwrap();
    broker.check_durable(&sink).unwrap();
    broker.send(&sink, &event("b", 1)).unwrap();
    assert_eq!(broker.take("later").len(), 2);
    settings.routing_key = Some("nowhere".to_owned());
    broker.check_durable(&Amqp::open(&settings).unwrap()).unwrap_err();
}

fn a_login_that_fails_says_so(broker: &Broker) {
    let mut settings = broker.settings("later");
    settings.login.password = Secret(b"another".to_vec());
    let (may_pass, text) = why(broker.send(&Amqp::open(&settings).unwrap(), &event("a", 1)));
    assert!(may_pass && text.contains("login"), "{text}");
    let mut settings = broker.settings("later");
    settings.at.path = "nowhere".to_owned();
    let (may_pass, text) = why(broker.send(&Amqp::open(&settings).unwrap(), &event("a", 1)));
    assert!(may_pass && text.contains("virtual host"), "{text}");
}

fn tls_is_checked(broker: &Broker) {
    let mut settings = broker.settings("later");
    settings.at.is_tls = true;
    settings.at.port = broker.tls_port;
    let (may_pass, text) = why(broker.send(&Amqp::open(&settings).unwrap(), &event("a", 1)));
    assert!(may_pass && text.contains("certificate"), "{text}");
    settings.tls.ca_file = Some(broker.folder.path().join("ca.pem"));
    broker.send(&Amqp::open(&settings).unwrap(), &event("a", 1)).unwrap();
}

#[test]
fn what_a_killed_broker_confirmed_it_has_and_the_sink_finds_it_again() {
    let Some(mut broker) = or_left_out("amqp", Broker::try_start()) else { return };
    broker.declare("kept");
    broker.bind("kept", "kept");
    let proxy = Proxy::to(local(broker.port));
    let mut settings = broker.settings("kept");
    settings.at.port = proxy.address().port();
    let sink = Amqp::open(&settings).unwrap();
    let events: Vec<Event> = (0..100).map(|n| event(&format!("n{n}"), n)).collect();
    for event in &events {
        broker.send(&sink, event).unwrap();
    }
    broker.crash();
    let (may_pass, text) = why(broker.send(&sink, &event("late", 1)));
    assert!(may_pass, "{text}");
    broker.start_again();
    // Senders that give up leave nothing behind that is in the way.
    proxy.set(Weather::Stall);
    for number in 0..3 {
        let given_up = broker.runtime.block_on(async {
            timeout(Duration::from_millis(100), sink.send(&event("given up", number))).await
        });
        assert!(given_up.is_err(), "{given_up:?}");
    }
    proxy.set(Weather::Pass);
    let mut last = Ok(());
    let is_back = holds_within(PATIENCE, || {
        last = broker.send(&sink, &event("late", 1));
        last.is_ok()
    });
    assert!(is_back, "{last:?}");
    let held: Vec<String> =
        broker.take("kept").iter().map(|(_, body)| Held::from_structured(body).subject).collect();
    let expected: Vec<&str> = events.iter().filter_map(Event::subject).collect();
    assert_eq!(held[..100], expected);
    assert_eq!(held.last().map(String::as_str), Some("late"));
    // A connection over which nothing comes any more is given up, though nobody closes it.
    proxy.set(Weather::Stall);
    let (may_pass, text) = why(broker.send(&sink, &event("silence", 1)));
    assert!(may_pass && text.contains("lost"), "{text}");
}
