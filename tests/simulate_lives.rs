//! The lives of messages: what platforms can do and no more, in the platforms' own bytes, with a
//! truth that the receiver comes to in every order.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use receiptd::callback::Kind;
use receiptd::replay::expect;
use receiptd::replay::order::Order;
use receiptd::replay::{Fixture, Offline};
use receiptd::sender::Platform;
use receiptd::simulate::life::{Life, Truth};
use receiptd::simulate::mix::{Mix, Outcome};
use receiptd::simulate::scenario::Scenario;
use serde_json::{Map, Value};
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
        let lives = lives(platform, 2_000);
        let expected = expect::parse(&expectations(&lives)).unwrap();
        let fixtures: Vec<Fixture> = lives
            .iter()
            .flat_map(|life| &life.callbacks)
            .map(|callback| Fixture::new("a life", &callback.body[..]))
            .collect();
        let mut offline = Offline::new("lives", platform.provider()).unwrap();
        for order in [Order::Reversed, Order::Shuffled { seed: 1 }] {
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

/// Lives of one outcome, told once each and in order, without keys nobody knows.
fn of_outcome(platform: Platform, outcome: Outcome, count: u64) -> Vec<Life> {
    let mut mix = Mix::of(platform).only(outcome).unwrap();
    (mix.duplicates, mix.overtaken, mix.arrays) = (0.0, 0.0, 0.0);
    (mix.complaints, mix.unknown_keys) = (0.0, 0.0);
    let scenario = scenario(platform).with_mix(mix);
    (0..count).map(|number| scenario.life(number)).collect()
}

/// The statuses told of a life of the Notify family, in the order in which they came about.
fn statuses(life: &Life) -> Vec<String> {
    let receipts = life.callbacks.iter().filter(|callback| callback.kind == Kind::Receipt);
    receipts
        .map(|callback| {
            let body: Value = serde_json::from_slice(&callback.body).unwrap();
            body["status"].as_str().unwrap().to_owned()
        })
        .collect()
}

/// Every move from one told status to the next.
fn moves(platform: Platform, outcome: Outcome) -> BTreeSet<(String, String)> {
    let lives = of_outcome(platform, outcome, 1_000);
    let pairs = |life: &Life| {
        let told = statuses(life);
        told.windows(2).map(|two| (two[0].clone(), two[1].clone())).collect::<Vec<_>>()
    };
    lives.iter().flat_map(pairs).collect()
}

fn pairs(words: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    words.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect()
}

#[test]
fn gc_notify_moves_between_all_ends_but_from_permanent_failure_to_delivered() {
    let (delivered, temporary, permanent) = ("delivered", "temporary-failure", "permanent-failure");
    let expected = pairs(&[
        (delivered, permanent),
        (delivered, temporary),
        (temporary, delivered),
        (temporary, permanent),
        (permanent, temporary),
    ]);
    assert_eq!(moves(Platform::GcNotify, Outcome::Restless), expected);
}

#[test]
fn va_notify_moves_both_ways_between_delivered_and_permanent_failure() {
    let moves = moves(Platform::VaNotify, Outcome::Restless);
    let expected = pairs(&[
        ("delivered", "permanent-failure"),
        ("permanent-failure", "delivered"),
        ("temporary-failure", "delivered"),
        ("temporary-failure", "permanent-failure"),
    ]);
    let between_ends: BTreeSet<_> = moves.into_iter().filter(|(from, _)| from != "sent").collect();
    assert_eq!(between_ends, expected);
}

#[test]
fn the_nightly_sweep_takes_what_is_stuck_all_at_once_at_the_platforms_hour() {
    for (platform, hour) in [(Platform::GovukNotify, "00:05:00"), (Platform::GcNotify, "05:05:00")]
    {
        let mut instants = BTreeSet::new();
        for life in of_outcome(platform, Outcome::Stuck, 200) {
            let body: Value = serde_json::from_slice(&life.callbacks[0].body).unwrap();
            assert_eq!(body["status"], "temporary-failure");
            instants.insert(body["completed_at"].as_str().unwrap().to_owned());
        }
        assert_eq!(instants.len(), 1, "{instants:?}");
        let only = instants.first().unwrap();
        assert!(only.starts_with("2026-09-0") && only.contains(hour), "{only}");
        assert!(only.as_str() >= "2026-09-04T12:00", "{only}");
    }
}

#[test]
fn every_outcome_comes_as_often_as_its_share_says() {
    let count = 20_000_u32;
    // Outcomes whose truth alone tells them apart.
    for (platform, outcome, status) in [
        (Platform::GcNotify, Outcome::ProviderFailure, "provider-failure"),
        (Platform::GcNotify, Outcome::VirusScanFailed, "virus-scan-failed"),
        (Platform::GcNotify, Outcome::Technical, "technical-failure"),
        (Platform::GovukNotify, Outcome::Delivered, "delivered"),
        (Platform::GovukNotify, Outcome::Permanent, "permanent-failure"),
        (Platform::VaNotify, Outcome::Sent, "sent"),
        (Platform::NotifyNl, Outcome::Temporary, "temporary-failure"),
    ] {
        let share = Mix::of(platform).shares().find(|(known, _)| *known == outcome).unwrap().1;
        let scenario = scenario(platform);
        let found = (0..u64::from(count)).filter(|number| {
            let Truth::Notification(keys) = scenario.truth(*number) else { return false };
            keys["status"] == status
        });
        let found = f64::from(u32::try_from(found.count()).unwrap()) / f64::from(count);
        let deviation = (share * (1.0 - share) / f64::from(count)).sqrt();
        assert!((found - share).abs() < 4.0 * deviation, "{platform} {outcome}: {found}");
    }
}

#[test]
fn every_outcome_of_every_platform_comes_about_and_tells_what_it_should() {
    for platform in Platform::ALL {
        let outcomes: Vec<_> = Mix::of(platform).shares().map(|(outcome, _)| outcome).collect();
        for outcome in outcomes {
            let lives = of_outcome(platform, outcome, 50);
            let is_silent = |life: &Life| life.callbacks.is_empty();
            if outcome == Outcome::Untold {
                assert!(lives.iter().all(|it| is_silent(it) && it.truth == Truth::Silent));
                continue;
            }
            assert!(!lives.iter().any(is_silent), "{platform} {outcome}");
            let is_text = outcome == Outcome::ReceivedText;
            let is_message = |life: &Life| matches!(life.truth, Truth::Message(_));
            assert!(lives.iter().all(|life| is_message(life) == is_text), "{platform} {outcome}");
        }
    }
}

/// The keys of a body in their order, those of objects within it after their own.
fn keys(body: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(body).unwrap();
    let found = text.match_indices("\":").map(|(end, _)| {
        let start = text[..end].rfind('"').unwrap();
        text[start + 1..end].to_owned()
    });
    found.collect()
}

#[test]
fn keys_and_their_order_are_those_of_the_fixtures() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for (platform, outcome, folder) in [
        (Platform::GcNotify, Outcome::Delivered, "gc-notify/delivered"),
        (Platform::GcNotify, Outcome::ReceivedText, "gc-notify/received-text-settles-nothing"),
        (Platform::GovukNotify, Outcome::Delivered, "govuk-notify/delivered"),
        (
            Platform::GovukNotify,
            Outcome::ReceivedText,
            "govuk-notify/received-text-settles-nothing",
        ),
        (
            Platform::GovukNotify,
            Outcome::ReturnedLetter,
            "govuk-notify/returned-letter-from-the-api",
        ),
        (Platform::UsNotify, Outcome::Delivered, "us-notify/delivered-to-is-1"),
        (Platform::UsNotify, Outcome::ReceivedText, "us-notify/received-text-settles-nothing"),
        (Platform::VaNotify, Outcome::Delivered, "va-notify/delivered"),
        (Platform::VaNotify, Outcome::Delivered, "va-notify/provider-payload-is-kept-as-sent"),
        (Platform::VaNotify, Outcome::ReceivedText, "va-notify/received-text-settles-nothing"),
        (Platform::VaNotifySigned, Outcome::Delivered, "va-notify/notification-level-sent"),
        (Platform::NotifyNl, Outcome::Delivered, "notify-nl/delivered"),
        (Platform::NotifyNl, Outcome::ReceivedText, "notify-nl/received-text-settles-nothing"),
        (Platform::Ajo, Outcome::Delivered, "ajo/event-email-sent"),
        (Platform::Ajo, Outcome::Delivered, "ajo/event-sms-sent"),
        (Platform::Ajo, Outcome::Bounced, "ajo/event-email-bounce-sync-hard-10"),
        (Platform::Ajo, Outcome::Excluded, "ajo/event-email-exclude-suppressed"),
        (Platform::Ajo, Outcome::Denylisted, "ajo/event-email-denylist"),
    ] {
        let mut files: Vec<_> = fs::read_dir(root.join(folder).join("callbacks"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let expected = keys(&fs::read(&files[0]).unwrap());
        let expected: Vec<_> = expected.into_iter().filter(|key| key != "key").collect();
        let lives = of_outcome(platform, outcome, 200);
        // What is nested in a payload is the provider's own.
        let own = ["event_type", "segments", "raw"];
        let is_there = lives.iter().flat_map(|life| &life.callbacks).any(|callback| {
            let found = keys(&callback.body).into_iter().filter(|key| !own.contains(&&**key));
            found.eq(expected.iter().cloned())
        });
        assert!(is_there, "{platform} {outcome}: none has {expected:?}");
    }
}
