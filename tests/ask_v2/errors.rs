//! Every error, in the platforms' words, and that none tells of another source.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Client, Receiptd, Setup, TOKEN, source};
use crate::token::{now_s, signed, token};
use crate::world::{Key, PASSPORT, VISA, World, id, receipt, setup, write_secret};

/// An error of a platform, from its documentation and its code.
fn example(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ask_v2/examples");
    serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
}

fn auth(code: u16, message: &str) -> Value {
    json!({"status_code": code, "errors": [{"error": "AuthError", "message": message}]})
}

fn invalid(messages: &[&str]) -> Value {
    let errors: Vec<Value> = messages
        .iter()
        .map(|message| json!({"error": "ValidationError", "message": message}))
        .collect();
    json!({"status_code": 400, "errors": errors})
}

const LIST: &str = "/v2/notifications";

/// Only GC Notify, as most who have it have nothing else.
fn gc_only() -> World {
    let reader =
        format!("[[source.reader]]\nservice_id = \"{}\"\nsecret_file = \"visa\"\n", VISA.service);
    let setup = Setup::with_sources(&(source("visa", "gc-notify", &[("live", TOKEN)]) + &reader));
    write_secret(&setup, "visa", VISA.secret);
    World::of(setup, VISA)
}

fn head() -> Value {
    json!({"typ": "JWT", "alg": "HS256"})
}

fn claims() -> Value {
    json!({"iss": PASSPORT.service, "iat": now_s()})
}

#[test]
fn without_a_token_and_with_another_scheme_the_answer_is_401() {
    let world = World::start();
    for (lines, body) in [
        ("", example("govuk.err.401.missing.json")),
        ("authorization: \r\n", example("govuk.err.401.missing.json")),
        (
            "authorization: Basic YTpi\r\n",
            auth(401, "Unauthorized: authentication bearer scheme must be used"),
        ),
    ] {
        let answer = world.ask("GET", LIST, lines);
        assert_eq!(answer.status, 401);
        assert_eq!(serde_json::from_slice::<Value>(&answer.body).unwrap(), body);
    }
}

#[test]
fn every_token_that_is_not_right_is_answered_403_in_the_platforms_words() {
    let world = World::start();
    let key = PASSPORT.secret;
    let general = "Invalid token: make sure your API token matches the example at \
        https://docs.notifications.service.gov.uk/rest-api.html#authorisation-header";
    let clock = "Error: Your system clock must be accurate to within 30 seconds";
    let with = |changes: Value| {
        let mut claims = claims();
        let changes = changes.as_object().unwrap().clone();
        claims.as_object_mut().unwrap().extend(changes);
        signed(&head(), &claims, key)
    };
    let none = signed(&json!({"typ": "JWT", "alg": "none"}), &claims(), key);
    let unsigned = format!("{}.", none.rsplit_once('.').unwrap().0);
    for (bearer, message) in [
        (with(json!({"iat": now_s() - 60})), clock),
        (with(json!({"iat": now_s() + 60})), clock),
        (with(json!({"nbf": now_s() + 60})), clock),
        (signed(&head(), &json!({"iat": now_s()}), key), "Invalid token: iss field not provided"),
        (
            signed(&json!({"alg": "HS512"}), &claims(), key),
            "Invalid token: algorithm used is not HS256",
        ),
        (none, "Invalid token: algorithm used is not HS256"),
        (unsigned, "Invalid token: algorithm used is not HS256"),
        (with(json!({"exp": now_s() - 60})), general),
        (signed(&json!({"alg": "HS256", "crit": ["b64"]}), &claims(), key), general),
        (with(json!({"iat": "now"})), general),
        ("no-token-at-all".to_owned(), general),
        ("a.b.c".to_owned(), general),
        (String::from("x").repeat(9_000), general),
        (token(PASSPORT.service, VISA.secret), "Invalid token: API key not found"),
        (token(VISA.service, PASSPORT.secret), "Invalid token: API key not found"),
        (token(&id(1), PASSPORT.secret), "Invalid token: API key not found"),
        (token("passport", PASSPORT.secret), "Invalid token: API key not found"),
        (
            signed(&head(), &json!({"iss": PASSPORT.service}), key),
            "Invalid token: API key not found",
        ),
    ] {
        let answer = world.get(LIST, &bearer);
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, body), (403, auth(403, message)), "{bearer}");
    }
    assert_eq!(example("govuk.err.403.clock.json"), auth(403, clock));
    assert_eq!(example("govuk.err.403.key.json"), auth(403, "Invalid token: API key not found"));
}

#[test]
fn two_authorizations_are_never_right() {
    let world = World::start();
    let line = format!("authorization: Bearer {}\r\n", PASSPORT.token());
    assert_eq!(world.ask("GET", LIST, &line).status, 200);
    assert_eq!(world.ask("GET", LIST, &line.repeat(2)).status, 403);
}

