//! Tokens, addresses, numbers and texts reach the two databases and nothing else: not a log at its
//! most talkative, not a metric, not an answer, not what is printed.

mod support;

use std::fs;
use std::process::Command;

use support::{PATH, Receiptd, Setup, TOKEN, metric, post, post_with, receiptd, run, source};

/// What must not be seen, each in a place where a callback, or its caller, could hold it.
const CANARIES: [&str; 10] = [
    TOKEN,
    "canary-wrong-token",
    "canary-in-a-query",
    "canary-in-a-path",
    "canary-in-a-header",
    "canary.address@example.ca",
    "+15550001111",
    "canary in the text of a message",
    "canary-reference",
    "canary-in-what-is-not-understood",
];

fn receipt_with_canaries() -> String {
    format!(
        r#"{{"id": "n1", "reference": "{}", "to": "{}", "status": "delivered", "created_at": "2026-11-22T10:00:00.000000Z", "completed_at": "2026-11-22T10:00:01.000000Z", "sent_at": null, "notification_type": "email", "status_description": "{}"}}"#,
        CANARIES[8], CANARIES[5], CANARIES[9]
    )
}

fn bodies() -> Vec<String> {
    let receipt = receipt_with_canaries();
    vec![
        receipt.clone(),
        receipt.clone(),
        receipt.replace("delivered", CANARIES[9]),
        receipt.replace("2026-11-22T10:00:01.000000Z", CANARIES[9]),
        receipt.replace("\"n1\"", CANARIES[9]),
        receipt[..receipt.len() - 5].to_owned(),
        format!(
            r#"{{"id": "m1", "source_number": "{}", "destination_number": "{}", "message": "{}", "date_received": "{}"}}"#,
            CANARIES[6], CANARIES[6], CANARIES[7], CANARIES[9]
        ),
        format!(r#"{{"{}": "{}"}}"#, CANARIES[9], CANARIES[9]),
        format!("[{:?}]", CANARIES[9]),
        CANARIES[9].to_owned(),
    ]
}

/// Requests of every kind that is refused.
fn refused() -> Vec<Vec<u8>> {
    let body = receipt_with_canaries();
    let query = format!("{PATH}?token={}", CANARIES[2]);
    let path = format!("/callbacks/{}", CANARIES[3]);
    let two = format!("authorization: Bearer {TOKEN}\r\nauthorization: Bearer {TOKEN}\r\n");
    let basic = format!("authorization: Basic {TOKEN}\r\nx-canary: {}\r\n", CANARIES[4]);
    let head = format!("authorization: Bearer {TOKEN}\r\nx: {}\r\n", CANARIES[4].repeat(2_000));
    let mut method = post(PATH, TOKEN, &body);
    method.splice(..4, *b"CANARY");
    vec![
        post(PATH, CANARIES[1], &body),
        post_with(&query, "", &body),
        post(&path, TOKEN, &body),
        post_with(PATH, two, &body),
        post_with(PATH, basic, &body),
        post_with(PATH, head, &body),
        post(PATH, TOKEN, body.repeat(100)),
        method,
        format!("{} {}\r\n\r\n", CANARIES[9], CANARIES[7]).into_bytes(),
        post_with(
            PATH,
            format!("authorization: Bearer {TOKEN}\r\nhost: {}\r\n", CANARIES[4]),
            body,
        ),
    ]
}

fn assert_clean(text: &str, what: &str) {
    for canary in CANARIES {
        assert!(!text.contains(canary), "{canary} stands in {what}:\n{text}");
    }
}

/// Everything that can be heard of the receiver from the outside after it has seen all of it.
fn assert_says_nothing(server: Receiptd) {
    for body in bodies() {
        assert_eq!(server.post(&body), 204, "{body}");
    }
    for request in refused() {
        let mut client = server.connect();
        let _ = client.try_send(&request);
        if let Ok(Some(answer)) = client.try_answer() {
            assert!(answer.status >= 400, "{}", answer.status);
            assert_clean(&answer.text(), "the body of an answer");
            assert_clean(&format!("{:?}", answer.headers), "the head of an answer");
        }
    }
    // Callers that break off are logged too, at the most talkative.
    server.connect().send(&post(PATH, TOKEN, receipt_with_canaries())[..200]);
    server.settled();
    let metrics = server.metrics();
    assert_clean(&metrics, "the metrics");
    let unrecognised = r#"receiptd_unrecognised_total{source="passport"}"#;
    assert!(metric(&metrics, unrecognised) >= Some(5.0), "{metrics}");
    for path in ["/readyz", "/livez", "/settled", "/canary-in-a-path"] {
        assert_clean(&server.admin(path).text(), path);
    }
    assert_clean(&server.printed, "what was printed");
    let log = server.stderr();
    server.stop();
    assert!(!log.is_empty(), "nothing was logged, so nothing was tested");
    assert_clean(&log, "the log");
}

#[test]
fn nothing_a_caller_sends_is_logged_measured_or_answered() {
    let setup = Setup::new()
        .limits("body_bytes_max = 20000")
        .with("log", "level = \"trace\"\nformat = \"json\"");
    assert_says_nothing(setup.start());
    let setup = Setup::new().limits("body_bytes_max = 20000").with("log", "level = \"trace\"");
    assert_says_nothing(setup.start());
    // The control: where it belongs, it is.
    let journal = fs::read(setup.journal()).unwrap();
    let stands = |text: &str| journal.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(stands(CANARIES[5]) && stands(CANARIES[7]) && !stands(TOKEN));
}

#[test]
fn the_reasons_in_the_database_name_keys_and_never_values() {
    let setup = Setup::new();
    let server = setup.start();
    for body in bodies() {
        assert_eq!(server.post(body), 204);
    }
    server.settled();
    let reasons = support::rows(&support::open(&setup.state()), "SELECT reason FROM unrecognised");
    assert!(reasons.len() >= 5, "{reasons:?}");
    assert_clean(&reasons.join("\n"), "the reasons");
}

#[test]
fn a_bearer_put_where_its_hash_belongs_is_not_shown() {
    let bearer = "canary-wrong-token";
    let config = source("passport", "gc-notify", &[("live", TOKEN)]);
    let hash = support::sha256_hex(TOKEN.as_bytes());
    let setup = Setup::with_sources(&config.replace(&hash, bearer));
    let file = setup.write();
    let in_file = ["serve", "--config", file.to_str().unwrap()];
    let in_flag = ["serve", "--source", "a=notify", "--token-sha256", bearer];
    let in_flag_as_base64 =
        ["serve", "--source", "a=notify", "--token-sha256", &format!("{bearer}=")];
    let check = ["config", "check", "--config", file.to_str().unwrap()];
    let commands: [&[&str]; 4] = [&in_file, &in_flag, &in_flag_as_base64, &check];
    for arguments in commands {
        let ended = run(&mut receiptd(setup.folder.path(), arguments));
        assert_eq!(ended.code, Some(78), "{arguments:?}");
        assert_clean(&ended.stderr, "what was said");
        assert_clean(&ended.stdout, "what was printed");
    }
    let mut by_environment: Command = receiptd(setup.folder.path(), &["serve"]);
    by_environment.env("RECEIPTD_SOURCE", "a=notify").env("RECEIPTD_TOKEN_SHA256", bearer);
    let ended = run(&mut by_environment);
    assert_eq!(ended.code, Some(78));
    assert_clean(&ended.stderr, "what was said");
}
