//! The official clients, as they are published, against a receiver with thousands of notifications.
//!
//! Each is installed once and kept among what is built. One that cannot be installed is left out, and
//! said so; under `RECEIPTD_TEST_SERVERS=required` that is a failure.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::servers::{Missing, find, or_left_out};
use crate::world::{Key, PASSPORT, VISA, World, id, receipt, text};

const PYTHON_CLIENT: &str = "notifications-python-client==13.0.0";
const NODE_CLIENT: &str = "notifications-node-client@8.4.0";

/// More than a dozen pages.
const ROWS: u64 = 3_200;

/// Tests run beside each other, and only one of them can install.
static INSTALLING: Mutex<()> = Mutex::new(());

fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Installs into a folder of that name, unless that is done; what is missing otherwise.
fn installed(
    name: &str,
    what: &str,
    install: impl FnOnce(&Path) -> Result<(), Missing>,
) -> Result<PathBuf, Missing> {
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let made = place.join("complete");
    if std::fs::read_to_string(&made).is_ok_and(|known| known == what) {
        return Ok(place);
    }
    install(&place)?;
    std::fs::write(made, what).unwrap();
    Ok(place)
}

/// A command that runs the Python client's script.
fn python() -> Result<Command, Missing> {
    const INSTALL: &str = "apt-get install python3-venv";
    let python = find("python3", INSTALL)?;
    let place = installed("python-notify", PYTHON_CLIENT, |place| {
        let missing = |program: &str, install| Missing { program: program.to_owned(), install };
        if !succeeds(Command::new(&python).args(["-m", "venv", "--clear"]).arg(place)) {
            return Err(missing("the Python module venv", INSTALL));
        }
        let mut pip = Command::new(place.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PYTHON_CLIENT]);
        let how = "let pip reach a package index with notifications-python-client";
        if succeeds(&mut pip) { Ok(()) } else { Err(missing(PYTHON_CLIENT, how)) }
    })?;
    let mut command = Command::new(place.join("bin/python"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ask_v2/client.py"));
    Ok(command)
}

/// A command that runs the Node client's script.
fn node() -> Result<Command, Missing> {
    let node = find("node", "apt-get install nodejs")?;
    let npm = find("npm", "apt-get install npm")?;
    let place = installed("node-notify", NODE_CLIENT, |place| {
        std::fs::create_dir_all(place).unwrap();
        let mut install = Command::new(npm);
        install.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]);
        let how = "let npm reach a package index with notifications-node-client";
        let missing = Missing { program: NODE_CLIENT.to_owned(), install: how };
        if succeeds(install.arg(place).arg(NODE_CLIENT)) { Ok(()) } else { Err(missing) }
    })?;
    let mut command = Command::new(node);
    command.env("NODE_PATH", place.join("node_modules"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ask_v2/client.js"));
    Ok(command)
}

/// What the client got for each question.
fn asked(world: &World, command: &mut Command, questions: &[Value]) -> Vec<Value> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let told = json!({"base": format!("http://{}", world.receiver.admin), "questions": questions});
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(told.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

const STATUSES: [&str; 4] = ["delivered", "permanent-failure", "sending", "temporary-failure"];
const TYPES: [&str; 3] = ["email", "sms", "letter"];

fn status(number: u64) -> &'static str {
    STATUSES[usize::try_from(number % 4).unwrap()]
}

fn kind(number: u64) -> &'static str {
    TYPES[usize::try_from(number / 4 % 3).unwrap()]
}

/// A reference that is a UUID, as apps like to have them.
const REFERENCE: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

fn filled() -> World {
    let world = World::start();
    let receipts: Vec<Value> = (0..ROWS)
        .map(|number| {
            // A hundred are created in each second.
            let mut receipt = receipt(number, status(number), kind(number), number / 100);
            if number % 5 == 0 {
                receipt["reference"] = json!(REFERENCE);
            }
            receipt
        })
        .collect();
    world.hear("passport", &receipts);
    let texts: Vec<Value> = (0..700).map(|number| text(10_000 + number, number / 9)).collect();
    world.hear("passport", &texts);
    world.hear("visa", &[receipt(77_000, "delivered", "email", 0)]);
    world
}

