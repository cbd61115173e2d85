//! The answer table, over real sockets: what each sender hears, and that nothing is kept unless it
//! heard 204.

mod support;

use std::time::{Duration, Instant};

use rusqlite::Connection;
use support::{
    Answer, PATH, Receiptd, SOURCE, Setup, TOKEN, count, eventually, metric, open, post, post_with,
    receipt, receipt_of, rows, sha256_hex, source,
};

const PLAIN: &str = r#"Bearer realm="receiptd""#;
const INVALID: &str = r#"Bearer realm="receiptd", error="invalid_token""#;

/// A 401 with that challenge, which says nothing else.
fn assert_unauthenticated(answer: &Answer, challenge: &str, why: &str) {
    assert_eq!(answer.status, 401, "{why}");
    assert_eq!(answer.header("www-authenticate"), Some(challenge), "{why}");
    assert_eq!(answer.text(), "unauthenticated\n", "{why}");
}

fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("5"));
}

#[test]
fn a_callback_is_durable_before_it_is_answered_204() {
    let setup = Setup::new();
    let mut server = setup.start();
    let body = receipt("a");
    let answer = server.ask(post(PATH, TOKEN, &body));
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    // No barrier and no goodbye: what was answered is there.
    server.kill();
    let kept: Vec<u8> =
        open(&setup.journal()).query_row("SELECT body FROM callback", [], |r| r.get(0)).unwrap();
    assert_eq!(kept, body.as_bytes());
}

#[test]
fn a_repeated_callback_is_answered_204_and_counted_once() {
    let setup = Setup::new();
    let server = setup.start();
    for _ in 0..3 {
        assert_eq!(server.post(receipt("a")), 204);
    }
    server.settled();
    let counts = rows(&open(&setup.state()), "SELECT receipts, duplicates FROM notification");
    assert_eq!(counts, ["1|2"]);
}

#[test]
fn an_authentic_body_is_kept_whatever_it_says() {
    let setup = Setup::new();
    let server = setup.start();
    let bodies: [&[u8]; 7] =
        [b"", b"null", b"[]", b"{", b"\xff\xfe\x00", b"{\"news\": true}", b"<xml/>"];
    for body in bodies {
        assert_eq!(server.post(body), 204, "{body:?}");
    }
    server.settled();
    assert_eq!(setup.callbacks(), 7);
    assert_eq!(count(&setup.state(), "unrecognised"), 7);
    // Settling goes on behind them.
    assert_eq!(server.post(receipt("a")), 204);
    server.settled();
    assert_eq!(count(&setup.state(), "notification"), 1);
}

#[test]
fn an_authentic_probe_is_answered_204_and_not_kept() {
    let setup = Setup::new();
    let server = setup.start();
    for probe in [r#"{"health_check": true}"#, r#"{"health_check": "true"}"#] {
        assert_eq!(server.post(probe), 204, "{probe}");
        assert_unauthenticated(&server.ask(post(PATH, "wrong-token", probe)), INVALID, probe);
        let unsigned = post_with(PATH, "", probe);
        assert_unauthenticated(&server.ask(unsigned), PLAIN, probe);
    }
    assert_eq!(setup.callbacks(), 0);
}

