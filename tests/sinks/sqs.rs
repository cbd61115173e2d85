//! The sqs sink, and moto, which is SQS for tests: it keeps everything in memory. What moto never
//! says is said by a few canned answers.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName, QueueAttributeName};
use receiptd::config::settings::{Login, Secret, SqsSink};
use receiptd::forward::event::Event;
use receiptd::forward::fault::Fault;
use receiptd::forward::sqs::Sqs;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::event::with_data;
use crate::servers::{Missing, Server, find, folder, free_port, local, or_left_out};
use crate::suite::{self, Held, Kind, Rejection};

const INSTALL: &str =
    "python3 -m venv target/tmp/moto && target/tmp/moto/bin/pip install 'moto[server]'";

/// Of everything that is asked here.
const ATTEMPT: Duration = Duration::from_secs(20);

#[test]
fn the_sqs_sink_passes_the_suite_with_a_fifo_queue() {
    suite::passes::<Moto<true>>();
}

#[test]
fn the_sqs_sink_passes_the_suite_with_a_standard_queue() {
    suite::passes::<Moto<false>>();
}

/// moto, with one queue a case.
struct Moto<const IS_FIFO: bool> {
    folder: TempDir,
    port: u16,
    program: PathBuf,
    server: Server,
    runtime: Runtime,
    client: Client,
    queue: String,
    taken: Vec<Held>,
}

impl<const IS_FIFO: bool> Moto<IS_FIFO> {
    fn try_start() -> Result<Self, Missing> {
        let own = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto/bin/moto_server");
        let program = if own.exists() { own } else { find("moto_server", INSTALL)? };
        let (folder, port) = (folder(), free_port());
        let server = serve(&program, folder.path(), port);
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("ca-central-1"))
            .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
            .endpoint_url(format!("http://127.0.0.1:{port}"))
            .build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = Client::from_conf(config);
        let queue = String::new();
        Ok(Self { folder, port, program, server, runtime, client, queue, taken: Vec::new() })
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/123456789012/{}", self.port, self.queue)
    }

    fn use_queue(&mut self, name: &str) {
        self.queue = format!("{name}{}", if IS_FIFO { ".fifo" } else { "" });
    }

    fn create(&self) {
        let mut request = self.client.create_queue().queue_name(&self.queue);
        if IS_FIFO {
            request = request.attributes(QueueAttributeName::FifoQueue, "true");
        }
        let created = self.runtime.block_on(request.send()).unwrap();
        assert_eq!(created.queue_url(), Some(&*self.url()));
    }

    /// Takes every message out of the queue, in its order.
    fn take(&self) -> Vec<Message> {
        self.runtime.block_on(async {
            let mut all = Vec::new();
            loop {
                let received = (self.client.receive_message().queue_url(self.url()))
                    .max_number_of_messages(10)
                    .message_system_attribute_names(MessageSystemAttributeName::All)
                    .message_attribute_names("All")
                    .send()
                    .await
                    .unwrap();
                if received.messages().is_empty() {
                    return all;
                }
                for message in received.messages() {
                    let request = self.client.delete_message().queue_url(self.url());
                    let receipt = message.receipt_handle().unwrap();
                    request.receipt_handle(receipt).send().await.unwrap();
                    all.push(message.clone());
                }
            }
        })
    }

    fn sink(&self) -> Sqs {
        sink(self.url(), self.port)
    }

    fn send(&self, sink: &Sqs, event: &Event) -> Result<(), Fault> {
        self.runtime
            .block_on(async { timeout(ATTEMPT, sink.send(event)).await.expect("an answer") })
    }
}

fn serve(program: &Path, folder: &Path, port: u16) -> Server {
    let mut command = Command::new(program);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    let mut server = Server::start(command, &folder.join("log"));
    server.wait_for(local(port));
    server
}

fn sink(queue_url: String, port: u16) -> Sqs {
    let to = SqsSink {
        queue_url,
        region: "ca-central-1".to_owned(),
        endpoint_url: Some(format!("http://127.0.0.1:{port}")),
        login: Some(Login { user: "key".to_owned(), password: Secret(b"secret".to_vec()) }),
    };
    Sqs::open(&to).unwrap()
}

impl<const IS_FIFO: bool> Kind for Moto<IS_FIFO> {
    const TYPE: &'static str = "sqs";

    fn start() -> Result<Self, Missing> {
        Self::try_start()
    }

    fn address(&self) -> Option<SocketAddr> {
        Some(local(self.port))
    }

    fn fresh(&mut self, case: &str) {
        self.use_queue(case);
        self.taken.clear();
        self.create();
    }

    fn lines(&self, through: SocketAddr) -> String {
        let secret = self.folder.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        format!(
            "queue_url = \"{}\"\nregion = \"ca-central-1\"\nendpoint_url = \"http://{through}\"\n\
             access_key_id = \"key\"\nsecret_access_key_file = \"{}\"",
            self.url(),
            secret.display()
        )
    }

