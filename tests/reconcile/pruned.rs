//! What was pruned does not come back, though the platform still shows it and is asked.

use crate::expected::{said, say};
use crate::platform::{Kind, Platform, Row, Text, ago, id};
use crate::support::{SOURCE, Setup, TOKEN, eventually, source};
use crate::{call_back, entries, round, setup, statuses, upstream};

/// Everything that arrived so long ago, or earlier.
fn prune(setup: &Setup, flags: &[&str]) {
    let ended = setup.command("", &[&["prune", "--older-than"], flags].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// Ten pages of notifications and of texts.
fn platform() -> Platform {
    let platform = Platform::start(Kind::Govuk);
    platform.state().page_size = 3;
    platform.add((0..30).map(|n| Row::new(n, "delivered", 60 + 60 * n as i64)));
    let texts = (0..30).map(|n| Text { id: id(100 + n), created_at: ago(60 + 60 * n as i64) });
    platform.state().texts.extend(texts);
    platform
}

#[test]
fn what_was_pruned_is_neither_asked_for_nor_appended_again() {
    let platform = platform();
    let setup = setup(&platform, Kind::Govuk);
    let server = setup.start();
    round(&server);
    assert_eq!((statuses(&setup).len(), entries(&setup, 1)), (30, 60));
    prune(&setup, &["0s"]);
    round(&server);
    assert_eq!((statuses(&setup).len(), entries(&setup, 1)), (0, 0));
    platform.add([Row::new(50, "delivered", 0)]);
    eventually("what is newer comes", || statuses(&setup).len() == 1);
    server.stop();
    // Nobody knows any more how far it was asked: everything would be asked for.
    open_to_write(&setup).execute("DELETE FROM upstream", []).unwrap();
    platform.state().asked.clear();
    let server = setup.start();
    round(&server);
    assert_eq!(statuses(&setup), [format!("{}|delivered", id(50))]);
    assert_eq!(entries(&setup, 1), 1);
    let pages = platform.asked("/v2/notifications?include_jobs=true&older");
    assert_eq!(pages, 0, "what is older is not asked for either");
    server.stop();
    prune(&setup, &["0s"]);
    let server = setup.start();
    round(&server);
    assert_eq!(entries(&setup, 1), 0, "nor is what was pruned while no receiver ran");
}

fn open_to_write(setup: &Setup) -> rusqlite::Connection {
    rusqlite::Connection::open(setup.journal()).unwrap()
}

#[test]
fn a_round_by_hand_asks_for_nothing_that_was_pruned_and_says_so() {
    let platform = platform();
    let setup = Setup::with_sources(&source(SOURCE, "govuk-notify", &[("live", TOKEN)]));
    let section = upstream(&setup, &platform, "");
    let server = setup.start();
    let ended = setup.command(&section, &["reconcile"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(entries(&setup, 1), 60);
    prune(&setup, &["0s"]);
    for since in ["1d", "30d"] {
        let ended = setup.command(&section, &["reconcile", "--since", since]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains("nothing was missing\n"), "{}", ended.stdout);
        assert!(ended.stdout.contains("was pruned and is not asked for\n"), "{}", ended.stdout);
    }
    assert_eq!(entries(&setup, 1), 0);
    server.stop();
}

#[test]
fn what_is_still_known_or_expected_is_healed_by_its_id_however_old_it_is() {
    let platform = Platform::start(Kind::Govuk);
    let setup = setup(&platform, Kind::Govuk);
    let server = setup.start();
    call_back(&server, &Row::new(0, "delivered", 10).callback());
    server.stop();
    prune(&setup, &["30m"]);
    // Sent an hour ago, and heard of just now.
    let known = Row { is_listed: false, ..Row::new(1, "sending", 3_600) };
    let expected = Row { is_listed: false, ..Row::new(2, "delivered", 3_600) };
    platform.add([known.clone(), expected]);
    say(&setup, ago(90), &said(2, ago(60)));
    let server = setup.start();
    call_back(&server, &known.callback());
    platform.set(1, "delivered");
    let healed = [0, 1, 2].map(|number| format!("{}|delivered", id(number)));
    eventually("both are healed", || {
        server.settled();
        statuses(&setup) == healed
    });
}

#[test]
fn where_only_bodies_were_pruned_what_never_came_is_still_fetched() {
    let platform = Platform::start(Kind::Gc);
    let setup = Setup::new();
    let section = upstream(&setup, &platform, "");
    let server = setup.start();
    let known = Row::new(1, "delivered", 3_600);
    call_back(&server, &known.callback());
    prune(&setup, &["0s", "--bodies-only"]);
    platform.add([known, Row::new(2, "delivered", 3_600)]);
    let ended = setup.command(&section, &["reconcile"]);
    assert!(ended.stdout.contains("healed 1 notification never heard of\n"), "{}", ended.stdout);
    server.stop();
}