#[test]
fn the_placeholder_of_the_set_up_form_opens_the_door_for_a_probe_only() {
    let setup = Setup::new();
    let server = setup.start();
    let placeholder = "bearer_token_set";
    assert_eq!(server.ask(post(PATH, placeholder, r#"{"health_check": true}"#)).status, 204);
    let long = format!(r#"{{"health_check": true{}}}"#, " ".repeat(5_000));
    for body in [receipt("a"), long, r#"{"health_check": true, "id": "a"}"#.to_owned()] {
        assert_unauthenticated(&server.ask(post(PATH, placeholder, &body)), INVALID, &body);
    }
    assert_eq!(setup.callbacks(), 0);
}

#[test]
fn a_long_body_behind_the_placeholder_is_heard_out_and_answered_401() {
    let setup = Setup::new();
    let server = setup.start();
    let request = post(PATH, "bearer_token_set", "x".repeat(60_000));
    let mut client = server.connect();
    let (head, body) = request.split_at(request.len() - 60_000);
    client.send(head);
    client.send(body);
    assert_unauthenticated(&client.answer(), INVALID, "a long body");
    // Nothing of it is left on the connection, so it need not be reset.
    assert_eq!(client.ask(post(PATH, TOKEN, receipt("a"))).status, 204);
}

#[test]
fn whoever_does_not_prove_to_be_the_source_hears_401_and_no_reason() {
    let setup = Setup::new();
    let server = setup.start();
    let twice = format!("authorization: Bearer {TOKEN}\r\nauthorization: Bearer {TOKEN}\r\n");
    let shorter = format!("authorization: Bearer {}\r\n", &TOKEN[1..]);
    let longer = format!("authorization: Bearer {TOKEN}x\r\n");
    let hash = format!("authorization: Bearer {}\r\n", sha256_hex(TOKEN.as_bytes()));
    let other_scheme = format!("authorization: Basic {TOKEN}\r\n");
    let no_scheme = format!("authorization: {TOKEN}\r\n");
    for (lines, challenge) in [
        ("", PLAIN),
        (&*other_scheme, PLAIN),
        (&no_scheme, PLAIN),
        ("authorization: Bearer\r\n", INVALID),
        ("authorization: Bearer wrong-token\r\n", INVALID),
        (&shorter, INVALID),
        (&longer, INVALID),
        (&hash, INVALID),
    ] {
        let answer = server.ask(post_with(PATH, lines, receipt("a")));
        assert_unauthenticated(&answer, challenge, lines);
        assert_eq!(answer.header("retry-after"), None);
    }
    // Not ours to judge: proxies disagree on which of the two counts.
    assert_eq!(server.ask(post_with(PATH, twice, receipt("a"))).status, 400);
    assert_eq!(setup.callbacks(), 0);
}

#[test]
fn a_token_in_the_query_string_is_no_credential() {
    let setup = Setup::new();
    let server = setup.start();
    for name in ["token", "access_token", "authorization"] {
        let path = format!("{PATH}?{name}={TOKEN}");
        assert_unauthenticated(&server.ask(post_with(&path, "", receipt("a"))), PLAIN, name);
    }
    assert_eq!(setup.callbacks(), 0);
}

#[test]
fn the_scheme_may_be_in_any_letter_case() {
    let setup = Setup::new();
    let server = setup.start();
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR", "bearer  "] {
        let lines = format!("Authorization: {scheme} {TOKEN}\r\n");
        assert_eq!(server.ask(post_with(PATH, lines, receipt("a"))).status, 204, "{scheme}");
    }
    assert_eq!(setup.callbacks(), 5);
}

#[test]
fn a_token_is_bytes_and_not_text() {
    let tokens: [&[u8]; 3] = [b"caf\xe9 au lait!", b"with spaces inside it", b"\"quoted, & more\""];
    for token in tokens {
        let config = format!(
            "[[source]]\nname = \"passport\"\nprovider = \"notify\"\n\
             [[source.token]]\nlabel = \"a\"\nsha256 = \"{}\"\n",
            sha256_hex(token)
        );
        let setup = Setup::with_sources(&config);
        let server = setup.start();
        let lines = [b"authorization: Bearer ".as_slice(), token, b"\r\n"].concat();
        assert_eq!(server.ask(post_with(PATH, lines, receipt("a"))).status, 204, "{token:?}");
    }
}

#[test]
fn one_source_does_not_open_the_door_of_another() {
    let setup = Setup::with_sources(&format!(
        "{}{}",
        source("a", "gc-notify", &[("a", "the-token-of-a")]),
        source("b", "govuk-notify", &[("b", "the-token-of-b")])
    ));
    let server = setup.start();
    assert_eq!(server.ask(post("/callbacks/a", "the-token-of-a", receipt("1"))).status, 204);
    assert_eq!(server.ask(post("/callbacks/b", "the-token-of-b", receipt("1"))).status, 204);
    let crossed = server.ask(post("/callbacks/a", "the-token-of-b", receipt("2")));
    assert_unauthenticated(&crossed, INVALID, "b at the door of a");
    server.settled();
    let settled =
        rows(&open(&setup.state()), "SELECT source, id FROM notification ORDER BY source");
    assert_eq!(settled, ["a|1", "b|1"]);
}

#[test]
fn an_unknown_path_is_404_whoever_asks() {
    let setup = Setup::new();
    let server = setup.start();
    for path in ["/", "/callbacks", "/callbacks/", "/callbacks/passport/", "/callbacks/Passport"] {
        assert_eq!(server.ask(post(path, TOKEN, receipt("a"))).status, 404, "{path}");
    }
    // Neither does the callback listener show what belongs on the admin listener.
    for path in ["/metrics", "/livez", "/readyz", "/settled", "/control/prune"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: receiver\r\n\r\n");
        assert_eq!(server.ask(request).status, 404, "{path}");
    }
    assert_eq!(setup.callbacks(), 0);
}

#[test]
fn any_method_but_post_is_405_and_told_what_is_allowed() {
    let setup = Setup::new();
    let server = setup.start();
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let request = format!(
            "{method} {PATH} HTTP/1.1\r\nhost: receiver\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
        );
        let answer = server.ask(request);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{method}");
    }
    assert_eq!(setup.callbacks(), 0);
}

#[test]
fn nothing_is_ever_redirected() {
    let setup = Setup::new();
    let server = setup.start();
    for path in [PATH, "/callbacks/passport/", "//callbacks/passport", "/callbacks/../x"] {
        let answer = server.ask(post(path, TOKEN, receipt("a")));
        assert!(!(300..400).contains(&answer.status), "{path}: {}", answer.status);
        assert_eq!(answer.header("location"), None);
    }
}

#[test]
fn a_body_at_its_bound_is_kept_and_one_byte_more_is_413() {
    let setup = Setup::new().limits("body_bytes_max = 1000");
    let server = setup.start();
    assert_eq!(server.post(" ".repeat(1000)), 204);
    assert_eq!(server.post(" ".repeat(1001)), 413);
    assert_eq!(setup.callbacks(), 1);
}

#[test]
fn a_body_declared_too_large_is_413_before_any_of_it_is_sent() {
    let setup = Setup::new();
    let server = setup.start();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\n\
         content-length: 999999999999\r\n\r\n"
    );
    let mut client = server.connect();
    let answer = client.ask(head);
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
    assert!(client.ends_within(Duration::from_secs(5)));
}

#[test]
fn a_chunked_body_that_grows_too_large_is_413() {
    let setup = Setup::new().limits("body_bytes_max = 1000");
    let server = setup.start();
    let mut client = server.connect();
    client.send(format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\n\
         transfer-encoding: chunked\r\n\r\n"
    ));
    let chunk = format!("1f4\r\n{}\r\n", " ".repeat(500));
    for _ in 0..3 {
        client.send(&chunk);
    }
    // It never ends, and need not.
    assert_eq!(client.answer().status, 413);
    assert_eq!(setup.callbacks(), 0);
}