    fn held(&mut self) -> Vec<Held> {
        let taken = self.take();
        self.taken.extend(taken.iter().map(held));
        self.taken.clone()
    }

    fn reject(&mut self) -> Rejection {
        self.held();
        let request = self.client.delete_queue().queue_url(self.url());
        self.runtime.block_on(request.send()).unwrap();
        Rejection::Waits
    }

    fn accept(&mut self) {
        self.create();
    }

    fn crash(&mut self) {
        // It has no memory beyond its process, so what it holds is taken out before.
        self.held();
        self.server.kill();
    }

    fn start_again(&mut self) {
        self.server = serve(&self.program, self.folder.path(), self.port);
        self.create();
    }
}

fn held(message: &Message) -> Held {
    Held::from_structured(message.body().unwrap().as_bytes())
}

fn subject(message: &Message) -> String {
    held(message).subject
}

fn group(message: &Message) -> &str {
    let attributes = message.attributes().unwrap();
    &attributes[&MessageSystemAttributeName::MessageGroupId]
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
fn a_fifo_queue_keeps_order_and_drops_repeats() {
    let Some(mut moto) = or_left_out("sqs", Moto::<true>::try_start()) else { return };
    moto.fresh("ordered");
    let sink = moto.sink();
    let long = "ä".repeat(200);
    let subjects = ["a", "b", "with space", &long];
    for number in 0..5 {
        // Of one notification one after the other, of several at once: as the dispatcher does.
        moto.runtime.block_on(async {
            let events = subjects.map(|subject| event(subject, number));
            let [a, b, c, d] = &events;
            let sent = tokio::join!(sink.send(a), sink.send(b), sink.send(c), sink.send(d));
            assert_eq!(sent, (Ok(()), Ok(()), Ok(()), Ok(())));
            sink.send(a).await.unwrap();
        });
    }
    let mut by_group: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
    for message in moto.take() {
        let number = held(&message).data["number"].as_u64().unwrap();
        let of_it = by_group.entry(group(&message).to_owned()).or_default();
        of_it.push((subject(&message), number));
    }
    assert_eq!(by_group.len(), subjects.len());
    for (group, of_it) in &by_group {
        let expected: Vec<_> = (0..5).map(|number| (of_it[0].0.clone(), number)).collect();
        assert_eq!(*of_it, expected, "{group}: in order, each once");
    }
    assert_eq!(by_group["passport/a"][0].0, "a");
    assert!(by_group.keys().all(|group| group.len() <= 128));
}

#[test]
fn a_standard_queue_takes_what_it_can_hold_and_says_what_it_cannot() {
    let Some(mut moto) = or_left_out("sqs", Moto::<false>::try_start()) else { return };
    moto.use_queue("plain");
    let sink = moto.sink();
    let (may_pass, text) = why(moto.send(&sink, &event("a", 1)));
    assert!(may_pass && text.contains("queue does not exist"), "{text}");
    moto.create();
    // Every character that XML and so SQS cannot hold, and some that it can.
    let odd = "\0\u{1}\u{b}\u{1f}\u{7f}\u{fffd}\u{fffe}\u{ffff}\u{1f600}";
    let sent = event_with("odd", 1, odd);
    moto.send(&sink, &sent).unwrap();
    let taken = moto.take();
    let [message] = &taken[..] else { panic!("{taken:?}") };
    let is_xml = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
    assert!(message.body().unwrap().chars().all(is_xml));
    assert_eq!(held(message).data["text"], odd);
    let content_type = &message.message_attributes().unwrap()["content-type"];
    assert!(content_type.string_value().unwrap().starts_with("application/cloudevents+json"));
    // What is too large is refused alone, with whatever it was under way.
    let large = event_with("large", 1, &"x".repeat(2_000_000));
    let (a, b) = (event("a", 1), event("b", 1));
    let sent = moto.runtime.block_on(async {
        timeout(ATTEMPT, async { tokio::join!(sink.send(&a), sink.send(&large), sink.send(&b)) })
            .await
    });
    let (of_a, of_large, of_b) = sent.unwrap();
    assert_eq!((of_a, of_b), (Ok(()), Ok(())));
    let (may_pass, text) = why(of_large);
    assert!(!may_pass && text.contains("BatchRequestTooLong"), "{text}");
    let mut subjects: Vec<String> = moto.take().iter().map(subject).collect();
    subjects.sort();
    assert_eq!(subjects, ["a", "b"]);
}

/// Answers every request with what `answer` makes of its body; counts requests.
fn canned(answer: impl Fn(&Value) -> (u16, Value) + Send + 'static) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(local(0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let answer = Arc::new(Mutex::new(answer));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (answer, counted) = (Arc::clone(&answer), Arc::clone(&counted));
            thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                while let Some(body) = request(&mut stream) {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let (status, body) = (answer.lock().unwrap())(&body);
                    let body = body.to_string();
                    let head =
                        format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", body.len());
                    let _ = stream.get_mut().write_all(format!("{head}{body}").as_bytes());
                }
            });
        }
    });
    (port, requests)
}

