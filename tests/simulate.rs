//! `receiptd simulate` as its callers meet it: the real binary against the real receiver, and
//! against receivers that do what one must not do.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

mod support;

use support::{Ended, PATH, Receiptd, SOURCE, Setup, TOKEN, source};

/// A simulation with what most of them have in common.
struct Simulation {
    folder: PathBuf,
    arguments: Vec<String>,
    token: &'static str,
}

impl Simulation {
    fn of(folder: &Path, provider: &str, address: SocketAddr) -> Self {
        let url = format!("http://{address}{PATH}");
        let arguments = ["simulate", &url, "--provider", provider].map(str::to_owned).to_vec();
        Self { folder: folder.to_owned(), arguments, token: TOKEN }
    }

    fn with(mut self, flags: &str) -> Self {
        self.arguments.extend(flags.split_whitespace().map(str::to_owned));
        self
    }

    fn with_path(mut self, flag: &str, path: &Path) -> Self {
        self.arguments.extend([flag.to_owned(), path.to_str().unwrap().to_owned()]);
        self
    }

    fn token(mut self, token: &'static str) -> Self {
        self.token = token;
        self
    }

    fn command(&self) -> Command {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let mut command = support::receiptd(&self.folder, &arguments);
        command.env("RECEIPTD_TOKEN", self.token);
        command
    }

    /// Runs to its end with the report for people.
    fn run(&self) -> Ended {
        support::run(&mut self.command())
    }

    /// The same with the report as JSON.
    fn report(&self) -> (Option<i32>, Value) {
        let ended = support::run(self.command().args(["--format", "json"]));
        let report = serde_json::from_str(&ended.stdout);
        let report = report.unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        (ended.code, report)
    }
}

/// A request as a receiver sees it.
struct Request {
    head: String,
    body: String,
}

/// What a receiver does with a request.
struct Reply {
    bytes: Vec<u8>,
    /// Hangs up after it.
    ends: bool,
}

impl Reply {
    fn code(code: u16) -> Self {
        let bytes = format!("HTTP/1.1 {code} x\r\ncontent-length: 0\r\n\r\n").into_bytes();
        Self { bytes, ends: false }
    }

    fn json(code: u16, body: &str) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 {code} x\r\ncontent-length: {length}\r\n\r\n");
        Self { bytes: format!("{head}{body}").into_bytes(), ends: false }
    }
}

/// A receiver somebody might have written, with a thread for each connection.
struct Fake {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Fake {
    fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::Relaxed);
                let answer = Arc::clone(&answer);
                thread::spawn(move || serve(stream, &*answer));
            }
        });
        Self { address, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&Request) -> Reply) {
    let mut read = Vec::new();
    while let Some(request) = next_request(&mut stream, &mut read) {
        let reply = answer(&request);
        if stream.write_all(&reply.bytes).is_err() || reply.ends {
            return;
        }
    }
}