#[test]
fn a_body_that_takes_too_long_is_408() {
    let setup = Setup::new().limits("body_ms_max = 200");
    let server = setup.start();
    let mut client = server.connect();
    let whole = post(PATH, TOKEN, receipt("a"));
    client.send(&whole[..whole.len() - 1]);
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
    assert!(client.ends_within(Duration::from_secs(5)));
    assert_eq!(setup.callbacks(), 0);
}

#[test]
fn a_head_that_takes_too_long_is_408_even_if_it_never_pauses() {
    let setup = Setup::new().limits("header_ms_max = 300");
    let server = setup.start();
    let mut silent = server.connect();
    silent.send("POST /callbacks/passport HTTP/1.1\r\nhost: a\r\n");
    assert_eq!(silent.answer().status, 408);
    assert!(silent.ends_within(Duration::from_secs(5)));
    let mut dribbling = server.connect();
    let since = Instant::now();
    dribbling.send("POST /callbacks/passport HTTP/1.1\r\nx: ");
    // A byte each few milliseconds for as long as the other side lets us.
    while since.elapsed() < Duration::from_secs(10) && dribbling.try_send("x").is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(since.elapsed() < Duration::from_secs(5), "it held its place for {since:?}");
}

/// Holds the journal's write lock until dropped, so that no commit can be made.
fn hold(setup: &Setup) -> Connection {
    let connection = Connection::open(setup.journal()).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

#[test]
fn a_full_queue_is_503_at_once_and_what_was_taken_is_kept() {
    let setup = Setup::new().limits("queue_callbacks_max = 1\nbatch_callbacks_max = 1");
    let server = setup.start();
    let held = hold(&setup);
    let mut clients: Vec<_> = (0..6).map(|_| server.connect()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.send(post(PATH, TOKEN, receipt(&index.to_string())));
    }
    // One is with the writer and one waits, at most: the others are not made to wait.
    let page = || server.metrics();
    let refused = r#"receiptd_callbacks_total{source="passport",code="503"}"#;
    eventually("four are refused", || metric(&page(), refused).unwrap_or(0.0) >= 4.0);
    drop(held);
    let answers: Vec<_> = clients.iter_mut().map(support::Client::answer).collect();
    let kept = answers.iter().filter(|answer| answer.status == 204).count();
    answers.iter().filter(|answer| answer.status != 204).for_each(assert_unavailable);
    assert!((1..=2).contains(&kept), "{kept}");
    assert_eq!(usize::try_from(setup.callbacks()), Ok(kept));
    assert_eq!(server.post(receipt("later")), 204);
}

#[test]
fn more_bytes_than_the_queue_holds_are_503() {
    let lines = "queue_bytes_max = 1000\nbody_bytes_max = 1000\nbatch_callbacks_max = 1";
    let setup = Setup::new().limits(lines);
    let server = setup.start();
    let held = hold(&setup);
    let mut clients: Vec<_> = (0..6).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(post(PATH, TOKEN, " ".repeat(900)));
    }
    let refused = r#"receiptd_callbacks_total{source="passport",code="503"}"#;
    eventually("four are refused", || metric(&server.metrics(), refused).unwrap_or(0.0) >= 4.0);
    drop(held);
    let statuses: Vec<_> = clients.iter_mut().map(|client| client.answer().status).collect();
    let kept = statuses.iter().filter(|status| **status == 204).count();
    assert_eq!(usize::try_from(setup.callbacks()), Ok(kept), "{statuses:?}");
}

