//! Lists that are not what they should be: none is taken for read that was not.

use crate::parts::{called_back, delivered};
use crate::platform::{Kind, Lists, Platform, Row, Text, Trouble, ago, id};
use crate::support::{eventually, metric};
use crate::{counted, entries, last_success, round, setup, setup_with, statuses};

const KINDS: [Kind; 2] = [Kind::Govuk, Kind::Us];

/// Twenty notifications, on pages of five.
fn platform(kind: Kind, lists: Lists) -> Platform {
    let platform = Platform::start(kind);
    platform.add((0..20).map(|n| Row::new(n, "delivered", 1_000 + 60 * n as i64)));
    let mut state = platform.state();
    (state.page_size, state.lists) = (5, lists);
    drop(state);
    platform
}

#[test]
fn a_list_whose_pages_are_short_is_read_to_its_end() {
    for kind in KINDS {
        let platform = platform(kind, Lists::Short);
        platform.state().texts.extend((0..9).map(|n| Text { id: id(50 + n), created_at: ago(99) }));
        let setup = setup(&platform, kind);
        let server = setup.start();
        round(&server);
        assert_eq!(statuses(&setup).len(), 20, "{kind:?}");
        assert!(entries(&setup, 1) >= 20);
    }
}

#[test]
fn a_platform_that_shows_the_same_page_for_ever_is_told_of_and_its_list_is_not_taken_for_read() {
    for kind in KINDS {
        let platform = platform(kind, Lists::Stuck);
        let setup = setup(&platform, kind);
        let server = setup.start();
        eventually("several rounds", || platform.asked("/") >= 9);
        assert_eq!(statuses(&setup).len(), 5, "what it shows is kept");
        let said = "a page is shown again in place of the next";
        eventually("it is told of", || server.stderr().contains(said));
        assert_eq!(server.stderr().matches(said).count(), 1, "{}", server.stderr());
        assert_eq!(last_success(&server), 0.0, "{kind:?}");
        let behind = "receiptd_reconcile_behind_seconds{source=\"passport\"}";
        assert!(metric(&server.metrics(), behind).unwrap() > 6.0 * 86_400.0);
        // Mended, it is read to its end.
        platform.state().lists = Lists::Honest;
        round(&server);
        assert_eq!(statuses(&setup).len(), 20);
    }
}

#[test]
fn a_path_before_what_is_asked_for_is_honoured() {
    for kind in [Kind::Govuk, Kind::Us] {
        let platform = platform(kind, Lists::Honest);
        platform.state().prefix = "/gateway/notify";
        let mut setup = setup_with(&platform, kind, "");
        let host = format!("http://{}", platform.address);
        setup.sources = setup.sources.replace(&host, &format!("{host}/gateway/notify/"));
        let server = setup.start();
        round(&server);
        assert_eq!(statuses(&setup).len(), 20, "{kind:?}");
        assert_eq!(counted(&server, "requests", r#"outcome="wrong""#), 0.0);
        assert!(platform.state().asked.iter().all(|asked| !asked.path.contains("//")));
    }
}

#[test]
fn a_sweep_that_falls_due_while_a_list_is_broken_off_reads_all_the_way_down() {
    let platform = Platform::start(Kind::Govuk);
    platform.state().page_size = 5;
    // Ten that are asked for in any round, ten behind them, and one that only a sweep reaches.
    platform.add((0..10).map(|n| Row::new(n, "delivered", 60 + 10 * n as i64)));
    platform.add((10..20).map(|n| Row::new(n, "delivered", 3_000 + 10 * n as i64)));
    platform.add([Row::new(50, "delivered", 7_200)]);
    let mut setup = called_back(&platform, &[]);
    setup.sources = setup.sources.replace("every = \"1s\"", "every = \"4s\"");
    let older = "/v2/notifications?include_jobs=true&older";
    platform.trouble(older, Trouble::status(400, ""), 1);
    let server = setup.start();
    let told = "could not ask for everything";
    eventually("a list breaks off", || server.stderr().contains(told));
    let journal = rusqlite::Connection::open(setup.journal()).unwrap();
    journal.execute("UPDATE upstream SET swept_at = ?1", [ago(90_000).to_string()]).unwrap();
    eventually("the oldest is kept", || statuses(&setup).contains(&delivered(50)));
}