/// Whether a service is configured, at all or with another key, cannot be told apart; the clock is
/// mentioned to nobody who lacks the key.
#[test]
fn nothing_can_be_learnt_about_other_sources() {
    let world = World::start();
    world.hear("visa", &[receipt(5, "delivered", "sms", 0)]);
    let wrong = "11111111-1111-4111-8111-111111111111";
    let old = |service: &str| signed(&head(), &json!({"iss": service, "iat": 1}), wrong);
    let said = |bearer: &str| {
        let answer = world.get(LIST, bearer);
        let headers: Vec<_> =
            answer.headers.into_iter().filter(|(name, _)| name != "date").collect();
        (answer.status, headers, answer.body)
    };
    let unknown = said(&token(&id(9), wrong));
    for service in [PASSPORT.service, VISA.service, &id(9)] {
        assert_eq!(said(&token(service, wrong)), unknown);
        assert_eq!(said(&old(service)), unknown);
    }
    // By an id that another source has, as by one that nobody has.
    for number in [5, 6] {
        let answer = world.get(&format!("{LIST}/{}", id(number)), &PASSPORT.token());
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, body), (404, example("govuk.err.404.json")));
    }
}

#[test]
fn gc_notify_says_some_of_it_otherwise() {
    let world = gc_only();
    let unknown = world.get(&format!("{LIST}/{}", id(5)), &VISA.token());
    let body: Value = serde_json::from_slice(&unknown.body).unwrap();
    assert_eq!((unknown.status, body), (404, example("gcnotify.err.404.json")));
    let wrong = Key { secret: PASSPORT.secret, ..VISA };
    for key in [wrong.whole(), "short".to_owned()] {
        let answer = world.ask("GET", LIST, &format!("authorization: ApiKey-v1 {key}\r\n"));
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let message = "Invalid token: signature, api token not found";
        assert_eq!((answer.status, body), (403, auth(403, message)), "{key}");
    }
    let answer = world.get(&format!("{LIST}?status=elephant"), &VISA.token());
    assert!(answer.text().contains("received, provider-failure, pii-check-failed]"));
    world.read(VISA, &format!("{LIST}?status=pii-check-failed"));
}

#[test]
fn gc_notify_takes_the_key_as_it_is_and_no_other_platform_does() {
    let world = World::start();
    world.hear("visa", &[receipt(5, "delivered", "sms", 0)]);
    let path = format!("{LIST}/{}", id(5));
    let asked = |scheme: &str, key: &str| {
        world.ask("GET", &path, &format!("authorization: {scheme} {key}\r\n")).status
    };
    for scheme in ["ApiKey-v1", "apikey-v1", "APIKEY-V1"] {
        assert_eq!(asked(scheme, &VISA.whole()), 200);
        assert_eq!(asked(scheme, VISA.secret), 200);
    }
    let other = Key { secret: PASSPORT.secret, ..VISA };
    for wrong in [PASSPORT.whole(), other.whole(), PASSPORT.secret.to_owned(), "short".to_owned()] {
        assert_eq!(asked("ApiKey-v1", &wrong), 403, "{wrong}");
    }
    let misnamed = format!("my-app-{}-{}", PASSPORT.service, VISA.secret);
    assert_eq!(asked("ApiKey-v1", &misnamed), 403);
    assert_eq!(asked("Bearer", &VISA.whole()), 403);
}

#[test]
fn mistakes_in_what_is_asked_for_are_answered_400_all_at_once() {
    let world = World::start();
    let asked = |path: &str| -> (u16, Value) {
        let answer = world.get(path, &PASSPORT.token());
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    };
    assert_eq!(asked("/v2/notifications/1234"), (400, example("govuk.err.400.uuid.json")));
    assert_eq!(
        asked("/v2/notifications?status=elephant"),
        (400, example("govuk.err.400.status.json"))
    );
    assert_eq!(
        asked("/v2/notifications?template_type=orange&older_than=soon&x=1"),
        (
            400,
            invalid(&[
                "template_type orange is not one of [sms, email, letter]",
                "older_than is not a valid UUID",
                "Additional properties are not allowed (x was unexpected)",
            ])
        )
    );
    for path in ["/v2/notifications", "/v2/received-text-messages"] {
        let expected = invalid(&["older_than is not a valid UUID"]);
        assert_eq!(asked(&format!("{path}?older_than=soon")), (400, expected));
    }
    let expected = invalid(&["Additional properties are not allowed (status was unexpected)"]);
    assert_eq!(asked("/v2/received-text-messages?status=sent"), (400, expected));
}