fn expected(passes: impl Fn(u64) -> bool) -> Vec<String> {
    (0..ROWS).rev().filter(|number| passes(*number)).map(id).collect()
}

/// The errors that both clients must show as the platform's, by what causes each.
fn errors() -> Vec<(Key, String, u16, Value)> {
    let error = |kind: &str, message: &str| json!([{"error": kind, "message": message}]);
    let wrong = Key { secret: VISA.secret, ..PASSPORT };
    let unknown = Key { service: "11111111-1111-4111-8111-111111111111", ..PASSPORT };
    let key = error("AuthError", "Invalid token: API key not found");
    vec![
        (PASSPORT, id(99_999), 404, error("NoResultFound", "No result found")),
        (PASSPORT, id(77_000), 404, error("NoResultFound", "No result found")),
        (VISA, id(1), 404, json!("Notification not found in database")),
        (
            PASSPORT,
            "1234".to_owned(),
            400,
            error("ValidationError", "notification_id is not a valid UUID"),
        ),
        (wrong, id(1), 403, key.clone()),
        (unknown, id(1), 403, key),
    ]
}

#[test]
fn the_python_client_does_all_that_it_can() {
    let Some(mut command) = or_left_out("the read API by Python", python()) else { return };
    let world = filled();
    let key = PASSPORT.whole();
    let iterator = |kwargs: Value| json!({"key": key, "call": "get_all_notifications_iterator", "kwargs": kwargs});
    type Passes = fn(u64) -> bool;
    let lists: [(Value, Passes); 8] = [
        (json!({}), |_| true),
        (json!({"status": "delivered"}), |number| status(number) == "delivered"),
        (json!({"status": "failed"}), |number| status(number).ends_with("-failure")),
        (json!({"status": ["sending", "delivered"]}), |n| !status(n).ends_with("-failure")),
        (json!({"template_type": "sms"}), |number| kind(number) == "sms"),
        (json!({"reference": REFERENCE}), |number| number % 5 == 0),
        (json!({"older_than": id(1_600)}), |number| number < 1_600),
        (json!({"status": "failed", "template_type": "email", "reference": REFERENCE}), |n| {
            status(n).ends_with("-failure") && kind(n) == "email" && n % 5 == 0
        }),
    ];
    let mut questions: Vec<Value> =
        lists.iter().map(|(kwargs, _)| iterator(kwargs.clone())).collect();
    questions.push(json!({"key": key, "call": "get_received_texts_iterator"}));
    questions.push(json!({"key": key, "call": "get_notification_by_id", "args": [id(5)]}));
    questions.push(json!({
        "key": key, "call": "get_all_notifications", "kwargs": {"include_jobs": true},
    }));
    questions.push(json!({"key": key, "call": "get_received_texts", "args": [id(10_003)]}));
    let errors = errors();
    questions.extend(errors.iter().map(
        |(key, id, ..)| json!({"key": key.whole(), "call": "get_notification_by_id", "args": [id]}),
    ));
    questions.push(json!({
        "key": key, "call": "get_all_notifications", "kwargs": {"status": "elephant"},
    }));
    questions.push(json!({
        "key": key, "call": "send_sms_notification", "args": ["07700900111", id(1)],
    }));
    questions.push(json!({"key": key, "call": "get_pdf_for_letter", "args": [id(1)]}));
    let mut answers = asked(&world, &mut command, &questions).into_iter();
    for (kwargs, passes) in lists {
        assert_eq!(answers.next().unwrap()["answer"], json!(expected(passes)), "{kwargs}");
    }
    let texts: Vec<String> = (10_000..10_700).rev().map(id).collect();
    assert_eq!(answers.next().unwrap()["answer"], json!(texts));
    let one = &answers.next().unwrap()["answer"];
    assert_eq!((&one["id"], &one["status"]), (&json!(id(5)), &json!("permanent-failure")));
    assert_eq!(one["reference"], REFERENCE);
    let page = &answers.next().unwrap()["answer"]["notifications"];
    assert_eq!(page.as_array().unwrap().len(), 250);
    let texts = &answers.next().unwrap()["answer"]["received_text_messages"];
    assert_eq!(texts.as_array().unwrap().len(), 3);
    for (_, id, status, message) in errors {
        let answer = answers.next().unwrap();
        assert_eq!((&answer["status"], &answer["message"]), (&json!(status), &message), "{id}");
    }
    let elephant = answers.next().unwrap();
    assert_eq!(elephant["status"], 400);
    assert!(elephant["message"][0]["message"].as_str().unwrap().contains("is not one of"));
    for answer in answers {
        assert_eq!(answer["status"], 404, "{answer}");
        assert!(answer["message"].to_string().contains("does not send"), "{answer}");
    }
}

