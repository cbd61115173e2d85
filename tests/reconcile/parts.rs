//! Each part of a round has its turn, whatever became of the one before; and a platform that wants to be
//! left alone is.

use crate::expected::{said, say};
use crate::platform::{Kind, Platform, Row, Text, Trouble, ago, id};
use crate::support::{SOURCE, Setup, TOKEN, eventually, open, rows, source};
use crate::{call_back, entries, last_success, round, setup, statuses, upstream};

/// One that no page shows, was sent so long ago, and has been delivered since.
fn sent(number: usize, seconds_ago: i64) -> Row {
    Row { is_listed: false, ..Row::new(number, "sending", seconds_ago) }
}

/// A configuration with that upstream, whose receiver was called back about these before it had one.
pub fn called_back(platform: &Platform, all: &[Row]) -> Setup {
    let mut setup = Setup::with_sources(&source(SOURCE, "govuk-notify", &[("live", TOKEN)]));
    let server = setup.start();
    for row in all {
        call_back(&server, &row.callback());
        platform.add([Row { status: "delivered", ..row.clone() }]);
    }
    server.stop();
    // The platform was asked for everything: pages are read down to ten minutes ago.
    let journal = rusqlite::Connection::open(setup.journal()).unwrap();
    let sql = "INSERT INTO upstream VALUES (?1, ?2, ?2)";
    journal.execute(sql, (SOURCE, ago(0).to_string())).unwrap();
    let section = upstream(&setup, platform, "");
    setup.sources.push_str(&section);
    setup
}

fn by_id(number: usize) -> &'static str {
    Box::leak(format!("/v2/notifications/{}", id(number)).into_boxed_str())
}

pub fn delivered(number: usize) -> String {
    format!("{}|delivered", id(number))
}

