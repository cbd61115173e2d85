//! HTTP as clients, proxies and strangers speak it: what hyper would let pass is refused, what a
//! real sender does is served, and nobody can keep the real sender out.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use support::{
    Client, PATH, Receiptd, Setup, TOKEN, eventually, holds_within, metric, open, post, post_with,
    receipt, rows,
};

/// A request with that head, byte for byte, and a receipt behind it.
fn raw(head: &str) -> Vec<u8> {
    let body = receipt("a");
    let head = head.replace("AUTH", &format!("authorization: Bearer {TOKEN}"));
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn assert_refused(setup: &Setup, server: &Receiptd, head: &str, status: u16) {
    let answer = server.ask(raw(head));
    assert_eq!(answer.status, status, "{head}");
    assert_eq!(setup.callbacks(), 0, "{head}");
}

#[test]
fn what_a_proxy_could_read_differently_is_400() {
    let setup = Setup::new();
    let server = setup.start();
    for head in [
        "POST /callbacks/passport HTTP/1.1\r\nAUTH\r\n",
        "POST /callbacks/passport HTTP/1.1\r\nhost: a\r\nhost: b\r\nAUTH\r\n",
        "POST /callbacks/passport HTTP/1.1\r\nhost: a\r\nhost: a\r\nAUTH\r\n",
        "POST /callbacks/passport HTTP/1.1\r\nhost: a\r\nAUTH\r\nAUTH\r\n",
        "POST http://receiver/callbacks/passport HTTP/1.1\r\nhost: receiver\r\nAUTH\r\n",
        "POST http://elsewhere/callbacks/passport HTTP/1.1\r\nhost: receiver\r\nAUTH\r\n",
        "POST /callbacks/passport HTTP/1.0\r\nAUTH\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: a\r\nAUTH\r\n",
        "CONNECT receiver:80 HTTP/1.1\r\nhost: a\r\nAUTH\r\n",
    ] {
        assert_refused(&setup, &server, head, 400);
    }
    // The receiver is none the worse for it.
    assert_eq!(server.post(receipt("a")), 204);
}

#[test]
fn a_proxy_that_speaks_http_1_0_loses_nothing() {
    let setup = Setup::new();
    let server = setup.start();
    let answer = server.ask(raw(&format!("POST {PATH} HTTP/1.0\r\nhost: a\r\nAUTH\r\n")));
    assert_eq!(answer.status, 204);
    assert_eq!(setup.callbacks(), 1);
}

#[test]
fn a_body_of_uncertain_length_is_400() {
    let setup = Setup::new();
    let server = setup.start();
    let chunked = "5\r\nhello\r\n0\r\n\r\n";
    for lines in [
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked, chunked\r\n",
        "content-length: 5\r\ncontent-length: 7\r\n",
        "content-length: 5, 5\r\n",
        "content-length: +5\r\n",
        "content-length: -5\r\n",
        "content-length: 5x\r\n",
        "content-length: 99999999999999999999999999\r\n",
    ] {
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\n{lines}\r\n"
        );
        let mut client = server.connect();
        client.send(format!("{head}{chunked}"));
        assert_eq!(client.answer().status, 400, "{lines}");
        // What follows must not be taken for a request of its own.
        assert!(client.ends_within(Duration::from_secs(5)), "{lines}");
    }
    assert_eq!(setup.callbacks(), 0);
}

#[test]
fn a_length_beside_chunks_never_lets_a_second_request_be_smuggled() {
    let setup = Setup::new();
    let server = setup.start();
    let smuggled = post(PATH, TOKEN, receipt("smuggled"));
    let mut client = server.connect();
    client.send(format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\n\
         content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    ));
    let _ = client.try_send(smuggled);
    let first = client.answer();
    assert!(matches!(first.status, 204 | 400), "{}", first.status);
    if first.status == 204 {
        // Then it was read as chunks, as RFC 9112 has it: an empty body, kept as such.
        let sizes = rows(&open(&setup.journal()), "SELECT length(body) FROM callback WHERE seq=1");
        assert_eq!(sizes, ["0"]);
    }
}

#[test]
fn what_is_no_http_at_all_is_400_and_ends_the_connection() {
    let setup = Setup::new();
    let server = setup.start();
    let tls_hello: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a client hello\r\n\r\n";
    for garbage in [
        tls_hello,
        b"hello\r\n\r\n",
        b"POST\r\n\r\n",
        b"POST /callbacks/passport\r\n\r\n",
        b"POST /callbacks/passport HTTP/9.9\r\nhost: a\r\n\r\n",
        b"POST /callbacks/passport HTTP/1.1\r\nno colon here\r\n\r\n",
        b"POST /callbacks/passport HTTP/1.1\r\nna me: x\r\n\r\n",
        b"POST /call\x00backs/passport HTTP/1.1\r\nhost: a\r\n\r\n",
        b"P\xc3\xb6ST /callbacks/passport HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        let mut client = server.connect();
        client.send(garbage);
        let shown = String::from_utf8_lossy(garbage);
        assert_eq!(client.answer().status, 400, "{shown}");
        assert!(client.ends_within(Duration::from_secs(5)), "{shown}");
    }
    assert_eq!(server.post(receipt("a")), 204);
    assert_eq!(setup.callbacks(), 1);
}