#[test]
fn no_commit_in_time_is_503_before_the_sender_gives_up() {
    let setup = Setup::new().limits("ack_wait_ms_max = 100");
    let server = setup.start();
    let held = hold(&setup);
    let since = Instant::now();
    assert_unavailable(&server.ask(post(PATH, TOKEN, receipt("a"))));
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    drop(held);
    // The queue owns the callback: it is kept although its caller was sent away, and the repeat
    // that the caller then sends is a duplicate.
    eventually("the callback is kept", || setup.callbacks() == 1);
    assert_eq!(server.post(receipt("a")), 204);
    server.settled();
    let counts = rows(&open(&setup.state()), "SELECT receipts, duplicates FROM notification");
    assert_eq!(counts, ["1|1"]);
}

#[test]
fn little_space_is_503_for_every_callback_and_for_readiness() {
    let setup = Setup::new().free_bytes_min(1_000_000_000_000_000);
    let server = setup.start();
    for id in ["a", "b"] {
        assert_unavailable(&server.ask(post(PATH, TOKEN, receipt(id))));
    }
    // Who is calling is still decided first.
    assert_eq!(server.ask(post(PATH, "wrong-token", receipt("a"))).status, 401);
    let ready = server.admin("/readyz");
    assert_eq!((ready.status, ready.text().as_str()), (503, "low on disk space\n"));
    assert_eq!(server.admin("/livez").status, 200);
    assert_eq!(metric(&server.metrics(), "receiptd_ready"), Some(0.0));
    assert_eq!(setup.callbacks(), 0);
}

#[test]
fn with_little_space_a_repeat_of_what_is_kept_is_204_and_everything_else_503() {
    let text = r#"{"id": "t", "source_number": "1", "message": "m"}"#;
    let setup = Setup::new();
    let server = setup.start();
    for body in [&*receipt("a"), text, "[]"] {
        assert_eq!(server.post(body), 204);
    }
    server.settled();
    drop(server);
    let setup = setup.free_bytes_min(1_000_000_000_000_000);
    let server = setup.start();
    for kept in [&*receipt("a"), text] {
        assert_eq!(server.post(kept), 204, "{kept}");
    }
    // Another id, another word, another kind of the same id, not understood.
    let another_word = receipt("a").replace("delivered", "permanent-failure");
    let another_kind = text.replace("\"t\"", "\"a\"");
    for new in [&*receipt("b"), &*another_word, &*another_kind, "[]"] {
        assert_unavailable(&server.ask(post(PATH, TOKEN, new)));
    }
    assert_eq!(setup.callbacks(), 3);
}