#[test]
fn a_platform_that_wants_to_be_left_alone_for_long_is_whatever_was_asked_and_by_whoever() {
    for code in [429, 503] {
        let platform = Platform::start(Kind::Govuk);
        let setup = called_back(&platform, &[sent(1, 3_000)]);
        let alone = Trouble::status(code, "retry-after: 3000\r\n");
        platform.trouble("/v2/notifications/", alone, usize::MAX);
        let server = setup.start();
        let sql = "SELECT count(*) FROM upstream_round WHERE rests_until IS NOT NULL";
        eventually("it is noted", || rows(&open(&setup.journal()), sql) == ["1"]);
        assert_eq!(platform.asked("/"), 1, "no other try, and no list");
        // Nor by the next process, nor by hand.
        server.stop();
        let server = setup.start();
        let section = upstream(&setup, &platform, "");
        let own = setup.sources.replace(&section, "");
        let by_hand = Setup { sources: own, ..setup };
        let ended = by_hand.command(&section, &["reconcile"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stdout.contains("asked 0 times"), "{}", ended.stdout);
        assert!(ended.stdout.contains("it asked to be left alone for 2"), "{}", ended.stdout);
        assert!(!ended.stdout.contains("was missing"), "{}", ended.stdout);
        server.stop();
        assert_eq!(platform.asked("/"), 1);
    }
}

#[test]
fn many_that_cannot_be_read_by_their_ids_keep_nobody_from_the_pages() {
    let platform = Platform::start(Kind::Govuk);
    let all: Vec<Row> = (0..8).map(|number| sent(number, 3_000)).collect();
    let setup = called_back(&platform, &all);
    let other = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_owned();
    platform.trouble("/v2/notifications/", Trouble::Bytes(other), usize::MAX);
    platform.add([Row::new(20, "delivered", 1)]);
    let server = setup.start();
    eventually("the newest is kept", || statuses(&setup).contains(&delivered(20)));
    assert_eq!(last_success(&server), 0.0);
}

#[test]
fn one_overdue_that_the_platform_fails_for_starves_none_of_those_that_no_page_shows() {
    let platform = Platform::start(Kind::Govuk);
    let setup = called_back(&platform, &[sent(2, 3_000), sent(3, 30)]);
    say(&setup, ago(90), &said(1, ago(60)));
    platform.trouble(by_id(1), Trouble::status(500, ""), usize::MAX);
    let server = setup.start();
    eventually("both are healed", || {
        server.settled();
        [2, 3].iter().all(|number| statuses(&setup).contains(&delivered(*number)))
    });
    assert!(platform.asked(by_id(1)) > 0);
}

#[test]
fn one_that_no_page_shows_and_the_platform_fails_for_starves_none_of_the_others() {
    let platform = Platform::start(Kind::Govuk);
    let setup = called_back(&platform, &[sent(1, 40), sent(2, 30)]);
    platform.trouble(by_id(1), Trouble::status(500, ""), usize::MAX);
    let server = setup.start();
    eventually("the other is healed", || {
        server.settled();
        statuses(&setup).contains(&delivered(2))
    });
    assert!(platform.asked(by_id(1)) > 0);
}

#[test]
fn many_with_ids_that_no_platform_has_hide_none_that_is_asked_for_by_its_id() {
    let platform = Platform::start(Kind::Govuk);
    // More than are looked up at once, heard of before the one.
    let test = |number| Row { id: format!("test-{number}"), ..sent(number, 3_000) };
    let all: Vec<Row> = (0..300).map(test).chain([sent(1, 3_000)]).collect();
    let setup = called_back(&platform, &all);
    let server = setup.start();
    eventually("it is healed", || {
        server.settled();
        statuses(&setup).contains(&delivered(1))
    });
}

#[test]
fn where_the_last_round_ended_may_have_come_to_its_end_since() {
    let platform = Platform::start(Kind::Govuk);
    // More than are looked up at once, all of them on the pages; and one that is on none.
    let on_pages = (10..310).map(|number| Row::new(number, "sending", 30));
    let setup = called_back(&platform, &[vec![sent(1, 3_000)], on_pages.collect()].concat());
    for number in 10..310 {
        platform.set(number, "sending");
    }
    platform.trouble(by_id(1), Trouble::status(500, ""), usize::MAX);
    let server = setup.start();
    eventually("a round is over", || server.stderr().contains("could not ask for everything"));
    call_back(&server, &Row { status: "delivered", ..sent(1, 3_000) }.callback());
    platform.trouble(by_id(1), Trouble::status(500, ""), 0);
    round(&server);
    round(&server);
}

#[test]
fn a_list_that_cannot_be_shown_keeps_nobody_from_the_other() {
    let platform = Platform::start(Kind::Govuk);
    platform.state().texts.extend((0..3).map(|n| Text { id: id(n), created_at: ago(60) }));
    platform.add([Row::new(20, "delivered", 60)]);
    platform.trouble("/v2/notifications?", Trouble::status(400, ""), usize::MAX);
    let setup = setup(&platform, Kind::Govuk);
    let server = setup.start();
    eventually("the texts are kept", || entries(&setup, 1) == 3);
    assert_eq!((statuses(&setup).len(), last_success(&server)), (0, 0.0));
    platform.trouble("/v2/received", Trouble::status(500, ""), usize::MAX);
    eventually("the notification is kept", || statuses(&setup) == [delivered(20)]);
}

#[test]
fn text_messages_that_are_never_shown_keep_no_notification_from_being_asked_for() {
    for code in [400, 403, 404] {
        let platform = Platform::start(Kind::Govuk);
        let setup = called_back(&platform, &[sent(1, 30)]);
        platform.state().texts.push(Text { id: id(9), created_at: ago(3_000) });
        platform.trouble("/v2/received", Trouble::status(code, ""), usize::MAX);
        let point = || rows(&open(&setup.journal()), "SELECT point FROM upstream");
        let first = point();
        let server = setup.start();
        eventually("the point moves", || point() != first);
        eventually("what no page shows is asked for", || {
            server.settled();
            statuses(&setup) == [delivered(1)]
        });
        assert_eq!((entries(&setup, 1), last_success(&server)), (1, 0.0), "{code}");
        // What was not asked for is, as soon as it is shown.
        platform.trouble("/", Trouble::Cut, 0);
        eventually("the text is kept", || entries(&setup, 1) == 2);
        round(&server);
    }
}

#[test]
fn a_platform_that_answers_nothing_is_asked_for_one_of_each_and_no_more() {
    let platform = Platform::start(Kind::Govuk);
    let setup = called_back(&platform, &[sent(1, 3_000), sent(2, 3_000)]);
    platform.trouble("/", Trouble::Cut, usize::MAX);
    let server = setup.start();
    let told = "could not ask for everything";
    eventually("a round is over", || server.stderr().contains(told));
    let state = platform.state();
    let first = &state.asked[..state.asked.len().min(10)];
    let kinds: Vec<bool> = first.iter().map(|asked| asked.path.contains('?')).collect();
    assert_eq!(kinds, [[false; 5], [true; 5]].concat(), "{first:?}");
    assert!(!state.asked.iter().any(|asked| asked.path.starts_with("/v2/received")));
}

#[test]
fn what_stands_behind_a_page_that_is_never_shown_is_asked_for_by_its_id() {
    let platform = Platform::start(Kind::Govuk);
    let setup = called_back(&platform, &[sent(1, 30), sent(2, 60)]);
    platform.state().page_size = 1;
    platform.add([Row::new(20, "delivered", 1), Row::new(21, "delivered", 2)]);
    let second = "/v2/notifications?include_jobs=true&older_than";
    platform.trouble(second, Trouble::status(400, ""), usize::MAX);
    let server = setup.start();
    eventually("both are healed", || {
        server.settled();
        [1, 2].iter().all(|number| statuses(&setup).contains(&delivered(*number)))
    });
    assert!(!statuses(&setup).contains(&delivered(21)), "that page is not shown");
    assert_eq!(last_success(&server), 0.0);
}

#[test]
fn many_that_are_overdue_and_never_end_leave_requests_for_the_others() {
    let platform = Platform::start(Kind::Govuk);
    let setup = called_back(&platform, &[sent(70, 3_000)]);
    for number in 1..=60 {
        say(&setup, ago(90), &said(number, ago(60)));
        platform.add([sent(number, 80)]);
    }
    // A round has fifty of its own.
    let server = setup.start();
    eventually("the other is healed", || {
        server.settled();
        statuses(&setup).contains(&delivered(70))
    });
    assert!(platform.asked("/v2/notifications/") > 25);
}