#[test]
fn the_node_client_does_all_that_it_can() {
    let Some(mut command) = or_left_out("the read API by Node", node()) else { return };
    let world = filled();
    let key = PASSPORT.whole();
    let question = |call: &str, args: Value| json!({"key": key, "call": call, "args": args});
    // It has no iterators: each page is asked for behind the last row of the one before.
    let mut pages = vec![question("getNotifications", json!(["sms", "delivered", null, null]))];
    let passing = expected(|number| status(number) == "delivered" && kind(number) == "sms");
    pages.extend(
        passing.chunks(250).map(|page| {
            question("getNotifications", json!(["sms", "delivered", null, page.last()]))
        }),
    );
    let texts: Vec<String> = (10_000..10_700).rev().map(id).collect();
    let mut text_pages = vec![question("getReceivedTexts", json!([]))];
    text_pages
        .extend(texts.chunks(250).map(|page| question("getReceivedTexts", json!([page.last()]))));
    let others = [
        question("getNotificationById", json!([id(5)])),
        question("getNotifications", json!([null, "failed", REFERENCE, null])),
        question("getNotifications", json!([null, "elephant", null, null])),
        question("sendEmail", json!([id(1), "someone@example.com", {}])),
        question("getTemplateById", json!([id(1)])),
    ];
    let errors = errors();
    let by_id = errors.iter().map(
        |(key, id, ..)| json!({"key": key.whole(), "call": "getNotificationById", "args": [id]}),
    );
    let questions: Vec<Value> =
        pages.iter().chain(&text_pages).chain(&others).cloned().chain(by_id).collect();
    let mut answers = asked(&world, &mut command, &questions).into_iter();
    let ids = |answers: &[Value], list: &str| -> Vec<String> {
        let rows = answers.iter().flat_map(|answer| answer["answer"][list].as_array().unwrap());
        rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let list: Vec<Value> = answers.by_ref().take(pages.len()).collect();
    assert_eq!(ids(&list, "notifications"), passing);
    assert_eq!(ids(&list[pages.len() - 1..], "notifications"), [""; 0], "the last is empty");
    let list: Vec<Value> = answers.by_ref().take(text_pages.len()).collect();
    assert_eq!(ids(&list, "received_text_messages"), texts);
    assert_eq!(answers.next().unwrap()["answer"]["status"], "permanent-failure");
    let failed = answers.next().unwrap();
    let expected = expected(|number| status(number).ends_with("-failure") && number % 5 == 0);
    assert_eq!(ids(&[failed], "notifications"), expected[..250]);
    assert_eq!(answers.next().unwrap()["status"], 400);
    for _ in 0..2 {
        let answer = answers.next().unwrap();
        assert_eq!(answer["status"], 404, "{answer}");
        assert!(answer["message"].to_string().contains("does not send"), "{answer}");
    }
    for (_, id, status, message) in errors {
        let answer = answers.next().unwrap();
        assert_eq!((&answer["status"], &answer["message"]), (&json!(status), &message), "{id}");
    }
}
