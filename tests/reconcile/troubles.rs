//! A platform that is down, slow, wrong or limiting: it costs rounds and nothing else.

use std::time::{Duration, Instant};

use crate::platform::{Kind, Platform, Row, Trouble, id};
use crate::support::{PATH, Receiptd, Setup, TOKEN, eventually, metric, post, receipt};
use crate::{
    call_back, counted, entries, no_identity, round, setup, setup_with, statuses, upstream,
};

fn started(lines: &str) -> (Platform, Setup, Receiptd) {
    let platform = Platform::start(Kind::Govuk);
    platform.add((0..5).map(|n| Row::new(n, "delivered", 60 + n as i64)));
    let setup = setup_with(&platform, Kind::Govuk, lines);
    let server = setup.start();
    (platform, setup, server)
}

/// With that trouble `times` times over, the rest is healed all the same.
fn passes(trouble: &Trouble, times: usize, outcome: &str) {
    let platform = Platform::start(Kind::Govuk);
    platform.add((0..5).map(|n| Row::new(n, "delivered", 60)));
    platform.trouble("/", trouble.clone(), times);
    let setup = setup_with(&platform, Kind::Govuk, "answer_ms_max = 500");
    let server = setup.start();
    round(&server);
    assert_eq!(statuses(&setup).len(), 5, "{trouble:?}");
    let label = format!("outcome=\"{outcome}\"");
    assert!(counted(&server, "requests", &label) >= 1.0, "{trouble:?}\n{}", server.metrics());
    assert!(!server.stderr().contains("canary-said"), "nothing it says is logged");
}

#[test]
fn errors_that_pass_are_asked_through() {
    passes(&Trouble::status(500, ""), 3, "failed");
    passes(&Trouble::status(503, "retry-after: 1\r\n"), 1, "failed");
    passes(&Trouble::status(429, ""), 2, "limited");
    passes(&Trouble::Cut, 2, "failed");
}

#[test]
fn silence_and_slowness_end_in_time() {
    passes(&Trouble::Silence, 1, "failed");
    passes(&Trouble::Drip, 1, "failed");
    passes(&Trouble::Late(Duration::from_millis(900)), 1, "failed");
}

#[test]
fn what_cannot_be_read_ends_a_round_and_not_the_next() {
    passes(
        &Trouble::Bytes("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n<html/>\r\n".into()),
        1,
        "wrong",
    );
    passes(&Trouble::Bytes("not HTTP at all\r\n\r\n".into()), 1, "failed");
    passes(&Trouble::status(400, ""), 1, "wrong");
    passes(&Trouble::status(418, ""), 1, "wrong");
}

#[test]
fn an_answer_without_an_end_is_cut_off() {
    passes(&Trouble::Endless, 1, "wrong");
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Platform::start(Kind::Govuk);
    let to = format!("location: http://{}/v2/notifications\r\n", elsewhere.address);
    for code in [301, 302, 307, 308] {
        passes(&Trouble::status(code, &to), 1, "wrong");
    }
    assert_eq!(elsewhere.asked("/"), 0);
}

#[test]
fn a_platform_that_asks_to_wait_is_waited_for() {
    let platform = Platform::start(Kind::Govuk);
    platform.trouble("/", Trouble::status(429, "retry-after: 2\r\n"), 1);
    let setup = setup(&platform, Kind::Govuk);
    let server = setup.start();
    round(&server);
    let state = platform.state();
    assert!(state.asked[1].at - state.asked[0].at >= Duration::from_secs(2));
}

#[test]
fn a_key_that_is_not_accepted_is_told_of_once_and_costs_one_request_a_round() {
    for code in [401, 403] {
        let (platform, setup, server) = started("");
        platform.trouble("/", Trouble::status(code, ""), usize::MAX);
        let label = r#"outcome="denied""#;
        eventually("several rounds", || counted(&server, "requests", label) >= 3.0);
        let told = server.stderr().matches("the key is not accepted").count();
        assert_eq!(told, 1, "{}", server.stderr());
        platform.trouble("/", Trouble::Cut, 0);
        round(&server);
        assert!(server.stderr().contains("can be asked again"));
        assert_eq!(statuses(&setup).len(), 5);
    }
}

#[test]
fn a_page_that_cannot_be_shown_keeps_nobody_from_the_newest() {
    let (platform, setup, server) = started("");
    round(&server);
    server.stop();
    // More pages, the second of which fails for ever.
    platform.state().page_size = 2;
    platform.add((10..16).map(|n| Row::new(n, "delivered", 300 + n as i64)));
    std::fs::remove_file(setup.journal()).unwrap();
    std::fs::remove_file(setup.state()).unwrap();
    platform.trouble(
        "/v2/notifications?include_jobs=true&older",
        Trouble::status(400, ""),
        usize::MAX,
    );
    let server = setup.start();
    eventually("the first page", || statuses(&setup).len() == 2);
    platform.add([Row::new(20, "delivered", 1)]);
    eventually("the newest", || statuses(&setup).contains(&format!("{}|delivered", id(20))));
    platform.trouble("/", Trouble::Cut, 0);
    round(&server);
    assert_eq!(statuses(&setup).len(), 12);
}