fn request(stream: &mut BufReader<TcpStream>) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

fn send_to(port: u16, events: &[Event]) -> Vec<Result<(), Fault>> {
    let sink = Arc::new(sink(format!("http://127.0.0.1:{port}/1/q"), port));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let sends: Vec<_> = (events.iter().cloned())
            .map(|event| {
                let sink = Arc::clone(&sink);
                tokio::spawn(async move { timeout(ATTEMPT, sink.send(&event)).await.unwrap() })
            })
            .collect();
        let mut outcomes = Vec::new();
        for send in sends {
            outcomes.push(send.await.unwrap());
        }
        outcomes
    })
}

#[test]
fn each_code_of_sqs_says_whether_to_try_again() {
    for (status, code, may_pass, says) in [
        (400, "com.amazonaws.sqs#QueueDoesNotExist", true, "queue does not exist"),
        (400, "com.amazonaws.sqs#RequestThrottled", true, "fewer requests"),
        (400, "ThrottlingException", true, "fewer requests"),
        (403, "com.amazon.coral.service#AccessDeniedException", true, "may not send"),
        (400, "com.amazon.coral.service#UnrecognizedClientException", true, "credentials"),
        (400, "ExpiredTokenException", true, "credentials"),
        (400, "com.amazonaws.sqs#KmsThrottled", true, "fewer requests"),
        (400, "com.amazonaws.sqs#InvalidMessageContents", false, "refuses the message"),
        (400, "com.amazonaws.sqs#BatchRequestTooLong", false, "refuses the message"),
        (500, "InternalFailure", true, "did not take it"),
        (503, "a code with the number +1 613 555 0100", true, "unknown code"),
    ] {
        let answer = json!({ "__type": code, "message": "secret words" });
        let (port, _) = canned(move |_| (status, answer.clone()));
        let outcome = send_to(port, &[event("a", 1)]).remove(0);
        let (passes, text) = why(outcome);
        assert_eq!(passes, may_pass, "{code}: {text}");
        assert!(text.contains(says), "{code}: {text}");
        assert!(!text.contains("secret") && !text.contains("555"), "{text}");
    }
    let (may_pass, text) = why(send_to(free_port(), &[event("a", 1)]).remove(0));
    assert!(may_pass && text.contains("cannot be reached"), "{text}");
}

#[test]
fn what_waits_shares_requests_and_each_message_has_its_own_outcome() {
    let failed = ["3", "4", "5"];
    let (port, requests) = canned(move |body| {
        let codes = ["InvalidMessageContents", "InternalError"];
        let (mut successful, mut refused) = (Vec::new(), Vec::new());
        for entry in body["Entries"].as_array().unwrap() {
            let id = entry["Id"].as_str().unwrap();
            match failed.iter().position(|of| *of == id) {
                Some(2) => {}
                Some(at) => refused.push(json!({
                    "Id": id, "SenderFault": at == 0, "Code": codes[at], "Message": "words",
                })),
                None => successful.push(json!({
                    "Id": id, "MessageId": "m", "MD5OfMessageBody": "ignored",
                })),
            }
        }
        (200, json!({ "Successful": successful, "Failed": refused }))
    });
    let events: Vec<Event> = (0..10).map(|n| event(&format!("n{n}"), n)).collect();
    let outcomes = send_to(port, &events);
    assert_eq!(requests.load(Ordering::SeqCst), 1, "ten in one request");
    for (place, outcome) in outcomes.iter().enumerate() {
        match place {
            3 => assert!(matches!(outcome, Err(Fault::Refused { .. })), "{outcome:?}"),
            4 | 5 => assert!(matches!(outcome, Err(Fault::Passing { .. })), "{outcome:?}"),
            _ => assert_eq!(*outcome, Ok(())),
        }
    }
    // Of a request that is refused as a whole, each is asked about alone.
    let (port, requests) = canned(|body| {
        let entries = body["Entries"].as_array().unwrap();
        let is_bad = entries.iter().any(|e| e["MessageBody"].as_str().unwrap().contains("n7"));
        if is_bad {
            return (400, json!({ "__type": "com.amazonaws.sqs#BatchRequestTooLong" }));
        }
        let sent: Vec<Value> = (entries.iter())
            .map(|entry| json!({ "Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "x" }))
            .collect();
        (200, json!({ "Successful": sent, "Failed": [] }))
    });
    let outcomes = send_to(port, &events);
    assert_eq!(requests.load(Ordering::SeqCst), 11);
    for (place, outcome) in outcomes.iter().enumerate() {
        let is_refused = matches!(outcome, Err(Fault::Refused { .. }));
        assert_eq!(is_refused, place == 7, "{place}: {outcome:?}");
    }
}
