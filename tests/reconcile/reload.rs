//! SIGHUP: what is not different goes on, and what was sent still counts.

use std::fs;

use rustix::process::Signal;

use crate::platform::{Kind, Platform, Row, Trouble};
use crate::support::{Receiptd, SOURCE, Setup, eventually, metric, open, rows, source};
use crate::{round, setup, setup_with, upstream};

/// A platform with more pages than may be asked for in a minute, and a receiver that has asked for those.
fn spent() -> (Platform, Setup, Receiptd) {
    let platform = Platform::start(Kind::Govuk);
    platform.state().page_size = 2;
    platform.add((0..100).map(|n| Row::new(n, "delivered", 100 + n as i64)));
    let setup = setup_with(&platform, Kind::Govuk, "requests_per_minute_max = 5");
    let server = setup.start();
    eventually("the budget is spent", || platform.asked("/") == 5);
    (platform, setup, server)
}

fn reload(setup: &Setup, server: &Receiptd) {
    setup.write();
    server.signal(Signal::HUP);
}

/// A second source with an upstream there.
fn other(setup: &Setup, platform: &Platform) -> String {
    let source = source("other", "gc-notify", &[("live", "another-bearer-0123456789")]);
    format!("{source}{}", upstream(setup, platform, ""))
}

#[test]
fn a_source_about_which_nothing_is_different_goes_on_as_if_nothing_had_been() {
    let (platform, mut setup, server) = spent();
    let sql = format!("SELECT began_at FROM upstream_round WHERE source = '{SOURCE}'");
    let first = rows(&open(&setup.journal()), &sql);
    let second = Platform::start(Kind::Gc);
    let section = other(&setup, &second);
    setup.sources.push_str(&section);
    reload(&setup, &server);
    eventually("the new one is asked", || second.asked("/v2/received") > 1);
    let now = rows(&open(&setup.journal()), &sql);
    assert_eq!((now, platform.asked("/")), (first, 5), "its round goes on, and so does the minute");
    // And once more, when the new one goes away.
    setup.sources = setup.sources.replace(&section, "");
    reload(&setup, &server);
    let read_again = "sources with their tokens, readers and upstreams were read again";
    eventually("it was read again", || server.stderr().matches(read_again).count() == 2);
    assert_eq!(platform.asked("/"), 5);
}

#[test]
fn what_was_sent_to_a_host_still_counts_when_something_else_about_the_source_is_different() {
    let (platform, mut setup, server) = spent();
    let sql = "SELECT began_at FROM upstream_round";
    let first = rows(&open(&setup.journal()), sql);
    setup.sources.push_str("answer_ms_max = 900\n");
    reload(&setup, &server);
    eventually("it is begun anew", || rows(&open(&setup.journal()), sql) != first);
    assert_eq!(platform.asked("/"), 5);
    server.stop();
    assert_eq!(platform.asked("/"), 5);
}

#[test]
fn a_rest_that_a_platform_asked_for_outlasts_a_reload() {
    let platform = Platform::start(Kind::Govuk);
    platform.trouble("/", Trouble::status(503, "retry-after: 3000\r\n"), usize::MAX);
    let mut setup = setup_with(&platform, Kind::Govuk, "");
    let server = setup.start();
    let noted = |setup: &Setup, column: &str| {
        rows(&open(&setup.journal()), &format!("SELECT {column} FROM upstream_round"))
    };
    eventually("it rests", || noted(&setup, "rests_until").iter().any(|until| until != "null"));
    let first = noted(&setup, "began_at");
    setup.sources.push_str("answer_ms_max = 900\n");
    reload(&setup, &server);
    eventually("it is begun anew", || noted(&setup, "began_at") != first);
    eventually("it ends", || server.stderr().contains("it asked to be left alone for"));
    assert_eq!(platform.asked("/"), 1);
}

#[test]
fn a_rest_that_was_noted_is_kept_by_an_upstream_that_is_added_later() {
    let platform = Platform::start(Kind::Gc);
    platform.trouble("/", Trouble::status(503, "retry-after: 3000\r\n"), usize::MAX);
    let mut setup = Setup::new();
    let section = upstream(&setup, &platform, "");
    let server = setup.start();
    let ended = setup.command(&section, &["reconcile"]);
    assert_eq!((ended.code, platform.asked("/")), (Some(1), 1), "{ended:?}");
    setup.sources.push_str(&section);
    reload(&setup, &server);
    eventually("it rests", || server.stderr().contains("it asked to be left alone for"));
    assert_eq!(platform.asked("/"), 1);
}

#[test]
fn the_log_says_that_readers_and_upstreams_were_read_again_and_how_many_there_are() {
    let platform = Platform::start(Kind::Gc);
    let mut setup = Setup::new();
    let server = setup.start();
    let secret = setup.path("secret");
    fs::write(&secret, "3d844edf-8d35-48ac-975b-e847b4f122b0").unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    setup.sources.push_str(&format!(
        "[[source.reader]]\nservice_id = \"26785a09-ab16-4eb0-8407-a37497a57506\"\n\
         secret_file = {secret:?}\n"
    ));
    let section = upstream(&setup, &platform, "");
    setup.sources.push_str(&section);
    reload(&setup, &server);
    let said = "sources with their tokens, readers and upstreams were read again";
    eventually("it is said", || server.stderr().contains(said));
    let stderr = server.stderr();
    let line = stderr.lines().find(|line| line.contains(said)).unwrap();
    for count in ["sources=1", "readers=1", "upstreams=1"] {
        assert!(line.contains(count), "{line}");
    }
}

#[test]
fn how_far_a_source_was_asked_is_not_told_of_one_that_is_asked_no_more() {
    let platform = Platform::start(Kind::Gc);
    platform.add([Row::new(1, "delivered", 100)]);
    let mut setup = setup(&platform, Kind::Gc);
    let server = setup.start();
    round(&server);
    let said = || {
        let page = server.metrics();
        ["behind_seconds", "last_success_timestamp_seconds"]
            .map(|name| metric(&page, &format!("receiptd_reconcile_{name}{{source=\"{SOURCE}\"}}")))
    };
    let [behind, last] = said().map(Option::unwrap);
    assert!(behind < 60.0 && last > 1e9, "{behind} {last}");
    let whole = setup.sources.clone();
    let (without, _) = whole.split_once("[source.upstream]").unwrap();
    setup.sources = without.to_owned();
    reload(&setup, &server);
    eventually("it is asked no more", || said() == [None, None]);
    let healed =
        format!("receiptd_reconcile_healed_total{{source=\"{SOURCE}\",kind=\"notification\"}}");
    assert_eq!(metric(&server.metrics(), &healed), Some(1.0), "what was counted stays");
    setup.sources = whole;
    reload(&setup, &server);
    eventually("it is asked again", || said().iter().all(Option::is_some));
    round(&server);
}
