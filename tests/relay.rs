//! A receiver that keeps nothing: what it answers is what its sinks have done, in time and never
//! better than that.
//!
//! The sink is an HTTP server in this process that does as it is told, and notes what it was sent
//! and what it saw to its end.

mod support;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use receiptd::change::{Change, Filter, OwedTo};
use receiptd::clock::Timestamp;
use receiptd::provider::{Dialect, Provider};
use receiptd::settle::alone::alone;
use receiptd::state::outbox;
use receiptd::state::tables::SCHEMA;
use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::watch;

use support::{
    Client, PATH, PATIENCE, Receiptd, SOURCE, Setup, TOKEN, eventually, metric, post, receipt,
    receiptd, run, source,
};

/// What the sink is to do with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Answer with that code.
    Answer(u16),
    /// Answer 204, but only after a later order.
    Hold,
}

/// An app that hears of changes.
struct App {
    address: SocketAddr,
    order: Arc<watch::Sender<Order>>,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    /// Every event, as it came.
    events: Vec<Value>,
    /// How many of them were answered to somebody who was still there.
    finished: usize,
}

impl App {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let order = Arc::new(watch::Sender::new(Order::Answer(204)));
        let heard = Arc::<Mutex<Heard>>::default();
        let (ordered, hearing) = (Arc::clone(&order), Arc::clone(&heard));
        // Ends with the process.
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listener, ordered, hearing));
        });
        Self { address, order, heard }
    }

    fn told(&self, order: Order) {
        self.order.send_replace(order);
    }

    fn events(&self) -> Vec<Value> {
        self.heard.lock().unwrap().events.clone()
    }

    fn ids(&self) -> Vec<String> {
        self.events().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
    }

    fn finished(&self) -> usize {
        self.heard.lock().unwrap().finished
    }

    /// Its section of the configuration.
    fn sink(&self, name: &str, lines: &str) -> String {
        sink(name, self.address, lines)
    }
}

fn sink(name: &str, address: SocketAddr, lines: &str) -> String {
    format!(
        "[[sink]]\nname = \"{name}\"\ntype = \"http\"\nurl = \"http://{address}/changes\"\n{lines}\n"
    )
}