#[test]
fn a_named_header_opens_the_door_as_well() {
    let sha256 = sha256_hex(b"the secret in a header");
    let setup = Setup::with_sources(&format!(
        "[[source]]\nname = \"passport\"\nprovider = \"ajo\"\n\
         header = {{ name = \"X-Callback-Secret\", sha256 = \"{sha256}\" }}\n"
    ));
    let server = setup.start();
    let ask = |lines: &str| server.ask(post_with(PATH, lines, "{}"));
    assert_eq!(ask("x-callback-secret: the secret in a header\r\n").status, 204);
    assert_unauthenticated(&ask("x-callback-secret: another\r\n"), PLAIN, "a wrong secret");
    let twice = "x-callback-secret: the secret in a header\r\n".repeat(2);
    assert_unauthenticated(&ask(&twice), PLAIN, "the secret twice");
    assert_eq!(setup.callbacks(), 1);
}

#[test]
fn a_signature_is_checked_before_the_body_is_kept() {
    let setup = Setup::with_sources(
        "[[source]]\nname = \"va\"\nprovider = \"va-notify\"\nsignature = { secret_file = \"key\" }\n",
    );
    std::fs::write(setup.path("key"), "test_generate_callback_signature").unwrap();
    let server = setup.start();
    let body = r#"{"notification_id": "342d2432-6a79-4e18-afef-8c254751969b", "reference": "some client reference", "to": "+16502532222", "status": "created", "created_at": "2024-10-01T00:00:00.000000Z", "updated_at": null, "sent_at": null, "notification_type": "sms", "provider": "pinpoint", "status_reason": null, "provider_payload": null}"#;
    let signature = "18689cf9fb9c6a9dc1e0840245d48c666d97499d3894deb0e4cf3a5ba82f3d6e";
    let line = format!("x-enp-signature: {signature}\r\n");
    let ask = |body: &str| server.ask(post_with("/callbacks/va", &line, body));
    assert_eq!(ask(body).status, 204);
    let forged = body.replace("created\", \"created_at", "delivered\", \"created_at");
    assert_unauthenticated(&ask(&forged), PLAIN, "another body");
    assert_unauthenticated(&ask("{}"), PLAIN, "no body to speak of");
    server.settled();
    assert_eq!(setup.callbacks(), 1);
}

#[test]
fn a_token_past_its_last_day_is_refused_and_its_successor_is_not() {
    let old = source(SOURCE, "gc-notify", &[("new", TOKEN), ("old", "the-old-token")]);
    let setup = Setup::with_sources(&format!("{old}not_after = \"2026-01-31\"\n"));
    let server = setup.start();
    assert_eq!(server.post(receipt("a")), 204);
    let answer = server.ask(post(PATH, "the-old-token", receipt("b")));
    assert_unauthenticated(&answer, INVALID, "an old token");
    assert_eq!(setup.callbacks(), 1);
}

#[test]
fn the_settled_barrier_lets_an_app_read_what_it_was_told() {
    let setup = Setup::new();
    let server = setup.start();
    let read = |server: &Receiptd, id: &str| {
        server.settled();
        let sql = format!("SELECT status FROM notification WHERE id = '{id}'");
        rows(&open(&setup.state()), &sql)
    };
    for index in 0..30 {
        let id = format!("n{index}");
        assert_eq!(server.post(receipt_of(&id, "sending", "2026-11-22T10:00:00.000000Z")), 204);
        assert_eq!(read(&server, &id), ["sending"]);
        assert_eq!(server.post(receipt(&id)), 204);
        assert_eq!(read(&server, &id), ["delivered"]);
    }
    for query in ["wait=forever", "wait=61s", "wait=", "now"] {
        assert_eq!(server.admin(&format!("/settled?{query}")).status, 400, "{query}");
    }
    assert_eq!(server.admin("/settled").status, 204);
}
