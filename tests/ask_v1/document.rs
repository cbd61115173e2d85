//! The OpenAPI document: schemathesis asks everything that it describes, right and wrong, and compares
//! each answer with what the document says.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::servers::{Missing, find, or_left_out};
use crate::world::{VISA, World, id, receipt};

const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// The command, installed once and kept among what is built.
fn schemathesis() -> Result<Command, Missing> {
    const INSTALL: &str = "apt-get install python3-venv";
    let python = find("python3", INSTALL)?;
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-schemathesis");
    let made = place.join("complete");
    let quietly = |command: &mut Command| {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    };
    let missing = |program: &str, install| Missing { program: program.to_owned(), install };
    if !std::fs::read_to_string(&made).is_ok_and(|known| known == SCHEMATHESIS) {
        if !quietly(Command::new(python).args(["-m", "venv", "--clear"]).arg(&place)) {
            return Err(missing("the Python module venv", INSTALL));
        }
        let mut pip = Command::new(place.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", SCHEMATHESIS]);
        if !quietly(&mut pip) {
            return Err(missing(SCHEMATHESIS, "let pip reach a package index with schemathesis"));
        }
        std::fs::write(made, SCHEMATHESIS).unwrap();
    }
    Ok(Command::new(place.join("bin/schemathesis")))
}

/// A cursor that is made up has the right form, and is refused all the same.
const MADE_UP_CURSORS: &str = r#"
[[operations]]
include-path = "/v1/notifications"
checks.positive_data_acceptance.expected-statuses = ["200", "400"]
"#;

#[test]
fn every_answer_is_as_the_document_says() {
    let Some(mut command) = or_left_out("the OpenAPI document", schemathesis()) else { return };
    let world = World::start();
    let receipts: Vec<Value> =
        (0..300).map(|number| receipt(number, "delivered", "sms", number)).collect();
    world.hear("visa", &receipts);
    let url = format!("http://{}/v1/openapi.json", world.receiver.admin);
    let key = format!("Authorization: ApiKey-v1 {}", VISA.whole());
    let settings = world.setup.path("schemathesis.toml");
    std::fs::write(&settings, MADE_UP_CURSORS).unwrap();
    command.arg("--config-file").arg(settings).args(["run", &url, "--header", &key]);
    // A stream has no end to wait for; tests/ask_v1/events.rs follows it.
    command.args(["--exclude-path", "/v1/events", "--max-examples", "20", "--seed", "1"]);
    // More than one worker meets a race in CPython 3.11's own parser, now and then.
    command.args(["--no-color", "--workers", "1", "--generation-database", "none"]);
    let output = command.current_dir(world.setup.folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    // It does not count the document itself.
    assert!(said.contains("Selected: 4/5") && said.contains("Tested: 4"), "{said}");
}

#[test]
fn the_document_is_served_to_everybody_and_describes_what_there_is() {
    let world = World::start();
    world.hear("visa", &[receipt(1, "delivered", "sms", 0)]);
    let answer = world.receiver.admin("/v1/openapi.json");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let document: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(paths.len(), 6);
    for (path, operations) in document["paths"].as_object().unwrap() {
        let operation = operations.as_object().unwrap().values().next().unwrap();
        let answers = &operation["responses"];
        // Where nothing is kept, and where the state cannot be read.
        assert!(answers.get("404").is_some(), "{path}");
        let reads = path != "/v1/expected" && path != "/v1/openapi.json";
        assert_eq!(answers.get("500").is_some(), reads, "{path}");
    }
    for path in paths {
        let path = path.replace("{id}", &id(1));
        if path != "/v1/events" && path != "/v1/expected" {
            let lines = format!("authorization: ApiKey-v1 {}\r\n", VISA.whole());
            assert_eq!(world.ask("GET", &path, &lines).status, 200, "{path}");
        }
    }
}
