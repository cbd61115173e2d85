//! What a platform tells and cannot be understood: it is named, holds up nobody, and is asked for again.

use serde_json::{Value, json};

use crate::parts::called_back;
use crate::platform::{Kind, Platform, Row, Text, Trouble, ago, id};
use crate::support::{Receiptd, SOURCE, Setup, TOKEN, eventually, metric, source};
use crate::{call_back, counted, entries, last_success, round, setup, statuses, upstream};

/// Twenty notifications, on pages of five.
fn platform(kind: Kind) -> Platform {
    let platform = Platform::start(kind);
    platform.state().page_size = 5;
    platform.add((0..20).map(|n| Row::new(n, "delivered", 1_000 + 60 * n as i64)));
    platform
}

/// In place of the row of that number, this.
fn spoil(platform: &Platform, number: usize, row: Value) {
    platform.state().broken.insert(id(number), row);
}

/// A notification whose version cannot be read.
fn unreadable(platform: &Platform, number: usize) -> Value {
    let state = platform.state();
    let row = state.rows.iter().find(|row| row.id == id(number)).unwrap();
    json!({"id": row.id, "status": "delivered", "created_at": row.created_at, "completed_at": "soon"})
}

fn behind(server: &Receiptd) -> f64 {
    let series = format!("receiptd_reconcile_behind_seconds{{source=\"{SOURCE}\"}}");
    metric(&server.metrics(), &series).unwrap()
}

#[test]
fn one_that_cannot_be_understood_is_named_and_in_nobodys_way_and_the_point_does_not_pass_it() {
    for kind in [Kind::Govuk, Kind::Us] {
        let platform = platform(kind);
        spoil(&platform, 7, unreadable(&platform, 7));
        let setup = setup(&platform, kind);
        let server = setup.start();
        eventually("the rest is kept", || statuses(&setup).len() == 19);
        eventually("the point moves up to it", || behind(&server) < 1_500.0);
        platform.add([Row::new(30, "delivered", 1)]);
        eventually("the newest too", || statuses(&setup).len() == 20);
        assert!(behind(&server) >= 1_420.0, "{}", behind(&server));
        assert_eq!(last_success(&server), 0.0);
        let label = r#"reason="completed_at""#;
        eventually("each round counts it", || counted(&server, "unreadable", label) >= 2.0);
        let told = format!("{}, created", id(7));
        assert_eq!(server.stderr().matches(&told).count(), 1, "{}", server.stderr());
        assert!(server.stderr().contains("completed_at is not a timestamp"));
        // Mended, it comes without anybody's help.
        platform.state().broken.clear();
        round(&server);
        assert_eq!(statuses(&setup).len(), 21);
        assert!(behind(&server) < 60.0, "{}", behind(&server));
    }
}

#[test]
fn a_page_of_nothing_that_can_be_understood_is_followed_by_its_ids() {
    let platform = platform(Kind::Govuk);
    for number in 5..12 {
        spoil(&platform, number, unreadable(&platform, number));
    }
    let setup = setup(&platform, Kind::Govuk);
    let server = setup.start();
    eventually("what is behind it is kept", || statuses(&setup).len() == 13);
    assert_eq!(last_success(&server), 0.0);
}

#[test]
fn what_stood_before_the_place_where_a_list_broke_off_is_not_forgotten() {
    let platform = platform(Kind::Govuk);
    // It stands on the second page, and the third cannot be shown the first time.
    spoil(&platform, 6, unreadable(&platform, 6));
    let third = format!("/v2/notifications?include_jobs=true&older_than={}", id(7));
    platform.trouble(Box::leak(third.into_boxed_str()), Trouble::status(400, ""), 1);
    let setup = setup(&platform, Kind::Govuk);
    let server = setup.start();
    eventually("it is read to its end", || statuses(&setup).len() == 19);
    eventually("the point moves up to it", || behind(&server) < 1_450.0);
    assert!(behind(&server) >= 1_360.0, "{}", behind(&server));
    assert_eq!(last_success(&server), 0.0);
    platform.state().broken.clear();
    round(&server);
    assert_eq!(statuses(&setup).len(), 20);
}