#[test]
fn whoever_wants_to_send_is_told_that_this_does_not_send() {
    let world = World::start();
    for (method, path) in [
        ("POST", "/v2/notifications/email"),
        ("POST", "/v2/notifications"),
        ("DELETE", "/v2/notifications/1"),
        ("GET", "/v2/templates"),
        ("GET", "/v2/template/1/version/2"),
        ("GET", "/v2/notifications/1/pdf"),
        ("GET", "/v2/notifications/"),
        ("GET", "/v2"),
    ] {
        let lines = format!("authorization: Bearer {}\r\n", PASSPORT.token());
        let answer = world.ask(method, path, &lines);
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, &body["status_code"]), (404, &json!(404)), "{method} {path}");
        let message = body["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("does not send"), "{message}");
    }
    assert_eq!(world.get("/v2x", "").status, 404);
}

#[test]
fn where_nobody_may_read_the_log_says_so_once() {
    let setup = Setup::new();
    let receiver = setup.start();
    for _ in 0..3 {
        assert_eq!(receiver.admin(LIST).status, 401);
    }
    let said = receiver.stderr();
    assert_eq!(said.matches("no [[source.reader]] is configured").count(), 1, "{said}");
}

/// Not which platforms there are sources of, nor who may read of them, nor whether anybody may.
#[test]
fn who_has_no_key_is_answered_to_the_byte_the_same_whatever_is_configured() {
    let wrong = "11111111-1111-4111-8111-111111111111";
    let old = signed(&head(), &json!({"iss": VISA.service, "iat": 1}), wrong);
    let shown = [
        String::new(),
        "authorization: \r\n".to_owned(),
        "authorization: Basic YTpi\r\n".to_owned(),
        "authorization: Bearer x\r\n".to_owned(),
        format!("authorization: Bearer {old}\r\n"),
        format!("authorization: Bearer {}\r\n", token(PASSPORT.service, wrong)),
        format!("authorization: Bearer {}\r\n", token(VISA.service, wrong)),
        format!("authorization: Bearer {}\r\n", token(&id(9), wrong)),
        "authorization: ApiKey-v1 short\r\n".to_owned(),
        format!("authorization: ApiKey-v1 {wrong}\r\n"),
        format!("authorization: ApiKey-v1 my-app-{}-{wrong}\r\n", PASSPORT.service),
        format!("authorization: ApiKey-v1 my-app-{}-{wrong}\r\n", VISA.service),
        format!("authorization: Bearer {old}\r\nauthorization: Bearer {old}\r\n"),
    ];
    let asked = [
        ("GET", LIST.to_owned()),
        ("GET", format!("{LIST}/{}", id(1))),
        ("GET", "/v2/received-text-messages".to_owned()),
        ("POST", "/v2/notifications/sms".to_owned()),
        ("GET", "/v1/notifications".to_owned()),
        ("GET", format!("/v1/notifications/{}?wait=1s", id(1))),
        ("GET", format!("/v1/notifications/{}/receipts", id(1))),
        ("GET", "/v1/events".to_owned()),
        ("POST", "/v1/expected".to_owned()),
        ("PUT", "/v1/expected".to_owned()),
        ("GET", "/v1/nowhere".to_owned()),
    ];
    let answers = |receiver: &Receiptd| {
        let mut answers = Vec::new();
        for (method, path) in &asked {
            for lines in &shown {
                let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{lines}\r\n");
                let answer = Client::connect(receiver.admin).ask(request);
                let headers = answer.headers.into_iter().filter(|(name, _)| name != "date");
                let headers: Vec<_> = headers.collect();
                answers.push((method, path, lines, answer.status, headers, answer.body));
            }
        }
        answers
    };
    let world = World::start();
    world.hear("visa", &[receipt(1, "delivered", "sms", 0)]);
    let expected = answers(&world.receiver);
    assert!(expected.iter().all(|answer| (400..500).contains(&answer.3)), "{expected:?}");
    assert_eq!(answers(&gc_only().receiver), expected);
    let nobody = Setup::new();
    assert_eq!(answers(&nobody.start()), expected);
}

#[test]
fn a_secret_shows_nowhere() {
    let setup = setup().with("log", "level = \"trace\"");
    let world = World::of(setup, PASSPORT);
    world.hear("visa", &[receipt(5, "delivered", "sms", 0)]);
    let mut said = String::new();
    for line in [
        format!("authorization: Bearer {}\r\n", token(PASSPORT.service, VISA.secret)),
        format!("authorization: ApiKey-v1 {}\r\n", PASSPORT.whole()),
        format!("authorization: Basic {}\r\n", VISA.whole()),
    ] {
        said.push_str(&world.ask("GET", LIST, &line).text());
    }
    said.push_str(&world.receiver.metrics());
    said.push_str(&world.receiver.stderr());
    for secret in [PASSPORT.secret, VISA.secret] {
        assert!(!said.contains(secret), "{said}");
    }
}