fn next_request(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<Request> {
    loop {
        let head = read.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = head {
            let head = String::from_utf8(read[..end].to_vec()).unwrap();
            let lower = head.to_lowercase();
            let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
            let whole = end + 4 + length.map_or(0, |length| length.parse().unwrap());
            if read.len() >= whole {
                let body = String::from_utf8(read[end + 4..whole].to_vec()).unwrap();
                read.drain(..whole);
                return Some(Request { head, body });
            }
        }
        let mut bytes = [0; 16 << 10];
        let count = stream.read(&mut bytes).ok().filter(|count| *count > 0)?;
        read.extend_from_slice(&bytes[..count]);
    }
}

/// The id in a body.
fn id_in(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap();
    let id = body.get("id").or_else(|| body.get("notification_id"));
    id.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn setup(provider: &str) -> Setup {
    Setup::with_sources(&source(SOURCE, provider, &[("live", TOKEN)]))
}

mod against_the_receiver {
    use super::*;

    #[test]
    fn every_platform_comes_to_the_truth() {
        for (platform, provider) in [
            ("gc-notify", "gc-notify"),
            ("gc-notify-before-2026-08", "gc-notify"),
            ("govuk-notify", "govuk-notify"),
            ("us-notify", "us-notify"),
            ("va-notify", "va-notify"),
            ("notify-nl", "notify-nl"),
            ("ajo", "ajo"),
        ] {
            let setup = setup(provider);
            let receiver = setup.start();
            let simulation = Simulation::of(setup.folder.path(), platform, receiver.callbacks)
                .with("--count 300 --rate 600 --speed 20000 --seed 7")
                .with_path("--verify-db", &setup.state());
            let (code, report) = simulation.report();
            assert_eq!(code, Some(0), "{platform}: {report}");
            assert_eq!(report["ok"], true, "{platform}: {report}");
            assert_eq!(report["messages"], 300, "{platform}");
            assert_eq!(report["answers"].as_object().unwrap().len(), 1, "{platform}: {report}");
            assert_eq!(report["answers"]["204"], report["requests"], "{platform}: {report}");
            let compared = report["verification"]["compared"].as_u64().unwrap();
            assert!(compared > 200, "{platform}: {report}");
            assert_eq!(report["verification"]["as_expected"], compared, "{platform}: {report}");
            receiver.stop();
        }
    }

    #[test]
    fn callbacks_asked_for_with_one_notification_are_signed() {
        let sources = "[[source]]\nname = \"passport\"\nprovider = \"va-notify\"\n\
                       signature = { secret_file = \"SECRET\" }\n";
        let setup = Setup::with_sources(sources);
        let secret = setup.path("secret");
        std::fs::write(&secret, "the-secret-of-an-api-key\n").unwrap();
        let setup = Setup { sources: sources.replace("SECRET", secret.to_str().unwrap()), ..setup };
        let receiver = setup.start();
        let simulation =
            Simulation::of(setup.folder.path(), "va-notify-signed", receiver.callbacks)
                .with("--count 100 --speed 20000")
                .with_path("--verify-db", &setup.state());
        let signed = simulation.with_path("--token-file", &secret);
        let (code, report) = signed.report();
        assert_eq!(code, Some(0), "{report}");
        assert!(report["verification"]["compared"].as_u64().unwrap() > 50, "{report}");
        let (code, report) =
            Simulation::of(setup.folder.path(), "va-notify-signed", receiver.callbacks)
                .with("--count 10 --speed 20000")
                .token("another-secret")
                .report();
        assert_eq!(code, Some(1), "{report}");
        assert_eq!(report["lost"][0]["code"], 401, "{report}");
    }

    #[test]
    fn a_closed_loop_sends_as_fast_as_answers_come_and_comes_to_the_truth_too() {
        let setup = setup("govuk-notify");
        let receiver = setup.start();
        let (code, report) =
            Simulation::of(setup.folder.path(), "govuk-notify", receiver.callbacks)
                .with("--connections 8 --duration 500ms")
                .with_path("--verify-db", &setup.state())
                .report();
        assert_eq!(code, Some(0), "{report}");
        assert_eq!(report["messages_per_second"], Value::Null);
        assert!(report["messages"].as_u64().unwrap() > 50, "{report}");
        assert_eq!(report["answers"]["204"], report["requests"], "{report}");
    }

    /// The first connections are closed without an answer, then nobody listens, then the receiver
    /// starts: all within the 25 minutes for which GOV.UK Notify tries, which take 5 seconds.
    #[test]
    fn an_outage_within_the_window_loses_nothing() {
        let setup = setup("govuk-notify");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let simulation = Simulation::of(setup.folder.path(), "govuk-notify", address)
            .with("--count 200 --rate 400 --speed 300 --seed 3")
            .with_path("--verify-db", &setup.state());
        let running = thread::spawn(move || simulation.report());
        // One more than is asserted below: there is no state file yet, and so somebody looks first.
        for _ in 0..21 {
            drop(listener.accept().unwrap());
        }
        drop(listener);
        let config = setup.write();
        let receiver = Receiptd::start(setup.folder.path(), |command| {
            command.arg("--config").arg(config).args(["--listen", &address.to_string()]);
        });
        let (code, report) = running.join().unwrap();
        assert_eq!(code, Some(0), "{report}");
        assert_eq!(report["lost"], Value::Array(vec![]), "{report}");
        assert!(report["retries"].as_u64().unwrap() >= 20, "{report}");
        assert!(report["verification"]["compared"].as_u64().unwrap() > 100, "{report}");
        receiver.stop();
    }

    #[test]
    fn a_wrong_token_loses_everything_and_is_named_as_the_cause() {
        let setup = setup("govuk-notify");
        let receiver = setup.start();
        let ended = Simulation::of(setup.folder.path(), "govuk-notify", receiver.callbacks)
            .with("--count 20 --speed 20000")
            .token("not-the-token-of-this-source")
            .run();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stdout.contains("refuses the token"), "{}", ended.stdout);
        assert!(ended.stdout.contains("answered 401"), "{}", ended.stdout);
        assert!(!ended.stdout.contains("204"), "{}", ended.stdout);
        let ended = Simulation::of(setup.folder.path(), "gc-notify", receiver.callbacks)
            .token("not-the-token-of-this-source")
            .run();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("the probe failed"), "{}", ended.stderr);
        assert!(ended.stderr.contains("is this the token"), "{}", ended.stderr);
        let mut elsewhere = Simulation::of(setup.folder.path(), "gc-notify", receiver.callbacks);
        elsewhere.arguments[1].push_str("-elsewhere");
        let ended = elsewhere.run();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("is this the path"), "{}", ended.stderr);
    }

    /// A copy is changed, so that the receiver cannot mend it.
    #[test]
    fn a_state_that_was_tampered_with_is_found_out_and_nothing_of_a_person_is_shown() {
        let setup = setup("gc-notify");
        let simulation = |address| {
            Simulation::of(setup.folder.path(), "gc-notify", address)
                .with("--count 60 --rate 600 --speed 20000")
        };
        let receiver = setup.start();
        assert_eq!(simulation(receiver.callbacks).run().code, Some(0));
        receiver.settled();
        receiver.stop();
        let copy = setup.path("copy.db");
        std::fs::copy(setup.state(), &copy).unwrap();
        std::fs::copy(setup.journal(), setup.path("copy.callbacks.db")).unwrap();
        let state = rusqlite::Connection::open(&copy).unwrap();
        let ids = support::rows(&state, "SELECT id FROM notification ORDER BY id LIMIT 3");
        for (sql, id) in [
            ("UPDATE notification_row SET status = 'wrong' WHERE id = ?1", &ids[0]),
            ("UPDATE notification_row SET recipient = 'canary@example.ca' WHERE id = ?1", &ids[1]),
            ("DELETE FROM notification_row WHERE id = ?1", &ids[2]),
        ] {
            assert_eq!(state.execute(sql, [id]).unwrap(), 1, "{sql}");
        }
        drop(state);
        let receiver = setup.start();
        let verified = simulation(receiver.callbacks).with_path("--verify-db", &copy);
        let (code, report) = verified.report();
        assert_eq!(code, Some(1), "{report}");
        assert_eq!(report["verification"]["different"], 2, "{report}");
        assert_eq!(report["verification"]["missing"], 1, "{report}");
        let ended = verified.run();
        for told in ["status is \"wrong\", should be", "recipient differs", ": missing"] {
            assert!(ended.stdout.contains(told), "{told}: {}", ended.stdout);
        }
        let told: HashSet<&str> = ids.iter().map(String::as_str).collect();
        assert!(told.iter().all(|id| ended.stdout.contains(id)), "{}", ended.stdout);
        assert!(!ended.stdout.contains("canary"), "{}", ended.stdout);
        assert!(!report.to_string().contains("canary"), "{report}");
    }

    #[test]
    fn tls_is_spoken_and_certificates_are_checked() {
        let setup = setup("govuk-notify");
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let cert = setup.path("tls.crt");
        std::fs::write(&cert, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(setup.path("tls.key"), key.serialize_pem()).unwrap();
        let lines = format!("cert_file = {cert:?}\nkey_file = {:?}", setup.path("tls.key"));
        let setup = setup.with("tls", &lines);
        let receiver = setup.start();
        let simulation = |platform: &str| {
            let mut it = Simulation::of(setup.folder.path(), platform, receiver.callbacks)
                .with("--count 60 --rate 600 --speed 20000");
            it.arguments[1] = it.arguments[1].replace("http://", "https://");
            it
        };
        for platform in ["govuk-notify", "us-notify"] {
            let (code, report) = simulation(platform)
                .with_path("--ca-file", &cert)
                .with_path("--verify-db", &setup.state())
                .report();
            assert_eq!(code, Some(0), "{platform}: {report}");
            assert_eq!(report["answers"]["204"], report["requests"], "{platform}: {report}");
        }
        let other = rcgen::KeyPair::generate().unwrap();
        let other = rcgen::CertificateParams::new(vec!["other".to_owned()])
            .unwrap()
            .self_signed(&other)
            .unwrap();
        let other_path = setup.path("other.crt");
        std::fs::write(&other_path, other.pem()).unwrap();
        let (code, report) =
            simulation("govuk-notify").with_path("--ca-file", &other_path).report();
        assert_eq!(code, Some(1), "{report}");
        assert_eq!(report["no_answers"]["tls"], report["requests"], "{report}");
    }

    #[test]
    fn a_url_is_asked_for_each_notification() {
        let setup = setup("notify-nl");
        let receiver = setup.start();
        let state = setup.state();
        // The id that the app does not know, and the one of which it tells something else.
        let hidden = Arc::new(Mutex::new(Vec::<String>::new()));
        let hide = Arc::clone(&hidden);
        let app = Fake::start(move |request| {
            if !request.head.contains("a-token-for-the-app") {
                return Reply::code(401);
            }
            let path = request.head.split(' ').nth(1).unwrap();
            let id = path.strip_prefix("/status/").unwrap();
            match hide.lock().unwrap().iter().position(|hidden| hidden == id) {
                Some(0) => return Reply::code(404),
                Some(_) => return Reply::json(200, r#"{"status": "wrong"}"#),
                None => {}
            }
            let sql = format!(
                "SELECT json_object('status', status, 'reference', reference, 'more', 1)
                 FROM notification WHERE id = '{id}'"
            );
            let found = support::rows(&support::open(&state), &sql);
            found.first().map_or_else(|| Reply::code(404), |json| Reply::json(200, json))
        });
        let simulation = Simulation::of(setup.folder.path(), "notify-nl", receiver.callbacks)
            .with("--count 60 --rate 600 --speed 20000")
            .with(&format!("--verify-url http://{}/status/{{id}}", app.address));
        let run = || {
            let mut command = simulation.command();
            command.env("RECEIPTD_VERIFY_TOKEN", "a-token-for-the-app");
            support::run(command.args(["--format", "json"]))
        };
        let ended = run();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert!(report["verification"]["compared"].as_u64().unwrap() > 30, "{report}");
        let state = support::open(&setup.state());
        let ids = support::rows(&state, "SELECT id FROM notification ORDER BY id LIMIT 2");
        *hidden.lock().unwrap() = ids.clone();
        let ended = run();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(report["verification"]["missing"], 1, "{report}");
        assert_eq!(report["verification"]["different"], 1, "{report}");
        let told = report["verification"]["differences"].to_string();
        assert!(ids.iter().all(|id| told.contains(id.as_str())), "{report}");
    }
}

mod against_others {
    use super::*;

    #[test]
    fn what_is_answered_4xx_is_lost_and_named() {
        let victim = Arc::new(Mutex::new(None));
        let chosen = Arc::clone(&victim);
        let fake = Fake::start(move |request| {
            let id = id_in(&request.body);
            let mut chosen = chosen.lock().unwrap();
            let is_chosen = *chosen.get_or_insert_with(|| id.clone()) == id;
            Reply::code(if is_chosen { 400 } else { 200 })
        });
        let folder = tempfile::tempdir().unwrap();
        let junit = folder.path().join("junit.xml");
        let ended = Simulation::of(folder.path(), "govuk-notify", fake.address)
            .with("--count 50 --rate 600 --speed 20000")
            .with_path("--junit", &junit)
            .run();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let victim = victim.lock().unwrap().clone().unwrap();
        assert!(ended.stdout.contains(&victim), "{}", ended.stdout);
        assert!(ended.stdout.contains("answered 400, which is never retried"), "{}", ended.stdout);
        assert!(!ended.stdout.contains(" \n"), "{}", ended.stdout);
        let junit = std::fs::read_to_string(junit).unwrap();
        assert!(junit.contains("failures=\"1\"") && junit.contains(&victim), "{junit}");
    }

    #[test]
    fn an_outage_beyond_the_window_suspends_gc_notify() {
        let fake = Fake::start(|request| {
            Reply::code(if request.body.contains("health_check") { 204 } else { 503 })
        });
        let folder = tempfile::tempdir().unwrap();
        let simulation = Simulation::of(folder.path(), "gc-notify", fake.address)
            .with("--count 100 --rate 200 --speed 1000");
        let (code, report) = simulation.report();
        assert_eq!(code, Some(1), "{report}");
        assert!(report["suspended_after_seconds"].as_f64().unwrap() > 0.1, "{report}");
        assert!(report["probe_ms"].as_f64().is_some(), "{report}");
        let lost = report["lost"].as_array().unwrap();
        let reasons: Vec<_> = lost.iter().map(|lost| lost["reason"].as_str().unwrap()).collect();
        assert_eq!(reasons, ["retries-exhausted", "suspended"], "{report}");
        let all: u64 = lost.iter().map(|lost| lost["callbacks"].as_u64().unwrap()).sum();
        assert_eq!(all, report["callbacks"].as_u64().unwrap(), "{report}");
        let ended = simulation.run();
        assert!(ended.stdout.contains("suspended   yes, after"), "{}", ended.stdout);
        // The others try on until every callback has had all its retries.
        let (code, report) = Simulation::of(folder.path(), "notify-nl", fake.address)
            .with("--count 20 --rate 200 --speed 20000")
            .report();
        assert_eq!(code, Some(1), "{report}");
        assert_eq!(report["suspended_after_seconds"], Value::Null, "{report}");
        let callbacks = report["callbacks"].as_u64().unwrap();
        assert_eq!(report["answers"]["503"], 6 * callbacks, "{report}");
    }

    /// Without a number of messages nobody knows how many would have followed.
    #[test]
    fn a_suspension_ends_a_closed_loop_that_only_time_bounds() {
        let fake = Fake::start(|_| Reply::code(503));
        let folder = tempfile::tempdir().unwrap();
        let (code, report) = Simulation::of(folder.path(), "gc-notify", fake.address)
            .with("--connections 4 --duration 1h --speed 20000 --no-probe")
            .report();
        assert_eq!(code, Some(1), "{report}");
        assert!(report["suspended_after_seconds"].as_f64().is_some(), "{report}");
        let lost = report["lost"].as_array().unwrap();
        let all: u64 = lost.iter().map(|lost| lost["callbacks"].as_u64().unwrap()).sum();
        assert_eq!(all, report["callbacks"].as_u64().unwrap(), "{report}");
    }

    /// Four workers are held up, and some hundred callbacks that fell due meanwhile.
    #[test]
    fn a_stall_shows_in_every_callback_that_fell_due_meanwhile() {
        let seen = Mutex::new(0);
        let fake = Fake::start(move |_| {
            let mut seen = seen.lock().unwrap();
            *seen += 1;
            if *seen == 100 {
                thread::sleep(Duration::from_millis(500));
            }
            Reply::code(204)
        });
        let folder = tempfile::tempdir().unwrap();
        let (code, report) = Simulation::of(folder.path(), "us-notify", fake.address)
            .with("--count 600 --rate 400 --connections 4 --speed 300 --seed 5")
            .report();
        assert_eq!(code, Some(0), "{report}");
        assert!(report["requests"].as_u64().unwrap() > 450, "{report}");
        assert!(report["latency_ms"]["p99"].as_f64().unwrap() > 300.0, "{report}");
    }

    #[test]
    fn a_redirect_loses_the_callback_and_is_not_followed() {
        let fake = Fake::start(|request| {
            assert!(request.head.starts_with("POST "), "{}", request.head);
            let bytes = "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n";
            Reply { bytes: bytes.into(), ends: false }
        });
        let folder = tempfile::tempdir().unwrap();
        let (code, report) = Simulation::of(folder.path(), "govuk-notify", fake.address)
            .with("--count 20 --speed 20000")
            .report();
        assert_eq!(code, Some(1), "{report}");
        assert_eq!(report["lost"][0]["reason"], "redirected", "{report}");
        assert_eq!(report["lost"][0]["callbacks"], report["callbacks"], "{report}");
        assert_eq!(report["retries"], 0, "{report}");
    }

    #[test]
    fn the_truth_is_what_replay_expects_of_the_same_callbacks() {
        for (platform, provider) in [("gc-notify", "gc-notify"), ("ajo", "ajo")] {
            let bodies = Arc::new(Mutex::new(String::new()));
            let kept = Arc::clone(&bodies);
            let fake = Fake::start(move |request| {
                if !request.body.contains("health_check") {
                    *kept.lock().unwrap() += &format!("{}\n", request.body.replace('\n', " "));
                }
                Reply::code(204)
            });
            let folder = tempfile::tempdir().unwrap();
            let truth = folder.path().join("truth.jsonl");
            let ended = Simulation::of(folder.path(), platform, fake.address)
                .with("--count 300 --rate 1000 --speed 20000")
                .with_path("--truth", &truth)
                .run();
            assert_eq!(ended.code, Some(0), "{ended:?}");
            std::fs::write(folder.path().join("bodies.jsonl"), &*bodies.lock().unwrap()).unwrap();
            let arguments =
                ["replay", "--provider", provider, "bodies.jsonl", "--expect", "truth.jsonl"];
            let ended = support::run(&mut support::receiptd(folder.path(), &arguments));
            assert_eq!(ended.code, Some(0), "{platform}: {}{}", ended.stdout, ended.stderr);
            assert!(ended.stdout.contains("all as expected"), "{}", ended.stdout);
        }
    }

    #[test]
    fn gov_uk_keeps_its_connections_and_gc_opens_one_for_each_callback() {
        for (platform, keeps) in [("govuk-notify", true), ("gc-notify-before-2026-08", false)] {
            let fake = Fake::start(|_| Reply::code(204));
            let folder = tempfile::tempdir().unwrap();
            let (code, report) = Simulation::of(folder.path(), platform, fake.address)
                .with("--count 50 --speed 20000 --connections 3 --rate 200 --no-probe")
                .report();
            assert_eq!(code, Some(0), "{report}");
            let requests = usize::try_from(report["requests"].as_u64().unwrap()).unwrap();
            let connections = fake.connections();
            assert!(if keeps { connections <= 3 } else { connections == requests }, "{report}");
        }
    }

    /// It says keep-alive, and hangs up: Python's library looks before it uses a connection again.
    #[test]
    fn a_connection_that_was_closed_while_idle_is_not_used_again() {
        let fake = Fake::start(|_| Reply { ends: true, ..Reply::code(204) });
        let folder = tempfile::tempdir().unwrap();
        let (code, report) = Simulation::of(folder.path(), "govuk-notify", fake.address)
            .with("--count 20 --rate 50 --speed 300")
            .report();
        assert_eq!(code, Some(0), "{report}");
        assert_eq!(report["retries"], 0, "{report}");
        assert_eq!(report["no_answers"], serde_json::json!({}), "{report}");
        assert!(fake.connections() > 10, "{}", fake.connections());
    }

    #[test]
    fn an_answer_that_does_not_come_in_five_seconds_is_none_and_is_retried() {
        let seen = AtomicUsize::new(0);
        let fake = Fake::start(move |_| match seen.fetch_add(1, Ordering::Relaxed) {
            0 => Reply { bytes: b"HTTP/1.1 20".to_vec(), ends: false },
            1 => Reply { bytes: b"HTTP/1.1 200 OK\r\ncontent-le".to_vec(), ends: true },
            2 => Reply { bytes: b"nonsense\r\n\r\n".to_vec(), ends: false },
            _ => Reply::code(200),
        });
        let folder = tempfile::tempdir().unwrap();
        let (code, report) = Simulation::of(folder.path(), "us-notify", fake.address)
            .with("--count 30 --rate 100 --speed 20000")
            .report();
        assert_eq!(code, Some(0), "{report}");
        let expected = serde_json::json!({"timed-out": 1, "closed": 1, "unreadable": 1});
        assert_eq!(report["no_answers"], expected, "{report}");
        assert_eq!(report["retries"], 3, "{report}");
        let seconds = report["seconds"].as_f64().unwrap();
        assert!(seconds > 5.0, "{report}");
    }

    #[test]
    fn requests_are_those_of_the_platform() {
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        let fake = Fake::start(move |request| {
            seen.lock().unwrap().push(request.head.clone());
            Reply::code(204)
        });
        let folder = tempfile::tempdir().unwrap();
        // The first of these platforms has a probe, which goes out as the rest does.
        for platform in ["gc-notify", "us-notify"] {
            let ended = Simulation::of(folder.path(), platform, fake.address)
                .with("--count 20 --speed 20000")
                .run();
            assert_eq!(ended.code, Some(0), "{ended:?}");
        }
        let address = fake.address;
        let expected = format!(
            "POST {PATH} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: python-requests/2.32.3\r\n\
             Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n\
             Content-Type: application/json\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: "
        );
        let heads = heads.lock().unwrap();
        assert!(heads[0].ends_with("Content-Length: 22"), "{heads:#?}");
        assert!(heads.iter().all(|head| head.starts_with(&expected)), "{heads:#?}");
    }
}

mod without_a_receiver {
    use super::*;

    /// An address at which nobody listens.
    fn nobody() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn what_cannot_be_reached_at_all_is_69() {
        let folder = tempfile::tempdir().unwrap();
        for (platform, flags) in
            [("gc-notify", ""), ("gc-notify", "--no-probe"), ("govuk-notify", "")]
        {
            let ended = Simulation::of(folder.path(), platform, nobody())
                .with("--count 5 --speed 100000")
                .with(flags)
                .run();
            assert_eq!(ended.code, Some(69), "{platform} {flags}: {ended:?}");
            assert!(ended.stderr.contains("failed to connect to 127.0.0.1"), "{}", ended.stderr);
        }
    }

    #[test]
    fn wrong_usage_is_2_before_anything_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let simulation = || Simulation::of(folder.path(), "govuk-notify", nobody());
        for (flags, said) in [
            ("--verify-url http://localhost/status", "{id}"),
            ("--verify-url ftp://localhost/{id}", "http://"),
            ("--probe", "sends no probe"),
            ("--source passport", "--verify-db"),
            ("--speed 0", "over 0"),
            ("--duration 5", "60s"),
            ("--connections 0", "1..=10000"),
        ] {
            let ended = simulation().with(flags).run();
            assert_eq!(ended.code, Some(2), "{flags}: {ended:?}");
            assert!(ended.stderr.contains(said), "{flags}: {}", ended.stderr);
        }
        let ended = simulation().token("").run();
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("RECEIPTD_TOKEN"), "{}", ended.stderr);
    }

    #[test]
    fn a_state_file_that_can_never_come_is_told_before_anything_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let ended = Simulation::of(folder.path(), "govuk-notify", nobody())
            .with("--count 5 --speed 20000 --verify-db no-folder/receiptd.db")
            .run();
        assert_eq!(ended.code, Some(74), "{ended:?}");
        assert!(ended.stderr.contains("no-folder/receiptd.db"), "{}", ended.stderr);
        assert!(ended.stderr.contains("that the receiver writes"), "{}", ended.stderr);
    }

    #[test]
    fn a_state_file_that_is_not_there_is_warned_of_and_does_not_hide_the_report() {
        let fake = Fake::start(|_| Reply::code(204));
        let folder = tempfile::tempdir().unwrap();
        let ended = Simulation::of(folder.path(), "govuk-notify", fake.address)
            .with("--count 5 --speed 20000 --verify-db nowhere.db")
            .run();
        assert_eq!(ended.code, Some(74), "{ended:?}");
        assert!(ended.stdout.contains("answers"), "{}", ended.stdout);
        assert!(ended.stderr.starts_with("receiptd: warning"), "{}", ended.stderr);
        assert_eq!(ended.stderr.matches("nowhere.db").count(), 2, "{}", ended.stderr);
    }
}
