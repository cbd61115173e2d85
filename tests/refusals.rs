//! Whoever runs a receiver sees what it refuses, without a flood and without a word of the caller's.

mod support;

use rustix::process::Signal;
use support::{PATH, Setup, post, receipt};

#[test]
fn what_was_refused_is_counted_in_the_log_by_source_and_reason() {
    let setup = Setup::new();
    let mut server = setup.start();
    for _ in 0..3 {
        assert_eq!(server.ask(post(PATH, "a-wrong-canary", receipt("a"))).status, 401);
    }
    assert_eq!(server.ask(post("/callbacks/canary", "x", receipt("a"))).status, 404);
    server.signal(Signal::TERM);
    assert_eq!(server.wait(support::PATIENCE), Some(0));
    let log = server.stderr();
    let line = |part: &str| log.lines().find(|line| line.contains(part)).unwrap_or_default();
    let wrong = line("wrong");
    assert!(wrong.contains("passport") && wrong.contains("count=3"), "{log}");
    assert!(line("no source has this path").contains("count=1"), "{log}");
    assert!(!log.contains("canary"), "{log}");
}
