//! The http sink as Python sees it: by the libraries that Standard Webhooks and CloudEvents publish,
//! and by the receiver of the documentation, which uses none.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use receiptd::config::settings::{HttpFormat, HttpSink, Secret};
use receiptd::forward::fault::Fault;
use receiptd::forward::http::Http;
use serde_json::{Value, json};

use crate::app::{App, Received, Reply};
use crate::http_requests::{event, sink};
use crate::servers::{Missing, Server, find, folder, free_port, local, or_left_out, run};

const INSTALL: &str = "apt-get install python3-venv";

/// The official libraries, at versions that are known to say what is asked here.
const PACKAGES: [&str; 2] = ["standardwebhooks==1.1.0", "cloudevents==2.2.0"];

const SECRETS: [&str; 3] = [
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    "whsec_plJ3nmyCDGBKInavdOK15jsl5hkM5tCe",
];

fn key(secret: &str) -> Secret {
    let base64 = secret.strip_prefix("whsec_").unwrap();
    Secret(data_encoding::BASE64.decode(base64.as_bytes()).unwrap())
}

/// A Python with the libraries, made once and kept among what is built.
fn python_with_libraries() -> Result<PathBuf, Missing> {
    // Tests run beside each other, and only one of them can make it.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let python = find("python3", INSTALL)?;
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-webhooks");
    let (made, inside) = (place.join("complete"), place.join("bin/python"));
    if std::fs::read_to_string(&made).is_ok_and(|packages| packages == PACKAGES.join("\n")) {
        return Ok(inside);
    }
    let succeeds = |command: &mut Command| {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    };
    let missing = |program: &str, install| Missing { program: program.to_owned(), install };
    if !succeeds(Command::new(python).args(["-m", "venv", "--clear"]).arg(&place)) {
        return Err(missing("the Python module venv", INSTALL));
    }
    let mut install = Command::new(&inside);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
    if !succeeds(&mut install) {
        let how = "let pip reach a package index with standardwebhooks and cloudevents";
        return Err(missing("a Python library", how));
    }
    std::fs::write(made, PACKAGES.join("\n")).unwrap();
    Ok(inside)
}

/// What the app is sent with these secrets.
async fn sent(format: HttpFormat, secrets: &[&str], subject: &str) -> Received {
    let app = App::start(Reply::status(204));
    let secrets = secrets.iter().copied().map(key).collect();
    let to = HttpSink { format, secrets, ..sink(&format!("http://{}/", app.address)) };
    Http::open(&to).unwrap().send(&event(subject)).await.unwrap();
    app.only()
}

fn question(request: &Received, secret: Option<&str>) -> Value {
    let headers: serde_json::Map<String, Value> =
        request.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let body = data_encoding::BASE64.encode(&request.body);
    json!({ "headers": headers, "body": body, "secret": secret })
}

fn judged(python: &Path, questions: &[Value]) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sinks/verify.py");
    let mut command = Command::new(python);
    let child = command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(json!(questions).to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn the_official_libraries_read_the_event_and_agree_with_its_signature() {
    let python = python_with_libraries();
    let Some(python) = or_left_out("webhooks", python) else { return };
    let subject = "50 % \"é\" ~";
    let mut questions = Vec::new();
    for format in [HttpFormat::CloudEvents, HttpFormat::CloudEventsBinary] {
        let request = sent(format, &SECRETS[..1], subject).await;
        questions.push(question(&request, Some(SECRETS[0])));
    }
    for answer in judged(&python, &questions) {
        let event = event(subject);
        let expected = json!({
            "specversion": "1.0",
            "id": event.id(),
            "source": "/receiptd/passport",
            "type": "receiptd.status",
            "subject": subject,
            "time": "2026-11-22 10:00:00+00:00",
            "datacontenttype": "application/json",
        });
        assert_eq!(answer["attributes"], expected, "{answer}");
        let data: Value = serde_json::from_str(event.data()).unwrap();
        assert_eq!(answer["data"], data);
    }
}

#[tokio::test]
async fn while_secrets_change_either_is_enough_and_no_other_is() {
    let python = python_with_libraries();
    let Some(python) = or_left_out("webhooks", python) else { return };
    let request = sent(HttpFormat::CloudEvents, &SECRETS[..2], "n-1").await;
    let mut altered = request.clone();
    *altered.body.last_mut().unwrap() = b' ';
    let mut late = request.clone();
    for (name, value) in &mut late.headers {
        if name == "webhook-timestamp" {
            *value = (value.parse::<i64>().unwrap() - 1).to_string();
        }
    }
    let by = |secret: &'static str| Some(secret);
    let answers = judged(
        &python,
        &[
            question(&request, by(SECRETS[0])),
            question(&request, by(SECRETS[1])),
            question(&request, by(SECRETS[2])),
            question(&altered, by(SECRETS[0])),
            question(&late, by(SECRETS[0])),
        ],
    );
    let refused: Vec<bool> = answers
        .iter()
        .map(|answer| {
            let error = answer["error"].as_str();
            error.is_some_and(|error| error.starts_with("WebhookVerificationError"))
        })
        .collect();
    assert_eq!(refused, [false, false, true, true, true], "{answers:?}");
    assert!(answers[0]["attributes"].is_object() && answers[1]["attributes"].is_object());
}

/// The first line of what the receiver answers to a request that says it was sent at that time.
fn answer_at(port: u16, time: &str) -> String {
    let mut stream = TcpStream::connect(local(port)).unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\nwebhook-timestamp: {time}\r\n");
    stream.write_all(format!("{head}content-length: 2\r\n\r\n{{}}").as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// The file stands in the README, word for word.
#[tokio::test]
async fn the_receiver_of_the_documentation_takes_what_is_signed_and_nothing_else() {
    let Some(python) = or_left_out("webhooks", find("python3", INSTALL)) else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sinks/receiver.py");
    run(Command::new(&python).arg("-c").arg("import http.server"));
    let (folder, port) = (folder(), free_port());
    let mut command = Command::new(python);
    command.arg(script).env("WEBHOOK_SECRET", SECRETS[0]).env("PORT", port.to_string());
    let mut server = Server::start(command, &folder.path().join("log"));
    server.wait_for(local(port));
    let url = format!("http://{}/", local(port));
    let signed = |secrets: &[&str]| {
        let secrets = secrets.iter().copied().map(key).collect();
        Http::open(&HttpSink { secrets, ..sink(&url) }).unwrap()
    };
    let event = event("n-1");
    assert_eq!(signed(&SECRETS[..1]).send(&event).await, Ok(()));
    assert_eq!(signed(&SECRETS[..2]).send(&event).await, Ok(()), "the first signs first");
    assert_eq!(signed(&[SECRETS[1], SECRETS[0]]).send(&event).await, Ok(()));
    for wrong in [signed(&SECRETS[1..]), signed(&[])] {
        assert_eq!(wrong.send(&event).await, Err(Fault::refused("answered 401")));
    }
    for time in ["soon", "", "-1", "1e9", "\u{b2}", &"9".repeat(5000)] {
        assert_eq!(answer_at(port, time), "HTTP/1.1 401 Unauthorized", "{time}");
    }
    let said = server.said();
    assert_eq!(said.matches(&event.id()).count(), 3, "{said}");
    let lines = said.lines().filter(|line| line.contains(&*event.id()));
    assert!(lines.map(serde_json::from_str::<Value>).all(|line| line.is_ok()), "{said}");
    assert!(!said.contains("Traceback"), "{said}");
}