async fn serve(listener: TcpListener, order: Arc<watch::Sender<Order>>, heard: Arc<Mutex<Heard>>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (order, heard) = (Arc::clone(&order), Arc::clone(&heard));
        let service = service_fn(move |request| answer(request, order.subscribe(), heard.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    request: Request<Incoming>,
    mut order: watch::Receiver<Order>,
    heard: Arc<Mutex<Heard>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    heard.lock().unwrap().events.push(serde_json::from_slice(&body).unwrap());
    let now = *order.wait_for(|order| *order != Order::Hold).await.unwrap();
    heard.lock().unwrap().finished += 1;
    let Order::Answer(code) = now else { unreachable!() };
    let mut response = Response::new(Empty::new());
    *response.status_mut() = code.try_into().unwrap();
    Ok(response)
}

/// A receiver that keeps nothing, before these sinks.
fn relay(sinks: &str) -> Setup {
    let mut setup = Setup::new().with("store", "kind = \"none\"");
    setup.sources.push_str(sinks);
    setup
}

#[test]
fn a_callback_is_acknowledged_once_its_sink_has_it_and_nothing_is_kept() {
    let app = App::start();
    let setup = relay(&app.sink("app", ""));
    let server = setup.start();
    assert_eq!(server.admin("/readyz").status, 200, "{}", server.stderr());
    assert_eq!(server.post(receipt("a")), 204, "{}", server.stderr());
    let events = app.events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["type"], "receiptd.status");
    assert_eq!(events[0]["subject"], "a");
    assert_eq!(events[0]["data"]["status"], "delivered");
    assert_eq!(events[0]["data"]["previous"], Value::Null);
    // There is nothing to settle, and whoever waits for it does not wait.
    assert_eq!(server.admin("/settled?wait=20s").status, 204);
    assert_eq!(server.admin("/control/prune").status, 404);
    let page = server.metrics();
    let counted = metric(&page, r#"receiptd_relayed_total{sink="app",outcome="accepted"}"#);
    assert_eq!(counted, Some(1.0), "{page}");
    assert!(!page.contains("wal_bytes{"), "{page}");
    let files = files(setup.folder.path());
    assert_eq!(files, ["receiptd.toml", "stderr.txt"]);
    server.stop();
    assert_eq!(self::files(setup.folder.path()), files);
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_reachability_probe_is_answered_and_passed_on_to_nobody() {
    let app = App::start();
    app.told(Order::Answer(500));
    let setup = relay(&app.sink("app", ""));
    let server = setup.start();
    let probe = r#"{"health_check": "true"}"#;
    assert_eq!(server.post(probe), 204);
    assert_eq!(server.ask(post(PATH, "another", receipt("a"))).status, 401);
    assert_eq!(app.events(), Vec::<Value>::new());
}

#[test]
fn what_is_not_understood_is_passed_on_with_the_callback_in_it() {
    let app = App::start();
    let setup = relay(&app.sink("app", "include_raw = true"));
    let server = setup.start();
    assert_eq!(server.post("no JSON"), 204, "{}", server.stderr());
    let event = app.events().remove(0);
    assert_eq!(event["type"], "receiptd.unrecognised");
    assert_eq!(event["data"]["raw"], "no JSON");
    let series = format!("receiptd_unrecognised_total{{source=\"{SOURCE}\"}}");
    assert_eq!(metric(&server.metrics(), &series), Some(1.0));
}

#[test]
fn whatever_a_sink_says_but_yes_is_503() {
    let app = App::start();
    let setup = relay(&app.sink("app", ""));
    let server = setup.start();
    for code in [500, 503, 429, 408, 400, 404, 301] {
        app.told(Order::Answer(code));
        let answer = server.ask(post(PATH, TOKEN, receipt("a")));
        assert_eq!(answer.status, 503, "{code}");
        assert_eq!(answer.header("retry-after"), Some("5"));
    }
    // None of that makes it unready: what a load balancer answers in its place may be worse.
    assert_eq!(server.admin("/readyz").status, 200);
    app.told(Order::Answer(204));
    assert_eq!(server.post(receipt("a")), 204);
    let ids = app.ids();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn a_sink_that_says_it_is_gone_is_503_for_that_callback_and_hears_of_the_next() {
    let app = App::start();
    let setup = relay(&app.sink("app", ""));
    let server = setup.start();
    app.told(Order::Answer(410));
    assert_eq!(server.post(receipt("a")), 503);
    assert_eq!(server.admin("/readyz").status, 200);
    let said = server.stderr();
    let line = said.lines().find(|line| line.contains("says that it is gone")).expect(&said);
    assert!(line.contains("ERROR") && line.contains("answered 410"), "{line}");
    app.told(Order::Answer(204));
    assert_eq!(server.post(receipt("a")), 204);
    assert_eq!(app.events().len(), 2);
}

#[test]
fn a_sink_that_is_down_is_503_at_once() {
    let setup = relay(&sink("app", closed(), ""));
    let server = setup.start();
    let asked = Instant::now();
    assert_eq!(server.post(receipt("a")), 503);
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    assert!(server.stderr().contains("did not accept events"), "{}", server.stderr());
}

/// Nobody listens there.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[cfg(feature = "sink-nats")]
#[test]
fn a_sink_that_has_not_shown_that_it_keeps_makes_the_receiver_unready_and_is_asked_again() {
    let app = App::start();
    let nats =
        format!("[[sink]]\nname = \"stream\"\ntype = \"nats\"\nurl = \"nats://{}\"\n", closed());
    let setup = relay(&(nats + &app.sink("app", "")));
    // It runs all the same: brokers and receivers are started in any order.
    let server = setup.start();
    assert_eq!(server.admin("/livez").status, 200);
    let ready = server.admin("/readyz");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.text(), "a sink has not shown that it keeps what it accepts\n");
    assert_eq!(server.post(receipt("a")), 503);
    eventually("the other sink has it", || app.finished() == 1);
    let page = server.metrics();
    assert_eq!(metric(&page, "receiptd_ready"), Some(0.0));
    let refused = metric(&page, r#"receiptd_relayed_total{sink="stream",outcome="failed"}"#);
    assert_eq!(refused, Some(0.0), "nothing was sent to it");
}

#[test]
fn a_sink_that_takes_too_long_is_503_within_the_deadline() {
    let app = App::start();
    app.told(Order::Hold);
    let setup = relay(&app.sink("app", "")).limits("ack_wait_ms_max = 300");
    let server = setup.start();
    let asked = Instant::now();
    assert_eq!(server.post(receipt("a")), 503);
    let took = asked.elapsed();
    assert!((300..2_000).contains(&took.as_millis()), "{took:?}");
    // It is none the worse for what was abandoned.
    app.told(Order::Answer(204));
    assert_eq!(server.post(receipt("a")), 204, "{}", server.stderr());
}

#[test]
fn of_two_sinks_one_that_fails_makes_it_503_and_the_other_sees_the_repeat_with_the_same_id() {
    let (well, sick) = (App::start(), App::start());
    sick.told(Order::Answer(500));
    let setup = relay(&(sick.sink("sick", "") + &well.sink("well", "")));
    let server = setup.start();
    assert_eq!(server.post(receipt("a")), 503);
    eventually("the other sink has it", || well.finished() == 1);
    sick.told(Order::Answer(204));
    assert_eq!(server.post(receipt("a")), 204, "{}", server.stderr());
    let (ids, others) = (well.ids(), sick.ids());
    assert_eq!(ids, [ids[0].clone(), ids[0].clone()]);
    assert_eq!(ids, others);
}

#[test]
fn each_sink_hears_of_what_it_asked_for() {
    let (statuses, rest) = (App::start(), App::start());
    let kinds = r#"kinds = ["message", "complaint", "returned-letter", "unrecognised"]"#;
    let sinks = statuses.sink("statuses", r#"kinds = ["status"]"#) + &rest.sink("rest", kinds);
    let setup = relay(&sinks);
    let server = setup.start();
    assert_eq!(server.post(receipt("a")), 204);
    assert_eq!(server.post("no JSON"), 204);
    assert_eq!((statuses.events().len(), rest.events().len()), (1, 1));
}

#[test]
fn more_than_may_be_under_way_is_503_at_once() {
    let app = App::start();
    app.told(Order::Hold);
    let setup = relay(&app.sink("app", "")).limits("queue_callbacks_max = 2");
    let server = setup.start();
    let mut held: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    for (number, client) in held.iter_mut().enumerate() {
        client.send(post(PATH, TOKEN, receipt(&format!("held-{number}"))));
    }
    eventually("two are under way", || app.events().len() == 2);
    assert_eq!(metric(&server.metrics(), "receiptd_queue_callbacks"), Some(2.0));
    let asked = Instant::now();
    assert_eq!(server.post(receipt("a")), 503);
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    app.told(Order::Answer(204));
    assert!(held.iter_mut().all(|client| client.answer().status == 204));
    assert_eq!(server.post(receipt("a")), 204);
}

#[test]
fn a_caller_that_hangs_up_cancels_nothing() {
    let app = App::start();
    let setup = relay(&app.sink("app", ""));
    let server = setup.start();
    let mut client = server.connect();
    // Whoever leaves an answer unread resets the connection when it hangs up: an end alone would only
    // say that no more is sent.
    client.send(post(PATH, TOKEN, receipt("a")));
    eventually("it is answered", || app.finished() == 1);
    app.told(Order::Hold);
    client.send(post(PATH, TOKEN, receipt("b")));
    eventually("it is under way", || app.events().len() == 2);
    drop(client);
    app.told(Order::Answer(204));
    eventually("it was answered to somebody", || app.finished() == 2);
    let counted = r#"receiptd_relayed_total{sink="app",outcome="accepted"}"#;
    eventually("it was accepted", || metric(&server.metrics(), counted) == Some(2.0));
    eventually("its connection is gone", || {
        metric(&server.metrics(), "receiptd_connections") == Some(0.0)
    });
}

#[test]
fn stopping_finishes_what_is_under_way() {
    let app = App::start();
    app.told(Order::Hold);
    let setup = relay(&app.sink("app", ""));
    let mut server = setup.start();
    let mut client = server.connect();
    client.send(post(PATH, TOKEN, receipt("a")));
    eventually("it is under way", || app.events().len() == 1);
    server.signal(Signal::TERM);
    eventually("it is stopping", || server.admin("/readyz").status == 503);
    app.told(Order::Answer(204));
    assert_eq!(client.answer().status, 204);
    assert_eq!(server.wait(PATIENCE), Some(0), "{}", server.stderr());
}

#[test]
fn a_source_that_a_reload_adds_is_passed_on() {
    let app = App::start();
    let mut setup = relay(&app.sink("app", ""));
    let server = setup.start();
    setup.sources = source("visa", "notify", &[("live", TOKEN)]) + &setup.sources;
    reload(&setup, &server, "are in force");
    assert_eq!(server.ask(post("/callbacks/visa", TOKEN, receipt("a"))).status, 204);
    assert_eq!(app.events()[0]["source"], "/receiptd/visa");
    assert_eq!(server.post(receipt("b")), 204);
}

#[test]
fn a_source_that_no_sink_in_force_takes_is_not_taken_by_a_reload() {
    let app = App::start();
    let mut setup = relay(&app.sink("app", &format!("sources = [\"{SOURCE}\"]")));
    let server = setup.start();
    // Whatever the file says of sinks by now: they need a new start.
    let sources = setup.sources.replace("sources = [", "sources = [\"visa\", ");
    setup.sources = source("visa", "notify", &[("live", TOKEN)]) + &sources;
    reload(&setup, &server, "not reloaded");
    assert_eq!(server.ask(post("/callbacks/visa", TOKEN, receipt("a"))).status, 404);
    assert_eq!(server.post(receipt("b")), 204);
}

fn reload(setup: &Setup, server: &Receiptd, expected: &str) {
    setup.write();
    server.signal(Signal::HUP);
    eventually(expected, || server.stderr().contains(expected));
}

#[test]
fn what_no_sink_would_keep_is_a_problem_of_the_configuration() {
    let app = App::start();
    for (sinks, expected) in [
        (String::new(), "no [[sink]]"),
        (app.sink("app", r#"statuses = ["permanent-failure"]"#), "status"),
        (app.sink("app", r#"kinds = ["status"]"#), "unrecognised"),
        ("[[sink]]\nname = \"out\"\ntype = \"stdout\"\n".to_owned(), "stdout"),
    ] {
        let setup = relay(&sinks);
        let config = setup.write();
        let ended =
            run(receiptd(setup.folder.path(), &["serve", "--config"]).arg(config.as_os_str()));
        assert_eq!(ended.code, Some(78), "{sinks}{ended:?}");
        assert!(ended.stderr.contains(expected), "{expected}: {}", ended.stderr);
        assert_eq!(files(setup.folder.path()), ["receiptd.toml"]);
    }
}

#[test]
fn a_command_that_needs_a_database_says_that_there_is_none() {
    let app = App::start();
    let setup = relay(&app.sink("app", ""));
    let config = setup.write();
    for command in [
        &["list"][..],
        &["show", "a"],
        &["explain", "a"],
        &["messages"],
        &["unrecognised"],
        &["stats"],
        &["rebuild"],
        &["check-db"],
        &["backup", "copy.db"],
        &["prune", "--older-than", "1d"],
        &["outbox", "list"],
        &["outbox", "show", "a"],
        &["outbox", "retry"],
        &["outbox", "discard", "--sink", "app", "--yes"],
    ] {
        let mut arguments = command.to_vec();
        let config = config.to_str().unwrap();
        arguments.extend(["--config", config]);
        let ended = run(&mut receiptd(setup.folder.path(), &arguments));
        assert_eq!(ended.code, Some(78), "{command:?}{ended:?}");
        assert!(ended.stderr.contains("keeps nothing"), "{command:?}{ended:?}");
    }
    assert_eq!(files(setup.folder.path()), ["receiptd.toml"]);
}

#[test]
fn an_event_has_the_id_that_a_receiver_with_a_store_gives_it() {
    let (kept, relayed) = (App::start(), App::start());
    let mut store = Setup::new();
    store.sources.push_str(&kept.sink("app", ""));
    let setup = relay(&relayed.sink("app", ""));
    let (store, relay) = (store.start(), setup.start());
    let bodies = [
        receipt("a"),
        r#"{"id": "m", "source_number": "1", "message": "hello"}"#.to_owned(),
        r#"{"notification_id": "a", "complaint_id": "1"}"#.to_owned(),
        "no JSON".to_owned(),
    ];
    for body in &bodies {
        assert_eq!((store.post(body), relay.post(body)), (204, 204));
    }
    eventually("all of it is forwarded", || kept.events().len() == bodies.len());
    let sorted = |app: &App| {
        let events = app.events();
        let mut all: Vec<_> =
            events.iter().map(|event| (event["type"].clone(), event["id"].clone())).collect();
        all.sort_by_key(|(kind, _)| kind.to_string());
        all
    };
    assert_eq!(sorted(&relayed), sorted(&kept));
}

/// The changes that settling this callback into an empty state owes to a sink that wants all.
fn settled(source: &Arc<str>, dialect: &Dialect, at: Timestamp, body: &[u8]) -> Vec<Change> {
    let connection = receiptd::sqlite::open_in_memory(&SCHEMA).unwrap();
    let callback = receiptd::callback::Callback {
        seq: 1,
        source: Arc::clone(source),
        received_at: at,
        body: body.to_vec(),
        origin: receiptd::callback::Origin::CalledBack,
    };
    let dialects = [(Arc::clone(source), dialect.clone())].into_iter().collect();
    let owed_to = OwedTo {
        sink: Arc::from("all"),
        since: 0,
        filter: Filter::default(),
        is_latest_only: false,
        wants_body: false,
    };
    receiptd::settle::settle(&connection, &[callback], &dialects, &[owed_to]).unwrap();
    let owed = outbox::fresh(&connection, "all", 0, usize::MAX).unwrap();
    owed.into_iter().map(|owed| Arc::unwrap_or_clone(owed.change)).collect()
}

#[test]
fn the_changes_of_one_callback_are_those_that_settling_makes_of_it() {
    let at = Timestamp::from_unix_micros(1_795_341_600_000_000);
    let name: Arc<str> = Arc::from("s");
    let mut compared = 0;
    for provider in Provider::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        for body in bodies(&folder.join(provider.as_str())) {
            let dialect = Dialect::from(provider);
            // Where they stand in a journal is the store's affair.
            let without_place = |change: Change| Change { key: 0, subject: 0, ..change };
            let relayed: Vec<_> =
                alone(&name, &dialect, at, &body).changes.into_iter().map(without_place).collect();
            let stored = settled(&name, &dialect, at, &body);
            let stored: Vec<_> = stored.into_iter().map(without_place).collect();
            if relayed.len() == 1 {
                assert_eq!(relayed, stored);
            }
            // Of several events about one notification a later one may change nothing, or hold what
            // an earlier one said.
            let ids: Vec<_> = relayed.iter().map(|change| change.id).collect();
            assert!(stored.iter().all(|change| ids.contains(&change.id)));
            compared += stored.len();
        }
    }
    assert!(compared > 50, "{compared}");
}

/// Every callback of every case in that folder.
fn bodies(folder: &Path) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    for case in std::fs::read_dir(folder).unwrap() {
        for file in std::fs::read_dir(case.unwrap().path().join("callbacks")).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read(&path).unwrap();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                bodies.extend(text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
            } else {
                bodies.push(text);
            }
        }
    }
    bodies
}