#[test]
fn an_http_2_client_is_hung_up_on() {
    let setup = Setup::new();
    let server = setup.start();
    let mut client = server.connect();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(client.ends_within(Duration::from_secs(5)));
    assert_eq!(server.post(receipt("a")), 204);
}

#[test]
fn an_unknown_method_is_405() {
    let setup = Setup::new();
    let server = setup.start();
    for method in ["BREW", "post", "POSTT"] {
        let head = format!("{method} {PATH} HTTP/1.1\r\nhost: a\r\nAUTH\r\n");
        assert_refused(&setup, &server, &head, 405);
    }
}

#[test]
fn a_head_larger_than_its_bound_is_431() {
    let setup = Setup::new();
    let server = setup.start();
    let long = "x".repeat(300 << 10);
    let many: String = (0..101).map(|n| format!("x-{n}: y\r\n")).collect();
    for lines in [format!("x-long: {long}\r\n"), many] {
        let mut client = server.connect();
        // It may be refused before it is sent whole.
        let _ = client.try_send(post_with(PATH, format!("{lines}AUTH"), ""));
        let answer = client.try_answer();
        if let Ok(Some(answer)) = answer {
            assert_eq!(answer.status, 431);
        } else {
            panic!("no answer: {answer:?}");
        }
    }
    assert_eq!(setup.callbacks(), 0);
    assert_eq!(server.post(receipt("a")), 204);
}

#[test]
fn a_path_that_never_ends_is_refused() {
    let setup = Setup::new();
    let server = setup.start();
    let mut client = server.connect();
    let _ = client.try_send(format!("POST /{} HTTP/1.1\r\n", "x".repeat(300 << 10)));
    let status = client.try_answer().ok().flatten().map(|answer| answer.status);
    assert!(matches!(status, Some(414 | 431 | 400)), "{status:?}");
}

#[test]
fn callbacks_sent_without_waiting_for_answers_are_all_kept() {
    let setup = Setup::new();
    let server = setup.start();
    let mut client = server.connect();
    let packet: Vec<u8> = ["a", "b", "c"]
        .into_iter()
        .flat_map(|id| post(PATH, TOKEN, receipt(id)))
        .chain(post("/elsewhere", TOKEN, "{}"))
        .chain(post(PATH, TOKEN, receipt("d")))
        .collect();
    client.send(packet);
    let statuses: Vec<_> = (0..5).map(|_| client.answer().status).collect();
    assert_eq!(statuses, [204, 204, 204, 404, 204]);
    server.settled();
    let ids = rows(&open(&setup.state()), "SELECT id FROM notification ORDER BY id");
    assert_eq!(ids, ["a", "b", "c", "d"]);
}

#[test]
fn a_connection_is_used_again_after_every_answer_that_allows_it() {
    let setup = Setup::new();
    let server = setup.start();
    let mut client = server.connect();
    for index in 0..20 {
        assert_eq!(client.ask(post(PATH, TOKEN, receipt(&index.to_string()))).status, 204);
        assert_eq!(client.ask(post(PATH, "wrong-token", receipt("x"))).status, 401);
        assert_eq!(client.ask(post("/elsewhere", TOKEN, receipt("x"))).status, 404);
    }
    assert_eq!(setup.callbacks(), 20);
}

#[test]
fn a_refused_caller_is_not_told_to_continue() {
    let setup = Setup::new();
    let server = setup.start();
    let expect = "expect: 100-continue\r\ncontent-length: 1000\r\n\r\n";
    for (lines, status) in [
        (format!("POST {PATH} HTTP/1.1\r\nhost: a\r\n{expect}"), 401),
        (format!("POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer no\r\n{expect}"), 401),
        (format!("POST /elsewhere HTTP/1.1\r\nhost: a\r\n{expect}"), 404),
        (format!("GET {PATH} HTTP/1.1\r\nhost: a\r\n{expect}"), 405),
    ] {
        let since = Instant::now();
        // The first thing heard is the answer itself, and nobody waits for a body.
        assert_eq!(server.ask(&lines).status, status, "{lines}");
        assert!(since.elapsed() < Duration::from_secs(3), "{lines}: {:?}", since.elapsed());
    }
}