#[test]
fn a_round_by_hand_that_could_not_understand_all_names_what_and_does_not_exit_well() {
    let platform = platform(Kind::Govuk);
    platform.state().texts.push(Text { id: id(40), created_at: ago(30) });
    spoil(&platform, 3, unreadable(&platform, 3));
    spoil(&platform, 2, json!({"canary": "canary-said"}));
    spoil(&platform, 40, json!({"id": id(40), "created_at": ago(30)}));
    let setup = Setup::with_sources(&source(SOURCE, "govuk-notify", &[("live", TOKEN)]));
    let section = upstream(&setup, &platform, "every = \"1h\"");
    let server = setup.start();
    let sent = Row { is_listed: false, ..Row::new(50, "sending", 3_000) };
    call_back(&server, &sent.callback());
    // By its id, something else is shown.
    let other = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_owned();
    platform.trouble("/v2/notifications/", Trouble::Bytes(other), 1);
    let ended = setup.command(&section, &["reconcile"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let of = |number| ended.stdout.lines().find(|line| line.contains(&id(number)));
    for (number, why) in
        [(3, "completed_at is not a timestamp"), (40, "no known kind"), (50, "no known kind")]
    {
        assert!(of(number).is_some_and(|line| line.contains(why)), "{}", ended.stdout);
    }
    // It has no time of its own, and gets none from its neighbour.
    let place = "element 3 of a page of notifications: the keys";
    assert!(ended.stdout.contains(place), "{}", ended.stdout);
    let said = "4 could not be understood and are asked for again:\n";
    assert!(ended.stdout.contains(said), "{}", ended.stdout);
    assert!(ended.stdout.contains("healed 18 notifications never heard of\n"), "{}", ended.stdout);
    assert!(!format!("{ended:?}{}", server.stderr()).contains("canary"), "{ended:?}");
    assert_eq!(entries(&setup, 1), 18);
    platform.state().broken.clear();
    platform.add([Row { status: "delivered", ..sent }]);
    let ended = setup.command(&section, &["reconcile"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(statuses(&setup).len(), 21);
}

#[test]
fn one_without_a_date_leaves_the_point_where_it_is() {
    let platform = Platform::start(Kind::Govuk);
    platform.add((0..5).map(|n| Row::new(n, "delivered", 10 + n as i64)));
    // The oldest: nothing behind it says when it was created.
    spoil(&platform, 4, json!({"id": id(4)}));
    let setup = called_back(&platform, &[]);
    let server = setup.start();
    eventually("several rounds", || platform.asked("/v2/received") >= 5);
    assert!(behind(&server) < 300.0, "{}", behind(&server));
    assert_eq!((statuses(&setup).len(), last_success(&server)), (4, 0.0));
}

#[test]
fn two_at_one_place_of_two_pages_count_as_two_though_neither_says_which_it_is() {
    let platform = platform(Kind::Govuk);
    // Each is the third of its page; pages overlap by one.
    for number in [2, 6] {
        spoil(&platform, number, json!({}));
    }
    let setup = Setup::with_sources(&source(SOURCE, "govuk-notify", &[("live", TOKEN)]));
    setup.start().stop();
    let section = upstream(&setup, &platform, "every = \"1h\"");
    let ended = setup.command(&section, &["reconcile"]);
    let said = "2 could not be understood and are asked for again:\n";
    assert!(ended.stdout.contains(said), "{}", ended.stdout);
}

#[test]
fn many_that_cannot_be_understood_count_once_each_though_pages_overlap() {
    let platform = Platform::start(Kind::Govuk);
    platform.state().page_size = 5;
    // More than are named; each page begins with what the one before ended with.
    platform.add((0..150).map(|n| Row::new(n, "delivered", 1_000 + n as i64)));
    for number in 0..150 {
        spoil(&platform, number, unreadable(&platform, number));
    }
    let setup = Setup::with_sources(&source(SOURCE, "govuk-notify", &[("live", TOKEN)]));
    setup.start().stop();
    let section = upstream(&setup, &platform, "every = \"1h\"");
    let ended = setup.command(&section, &["reconcile"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let said = "150 could not be understood and are asked for again:\n";
    assert!(ended.stdout.contains(said), "{}", ended.stdout);
}
