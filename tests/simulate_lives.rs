//! The lives of messages: what platforms can do and no more, in the platforms' own bytes, with a
//! truth that the receiver comes to in every order.

use std::collections::HashSet;
use std::time::Duration;

use receiptd::replay::expect;
use receiptd::replay::order::Order;
use receiptd::replay::{Fixture, Offline};
use receiptd::sender::Platform;
use receiptd::simulate::life::{Life, Truth};
use receiptd::simulate::scenario::Scenario;
use serde_json::Map;
use sha2::{Digest as _, Sha256};

const SEED: u64 = 7;

fn scenario(platform: Platform) -> Scenario {
    Scenario::new(platform, SEED, 10.0)
}

fn lives(platform: Platform, count: u64) -> Vec<Life> {
    (0..count).map(|number| scenario(platform).life(number)).collect()
}

/// The lines that `replay --expect` reads.
fn expectations<'l>(lives: impl IntoIterator<Item = &'l Life>) -> String {
    let mut lines = String::new();
    for life in lives {
        if let Truth::Notification(keys) = &life.truth {
            lines.push_str(&serde_json::to_string(keys).unwrap());
            lines.push('\n');
        }
    }
    lines
}

#[test]
fn the_receiver_comes_to_the_truth_in_every_order() {
    for platform in Platform::ALL {
        let lives = lives(platform, 2_500);
        let expected = expect::parse(&expectations(&lives)).unwrap();
        let fixtures: Vec<Fixture> = lives
            .iter()
            .flat_map(|life| &life.callbacks)
            .map(|callback| Fixture::new("a life", &callback.body[..]))
            .collect();
        let mut offline = Offline::new("lives", platform.provider()).unwrap();
        for order in [Order::Reversed, Order::Shuffled { seed: 1 }, Order::Shuffled { seed: 2 }] {
            let arranged = order.arrange(&fixtures, 1);
            let outcome = offline.settle(&arranged).unwrap();
            assert_eq!(outcome.unrecognised, [], "{platform} {order:?}");
            let differences: Vec<String> = expect::differences(&expected, &outcome.notifications)
                .iter()
                .take(10)
                .map(|difference| format!("{platform} {order:?} {difference}"))
                .collect();
            assert!(differences.is_empty(), "{}", differences.join("\n"));
        }
    }
}

#[test]
fn the_same_seed_sends_the_same_bytes_for_ever() {
    let pinned = [
        (Platform::GcNotify, "be591a46c3bfb331"),
        (Platform::GcNotifyBefore202608, "85b14e2e6042876d"),
        (Platform::GovukNotify, "744595291f52b4c4"),
        (Platform::UsNotify, "db1b2432aa128804"),
        (Platform::VaNotify, "23e170c6d0989716"),
        (Platform::VaNotifySigned, "5a9a3bf5cee6c081"),
        (Platform::NotifyNl, "2beaafbcbd384b48"),
        (Platform::Ajo, "deed05f5eb0e90aa"),
    ];
    let digests = pinned.map(|(platform, _)| (platform, digest(&lives(platform, 1_000))));
    let digests: Vec<_> = digests.iter().map(|(it, digest)| (*it, digest.as_str())).collect();
    assert_eq!(digests, pinned);
}

/// Of everything that is sent, when, and of the truth.
fn digest(lives: &[Life]) -> String {
    let mut hash = Sha256::new();
    for life in lives {
        for callback in &life.callbacks {
            hash.update(callback.after.as_micros().to_le_bytes());
            hash.update(callback.kind.as_str());
            hash.update(&callback.body);
        }
        let (mark, keys) = match &life.truth {
            Truth::Notification(keys) => ("n", keys),
            Truth::Message(keys) => ("m", keys),
            Truth::Silent => ("s", &Map::new()),
        };
        hash.update(mark);
        hash.update(serde_json::to_string(keys).unwrap());
    }
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_life_depends_on_its_number_and_the_scenario_alone() {
    for platform in Platform::ALL {
        let scenario = scenario(platform);
        let forwards: Vec<_> = (0..200).map(|number| scenario.life(number)).collect();
        for number in (0..200).rev() {
            let life = scenario.clone().life(number);
            assert_eq!(life, forwards[usize::try_from(number).unwrap()]);
            assert_eq!(life.callbacks, scenario.callbacks(number));
            assert_eq!(life.truth, scenario.truth(number));
        }
        let mut other = scenario;
        other.seed += 1;
        assert_ne!(other.life(0), forwards[0]);
    }
}

#[test]
fn callbacks_stand_in_the_order_in_which_they_are_queued_and_never_before_the_message() {
    for platform in Platform::ALL {
        let scenario = scenario(platform);
        for number in 0..2_000 {
            let callbacks = scenario.callbacks(number);
            assert!(callbacks.is_sorted_by_key(|callback| callback.after), "{platform} {number}");
            let sent_after = scenario.sent_after(number);
            assert!(callbacks.iter().all(|it| it.after >= sent_after), "{platform} {number}");
        }
    }
}

#[test]
fn without_late_news_everything_is_queued_within_45_minutes() {
    let latest = |scenario: &Scenario| {
        let after = |number| {
            let last = scenario.callbacks(number).last().map(|callback| callback.after);
            last.map_or(Duration::ZERO, |after| after - scenario.sent_after(number))
        };
        (0..5_000).map(after).max().unwrap()
    };
    for platform in Platform::ALL {
        assert!(latest(&scenario(platform).without_late_news()) < Duration::from_secs(45 * 60));
        if platform != Platform::VaNotifySigned {
            assert!(latest(&scenario(platform)) > Duration::from_secs(3_600), "{platform}");
        }
    }
}

#[test]
fn ids_are_distinct_and_shaped_like_uuids() {
    let mut ids = HashSet::new();
    for platform in [Platform::GcNotify, Platform::GovukNotify] {
        for life in lives(platform, 5_000) {
            let (Truth::Notification(keys) | Truth::Message(keys)) = life.truth else { continue };
            let id = keys["id"].as_str().unwrap().to_owned();
            let groups: Vec<_> = id.split('-').map(str::len).collect();
            assert_eq!(groups, [8, 4, 4, 4, 12], "{id}");
            assert_eq!(&id[14..15], "4", "{id}");
            assert!(ids.insert(id));
        }
    }
}

/// A body written again by another program: key order kept, Python's spaces, or none for Adobe.
fn written_again(body: &[u8], platform: Platform) -> String {
    let is_python = platform != Platform::Ajo;
    // `serde_json` sorts keys, so the tokens are copied, not the value.
    let text = std::str::from_utf8(body).unwrap();
    let (mut out, mut in_string, mut escaped) = (String::new(), false, false);
    for c in text.chars() {
        if in_string {
            out.push(c);
            (in_string, escaped) = (c != '"' || escaped, c == '\\' && !escaped);
            continue;
        }
        match c {
            ' ' => {}
            ',' | ':' if is_python => out.extend([c, ' ']),
            _ => out.push(c),
        }
        in_string = c == '"';
    }
    out
}

#[test]
fn bodies_are_ascii_with_the_spaces_of_their_sender() {
    for platform in Platform::ALL {
        let mut has_escape = false;
        for callback in lives(platform, 1_000).iter().flat_map(|life| &life.callbacks) {
            assert!(callback.body.iter().all(|byte| matches!(byte, b' '..=b'~')));
            let body = std::str::from_utf8(&callback.body).unwrap();
            assert_eq!(body, written_again(&callback.body, platform));
            has_escape |= body.contains("\\u00e9");
        }
        assert!(has_escape, "{platform}");
    }
}