#[test]
fn a_notification_that_cannot_be_shown_keeps_nobody_from_the_pages() {
    let (platform, setup, server) = started("");
    round(&server);
    for number in [50, 51] {
        let sent = Row { is_listed: false, ..Row::new(number, "sending", 3_000) };
        call_back(&server, &sent.callback());
        platform.add([Row { status: "delivered", ..sent }]);
    }
    // What is asked for by id fails for ever; each costs a round its tries.
    platform.trouble("/v2/notifications/", Trouble::status(500, ""), usize::MAX);
    eventually("they are asked for", || platform.asked("/v2/notifications/") > 0);
    platform.add([Row::new(60, "delivered", 1)]);
    eventually("the newest", || statuses(&setup).contains(&format!("{}|delivered", id(60))));
    platform.trouble("/", Trouble::Cut, 0);
    let healed = [50, 51].map(|number| format!("{}|delivered", id(number)));
    eventually("they are healed", || healed.iter().all(|row| statuses(&setup).contains(row)));
    assert_eq!(
        server.stderr().matches("could not ask for everything").count(),
        1,
        "{}",
        server.stderr()
    );
}

#[test]
fn receiving_knows_nothing_of_a_platform_that_hangs() {
    let platform = Platform::start(Kind::Govuk);
    platform.trouble("/", Trouble::Silence, usize::MAX);
    let setup = setup(&platform, Kind::Govuk);
    let server = setup.start();
    eventually("it hangs", || platform.asked("/") > 0);
    let began = Instant::now();
    let mut client = server.connect();
    for number in 0..200 {
        let answer = client.ask(post(PATH, TOKEN, receipt(&format!("n{number}"))));
        assert_eq!(answer.status, 204);
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    server.settled();
    assert_eq!(server.admin("/readyz").status, 200);
    assert_eq!((entries(&setup, 0), entries(&setup, 1)), (200, 0));
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(5), "stopping does not wait for it");
}

#[test]
fn a_platform_that_is_not_there_costs_no_more_than_its_rounds() {
    let platform = Platform::start(Kind::Govuk);
    let setup = setup(&platform, Kind::Govuk);
    let port = platform.address.port().to_string();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut elsewhere = setup;
    elsewhere.sources = elsewhere.sources.replace(&port, &nobody.port().to_string());
    let server = elsewhere.start();
    eventually("it is asked", || counted(&server, "requests", r#"outcome="failed""#) > 0.0);
    assert_eq!(server.post(receipt("a")), 204);
    server.settled();
    assert_eq!(server.admin("/readyz").status, 200);
    let behind = "receiptd_reconcile_behind_seconds{source=\"passport\"}";
    let behind = crate::support::metric(&server.metrics(), behind).unwrap();
    assert!((behind - 7.0 * 86_400.0).abs() < 60.0, "{behind}");
}

#[test]
fn an_upstream_that_cannot_be_opened_is_seen_to_be_behind_and_is_asked_once_it_can_be() {
    let platform = Platform::start(Kind::Govuk);
    let mut setup = setup(&platform, Kind::Govuk);
    let lines = no_identity(&setup);
    let start = setup.sources.find("[source.upstream]").unwrap();
    setup.sources.truncate(start);
    let section = upstream(&setup, &platform, &lines);
    setup.sources.push_str(&section);
    let server = setup.start();
    let behind = "receiptd_reconcile_behind_seconds{source=\"passport\"}";
    eventually("it is behind", || {
        metric(&server.metrics(), behind).is_some_and(|behind| behind > 6.0 * 86_400.0)
    });
    eventually("it is told", || {
        server.stderr().contains("the platform cannot be asked; it is tried")
    });
    let failed = r#"outcome="failed""#;
    assert!(counted(&server, "requests", failed) < 0.5);
    // A certificate with its own key; the imitation speaks no TLS, which is a failure of another kind.
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    std::fs::write(setup.path("client.pem"), certificate.pem()).unwrap();
    std::fs::write(setup.path("client.key"), key.serialize_pem()).unwrap();
    eventually("it is asked", || counted(&server, "requests", failed) > 0.5);
    let told = server.stderr();
    assert!(told.contains("the platform can be asked now"), "{told}");
    assert_eq!(told.matches("the platform cannot be asked; it is tried").count(), 1, "{told}");
}