#[test]
fn an_authentic_caller_is_told_to_continue() {
    let setup = Setup::new();
    let server = setup.start();
    let body = receipt("a");
    let mut client = server.connect();
    client.send(format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\n\
         expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    ));
    assert_eq!(client.answer().status, 100);
    assert_eq!(client.ask(&body).status, 204);
    assert_eq!(setup.callbacks(), 1);
}

#[test]
fn a_body_in_pieces_is_kept_whole() {
    let setup = Setup::new();
    let server = setup.start();
    let body = receipt("a");
    let whole = post(PATH, TOKEN, &body);
    for cut in [1, 20, whole.len() - body.len(), whole.len() - 7] {
        let mut client = server.connect();
        client.send(&whole[..cut]);
        // The other side has read the first piece before the second is sent, or has not: both
        // must do. A whole exchange on another connection makes the first likely.
        assert_eq!(server.admin("/livez").status, 200);
        client.send(&whole[cut..]);
        assert_eq!(client.answer().status, 204, "{cut}");
    }
    let bodies = "SELECT DISTINCT CAST(body AS TEXT) FROM callback";
    assert_eq!(rows(&open(&setup.journal()), bodies), [body]);
}

#[test]
fn a_chunked_body_is_kept_as_the_bytes_it_carries() {
    let setup = Setup::new();
    let server = setup.start();
    let body = receipt("a");
    let mut request = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\n\
         transfer-encoding: Chunked\r\n\r\n"
    );
    for piece in body.as_bytes().chunks(7) {
        let piece = str::from_utf8(piece).unwrap();
        request.push_str(&format!("{:x};an=extension\r\n{piece}\r\n", piece.len()));
    }
    request.push_str("0\r\na-trailer: yes\r\n\r\n");
    assert_eq!(server.ask(request).status, 204);
    let kept = rows(&open(&setup.journal()), "SELECT CAST(body AS TEXT) FROM callback");
    assert_eq!(kept, [body]);
}

#[test]
fn a_body_cut_short_is_not_kept() {
    let setup = Setup::new();
    let server = setup.start();
    let whole = post(PATH, TOKEN, receipt("a"));
    let mut client = server.connect();
    client.send(&whole[..whole.len() - 1]);
    drop(client);
    let mut client = server.connect();
    client.send(format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\n\
         transfer-encoding: chunked\r\n\r\nZZ\r\n"
    ));
    assert_eq!(client.answer().status, 400);
    eventually("both are gone", || metric(&server.metrics(), "receiptd_connections") <= Some(1.0));
    assert_eq!(setup.callbacks(), 0);
}

#[test]
fn a_caller_that_hangs_up_right_after_sending_is_kept_all_the_same() {
    let setup = Setup::new();
    let server = setup.start();
    for index in 0..20 {
        server.connect().send(post(PATH, TOKEN, receipt(&index.to_string())));
    }
    eventually("all of them are kept", || setup.callbacks() == 20);
}

#[test]
fn a_caller_that_says_it_will_send_no_more_is_answered_all_the_same() {
    let setup = Setup::new();
    let server = setup.start();
    for index in 0..20 {
        let mut caller = TcpStream::connect(server.callbacks).unwrap();
        caller.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        caller.write_all(post(PATH, TOKEN, receipt(&index.to_string())).as_ref()).unwrap();
        caller.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        caller.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 204 "), "{index}: {answer:?}");
    }
    assert_eq!(setup.callbacks(), 20);
}

#[test]
fn a_silent_stranger_is_shown_the_door_and_a_known_sender_is_not() {
    let setup = Setup::new().limits("header_ms_max = 300\nidle_ms_max = 60000");
    let server = setup.start();
    let mut known = server.connect();
    assert_eq!(known.ask(post(PATH, TOKEN, receipt("a"))).status, 204);
    let mut stranger = server.connect();
    assert_eq!(stranger.ask(post(PATH, "wrong-token", receipt("a"))).status, 401);
    let mut silent = server.connect();
    assert!(silent.ends_within(Duration::from_secs(5)));
    assert!(stranger.ends_within(Duration::from_secs(5)));
    // Both limits of the strangers have passed; the sender's connection still works.
    assert_eq!(known.ask(post(PATH, TOKEN, receipt("b"))).status, 204);
}

/// The real sender, while every place is taken by others.
fn assert_served_soon(server: &Receiptd, setup: &Setup, others: &str) {
    for index in 0..5 {
        let since = Instant::now();
        let id = format!("real-{index}");
        assert_eq!(server.post(receipt(&id)), 204, "{others}");
        // Others wait for places too, and before us; the platforms give up after five seconds.
        assert!(since.elapsed() < Duration::from_secs(3), "{others}: {:?}", since.elapsed());
    }
    assert_eq!(setup.callbacks(), 5, "{others}");
}

#[test]
fn idle_strangers_make_room_for_the_real_sender() {
    let setup = Setup::new().limits("connections_max = 8");
    let server = setup.start();
    let flood: Vec<_> = (0..40).map(|_| server.connect()).collect();
    assert_served_soon(&server, &setup, "silent connections");
    drop(flood);
}

#[test]
fn strangers_that_dribble_their_heads_make_room_for_the_real_sender() {
    let setup = Setup::new().limits("connections_max = 8");
    let server = setup.start();
    let mut flood: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for client in &mut flood {
        let _ = client.try_send("POST /callbacks/passport HTTP/1.1\r\nx: ");
    }
    assert_served_soon(&server, &setup, "half heads");
}

#[test]
fn strangers_that_owe_their_bodies_make_room_for_the_real_sender() {
    let setup = Setup::new().limits("connections_max = 8");
    let server = setup.start();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer wrong\r\ncontent-length: 60000\r\n\r\n"
    );
    let mut flood: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for client in &mut flood {
        let _ = client.try_send(&head);
    }
    assert_served_soon(&server, &setup, "refused callers with slow bodies");
}

#[test]
fn strangers_that_do_not_read_make_room_for_the_real_sender() {
    let setup = Setup::new().limits("connections_max = 4\nbody_ms_max = 500\nheader_ms_max = 500");
    let server = setup.start();
    let request = post("/elsewhere", "wrong", "{}");
    let mut flood: Vec<Client> = (0..12).map(|_| server.connect()).collect();
    for client in &mut flood {
        for _ in 0..50 {
            let _ = client.try_send(&request);
        }
    }
    let is_served = || server.post(receipt("a")) == 204;
    assert!(holds_within(Duration::from_secs(5), is_served));
}

#[test]
fn a_sender_between_two_callbacks_makes_room_where_there_is_no_stranger() {
    let setup = Setup::new().limits("connections_max = 4");
    let server = setup.start();
    let mut pool: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for client in &mut pool {
        assert_eq!(client.ask(post(PATH, TOKEN, receipt("pool"))).status, 204);
    }
    // Whatever way its last answer took, the first has been silent since before these.
    for client in &mut pool[1..] {
        assert_eq!(client.ask(post(PATH, TOKEN, receipt("pool"))).status, 204);
    }
    let since = Instant::now();
    assert_eq!(server.post(receipt("another")), 204);
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    // The one that was silent for the longest had to go, without being told anything.
    assert!(pool[0].ends_within(Duration::from_secs(5)));
    assert_eq!(pool[3].ask(post(PATH, TOKEN, receipt("pool"))).status, 204);
}

#[test]
fn whoever_has_to_make_room_is_never_told_anything_final() {
    let setup = Setup::new().limits("connections_max = 1");
    let server = setup.start();
    let mut slow = server.connect();
    slow.send("POST /callbacks/passport HTTP/1.1\r\nhost: a\r\n");
    assert_eq!(server.post(receipt("a")), 204);
    let answer = slow.answer();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
}

#[test]
fn a_crowd_of_senders_is_served_whole() {
    let setup = Setup::new().limits("connections_max = 16");
    let server = setup.start();
    std::thread::scope(|scope| {
        for sender in 0..32 {
            let server = &server;
            scope.spawn(move || {
                for index in 0..5 {
                    let id = format!("{sender}-{index}");
                    assert_eq!(server.post(receipt(&id)), 204, "{id}");
                }
            });
        }
    });
    server.settled();
    assert_eq!(support::count(&setup.state(), "notification"), 160);
}

#[test]
fn heads_that_never_become_a_request_are_counted() {
    let setup = Setup::new().limits("header_ms_max = 300");
    let server = setup.start();
    let counted = |code: u16| {
        let series = format!("receiptd_callbacks_total{{source=\"\",code=\"{code}\"}}");
        metric(&server.metrics(), &series)
    };
    for code in [400, 404, 408, 431, 503] {
        assert_eq!(counted(code), Some(0.0), "{code}");
    }
    let mut garbage = server.connect();
    garbage.send("GARBAGE\r\n\r\n");
    assert_eq!(garbage.answer().status, 400);
    let mut large = server.connect();
    large.send(format!("POST {PATH} HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(60_000)));
    assert_eq!(large.answer().status, 431);
    let mut slow = server.connect();
    slow.send(format!("POST {PATH} HTTP/1.1\r\nhost: a\r\n"));
    assert_eq!(slow.answer().status, 408);
    for code in [400, 408, 431] {
        eventually("it is counted", || counted(code) == Some(1.0));
    }
    assert_eq!((counted(404), counted(503)), (Some(0.0), Some(0.0)));
}
